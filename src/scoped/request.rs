//! Which locks are wanted, and how.

use std::time::Duration;

use serde_json::Value;

use crate::names::Secret;
use crate::names::slot::SLOTS_MAX;
use crate::patience::Stopped;
use crate::records::locks::TTL_MAX_MS;
use crate::store::held::Share;
use crate::{Cancel, Error, LockName, Result, Wait, Wanted};

/// The longest metadata, as compact JSON, in bytes.
const METADATA_LENGTH_MAX: usize = 64 * 1024;

/// The most locks that are taken together.
const LOCKS_MAX: usize = 64;

/// A lock to be acquired. `Debug` does not show its identity.
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
    /// How many may hold it at once; `None`: one process, whose guards share it.
    pub(crate) slots: Option<u32>,
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
            slots: None,
        })
    }

    /// Excludes within one process, too. Without it the threads and handles of a process share a
    /// lock; an exclusive one has a single guard, and whoever else asks is refused by it, whatever
    /// it asks for: another thread, another handle, another tenure of this process, a request that
    /// is not exclusive. Until the guard is dropped, wherever that happens. The other way round an
    /// exclusive request is refused while this process holds the lock in any way. The [`Holder`]
    /// then says that it [is this process](crate::Holder::is_this_process). Not so where the `run`
    /// holds it that this process acts for: that is another holder, and keeps it.
    ///
    /// It does not know which thread holds it: a thread that waits for its own guard waits for
    /// ever. The same as [`LockRequest::slots`] with 1.
    ///
    /// ```
    /// use incumbent::{Acquire, LockRequest, Store};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// let request = LockRequest::new("session-file", "work")?.exclusive();
    /// let Acquire::Granted(lock) = store.try_acquire(&request)? else { panic!("nobody else") };
    /// match store.try_acquire(&request)? {
    ///     Acquire::Held(holder) => assert!(holder.is_this_process),
    ///     Acquire::Granted(_) => unreachable!("one guard at a time"),
    /// }
    /// drop(lock);
    /// assert!(matches!(store.try_acquire(&request)?, Acquire::Granted(_)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`Holder`]: crate::Holder
    #[must_use]
    pub fn exclusive(mut self) -> Self {
        self.slots = Some(1);
        self
    }

    /// Up to `count` may hold the lock at once, 1 to 64: of accounts that allow so many sessions.
    /// Each guard has a [slot](crate::ScopedLock::slot) of its own, and a fence of its own, also
    /// within one process. The one too many is refused, by a [`Holder`](crate::Holder) that
    /// [names all](crate::Holder::others).
    ///
    /// Everybody should say the same number. Where they do not, the smallest counts: nobody is
    /// granted a slot while as many hold the lock as any of them, or whoever asks, has said. A lock
    /// without slots counts as one of one, so that it and slots exclude each other, also within one
    /// process. Which slot it is says nothing but that no other holder has the same.
    ///
    /// ```
    /// use incumbent::{Acquire, LockRequest, Store};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// let request = LockRequest::new("api-account", "42")?.slots(2)?;
    /// let Acquire::Granted(first) = store.try_acquire(&request)? else { panic!("nobody else") };
    /// let Acquire::Granted(second) = store.try_acquire(&request)? else { panic!("one is left") };
    /// assert_eq!(first.slot().map(|slot| slot.number), Some(0));
    /// assert_eq!(second.slot().map(|slot| slot.number), Some(1));
    /// assert!(second.fence() > first.fence());
    /// let Acquire::Held(holder) = store.try_acquire(&request)? else { panic!("both are held") };
    /// assert_eq!(holder.others.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for 0 and for more than 64.
    pub fn slots(mut self, count: u32) -> Result<Self> {
        if !(1..=SLOTS_MAX).contains(&count) {
            return Err(Error::invalid(format!("`slots` is {count}"))
                .with_hint(format!("a lock has 1 to {SLOTS_MAX} slots")));
        }
        self.slots = Some(count);
        Ok(self)
    }

    /// What others should be told about the holder. Never put a secret here: it is stored and
    /// shown.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for more than 64 KiB of compact JSON, and
    /// for more than 127 levels of arrays and objects.
    pub fn metadata(mut self, metadata: Value) -> Result<Self> {
        let text = metadata.to_string();
        let length = text.len();
        if length > METADATA_LENGTH_MAX {
            return Err(Error::invalid(format!("the metadata has {length} bytes"))
                .with_hint(format!("at most {METADATA_LENGTH_MAX}: it says who holds the lock")));
        }
        // Whoever reads it back has the same limit of depth.
        if serde_json::from_str::<Value>(&text).is_err() {
            return Err(Error::invalid("the metadata is nested too deeply")
                .with_hint("at most 127 levels of arrays and objects"));
        }
        self.metadata = Some(metadata).filter(|metadata| !metadata.is_null());
        Ok(self)
    }

    /// Asks for a lease that has to be renewed within this time
    /// ([`ScopedLock::renew`](crate::ScopedLock::renew)), by a clock that does not step and counts
    /// suspend. It decides only where the holder's anchor cannot be seen; elsewhere the kernel
    /// knows better, and a lease that ran out is a flag. Without it there is no lease.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) below 1 ms and above 30 days.
    pub fn ttl(mut self, ttl: Duration) -> Result<Self> {
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        if !(1..=TTL_MAX_MS).contains(&ttl_ms) {
            let what = format!("a time to live of {} s is out of range", ttl.as_secs_f64());
            return Err(Error::invalid(what).with_hint(
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

    pub(crate) fn share(&self) -> Share {
        let what = Wanted::Lock(self.name.clone());
        Share { what, holders_max: self.slots.unwrap_or(1) }
    }
}

/// How to acquire locks, for callers that need more than to try once; an example is at
/// [`Store::acquire`](crate::Store::acquire).
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

    /// Waits for the locks while another one holds them. This process is shown as a waiter
    /// meanwhile.
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Ends the wait, from another thread or by a question.
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

/// How many owners may stand in the way of these at once: each may need an errand. Of a lock that
/// is wanted without slots as well, others may have some.
pub(crate) fn owners_max(requests: &[LockRequest]) -> usize {
    let of_each = usize::try_from(SLOTS_MAX).unwrap_or(1);
    requests.len() * of_each
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
