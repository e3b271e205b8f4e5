//! Takes an office over: reserves it, has its holder end, and claims it.

use std::time::Duration;

use crate::claim::sweep::Force;
use crate::clock::Deadline;
use crate::environment::{Fault, planted};
use crate::liveness::Lease;
use crate::office::claim::candidate::Candidate;
use crate::office::claim::{Claim, claim_reserved};
use crate::office::options::{Replace, Succession};
use crate::office::takeover::left_behind::LeftBehind;
use crate::office::takeover::pursuit::{Asking, Insistence, Pursued, Pursuit};
use crate::office::takeover::{Plan, TakeoverTarget};
use crate::office::tenure::Replaced;
use crate::owner::judge;
use crate::process::descendants::LeftOver;
use crate::records::locks;
use crate::stop_budget::KILL_GRACE;
use crate::store::Inner;
use crate::sys::Unproven;
use crate::{Cancel, ErrorKind, Holder, Office, Reason, Result, Store, Wanted};

/// Between two tries to claim in a store that stays busy.
const TRY_EVERY: Duration = Duration::from_millis(50);

/// Brings the owners to an end, and claims.
pub(crate) fn carry_out(
    store: &Store,
    candidate: &Candidate<'_>,
    replace: &Replace,
    plan: Plan,
    cancel: &Cancel,
) -> Result<Claim> {
    let reserved = plan.reserved_until();
    let Plan { mut row, targets } = plan;
    let ended = match bring_to_an_end(&store.inner, &targets, replace, cancel)? {
        Ok(ended) => ended,
        Err(holder) => return Ok(Claim::Held(holder)),
    };
    let succession =
        Succession { replaced: targets.iter().map(|target| target.record.id).collect() };
    let candidate = Candidate {
        waiter: Some(row.instance),
        succession: Some(&succession),
        ..candidate.clone()
    };
    let claimed =
        until_taken(&store.inner, reserved, cancel, || claim_reserved(store, &candidate))?;
    Ok(match claimed {
        Claim::Granted(tenure) => {
            // Unless another thread of ours was granted it.
            row.has_ended = !tenure.reacquired();
            let first = &targets[0].record;
            Claim::Granted(tenure.in_the_place_of(Replaced {
                pid: first.pid,
                profile: first.profile.clone(),
                instance: first.id,
                killed: ended.killed,
                left_over: ended.left_over,
            }))
        }
        held @ Claim::Held(_) => held,
    })
}

/// Does `take`, which takes what is `reserved` for us, and what an owner held that is gone: nobody
/// holds it now, and nobody else may. A store that is busy for longer than a call waits does not
/// leave it like that.
pub(super) fn until_taken<T>(
    inner: &Inner,
    reserved: Deadline,
    cancel: &Cancel,
    mut take: impl FnMut() -> Result<T>,
) -> Result<T> {
    loop {
        match cancel.patiently(Duration::MAX, inner.busy_budget(), &mut take) {
            Err(error)
                if error.kind() == ErrorKind::Busy
                    && !reserved.has_passed()
                    && !cancel.ends_wait() =>
            {
                tracing::debug!(%error, "the store stays busy after a takeover");
                // The caller may have given a call no time of its own to wait.
                std::thread::sleep(TRY_EVERY);
            }
            taken => return taken,
        }
    }
}

/// The owners are gone.
pub(super) struct Ended {
    /// Whether one of them had to be killed.
    pub(super) killed: bool,
    /// What they had started, and that still runs.
    pub(super) left_over: Vec<LeftOver>,
}

/// Asks the owners to end, waits, and escalates. `Err` is the first one that is still there.
pub(super) fn bring_to_an_end(
    inner: &Inner,
    targets: &[TakeoverTarget],
    replace: &Replace,
    cancel: &Cancel,
) -> Result<std::result::Result<Ended, Box<Holder>>> {
    // All of them at once: each takes its own time, and they take it together.
    let force = if replace.force { Force::Yes } else { Force::No };
    let pursuits: Vec<Pursuit<'_>> = targets
        .iter()
        .map(|target| {
            let is_impatient = planted(Fault::StopBudgetIgnored);
            let budget = if is_impatient { Duration::ZERO } else { target.budget() };
            Pursuit::begin(inner, target, budget, KILL_GRACE, Asking::Ask, force)
        })
        .collect();
    let mut killed = Vec::new();
    for (target, pursuit) in targets.iter().zip(&pursuits) {
        match pursuit.finish(Insistence::Kill, cancel) {
            Pursued::Over { killed: was_killed } => killed.push(was_killed),
            Pursued::Cancelled | Pursued::TimedOut => {
                return Ok(Err(still_there(inner, target, Reason::TimedOut)?));
            }
            Pursued::CannotSignal(why) => {
                tracing::warn!(pid = target.record.pid, %why, "cannot end the holder");
                let mut holder = still_there(inner, target, Reason::CannotSignal)?;
                holder.is_our_ancestor = why == Unproven::Ancestor;
                return Ok(Err(holder));
            }
        }
    }
    let left_over = pursuits.into_iter().flat_map(Pursuit::left_over).collect();
    let mut left_behind = LeftBehind::of(left_over);
    if replace.reap {
        left_behind.reap(inner);
    }
    Ok(Ok(Ended { killed: killed.contains(&true), left_over: left_behind.left }))
}

/// Whoever was to be replaced, and why it was not.
fn still_there(inner: &Inner, target: &TakeoverTarget, reason: Reason) -> Result<Box<Holder>> {
    let judged = judge::look(inner, &target.record, Lease::None);
    let mut holder = match &target.wanted {
        Wanted::Office(office) => Holder::of(&target.record, office, &judged),
        Wanted::Lock(name) => match inner.read(|connection| locks::by_name(connection, name))? {
            Some(row) => Holder::of_lock(&target.record, &row, &judged),
            None => Holder {
                wanted: target.wanted.clone(),
                ..Holder::of(&target.record, &Office::default(), &judged)
            },
        },
    };
    inner.read(|connection| holder.add_what_it_said(connection, inner, &target.record))?;
    Ok(Box::new(Holder { reason, ..holder }))
}
