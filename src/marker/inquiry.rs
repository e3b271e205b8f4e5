//! Was I asked to stop? What a gateway asks in its signal handler.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::claim::OwnedRow;
use crate::clock::Deadline;
use crate::marker::{CONSUME_WITHIN, Consumed, LOOK_AGAIN_WITHIN, consume_by, myself};
use crate::names::MarkerName;
use crate::patience::with_budget;
use crate::records::markers::Marker;
use crate::records::{Addressee, markers};
use crate::{Error, Result};

/// Why a process is being stopped, by the word of the store.
#[derive(Debug)]
#[non_exhaustive]
pub enum StopCause {
    /// Somebody else takes its office over.
    TakenOver(Marker),
    /// Somebody stops it on purpose.
    PlannedStop(Marker),
    /// Nobody has said so in this store.
    Unplanned,
    /// The store could not be read within 250 ms, and why; or this is a forked child.
    Unknown(Error),
}

/// The answer to [`StopInquiry::ask`].
#[derive(Debug)]
#[non_exhaustive]
pub struct StopAnswer {
    /// Why.
    pub cause: StopCause,
    /// Whether the marker that says so was consumed on record; true when there is none, false when
    /// nobody could tell.
    pub recorded: bool,
}

/// Asks why this process is being stopped; made by
/// [`Tenure::stop_inquiry`](crate::Tenure::stop_inquiry). It may be cloned, sent to another thread,
/// and asked in any number of them.
///
/// Not from within a signal handler itself, where nearly nothing is allowed: from the thread that
/// `signal-hook` or tokio hands the signal to.
#[derive(Clone)]
pub struct StopInquiry {
    footing: OwnedRow,
    /// Notes what was announced elsewhere than in the store.
    first: Option<Arc<dyn Fn() + Send + Sync>>,
    /// What the store said last, and until when that counts: for when it says nothing any more.
    known: Arc<Mutex<Option<(Consumed, Deadline)>>>,
}

impl fmt::Debug for StopInquiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopInquiry").field("footing", &self.footing).finish_non_exhaustive()
    }
}

impl StopInquiry {
    pub(crate) fn new(footing: OwnedRow) -> Self {
        Self { footing, first: None, known: Arc::default() }
    }

    /// Does this before each question.
    pub(crate) fn first(mut self, first: impl Fn() + Send + Sync + 'static) -> Self {
        self.first = Some(Arc::new(first));
        self
    }

    /// Why this process is being stopped: taken over by whom, stopped on purpose by whom, or
    /// neither. Consumes the marker that says so; asked again, it says the same until that marker
    /// expires: a stop that somebody gave up explains no signal of next week.
    ///
    /// Returns within 250 ms, and some for the scheduler, also when the store is locked, full or
    /// gone.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::marker::{MarkerName, MarkerRequest};
    /// use incumbent::stop::StopCause;
    /// use incumbent::{Claim, Store};
    ///
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// let Claim::Granted(tenure) = store.profile("work")?.claim()? else { panic!("nobody else") };
    /// let inquiry = tenure.stop_inquiry();
    /// assert!(matches!(inquiry.ask().cause, StopCause::Unplanned));
    /// // What `Profile::stop` of another process leaves, before its signal:
    /// let stop = MarkerRequest::new(MarkerName::planned_stop()).by("alice");
    /// store.write_marker(tenure.instance(), &stop)?;
    /// let StopCause::PlannedStop(marker) = inquiry.ask().cause else { panic!("it was planned") };
    /// assert_eq!(marker.by, "alice");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn ask(&self) -> StopAnswer {
        // Before any lock, which another thread may have held at the moment of the fork.
        if let Err(error) = self.footing.inner.check_process() {
            return StopAnswer { cause: StopCause::Unknown(error), recorded: false };
        }
        if let Some(first) = &self.first {
            first();
        }
        match self.consume() {
            Ok(Some(consumed)) => {
                let marker = &consumed.marker;
                let lives_ms = marker.expires_at_ms.saturating_sub(marker.written_at_ms);
                let until = Duration::from_millis(u64::try_from(lives_ms).unwrap_or(0));
                *self.known.lock() = Some((consumed.clone(), Deadline::after(until)));
                StopAnswer::of(consumed)
            }
            Ok(None) => StopAnswer { cause: StopCause::Unplanned, recorded: true },
            Err(error) => match self.known.lock().clone() {
                Some((known, until)) if !until.has_passed() => StopAnswer::of(known),
                Some(_) | None => StopAnswer { cause: StopCause::Unknown(error), recorded: false },
            },
        }
    }

    fn consume(&self) -> Result<Option<Consumed>> {
        let OwnedRow { inner, instance, .. } = &self.footing;
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
                if !markers::exists(connection)? {
                    return Ok(None);
                }
                markers::asked_end(connection, inner.boot_time(), *instance)
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
