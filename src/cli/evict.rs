//! `evict`.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::advice::Invocation;
use crate::cli::args;
use crate::cli::args::Global;
use crate::cli::context::by_us;
use crate::cli::each::named;
use crate::cli::output::{Answer, Complaint, Outcome, exit};
use crate::stop::{Eviction, Force};
use crate::{Existing, Holder, Office, Reason, Report, Store, Verdict, Wanted, path_text};

pub(super) fn evict(global: &Global, arguments: &args::Evict) -> Outcome {
    let office = global.office()?;
    let force = if arguments.force { Force::Yes } else { Force::No };
    let mut then = None;
    let mut evict_in = |store: &Store| {
        let verb = if arguments.force { "evict --force" } else { "evict" };
        let profile = store.profile(&office.profile)?;
        then = profile.status_of(&office.kind).ok().map(|report| Bereft::of(&report));
        profile.evict(&office.kind, force, &by_us(verb))
    };
    let eviction = match global.options().find()? {
        Existing::Store(store) => evict_in(&store)?,
        // What it holds stands in the way of the next store. That has to be there for it to be
        // removed.
        Existing::LostOwner { .. } if arguments.force => evict_in(&global.options().open()?)?,
        Existing::LostOwner { pid, .. } => {
            Eviction::Refused(Box::new(Holder::orphan(Wanted::Office(office.clone()), pid)))
        }
        Existing::Nothing => Eviction::Nothing,
    };
    let forgotten = |home: &Path| forgotten(&office, home, &Invocation::of(global));
    let (text, document, code) = match &eviction {
        Eviction::Nothing => {
            (format!("{office}: no holder on record, nothing to evict\n"), Value::Null, exit::OK)
        }
        Eviction::Done { instance, pid, verdict, reason, legacy_home } => (
            format!(
                "{office}: evicted {}, which was {verdict}: {}\n{}{}",
                named(*pid),
                reason.because(),
                if *verdict == Verdict::Dead { String::new() } else { what_then(then, *pid) },
                legacy_home.as_deref().map(&forgotten).unwrap_or_default()
            ),
            with_home(
                json!({
                    "pid": pid,
                    "profile": office.profile.as_str(),
                    "instance": instance.as_i64(),
                    "verdict": verdict,
                    "reason": reason,
                    "legacy_home": null,
                }),
                legacy_home.as_deref(),
            ),
            exit::OK,
        ),
        Eviction::LegacyHomeForgotten(home) => (
            forgotten(home),
            with_home(
                json!({
                    "pid": null,
                    "profile": office.profile.as_str(),
                    "instance": null,
                    "verdict": "unknown",
                    "reason": "legacy_home",
                    "legacy_home": null,
                }),
                Some(home),
            ),
            exit::OK,
        ),
        Eviction::OrphansRemoved(count) => (
            format!(
                "{office}: {count} lock(s) of a deleted store no longer block claims; their \
                 processes were left alone\n"
            ),
            json!({
                "pid": null,
                "profile": office.profile.as_str(),
                "instance": null,
                "verdict": "alive",
                "reason": "orphaned_anchor",
            }),
            exit::OK,
        ),
        Eviction::Refused(_) => (String::new(), Value::Null, exit::NOT_NOW),
    };
    let refused = match &eviction {
        Eviction::Refused(holder) => Some(holder),
        Eviction::Nothing
        | Eviction::Done { .. }
        | Eviction::LegacyHomeForgotten(_)
        | Eviction::OrphansRemoved(_) => None,
    };
    let holder = json!(refused);
    let document = json!({"evicted": document, "holder": holder});
    Ok(Answer::new(code, text, document).complaining(refused.map(|holder| {
        Complaint::new(holder.to_string()).advising(holder.advice()).advising_also(
            "incumbent evict",
            "`incumbent evict --force` ends its record: a `run` then ends its command and exits \
             with 75, another process goes on without the office",
        )
    })))
}

/// What a holder does that has lost what it held, as far as that is known.
#[derive(Clone, Copy)]
pub(super) enum Bereft {
    /// A `run`, whose command is this process.
    EndsCommand(u32),
    /// Another process, or one that cannot be seen from here.
    GoesOn,
}

impl Bereft {
    fn of(report: &Report) -> Self {
        Self::with(report.child_pid, &report.reason)
    }

    /// Of a holder with this command.
    pub(super) fn with(command: Option<u32>, reason: &Reason) -> Self {
        match command {
            // Its `run` is gone.
            Some(_) if *reason == Reason::ChildLives => Self::GoesOn,
            Some(pid) => Self::EndsCommand(pid),
            None => Self::GoesOn,
        }
    }
}

fn what_then(then: Option<Bereft>, pid: Option<u32>) -> String {
    let pid = named(pid);
    match then {
        Some(Bereft::EndsCommand(command)) => format!(
            "  {pid} is a `run`: it notices within a second, ends its command (pid {command}), and \
             exits with 75\n"
        ),
        Some(Bereft::GoesOn) | None => format!(
            "  {pid} was not ended, and goes on without the office (but for the command of `run \
             --exec`, which is ended)\n"
        ),
    }
}

fn with_home(mut document: Value, home: Option<&Path>) -> Value {
    if let Some(home) = home {
        path_text::put(&mut document, "legacy_home", home);
    }
    document
}

fn forgotten(office: &Office, home: &Path, invocation: &Invocation) -> String {
    let quoted = path_text::quoted(home);
    let advice = invocation.complete(&format!(
        "`incumbent import {quoted}` or `incumbent run --legacy-home {quoted} -- CMD`"
    ));
    let home = home.display();
    format!("{office}: the older gateway of {home} no longer blocks claims; {advice} undoes that\n")
}
