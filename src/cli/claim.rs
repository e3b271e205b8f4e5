//! `claim` and `release`: records for processes that do not link the library.

use serde_json::json;

use crate::cli::advice::Invocation;
use crate::cli::args::Global;
use crate::cli::context::by_us;
use crate::cli::keeper::KeeperFor;
use crate::cli::output::{Answer, Complaint, Outcome, exit};
use crate::cli::{args, keeper, lost_store};
use crate::keeper::record::{RecordOutcome, RecordedBy};
use crate::keeper::release::NotYours;
use crate::keeper::target::Target;
use crate::keeper::{record, release};

pub(super) fn claim(global: &Global, arguments: &args::Claim) -> Outcome {
    global.check()?;
    let office = global.office()?;
    let named = arguments.pid.map(Target::prove).transpose()?;
    let store = global.options().open()?;
    let profile = global.profile(&store)?;
    let pid = match &named {
        Some(target) => target.pid,
        None => match release::current_run(&store)? {
            Some(run) if run.office().as_ref() == Some(&office) => {
                return Ok(show(global, keeper::already(&office, &run)));
            }
            run => run.and_then(|run| run.pid).map_or_else(release::parent, Ok)?,
        },
    };
    let target = named.map_or_else(|| Target::prove(pid), Ok)?;
    let recorder = if arguments.no_keeper { RecordedBy::NoKeeper } else { RecordedBy::Verb };
    let report = match record::record(&store, &office, profile.home(), &target, recorder)? {
        RecordOutcome::NeedsKeeper => {
            let purpose = KeeperFor::Office(&office, profile.home());
            keeper::start(global, &store, &purpose, &target)?
        }
        answer => keeper::report(&office, &target, &answer),
    };
    Ok(show(global, report))
}

pub(super) fn show(global: &Global, mut report: keeper::KeeperAnswer) -> Answer {
    Invocation::of(global).complete_in(&mut report.document);
    Answer::new(report.code, report.text, report.document).complaining(report.complaint)
}

pub(super) fn release(global: &Global, arguments: &args::Release) -> Outcome {
    let office = global.office()?;
    let answer = lost_store::ask(global, |store| {
        release::release_in(store, &office, arguments.pid, &by_us("release"))
    })?;
    let answer = answer.unwrap_or_else(|| {
        let why = format!("{office} was never claimed: no store was found");
        Err(NotYours { why, advice: None })
    });
    Ok(match answer {
        Ok(instance) => {
            let document = json!({
                "released": true, "instance": instance.as_i64(), "reason": null,
            });
            Answer::new(exit::OK, format!("{office}: released\n"), document)
        }
        Err(NotYours { why, advice }) => {
            let document = json!({"released": false, "instance": null, "reason": why});
            let complaint = Complaint::new(why);
            let complaint = match advice {
                Some(advice) => complaint.advising(advice),
                None => complaint,
            };
            Answer::new(exit::NO, "", document).complaining(complaint)
        }
    })
}
