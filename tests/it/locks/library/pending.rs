//! Releases that cannot be written now are written later, and block nobody.

use incumbent::{Reason, Standing};
use serde_json::json;

use super::party::{LOCKER, Party, ROLE_TEST};
use super::{acquires, fences, is_listed, lock_granted, lock_report, request};
use crate::support::{Disk, Sandbox};

/// A release waits for its turn to be written like any change; what could not be written then is
/// written with the next change, and a lock that was acquired again meanwhile is not touched by it.
#[test]
fn a_release_in_a_busy_store_is_pending_until_the_next_change() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party_with(&json!({"busy_ms": 50}));
    let fence = owner.acquire(&["a", "b"])[0];
    let blocker = rusqlite::Connection::open(sandbox.db()).unwrap();
    let pending = |owner: &mut Party| owner.ask(&json!({"do": "pending"}));

    // One of two locks, and then the last one, with which its row ends.
    for (lock, count) in [(0, 1), (1, 2)] {
        blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert_eq!(owner.about("release", lock), json!({"pending": "busy"}));
        blocker.execute_batch("ROLLBACK").unwrap();
        assert_eq!(pending(&mut owner), count);
    }
    let again = owner.acquire(&["a"]);
    assert_eq!(pending(&mut owner), 0);
    assert!(again[0] > fence, "{again:?} after {fence}");
    assert_eq!(owner.about("verify", 2), "held");
    assert!(!is_listed(&store, "b"));
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (1, 1));
}

/// Not being able to write is not a loss, and questions are answered.
#[test]
fn a_busy_store_is_no_loss() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party_with(&json!({"busy_ms": 50}));
    fences(&owner.ask(&json!({"do": "acquire", "ids": ["token"], "ttl_ms": 60_000})));
    let blocker = rusqlite::Connection::open(sandbox.db()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(owner.about("verify", 0), "held");
    assert_eq!(owner.about("renew", 0)["error"], "busy");
    assert_eq!(lock_report(&store, "token").reason, Reason::AnchorHeld);
    blocker.execute_batch("ROLLBACK").unwrap();
    assert_eq!(owner.about("renew", 0), "held");
}

/// Ownership ends with the kernel's lock, not with the row: a release that could not be written
/// keeps nobody out.
#[test]
fn a_pending_release_of_the_last_lock_blocks_nobody() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party_with(&json!({"busy_ms": 50}));
    let fence = owner.acquire(&["token"])[0];
    let blocker = rusqlite::Connection::open(sandbox.db()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(owner.about("release", 0), json!({"pending": "busy"}));
    blocker.execute_batch("ROLLBACK").unwrap();
    let lock = lock_granted(store.try_acquire(&request("token")));
    assert!(lock.fence() > fence);
    // What is written later ends nothing of the next holder's.
    owner.acquire(&["other"]);
    assert_eq!(owner.ask(&json!({"do": "pending"})), 0);
    assert_eq!(lock.verify().unwrap(), Standing::Held);
    assert_eq!(lock_report(&store, "token").fence, lock.fence());
}

/// Symptom: whoever waited for a lock waited on when its holder had let go, and anybody who came
/// then got it. Cause: a waiter is woken by a commit, or by the end of the holder's process, and
/// there was neither. It holds because it looks at the holder's lock as well, now and then.
#[test]
fn a_pending_release_ends_the_wait_of_others() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party_with(&json!({"busy_ms": 50}));
    owner.acquire(&["token"]);
    let waiter = acquires(&store, &["token"]);
    sandbox.wait_for_lock_waiters(1);
    let blocker = rusqlite::Connection::open(sandbox.db()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(owner.about("release", 0), json!({"pending": "busy"}));
    blocker.execute_batch("ROLLBACK").unwrap();
    let (locks, _) = waiter.join().unwrap();
    assert_eq!(locks[0].verify().unwrap(), Standing::Held);
    assert_eq!(owner.ask(&json!({"do": "pending"})), 1, "it has done nothing since");
}

/// R:FULL. FIELD-BUGS row 78.
#[test]
fn a_release_on_a_full_disk_is_kept_and_written_later() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "1m") else { return };
    let open = || {
        let mut party = Party(disk.role(ROLE_TEST, LOCKER));
        assert_eq!(party.ask(&json!({"do": "open"})), "opened");
        party
    };
    let (mut owner, mut other) = (open(), open());
    let fences = owner.acquire(&["a", "b", "c"]);
    disk.fill_up();
    for (lock, count) in [(0, 1), (1, 2)] {
        assert_eq!(owner.about("release", lock), json!({"pending": "cannot_write"}));
        assert_eq!(owner.ask(&json!({"do": "pending"})), count);
    }
    // Nothing is granted that cannot be recorded, and questions are answered.
    assert_eq!(other.try_acquire(&["d"])["error"], "cannot_write");
    let listed = other.ask(&json!({"do": "list"}));
    assert_eq!(listed.as_array().unwrap().len(), 3, "{listed:#}");
    assert_eq!(owner.about("verify", 2), "held");
    disk.shell("rm store/fill").assert_code(0);
    // The next change of its own writes them.
    assert_eq!(owner.about("renew", 2), "held");
    assert_eq!(owner.ask(&json!({"do": "pending"})), 0);
    assert!(other.acquire(&["a", "b"])[0] > fences[2]);
    assert_eq!(other.try_acquire(&["c"])["held"]["pid"], owner.pid());
}
