//! Whether what this process holds is still its own, how it was lost, and how it is released.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;

use crate::background::BackgroundThread;
use crate::background::readiness::Readiness;
use crate::environment::{Fault, planted};
use crate::records::instances;
use crate::records::instances::RowState;
use crate::store::memo::Memo;
use crate::store::{AnchoredBy, Inner, OwnRow};
use crate::{ErrorKind, InstanceId, LockName, Reason, Result};

/// How often a watched tenure or lock is verified: a replaced store is noticed within a second.
const VERIFY_EVERY: Duration = Duration::from_millis(500);

/// Whether an office or a lock is still held. It is the store's word of the moment when it was
/// asked; a resource that checks the fence needs no such moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Held,
    /// It is not: stop acting for it.
    Lost(Lost),
}

/// How something that was held was lost. `Display` is a clause for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lost {
    /// The store file was deleted, replaced or restored from a copy without this holder.
    StoreReplaced,
    /// Of an office that was claimed together with locks: one of these.
    Lock {
        /// Which lock.
        name: LockName,
        /// Why: [`Reason::Evicted`].
        reason: Reason,
        /// Who did it, if they said so.
        by: Option<String>,
    },
    /// Of an office that is held beside an older program: somebody else has the lock of that by
    /// now, and acts as well.
    LegacyLock {
        /// The lock file.
        path: PathBuf,
        /// Who has it, where that can be seen.
        by_pid: Option<u32>,
    },
    /// The record was ended by somebody else.
    Ended {
        /// Why: [`Reason::Evicted`], [`Reason::TakenOver`].
        reason: Reason,
        /// Who did it, if they said so.
        by: Option<String>,
    },
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::StoreReplaced => f.write_str("the store was deleted or replaced"),
            Self::Lock { name, reason, by: Some(by) } => {
                write!(f, "its lock {name} was lost: {reason} by {by}")
            }
            Self::Lock { name, reason, by: None } => {
                write!(f, "its lock {name} was lost: {reason}")
            }
            Self::LegacyLock { path, by_pid } => {
                let who =
                    by_pid.map_or_else(|| "another process".to_owned(), |it| format!("pid {it}"));
                write!(f, "{} was replaced, and {who} holds it", path.display())
            }
            Self::Ended { reason, by: Some(by) } => write!(f, "{reason} by {by}"),
            Self::Ended { reason, by: None } => reason.fmt(f),
        }
    }
}

/// A row of this process, as one of its guards knows it.
#[derive(Clone, Debug)]
pub(crate) struct OwnedRow {
    pub(crate) inner: Arc<Inner>,
    pub(crate) instance: InstanceId,
    pub(crate) nonce_hash: String,
    pub(crate) anchored_by: AnchoredBy,
    seen: Arc<Memo<Vec<i64>, Seen>>,
}

/// What the rows say of one that is held, and of what is held with it.
type Seen = (Option<RowState>, Option<Lost>);

impl OwnedRow {
    pub(crate) fn of(inner: &Arc<Inner>, row: &OwnRow) -> Self {
        Self {
            inner: Arc::clone(inner),
            instance: row.instance,
            nonce_hash: row.nonce.hash(),
            anchored_by: row.anchored_by,
            seen: Arc::default(),
        }
    }

    /// Whether the row still stands, and whatever `more` looks for of these `fences` in the same
    /// snapshot. The rows are read again only if something was committed since. The anchor is
    /// looked at each time, and a file of it that somebody removed is made anew.
    pub(crate) fn verify(
        &self,
        fences: Vec<i64>,
        more: impl FnOnce(&Connection) -> Result<Option<Lost>>,
    ) -> Result<Standing> {
        let read = self.inner.read_once(&self.seen, fences, |connection| {
            let row = instances::standing(connection, self.instance)?;
            Ok((row, more(connection)?))
        });
        let seen = match read {
            // A reader made just now cannot even open a file that is gone.
            Err(error) if error.kind() == ErrorKind::StoreReplaced || !self.inner.is_in_place() => {
                return Ok(Standing::Lost(Lost::StoreReplaced));
            }
            read => read?,
        };
        let (row, lost) = &*seen;
        // Rows are never deleted while live: a store without ours is an older copy.
        let Some(row) = row.as_ref().filter(|row| row.nonce_hash == self.nonce_hash) else {
            return Ok(Standing::Lost(Lost::StoreReplaced));
        };
        if let Some((reason, by)) = row.ended.clone().filter(|_| !planted(Fault::LossUnnoticed)) {
            return Ok(Standing::Lost(Lost::Ended { reason: reason.into(), by }));
        }
        if let Some(lost) = lost {
            return Ok(Standing::Lost(lost.clone()));
        }
        match self.anchored_by {
            AnchoredBy::Us => self.restore_anchor(row.anchor.as_deref())?,
            // The row is the run's, and goes on.
            AnchoredBy::TheRun if self.inner.is_followed(row.child_pid) => {
                return Ok(Standing::Lost(Lost::Ended { reason: Reason::HandedOver, by: None }));
            }
            AnchoredBy::TheRun => {}
        }
        Ok(Standing::Held)
    }

    /// A held lock on a file that its path no longer names, or that our row does not, is invisible
    /// to everybody else.
    fn restore_anchor(&self, named: Option<&str>) -> Result<()> {
        match self.inner.own_anchor() {
            _ if planted(Fault::AnchorStaysLost) => Ok(()),
            Some(anchor) if anchor.is_in_place() && named == Some(anchor.name()) => Ok(()),
            Some(_) | None => self.inner.write(|tx| {
                // Another thread may have released it since: no row, no anchor.
                let still_ours = instances::standing(tx, self.instance)?
                    .is_some_and(|row| row.ended.is_none() && row.nonce_hash == self.nonce_hash);
                if !still_ours {
                    return Ok(());
                }
                let anchor = self.inner.anchor(tx)?;
                instances::set_anchor(tx, self.instance, &self.nonce_hash, anchor.name())
            }),
        }
    }
}

/// Calls `verify`, which is about `footing`, from a thread of its own until it says that all is
/// lost, and then `on_loss`; not if it was `let_go`.
pub(crate) fn watch(
    footing: &OwnedRow,
    verify: impl Fn() -> Result<Standing> + Send + 'static,
    let_go: Arc<AtomicBool>,
    on_loss: impl FnOnce(Lost) + Send + 'static,
) -> Result<LossWatch> {
    let mut on_loss = Some(on_loss);
    let loss: Arc<Mutex<Loss>> = Arc::default();
    let losses = Arc::clone(&loss);
    let inner = Arc::clone(&footing.inner);
    let thread = BackgroundThread::start("incumbent-watch", VERIFY_EVERY, move || {
        match verify() {
            Ok(Standing::Held) => return false,
            Ok(Standing::Lost(_)) if let_go.load(Ordering::Acquire) => {}
            // By a thread of ours, which may not have heard it yet.
            Ok(Standing::Lost(Lost::Ended { reason: Reason::HandedOver, .. }))
                if inner.is_handing_over() =>
            {
                return false;
            }
            Ok(Standing::Lost(how)) => {
                losses.lock().note(&how);
                if let Some(on_loss) = on_loss.take() {
                    on_loss(how);
                }
            }
            // Not knowing is not losing: look again.
            Err(error) => {
                tracing::warn!(%error, "cannot verify what is held");
                return false;
            }
        }
        true
    })?;
    Ok(LossWatch { loss, thread })
}

/// A watch over what is held; see [`Tenure::watch`](crate::Tenure::watch). A loop that polls waits
/// for its [`readiness`](Self::readiness). Dropping it ends the watch: it waits for a call of the
/// callback that goes on, but not when that call itself drops it.
#[derive(Debug)]
#[must_use = "dropping the watch ends it"]
pub struct LossWatch {
    loss: Arc<Mutex<Loss>>,
    thread: BackgroundThread,
}

/// What the watch has seen, and who is to be told.
#[derive(Debug, Default)]
struct Loss {
    lost: Option<Lost>,
    readiness: Option<Readiness>,
}

impl Loss {
    fn note(&mut self, lost: &Lost) {
        self.lost = Some(lost.clone());
        if let Some(readiness) = &self.readiness {
            readiness.raise();
        }
    }
}

impl LossWatch {
    /// How it was lost, once the watch has seen that; `None` until then, and after a release. Asks
    /// nobody.
    ///
    /// # Errors
    /// [`Forked`](ErrorKind::Forked) in a forked child.
    pub fn lost(&self) -> Result<Option<Lost>> {
        self.thread.check_process()?;
        Ok(self.loss.lock().lost.clone())
    }

    /// A descriptor that becomes readable when the watch sees the loss, within a second of it, and
    /// stays so. What was let go is not lost: then it never becomes readable, nor once the watch is
    /// dropped.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// # let incumbent::Claim::Granted(tenure) = store.profile("default")?.claim()? else {
    /// #     unreachable!()
    /// # };
    /// let watch = tenure.watch(|_lost| ())?;
    /// # #[cfg(unix)] {
    /// let readiness = watch.readiness()?;
    /// // Hand it to the loop; once it is readable:
    /// assert_eq!(watch.lost()?, None);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) on Windows, [`Forked`](ErrorKind::Forked) in a
    /// forked child, [`Busy`](ErrorKind::Busy) where no descriptor is left.
    pub fn readiness(&self) -> Result<Readiness> {
        self.thread.check_process()?;
        let mut loss = self.loss.lock();
        if let Some(readiness) = &loss.readiness {
            return Ok(readiness.clone());
        }
        let readiness = loss.readiness.insert(Readiness::new()?).clone();
        if loss.lost.is_some() {
            readiness.raise();
        }
        Ok(readiness)
    }
}
