//! Waiting for something that another process holds.
//!
//! The waiter is an instance of its own, with an anchor, so that others see who waits and a dead
//! waiter leaves nothing behind. It is woken by the kernel when the holder dies (a pidfd becomes
//! readable), and by the store's `data_version` when the holder lets go. Looking costs about 2 µs
//! and takes no lock, so that a stopped waiter blocks nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;

use crate::anchor;
use crate::clock::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::instance::{self, End, EndReason, NewInstance, Record, Subject};
use crate::liveness::AnchorState;
use crate::names::{InstanceId, Nonce, Office};
use crate::office::ClaimOptions;
use crate::store::{EventRecord, Inner, Store, with_budget};
use crate::sys::ProcessHandle;

/// Between two looks while the wait is young: a release is seen within 5 ms.
const LOOK_EVERY_YOUNG: Duration = Duration::from_millis(2);

/// A wait stays young this long. Hand-overs happen in it; what waits longer waits for a person.
const YOUNG_FOR: Duration = Duration::from_secs(10);

/// Between two looks of an old wait: 20 a second cost a thousandth of a core.
const LOOK_EVERY_OLD: Duration = Duration::from_millis(50);

/// Between two whole claims where nothing would wake us: no process and no lock to watch.
const CLAIM_EVERY: Duration = Duration::from_millis(250);

/// How long the end of a wait may take where the store is busy: its deadline is kept to 20 ms.
const LET_GO_WITHIN: Duration = Duration::from_millis(15);

/// How long to wait for what somebody else holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    #[default]
    No,
    /// Up to this long. Zero tries once.
    UpTo(Duration),
    /// Until it is free.
    Forever,
}

impl Wait {
    pub(crate) fn waits(self) -> bool {
        match self {
            Self::No => false,
            Self::UpTo(limit) => !limit.is_zero(),
            Self::Forever => true,
        }
    }

    pub(crate) fn deadline(self) -> Deadline {
        match self {
            Self::No => Deadline::after(Duration::ZERO),
            Self::UpTo(limit) => Deadline::after(limit),
            Self::Forever => Deadline::never(),
        }
    }
}

/// Ends a wait from another thread. Clones share one state.
///
/// ```
/// use incumbent::Cancel;
///
/// let cancel = Cancel::new();
/// assert!(!cancel.is_cancelled());
/// cancel.clone().cancel();
/// assert!(cancel.is_cancelled());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// One that has not been used.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the wait within 50 ms. Safe to call in any thread, any number of times.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was used.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Why a wait returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// It is worth claiming again.
    Changed,
    DeadlinePassed,
    Cancelled,
}

/// This process, waiting: registered, anchored and visible.
pub(crate) struct Waiter {
    inner: Arc<Inner>,
    office: Office,
    instance: InstanceId,
    nonce: Nonce,
    connection: Connection,
    data_version: i64,
    young: Deadline,
    deadline: Deadline,
    cancel: Cancel,
    /// The holder whose end was seen last: seeing it again changes nothing.
    seen_ended: Option<InstanceId>,
    has_ended: bool,
}

impl Waiter {
    /// Registers this process as one that waits for `office`.
    pub(crate) fn register(
        store: &Store,
        office: &Office,
        subject: &Subject,
        options: &ClaimOptions,
        deadline: Deadline,
    ) -> Result<Self> {
        let inner = Arc::clone(&store.inner);
        let connection = inner.watcher()?;
        let data_version = data_version(&connection)?;
        let nonce = Nonce::random()?;
        let instance = inner.write(|tx| {
            let anchor = inner.anchor(tx)?;
            let instance = NewInstance {
                profile: Some(&office.profile),
                kind: None,
                origin: options.origin,
                subject,
                observer: inner.observer(),
                nonce: &nonce,
                anchor: Some(anchor.name()),
                keeper: None,
                version: options.version.as_deref(),
                stop_budget_ms: options.stop_budget_ms()?,
                heartbeat_every_ms: None,
            }
            .insert(tx)?;
            tx.prepare_cached(
                "INSERT INTO waiters (instance_id, profile, kind, since_at_ms)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute((
                instance.as_i64(),
                office.profile.as_str(),
                office.kind.as_str(),
                tx.now_ms(),
            ))?;
            tx.record(&EventRecord {
                event: "office_awaited",
                office: Some(office),
                instance: Some(instance),
                pid: Some(subject.pid),
                detail: Some(json!({"party": subject.party})),
            })?;
            Ok(instance)
        })?;
        Ok(Self {
            inner,
            office: office.clone(),
            instance,
            nonce,
            connection,
            data_version,
            young: Deadline::after(YOUNG_FOR),
            deadline,
            cancel: options.cancel.clone(),
            seen_ended: None,
            has_ended: false,
        })
    }

    /// The waiter's own row.
    pub(crate) fn instance(&self) -> InstanceId {
        self.instance
    }

    /// The claim ended the waiter's row in its own transaction.
    pub(crate) fn granted(mut self) {
        self.has_ended = true;
    }

    /// Waits until `holder` may have let go. `None`: whoever stands in the way has no record.
    pub(crate) fn wait_for_change(&mut self, holder: Option<&Record>) -> Result<Waited> {
        let handle = holder.and_then(|record| self.watchable(record));
        let anchor = holder
            .and_then(|record| record.anchor.as_ref())
            .map(|name| self.inner.location.anchors.join(name))
            .filter(|path| anchor::probe(path) == AnchorState::Held);
        let claim_again = Deadline::after(CLAIM_EVERY);
        loop {
            if self.cancel.is_cancelled() {
                return Ok(Waited::Cancelled);
            }
            if self.deadline.has_passed() {
                return Ok(Waited::DeadlinePassed);
            }
            if self.holder_changed(holder)? {
                return Ok(Waited::Changed);
            }
            let look_every =
                if self.young.has_passed() { LOOK_EVERY_OLD } else { LOOK_EVERY_YOUNG };
            let step = look_every.min(self.deadline.remaining());
            let ended = match (&handle, &anchor) {
                (Some(handle), _) => handle.wait_ended(step),
                (None, Some(path)) => {
                    std::thread::sleep(step);
                    anchor::probe(path) != AnchorState::Held
                }
                (None, None) => {
                    std::thread::sleep(step);
                    claim_again.has_passed()
                }
            };
            if ended {
                self.seen_ended = holder.map(|record| record.id);
                return Ok(Waited::Changed);
            }
        }
    }

    /// The holder's process, pinned, if it can tell us more than the store does.
    fn watchable(&self, record: &Record) -> Option<ProcessHandle> {
        let observer = self.inner.observer();
        let here = record.boot_id == observer.boot_id && record.pid_ns == observer.pid_ns;
        if !here || self.seen_ended == Some(record.id) {
            return None;
        }
        let handle = ProcessHandle::open(record.pid?).ok()?;
        (handle.start_time().is_some() && handle.start_time() == record.start_time)
            .then_some(handle)
    }

    /// Whether the office is no longer held by the row of `holder`. Other profiles' commits are
    /// told apart by a look that takes no write lock.
    fn holder_changed(&mut self, holder: Option<&Record>) -> Result<bool> {
        if !self.inner.is_at_its_path() {
            return Err(Error::new(
                ErrorKind::StoreReplaced,
                format!("the store was deleted or replaced while waiting for {}", self.office),
            )
            .with_hint("start again: the new store knows nothing of this wait"));
        }
        let data_version = data_version(&self.connection)?;
        if data_version == self.data_version {
            return Ok(false);
        }
        self.data_version = data_version;
        let live = with_budget(self.deadline.remaining(), || {
            self.inner.read(|connection| instance::live(connection, &self.office))
        })?;
        Ok(live.map(|record| record.id) != holder.map(|record| record.id))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let end = End::new(EndReason::Released);
        let hash = self.nonce.hash();
        // Left behind, the row dies with this process and the next claim sweeps it.
        let ended = with_budget(LET_GO_WITHIN, || {
            self.inner.write(|tx| instance::end_own(tx, self.instance, &hash, &end))
        });
        if let Err(error) = ended {
            tracing::debug!(%error, "cannot remove the waiter");
        }
    }
}

/// Changes whenever another connection has committed (<https://sqlite.org/pragma.html>).
pub(crate) fn data_version(connection: &Connection) -> Result<i64> {
    Ok(connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}
