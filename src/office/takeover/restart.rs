//! Asking the holder of an office to restart.
//!
//! The request is a row. A `run` serves it within its tenure, so that the office is never free in
//! between. The process that asked may be a child of what is restarted: the request outlives it.

use std::sync::Arc;
use std::time::Duration;

use crate::claim::obstacle;
use crate::clock::Deadline;
use crate::liveness::{Lease, Ruling};
use crate::names::MarkerName;
use crate::office::profile::Profile;
use crate::office::takeover::holder_of;
use crate::office::takeover::request_options::{RequestOptions, request_setters};
use crate::office::takeover::restarter::Restarter;
use crate::office::takeover::{orphan_in, write_request};
use crate::owner::family;
use crate::owner::{InProgress, judgement, look};
use crate::patience::PATIENCE_MIN;
use crate::records::profiles::check_home;
use crate::records::{Record, instances, markers};
use crate::status::{LastEnd, answer, ended};
use crate::store::{Inner, Tx};
use crate::sys::Existence;
use crate::{
    Cancel, Holder, InstanceId, Kind, Office, Result, Wanted, marker, owner, stop_budget, sys,
};

/// Between two looks whether a restart was served. A look is one read of about 20 µs.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The same for as long as one that ends at once takes to start again: each look costs some 60 µs.
const LOOK_EVERY_AT_FIRST: Duration = Duration::from_millis(1);
const AT_FIRST: Duration = Duration::from_millis(50);

/// How long a holder that has ended may take to be started again by whatever supervises it.
const COMES_BACK_WITHIN: Duration = Duration::from_secs(10);

/// How to have an office's holder start again, see [`Profile::restart`].
#[derive(Clone, Debug, Default)]
pub struct RestartOptions {
    pub(super) request: RequestOptions,
}

impl RestartOptions {
    /// Waits for the stop budget of the holder and 15 s.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

request_setters!(RestartOptions);

/// What came of [`Profile::restart`]. A holder that is named explains itself.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "it may not have been served"]
pub enum Restart {
    /// It was served, by this generation: the same one if it is a `run`.
    Done(InstanceId),
    /// It was served, by this generation, which has ended at once: as a rule its new command could
    /// not be executed. What becomes of one that was executed is not waited for.
    Ended(InstanceId, Box<LastEnd>),
    /// Nobody is running.
    NotRunning,
    /// Nobody is on record, and an owner whose record is gone with its store may be at work:
    /// nothing was asked.
    Orphaned(Box<Holder>),
    /// Nobody holds the office, but the holder of this one serves its profile: nothing was asked.
    Served(Office),
    /// The holder is being stopped or replaced just now: nothing was asked.
    InProgress(Box<Holder>),
    /// The request stands, and was not served in time.
    NotServed(Box<Holder>),
    /// Somebody withdrew the request, or asked for an end instead.
    Withdrawn(Box<Holder>),
    /// The holder is a command in the place of its `run`
    /// ([`Run::in_place`](crate::run::Run::in_place)), which nobody is beside to start again but
    /// its supervisor: nobody serves a request.
    LeftToSupervisor {
        /// The command.
        holder: Box<Holder>,
        /// The supervisor, where it is known; see [`Restarter::restart_with`].
        restarter: Option<Restarter>,
    },
}

impl Restart {
    /// Nobody is on record, and an owner of a lost store may be at work, see
    /// [`OpenOptions::find`](crate::OpenOptions::find).
    pub fn of_lost_owner(office: &Office, pid: Option<u32>) -> Self {
        Self::Orphaned(holder_of(&Wanted::Office(office.clone()), pid))
    }
}

enum Prepared {
    NotRunning,
    Orphaned(Box<Holder>),
    InProgress(Box<Holder>),
    InPlace(Box<Record>),
    Asked(Box<Record>, i64),
}

impl Profile {
    /// Asks whoever holds the office of `kind` to start again, and waits until it has. A `run`
    /// stops its command by the rules of a stop and starts it again; any other owner finds the
    /// marker `restart`, and serves it itself: it consumes the marker, or ends and is started again
    /// by its supervisor. Nobody is signalled by this call, and the office stays the holder's.
    ///
    /// A command in the place of its `run` is not asked: the answer names its supervisor.
    ///
    /// A request that is open already is joined. It stands when this call waits no longer.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::marker::MarkerName;
    /// use incumbent::stop::{Restart, RestartOptions};
    /// use incumbent::{Claim, Kind, Store};
    /// use std::time::Duration;
    ///
    /// let work = Store::open(directory.path().join("state.db"))?.profile("work")?;
    /// let options = RestartOptions::new().by("alice");
    /// assert!(matches!(work.restart(&Kind::default(), &options)?, Restart::NotRunning));
    ///
    /// let Claim::Granted(tenure) = work.claim()? else { panic!("nobody else runs here") };
    /// // The gateway, which looks now and then, and starts again in place:
    /// let gateway = std::thread::spawn(move || loop {
    ///     if let Some(asked) = tenure.consume_marker(Some(&MarkerName::restart()))? {
    ///         break Ok::<_, incumbent::Error>((tenure, asked.marker.by));
    ///     }
    ///     std::thread::sleep(Duration::from_millis(10));
    /// });
    /// assert!(matches!(work.restart(&Kind::default(), &options)?, Restart::Done(_)));
    /// let (_tenure, by) = gateway.join().unwrap()?;
    /// assert_eq!(by, "alice");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ProfileBelongsTo`](crate::ErrorKind::ProfileBelongsTo) for another home;
    /// [`TooOld`](crate::ErrorKind::TooOld) for a store that was opened for asking only; and those
    /// of [`Profile::set_desired`]. What was asked for may stand nevertheless.
    pub fn restart(&self, kind: &Kind, options: &RestartOptions) -> Result<Restart> {
        let inner = &self.store().inner;
        inner.check_process()?;
        let office = self.office(kind);
        inner.read(|connection| check_home(connection, &office, self.home()))?;
        let until = options.request.timeout.map(Deadline::after);
        let patience = options.request.timeout.map_or(Duration::MAX, |it| PATIENCE_MIN.max(it));
        let prepared = options.request.cancel.patiently(patience, inner.busy_budget(), || {
            inner.write(|tx| prepare(tx, inner, &office, options))
        });
        let (record, marker) = match prepared? {
            Prepared::NotRunning => {
                let server = answer::server_of(inner, &office);
                return Ok(server.map_or(Restart::NotRunning, |(by, _)| Restart::Served(by)));
            }
            Prepared::Orphaned(holder) => return Ok(Restart::Orphaned(holder)),
            Prepared::InProgress(holder) => return Ok(Restart::InProgress(holder)),
            Prepared::InPlace(record) => return Ok(left_to_supervisor(inner, &office, &record)),
            Prepared::Asked(record, marker) => (record, marker),
        };
        let deadline = until.unwrap_or_else(|| Deadline::after(timeout(&record, options)));
        let mut comes_back = Deadline::after(COMES_BACK_WITHIN);
        let at_first = Deadline::after(AT_FIRST);
        loop {
            if let Some(answer) = look_at(inner, &office, &record, marker)? {
                return match answer {
                    Restart::Done(instance) if instance == record.id => {
                        unless_it_failed(inner, instance)
                    }
                    answer => Ok(answer),
                };
            }
            // Its supervisor may start it again; but not if nobody does for a while.
            let is_running = is_running(inner, &office)?;
            if is_running {
                comes_back = Deadline::after(COMES_BACK_WITHIN);
            } else if comes_back.has_passed() || deadline.has_passed() {
                return Ok(Restart::NotRunning);
            }
            if deadline.has_passed() || options.request.cancel.ends_wait() {
                let judged = look(inner, &record, Lease::None);
                return Ok(Restart::NotServed(Box::new(Holder::of(&record, &office, &judged))));
            }
            let step = if at_first.has_passed() { LOOK_EVERY } else { LOOK_EVERY_AT_FIRST };
            std::thread::sleep(step.min(deadline.remaining()));
        }
    }
}

fn timeout(record: &Record, options: &RestartOptions) -> Duration {
    options.request.timeout.unwrap_or_else(|| stop_budget::deadline(record.stop_budget()))
}

fn prepare(
    tx: &Tx<'_>,
    inner: &Arc<Inner>,
    office: &Office,
    options: &RestartOptions,
) -> Result<Prepared> {
    let wanted = Wanted::Office(office.clone());
    let alive = owner::live(tx, office)?.filter(|record| {
        let judged = judgement(inner, record);
        !matches!(judged.ruling, Ruling::Dead(_))
    });
    let Some(record) = alive else {
        let orphan = orphan_in(tx, inner, &wanted)?;
        return Ok(orphan.map_or(Prepared::NotRunning, Prepared::Orphaned));
    };
    tx.check_schema()?;
    if let Some(held) = obstacle::reserved_by_another(tx, inner, &wanted, None)? {
        return Ok(Prepared::InProgress(held.holder));
    }
    if let Some(asked) = InProgress::of(tx, inner, record.id)? {
        return Ok(Prepared::InProgress(Box::new(asked.holder(&wanted))));
    }
    // Its program knows nothing of us, and its keepers are not its parents.
    if record.is_in_place() {
        return Ok(Prepared::InPlace(Box::new(record)));
    }
    // Only a `run` serves what somebody else has consumed.
    if let Some(open) = markers::unserved_restart(tx, inner.boot_time(), record.id)?
        && (record.is_run || markers::is_open(tx, open.id)?)
    {
        return Ok(Prepared::Asked(Box::new(record), open.id));
    }
    let by = marker::by_or_self_in(tx, options.request.by.as_deref())?;
    // At least the time that the holder may take: the request stands when nobody waits any more.
    let longest = timeout(&record, options).max(stop_budget::deadline(record.stop_budget()));
    let (name, reason) = (MarkerName::restart(), options.request.reason.as_deref());
    let ttl = stop_budget::marker_lives(longest);
    let marker = write_request(tx, inner, &record, &name, &by, None, reason, ttl)?;
    Ok(match marker {
        Some(marker) => Prepared::Asked(Box::new(record), marker.id),
        None => Prepared::NotRunning,
    })
}

fn is_running(inner: &Inner, office: &Office) -> Result<bool> {
    let live = inner.read(|connection| owner::live(connection, office))?;
    Ok(live.is_some_and(|record| {
        let judged = judgement(inner, &record);
        !matches!(judged.ruling, Ruling::Dead(_))
    }))
}

fn left_to_supervisor(inner: &Inner, office: &Office, record: &Record) -> Restart {
    let judged = look(inner, record, Lease::None);
    let holder = Box::new(Holder::of(record, office, &judged));
    Restart::LeftToSupervisor { holder, restarter: Restarter::of(inner, record) }
}

/// A `run` records that it serves the request before its command can be executed. Where that fails,
/// it ends within milliseconds. The kernel tells when it has succeeded, where we can look.
fn unless_it_failed(inner: &Inner, instance: InstanceId) -> Result<Restart> {
    const FAILS_WITHIN: Duration = Duration::from_millis(100);
    let deadline = Deadline::after(FAILS_WITHIN);
    loop {
        let record = inner.read(|connection| instances::by_id(connection, instance))?;
        let Some(record) = record else { return Ok(Restart::NotRunning) };
        if !record.is_live() {
            let end = ended::last_end(&record);
            return Ok(end.map_or(Restart::NotRunning, |end| Restart::Ended(instance, end.into())));
        }
        if deadline.has_passed() || has_executed(inner, &record) {
            return Ok(Restart::Done(instance));
        }
        std::thread::sleep(LOOK_EVERY_AT_FIRST);
    }
}

/// Whether the command that the row names has become the program that it is to run. One that ended
/// since is not seen.
fn has_executed(inner: &Inner, record: &Record) -> bool {
    let Some(pid) = record.child_pid.filter(|_| record.pid_ns == inner.observer().pid_ns) else {
        return false;
    };
    // Until then it is a helper of ours, by its command line, which execve(2) replaces where it
    // cannot fail any more.
    let is_another = sys::command_line(pid).is_some() && !family::is_program_of_ours(pid);
    // Last: what was read before is about the one that has this start time.
    let facts = sys::process_facts(pid);
    let is_it = facts.existence == Existence::Present
        && facts.start_time.is_some()
        && facts.start_time == record.child_start_time;
    is_another && is_it
}

/// What has become of the request; `None` while it is open.
fn look_at(
    inner: &Inner,
    office: &Office,
    record: &Record,
    marker: i64,
) -> Result<Option<Restart>> {
    let (fate, live) = inner.read(|connection| {
        Ok((markers::fate(connection, marker)?, owner::live(connection, office)?))
    })?;
    let holder = || {
        let judged = look(inner, record, Lease::None);
        Box::new(Holder::of(record, office, &judged))
    };
    Ok(match (fate, live) {
        (Some(fate), _) if fate.served => Some(Restart::Done(record.id)),
        // The next generation: that is a restart, too, whoever brought it about.
        (_, Some(live)) if live.id > record.id => Some(Restart::Done(live.id)),
        // It was about to become its command when it was asked: what it was asked dies with it.
        (_, Some(live)) if live.is_in_place() => Some(left_to_supervisor(inner, office, &live)),
        (Some(fate), Some(live)) if live.id == record.id => match (fate.consumed, fate.closed) {
            (true, _) if !record.is_run => Some(Restart::Done(record.id)),
            (false, true) => Some(Restart::Withdrawn(holder())),
            _ => None,
        },
        // It has ended, or the marker is long gone: the next generation may come in time.
        (Some(_) | None, Some(_) | None) => None,
    })
}
