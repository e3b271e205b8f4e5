//! A held office: the guard, how it is released, and how its loss is noticed.

pub(crate) mod last_word;
pub(crate) mod locks;
pub(crate) mod markers;
pub(crate) mod older;
pub(crate) mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::claim::OwnedRow;
use crate::claim::examine::Evicted;
use crate::claim::guard::watch;
use crate::owner::ending;
use crate::process::descendants::LeftOver;
use crate::process::older::beside::{HeldBeside, LostLock};
use crate::records::instances::Came;
use crate::records::{Command, End, EndReason};
use crate::records::{instances, markers as records_markers};
use crate::scoped::{GrantedLock, guard};
use crate::store::memo::Memo;
use crate::store::{AnchoredBy, OwnRow};
use crate::sys::Pid;
use crate::{
    InstanceId, LossWatch, Lost, Nonce, Office, ProfileName, Reason, Released, Result, ScopedLock,
    Standing, Store,
};

/// An office held by this process. Dropping it releases the office, unless another claim of this
/// process shares it; the kernel releases it when the process ends, whatever way it ends. One that
/// belongs to the `run` that we are in ([`Tenure::from_environment`]) ends with that `run` alone.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// use incumbent::{Claim, Released, Standing, Store};
///
/// let store = Store::open(directory.path().join("state.db"))?;
/// let Claim::Granted(tenure) = store.profile("work")?.claim()? else { panic!("nobody else") };
/// let fence = tenure.instance().as_i64(); // for a resource that refuses lower ones
/// // Before an act that two owners must not both do:
/// assert_eq!(tenure.verify()?, Standing::Held);
/// assert!(matches!(tenure.release()?, Released::Free));
///
/// let Claim::Granted(next) = store.profile("work")?.claim()? else { panic!("it is free") };
/// assert!(next.instance().as_i64() > fence);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The drop never panics: a release that cannot be written is kept and retried, see
/// [`Store::pending_releases`].
#[derive(Debug)]
#[must_use = "dropping the tenure releases the office"]
pub struct Tenure {
    pub(crate) footing: OwnedRow,
    office: Office,
    nonce: Nonce,
    evicted: Option<Box<Evicted>>,
    /// The locks that were claimed together with the office, and that it is not wanted without. One
    /// that a verb lets go, acting for this office, is taken off the list.
    locks: Arc<Mutex<Vec<GrantedLock>>>,
    /// Those that this process had before, from another row: shared for as long as this lives.
    guards: Vec<ScopedLock>,
    /// The lock of an older program, held with the office.
    beside: Option<Arc<HeldBeside>>,
    reacquired: bool,
    replaced: Option<Box<Replaced>>,
    /// Shared with the watches: what was let go was not lost.
    pub(super) let_go: Arc<AtomicBool>,
    /// Whether a marker for it was open when it was asked last.
    marked: Box<Memo<(), bool>>,
}

/// Whether a claim shares what the process held before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shares {
    Yes,
    No,
}

impl Tenure {
    pub(super) fn new(
        store: &Store,
        office: &Office,
        row: &OwnRow,
        evicted: Option<Evicted>,
        locks: Vec<GrantedLock>,
        shares: Shares,
    ) -> Self {
        Self {
            footing: OwnedRow::of(&store.inner, row),
            office: office.clone(),
            nonce: row.nonce.clone(),
            evicted: evicted.map(Box::new),
            locks: Arc::new(Mutex::new(locks)),
            guards: Vec::new(),
            beside: None,
            reacquired: shares == Shares::Yes,
            replaced: None,
            let_go: Arc::default(),
            marked: Box::default(),
        }
    }

    /// Holds these locks as well, which are not of this row alone.
    pub(super) fn with_guards(mut self, guards: Vec<ScopedLock>) -> Self {
        self.locks.lock().extend(guards.iter().map(|guard| guard.granted().clone()));
        self.guards.extend(guards);
        self
    }

    pub(crate) fn in_the_place_of(mut self, replaced: Replaced) -> Self {
        self.replaced = Some(Box::new(replaced));
        self.evicted = None;
        self
    }

    /// The office that is held.
    #[must_use]
    pub fn office(&self) -> &Office {
        &self.office
    }

    /// This incarnation; also the office's fence: it rises with every change of holder.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        self.footing.instance
    }

    /// The proof of ownership, for handing to a child process that acts for this one: a secret.
    #[must_use]
    pub fn nonce(&self) -> &Nonce {
        &self.nonce
    }

    /// The dead holder whose place was taken, if there was one. `None` of a claim that shares
    /// another one.
    #[must_use]
    pub fn evicted(&self) -> Option<&Evicted> {
        self.evicted.as_deref()
    }

    /// Whose place a takeover took, if it was one.
    #[must_use]
    pub fn replaced(&self) -> Option<&Replaced> {
        self.replaced.as_deref()
    }

    /// The locks that were claimed together with the office
    /// ([`ClaimOptions::lock`](crate::ClaimOptions::lock)), each with its fence; without those that
    /// somebody who acts for this office has released since. They are not guards: they end with the
    /// tenure, and the loss of one is [`Lost::Lock`].
    #[must_use]
    pub fn locks(&self) -> Vec<GrantedLock> {
        self.locks.lock().clone()
    }

    /// Whether the process held the office before this claim, which shares it then.
    #[must_use]
    pub fn reacquired(&self) -> bool {
        self.reacquired
    }

    /// Whether the office, with the locks that were claimed together with it, is still held, by the
    /// store's word. Call it before an act that two owners must not both do; [`Tenure::watch`]
    /// calls it in the background. Reads only, unless somebody removed the anchor file: that is
    /// made again. A store that is gone is not an error, but [`Lost::StoreReplaced`].
    ///
    /// # Errors
    /// It could not be found out, which is not a loss: those of
    /// [`Profile::status_of`](crate::Profile::status_of) but
    /// [`StoreReplaced`](crate::ErrorKind::StoreReplaced). Where the anchor has to be made again,
    /// also those of a change ([`Profile::set_desired`](crate::Profile::set_desired)) and
    /// [`Filesystem`](crate::ErrorKind::Filesystem).
    pub fn verify(&self) -> Result<Standing> {
        verify(&self.footing, &self.locks, self.beside.as_deref())
    }

    /// Watches the tenure from a thread of its own and calls `on_loss` once, from that thread,
    /// within a second of its loss; never after a release. Where it cannot find out, it looks
    /// again. Dropping the watch ends it. It keeps the store open, and not the office.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::stop::Force;
    /// use incumbent::{Claim, Kind, Lost, Reason, Store};
    /// use std::sync::mpsc;
    ///
    /// let work = Store::open(directory.path().join("state.db"))?.profile("work")?;
    /// let Claim::Granted(tenure) = work.claim()? else { panic!("nobody else runs here") };
    /// let (told, lost) = mpsc::channel();
    /// let watch = tenure.watch(move |how| drop(told.send(how)))?;
    /// // A person evicts it.
    /// work.evict(&Kind::default(), Force::Yes, "alice")?;
    /// assert!(matches!(lost.recv()?, Lost::Ended { reason: Reason::Evicted, .. }));
    /// assert!(watch.lost()?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Busy`](crate::ErrorKind::Busy) when there may be no more threads,
    /// [`Internal`](crate::ErrorKind::Internal) when none can be started for another reason.
    pub fn watch(&self, on_loss: impl FnOnce(Lost) + Send + 'static) -> Result<LossWatch> {
        let (footing, locks) = (self.footing.clone(), Arc::clone(&self.locks));
        let beside = self.beside.clone();
        let verify = move || verify(&footing, &locks, beside.as_deref());
        watch(&self.footing, verify, Arc::clone(&self.let_go), on_loss)
    }

    /// Releases the office now, and says what came of it. Dropping does the same in silence. It is
    /// free for others, with all its locks, when this returns. The tenure of a `run` is
    /// [`StillShared`](Released::StillShared) then: the `run` holds it.
    ///
    /// # Errors
    /// [`Forked`](crate::ErrorKind::Forked) in a forked child, which releases nothing.
    pub fn release(mut self) -> Result<Released> {
        self.footing.inner.check_process()?;
        Ok(self.let_go(&End::new(EndReason::Released)))
    }

    /// Releases the office with a record of how its command ended.
    pub(crate) fn end(mut self, how: &End) -> Result<Released> {
        self.footing.inner.check_process()?;
        Ok(self.let_go(how))
    }

    /// Gives up the tenure without a word, which the store cannot or must not have: it is gone, or
    /// somebody may have taken over.
    pub(crate) fn abandon(self) {
        self.let_go.store(true, Ordering::Release);
        self.footing.inner.held.lock().forget(self.footing.instance);
        self.footing.inner.let_go_of_lost_store();
    }

    /// Records the command that a `run` is about to let go, or goes on with in another store; a
    /// restart that was asked for is served by that. What the last command said of itself goes with
    /// it (a trigger of the schema). False when the office was lost.
    pub(crate) fn set_child(&self, command: &Command, came: Came) -> Result<bool> {
        let OwnedRow { inner, instance, .. } = &self.footing;
        let recorded = inner.write(|tx| {
            if !instances::set_child(tx, *instance, &self.nonce, command, came)? {
                return Ok(false);
            }
            records_markers::serve_restarts(
                tx,
                *instance,
                &format!("its run (pid {})", inner.observer().pid),
            )?;
            Ok(true)
        });
        if let Ok(true) = recorded {
            ending::note_seen_ends(inner);
        }
        recorded
    }

    /// Records who has taken the place of the command of a `run`, which has ended. What was asked
    /// for is still open. False when the office was lost.
    pub(crate) fn follow_child(&self, command: &Command) -> Result<bool> {
        let OwnedRow { inner, instance, .. } = &self.footing;
        let came = Came::otherwise(inner, command.pid);
        inner.write(|tx| instances::set_child(tx, *instance, &self.nonce, command, came))
    }

    /// The command that the row names once every transaction that has begun is over; `None` where
    /// the office was lost.
    pub(crate) fn command_on_record(&self) -> Result<Option<Command>> {
        let OwnedRow { inner, instance, .. } = &self.footing;
        inner.write(|tx| {
            let record = instances::by_id(tx, *instance)?;
            let ours = record.filter(|it| it.is_live() && it.belongs_to(&self.nonce));
            Ok(ours.and_then(|record| record.command()))
        })
    }

    /// Records that the command lives without the lock of its own.
    pub(crate) fn lose_command_lock(&self) -> Result<()> {
        let OwnedRow { inner, instance, .. } = &self.footing;
        inner.write(|tx| instances::lose_command_lock(tx, *instance, &self.nonce))
    }

    fn let_go(&mut self, how: &End) -> Released {
        if self.let_go.swap(true, Ordering::AcqRel) {
            return Released::WasLost;
        }
        self.note_older_marker();
        let OwnedRow { inner, instance, nonce_hash, .. } = &self.footing;
        let mut held = inner.held.lock();
        if self.footing.anchored_by == AnchoredBy::TheRun {
            held.leave_to_run(&self.office, *instance);
            return Released::StillShared;
        }
        if let Some(office) = held.offices.get_mut(&self.office)
            && office.row.instance == *instance
        {
            office.claims -= 1;
            if office.claims > 0 {
                return Released::StillShared;
            }
        }
        let ours = held.offices.get(&self.office).filter(|it| it.row.instance == *instance);
        let beside = ours.and_then(|office| office.beside.clone()).or(self.beside.take());
        held.forget(*instance);
        // Before the office: whoever claims that next must not meet us behind it.
        if let Some(beside) = beside {
            beside.let_go();
        }
        let released = inner.let_go(
            &held,
            |tx| ending::end_own(tx, *instance, nonce_hash, how),
            || {
                Arc::new(ending::RowRelease {
                    instance: *instance,
                    nonce_hash: nonce_hash.clone(),
                    end: how.clone(),
                })
            },
        );
        drop(held);
        if let Released::Free = released {
            ending::note_seen_ends(inner);
        }
        released
    }
}

fn verify(
    footing: &OwnedRow,
    locks: &Mutex<Vec<GrantedLock>>,
    beside: Option<&HeldBeside>,
) -> Result<Standing> {
    if let Some(LostLock { path, by }) = beside.and_then(HeldBeside::lost) {
        return Ok(Standing::Lost(Lost::LegacyLock { path: path.clone(), by_pid: *by }));
    }
    let mut let_go: Vec<i64> = Vec::new();
    let fences = locks.lock().iter().map(|lock| lock.fence).collect();
    let standing = footing.verify(fences, |connection| {
        for lock in locks.lock().iter() {
            match guard::how_it_was_lost(connection, lock)? {
                Some((Reason::Released, _)) => {
                    let_go.push(lock.fence);
                }
                Some((reason, by)) => {
                    return Ok(Some(Lost::Lock { name: lock.name.clone(), reason, by }));
                }
                None => {}
            }
        }
        Ok(None)
    })?;
    if !let_go.is_empty() && standing == Standing::Held {
        locks.lock().retain(|lock| !let_go.contains(&lock.fence));
        footing.inner.held.lock().locks.retain(|fence, _| !let_go.contains(fence));
    }
    Ok(standing)
}

impl Drop for Tenure {
    fn drop(&mut self) {
        // In a forked child the office is the parent's: nothing to let go.
        if !self.let_go.load(Ordering::Acquire) && self.footing.inner.check_process().is_ok() {
            let is_unwinding = std::thread::panicking();
            let reason = if is_unwinding { EndReason::Panicked } else { EndReason::Released };
            self.let_go(&End::new(reason));
        }
    }
}

/// Whose place a takeover took, see [`ClaimOptions::replace`](crate::ClaimOptions::replace).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Replaced {
    /// Its recorded pid, in its own pid namespace.
    pub pid: Option<Pid>,
    /// Its profile: another one than ours, if both stand for the directory of one older gateway.
    pub profile: Option<ProfileName>,
    /// Its generation.
    pub instance: InstanceId,
    /// Whether it had to be killed, because it did not end in its time.
    pub killed: bool,
    /// What it had started and that outlived it: still alive when this was told.
    pub left_over: Vec<LeftOver>,
}
