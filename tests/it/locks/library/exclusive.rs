//! Locks that exclude within one process, too.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use incumbent::lock::AcquireOptions;
use incumbent::{
    Acquire, Claim, ErrorKind, LockRequest, OpenOptions, Released, Standing, Store, Wait,
};
use serde_json::json;

use super::{SCOPE, SOON, lock_granted, lock_refused, lock_report, request, waiting};
use crate::support::{LIMIT, Process, Sandbox, assert_within};

fn exclusive(identity: &str) -> LockRequest {
    request(identity).exclusive()
}

/// Refused by this very process, whatever is asked for and through whatever handle.
#[track_caller]
fn assert_held_by_us(acquire: incumbent::Result<Acquire>) {
    let holder = lock_refused(acquire);
    assert!(holder.is_this_process, "{holder}");
    assert_eq!(holder.pid, Some(std::process::id()));
    assert!(holder.to_string().contains("this very process"), "{holder}");
    assert!(holder.advice().contains("release it"), "{}", holder.advice());
}

#[test]
fn an_exclusive_lock_has_one_guard_in_its_process_whoever_asks() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let Claim::Granted(tenure) = store.profile("work").unwrap().claim().unwrap() else {
        panic!("held")
    };
    let lock = lock_granted(store.try_acquire(&exclusive("token")));
    assert!(!lock.reacquired());
    assert_eq!(lock.slot().map(|slot| (slot.number, slot.of)), Some((0, 1)));
    for asked in [exclusive("token"), request("token"), request("token").slots(5).unwrap()] {
        assert_held_by_us(store.try_acquire(&asked));
        assert_held_by_us(Store::open(sandbox.db()).unwrap().try_acquire(&asked));
        assert_held_by_us(tenure.try_acquire(&asked));
        let other_thread =
            std::thread::scope(|scope| scope.spawn(|| store.try_acquire(&asked)).join().unwrap());
        assert_held_by_us(other_thread);
    }
    assert_eq!(lock.verify().unwrap(), Standing::Held);
    assert!(lock_report(&store, "token").conflicts.is_empty(), "threads are no contenders");
    // From another thread, as the runtime of another language drops it.
    let fence = lock.fence();
    let released = std::thread::spawn(move || lock.release().unwrap()).join().unwrap();
    assert!(matches!(released, Released::Free), "{released:?}");
    let again = lock_granted(tenure.try_acquire(&exclusive("token")));
    assert!(again.fence() > fence);
    assert_held_by_us(store.try_acquire(&exclusive("token")));
    drop(again);
    lock_granted(store.try_acquire(&request("token"))).release().unwrap();
}

/// The other way round: what a process shares, it does not have for one of its threads alone.
#[test]
fn an_exclusive_request_waits_for_every_guard_that_shares_the_lock() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let first = lock_granted(store.try_acquire(&request("token")));
    let second = lock_granted(store.try_acquire(&request("token")));
    assert!(second.reacquired());
    assert_held_by_us(store.try_acquire(&exclusive("token")));
    assert!(matches!(first.release().unwrap(), Released::StillShared));
    assert_held_by_us(store.try_acquire(&exclusive("token")));
    drop(second);
    drop(lock_granted(store.try_acquire(&exclusive("token"))));
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
}

#[test]
fn another_process_is_refused_by_an_exclusive_lock_as_by_any() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut other = sandbox.party();
    let lock = lock_granted(store.try_acquire(&exclusive("token")));
    let refused = other.try_acquire(&["token"]);
    assert_eq!(refused["held"]["pid"], std::process::id(), "{refused}");
    let asked = other.ask(&json!({"do": "acquire", "ids": ["token"], "slots": 1}));
    assert_eq!(asked["held"]["slot"], json!({"number": 0, "of": 1}), "{asked}");
    assert_eq!(lock_report(&store, "token").slot, lock.slot());
    drop(lock);
    other.acquire(&["token"]);
    let holder = lock_refused(store.try_acquire(&exclusive("token")));
    assert_eq!((holder.pid, holder.is_this_process), (Some(other.pid()), false), "{holder}");
    other.0.kill();
    let lock = lock_granted(store.try_acquire(&exclusive("token")));
    assert_eq!(lock.evicted().unwrap().pid, Some(other.pid()));
}

/// A record that a verb makes for this process is another holder's, until the process itself wants
/// what it was made for.
#[test]
fn what_a_verb_recorded_for_a_process_goes_over_to_its_exclusive_guard() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let pid = std::process::id().to_string();
    let verb = |name: &str, code: i32| {
        let words = ["lock", name, SCOPE, "token", "--pid", &pid];
        let keeper: &[&str] = if name == "acquire" { &["--no-keeper"] } else { &[] };
        sandbox.cli([&words, keeper].concat()).assert_code(code);
    };
    let lock = lock_granted(store.try_acquire(&exclusive("token")));
    verb("acquire", 75);
    drop(lock);
    verb("acquire", 0);
    let lock = lock_granted(store.try_acquire(&exclusive("token")));
    verb("verify", 1);
    verb("release", 1);
    assert_eq!(lock.verify().unwrap(), Standing::Held);
}

/// Symptom: an exclusive guard took what a child had locked, which acts for this process by its
/// nonce, and both went on. Cause: a lock in a row of ours without a guard counted as one that the
/// program before had left. It holds because what was left is known from the handover.
#[test]
fn what_a_child_locked_for_its_parent_is_not_the_parents_to_take() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let Claim::Granted(tenure) = store.profile("work").unwrap().claim().unwrap() else {
        panic!("held")
    };
    let verb = |name: &str, code: i32| {
        let mut command = sandbox.incumbent(["lock", name, SCOPE, "token"]);
        command
            .env("INCUMBENT_INSTANCE", tenure.instance().to_string())
            .env("INCUMBENT_TOKEN", tenure.nonce().to_hex());
        Process::start(command).finish(LIMIT).assert_code(code);
    };
    verb("acquire", 0);
    let fence = lock_report(&store, "token").fence;
    for asked in [exclusive("token"), request("token").slots(5).unwrap()] {
        assert_held_by_us(store.try_acquire(&asked));
        assert_held_by_us(tenure.try_acquire(&asked));
    }
    assert_eq!(lock_report(&store, "token").fence, fence);
    verb("release", 0);
    // And the other way round.
    let lock = lock_granted(tenure.try_acquire(&exclusive("token")));
    verb("acquire", 75);
    assert_eq!(lock.verify().unwrap(), Standing::Held);
}

#[test]
fn named_twice_in_one_request_it_is_invalid_input() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let twice = [exclusive("token"), request("token")];
    let error = store.acquire_all(&twice, &AcquireOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains(&twice[0].name().to_string()), "{error}");
    assert_eq!(sandbox.locks_on_record(), 0);
}

/// All or none: one of several that this process has already.
#[test]
fn of_several_one_that_is_held_exclusively_refuses_all() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let lock = lock_granted(store.try_acquire(&exclusive("b")));
    let wanted = [exclusive("a"), request("b"), request("c")];
    let holder = lock_refused(store.acquire_all(&wanted, &AcquireOptions::new()));
    assert!(holder.is_this_process, "{holder}");
    assert_eq!(sandbox.locks_on_record(), 1);
    drop(lock);
    let locks = lock_granted(store.acquire_all(&wanted, &AcquireOptions::new()));
    assert_eq!(
        locks.iter().map(|lock| lock.slot().is_some()).collect::<Vec<_>>(),
        [true, false, false]
    );
}

#[test]
fn a_thread_that_waits_for_another_one_is_woken_by_the_release() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut took = Vec::new();
    for _ in 0..9 {
        let lock = lock_granted(store.try_acquire(&exclusive("token")));
        let waiter = std::thread::spawn({
            let store = store.clone();
            move || {
                let options = waiting(Wait::UpTo(LIMIT));
                let lock = lock_granted(store.acquire(&exclusive("token"), &options));
                (lock, std::time::Instant::now())
            }
        });
        sandbox.wait_for_lock_waiters(1);
        let released = std::time::Instant::now();
        drop(lock);
        let (lock, at) = waiter.join().unwrap();
        took.push(at.saturating_duration_since(released));
        drop(lock);
    }
    took.sort();
    assert_within(SOON, took[took.len() / 2], &format!("{took:?}"));
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
}

/// Nobody else of this process does anything while it waits: a release that could not be written
/// is written by the wait.
#[test]
fn a_thread_that_waits_writes_what_another_one_could_not() {
    let sandbox = Sandbox::new();
    let budget = Duration::from_millis(50);
    let store = OpenOptions::new().path(sandbox.db()).busy_budget(budget).open().unwrap();
    // With it the process keeps its anchor, whatever it lets go.
    let _other = lock_granted(store.try_acquire(&exclusive("other")));
    let lock = lock_granted(store.try_acquire(&exclusive("token")));
    let waiter = std::thread::spawn({
        let store = store.clone();
        move || lock_granted(store.acquire(&exclusive("token"), &waiting(Wait::UpTo(LIMIT))))
    });
    sandbox.wait_for_lock_waiters(1);
    let blocker = rusqlite::Connection::open(sandbox.db()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let released = lock.release().unwrap();
    assert!(matches!(released, Released::Pending(_)), "{released:?}");
    blocker.execute_batch("ROLLBACK").unwrap();
    let lock = waiter.join().unwrap();
    assert_eq!(lock.verify().unwrap(), Standing::Held);
    assert_eq!(store.pending_releases(), 0);
}

/// Many threads that take turns: never two at once.
#[test]
fn of_many_threads_one_at_a_time_is_inside() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let (inside, turns) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let options = waiting(Wait::UpTo(LIMIT));
                    let lock = lock_granted(store.acquire(&exclusive("token"), &options));
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                    assert_eq!(lock.verify().unwrap(), Standing::Held);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    turns.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(turns.into_inner(), 120);
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
}

/// FIELD-BUGS row 89. Symptom elsewhere: 15 s of a deadlock with oneself, and no word of that. A
/// process that waits for itself is told so.
#[test]
fn a_wait_for_ones_own_guard_ends_with_its_limit() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let _lock = lock_granted(store.try_acquire(&exclusive("token")));
    let options = waiting(Wait::UpTo(Duration::from_millis(50)));
    assert_held_by_us(store.acquire(&exclusive("token"), &options));
    assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0);
}

/// FIELD-BUGS row 42. Symptom: after a failed connect the token stayed locked by ourselves. It holds
/// because the guard goes with whatever ends its scope.
#[test]
fn a_thread_that_panics_leaves_no_exclusive_lock_behind() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let thread = std::thread::spawn({
        let store = store.clone();
        move || {
            let _lock = lock_granted(store.try_acquire(&exclusive("token")));
            panic!("the connection failed");
        }
    });
    thread.join().unwrap_err();
    lock_granted(store.try_acquire(&exclusive("token"))).release().unwrap();
}

/// A process that executes another program has let go of its locks: the program that it became
/// meets its own row, which is no guard of its own.
#[test]
fn after_an_exec_the_lock_is_had_again() {
    let sandbox = Sandbox::new();
    let mut party = sandbox.party();
    let wanted = json!({"do": "acquire", "ids": ["token"], "slots": 1});
    let fence = party.ask(&wanted)[0].as_i64().unwrap();
    assert_eq!(party.ask(&json!({"do": "execute"})), "executing");
    assert_eq!(party.ask(&json!({"do": "open"})), "opened");
    assert!(party.ask(&wanted)[0].as_i64().unwrap() > fence);
    let reasons = "SELECT count(*) FROM instances WHERE end_reason = 're_executed'";
    assert_eq!(sandbox.number(reasons), 1);
    assert_eq!(party.ask(&wanted)["held"]["pid"], party.pid());
}

/// FIELD-BUGS row 70. The child of a fork has nothing of it, and releases nothing.
#[test]
fn a_forked_child_neither_has_nor_releases_an_exclusive_lock() {
    let sandbox = Sandbox::new();
    let mut party = sandbox.party();
    for identity in ["token", "other"] {
        let wanted = json!({"do": "acquire", "ids": [identity], "slots": 1});
        assert!(party.ask(&wanted).is_array());
    }
    party.0.say(&json!({"do": "fork"}).to_string());
    let said = party.0.err_line_with("child: ");
    assert_eq!(said.matches("Err(\"forked\")").count(), 6, "{said}");
    let ended = party.0.err_line_with("=> ");
    assert!(ended.ends_with("=> 0"), "{ended}");
    assert_eq!(party.about("verify", 0), "held");
    assert_eq!(sandbox.locks_on_record(), 2);
}
