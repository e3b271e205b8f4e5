//! Planned endings of somebody else's tenure: taking its office over, stopping it, restarting it.
//!
//! All of them first write, in one transaction, their marker, a reservation and an anchored row of
//! their own; only then is anybody signalled. From that moment the old owner may end. The
//! reservation (of the office and of every lock that is wanted with it) keeps everybody else out
//! until the taker has claimed, and counts only while the taker lives. So a taker that dies on the
//! way leaves an owner that was asked to end or was not, and nothing else.
//!
//! How the old owner ended is decided where every end is written (`owner/autopsy.rs`). A request
//! counts while its writer lives and waits (`InProgress`): no second one comes in between, whatever
//! it is for.

mod all;
mod announced;
pub(crate) mod carry_out;
mod left_behind;
pub(crate) mod locks;
pub(crate) mod pursuit;
mod request_options;
pub(crate) mod reserve;
pub(crate) mod restart;
pub(crate) mod restarter;
pub(crate) mod stop;
mod stop_options;

use std::sync::Arc;
use std::time::Duration;

use crate::claim::sweep;
use crate::claim::sweep::Extent;
use crate::claim::waiting_row::WaitingRow;
use crate::clock::{Deadline, millis};
use crate::liveness::Evidence;
use crate::names::MarkerName;
use crate::office::claim::candidate::ClaimOutcome;
use crate::process::descendants::LeftOver;
use crate::records::markers::Marker;
use crate::records::{NewMarker, Record};
use crate::store::held::Share;
use crate::store::{Inner, Tx};
use crate::{Holder, InstanceId, Nonce, Result, Verdict, Wanted, stop_budget, sys};

/// An owner to be brought to an end.
#[derive(Debug)]
pub(crate) struct TakeoverTarget {
    record: Record,
    /// What is wanted of it.
    wanted: Wanted,
    /// What it had started before it was asked; `None` while nobody has looked.
    children: Option<Vec<LeftOver>>,
}

impl TakeoverTarget {
    fn new(record: Record, wanted: Wanted, seen: &Evidence) -> Self {
        // The numbers of another namespace are those of strangers here.
        let children = if seen.is_here() { None } else { Some(Vec::new()) };
        Self { record, wanted, children }
    }

    fn budget(&self) -> Duration {
        self.record.stop_budget()
    }
}

/// A takeover that is written down and reserved, and that nobody was told of yet.
#[derive(Debug)]
pub(crate) struct Plan {
    row: WaitingRow,
    targets: Vec<TakeoverTarget>,
}

impl Plan {
    /// For how long what is wanted is reserved, from now on.
    fn reserved_until(&self) -> Deadline {
        let longest = self.targets.iter().map(TakeoverTarget::budget).max().unwrap_or_default();
        Deadline::after(stop_budget::deadline(longest))
    }
}

/// What one attempt came to.
#[derive(Debug)]
pub(crate) enum TakeoverStep {
    Claimed(ClaimOutcome),
    Reserved(Reserved),
}

/// A reservation inside its transaction; it becomes a [`Plan`] with the commit.
#[derive(Debug)]
pub(crate) struct Reserved {
    instance: InstanceId,
    nonce: Nonce,
    targets: Vec<TakeoverTarget>,
}

impl Reserved {
    pub(crate) fn plan(self, inner: &Arc<Inner>) -> Plan {
        let Self { instance, nonce, targets } = self;
        Plan { row: WaitingRow::new(inner, instance, nonce), targets }
    }
}

/// Writes the marker of a request to the owner of `record`; `None` when nobody could read it.
#[allow(clippy::too_many_arguments, reason = "the columns of one row")]
fn write_request(
    tx: &Tx<'_>,
    inner: &Inner,
    record: &Record,
    name: &MarkerName,
    by: &str,
    requester: Option<InstanceId>,
    reason: Option<&str>,
    ttl: Duration,
) -> Result<Option<Marker>> {
    let Some((instance, process)) = NewMarker::target(record) else { return Ok(None) };
    let observer = inner.observer();
    let new = NewMarker {
        name,
        instance: Some(instance),
        process: &process,
        by,
        by_pid: observer.pid,
        by_uid: observer.uid,
        requester,
        reason,
        ttl_ms: millis(ttl),
    };
    new.write(tx).map(|written| Some(written.marker))
}

/// Whoever may be at work although nobody is on record.
fn orphan_in(tx: &Tx<'_>, inner: &Inner, wanted: &Wanted) -> Result<Option<Box<Holder>>> {
    let sweep = sweep::sweep(tx, inner, Extent::Unknown, [Share::whole(wanted.clone())])?;
    Ok(sweep.orphans.first().map(|orphan| holder_of(wanted, orphan.pid)))
}

fn holder_of(wanted: &Wanted, pid: Option<sys::Pid>) -> Box<Holder> {
    let holder = Holder::orphan(wanted.clone(), pid);
    Box::new(Holder { verdict: Verdict::Unknown, ..holder })
}
