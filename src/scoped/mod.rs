//! Scoped locks: at most one live holder of an identity within a scope, on the whole machine.
//!
//! A lock belongs to the row it was taken from and ends with it; its holder is as alive as that
//! row's process. It may be taken from a held office ([`Tenure`](crate::Tenure)), or from the store itself, for a
//! process without an office.

mod acquire;
mod ask;
mod guard;
mod stale;
mod unlock;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

pub use acquire::PreviousLock;
pub(crate) use acquire::{
    Acquired, GrantedLock, LockClaim, Owner, Surveyed, acquire_once, hide_in, masked, survey, take,
};
pub use ask::{HeldLock, LockReport, LockWaiter};
pub(crate) use ask::{any_is_held, held_by};
pub use guard::ScopedLock;
pub(crate) use guard::how_it_was_lost;
pub(crate) use unlock::end_if_without_purpose;
pub use unlock::{Unlocked, UnlockedLock};

use crate::claimant::{ATTEMPTS, Aside, Attachment, Claimant, Count, changes_too_fast};
use crate::error::{Error, ErrorKind, Result};
use crate::holder::Holder;
use crate::instance::{self, Origin};
use crate::lock_table::{self, LockEnd, TTL_MAX_MS};
use crate::marker;
use crate::names::{InstanceId, LockName, Office, Secret};
use crate::standing::{Footing, Force};
use crate::stop_budget;
use crate::store::{self, Held, Inner, OwnRow, Store, lock};
use crate::wait::{Attempt, Cancel, Stopped, Turn, Wait, WaitOptions, until_granted};

/// The longest metadata, as compact JSON, in bytes.
const METADATA_LENGTH_MAX: usize = 64 * 1024;

/// The most locks that are taken together.
const LOCKS_MAX: usize = 64;

/// A lock to be acquired.
///
/// ```
/// use incumbent::LockRequest;
/// use std::time::Duration;
///
/// let request = LockRequest::new("telegram-bot-token", "123456:secret")?
///     .metadata(serde_json::json!({"bot": "@weather"}))?
///     .ttl(Duration::from_secs(30))?;
/// assert!(!format!("{request:?}").contains("secret"));
/// assert!(LockRequest::new("telegram-bot-token", "").is_err());
/// # Ok::<(), incumbent::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LockRequest {
    pub(crate) name: LockName,
    /// What must not show in any command line that is stored.
    pub(crate) identity: Secret,
    pub(crate) metadata: Option<Value>,
    pub(crate) ttl_ms: Option<i64>,
}

impl LockRequest {
    /// The lock on `identity` within `scope`, held for as long as its owner lives.
    ///
    /// # Errors
    /// As [`LockName::new`].
    pub fn new(scope: &str, identity: impl AsRef<[u8]>) -> Result<Self> {
        let identity = identity.as_ref();
        Ok(Self {
            name: LockName::new(scope, identity)?,
            identity: Secret::of(identity),
            metadata: None,
            ttl_ms: None,
        })
    }

    /// What others should be told about the holder. Never put a secret here: it is stored and shown.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for more than 64 KiB of compact JSON.
    pub fn metadata(mut self, metadata: Value) -> Result<Self> {
        let length = metadata.to_string().len();
        if length > METADATA_LENGTH_MAX {
            return Err(Error::invalid(format!("the metadata has {length} bytes"))
                .with_hint(format!("at most {METADATA_LENGTH_MAX}: it says who holds the lock")));
        }
        self.metadata = Some(metadata).filter(|metadata| !metadata.is_null());
        Ok(self)
    }

    /// Asks for a lease that has to be renewed within this time. It decides only where the holder's
    /// anchor cannot be seen; elsewhere the kernel knows better, and a lease that ran out is a flag.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) below 1 ms and above 30 days.
    pub fn ttl(mut self, ttl: Duration) -> Result<Self> {
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        if !(1..=TTL_MAX_MS).contains(&ttl_ms) {
            return Err(Error::invalid(format!("a time to live of {} s", ttl.as_secs_f64()))
                .with_hint(
                    "a lease lasts 1 ms to 30 days; without one it lasts as long as its owner",
                ));
        }
        self.ttl_ms = Some(ttl_ms);
        Ok(self)
    }

    /// Which lock it is about.
    #[must_use]
    pub fn name(&self) -> &LockName {
        &self.name
    }
}

/// How to acquire locks, for callers that need more than to try once.
#[derive(Clone, Debug, Default)]
pub struct AcquireOptions {
    pub(crate) wait: Wait,
    pub(crate) cancel: Cancel,
    pub(crate) stopped: Stopped,
}

impl AcquireOptions {
    /// Tries once; respects owners that are stopped.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits for the lock while another one holds it.
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Lets another thread end the wait.
    #[must_use]
    pub fn cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    /// Whether an owner that is stopped is evicted. Looking twice takes 200 ms.
    #[must_use]
    pub fn stopped(mut self, stopped: Stopped) -> Self {
        self.stopped = stopped;
        self
    }
}

/// The answer to a request for locks.
#[derive(Debug)]
#[must_use = "granted locks are released when their guards are dropped"]
pub enum Acquire<T = ScopedLock> {
    /// This process holds what it asked for.
    Granted(T),
    /// Somebody else does, or may; they explain themselves.
    Held(Box<Holder>),
}

impl Store {
    /// Acquires a lock for this process, without an office; never waits. See [`Store::acquire_all`].
    ///
    /// ```
    /// use incumbent::{Acquire, LockRequest, Standing, Store};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("state.db");
    /// let store = Store::open(&path)?;
    /// let request = LockRequest::new("telegram-bot-token", "123456:secret")?;
    /// let Acquire::Granted(lock) = store.try_acquire(&request)? else { panic!("nobody else") };
    /// assert_eq!(lock.verify()?, Standing::Held);
    /// assert_eq!(store.locks()?[0].pid, Some(std::process::id()));
    /// lock.release()?; // or drop it, or be killed: the lock is free
    /// assert!(store.locks()?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::acquire_all`].
    pub fn try_acquire(&self, request: &LockRequest) -> Result<Acquire> {
        self.acquire(request, &AcquireOptions::new())
    }

    /// Acquires a lock for this process, without an office. See [`Store::acquire_all`].
    ///
    /// # Errors
    /// As [`Store::acquire_all`].
    pub fn acquire(&self, request: &LockRequest, options: &AcquireOptions) -> Result<Acquire> {
        Ok(only(self.acquire_all(std::slice::from_ref(request), options)?))
    }

    /// Acquires all of these locks for this process, or none, in one transaction. Owners that are
    /// dead are ended; whoever lives (or cannot be told dead) is returned as [`Acquire::Held`].
    ///
    /// Acquired again by the same process, a lock is shared: it keeps its fence, has the new
    /// metadata and lease, and is released with the last of its guards.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for no locks, more than 64, or one named twice;
    /// [`CannotWrite`](ErrorKind::CannotWrite) and [`Busy`](ErrorKind::Busy) when it could not be
    /// recorded, and then nothing is held; [`StoreReplaced`](ErrorKind::StoreReplaced),
    /// [`TooNew`](ErrorKind::TooNew), [`Forked`](ErrorKind::Forked).
    pub fn acquire_all(
        &self,
        requests: &[LockRequest],
        options: &AcquireOptions,
    ) -> Result<Acquire<Vec<ScopedLock>>> {
        acquire_for_myself(self, None, requests, options)
    }

    /// Releases every lock that was taken from one row of this process, and says how many those
    /// were. Guards of them are lost from then on. The row is that of an office
    /// ([`Tenure::instance`](crate::Tenure::instance)) or the one without ([`ScopedLock::instance`]).
    ///
    /// # Errors
    /// [`NotOwner`](ErrorKind::NotOwner) for a row that is not this process' own, and those of
    /// [`Store::acquire_all`].
    pub fn release_all(&self, instance: InstanceId) -> Result<usize> {
        self.inner.check_process()?;
        let mut held = lock(&self.inner.held);
        let Some(row) = held.rows().find(|row| row.instance == instance).cloned() else {
            return Err(Error::new(
                ErrorKind::NotOwner,
                format!("instance {instance} is not one that this process holds"),
            )
            .with_hint("pass the instance of a tenure or lock of this process"));
        };
        let is_office = held.offices.values().any(|office| office.row.instance == instance);
        let mut count = 0;
        loop {
            let released = self.inner.write(|tx| release_some_of(tx, &row, is_office))?;
            count += released;
            if released < lock_table::ENDED_AT_ONCE {
                break;
            }
        }
        if is_office {
            held.locks.retain(|_, lock| lock.instance != instance);
        } else {
            held.forget(instance);
        }
        Ok(count)
    }

    /// All scoped locks of the store, with a verdict about each holder. Reads only.
    ///
    /// # Errors
    /// As [`Profile::status_of`](crate::Profile::status_of).
    pub fn locks(&self) -> Result<Vec<LockReport>> {
        ask::locks(&self.inner)
    }

    /// Removes a lock whose holder is dead; one whose holder lives or cannot be told dead only when
    /// `force` says so. `by` names who asked, for the record. Nothing is signalled: a live holder
    /// learns it from its next [`ScopedLock::verify`].
    ///
    /// # Errors
    /// As [`Store::acquire_all`].
    pub fn unlock(&self, name: &LockName, force: Force, by: &str) -> Result<Unlocked> {
        unlock::unlock(&self.inner, name, force, &marker::presentable(&self.inner, by))
    }

    /// Removes every lock whose holder is dead, as a sweep before a start. Needless for
    /// correctness: such a lock blocks nobody. At most 500 at a time, so that others can claim
    /// meanwhile; after an error those that were removed until then stay removed.
    ///
    /// # Errors
    /// As [`Store::acquire_all`].
    pub fn unlock_stale(&self, by: &str) -> Result<Vec<UnlockedLock>> {
        stale::unlock_stale(&self.inner, &marker::presentable(&self.inner, by))
    }
}

/// The held office that locks are taken from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tenancy<'a> {
    pub(crate) instance: InstanceId,
    pub(crate) office: &'a Office,
}

pub(crate) fn only(acquire: Acquire<Vec<ScopedLock>>) -> Acquire {
    match acquire {
        Acquire::Granted(mut locks) => Acquire::Granted(locks.swap_remove(0)),
        Acquire::Held(holder) => Acquire::Held(holder),
    }
}

/// Refuses lists that cannot be meant.
pub(crate) fn check(requests: &[LockRequest]) -> Result<()> {
    if requests.is_empty() || requests.len() > LOCKS_MAX {
        return Err(Error::invalid(format!("{} locks at once", requests.len()))
            .with_hint(format!("ask for 1 to {LOCKS_MAX}")));
    }
    let mut names: Vec<&LockName> = requests.iter().map(LockRequest::name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            Err(Error::invalid(format!("{} is named twice", pair[0]))
                .with_hint("name each lock once"))
        }
        None => Ok(()),
    }
}

pub(crate) fn acquire_for_myself(
    store: &Store,
    from: Option<&Tenancy<'_>>,
    requests: &[LockRequest],
    options: &AcquireOptions,
) -> Result<Acquire<Vec<ScopedLock>>> {
    check(requests)?;
    store.inner.check_process()?;
    let wait_options = WaitOptions {
        wait: options.wait,
        cancel: &options.cancel,
        for_whom: None,
        profile: from.map(|from| &from.office.profile),
        origin: Origin::Library,
        version: None,
        stop_budget_ms: stop_budget::DEFAULT_MS,
        argv: masked(store.inner.myself(), requests),
        stopped: options.stopped,
    };
    let answer = until_granted(store, &wait_options, |turn| {
        attempt(store, from, requests, options.stopped, turn)
    })?;
    Ok(match answer {
        Ok(locks) => Acquire::Granted(locks),
        Err(holder) => Acquire::Held(holder),
    })
}

/// One attempt that does not wait for the holder.
fn attempt(
    store: &Store,
    from: Option<&Tenancy<'_>>,
    requests: &[LockRequest],
    stopped: Stopped,
    turn: &Turn,
) -> Result<Attempt<Vec<ScopedLock>>> {
    let inner = &store.inner;
    let claimant = Claimant { origin: Origin::Library, subject: inner.myself() };
    let count = if turn.waiter.is_some() { Count::No } else { Count::Yes };
    let mut aside = Aside::default();
    for _ in 0..ATTEMPTS + requests.len() {
        // As for an office: attempts of this process are serialised, so that its own fresh lock is
        // never taken for another process' one.
        let mut held = lock(&inner.held);
        let ours: Vec<InstanceId> = held.rows().map(|row| row.instance).collect();
        let claim = LockClaim {
            requests,
            claimant,
            profile: from.map(|from| &from.office.profile),
            ours: &ours,
            stopped,
            waiter: turn.waiter,
        };
        let acquired = count.if_writable(|count| {
            inner.write(|tx| {
                let owner = own_row(tx, &held, from)?;
                acquire_once(tx, inner, &claim, owner, turn.waiter, &aside, count)
            })
        })?;
        match acquired {
            Acquired::Granted(granted, new_row) => {
                if let Some(row) = new_row
                    && let Some(ended) = held.without_office.replace(row)
                {
                    held.forget(ended.instance);
                }
                let locks: Vec<Result<ScopedLock>> =
                    granted.into_iter().map(|lock| hold(inner, &mut held, lock)).collect();
                // A guard that is dropped for another one's error locks it again.
                drop(held);
                return Ok(Attempt::Granted(locks.into_iter().collect::<Result<_>>()?));
            }
            Acquired::Held(obstacle) => return Ok(Attempt::Held(obstacle)),
            Acquired::Errand(errand) => {
                drop(held);
                aside.run(errand, turn.deadline, inner.trust())?;
            }
        }
    }
    Err(changes_too_fast(requests[0].name()))
}

/// The row that this process takes its locks from: that of its office, or the one without.
fn own_row<'a>(tx: &store::Tx<'_>, held: &Held, from: Option<&Tenancy<'_>>) -> Result<Owner<'a>> {
    let is_live = |instance| {
        Ok::<_, Error>(instance::standing(tx, instance)?.is_some_and(|row| row.ended.is_none()))
    };
    match (from, &held.without_office) {
        (Some(from), _) if is_live(from.instance)? => Ok(Owner::Row(from.instance)),
        (Some(from), _) => Err(Error::new(
            ErrorKind::NotOwner,
            format!("{} is no longer held by this tenure", from.office),
        )
        .with_hint("claim it again first")),
        (None, Some(row)) if is_live(row.instance)? => Ok(Owner::Row(row.instance)),
        (None, _) => Ok(Owner::New(&Attachment::Own)),
    }
}

/// Notes a granted lock as this process' own, and makes a guard of it.
fn hold(inner: &Arc<Inner>, held: &mut Held, granted: GrantedLock) -> Result<ScopedLock> {
    let nonce_hash = held
        .rows()
        .find(|row| row.instance == granted.instance)
        .map(|row| row.nonce.hash())
        .ok_or_else(|| Error::internal("a lock was granted to a row that is not ours"))?;
    held.hold(&granted.name, granted.instance, granted.fence);
    let footing = Footing { inner: Arc::clone(inner), instance: granted.instance, nonce_hash };
    Ok(ScopedLock::new(footing, granted))
}

/// Releases locks of a row, as many as one transaction does; one without an office ends with its last lock.
fn release_some_of(tx: &store::Tx<'_>, row: &OwnRow, is_office: bool) -> Result<usize> {
    let released = instance::EndReason::Released;
    let how = LockEnd { reason: released.as_str(), by: None };
    let count = lock_table::end_some_of(tx, row.instance, how)?;
    if !is_office && count < lock_table::ENDED_AT_ONCE {
        instance::end_own(tx, row.instance, &row.nonce.hash(), &instance::End::new(released))?;
    }
    Ok(count)
}
