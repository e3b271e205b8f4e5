//! `lock`: scoped locks for processes that do not link the library.
//!
//! `lock acquire` makes and migrates the store like `claim`: it records an owner.

use serde_json::{Value, json};

use crate::cli::args::Global;
use crate::cli::claim::show;
use crate::cli::context::by_us;
use crate::cli::keeper::KeeperFor;
use crate::cli::output::{Answer, Complaint, Outcome, exit};
use crate::cli::{args, identity, keeper, lost_store};
use crate::clock::{length, millis};
use crate::keeper::acquire::{self, Acquiring};
use crate::keeper::locks::{self, LockQuestion, LockRow};
use crate::keeper::target::Target;
use crate::lock::Stopped;
use crate::scoped::GrantedLock;
use crate::{Holder, LockName, Result, Store, sys};

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
    let named = arguments.pid.map(Target::prove).transpose()?;
    let store = global.options().open()?;
    let acquiring = Acquiring::new(&store, profile, named)?;
    let asked = acquire::LockWish {
        request: &request,
        stopped: if arguments.evict_stopped { Stopped::Evict } else { Stopped::Respect },
        keeper: !arguments.no_keeper,
        wait: arguments.wait.unwrap_or_default(),
        by: &by_us("lock acquire"),
    };
    let answer = acquire::acquire(&store, &acquiring, asked, |profile, target| {
        let report = keeper::start(global, &store, &KeeperFor::Locks(profile), target)?;
        Ok(if report.code == exit::OK { Ok(()) } else { Err(report) })
    })?;
    Ok(match answer {
        acquire::AcquireAnswer::KeeperFailed(report) => show(global, report),
        acquire::AcquireAnswer::Granted(granted) => {
            let text = granted_text(&acquiring, &granted);
            Answer::new(exit::OK, text, document(Ok(&granted)))
        }
        acquire::AcquireAnswer::Held(holder) => {
            Answer::new(exit::NOT_NOW, "", document(Err(&holder)))
                .complaining(Complaint::new(holder.to_string()).advising(holder.advice()))
        }
    })
}

fn granted_text(acquiring: &Acquiring, granted: &GrantedLock) -> String {
    let pid = acquiring.pid().map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    let how = match (&granted.previous, &granted.evicted) {
        (Some(_), _) => format!("pid {pid} holds it already"),
        (None, Some(evicted)) => format!(
            "acquired for pid {pid}, in the place of {} ({})",
            evicted.pid.map_or_else(|| "another".to_owned(), |pid| format!("pid {pid}")),
            evicted.reason.in_words()
        ),
        (None, None) => format!("acquired for pid {pid}"),
    };
    format!("{}: {how}, fence {}\n", granted.name, granted.fence)
}

fn document(answer: std::result::Result<&GrantedLock, &Holder>) -> Value {
    let (granted, holder) = match answer {
        Ok(granted) => (Some(granted), None),
        Err(holder) => (None, Some(holder)),
    };
    json!({
        "granted": granted.is_some(),
        "fence": granted.map(|granted| granted.fence),
        "instance": granted.map(|granted| granted.instance.as_i64()),
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
    name: &LockName,
    question: impl Fn(&Store) -> Result<locks::LockAnswer>,
) -> Result<std::result::Result<LockRow, String>> {
    let found = lost_store::ask(global, question)?;
    Ok(found.unwrap_or_else(|| Err(format!("nobody holds {name}: no store was found"))))
}

/// A verb's answer about one lock.
fn answer(
    done: &str,
    found: std::result::Result<LockRow, String>,
    more: impl FnOnce(&LockRow) -> String,
) -> Answer {
    match found {
        Ok(row) => {
            let document = json!({
                done: true, "fence": row.fence, "instance": row.instance.as_i64(), "reason": null,
            });
            let text = format!("{}: {}\n", row.name, more(&row));
            Answer::new(exit::OK, text, document)
        }
        Err(why) => {
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
    let asked = LockQuestion { name: &name, pid: arguments.pid, fence: arguments.fence };
    let found = ask(global, &name, |store| asked.verify(store))?;
    Ok(answer("held", found, |row| format!("held, fence {}", row.fence)))
}

pub(super) fn renew(global: &Global, arguments: &args::LockRef) -> Outcome {
    let name = ref_name(arguments)?;
    let asked = LockQuestion { name: &name, pid: arguments.pid, fence: arguments.fence };
    let found = ask(global, &name, |store| asked.renew(store))?;
    Ok(answer("renewed", found, |row| match row.ttl_ms {
        Some(ttl_ms) => format!("renewed for {}, fence {}", length(ttl_ms), row.fence),
        None => format!("held without a lease, fence {}", row.fence),
    }))
}

pub(super) fn release(global: &Global, arguments: &args::LockRelease) -> Outcome {
    if arguments.all {
        return release_all(global, arguments.pid);
    }
    let scope = arguments.scope.as_deref().unwrap_or_default();
    let name = identity::name(scope, arguments.identity.as_ref(), arguments.identity_env.as_ref())?;
    let asked = LockQuestion { name: &name, pid: arguments.pid, fence: arguments.fence };
    let by = by_us("lock release");
    let found = ask(global, &name, |store| asked.release(store, &by))?;
    Ok(answer("released", found, |_| "released".to_owned()))
}

/// Releases the locks of one process, or of the run we are in, and prints how many those were.
fn release_all(global: &Global, pid: Option<sys::Pid>) -> Outcome {
    let by = by_us("lock release --all");
    let count = lost_store::ask(global, |store| locks::release_all(store, pid, &by))?.unwrap_or(0);
    Ok(Answer::new(exit::OK, format!("{count}\n"), json!({"released": count})))
}
