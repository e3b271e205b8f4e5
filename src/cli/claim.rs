//! `claim` and `release`: records for processes that do not link the library.

use serde_json::{Value, json};

use crate::cli::args::Global;
use crate::cli::context::by_us;
use crate::cli::output::{Answer, Complaint, Outcome, exit};
use crate::cli::waiting::opening;
use crate::cli::{args, lost_store, missing};
use crate::clock::{millis, rfc3339};
use crate::keeper::{Anchoring, KeptClaim, KeptRelease, Whom};
use crate::stop::Evicted;
use crate::{Holder, InstanceId};

/// Whom a verb is about.
pub(super) fn whom(pid: Option<u32>) -> Whom {
    pid.map_or(Whom::Caller, Whom::Process)
}

pub(super) fn anchoring(no_keeper: bool) -> Anchoring {
    if no_keeper { Anchoring::None } else { Anchoring::Keeper }
}

pub(super) fn claim(global: &Global, arguments: &args::Claim) -> Outcome {
    global.check()?;
    let office = global.office()?;
    let whom = whom(arguments.pid);
    whom.check()?;
    let options = global.options();
    let progress = global.doing("claim", opening(&options), None);
    let store = options.open()?;
    drop(progress);
    let profile = global.profile(&store)?;
    let process = store.kept(whom).anchoring(anchoring(arguments.no_keeper));
    let pid_of = |pid: Option<u32>| pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    Ok(match process.claim(&profile, &office.kind)? {
        KeptClaim::Granted { instance, evicted } => {
            let instead = evicted.as_ref().map_or_else(String::new, |evicted| {
                format!("; the holder before was dead ({})", evicted.reason.in_words())
            });
            let pid = pid_of(process.pid().ok());
            let text = format!("{office}: claimed for pid {pid}{instead}\n");
            Answer::new(exit::OK, text, document(Some(instance), evicted.as_ref(), None, None))
        }
        KeptClaim::Already { instance, pid, since_ms } => {
            let previous = json!({
                "instance": instance.as_i64(),
                "pid": pid,
                "since": rfc3339(since_ms),
            });
            let text = format!("{office}: pid {} holds it already\n", pid_of(pid));
            Answer::new(exit::OK, text, document(Some(instance), None, Some(&previous), None))
        }
        KeptClaim::Held(holder) => {
            Answer::new(exit::NOT_NOW, "", document(None, None, None, Some(&holder))).complaining(
                Complaint::new(holder.to_string()).advising(holder.advice_to_claimant()),
            )
        }
    })
}

/// The document of a claim.
pub(super) fn document(
    granted: Option<InstanceId>,
    evicted: Option<&Evicted>,
    previous: Option<&Value>,
    holder: Option<&Holder>,
) -> Value {
    json!({
        "granted": granted.is_some(),
        "fence": granted.map(InstanceId::as_i64),
        "instance": granted.map(InstanceId::as_i64),
        "reacquired": previous.is_some(),
        "previous": previous,
        "evicted": evicted,
        "holder": holder,
        "retry_after_ms": holder.and_then(|holder| holder.retry_after).map(millis),
    })
}

pub(super) fn release(global: &Global, arguments: &args::Release) -> Outcome {
    let office = global.office()?;
    let answer = lost_store::ask(global, |store| {
        store.kept(whom(arguments.pid)).by(by_us("release")).release(&office)
    })?;
    let answer = match answer {
        Some(answer) => answer,
        None => KeptRelease::NotHeld {
            why: format!("nobody holds {office}: {}", missing::here(global)?),
            advice: None,
        },
    };
    Ok(match answer {
        KeptRelease::Released(instance) => {
            let document = json!({
                "released": true, "instance": instance.as_i64(), "reason": null,
            });
            Answer::new(exit::OK, format!("{office}: released\n"), document)
        }
        KeptRelease::NotHeld { why, advice } => {
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
