//! `signal`: to the holder's command, proven.

use serde_json::json;

use crate::cli::args;
use crate::cli::args::Global;
use crate::cli::context::by_us;
use crate::cli::output::{Answer, Complaint, Outcome, exit};
use crate::stop::Signalled;
use crate::{Existing, InstanceId, Verdict, sys};

pub(super) fn signal(global: &Global, arguments: &args::Signal) -> Outcome {
    let office = global.office()?;
    let name = sys::signal_name(arguments.signal);
    // What may not be sent is wrong also where nobody runs.
    let signalled = match global.options().find()? {
        Existing::Store(store) => {
            global.profile(&store)?.signal(&office.kind, arguments.signal, &by_us("signal"))?
        }
        Existing::LostOwner { .. } | Existing::Nothing => {
            Signalled::check(arguments.signal)?;
            Signalled::NotRunning
        }
    };
    let (pid, instance, holder, served_by) = match &signalled {
        Signalled::Sent { instance, pid } => (Some(*pid), Some(*instance), None, None),
        Signalled::NotRunning => (None, None, None, None),
        Signalled::Served(by) => (None, None, None, Some(by)),
        Signalled::NotSent(holder, _) | Signalled::WouldEnd(holder, _) => {
            (holder.pid, holder.instance, Some(holder), None)
        }
    };
    let document = json!({
        "profile": office.profile,
        "kind": office.kind,
        "signal": name,
        "sent": matches!(signalled, Signalled::Sent { .. }),
        "pid": pid,
        "instance": instance.map(InstanceId::as_i64),
        "holder": holder,
        "served_by": served_by.map(|by| json!({"profile": by.profile, "kind": by.kind})),
    });
    let (code, text, complaint) = match &signalled {
        Signalled::Sent { pid, .. } => {
            (exit::OK, format!("{office}: {name} sent to pid {pid}\n"), None)
        }
        Signalled::NotRunning => (exit::NOT_RUNNING, format!("{office}: not running\n"), None),
        Signalled::Served(by) => {
            let what = format!("{office} is served by {by}, together with other profiles");
            let advice = format!(
                "`incumbent {}`, if you mean all that it serves",
                by.verb(&format!("signal {name}"))
            );
            (exit::NO, String::new(), Some(Complaint::new(what).advising(advice)))
        }
        Signalled::WouldEnd(_, pid) => {
            let what = format!(
                "{office}: {name} was not sent: pid {pid} does not handle it, and would end by it"
            );
            let advice =
                format!("`incumbent {}` ends it, and records a planned stop", office.verb("stop"));
            (exit::NO, String::new(), Some(Complaint::new(what).advising(advice)))
        }
        Signalled::NotSent(holder, why) => {
            let is_unknown = holder.verdict == Verdict::Unknown;
            let code = if is_unknown { exit::UNKNOWN } else { exit::NO };
            let mut complaint = Complaint::new(format!("{office}: {name} was not sent: {why}"));
            if is_unknown || holder.cannot_be_signalled() {
                complaint = complaint.advising(holder.advice());
            }
            (code, String::new(), Some(complaint))
        }
    };
    Ok(Answer::new(code, text, document).complaining(complaint))
}
