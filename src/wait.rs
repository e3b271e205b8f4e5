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

use crate::claimant::{is_held, is_stopped};
use crate::clock::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::holder::{self, Holder};
use crate::identities::Identities;
use crate::instance::{self, End, EndReason, NewInstance, Origin, Record};
use crate::lock_table;
use crate::names::{InstanceId, Nonce, ProfileName, Wanted};
use crate::store::{Inner, PATIENCE_MIN, Pending, Store, Tx, lock, with_budget};
use crate::sys::{Pid, ProcessHandle};
use crate::waiters;

/// Between two looks while the wait is young: a release is seen within 5 ms.
const LOOK_EVERY_YOUNG: Duration = Duration::from_millis(2);

/// A wait stays young this long. Hand-overs happen in it; what waits longer waits for a person.
const YOUNG_FOR: Duration = Duration::from_secs(10);

/// Between two looks of an old wait: 20 a second cost a thousandth of a core.
const LOOK_EVERY_OLD: Duration = Duration::from_millis(50);

/// Between two whole claims where nothing would wake us: no lock of the kernel's to watch.
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

    /// How long an attempt may take where the store's locks are in its way.
    fn patience(self, deadline: Deadline) -> Duration {
        match self {
            // The store's own.
            Self::No => Duration::MAX,
            Self::UpTo(Duration::ZERO) => PATIENCE_MIN,
            Self::UpTo(_) | Self::Forever => deadline.remaining(),
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

    /// What a signal handler may set.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Whether it was used.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What stands in the way of a claim.
#[derive(Debug)]
pub(crate) struct Obstacle {
    pub(crate) holder: Box<Holder>,
    /// `None`: whoever stands in the way has no record.
    pub(crate) watch: Option<Watch>,
}

/// Whom to watch, and how to know that what is wanted is no longer theirs.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) record: Record,
    /// The instance id of an office's holder, the fence of a lock.
    pub(crate) fence: i64,
}

/// What one attempt to claim came to.
#[derive(Debug)]
pub(crate) enum Attempt<T> {
    /// The waiter's row was ended together with it.
    Granted(T),
    /// Another thread of this process has it, and shares it.
    Shared(T),
    Held(Box<Obstacle>),
}

/// Who waits, and how long.
#[derive(Clone, Debug)]
pub(crate) struct WaitOptions<'a> {
    pub(crate) wait: Wait,
    pub(crate) cancel: &'a Cancel,
    /// The process that it is wanted for, if that is not this one: nobody waits longer than that lives.
    pub(crate) for_whom: Option<(Pid, &'a ProcessHandle)>,
    /// The waiter's profile, if it has one.
    pub(crate) profile: Option<&'a ProfileName>,
    pub(crate) origin: Origin,
    pub(crate) version: Option<&'a str>,
    pub(crate) stop_budget_ms: u64,
    /// This process' command line, redacted, and without any identity that is wanted.
    pub(crate) argv: Vec<String>,
    /// Looks whether the holder is stopped as well.
    pub(crate) stopped: Stopped,
}

/// Whether an owner that is stopped is evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stopped {
    /// No: stopped is not dead, and `SIGCONT` is near.
    #[default]
    Respect,
    /// Yes, if it is found stopped twice, 200 ms apart. It learns it by its fence: its next
    /// [`verify`](crate::ScopedLock::verify) says [`Lost`](crate::Standing::Lost).
    Evict,
}

/// One attempt among others.
pub(crate) struct Turn {
    /// The waiter's own row, which ends when it becomes the owner.
    pub(crate) waiter: Option<InstanceId>,
    pub(crate) deadline: Deadline,
}

/// Attempts until granted, cancelled or out of time; `Err` of the inner result is who held it then.
pub(crate) fn until_granted<T>(
    store: &Store,
    options: &WaitOptions<'_>,
    mut attempt: impl FnMut(&Turn) -> Result<Attempt<T>>,
) -> Result<std::result::Result<T, Box<Holder>>> {
    let deadline = options.wait.deadline();
    let mut waiter: Option<Waiter> = None;
    let mut last_holder: Option<Box<Holder>> = None;
    loop {
        // The deadline holds for the store's locks as well.
        let patience = options.wait.patience(deadline);
        let limit = if options.wait.waits() { deadline } else { Deadline::never() };
        let turn =
            Turn { waiter: waiter.as_ref().map(|waiter| waiter.row.instance), deadline: limit };
        let attempted = with_budget(patience, || attempt(&turn));
        let obstacle = match attempted {
            // What it came to says nothing then, unless it was granted.
            Err(_) | Ok(Attempt::Held(_)) if options.is_for_nobody() => {
                return Err(nobody_to_wait_for(options));
            }
            Err(error) if error.kind() == ErrorKind::Busy && deadline.has_passed() => {
                return last_holder.map(Err).ok_or(error);
            }
            Err(error) => return Err(error),
            Ok(Attempt::Granted(granted)) => {
                if let Some(waiter) = &mut waiter {
                    waiter.row.has_ended = true;
                }
                return Ok(Ok(granted));
            }
            Ok(Attempt::Shared(shared)) => return Ok(Ok(shared)),
            Ok(Attempt::Held(obstacle)) => obstacle,
        };
        if !options.wait.waits() {
            return Ok(Err(obstacle.holder));
        }
        let waiting = match &mut waiter {
            Some(waiter) => {
                waiter.now_wants(&obstacle.holder.wanted)?;
                waiter
            }
            none => {
                let registered = with_budget(deadline.remaining(), || {
                    Waiter::register(store, &obstacle.holder.wanted, options, deadline)
                });
                match registered {
                    Ok(waiter) => none.insert(waiter),
                    Err(error) if error.kind() == ErrorKind::Busy && deadline.has_passed() => {
                        return Ok(Err(obstacle.holder));
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        // The time of a reservation is over without anything being written.
        let lapses = obstacle.holder.reason == holder::RESERVED;
        match waiting.wait_for_change(obstacle.watch.as_ref(), options, lapses)? {
            Waited::Changed => last_holder = Some(obstacle.holder),
            Waited::ForNobody => return Err(nobody_to_wait_for(options)),
            Waited::DeadlinePassed | Waited::Cancelled => return Ok(Err(obstacle.holder)),
        }
    }
}

/// Why a wait returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    /// It is worth claiming again.
    Changed,
    DeadlinePassed,
    Cancelled,
    /// Whoever it was wanted for has ended.
    ForNobody,
}

impl WaitOptions<'_> {
    fn is_for_nobody(&self) -> bool {
        self.wait.waits() && self.for_whom.is_some_and(|(_, process)| process.has_ended())
    }
}

fn nobody_to_wait_for(options: &WaitOptions<'_>) -> Error {
    let pid = options.for_whom.map_or(0, |(pid, _)| pid);
    Error::new(ErrorKind::Busy, format!("pid {pid}, for which it was wanted, has ended"))
        .with_hint("nothing was acquired; name a process that runs with `--pid`")
}

/// A row of this process without an office, for as long as it waits for something: anchored, and
/// visible to others. It ends with this guard, unless it became something else.
#[derive(Debug)]
pub(crate) struct WaitingRow {
    inner: Arc<Inner>,
    pub(crate) instance: InstanceId,
    nonce: Nonce,
    /// It was ended together with what it waited for.
    pub(crate) has_ended: bool,
}

/// What a waiting row says of its process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitingAs<'a> {
    pub(crate) profile: Option<&'a ProfileName>,
    pub(crate) origin: Origin,
    pub(crate) version: Option<&'a str>,
    pub(crate) stop_budget_ms: u64,
    pub(crate) argv: &'a [String],
}

impl WaitingRow {
    /// Inserts the row; the guard of it is made with [`WaitingRow::new`] after the commit.
    pub(crate) fn insert(
        tx: &Tx<'_>,
        inner: &Inner,
        nonce: &Nonce,
        wanted: &Wanted,
        as_whom: &WaitingAs<'_>,
    ) -> Result<InstanceId> {
        let subject = inner.myself();
        let anchor = inner.anchor(tx)?;
        // `stop --reason 'TOKEN is revoked'`.
        let words = as_whom.argv.iter().map(String::as_str);
        let argv = Identities::within(tx, words)?.mask_words(as_whom.argv);
        let instance = NewInstance {
            profile: as_whom.profile,
            kind: None,
            origin: as_whom.origin,
            subject,
            argv: &argv,
            observer: inner.observer(),
            nonce,
            anchor: Some(anchor.name()),
            keeper: None,
            version: as_whom.version,
            stop_budget_ms: as_whom.stop_budget_ms,
            heartbeat_every_ms: None,
        }
        .insert(tx)?;
        waiters::insert(tx, instance, subject.pid, as_whom.profile, wanted)?;
        Ok(instance)
    }

    pub(crate) fn new(inner: &Arc<Inner>, instance: InstanceId, nonce: Nonce) -> Self {
        Self { inner: Arc::clone(inner), instance, nonce, has_ended: false }
    }

    /// Ends the row together with what `also` writes.
    pub(crate) fn end_with(mut self, also: impl Fn(&Tx<'_>) -> Result<()>) -> Result<()> {
        let hash = self.nonce.hash();
        self.inner.write(|tx| {
            also(tx)?;
            instance::end_own(tx, self.instance, &hash, &End::new(EndReason::Released))?;
            Ok(())
        })?;
        self.has_ended = true;
        Ok(())
    }
}

/// This process, waiting.
struct Waiter {
    inner: Arc<Inner>,
    row: WaitingRow,
    wanted: Wanted,
    connection: Connection,
    data_version: i64,
    young: Deadline,
    deadline: Deadline,
    cancel: Cancel,
    /// The holder whose end was seen last: seeing it again changes nothing.
    seen_ended: Option<InstanceId>,
}

impl Waiter {
    /// Registers this process as one that waits for `wanted`.
    fn register(
        store: &Store,
        wanted: &Wanted,
        options: &WaitOptions<'_>,
        deadline: Deadline,
    ) -> Result<Self> {
        let inner = Arc::clone(&store.inner);
        let connection = inner.watcher()?;
        let data_version = data_version(&connection)?;
        let nonce = Nonce::random()?;
        let as_whom = WaitingAs {
            profile: match wanted {
                Wanted::Office(office) => Some(&office.profile),
                Wanted::Lock(_) => options.profile,
            },
            origin: options.origin,
            version: options.version,
            stop_budget_ms: options.stop_budget_ms,
            argv: &options.argv,
        };
        let instance =
            inner.write(|tx| WaitingRow::insert(tx, &inner, &nonce, wanted, &as_whom))?;
        Ok(Self {
            row: WaitingRow::new(&inner, instance, nonce),
            inner,
            wanted: wanted.clone(),
            connection,
            data_version,
            young: Deadline::after(YOUNG_FOR),
            deadline,
            cancel: options.cancel.clone(),
            seen_ended: None,
        })
    }

    /// Of several things that are wanted together, another one stands in the way now.
    fn now_wants(&mut self, wanted: &Wanted) -> Result<()> {
        if self.wanted == *wanted {
            return Ok(());
        }
        self.wanted = wanted.clone();
        let changed = with_budget(self.deadline.remaining(), || {
            self.inner.write(|tx| waiters::change(tx, self.row.instance, wanted))
        });
        match changed {
            // Only what others see of us is late.
            Err(error) if error.kind() == ErrorKind::Busy => Ok(()),
            changed => changed,
        }
    }

    /// Waits until what is wanted may no longer be held by whom `watch` names.
    fn wait_for_change(
        &mut self,
        watch: Option<&Watch>,
        options: &WaitOptions<'_>,
        lapses: bool,
    ) -> Result<Waited> {
        let record = watch.map(|watch| &watch.record);
        let handle = record.and_then(|record| self.watchable(record));
        let inner = Arc::clone(&self.inner);
        let is_held = |name: &str| is_held(&inner, name);
        let anchor =
            record.and_then(|record| record.anchor.as_deref()).filter(|name| is_held(name));
        let evicts = options.stopped == Stopped::Evict;
        let may_stop = record.filter(|record| evicts && self.is_here(record));
        let mut claim_again = Deadline::after(CLAIM_EVERY);
        loop {
            if self.cancel.is_cancelled() {
                return Ok(Waited::Cancelled);
            }
            if options.is_for_nobody() {
                return Ok(Waited::ForNobody);
            }
            if self.deadline.has_passed() {
                return Ok(Waited::DeadlinePassed);
            }
            if self.holder_changed(watch)? {
                return Ok(Waited::Changed);
            }
            if claim_again.has_passed() {
                // Without a lock of the kernel's, a lease may have run out unseen.
                if anchor.is_none() || lapses || may_stop.is_some_and(is_stopped) {
                    return Ok(Waited::Changed);
                }
                claim_again = Deadline::after(CLAIM_EVERY);
            }
            let look_every =
                if self.young.has_passed() { LOOK_EVERY_OLD } else { LOOK_EVERY_YOUNG };
            let step = look_every.min(self.deadline.remaining());
            let ended = match (&handle, &anchor) {
                (Some(handle), _) => handle.wait_ended(step),
                (None, Some(name)) => {
                    std::thread::sleep(step);
                    !is_held(name)
                }
                (None, None) => {
                    std::thread::sleep(step);
                    false
                }
            };
            if ended {
                self.seen_ended = record.map(|record| record.id);
                return Ok(Waited::Changed);
            }
        }
    }

    fn is_here(&self, record: &Record) -> bool {
        let observer = self.inner.observer();
        record.pid_ns == observer.pid_ns
    }

    /// The holder's process, pinned, if it can tell us more than the store does.
    fn watchable(&self, record: &Record) -> Option<ProcessHandle> {
        if !self.is_here(record) || self.seen_ended == Some(record.id) {
            return None;
        }
        let handle = ProcessHandle::open(record.pid?).ok()?;
        (handle.start_time().is_some() && handle.start_time() == record.start_time)
            .then_some(handle)
    }

    /// Whether what is wanted is no longer held as it was. Other commits are told apart by a look
    /// that takes no write lock.
    fn holder_changed(&mut self, watch: Option<&Watch>) -> Result<bool> {
        if !self.inner.is_in_place() {
            return Err(Error::new(
                ErrorKind::StoreReplaced,
                format!("the store was deleted or replaced while waiting for {}", self.wanted),
            )
            .with_hint("start again: the new store knows nothing of this wait"));
        }
        let data_version = data_version(&self.connection)?;
        if data_version == self.data_version {
            return Ok(false);
        }
        self.data_version = data_version;
        let fence = with_budget(self.deadline.remaining(), || {
            self.inner.read(|connection| match &self.wanted {
                Wanted::Office(office) => {
                    Ok(instance::live(connection, office)?.map(|record| record.id.as_i64()))
                }
                Wanted::Lock(name) => lock_table::current_fence(connection, name),
            })
        })?;
        Ok(fence != watch.map(|watch| watch.fence))
    }
}

impl Drop for WaitingRow {
    fn drop(&mut self) {
        if self.has_ended || self.inner.check_process().is_err() {
            return;
        }
        let end = End::new(EndReason::Released);
        let hash = self.nonce.hash();
        let ended = with_budget(LET_GO_WITHIN, || {
            self.inner.write(|tx| {
                instance::end_own(tx, self.instance, &hash, &end)?;
                // Waits in vain are no grants, which prune otherwise.
                if tx.prunes() {
                    instance::prune_without_office(tx, |anchor| is_held(&self.inner, anchor))?;
                }
                Ok(())
            })
        });
        match ended {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StoreReplaced => {
                self.inner.let_go_of_lost_store();
            }
            // With the next change of this process: it may live for months.
            Err(error) => {
                tracing::debug!(%error, "the end of a wait is kept for later");
                let kept = Pending::Row { instance: self.instance, nonce_hash: hash, end };
                lock(&self.inner.pending).push(Arc::new(kept));
            }
        }
    }
}

/// Changes whenever another connection has committed (<https://sqlite.org/pragma.html>).
pub(crate) fn data_version(connection: &Connection) -> Result<i64> {
    Ok(connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}
