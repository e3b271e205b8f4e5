//! Locks by the library: one holder of an identity, across all processes and profiles.
//!
//! The test itself is one party; the others are processes that play [`party::LOCKER`] and are
//! ordered about. Time stands still in the tests of leases: both sides open with the same clock.

mod again;
mod exclusive;
mod fences;
mod forks;
mod given_back;
mod growth;
mod holders;
mod leases;
mod one;
mod owners;
mod party;
mod pending;
mod release;
mod slots;
mod stopped;
mod take_over;
mod unlock;
mod waiting;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use incumbent::clock::ManualClock;
use incumbent::lock::{AcquireOptions, LockReport, Stopped};
use incumbent::{
    Acquire, Holder, LockName, LockRequest, Lost, Result, ScopedLock, Standing, Store, Wait,
};
use serde_json::{Value, json};

use self::party::{LOCKER, Party, ROLE_TEST};
use crate::support::{LIMIT, Sandbox, WALL_MS, eventually};

const SCOPE: &str = "telegram-bot-token";

/// The hand-over takes a few milliseconds; the rest is for a busy machine.
const SOON: Duration = Duration::from_millis(100);

fn name(identity: &str) -> LockName {
    LockName::new(SCOPE, identity).unwrap()
}

fn request(identity: &str) -> LockRequest {
    LockRequest::new(SCOPE, identity).unwrap()
}

fn requests(identities: &[&str]) -> Vec<LockRequest> {
    identities.iter().map(|identity| request(identity)).collect()
}

fn leased(identity: &str, ttl: Duration) -> LockRequest {
    request(identity).ttl(ttl).unwrap()
}

fn waiting(wait: Wait) -> AcquireOptions {
    AcquireOptions::new().wait(wait)
}

fn evicting() -> AcquireOptions {
    AcquireOptions::new().stopped(Stopped::Evict)
}

#[track_caller]
fn lock_granted<T: std::fmt::Debug>(acquire: Result<Acquire<T>>) -> T {
    match acquire.unwrap() {
        Acquire::Granted(locks) => locks,
        Acquire::Held(holder) => panic!("{holder}"),
    }
}

#[track_caller]
fn lock_refused<T: std::fmt::Debug>(acquire: Result<Acquire<T>>) -> Holder {
    match acquire.unwrap() {
        Acquire::Granted(locks) => panic!("granted: {locks:?}"),
        Acquire::Held(holder) => *holder,
    }
}

fn lost(reason: &str, by: Option<&str>) -> Standing {
    Standing::Lost(Lost::Ended { reason: reason.to_owned().into(), by: by.map(str::to_owned) })
}

/// A lock as the store's list shows it.
#[track_caller]
fn lock_report(store: &Store, identity: &str) -> LockReport {
    let name = name(identity);
    let mut locks = store.locks().unwrap();
    locks.retain(|lock| lock.name == name);
    locks.pop().unwrap_or_else(|| panic!("{identity} is not on record"))
}

fn is_listed(store: &Store, identity: &str) -> bool {
    store.locks().unwrap().iter().any(|lock| lock.name == name(identity))
}

fn clock(boot_ms: i64) -> Arc<ManualClock> {
    Arc::new(ManualClock::new(WALL_MS, boot_ms))
}

#[track_caller]
fn fences(answer: &Value) -> Vec<i64> {
    let fences = answer.as_array().unwrap_or_else(|| panic!("{answer}"));
    fences.iter().map(|fence| fence.as_i64().unwrap()).collect()
}

impl Sandbox {
    fn here(&self) -> Store {
        Store::open(self.db()).unwrap()
    }

    fn party_with(&self, options: &Value) -> Party {
        let mut party = Party(self.role(ROLE_TEST, LOCKER));
        let mut order = json!({"do": "open"});
        order.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        assert_eq!(party.ask(&order), "opened");
        party
    }

    fn party(&self) -> Party {
        self.party_with(&json!({}))
    }

    fn locks_on_record(&self) -> i64 {
        self.number("SELECT count(*) FROM scoped_locks")
    }

    /// Instances on record as live: owners and waiters.
    fn live_rows(&self) -> i64 {
        self.number("SELECT count(*) FROM instances WHERE ended_at_ms IS NULL")
    }

    fn wait_for_lock_waiters(&self, count: i64) {
        let waiters = || self.number("SELECT count(*) FROM waiters WHERE scope IS NOT NULL");
        eventually(&format!("{count} waiters"), LIMIT, || (waiters() == count).then_some(()));
    }
}

/// Acquires in a thread of its own; with when that was granted.
fn acquires(store: &Store, identities: &[&str]) -> JoinHandle<(Vec<ScopedLock>, Instant)> {
    let (store, wanted) = (store.clone(), requests(identities));
    std::thread::spawn(move || {
        let locks = lock_granted(store.acquire_all(&wanted, &waiting(Wait::UpTo(LIMIT))));
        (locks, Instant::now())
    })
}
