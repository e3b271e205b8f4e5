//! What the holder of an office says of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::background::BackgroundThread;
use crate::claim::OwnedRow;
use crate::office::tenure::Tenure;
use crate::patience::with_budget;
use crate::status::write;
use crate::status::write::Whose;
use crate::store::AnchoredBy;
use crate::{ErrorKind, Result, StatusUpdate};

/// How long one beat may take to be written. The next one comes soon.
const BEAT_WITHIN: Duration = Duration::from_millis(250);

impl Tenure {
    /// Says how the gateway is: everything in `update`, or nothing. Whoever asks sees it when this
    /// returns; nobody ever sees half of it. An update that says nothing changes nothing; it is
    /// refused too where the office was lost.
    ///
    /// It waits for the store as any write does, at most the busy budget (5 s): not for the thread
    /// that must not block.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// use incumbent::status::{Field, PlatformUpdate, state};
    /// use incumbent::{Claim, StatusUpdate};
    ///
    /// let profile = store.profile("default")?;
    /// let Claim::Granted(tenure) = profile.claim()? else { panic!("nobody else runs here") };
    /// let telegram = PlatformUpdate::new("telegram").state("connected").error_code(Field::Clear);
    /// tenure.update_status(
    ///     &StatusUpdate::new().state(state::RUNNING).active_agents(2).platform(telegram),
    /// )?;
    /// let report = profile.status()?;
    /// assert!(report.running && report.busy());
    /// assert_eq!(report.platforms[0].state.as_deref(), Some("connected"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`NotOwner`](ErrorKind::NotOwner) when the office was lost, or a platform is of a profile
    /// that this instance does not serve; [`InvalidInput`](ErrorKind::InvalidInput) for a value out
    /// of the range that its setter names; [`TooOld`](ErrorKind::TooOld) for a store that was
    /// opened for asking only; and those of
    /// [`Profile::set_desired`](crate::Profile::set_desired).
    pub fn update_status(&self, update: &StatusUpdate) -> Result<()> {
        self.say(update, self.speaks_for())
    }

    /// As a `run`, which speaks for its command.
    pub(crate) fn update_status_of_command(&self, update: &StatusUpdate) -> Result<()> {
        self.say(update, Whose::OnRecord)
    }

    fn say(&self, update: &StatusUpdate, whose: Whose) -> Result<()> {
        let OwnedRow { inner, instance, nonce_hash, .. } = &self.footing;
        write::write(inner, *instance, nonce_hash, update, whose)
    }

    fn speaks_for(&self) -> Whose {
        match self.footing.anchored_by {
            AnchoredBy::Us => Whose::Own,
            AnchoredBy::TheRun => Whose::OnRecord,
        }
    }

    /// Promises a sign of life every `cadence` (10 ms to 24 h), and returns the heart. Whoever asks
    /// sees the gateway as unresponsive once two beats in a row are missing; nobody loses anything
    /// by it.
    ///
    /// The store is written from a thread of the crate's own, so that a slow disk does not stop
    /// what the beats come from. Beating stops when the heart is dropped, which may take a quarter
    /// of a second; the promise stays, until [`StatusUpdate::heartbeat_every`] clears it. The heart
    /// keeps the store open, and not the office.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::{Claim, Store};
    /// use std::time::Duration;
    ///
    /// let work = Store::open(directory.path().join("state.db"))?.profile("work")?;
    /// let Claim::Granted(tenure) = work.claim()? else { panic!("nobody else runs here") };
    /// let heart = tenure.heartbeat(Duration::from_secs(5))?;
    /// heart.beat(); // each time that the loop turns
    /// let report = work.status()?;
    /// assert!(report.heartbeat_at_ms.is_some() && report.unresponsive_for.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tenure::update_status`]: [`InvalidInput`](ErrorKind::InvalidInput) for another cadence.
    /// [`Busy`](ErrorKind::Busy) when there may be no more threads,
    /// [`Internal`](ErrorKind::Internal) when none can be started for another reason.
    pub fn heartbeat(&self, cadence: Duration) -> Result<Heartbeat> {
        self.update_status(&StatusUpdate::new().heartbeat_every(cadence))?;
        let (footing, whose) = (self.footing.clone(), self.speaks_for());
        let beats = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&beats);
        let mut written = 0;
        let beat = StatusUpdate::new().heartbeat();
        let thread = BackgroundThread::start("incumbent-heart", cadence / 4, move || {
            let now = seen.load(Ordering::Acquire);
            if now == written {
                return false;
            }
            let written_now = with_budget(BEAT_WITHIN, || {
                let OwnedRow { inner, instance, nonce_hash, .. } = &footing;
                write::write(inner, *instance, nonce_hash, &beat, whose)
            });
            match written_now {
                Ok(()) => written = now,
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotOwner | ErrorKind::StoreReplaced) =>
                {
                    return true;
                }
                Err(error) => tracing::warn!(%error, "a heartbeat could not be written"),
            }
            false
        })?;
        Ok(Heartbeat { beats, _thread: thread })
    }
}

/// Signs of life of a gateway; see [`Tenure::heartbeat`].
#[derive(Debug)]
#[must_use = "dropping the heart stops it"]
pub struct Heartbeat {
    beats: Arc<AtomicU64>,
    _thread: BackgroundThread,
}

impl Heartbeat {
    /// One beat: call it from the loop whose life it is to prove, as often as it turns. Never
    /// blocks and never fails; what is written is at most four beats in a cadence.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Release);
    }
}
