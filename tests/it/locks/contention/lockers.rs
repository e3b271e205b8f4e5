//! How a contender locks: by the library, or by the verbs.

use std::process::{Command, Stdio};
use std::time::Duration;

use incumbent::lock::{AcquireOptions, Stopped};
use incumbent::{
    Acquire, ErrorKind, LockRequest, Reason, Released, ScopedLock, Standing, Store, Wait,
};
use serde_json::Value;

use super::contenders::{FIRST_EVICTABLE, STARVED};
use super::{SCOPE, identity};
use crate::support::{BINARY, eventually};

/// Far beyond any wait that is fair, on an idle machine: eight contenders share a lock, each holds
/// it for some 10 ms, and a stopped one for at most half a second.
pub const LONG_WAIT: Duration = Duration::from_mins(1);

/// A way to lock: through the library, or by the verbs of the program.
pub trait Locker {
    type Lock;
    /// The first of the locks that it wants.
    fn first(&self) -> usize;
    /// All of `wanted`, or none.
    fn acquire(&mut self, wanted: &[usize], wait: Wait) -> Option<Vec<Self::Lock>>;
    fn fence(&self, lock: &Self::Lock) -> i64;
    fn evicted(&self, lock: &Self::Lock) -> bool;
    fn is_held(&mut self, lock: &Self::Lock, renew: bool) -> bool;
    /// Whether it was still held.
    fn release(&mut self, lock: Self::Lock) -> bool;
}

pub struct Library {
    pub store: Store,
    pub stopped: Stopped,
}

impl Locker for Library {
    type Lock = ScopedLock;

    fn first(&self) -> usize {
        if self.stopped == Stopped::Evict { FIRST_EVICTABLE } else { 0 }
    }

    fn acquire(&mut self, wanted: &[usize], wait: Wait) -> Option<Vec<ScopedLock>> {
        let requests: Vec<LockRequest> =
            wanted.iter().map(|lock| LockRequest::new(SCOPE, identity(*lock)).unwrap()).collect();
        let options = AcquireOptions::new().wait(wait).stopped(self.stopped);
        let mut answer = self.store.acquire_all(&requests, &options);
        for _ in 0..BUSY_MAX {
            // On a machine that is overloaded the write lock may be out of reach for longer than
            // one call waits; a gateway would ask again.
            if !is_busy(&answer) || wait != LONG {
                break;
            }
            answer = self.store.acquire_all(&requests, &options);
        }
        match answer {
            Ok(Acquire::Granted(locks)) => {
                assert!(locks.iter().all(|lock| !lock.reacquired()), "it held nothing: {locks:#?}");
                Some(locks)
            }
            Ok(Acquire::Held(_)) => None,
            // A short wait may end while a stopped process has the store's write lock.
            Err(error) if error.kind() == ErrorKind::Busy && wait != LONG => None,
            Err(error) => panic!("acquire: {error}"),
        }
    }

    fn fence(&self, lock: &ScopedLock) -> i64 {
        lock.fence()
    }

    fn evicted(&self, lock: &ScopedLock) -> bool {
        lock.evicted().is_some_and(|evicted| evicted.reason == Reason::Evicted)
    }

    fn is_held(&mut self, lock: &ScopedLock, renew: bool) -> bool {
        let mut answer = if renew { lock.renew() } else { lock.verify() };
        for _ in 0..BUSY_MAX {
            if !is_busy(&answer) {
                break;
            }
            answer = lock.verify();
        }
        match answer {
            Ok(standing) => standing == Standing::Held,
            Err(error) => panic!("verify: {error}"),
        }
    }

    fn release(&mut self, lock: ScopedLock) -> bool {
        match lock.release().unwrap() {
            Released::Free => true,
            Released::WasLost => false,
            // Every later call tries again.
            Released::Pending(error) if error.kind() == ErrorKind::Busy => {
                eventually("a release that is kept", LONG_ENOUGH, || {
                    let _ = self.store.locks();
                    (self.store.pending_releases() == 0).then_some(())
                });
                true
            }
            other => panic!("release: {other:?}"),
        }
    }
}

/// How often a busy store is asked again; each time takes five seconds.
const BUSY_MAX: usize = 8;

/// The same as a length of time.
const LONG_ENOUGH: Duration = Duration::from_secs(40);

fn is_busy<T>(answer: &incumbent::Result<T>) -> bool {
    answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy)
}

/// `lock ... --pid` for this very process, which then does not link the library as far as the store
/// knows. A lock is its number, its fence, and whether its owner before was evicted.
pub struct Verbs;

impl Verbs {
    fn verb(words: &[&str], lock: usize, options: &[String]) -> (i32, Value) {
        let pid = std::process::id().to_string();
        let output = Command::new(BINARY)
            .args(["--json", "lock"])
            .args(words)
            .args([SCOPE, &identity(lock), "--pid", &pid])
            .args(options)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let document = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("lock {words:?} {options:?}: {error}: {output:?}"));
        (output.status.code().unwrap(), document)
    }

    fn held(words: &[&str], lock: &(usize, i64, bool)) -> bool {
        for _ in 0..BUSY_MAX {
            let (code, document) = Self::verb(words, lock.0, &[format!("--fence={}", lock.1)]);
            if document["error"]["kind"] == "busy" {
                continue;
            }
            assert!(code == 0 || code == 1, "lock {words:?}: {code}: {document:#}");
            return code == 0;
        }
        panic!("lock {words:?}: busy {BUSY_MAX} times")
    }
}

impl Locker for Verbs {
    type Lock = (usize, i64, bool);

    fn first(&self) -> usize {
        FIRST_EVICTABLE
    }

    fn acquire(&mut self, wanted: &[usize], wait: Wait) -> Option<Vec<Self::Lock>> {
        // One at a time is what the verb can.
        let lock = wanted[0];
        let mut options = vec!["--evict-stopped".to_owned()];
        if let Wait::UpTo(limit) = wait {
            options.push(format!("--wait={}ms", limit.as_millis()));
        }
        let (mut code, mut document) = Self::verb(&["acquire"], lock, &options);
        for _ in 0..BUSY_MAX {
            if document["error"]["kind"] != "busy" || wait != LONG {
                break;
            }
            (code, document) = Self::verb(&["acquire"], lock, &options);
        }
        if code == 75 && (wait != LONG || document["error"].is_null()) {
            return None;
        }
        assert_eq!(code, 0, "lock acquire: {document:#}");
        assert_eq!(document["reacquired"], false, "it held nothing: {document:#}");
        let evicted = document["evicted"]["reason"] == "evicted";
        Some(vec![(lock, document["fence"].as_i64().unwrap(), evicted)])
    }

    fn fence(&self, lock: &Self::Lock) -> i64 {
        lock.1
    }

    fn evicted(&self, lock: &Self::Lock) -> bool {
        lock.2
    }

    fn is_held(&mut self, lock: &Self::Lock, renew: bool) -> bool {
        Self::held(if renew { &["renew"] } else { &["verify"] }, lock)
    }

    fn release(&mut self, lock: Self::Lock) -> bool {
        Self::held(&["release"], &lock)
    }
}

pub const LONG: Wait = Wait::UpTo(STARVED);
