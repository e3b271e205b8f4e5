//! Waiting for something that another process holds.
//!
//! The waiter is an instance of its own, with an anchor, so that others see who waits and a dead
//! waiter leaves nothing behind. It is woken by the kernel when the holder dies (a pidfd becomes
//! readable), and by the store's `data_version` when the holder releases. Looking costs about 2 µs
//! and takes no lock, so that a stopped waiter blocks nobody. Where it has no pidfd (another pid
//! namespace) it probes the anchor every few milliseconds instead of parking a thread in a blocking
//! `flock`: a parked thread cannot be cancelled.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::claim::obstacle::{Obstacle, Watch};
use crate::claim::waiting_row::{WaitingAs, WaitingRow};
use crate::clock::Deadline;
use crate::owner::judge::is_stopped;
use crate::owner::{because, is_held};
use crate::patience::with_budget;
use crate::records::{Origin, Record, locks, waiters};
use crate::store::Inner;
use crate::sys::{Pid, ProcessHandle};
use crate::{
    Cancel, Error, ErrorKind, Holder, InstanceId, Nonce, ProfileName, Result, Stopped, Store, Wait,
    Wanted, owner,
};

/// Between two looks while the wait is young: a release is seen within 5 ms.
const LOOK_EVERY_YOUNG: Duration = Duration::from_millis(2);

/// A wait stays young this long. Hand-overs happen in it; what waits longer waits for a person.
const YOUNG_FOR: Duration = Duration::from_secs(10);

/// Between two looks of an old wait: 20 a second cost a thousandth of a core.
const LOOK_EVERY_OLD: Duration = Duration::from_millis(50);

/// Between two whole claims where nothing would wake us: no lock of the kernel's to watch.
const CLAIM_EVERY: Duration = Duration::from_millis(250);

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
    /// The process that it is wanted for, if that is not this one: nobody waits longer than that
    /// lives.
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
        let lapses = obstacle.holder.reason == because::RESERVED;
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
        .with_hint("nothing was acquired; name a process that runs (`Whom::Process`)")
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
        let data_version = crate::store::data_version(&connection)?;
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
        let data_version = crate::store::data_version(&self.connection)?;
        if data_version == self.data_version {
            return Ok(false);
        }
        self.data_version = data_version;
        let fence = with_budget(self.deadline.remaining(), || {
            self.inner.read(|connection| match &self.wanted {
                Wanted::Office(office) => {
                    Ok(owner::live(connection, office)?.map(|record| record.id.as_i64()))
                }
                Wanted::Lock(name) => locks::current_fence(connection, name),
            })
        })?;
        Ok(fence != watch.map(|watch| watch.fence))
    }
}
