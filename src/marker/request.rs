//! Writing a marker.
//!
//! A marker of a request is not a request where nobody waits for it: `marker write planned_stop`
//! tells the process why the signal comes that the script is about to send.

use std::time::Duration;

use crate::names::MarkerName;
use crate::owner::InProgress;
use crate::records::markers::Written;
use crate::records::markers::{ProcessKey, TTL_MAX_MS};
use crate::records::{Identities, NewMarker, Record};
use crate::store::{Inner, Tx, ourselves};
use crate::sys::Existence;
use crate::{Error, ErrorKind, Result, clock, stop_budget, sys};

/// How long a marker lives whose writer named no time.
const TTL_DEFAULT: Duration = Duration::from_mins(1);

/// A marker to be written, see [`Store::write_marker`](crate::Store::write_marker).
///
/// ```
/// use incumbent::ErrorKind;
/// use incumbent::marker::{MarkerName, MarkerRequest};
/// use std::time::Duration;
///
/// let request = MarkerRequest::new(MarkerName::planned_stop()).reason("kernel update");
/// let never = request.ttl(Duration::ZERO).unwrap_err();
/// assert_eq!(never.kind(), ErrorKind::InvalidInput);
/// ```
#[derive(Clone, Debug)]
pub struct MarkerRequest {
    name: MarkerName,
    ttl: Option<Duration>,
    reason: Option<String>,
    by: Option<String>,
}

impl MarkerRequest {
    /// One of this name. It lives for 60 s; a request to end or to start again lives for the stop
    /// budget of its target and 75 s.
    #[must_use]
    pub fn new(name: MarkerName) -> Self {
        Self { name, ttl: None, reason: None, by: None }
    }

    /// How long it lives: at least a millisecond, at most 30 days, by a clock that does not step
    /// and counts suspend. It ends with the boot in any case.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for any other time.
    pub fn ttl(mut self, ttl: Duration) -> Result<Self> {
        if ttl.as_millis() == 0 || clock::millis(ttl) > TTL_MAX_MS {
            return Err(Error::invalid(format!("a marker cannot live for {} ms", ttl.as_millis()))
                .with_hint("at least 1 ms, at most 30 days"));
        }
        self.ttl = Some(ttl);
        Ok(self)
    }

    /// Why, for the reader. What looks like a secret is taken out.
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

/// A marker is for a process that runs; its start time, where it can be read.
pub(crate) fn check_exists(pid: sys::Pid) -> Result<Option<sys::StartTime>> {
    let facts = sys::process_facts(pid);
    if facts.existence == Existence::Gone {
        return Err(Error::no_process(pid).with_flag_hint(
            "a marker is for a process that runs: name one",
            "--pid",
            "",
        ));
    }
    Ok(facts.start_time)
}

pub(super) fn write_to(
    tx: &Tx<'_>,
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
                "pid {pid} is not on record, and its start time cannot be read: a later process \
                 may get the same pid"
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
        .with_retry_after(Duration::from_secs(1)));
    }
    let ttl = request.ttl.unwrap_or_else(|| {
        if request.name.is_request() {
            let budget = row.map_or(stop_budget::believed(None), Record::stop_budget);
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
        ttl_ms: clock::millis(ttl),
    }
    .write(tx)
}

/// Who writes: as `by` says, or this process.
pub(crate) fn by_or_self_in(tx: &Tx<'_>, by: Option<&str>) -> Result<String> {
    match by {
        Some(by) => Ok(Identities::within(tx, [by])?.text(by)),
        None => Ok(ourselves::by_self(tx.store())),
    }
}
