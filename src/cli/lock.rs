//! `lock`: scoped locks for processes that do not link the library.
//!
//! `lock acquire` makes and migrates the store like `claim`: it records an owner.

use serde_json::{Value, json};

use crate::cli::args::Global;
use crate::cli::claim::{anchoring, whom};
use crate::cli::context::by_us;
use crate::cli::interrupt::Interrupt;
use crate::cli::locks::place;
use crate::cli::output::{Answer, Complaint, Outcome, exit};
use crate::cli::waiting::{Becomes, Waited};
use crate::cli::{args, identity, lost_store, missing};
use crate::clock::{length, millis};
use crate::keeper::{KeptGrant, KeptLock, KeptProcess, KeptStanding};
use crate::lock::{AcquireOptions, Stopped};
use crate::{Acquire, Holder, LockName, Result, Wait};

pub(crate) fn acquire(global: &Global, arguments: &args::LockAcquire) -> Outcome {
    let identity = &arguments.identity;
    let mut request = identity::request(
        &arguments.scope,
        identity.identity.as_ref(),
        identity.identity_env.as_ref(),
    )?;
    if let Some(metadata) = &arguments.metadata {
        request = request.metadata(identity::parse_metadata(metadata)?)?;
    }
    if let Some(ttl) = arguments.ttl {
        request = request.ttl(ttl)?;
    }
    let profile = global.profile_name()?;
    let whom = whom(arguments.pid);
    whom.check()?;
    let wait = arguments.wait.unwrap_or_default();
    let progress = (!matches!(wait, Wait::No)).then(|| {
        let locks = vec![request.name().clone()];
        let (office, becomes) = (None, Becomes::Nothing);
        global.free("lock acquire", Waited { office, locks, wait, replaces: false, becomes })
    });
    let store = global.options().open()?;
    let stopped = if arguments.evict_stopped { Stopped::Evict } else { Stopped::Respect };
    // What does not wait ends as ever.
    let interrupt = (!matches!(wait, Wait::No)).then(Interrupt::caught);
    let options = AcquireOptions::new().stopped(stopped).wait(wait);
    let options = match &interrupt {
        Some(interrupt) => options.cancel(interrupt.cancel()),
        None => options,
    };
    let process = store.kept(whom).anchoring(anchoring(arguments.no_keeper));
    let process = process.by(by_us("lock acquire"));
    let acquired = process.acquire(&profile, &request, &options);
    drop(progress);
    Ok(match acquired? {
        Acquire::Granted(granted) => {
            Answer::new(exit::OK, granted_text(&granted), document(Ok(&granted)))
        }
        Acquire::Held(holder) => {
            let is_interrupted = interrupt.is_some_and(|interrupt| interrupt.came());
            let begin = if is_interrupted { "interrupted, and nothing was acquired: " } else { "" };
            let complaint = Complaint::new(format!("{begin}{holder}")).advising(holder.advice());
            Answer::new(exit::NOT_NOW, "", document(Err(&holder))).complaining(complaint)
        }
    })
}

fn granted_text(granted: &KeptGrant) -> String {
    let pid = granted.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    let how = match (&granted.previous, &granted.evicted) {
        (Some(_), _) => format!("pid {pid} holds it already"),
        (None, Some(evicted)) => format!(
            "acquired for pid {pid}; removed the lock of {} ({})",
            evicted.pid.map_or_else(|| "a dead holder".to_owned(), |pid| format!("pid {pid}")),
            evicted.reason.in_words()
        ),
        (None, None) => format!("acquired for pid {pid}"),
    };
    format!("{}: {how}, fence {}\n", granted.lock.name, granted.lock.fence)
}

fn document(answer: std::result::Result<&KeptGrant, &Holder>) -> Value {
    let (granted, holder) = match answer {
        Ok(granted) => (Some(granted), None),
        Err(holder) => (None, Some(holder)),
    };
    json!({
        "granted": granted.is_some(),
        "fence": granted.map(|granted| granted.lock.fence),
        "instance": granted.map(|granted| granted.lock.instance.as_i64()),
        "reacquired": granted.is_some_and(|granted| granted.previous.is_some()),
        "previous": granted.and_then(|granted| granted.previous.as_ref()),
        "evicted": granted.and_then(|granted| granted.evicted.as_ref()),
        "holder": holder,
        "retry_after_ms": holder.and_then(|holder| holder.retry_after).map(millis),
    })
}

/// What `question` finds in the store about the lock.
fn ask(
    global: &Global,
    pid: Option<u32>,
    name: &LockName,
    question: impl FnOnce(KeptProcess) -> Result<KeptStanding>,
) -> Result<KeptStanding> {
    let found = lost_store::ask(global, |store| question(store.kept(whom(pid))))?;
    Ok(match found {
        Some(found) => found,
        None => KeptStanding::NotHeld {
            why: format!("nobody holds {name}: {}", missing::here(global)?),
        },
    })
}

/// A verb's answer about one lock.
fn answer(done: &str, found: KeptStanding, more: impl FnOnce(&KeptLock) -> String) -> Answer {
    match found {
        KeptStanding::Held(lock) => {
            let mut document = json!({
                done: true, "fence": lock.fence, "instance": lock.instance.as_i64(), "reason": null,
            });
            if lock.slot.is_some() {
                document["slot"] = json!(lock.slot);
            }
            let text = format!("{}: {}\n", place(&lock.name, lock.slot), more(&lock));
            Answer::new(exit::OK, text, document)
        }
        KeptStanding::NotHeld { why } => {
            let document = json!({done: false, "fence": null, "instance": null, "reason": why});
            Answer::new(exit::NO, "", document).complaining(Complaint::new(why))
        }
    }
}

fn ref_name(arguments: &args::LockRef) -> Result<LockName> {
    let identity = &arguments.identity;
    identity::name(&arguments.scope, identity.identity.as_ref(), identity.identity_env.as_ref())
}

pub(super) fn verify(global: &Global, arguments: &args::LockRef) -> Outcome {
    let name = ref_name(arguments)?;
    let found =
        ask(global, arguments.pid, &name, |process| process.verify_lock(&name, arguments.fence))?;
    Ok(answer("held", found, |lock| format!("held, fence {}", lock.fence)))
}

pub(super) fn renew(global: &Global, arguments: &args::LockRef) -> Outcome {
    let name = ref_name(arguments)?;
    let found =
        ask(global, arguments.pid, &name, |process| process.renew_lock(&name, arguments.fence))?;
    Ok(answer("renewed", found, |lock| match lock.ttl {
        Some(ttl) => format!("renewed for {}, fence {}", length(millis(ttl)), lock.fence),
        None => format!("held without a lease, fence {}", lock.fence),
    }))
}

pub(super) fn release(global: &Global, arguments: &args::LockRelease) -> Outcome {
    if arguments.all {
        return release_all(global, arguments.pid);
    }
    let scope = arguments.scope.as_deref().unwrap_or_default();
    let name = identity::name(scope, arguments.identity.as_ref(), arguments.identity_env.as_ref())?;
    let found = ask(global, arguments.pid, &name, |process| {
        process.by(by_us("lock release")).release_lock(&name, arguments.fence)
    })?;
    Ok(answer("released", found, |_| "released".to_owned()))
}

/// Releases the locks of one process, or of the run we are in, and prints how many those were.
fn release_all(global: &Global, pid: Option<u32>) -> Outcome {
    let released = lost_store::ask(global, |store| {
        store.kept(whom(pid)).by(by_us("lock release --all")).release_locks()
    })?;
    let count = released.unwrap_or(0);
    Ok(Answer::new(exit::OK, format!("{count}\n"), json!({"released": count})))
}
