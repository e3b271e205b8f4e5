//! `lock`: scoped locks for processes that do not link the library.
//!
//! `lock acquire` makes and migrates the store like `claim`: it records an owner.

use serde_json::{Value, json};

use crate::claim::aside::Aside;
use crate::claim::examine::{ATTEMPTS, Count, changes_too_fast};
use crate::claim::wait::{Attempt, Turn, WaitOptions, until_granted};
use crate::cli::args::Global;
use crate::cli::claim::show;
use crate::cli::context::by_us;
use crate::cli::keeper::Purpose;
use crate::cli::output::{Answer, Complaint, Format, Outcome, exit};
use crate::cli::{args, identity, keeper, lost_store};
use crate::clock::length;
use crate::error::{Error, Result};
use crate::keeper::Known;
use crate::keeper::locks;
use crate::keeper::locks::{Acquiring, Asked, Found, No, Step, Subjected};
use crate::keeper::record;
use crate::keeper::release::cannot_tell;
use crate::keeper::target::Target;
use crate::names::LockName;
use crate::patience::{Cancel, Stopped, Wait};
use crate::process::subject::Subject;
use crate::records::instances::{EndReason, Origin};
use crate::records::locks::{LockEnd, LockRow};
use crate::records::{instances, locks as records_locks};
use crate::scoped::acquire::{Acquired, GrantedLock, PreviousLock};
use crate::scoped::survey::masked;
use crate::scoped::unlock::end_if_without_purpose;
use crate::store::handle::Inner;
use crate::store::transaction::Tx;
use crate::sys::Existence;
use crate::{Holder, Store};
use crate::{stop_budget, sys};

/// How many keepers one attempt starts at most.
const KEEPERS_MAX: usize = 3;

pub(crate) fn acquire(global: &Global, arguments: &args::LockAcquire, format: Format) -> Outcome {
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
    let subjected = locks::subjected(&store, arguments.pid)?;
    let stopped = if arguments.evict_stopped { Stopped::Evict } else { Stopped::Respect };
    let asker = Asker {
        global,
        store: &store,
        asked: Asked {
            requests: std::slice::from_ref(&request),
            stopped,
            keeper: !arguments.no_keeper,
            waits: arguments.wait.is_some_and(Wait::waits),
        },
    };
    let acquiring: Acquiring = match subjected {
        Subjected::Run(run) => Acquiring::Run(run),
        Subjected::Process(pid) => {
            let target = named.map_or_else(|| Target::prove(pid), Ok)?;
            let observer = store.inner.observer();
            let subject = Subject::process(target.pid, target.start_time, observer);
            Acquiring::Process { profile, target, subject: Box::new(subject) }
        }
    };
    let cancel = Cancel::new();
    let options = WaitOptions {
        wait: arguments.wait.unwrap_or_default(),
        cancel: &cancel,
        for_whom: acquiring.process(),
        profile: acquiring.profile(),
        origin: Origin::Library,
        version: None,
        stop_budget_ms: stop_budget::DEFAULT_MS,
        argv: masked(store.inner.myself(), asker.asked.requests),
        stopped,
    };
    let mut complaint = None;
    let answer = until_granted(&store, &options, |turn| match acquiring.attempt(&asker, turn)? {
        Tried::Attempt(attempt) => Ok(*attempt),
        Tried::KeeperFailed(report) => {
            complaint = Some(report);
            // Ends the loop; the report is shown in place of this.
            Err(Error::internal("the keeper failed"))
        }
    });
    if let Some(report) = complaint {
        return Ok(show(global, format, *report));
    }
    let holder = match answer? {
        Ok(granted) => {
            let text = granted_text(&acquiring, &granted);
            return Ok(Answer::new(exit::OK, format, &text, &document(Ok(&granted))));
        }
        Err(holder) => holder,
    };
    acquiring.tidy(&store.inner, &by_us("lock acquire"))?;
    Ok(Answer::new(exit::NOT_NOW, format, "", &document(Err(&holder)))
        .complaining(Complaint::new(holder.to_string()).advising(holder.advice())))
}

fn granted_text(acquiring: &Acquiring, granted: &GrantedLock) -> String {
    let pid = acquiring.pid().map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    let how = match (&granted.previous, &granted.evicted) {
        (Some(_), _) => format!("pid {pid} holds it already"),
        (None, Some(evicted)) => format!(
            "acquired for pid {pid}, in the place of {} ({})",
            evicted.pid.map_or_else(|| "another".to_owned(), |pid| format!("pid {pid}")),
            evicted.reason.replace('_', " ")
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
        "previous": granted
            .and_then(|granted| granted.previous.as_ref())
            .map(PreviousLock::to_json),
        "evicted": granted
            .and_then(|granted| granted.evicted.as_ref())
            .map(crate::claim::examine::Evicted::to_json),
        "holder": holder.map(Holder::to_json),
        "retry_after_ms": holder.and_then(|holder| holder.retry_after_ms),
    })
}

/// What is asked for, and how.
struct Asker<'a> {
    global: &'a Global,
    store: &'a Store,
    asked: Asked<'a>,
}

enum Tried {
    Attempt(Box<Attempt<GrantedLock>>),
    KeeperFailed(Box<keeper::Report>),
}

impl Acquiring {
    fn attempt(&self, asker: &Asker<'_>, turn: &Turn) -> Result<Tried> {
        let inner = &asker.store.inner;
        let count = if turn.waiter.is_some() { Count::No } else { Count::Yes };
        let mut aside = Aside::default();
        let mut keepers = 0;
        for _ in 0..ATTEMPTS {
            let step = count.if_writable(|count| {
                inner.write(|tx| self.step(tx, inner, asker.asked, turn, &aside, count))
            })?;
            match step {
                Step::Done(Acquired::Granted(mut granted, _)) => {
                    for lock in &granted {
                        record::note_grant(inner, lock.instance, lock.fence);
                    }
                    return Ok(Tried::Attempt(Box::new(Attempt::Granted(granted.swap_remove(0)))));
                }
                Step::Done(Acquired::Held(obstacle)) => {
                    return Ok(Tried::Attempt(Box::new(Attempt::Held(obstacle))));
                }
                Step::Done(Acquired::Errand(errand)) => {
                    aside.run(errand, turn.deadline, inner.trust())?;
                }
                Step::NeedsKeeper => {
                    let Self::Process { profile, target, .. } = self else {
                        return Err(Error::internal("a run needs no keeper"));
                    };
                    // The record that one made may have ended with another verb's last lock.
                    keepers += 1;
                    if keepers > KEEPERS_MAX {
                        return Err(changes_too_fast(asker.asked.requests[0].name()));
                    }
                    let purpose = Purpose::Locks(profile);
                    let report = keeper::start(asker.global, asker.store, &purpose, target)?;
                    if report.code != exit::OK {
                        return Ok(Tried::KeeperFailed(Box::new(report)));
                    }
                }
            }
        }
        Err(changes_too_fast(asker.asked.requests[0].name()))
    }
}

/// What `question` finds in the store. A process of which nothing is on record may have lost its
/// store; a run that is on record here has its locks here, too.
fn ask(
    global: &Global,
    name: &LockName,
    pid: Option<sys::Pid>,
    question: impl Fn(&Inner, &Subjected) -> Result<Found>,
) -> Result<std::result::Result<LockRow, String>> {
    let found = lost_store::ask(global, |store| {
        let subjected = locks::subjected(store, pid)?;
        let found = question(&store.inner, &subjected)?;
        let why_not = match found {
            Ok((row, _)) => return Ok(Known::Well(Ok(row))),
            Err(No::Nobodys(why)) if matches!(subjected, Subjected::Process(_)) => {
                return Ok(Known::ByLack(Err(why)));
            }
            Err(No::Nobodys(why) | No::Others(why)) => why,
        };
        // The run that we are in may have claimed again between the two reads.
        let is_the_same = locks::subjected(store, pid)?.id() == subjected.id();
        Ok(if is_the_same { Known::Well(Err(why_not)) } else { Known::ByLack(Err(why_not)) })
    })?;
    Ok(found.unwrap_or_else(|| Err(format!("nobody holds {name}: there is no store"))))
}

/// A verb's answer about one lock.
fn answer(
    format: Format,
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
            Answer::new(exit::OK, format, &text, &document)
        }
        Err(why) => {
            let document = json!({done: false, "fence": null, "instance": null, "reason": why});
            Answer::new(exit::NO, format, "", &document).complaining(Complaint::new(why))
        }
    }
}

fn ref_name(arguments: &args::LockRef) -> Result<LockName> {
    let identity = &arguments.identity;
    identity::name(&arguments.scope, identity.identity.as_ref(), identity.identity_env.as_ref())
}

pub(super) fn verify(global: &Global, arguments: &args::LockRef, format: Format) -> Outcome {
    let name = ref_name(arguments)?;
    let found = ask(global, &name, arguments.pid, |inner, subjected| {
        inner.read(|connection| locks::find(connection, inner, &name, subjected, arguments.fence))
    })?;
    Ok(answer(format, "held", found, |row| format!("held, fence {}", row.fence)))
}

pub(super) fn renew(global: &Global, arguments: &args::LockRef, format: Format) -> Outcome {
    let name = ref_name(arguments)?;
    let found = ask(global, &name, arguments.pid, |inner, subjected| {
        inner.write(|tx| {
            let found = locks::find(tx, inner, &name, subjected, arguments.fence)?;
            if let Ok((row, _)) = &found {
                let now_boot_ms = inner.clock().boot_ms();
                records_locks::renew(tx, &name, row.fence, inner.observer(), now_boot_ms)?;
            }
            Ok(found)
        })
    })?;
    Ok(answer(format, "renewed", found, |row| match row.ttl_ms {
        Some(ttl_ms) => format!("renewed for {}, fence {}", length(ttl_ms), row.fence),
        None => format!("held without a lease, fence {}", row.fence),
    }))
}

pub(super) fn release(global: &Global, arguments: &args::LockRelease, format: Format) -> Outcome {
    if arguments.all {
        return release_all(global, arguments.pid, format);
    }
    let scope = arguments.scope.as_deref().unwrap_or_default();
    let name = identity::name(scope, arguments.identity.as_ref(), arguments.identity_env.as_ref())?;
    let found = ask(global, &name, arguments.pid, |inner, subjected| {
        inner.write(|tx| {
            let found = locks::find(tx, inner, &name, subjected, arguments.fence)?;
            if let Ok((row, record)) = &found {
                let by = by_us("lock release");
                records_locks::end(tx, &name, row.fence, released(&by))?;
                end_if_without_purpose(tx, record, &by)?;
            }
            Ok(found)
        })
    })?;
    Ok(answer(format, "released", found, |_| "released".to_owned()))
}

fn released(by: &str) -> LockEnd<'_> {
    LockEnd { reason: EndReason::Released.as_str(), by: Some(by) }
}

/// Releases the locks of one process, or of the run we are in, and prints how many those were. Of
/// very many some at a time, so that others can claim meanwhile.
fn release_all(global: &Global, pid: Option<sys::Pid>, format: Format) -> Outcome {
    let by = by_us("lock release --all");
    let count = lost_store::ask(global, |store| {
        let subjected = locks::subjected(store, pid)?;
        let (mut count, mut are_left) = (0, true);
        while are_left {
            let released;
            (released, are_left) =
                store.inner.write(|tx| release_some(tx, &store.inner, &subjected, &by))?;
            count += released;
        }
        Ok(match subjected {
            Subjected::Process(_) if count == 0 => Known::ByLack(count),
            Subjected::Process(_) | Subjected::Run(_) => Known::Well(count),
        })
    })?;
    let count = count.unwrap_or(0);
    Ok(Answer::new(exit::OK, format, &format!("{count}\n"), &json!({"released": count})))
}

/// How many were released, and whether some are left.
fn release_some(
    tx: &Tx<'_>,
    inner: &Inner,
    subjected: &Subjected,
    by: &str,
) -> Result<(usize, bool)> {
    let rows = match subjected {
        Subjected::Run(run) => vec![(**run).clone()],
        Subjected::Process(pid) => {
            let facts = sys::process_facts(*pid);
            let rows = instances::live_of_pid(tx, *pid, facts.start_time, inner.observer())?;
            if rows.is_empty() && facts.start_time.is_none() && facts.existence != Existence::Gone {
                return Err(cannot_tell(*pid, "when it was started"));
            }
            rows
        }
    };
    let mut count = 0;
    for row in &rows {
        let released = records_locks::end_some_of(tx, row.id, released(by))?;
        count += released;
        if released == records_locks::ENDED_AT_ONCE {
            return Ok((count, true));
        }
        end_if_without_purpose(tx, row, by)?;
    }
    Ok((count, false))
}
