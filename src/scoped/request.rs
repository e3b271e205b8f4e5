//! Which locks are wanted, and how.

use std::time::Duration;

use serde_json::Value;

use crate::names::Secret;
use crate::patience::Stopped;
use crate::records::locks::TTL_MAX_MS;
use crate::{Cancel, Error, LockName, Result, Wait};

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

    /// What others should be told about the holder. Never put a secret here: it is stored and
    /// shown.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for more than 64 KiB of compact JSON.
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
    /// anchor cannot be seen; elsewhere the kernel knows better, and a lease that ran out is a
    /// flag.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) below 1 ms and above 30 days.
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
