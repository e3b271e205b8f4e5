//! Markers: one-shot messages to one instance, consumed exactly once.
//!
//! A marker names a generation. The next one, with the same pid or without, never sees it. What a
//! signal cannot say, a marker does: that a stop was planned, by whom, and why. They are written by
//! [`Store::write_marker`], where the example is, and read by
//! [`Tenure::consume_marker`](crate::Tenure::consume_marker).

pub(crate) mod inquiry;
pub(crate) mod request;
pub(crate) mod target;

pub use crate::marker::request::MarkerRequest;
pub use crate::names::MarkerName;
pub use crate::records::markers::{Marker, Written};

pub(crate) use crate::marker::request::by_or_self_in;
pub use crate::marker::target::MarkerTarget;

use std::time::Duration;

use crate::clock::Deadline;
use crate::environment::{Fault, planted};
use crate::liveness::Ruling;
use crate::marker::target::To;
use crate::owner::judgement;
use crate::patience::with_budget;
use crate::records::markers::{Closed, ProcessKey};
use crate::records::{Addressee, Record, identities, instances, markers};
use crate::store::memo::Memo;
use crate::store::{Inner, ourselves};
use crate::sys::Existence;
use crate::{Error, ErrorKind, Result, Store, sys};

/// How often a consumption looks again because another consumer was faster. Each time one marker
/// fewer is left.
const ATTEMPTS: usize = 8;

/// How long the consumption of a marker may take. Whoever asks is being stopped, and must not hang
/// because somebody else keeps the store busy.
const CONSUME_WITHIN: Duration = Duration::from_millis(250);

/// How long the last look may take, of a consumption that ran out of time.
const LOOK_AGAIN_WITHIN: Duration = Duration::from_millis(20);

/// A marker that was consumed: nobody else gets it.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "nobody else gets it"]
pub struct Consumed {
    /// What it said.
    pub marker: Marker,
    /// Whether its consumption could be written within 250 ms. If not, the marker is true anyway: a
    /// planned stop must not look like a crash because the disk is full. Another consumer may get
    /// it as well then.
    pub recorded: bool,
}

impl Store {
    /// Leaves a marker for a generation (an [`InstanceId`](crate::InstanceId)), or for a process of
    /// this machine (its pid): for its incarnation on record, which is that of a `run` if it is the
    /// `run`'s command; for the process itself if it is on record nowhere. Another marker of the
    /// same name is replaced, and of the requests (`takeover`, `planned_stop`, `restart`) to one
    /// incarnation any other: [`Written::replaced`] says which.
    ///
    /// The marker is visible to others when this returns. Nothing is signalled. A marker
    /// that nobody consumes ends with its time; for a generation that has ended it says nothing.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::Store;
    /// use incumbent::marker::{MarkerName, MarkerRequest};
    /// use std::time::Duration;
    ///
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// let (reload, pid) = (MarkerName::new("reload")?, std::process::id());
    /// let request = MarkerRequest::new(reload.clone()).ttl(Duration::from_secs(30))?;
    /// let written = store.write_marker(pid, &request.reason("new configuration"))?;
    /// assert!(written.replaced.is_empty());
    ///
    /// let seen = store.peek_marker(pid, Some(&reload))?.expect("it lives for 30 s");
    /// assert_eq!((seen.id, seen.pid), (written.marker.id, Some(pid)));
    /// let consumed = store.consume_marker(pid, Some(&reload))?.expect("nobody else looks");
    /// assert_eq!(consumed.marker.reason.as_deref(), Some("new configuration"));
    /// // Another one, which nobody needs any more:
    /// store.write_marker(pid, &MarkerRequest::new(reload.clone()))?;
    /// assert_eq!(store.clear_marker(pid, &reload, "alice")?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`NotRunning`](ErrorKind::NotRunning) when there is no such process or generation, or it has
    /// ended; [`InvalidInput`](ErrorKind::InvalidInput) when it is on record nowhere and cannot be
    /// told apart from a later one with its pid; [`Busy`](ErrorKind::Busy) for a request to one
    /// that is just being stopped or replaced; [`TooOld`](ErrorKind::TooOld) for a store that was
    /// opened for asking only; and those of [`Profile::set_desired`](crate::Profile::set_desired).
    pub fn write_marker(
        &self,
        to: impl Into<MarkerTarget>,
        request: &MarkerRequest,
    ) -> Result<Written> {
        let (inner, to) = (&self.inner, to.into().0);
        inner.write(|tx| match &to {
            To::Process(pid, office) => {
                let start_time = request::check_exists(*pid)?;
                let rows = instances::live_of_process(tx, *pid, start_time, inner.observer())?;
                let named = rows.iter().find(|row| row.office().as_ref() == Some(office));
                let row = named.or(rows.first());
                request::write_to(tx, inner, row, *pid, start_time, request)
            }
            To::Instance(id) => {
                // Nor for one that was killed, whose record the next claim ends.
                let lives = |row: &Record| {
                    row.is_live() && !matches!(judgement(inner, row).ruling, Ruling::Dead(_))
                };
                let row = instances::by_id(tx, *id)?.filter(lives);
                let Some((row, pid)) = row.and_then(|row| row.pid.map(|pid| (row, pid))) else {
                    let what = format!("instance {id} has ended, or is not of this store");
                    return Err(Error::new(ErrorKind::NotRunning, what)
                        .with_hint("name an instance that has not ended"));
                };
                let start_time = row.start_time;
                request::write_to(tx, inner, Some(&row), pid, start_time, request)
            }
        })
    }

    /// The next open marker for the process that has `pid` now, of this name or of any: a request
    /// (`takeover`, `planned_stop`, `restart`) before others, and the oldest first. `None` also
    /// where no process has it. Consumes nothing.
    ///
    /// # Errors
    /// As [`Profile::status_of`](crate::Profile::status_of).
    pub fn peek_marker(&self, pid: u32, name: Option<&MarkerName>) -> Result<Option<Marker>> {
        peek(&self.inner, &addressee(&self.inner, pid)?, name)
    }

    /// Consumes what [`Store::peek_marker`] would show. Exactly one consumer gets it. Takes about
    /// 250 ms at most, also where the store is locked or full.
    ///
    /// # Errors
    /// As [`Store::peek_marker`]; not when the consumption alone cannot be written, see
    /// [`Consumed::recorded`].
    pub fn consume_marker(&self, pid: u32, name: Option<&MarkerName>) -> Result<Option<Consumed>> {
        consume(&self.inner, &addressee(&self.inner, pid)?, name)
    }

    /// Closes the open markers of this name that are or were for the process `pid`, whatever has
    /// become of it; how many there were. `by` names who does, for the record.
    ///
    /// # Errors
    /// As [`Profile::set_desired`](crate::Profile::set_desired).
    pub fn clear_marker(&self, pid: u32, name: &MarkerName, by: &str) -> Result<usize> {
        let by = identities::presentable(&self.inner, by);
        clear(&self.inner, pid, &addressee(&self.inner, pid)?, name, &by)
    }
}

/// This process, as what was written before it was on record names it.
pub(super) fn myself(inner: &Inner) -> ProcessKey {
    let observer = inner.observer();
    ProcessKey {
        pid: observer.pid,
        start_time: observer.start_time,
        boot_id: observer.boot_id.clone(),
        pid_ns: observer.pid_ns.clone(),
    }
}

/// The process that has `pid` here and now: its rows, and itself.
pub(crate) fn addressee(inner: &Inner, pid: sys::Pid) -> Result<Addressee> {
    let observer = inner.observer();
    let (rows, start_time) = inner.read(|connection| {
        let facts = sys::process_facts(pid);
        let start_time = facts.start_time.filter(|_| facts.existence != Existence::Gone);
        let rows = instances::live_of_process(connection, pid, start_time, observer)?;
        Ok((rows, start_time))
    })?;
    Ok(Addressee {
        instances: rows.iter().map(|row| row.id).collect(),
        process: Some(ProcessKey {
            pid,
            start_time,
            boot_id: observer.boot_id.clone(),
            pid_ns: observer.pid_ns.clone(),
        }),
    })
}

pub(crate) fn peek(
    inner: &Inner,
    addressee: &Addressee,
    name: Option<&MarkerName>,
) -> Result<Option<Marker>> {
    inner.read(|connection| {
        if !markers::exists(connection)? {
            return Ok(None);
        }
        markers::find(connection, inner.boot_time(), addressee, name)
    })
}

/// As [`peek`], for whom is asked over and over: `memo` says whether there is anything open at all,
/// and the rows are read again only if something was committed since.
pub(crate) fn peek_again(
    inner: &Inner,
    memo: &Memo<(), bool>,
    addressee: &Addressee,
    name: Option<&MarkerName>,
) -> Result<Option<Marker>> {
    let may_be_there = inner.read_once(memo, (), |connection| {
        Ok(markers::exists(connection)? && markers::any_open(connection, addressee)?)
    })?;
    if *may_be_there { peek(inner, addressee, name) } else { Ok(None) }
}

pub(crate) fn consume(
    inner: &Inner,
    addressee: &Addressee,
    name: Option<&MarkerName>,
) -> Result<Option<Consumed>> {
    consume_by(inner, addressee, name, Deadline::after(CONSUME_WITHIN))
}

/// A look decides; of several consumers that saw the marker, the one whose update came first has
/// it.
fn consume_by(
    inner: &Inner,
    addressee: &Addressee,
    name: Option<&MarkerName>,
    deadline: Deadline,
) -> Result<Option<Consumed>> {
    let look = || with_budget(deadline.remaining(), || peek(inner, addressee, name));
    let by = ourselves::by_self(inner);
    let mut seen = look()?;
    for _ in 0..ATTEMPTS {
        let Some(marker) = seen else { return Ok(None) };
        let written = with_budget(deadline.remaining(), || {
            inner.write(|tx| {
                if planted(Fault::MarkerConsumedTwice) {
                    return Ok(true);
                }
                markers::close(tx, marker.id, Closed::Consumed, Some(&by))
            })
        });
        match written {
            Ok(true) => return Ok(Some(Consumed { marker, recorded: true })),
            Ok(false) => seen = look()?,
            Err(error) if error.kind() == ErrorKind::StoreReplaced => return Err(error),
            Err(error) => {
                tracing::warn!(%error, marker = marker.id, "consumed, which is not recorded");
                // Somebody else may have kept the store busy by consuming it.
                let still_open = with_budget(LOOK_AGAIN_WITHIN, || {
                    inner.read(|connection| markers::is_open(connection, marker.id))
                });
                if still_open.unwrap_or(true) {
                    return Ok(Some(Consumed { marker, recorded: false }));
                }
                seen = look()?;
            }
        }
    }
    Ok(None)
}

pub(crate) fn clear(
    inner: &Inner,
    pid: sys::Pid,
    addressee: &Addressee,
    name: &MarkerName,
    by: &str,
) -> Result<usize> {
    inner.write(|tx| {
        if !markers::exists(tx)? {
            return Ok(0);
        }
        let mut cleared = 0;
        let pid_ns = inner.observer().pid_ns.as_deref();
        for id in markers::open_by_pid(tx, pid, pid_ns, &addressee.instances, name)? {
            cleared += usize::from(markers::close(tx, id, Closed::Cleared, Some(by))?);
        }
        Ok(cleared)
    })
}
