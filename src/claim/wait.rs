//! Waiting for something that another process holds.
//!
//! The waiter is an instance of its own, with an anchor, so that others see who waits and a dead
//! waiter leaves nothing behind. It is woken by the kernel when the holder dies (a pidfd becomes
//! readable), and by the doorbell when something is committed (`store/door.rs`): then it looks
//! whether that was a release. Looking costs about 2 µs and takes no lock, so that a stopped waiter
//! blocks nobody. Where nothing tells it of commits it looks at the store's `data_version` every
//! few milliseconds. So it probes the anchor where it has no pidfd (another pid namespace), instead
//! of parking a thread in a blocking `flock`: a parked thread cannot be cancelled.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::claim::Count;
use crate::claim::in_vain::InVain;
use crate::claim::obstacle::{Obstacle, Watch};
use crate::claim::waiting_row::{LET_GO_WITHIN, WaitingAs, WaitingRow};
use crate::clock::Deadline;
use crate::environment::{Fault, planted};
use crate::liveness::AnchorState;
use crate::owner::is_held;
use crate::owner::judge::is_stopped;
use crate::patience::Stopped;
use crate::patience::{with_budget, with_last_budget};
use crate::process::{Subject, anchor};
use crate::records::{Origin, Record, locks, waiters};
use crate::store::Inner;
use crate::store::door::Door;
use crate::store::watcher::{Version, Watcher};
use crate::sys::{Pid, ProcessHandle};
use crate::{
    Cancel, Error, ErrorKind, Holder, InstanceId, Nonce, Office, ProfileName, Reason, Result,
    Store, Wait, Wanted, owner, patience,
};

/// Between two looks while the wait is young, where nothing tells of a release: one is seen within
/// 5 ms.
const LOOK_EVERY_YOUNG: Duration = Duration::from_millis(2);

/// A wait stays young this long. Hand-overs happen in it; what waits longer waits for a person.
const YOUNG_FOR: Duration = Duration::from_secs(10);

/// Between two looks of an old wait: 20 a second cost a thousandth of a core.
const LOOK_EVERY_OLD: Duration = Duration::from_millis(50);

/// Between two looks of a wait, and between two that commits are told of while there are many.
fn look_every(young: &Deadline) -> Duration {
    if young.has_passed() { LOOK_EVERY_OLD } else { LOOK_EVERY_YOUNG }
}

/// Between two whole claims where nothing would wake us: no lock of the kernel's to watch.
const CLAIM_EVERY: Duration = Duration::from_millis(250);

/// Between two looks at the holders' locks. Whoever has let go, and cannot write that down (a full
/// disk), lives on and commits nothing. Of many slots each costs some 10 µs.
const LOOK_AT_LOCKS_EVERY: Duration = Duration::from_secs(1);

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
    /// The office that is claimed, if one is.
    pub(crate) office: Option<&'a Office>,
    /// Who is refused where it waits in vain.
    pub(crate) subject: &'a Subject,
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
    /// Whether to be refused counts: not for one that waits.
    pub(crate) count: Count,
}

/// Attempts until granted, cancelled or out of time; `Err` of the inner result is who held it then.
pub(crate) fn until_granted<T>(
    store: &Store,
    options: &WaitOptions<'_>,
    mut attempt: impl FnMut(&Turn) -> Result<Attempt<T>>,
) -> Result<std::result::Result<T, Box<Holder>>> {
    let deadline = options.deadline();
    let mut waiter: Option<Waiter> = None;
    let mut last: Option<Box<Obstacle>> = None;
    let budget = store.inner.busy_budget();
    loop {
        // The deadline holds for the store's locks as well.
        let patience = options.wait.patience(deadline);
        let limit = if options.wait.waits() { deadline } else { Deadline::never() };
        let turn = Turn {
            waiter: waiter.as_ref().map(|waiter| waiter.row.instance),
            deadline: limit,
            count: if options.wait.waits() { Count::No } else { Count::Yes },
        };
        let attempted = options.cancel.patiently(patience, budget, || attempt(&turn));
        let obstacle = match attempted {
            // What it came to says nothing then, unless it was granted.
            Err(_) | Ok(Attempt::Held(_)) if options.is_for_nobody() => {
                return Err(nobody_to_wait_for(options));
            }
            Err(error) if options.has_given_up(&error, deadline) => {
                let last = last.ok_or(error)?;
                return Ok(Err(refused(store, options, waiter.as_mut(), last)));
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
                let registered = options.cancel.patiently(deadline.remaining(), budget, || {
                    Waiter::register(store, &obstacle.holder.wanted, options, deadline)
                });
                match registered {
                    Ok(waiter) => none.insert(waiter),
                    Err(error) if options.has_given_up(&error, deadline) => {
                        return Ok(Err(refused(store, options, None, obstacle)));
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        // The time of a reservation is over without anything being written.
        let lapses = obstacle.holder.reason == Reason::Reserved;
        match waiting.wait_for_change(obstacle.watch.as_ref(), options, lapses) {
            Ok(Waited::Changed) => last = Some(obstacle),
            Ok(Waited::ForNobody) => return Err(nobody_to_wait_for(options)),
            Ok(Waited::DeadlinePassed | Waited::Cancelled) => {
                return Ok(Err(refused(store, options, Some(waiting), obstacle)));
            }
            Err(error) if options.has_given_up(&error, deadline) => {
                return Ok(Err(refused(store, options, Some(waiting), obstacle)));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whoever was in the way until the end. From then on it is a refusal like any other, which is on
/// record with the end of the waiter's row: nobody waits longer for that. Not of a wait that was
/// cancelled: nobody was in the way of that.
fn refused(
    store: &Store,
    options: &WaitOptions<'_>,
    waiter: Option<&mut Waiter>,
    obstacle: Box<Obstacle>,
) -> Box<Holder> {
    if options.cancel.is_cancelled() {
        return obstacle.holder;
    }
    let inner = &store.inner;
    let (office, profile, subject) = (options.office, options.profile, options.subject);
    let in_vain = InVain::new(inner, office, profile, subject, &obstacle.holder);
    if let Some(waiter) = waiter {
        waiter.row.in_vain = Some(in_vain);
        return obstacle.holder;
    }
    // The store was too busy for a row.
    let write = || inner.write(|tx| in_vain.record(tx));
    if let Err(error) = with_last_budget(LET_GO_WITHIN, write) {
        tracing::debug!(%error, "that a wait was in vain is kept for later");
        inner.pending.lock().push(Arc::new(in_vain));
    }
    obstacle.holder
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
    /// A caller with a budget of its own does not wait beyond that.
    fn deadline(&self) -> Deadline {
        let own = self.wait.deadline();
        patience::deadline().map_or(own, |budget| own.earlier(budget))
    }

    /// Whether the store stayed busy until nobody waited any more: nothing is wrong then.
    fn has_given_up(&self, error: &Error, deadline: Deadline) -> bool {
        error.kind() == ErrorKind::Busy && (deadline.has_passed() || self.cancel.is_cancelled())
    }

    fn is_for_nobody(&self) -> bool {
        self.wait.waits() && self.for_whom.is_some_and(|(_, process)| process.has_ended())
    }
}

fn nobody_to_wait_for(options: &WaitOptions<'_>) -> Error {
    let pid = options.for_whom.map_or(0, |(pid, _)| pid);
    Error::new(ErrorKind::Busy, format!("pid {pid}, which was to hold it, has ended")).with_hints(
        "nothing was acquired; name a running process (`Whom::Process`)",
        "nothing was acquired; name a running process with `--pid`",
    )
}

/// This process, waiting.
struct Waiter {
    inner: Arc<Inner>,
    row: WaitingRow,
    wanted: Wanted,
    watcher: Arc<Watcher>,
    /// Once it has waited for a moment: what is handed over at once is not worth a thread.
    door: Option<Door>,
    version: Version,
    young: Deadline,
    deadline: Deadline,
    cancel: Cancel,
    /// The holders whose ends were seen: seeing one again changes nothing.
    seen_ended: HashSet<InstanceId>,
}

/// A holder that is waited for.
struct Watched<'a> {
    record: &'a Record,
    handle: Option<Arc<ProcessHandle>>,
    /// If it was held when the wait began.
    anchor: Option<&'a str>,
}

impl Watched<'_> {
    fn has_ended(&self, inner: &Inner) -> bool {
        match (&self.handle, self.anchor) {
            (Some(handle), _) => handle.has_ended(),
            (None, Some(name)) => !is_held(inner, name),
            (None, None) => false,
        }
    }

    /// What wakes us with its end, where its end and the store tell us of all that may become of
    /// it.
    fn end_told(&self) -> Option<&ProcessHandle> {
        self.handle.as_deref().filter(|_| self.anchor.is_some())
    }

    /// Whether it has its lock no more. Not where that cannot be seen: a shortage of ours ends no
    /// wait. The lock of an older program is let go by the end of it.
    fn has_let_go(&self, inner: &Inner) -> bool {
        let anchor = self.anchor.filter(|name| anchor::file_name(name).is_some());
        let look = |name| anchor::look(&inner.location.anchors, name, None);
        anchor.is_some_and(|name| look(name) == AnchorState::Free)
    }
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
        let watcher = Arc::new(Watcher::new(&inner)?);
        let version = watcher.version()?;
        let nonce = Nonce::random()?;
        let as_whom = WaitingAs {
            profile: match wanted {
                Wanted::Office(office) => Some(&office.profile),
                Wanted::Lock(_) => options.profile,
            },
            kind: options.office.map(|office| &office.kind),
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
            watcher,
            door: None,
            version,
            young: Deadline::after(YOUNG_FOR),
            deadline,
            cancel: options.cancel.clone(),
            seen_ended: HashSet::new(),
        })
    }

    /// Of several things that are wanted together, another one stands in the way now.
    fn now_wants(&mut self, wanted: &Wanted) -> Result<()> {
        if self.wanted == *wanted {
            return Ok(());
        }
        self.wanted = wanted.clone();
        let changed = with_budget(self.cancel.at_once(self.deadline.remaining()), || {
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
        let watched: Vec<Watched<'_>> =
            watch.into_iter().flat_map(Watch::records).map(|record| self.watched(record)).collect();
        let mut claim_again = Deadline::after(CLAIM_EVERY);
        let mut look_at_locks = Deadline::after(LOOK_AT_LOCKS_EVERY);
        loop {
            if self.cancel.ends_wait() {
                return Ok(Waited::Cancelled);
            }
            if options.is_for_nobody() {
                return Ok(Waited::ForNobody);
            }
            if self.deadline.has_passed() && !planted(Fault::WaitForgetsDeadline) {
                return Ok(Waited::DeadlinePassed);
            }
            if self.holder_changed(watch)? {
                return Ok(Waited::Changed);
            }
            if claim_again.has_passed() {
                // Without a lock of the kernel's, a lease may have run out unseen.
                let is_sure = |it| self.tells_us(it, options.stopped);
                if watched.is_empty() || lapses || !watched.iter().all(is_sure) {
                    return Ok(Waited::Changed);
                }
                claim_again = Deadline::after(CLAIM_EVERY);
            }
            if look_at_locks.has_passed() {
                // What another thread could not write down may be what we wait for.
                self.inner.retry_pending();
                if let Some(ended) = watched.iter().find(|it| it.has_let_go(&self.inner)) {
                    self.note_for_later(ended);
                    return Ok(Waited::Changed);
                }
                look_at_locks = Deadline::after(LOOK_AT_LOCKS_EVERY);
            }
            self.sleep(&watched, options, lapses);
            if let Some(ended) = watched.iter().find(|it| it.has_ended(&self.inner)) {
                self.seen_ended.insert(ended.record.id);
                self.note_for_later(ended);
                return Ok(Waited::Changed);
            }
        }
    }

    /// Until there may be something to see.
    fn sleep(&mut self, watched: &[Watched<'_>], options: &WaitOptions<'_>, lapses: bool) {
        let remaining = self.deadline.remaining();
        let whom = options.for_whom.map(|(_, process)| process);
        let ends: Vec<&ProcessHandle> = watched.iter().filter_map(|it| it.end_told()).collect();
        // What ends by itself (a lease, a reservation) and who may be stopped is asked for.
        let is_told = !lapses
            && !watched.is_empty()
            && ends.len() == watched.len()
            && options.stopped == Stopped::Respect;
        if is_told && let Some(door) = &self.door {
            let processes: Vec<_> = ends.iter().copied().chain(whom).collect();
            if door.wait(&self.cancel, &processes, remaining) {
                return;
            }
        }
        let step = look_every(&self.young).min(remaining);
        match watched.iter().find_map(|it| it.handle.as_ref()) {
            Some(handle) => {
                handle.wait_ended(step);
            }
            None => std::thread::sleep(step),
        }
        if is_told && self.door.is_none() {
            let young = self.young;
            self.door = Door::open(&self.watcher, move || look_every(&young));
        }
    }

    /// How it ended is known once its parent has collected it. One that has only let go is nobody's
    /// any more.
    fn note_for_later(&self, gone: &Watched<'_>) {
        if let Some(handle) = gone.handle.as_ref().filter(|handle| handle.has_ended()) {
            let now_ms = self.inner.clock().wall_ms();
            self.inner.witnessed.watch(gone.record.id, Arc::clone(handle), now_ms);
        }
    }

    fn watched<'a>(&self, record: &'a Record) -> Watched<'a> {
        let anchor = record.anchor.as_deref();
        Watched {
            record,
            handle: self.watchable(record),
            anchor: anchor.filter(|name| is_held(&self.inner, name)),
        }
    }

    /// Whether nothing can become of this holder without our being woken.
    fn tells_us(&self, holder: &Watched<'_>, stopped: Stopped) -> bool {
        let Watched { record, anchor, .. } = holder;
        let may_evict = stopped == Stopped::Evict && self.is_here(record) && is_stopped(record);
        anchor.is_some() && !may_evict
    }

    fn is_here(&self, record: &Record) -> bool {
        let observer = self.inner.observer();
        record.pid_ns == observer.pid_ns
    }

    /// The holder's process, pinned, if it can tell us more than the store does.
    fn watchable(&self, record: &Record) -> Option<Arc<ProcessHandle>> {
        if !self.is_here(record) || self.seen_ended.contains(&record.id) {
            return None;
        }
        let handle = ProcessHandle::open(record.pid?).ok()?;
        (handle.start_time().is_some() && handle.start_time() == record.start_time)
            .then(|| Arc::new(handle))
    }

    /// Whether what is wanted is no longer held as it was. Other commits are told apart by a look
    /// that takes no write lock.
    fn holder_changed(&mut self, watch: Option<&Watch>) -> Result<bool> {
        if !self.inner.is_in_place() {
            return Err(Error::new(
                ErrorKind::StoreReplaced,
                format!("the store was deleted or replaced while waiting for {}", self.wanted),
            )
            .with_hint("try again: this wait is not on record in the new store"));
        }
        let version = self.watcher.version()?;
        if version == self.version {
            return Ok(false);
        }
        self.version = version;
        let (patience, budget) = (self.deadline.remaining(), self.inner.busy_budget());
        let fence = self.cancel.patiently(patience, budget, || {
            self.inner.read(|connection| match &self.wanted {
                Wanted::Office(office) => {
                    Ok(owner::live(connection, office)?.map(|record| record.id.as_i64()))
                }
                Wanted::Lock(name) => locks::current_fence(connection, name),
            })
        })?;
        Ok(fence != watch.map(|watch| watch.fence) && !planted(Fault::ReleaseUnheard))
    }
}
