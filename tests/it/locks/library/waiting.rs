//! Waits: woken at once, ended in time, and nothing left of them.

use std::time::{Duration, Instant};

use incumbent::{Cancel, Claim, ErrorKind, Reason, Standing, Wait};
use serde_json::json;

use super::{
    SOON, acquires, fences, is_listed, lock_granted, lock_refused, lock_report, request, waiting,
};
use crate::support::{LIMIT, Sandbox, assert_within, eventually};

/// The middle one of several: one round may meet a busy machine, most of them may not.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn a_release_wakes_the_waiter_of_a_lock() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    let mut took = Vec::new();
    for round in 0..9 {
        let fence = owner.acquire(&["token"])[0];
        let thread = acquires(&store, &["token"]);
        sandbox.wait_for_lock_waiters(1);
        let waiters = lock_report(&store, "token").waiters;
        assert_eq!(waiters.len(), 1);
        assert_eq!(waiters[0].pid, Some(std::process::id()));
        assert_eq!(json!(waiters[0])["pid"], std::process::id());
        let released = Instant::now();
        assert_eq!(owner.about("release", round), "Free");
        let (locks, at) = thread.join().unwrap();
        took.push(at.saturating_duration_since(released));
        assert!(locks[0].fence() > fence);
        assert!(lock_report(&store, "token").waiters.is_empty());
    }
    assert_within(SOON, median(took.clone()), &format!("{took:?}"));
}

#[test]
fn a_killed_holder_wakes_the_waiter_of_a_lock() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut took = Vec::new();
    for _ in 0..5 {
        let mut owner = sandbox.party();
        owner.acquire(&["token"]);
        let thread = acquires(&store, &["token"]);
        sandbox.wait_for_lock_waiters(1);
        let killed = Instant::now();
        owner.0.kill();
        let (locks, at) = thread.join().unwrap();
        took.push(at.saturating_duration_since(killed));
        assert_eq!(locks[0].evicted().unwrap().pid, Some(owner.pid()));
    }
    assert_within(SOON, median(took.clone()), &format!("{took:?}"));
}

#[test]
fn the_deadline_of_a_wait_is_kept() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    for limit in [Duration::from_millis(1), Duration::from_millis(50), Duration::from_millis(250)] {
        let late: Vec<_> = (0..5)
            .map(|_| {
                let asked = Instant::now();
                let holder =
                    lock_refused(store.acquire(&request("token"), &waiting(Wait::UpTo(limit))));
                assert_eq!(holder.pid, Some(owner.pid()));
                asked.elapsed().checked_sub(limit).expect("never before the deadline")
            })
            .collect();
        assert_within(SOON, median(late.clone()), &format!("{limit:?}: late by {late:?}"));
        assert_eq!(sandbox.live_rows(), 1, "no waiter is left");
    }
    assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0);
}

/// Where the store cannot even be looked at, that is the answer, and not later.
#[test]
fn a_wait_for_a_busy_store_ends_with_its_deadline() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let blocker = rusqlite::Connection::open(sandbox.db()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let limit = Duration::from_millis(200);
    let asked = Instant::now();
    let error = store.acquire(&request("token"), &waiting(Wait::UpTo(limit))).unwrap_err();
    let took = asked.elapsed();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(took >= limit, "{took:?}");
    assert_within(limit + Duration::from_secs(2), took, "the answer");
    blocker.execute_batch("ROLLBACK").unwrap();
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
    lock_granted(store.acquire(&request("token"), &waiting(Wait::UpTo(limit)))).release().unwrap();
}

/// Nor does a stuck writer lengthen a wait: the deadline holds for the store's locks, too.
#[test]
fn the_deadline_is_kept_while_the_store_is_busy() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    let limit = Duration::from_secs(2);
    let asked = Instant::now();
    let thread = std::thread::spawn({
        let store = store.clone();
        move || lock_refused(store.acquire(&request("token"), &waiting(Wait::UpTo(limit))))
    });
    sandbox.wait_for_lock_waiters(1);
    let blocker = rusqlite::Connection::open(sandbox.db()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(thread.join().unwrap().pid, Some(owner.pid()));
    let took = asked.elapsed();
    assert!(took >= limit, "{took:?}");
    assert_within(limit + Duration::from_secs(2), took, "the answer");
    blocker.execute_batch("ROLLBACK").unwrap();
}

#[test]
fn a_wait_of_zero_for_a_lock_tries_once() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    lock_refused(store.acquire(&request("token"), &waiting(Wait::UpTo(Duration::ZERO))));
    assert_eq!(sandbox.number("SELECT count(*) FROM events WHERE event = 'lock_awaited'"), 0);
    assert_eq!(owner.about("release", 0), "Free");
    drop(lock_granted(store.acquire(&request("token"), &waiting(Wait::UpTo(Duration::ZERO)))));
}

#[test]
fn a_cancelled_wait_leaves_nothing_behind() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    for _ in 0..3 {
        let cancel = Cancel::new();
        let thread = std::thread::spawn({
            let (store, cancel) = (store.clone(), cancel.clone());
            let options = waiting(Wait::Forever).cancel(cancel);
            move || lock_refused(store.acquire(&request("token"), &options))
        });
        sandbox.wait_for_lock_waiters(1);
        let cancelled = Instant::now();
        cancel.cancel();
        assert_eq!(thread.join().unwrap().pid, Some(owner.pid()));
        let took = cancelled.elapsed();
        assert_within(Duration::from_secs(2), took, "it");
        assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0);
        assert_eq!(sandbox.live_rows(), 1);
        assert!(lock_report(&store, "token").waiters.is_empty());
    }
    // One that was used before does not even begin to wait.
    let used = Cancel::new();
    used.cancel();
    lock_refused(store.acquire(&request("token"), &waiting(Wait::Forever).cancel(used)));
    // The files that it was seen by are garbage, which goes with the next grant.
    assert_eq!(owner.about("release", 0), "Free");
    let _lock = lock_granted(store.try_acquire(&request("token")));
    assert!(sandbox.anchor_names().len() <= 2, "{:?}", sandbox.anchor_names());
}

/// A standby that asks with a deadline, again and again, for as long as the holder lives: whatever
/// it leaves each time would pile up for days, because nobody is granted anything meanwhile.
#[test]
fn waits_in_vain_do_not_pile_up_anchors() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    for _ in 0..300 {
        let limit = Wait::UpTo(Duration::from_millis(1));
        lock_refused(store.acquire(&request("token"), &waiting(limit)));
    }
    let (anchors, rows) =
        (sandbox.anchor_names().len(), sandbox.number("SELECT count(*) FROM instances"));
    assert!(anchors <= 128 && rows <= 328, "after 300 waits: {anchors} anchors, {rows} rows");
}

#[test]
fn a_killed_waiter_blocks_nobody_and_is_not_listed() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let (mut owner, mut waiter, mut next) = (sandbox.party(), sandbox.party(), sandbox.party());
    owner.acquire(&["token"]);
    waiter.wait(&["token"]);
    sandbox.wait_for_lock_waiters(1);
    assert_eq!(lock_report(&store, "token").waiters[0].pid, Some(waiter.pid()));
    waiter.0.kill();
    assert!(lock_report(&store, "token").waiters.is_empty(), "a dead waiter is listed");
    assert_eq!(owner.about("release", 0), "Free");
    next.acquire(&["token"]);
    assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0, "the grant swept it");
    assert_eq!(sandbox.live_rows(), 1);
}

/// R:STOP.
#[test]
fn a_stopped_waiter_of_a_lock_blocks_nobody() {
    let sandbox = Sandbox::new();
    let (mut owner, mut waiter, mut next) = (sandbox.party(), sandbox.party(), sandbox.party());
    owner.acquire(&["token"]);
    waiter.wait(&["token"]);
    sandbox.wait_for_lock_waiters(1);
    waiter.stop();
    assert_eq!(owner.about("release", 0), "Free");
    let fence = next.acquire(&["token"])[0];
    waiter.go_on();
    assert_eq!(next.about("release", 0), "Free");
    let answer = waiter.ask(&json!({"do": "waited"}));
    assert!(fences(&answer)[0] > fence, "{answer}");
}

/// Of several locks a wait is for the first one that is held; it takes none before it has all.
#[test]
fn a_wait_for_several_locks_moves_on_to_the_next() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let (mut one, mut other) = (sandbox.party(), sandbox.party());
    one.acquire(&["a"]);
    other.acquire(&["c"]);
    let thread = acquires(&store, &["a", "b", "c"]);
    let waits_for = |identity: &str| {
        eventually(&format!("it waits for {identity}"), LIMIT, || {
            let waiters = lock_report(&store, identity).waiters;
            waiters.first().map(|waiter| assert_eq!(waiter.pid, Some(std::process::id())))
        });
    };
    waits_for("a");
    assert!(lock_report(&store, "c").waiters.is_empty());
    assert_eq!(one.about("release", 0), "Free");
    waits_for("c");
    assert!(!is_listed(&store, "a") && !is_listed(&store, "b"), "nothing is held meanwhile");
    // It can be had by somebody else meanwhile, and is waited for again.
    one.acquire(&["a"]);
    assert_eq!(other.about("release", 0), "Free");
    waits_for("a");
    assert!(!is_listed(&store, "c"));
    assert_eq!(one.about("release", 1), "Free");
    let (locks, _) = thread.join().unwrap();
    assert_eq!(locks.len(), 3);
    assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0);
    assert_eq!(sandbox.locks_on_record(), 3);
}

/// Taken from an office, a lock is waited for in the name of its profile.
#[test]
fn a_waiter_with_an_office_is_named_by_its_profile() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    let Claim::Granted(tenure) = store.profile("work").unwrap().claim().unwrap() else {
        panic!("held")
    };
    let options = waiting(Wait::UpTo(LIMIT));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| lock_granted(tenure.acquire(&request("token"), &options)));
        sandbox.wait_for_lock_waiters(1);
        let waiter = lock_report(&store, "token").waiters.remove(0);
        assert_eq!(waiter.profile.unwrap().as_str(), "work");
        assert_eq!(waiter.pid, Some(std::process::id()));
        assert_eq!(owner.about("release", 0), "Free");
        let lock = thread.join().unwrap();
        assert_eq!(lock.instance(), tenure.instance());
        assert_eq!(lock.verify().unwrap(), Standing::Held);
    });
    assert_eq!(sandbox.live_rows(), 1, "the office's");
}

/// A process has one anchor for all it is: that one thread lets go of its last lock must not make
/// another one's wait invisible, nor the end of a wait a lock.
#[test]
fn what_one_thread_ends_leaves_the_others_alone() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let (mut owner, mut other) = (sandbox.party(), sandbox.party());
    owner.acquire(&["token"]);
    let cancel = Cancel::new();
    let wait = |cancel: &Cancel| {
        let (store, options) = (store.clone(), waiting(Wait::Forever).cancel(cancel.clone()));
        let thread = std::thread::spawn(move || store.acquire(&request("token"), &options));
        sandbox.wait_for_lock_waiters(1);
        thread
    };
    let thread = wait(&cancel);
    drop(lock_granted(store.try_acquire(&request("mine"))));
    let waiters = lock_report(&store, "token").waiters;
    assert_eq!(waiters.len(), 1, "the waiter lost its anchor");
    // Whoever is granted something next sweeps the dead.
    other.acquire(&["mine"]);
    assert_eq!(lock_report(&store, "token").waiters.len(), 1, "the waiter was swept");
    assert_eq!(other.about("release", 0), "Free");

    let mine = lock_granted(store.try_acquire(&request("mine")));
    cancel.cancel();
    lock_refused(thread.join().unwrap());
    assert_eq!(other.try_acquire(&["mine"])["held"]["reason"], "anchor_held");
    assert_eq!(mine.verify().unwrap(), Standing::Held);
    // Nor a wait that is granted.
    let thread = wait(&Cancel::new());
    assert_eq!(owner.about("release", 0), "Free");
    let lock = lock_granted(thread.join().unwrap());
    assert_eq!(other.try_acquire(&["mine", "more"])["held"]["reason"], "anchor_held");
    drop(mine);
    assert_eq!(other.try_acquire(&["token"])["held"]["reason"], "anchor_held");
    drop(lock);
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
}

/// Who asks for the same locks in another order cannot meet half-way: no transaction has some.
#[test]
fn two_that_want_the_same_locks_in_another_order_both_get_them() {
    let sandbox = Sandbox::new();
    let (mut owner, mut one, mut other) = (sandbox.party(), sandbox.party(), sandbox.party());
    let last = owner.acquire(&["a", "b"])[1];
    one.wait(&["a", "b"]);
    other.wait(&["b", "a"]);
    sandbox.wait_for_lock_waiters(2);
    assert_eq!(owner.ask(&json!({"do": "drop"})), "dropped");
    // Whichever is first ends its locks with its process.
    let store = sandbox.here();
    let first = eventually("one of them has both", LIMIT, || {
        store.locks().unwrap().into_iter().find(|lock| lock.fence > last)?.pid
    });
    let (mut first, mut second) = if first == one.pid() { (one, other) } else { (other, one) };
    let had = fences(&first.ask(&json!({"do": "waited"})));
    first.0.kill();
    let has = fences(&second.ask(&json!({"do": "waited"})));
    assert!(has.iter().min() > had.iter().max(), "{has:?} after {had:?}");
}

/// No lock of the kernel's says when a lease runs out: the waiter has to look.
#[test]
fn a_waiter_gets_a_lock_whose_lease_runs_out_unseen() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    fences(&owner.ask(&json!({"do": "acquire", "ids": ["token"], "ttl_ms": 400})));
    sandbox.hide_anchors();
    let asked = Instant::now();
    let lock = lock_granted(store.acquire(&request("token"), &waiting(Wait::UpTo(LIMIT))));
    assert_eq!(lock.evicted().unwrap().reason, Reason::LeaseExpired);
    let refusals = sandbox.number("SELECT count(*) FROM lock_conflicts");
    assert_eq!(refusals, 0, "who waits and gets it was never refused, however often it looked");
    assert_within(Duration::from_secs(5), asked.elapsed(), "it");
    assert_eq!(owner.about("verify", 0)["lost"], "lease_expired");
}

#[test]
fn a_wait_in_a_store_that_is_replaced_is_an_error() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    let thread = std::thread::spawn({
        let store = store.clone();
        move || store.acquire(&request("token"), &waiting(Wait::Forever))
    });
    sandbox.wait_for_lock_waiters(1);
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
    }
    let error = thread.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreReplaced, "{error}");
}

/// All who wait get their turn, one at a time.
#[test]
fn four_waiters_hold_one_after_the_other() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.party();
    let mut last = owner.acquire(&["token"])[0];
    let mut waiters: Vec<_> = (0..4).map(|_| sandbox.party()).collect();
    for waiter in &mut waiters {
        waiter.wait(&["token"]);
    }
    sandbox.wait_for_lock_waiters(4);
    assert_eq!(owner.about("release", 0), "Free");
    let store = sandbox.here();
    while !waiters.is_empty() {
        let next = eventually("somebody holds it", LIMIT, || {
            let pid = store.locks().unwrap().first().filter(|lock| lock.fence > last)?.pid;
            waiters.iter().position(|waiter| Some(waiter.pid()) == pid)
        });
        let mut next = waiters.remove(next);
        let fence = fences(&next.ask(&json!({"do": "waited"})))[0];
        assert!(fence > last, "{fence} after {last}");
        last = fence;
        assert_eq!(next.about("verify", 0), "held");
        assert_eq!(lock_report(&store, "token").waiters.len(), waiters.len());
        assert_eq!(next.about("release", 0), "Free");
    }
    assert_eq!(sandbox.live_rows(), 0);
}
