//! Markers: one-shot messages to one instance, consumed exactly once.
//!
//! A marker names a generation. The next one, with the same pid or without, never sees it. What a
//! signal cannot say, a marker does: that a stop was planned, by whom, and why.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::Deadline;
use crate::command_line;
use crate::error::{Error, ErrorKind, Result};
use crate::identities::Identities;
use crate::instance::{self, Record};
use crate::marker_table::{self, Addressee, Closed, NewMarker, ProcessKey, TTL_MAX_MS};
pub use crate::marker_table::{Marker, Written};
use crate::names::{MarkerName, Office};
use crate::office::Tenure;
use crate::standing::Footing;
use crate::stop_budget;
use crate::store::{Inner, Store, lock, with_budget};
use crate::sys::{self, Existence};
use crate::takeover::InProgress;

/// How long the consumption of a marker may take. Whoever asks is being stopped, and must not hang
/// because somebody else keeps the store busy.
const CONSUME_WITHIN: Duration = Duration::from_millis(250);

/// How long the last look may take, of a consumption that ran out of time.
const LOOK_AGAIN_WITHIN: Duration = Duration::from_millis(20);

/// How often a consumption looks again because another consumer was faster. Each time one marker
/// fewer is left.
const ATTEMPTS: usize = 8;

/// How long a marker lives whose writer named no time.
const TTL_DEFAULT: Duration = Duration::from_mins(1);

/// A marker to be written, see [`Store::write_marker`].
#[derive(Clone, Debug)]
pub struct MarkerRequest {
    name: MarkerName,
    ttl: Option<Duration>,
    reason: Option<String>,
    by: Option<String>,
}

impl MarkerRequest {
    /// One of this name. It lives for 60 s; a request to end or to start anew lives for the stop
    /// budget of its target and 75 s.
    #[must_use]
    pub fn new(name: MarkerName) -> Self {
        Self { name, ttl: None, reason: None, by: None }
    }

    /// How long it lives: at least a millisecond, at most 30 days.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for any other time.
    pub fn ttl(mut self, ttl: Duration) -> Result<Self> {
        if ttl.as_millis() == 0 || millis(ttl) > TTL_MAX_MS {
            return Err(Error::invalid(format!("a marker cannot live for {} ms", ttl.as_millis()))
                .with_hint("at least 1 ms, at most 30 days"));
        }
        self.ttl = Some(ttl);
        Ok(self)
    }

    /// Why, for whoever reads it.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Who writes it, in place of this process' pid and command line.
    #[must_use]
    pub fn by(mut self, by: impl Into<String>) -> Self {
        self.by = Some(by.into());
        self
    }
}

/// A marker that was consumed.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "nobody else gets it"]
pub struct Consumed {
    /// What it said.
    pub marker: Marker,
    /// Whether its consumption could be written within 250 ms. If not, the marker is true all the
    /// same: a planned stop must not look like a crash because the disk is full.
    pub recorded: bool,
}

/// Why a process is being stopped.
#[derive(Debug)]
#[non_exhaustive]
pub enum StopCause {
    /// Somebody else takes its office over.
    TakenOver(Marker),
    /// Somebody stops it on purpose.
    PlannedStop(Marker),
    /// Nobody has said so in this store.
    Unplanned,
    /// The store could not be read within 250 ms.
    Unknown(Error),
}

/// The answer to [`StopInquiry::ask`].
#[derive(Debug)]
#[non_exhaustive]
pub struct StopAnswer {
    /// Why.
    pub cause: StopCause,
    /// Whether the marker that says so was consumed on record; true when there is none.
    pub recorded: bool,
}

/// Asks why this process is being stopped; made by [`Tenure::stop_inquiry`]. It may be cloned, sent
/// to another thread, and asked in any number of them.
///
/// Not from within a signal handler itself, where nearly nothing is allowed: from the thread that
/// `signal-hook` or tokio hands the signal to.
#[derive(Clone, Debug)]
pub struct StopInquiry {
    footing: Footing,
    /// What the store said last, and until when that counts: for when it says nothing any more.
    known: Arc<Mutex<Option<(Consumed, Deadline)>>>,
}

impl StopInquiry {
    pub(crate) fn new(footing: Footing) -> Self {
        Self { footing, known: Arc::default() }
    }

    /// Why this process is being stopped: taken over by whom, stopped on purpose by whom, or
    /// neither. Consumes the marker that says so; asked again, it says the same until that marker
    /// expires: a stop that somebody gave up explains no signal of next week.
    ///
    /// Returns within 250 ms, and some for the scheduler, also when the store is locked, full or
    /// gone.
    #[must_use]
    pub fn ask(&self) -> StopAnswer {
        // Before any lock, which another thread may have held at the moment of the fork.
        if let Err(error) = self.footing.inner.check_process() {
            return StopAnswer { cause: StopCause::Unknown(error), recorded: false };
        }
        match self.consume() {
            Ok(Some(consumed)) => {
                let marker = &consumed.marker;
                let lives_ms = marker.expires_at_ms.saturating_sub(marker.written_at_ms);
                let until = Duration::from_millis(u64::try_from(lives_ms).unwrap_or(0));
                *lock(&self.known) = Some((consumed.clone(), Deadline::after(until)));
                StopAnswer::of(consumed)
            }
            Ok(None) => StopAnswer { cause: StopCause::Unplanned, recorded: true },
            Err(error) => match lock(&self.known).clone() {
                Some((known, until)) if !until.has_passed() => StopAnswer::of(known),
                Some(_) | None => StopAnswer { cause: StopCause::Unknown(error), recorded: false },
            },
        }
    }

    fn consume(&self) -> Result<Option<Consumed>> {
        let Footing { inner, instance, .. } = &self.footing;
        let addressee = Addressee { instances: vec![*instance], process: Some(myself(inner)) };
        let deadline = Deadline::after(CONSUME_WITHIN);
        for name in [MarkerName::takeover(), MarkerName::planned_stop()] {
            let consumed = consume_by(inner, &addressee, Some(&name), deadline)?;
            if consumed.is_some() {
                return Ok(consumed);
            }
        }
        // Consumed before, by us or by another inquiry of ours: it is true all the same.
        let asked = with_budget(deadline.remaining().max(LOOK_AGAIN_WITHIN), || {
            inner.read(|connection| {
                if !marker_table::exists(connection)? {
                    return Ok(None);
                }
                marker_table::asked_end(connection, inner.boot_time(), *instance)
            })
        })?;
        Ok(asked.map(|marker| Consumed { marker, recorded: true }))
    }
}

impl StopAnswer {
    fn of(consumed: Consumed) -> Self {
        let Consumed { marker, recorded } = consumed;
        let cause = if marker.name.as_str() == MarkerName::TAKEOVER {
            StopCause::TakenOver(marker)
        } else {
            StopCause::PlannedStop(marker)
        };
        Self { cause, recorded }
    }
}

impl Tenure {
    /// Asks why this process is being stopped, from whatever thread handles its signals.
    #[must_use]
    pub fn stop_inquiry(&self) -> StopInquiry {
        StopInquiry::new(self.footing.clone())
    }

    /// The oldest open marker for this incarnation, of this name or of any; consumes nothing. For
    /// owners that cannot be signalled (Windows, another container), which look now and then.
    ///
    /// # Errors
    /// As [`Tenure::verify`].
    pub fn peek_marker(&self, name: Option<&MarkerName>) -> Result<Option<Marker>> {
        peek(&self.footing.inner, &self.addressee(), name)
    }

    /// Consumes the oldest open marker for this incarnation, of this name or of any. Exactly one
    /// consumer gets it.
    ///
    /// # Errors
    /// As [`Tenure::verify`]; not when the consumption alone cannot be written, see
    /// [`Consumed::recorded`].
    pub fn consume_marker(&self, name: Option<&MarkerName>) -> Result<Option<Consumed>> {
        consume(&self.footing.inner, &self.addressee(), name)
    }

    fn addressee(&self) -> Addressee {
        Addressee { instances: vec![self.instance()], process: Some(myself(&self.footing.inner)) }
    }
}

impl Store {
    /// Leaves a marker for the process `pid` of this machine: for its incarnation on record, which
    /// is that of a `run` if it is the `run`'s command; for the process itself if it is on record
    /// nowhere. Another marker of the same name is replaced, and of the requests (`takeover`,
    /// `planned_stop`, `restart`) to one incarnation any other: [`Written::replaced`] says which.
    ///
    /// The marker is visible to others when this returns. Nothing is signalled.
    ///
    /// # Errors
    /// [`NotRunning`](ErrorKind::NotRunning) when there is no such process, or it has ended;
    /// [`InvalidInput`](ErrorKind::InvalidInput) when it is on record nowhere and cannot be told apart
    /// from a later one with its pid;
    /// [`CannotWrite`](ErrorKind::CannotWrite), [`Busy`](ErrorKind::Busy),
    /// [`TooOld`](ErrorKind::TooOld).
    pub fn write_marker(&self, pid: u32, request: &MarkerRequest) -> Result<Written> {
        self.write_marker_to(pid, &Office::default(), request)
    }

    /// As [`Store::write_marker`]; of several offices of one process, `office` is meant.
    pub(crate) fn write_marker_to(
        &self,
        pid: sys::Pid,
        office: &Office,
        request: &MarkerRequest,
    ) -> Result<Written> {
        let inner = &self.inner;
        inner.write(|tx| {
            let start_time = check_exists(pid)?;
            let rows = instance::live_of_process(tx, pid, start_time, inner.observer())?;
            let named = rows.iter().find(|row| row.office().as_ref() == Some(office));
            let row = named.or(rows.first());
            write_to(tx, inner, row, pid, start_time, request)
        })
    }

    /// The oldest open marker for the process `pid`, of this name or of any; consumes nothing.
    ///
    /// # Errors
    /// [`CannotRead`](ErrorKind::CannotRead), [`Busy`](ErrorKind::Busy).
    pub fn peek_marker(&self, pid: u32, name: Option<&MarkerName>) -> Result<Option<Marker>> {
        peek(&self.inner, &addressee(&self.inner, pid)?, name)
    }

    /// Consumes the oldest open marker for the process `pid`, of this name or of any. Exactly one
    /// consumer gets it.
    ///
    /// # Errors
    /// As [`Store::peek_marker`]; not when the consumption alone cannot be written, see
    /// [`Consumed::recorded`].
    pub fn consume_marker(&self, pid: u32, name: Option<&MarkerName>) -> Result<Option<Consumed>> {
        consume(&self.inner, &addressee(&self.inner, pid)?, name)
    }

    /// Closes the open markers of this name that are or were for the process `pid`, whatever has
    /// become of it; how many there were.
    ///
    /// # Errors
    /// [`CannotWrite`](ErrorKind::CannotWrite), [`Busy`](ErrorKind::Busy).
    pub fn clear_marker(&self, pid: u32, name: &MarkerName, by: &str) -> Result<usize> {
        let by = presentable(&self.inner, by);
        clear(&self.inner, pid, &addressee(&self.inner, pid)?, name, &by)
    }
}

/// A marker is for a process that runs; its start time, where it can be read.
pub(crate) fn check_exists(pid: sys::Pid) -> Result<Option<sys::StartTime>> {
    let facts = sys::process_facts(pid);
    if facts.existence == Existence::Gone {
        return Err(Error::no_process(pid)
            .with_hint("a marker is for a process that runs: name one with `--pid`"));
    }
    Ok(facts.start_time)
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// This process, as what was written before it was on record names it.
fn myself(inner: &Inner) -> ProcessKey {
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
        let rows = instance::live_of_process(connection, pid, start_time, observer)?;
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

/// Who acts: as the caller named it, else this process.
pub(crate) fn by_or_self(inner: &Inner, by: Option<&str>) -> String {
    match by {
        Some(by) => presentable(inner, by),
        None => inner.description(|| describe_self(inner, &inner.myself().argv)).to_owned(),
    }
}

/// The same within a transaction.
pub(crate) fn by_or_self_in(tx: &crate::store::Tx<'_>, by: Option<&str>) -> Result<String> {
    match by {
        Some(by) => Ok(Identities::within(tx, [by])?.text(by)),
        None => Ok(by_or_self(tx.store(), None)),
    }
}

/// What somebody wrote to be kept, without what is a secret.
pub(crate) fn presentable(inner: &Inner, text: &str) -> String {
    Identities::known_to(inner).text(text)
}

/// Whoever writes, for people: pid, command line, user.
pub(crate) fn describe_self(inner: &Inner, argv: &[String]) -> String {
    let observer = inner.observer();
    let uid = observer.uid.map_or_else(String::new, |uid| format!(", uid {uid}"));
    format!("pid {} ({}){uid}", observer.pid, command_line::display(argv))
}

fn write_to(
    tx: &crate::store::Tx<'_>,
    inner: &Inner,
    row: Option<&Record>,
    pid: sys::Pid,
    start_time: Option<sys::StartTime>,
    request: &MarkerRequest,
) -> Result<Written> {
    let observer = inner.observer();
    let (instance, process) = match row.and_then(NewMarker::target) {
        Some((instance, process)) => (Some(instance), process),
        None if start_time.is_none() => {
            return Err(Error::invalid(format!(
                "pid {pid} is on record nowhere, and its start time cannot be read: it could not \
                 be told apart from a later process with its pid"
            ))
            .with_hint("claim for it first, or ask as its user or as root"));
        }
        None => (
            None,
            ProcessKey {
                pid,
                start_time,
                boot_id: observer.boot_id.clone(),
                pid_ns: observer.pid_ns.clone(),
            },
        ),
    };
    if let Some(instance) = instance.filter(|_| request.name.is_request())
        && let Some(asked) = InProgress::of(tx, inner, instance)?
    {
        return Err(Error::new(
            ErrorKind::Busy,
            format!("a {} by {} is in progress", asked.marker.name, asked.marker.by),
        )
        .with_hint(
            "wait until it is done, or end the process that asked for it: that cancels the request",
        )
        .retry_after(1_000));
    }
    let ttl = request.ttl.unwrap_or_else(|| {
        if request.name.is_request() {
            let budget = stop_budget::believed(row.and_then(|row| row.stop_budget_ms));
            stop_budget::marker_lives(stop_budget::deadline(budget))
        } else {
            TTL_DEFAULT
        }
    });
    NewMarker {
        name: &request.name,
        instance,
        process: &process,
        by: &by_or_self_in(tx, request.by.as_deref())?,
        by_pid: observer.pid,
        by_uid: observer.uid,
        requester: None,
        reason: request.reason.as_deref(),
        ttl_ms: millis(ttl),
    }
    .write(tx)
}

pub(crate) fn peek(
    inner: &Inner,
    addressee: &Addressee,
    name: Option<&MarkerName>,
) -> Result<Option<Marker>> {
    inner.read(|connection| {
        if !marker_table::exists(connection)? {
            return Ok(None);
        }
        marker_table::find(connection, inner.boot_time(), addressee, name)
    })
}

pub(crate) fn consume(
    inner: &Inner,
    addressee: &Addressee,
    name: Option<&MarkerName>,
) -> Result<Option<Consumed>> {
    consume_by(inner, addressee, name, Deadline::after(CONSUME_WITHIN))
}

/// A look decides; of several consumers that saw the marker, the one whose update came first has it.
fn consume_by(
    inner: &Inner,
    addressee: &Addressee,
    name: Option<&MarkerName>,
    deadline: Deadline,
) -> Result<Option<Consumed>> {
    let look = || with_budget(deadline.remaining(), || peek(inner, addressee, name));
    let by = by_or_self(inner, None);
    let mut seen = look()?;
    for _ in 0..ATTEMPTS {
        let Some(marker) = seen else { return Ok(None) };
        let written = with_budget(deadline.remaining(), || {
            inner.write(|tx| marker_table::close(tx, marker.id, Closed::Consumed, Some(&by)))
        });
        match written {
            Ok(true) => return Ok(Some(Consumed { marker, recorded: true })),
            Ok(false) => seen = look()?,
            Err(error) if error.kind() == ErrorKind::StoreReplaced => return Err(error),
            Err(error) => {
                tracing::warn!(%error, marker = marker.id, "consumed, which is not recorded");
                // Somebody else may have kept the store busy by consuming it.
                let still_open = with_budget(LOOK_AGAIN_WITHIN, || {
                    inner.read(|connection| marker_table::is_open(connection, marker.id))
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
        if !marker_table::exists(tx)? {
            return Ok(0);
        }
        let mut cleared = 0;
        let pid_ns = inner.observer().pid_ns.as_deref();
        for id in marker_table::open_by_pid(tx, pid, pid_ns, &addressee.instances, name)? {
            cleared += usize::from(marker_table::close(tx, id, Closed::Cleared, Some(by))?);
        }
        Ok(cleared)
    })
}
