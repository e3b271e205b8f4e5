//! A release ends one's own lock, and nobody else's.

use incumbent::lock::AcquireOptions;
use incumbent::stop::Force;
use incumbent::{ErrorKind, Released, ScopedLock, Standing};
use serde_json::json;

use super::{lock_granted, lock_refused, lock_report, request, requests};
use crate::support::Sandbox;

#[test]
fn a_loser_lets_go_of_nothing() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    let fence = owner.acquire(&["token"])[0];
    let holder = lock_refused(store.try_acquire(&request("token")));
    let error = store.release_all(holder.instance.unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotOwner, "{error}");
    drop((holder, store));
    assert_eq!(owner.about("verify", 0), "held");
    let store = sandbox.here();
    assert_eq!(lock_report(&store, "token").fence, fence);
    // Nor does one that had it before.
    let stale = {
        owner.about("release", 0);
        let stale = lock_granted(store.try_acquire(&request("token")));
        store.unlock(stale.name(), Force::Yes, "a person").unwrap();
        stale
    };
    let mine = lock_granted(store.try_acquire(&request("token")));
    assert!(mine.fence() > stale.fence());
    assert!(matches!(stale.release(), Ok(Released::WasLost)));
    assert_eq!(mine.verify().unwrap(), Standing::Held);
}

/// FIELD-BUGS row 41. Symptom: a restart wiped every token lock on the machine. Cause: its cleanup
/// did not ask whose they were.
#[test]
fn releasing_one_owners_locks_leaves_the_others() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let (mut one, mut other) = (sandbox.party(), sandbox.party());
    one.claim("one");
    other.claim("other");
    one.acquire(&["a", "b"]);
    let fences = other.acquire(&["c", "d"]);
    assert_eq!(one.about("release all", 0), 2);
    assert_eq!(one.ask(&json!({"do": "verify office"})), "held");
    assert_eq!(one.about("verify", 0), json!({"lost": "released", "by": null}));
    assert_eq!(other.about("verify", 0), "held");
    assert_eq!(other.about("verify", 1), "held");
    let listed: Vec<_> = store.locks().unwrap().iter().map(|lock| lock.fence).collect();
    assert_eq!((listed.len(), listed.iter().min()), (2, fences.iter().min()));
    // What is left of the guards is nobody's.
    let next = lock_granted(store.try_acquire(&request("a")));
    assert_eq!(one.ask(&json!({"do": "drop"})), "dropped");
    assert_eq!(next.verify().unwrap(), Standing::Held);
    assert_eq!(other.about("release all", 0), 2);
    assert_eq!(sandbox.locks_on_record(), 1);
}

#[test]
fn release_all_of_a_process_without_an_office_ends_its_row() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let locks = lock_granted(store.acquire_all(&requests(&["a", "b"]), &AcquireOptions::new()));
    let instance = locks[0].instance();
    assert_eq!(store.release_all(instance).unwrap(), 2);
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
    assert!(matches!(locks[0].verify().unwrap(), Standing::Lost(_)));
    assert_eq!(store.release_all(instance).unwrap_err().kind(), ErrorKind::NotOwner);
    let again = lock_granted(store.try_acquire(&request("a")));
    drop(locks);
    assert_eq!(again.verify().unwrap(), Standing::Held);
}

/// FIELD-BUGS row 42. Symptom: a failed connect left the token locked by ourselves. Cause: an error
/// path without a release. The guard has none to forget.
#[test]
fn an_early_return_releases() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut other = sandbox.party();
    let connect = || -> Result<ScopedLock, &'static str> {
        let lock = lock_granted(store.try_acquire(&request("token")));
        assert!(!lock.reacquired(), "left from the last time");
        Err("503")?;
        Ok(lock)
    };
    for _ in 0..3 {
        assert_eq!(connect().unwrap_err(), "503");
    }
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _lock = lock_granted(store.try_acquire(&request("token")));
        std::panic::resume_unwind(Box::new("a panic"));
    }));
    assert!(unwound.is_err());
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
    other.acquire(&["token"]);
}
