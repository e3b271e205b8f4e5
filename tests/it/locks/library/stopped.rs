//! Owners that are stopped, and their eviction.

use std::time::{Duration, Instant};

use incumbent::{Acquire, Claim, Reason, Standing, Verdict, Wait};
use rustix::process::Signal;
use serde_json::json;

use super::{SOON, evicting, lock_granted, lock_refused, request, requests};
use crate::support::{
    LIMIT, Process, Sandbox, Stat, assert_within, eventually, skipped, wait_stopped,
};

#[allow(unsafe_code, reason = "a tracer is what the tests are about")]
mod tracer {
    /// Waits for a child's stop by its tracer, or for its end; returns the raw status.
    fn wait_for(child: i32) -> i32 {
        let mut status = 0;
        // SAFETY: our own child, and a place for its status.
        let waited = unsafe { libc::waitpid(child, &raw mut status, libc::__WALL) };
        assert_eq!(waited, child);
        status
    }

    /// Stops the main thread of a child as a debugger does; false where that is not allowed. The
    /// calling thread is its tracer, and only that one can let it go.
    pub fn trace(child: i32) -> bool {
        // SAFETY: both take a pid and no memory of ours.
        let traced = unsafe {
            libc::ptrace(libc::PTRACE_SEIZE, child, 0, 0) == 0
                && libc::ptrace(libc::PTRACE_INTERRUPT, child, 0, 0) == 0
        };
        if traced {
            assert!(libc::WIFSTOPPED(wait_for(child)));
        }
        traced
    }

    pub fn let_go(child: i32) {
        // SAFETY: takes a pid and no memory of ours.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_DETACH, child, 0, 0) }, 0);
    }
}

/// FIELD-BUGS rows 20 and 21. Stopped is not dead; whoever knows better says so, and the owner
/// learns it when it goes on, from every call and from its watch.
#[test]
fn a_stopped_owner_is_evicted_on_request_only() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.claim("work");
    let fence = owner.acquire(&["token", "other"])[0];
    assert_eq!(owner.about("watch", 0), "watching");
    owner.stop();
    let holder = lock_refused(store.try_acquire(&request("token")));
    assert!(holder.flags.stopped, "{holder:?}");
    assert_eq!((holder.verdict, &holder.reason), (Verdict::Alive, &Reason::AnchorHeld));
    let advice = holder.advice();
    assert!(advice.contains(&format!("kill -CONT {}", owner.pid())), "{advice}");

    let lock = lock_granted(store.acquire(&request("token"), &evicting()));
    let evicted = lock.evicted().unwrap();
    assert_eq!((&evicted.reason, evicted.pid), (&Reason::Evicted, Some(owner.pid())));
    assert!(lock.fence() > fence);
    // That lock, and nothing else of its owner's.
    let profile = store.profile("work").unwrap();
    assert!(matches!(profile.claim().unwrap(), Claim::Held(_)));
    assert_eq!(lock_refused(store.try_acquire(&request("other"))).pid, Some(owner.pid()));
    assert!(Stat::of(owner.pid()).is_some_and(|stat| stat.state == 'T'), "nobody signals it");

    owner.go_on();
    let said = owner.0.err_line_with("the watch says: ");
    assert!(said.contains("evicted"), "{said}");
    for verb in ["verify", "renew"] {
        let answer = owner.about(verb, 0);
        assert_eq!(answer["lost"], "evicted", "{verb}: {answer}");
        let by = answer["by"].as_str().unwrap();
        assert!(by.contains(&format!("pid {}", std::process::id())), "{verb}: {by}");
    }
    assert_eq!(owner.try_acquire(&["token"])["held"]["pid"], std::process::id());
    assert_eq!(owner.about("release", 0), "WasLost");
    assert_eq!(lock.verify().unwrap(), Standing::Held);
    assert_eq!(owner.about("verify", 1), "held");
    assert_eq!(owner.ask(&json!({"do": "verify office"})), "held");
}

#[test]
fn a_running_owner_is_never_evicted() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    let holder = lock_refused(store.acquire(&request("token"), &evicting()));
    assert!(!holder.flags.stopped, "{holder:?}");
    let patient = evicting().wait(Wait::UpTo(Duration::from_millis(600)));
    lock_refused(store.acquire(&request("token"), &patient));
    // One that was stopped and runs again.
    owner.stop();
    owner.go_on();
    eventually("it goes on", LIMIT, || (Stat::of(owner.pid())?.state != 'T').then_some(()));
    lock_refused(store.acquire(&request("token"), &evicting()));
    assert_eq!(owner.about("verify", 0), "held");
}

/// A debugger stops healthy processes, with state `t`.
#[test]
fn a_traced_owner_is_never_evicted() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    let pid = i32::try_from(owner.pid()).unwrap();
    if !tracer::trace(pid) {
        return skipped("needs leave to trace");
    }
    assert_eq!(Stat::of(owner.pid()).unwrap().state, 't');
    let holder = lock_refused(store.acquire(&request("token"), &evicting()));
    assert_eq!(holder.reason, Reason::AnchorHeld);
    tracer::let_go(pid);
    assert_eq!(owner.about("verify", 0), "held");
}

#[test]
fn a_waiter_that_may_evict_wakes_when_the_owner_is_stopped() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    let thread = std::thread::spawn({
        let store = store.clone();
        move || lock_granted(store.acquire(&request("token"), &evicting().wait(Wait::UpTo(LIMIT))))
    });
    sandbox.wait_for_lock_waiters(1);
    owner.stop();
    let stopped = Instant::now();
    let lock = thread.join().unwrap();
    let took = stopped.elapsed();
    assert_eq!(lock.evicted().unwrap().reason, Reason::Evicted);
    assert_within(Duration::from_secs(3), took, "the eviction");
    owner.go_on();
    assert_eq!(owner.about("verify", 0)["lost"], "evicted");
    assert_eq!(lock.verify().unwrap(), Standing::Held);
}

/// The two looks take 200 ms; a deadline before that is kept, and evicts nobody.
#[test]
fn an_eviction_does_not_outlast_the_deadline() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    owner.stop();
    let limit = Duration::from_millis(50);
    let late = (0..3).map(|_| {
        let asked = Instant::now();
        lock_refused(store.acquire(&request("token"), &evicting().wait(Wait::UpTo(limit))));
        asked.elapsed().checked_sub(limit).expect("not before the deadline")
    });
    let late = late.min().unwrap();
    assert_within(SOON, late, "beyond the deadline");
    owner.go_on();
    assert_eq!(owner.about("verify", 0), "held");
}

/// What is stopped must be proven to be the owner: without a start time on record, or with that of
/// another process, nobody is evicted.
#[test]
fn an_owner_that_is_not_proven_stopped_is_not_evicted() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    owner.stop();
    for columns in ["start_time = NULL", "host = 'another'", "pid_ns = 'another'"] {
        let saved = "CREATE TABLE saved AS SELECT * FROM instances";
        sandbox.forge(saved);
        sandbox.forge(&format!("UPDATE instances SET {columns}"));
        lock_refused(store.acquire(&request("token"), &evicting()));
        sandbox.forge(
            "UPDATE instances SET (start_time, host, pid_ns) =
                 (SELECT start_time, host, pid_ns FROM saved WHERE saved.id = instances.id)",
        );
        sandbox.forge("DROP TABLE saved");
    }
    owner.go_on();
    assert_eq!(owner.about("verify", 0), "held");
    // Another process is stopped, whose pid the record has come to name.
    let decoy = Process::start(sandbox.program("cat"));
    decoy.signal(Signal::STOP);
    wait_stopped(decoy.pid());
    sandbox.forge(&format!(
        "UPDATE instances SET process_inode = NULL, pid = {}, start_time = NULL",
        decoy.pid()
    ));
    lock_refused(store.acquire(&request("token"), &evicting()));
    assert_eq!(owner.about("verify", 0), "held");
}

/// All or none: a lock whose owner may be evicted is left alone when another one is not to be had.
#[test]
fn a_stopped_owner_is_not_evicted_for_a_claim_that_fails() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let (mut stopped, mut running) = (sandbox.party(), sandbox.party());
    stopped.acquire(&["a"]);
    running.acquire(&["b"]);
    stopped.stop();
    let holder = lock_refused(store.acquire_all(&requests(&["a", "b"]), &evicting()));
    assert_eq!(holder.pid, Some(running.pid()));
    stopped.go_on();
    assert_eq!(stopped.about("verify", 0), "held");
    assert_eq!(running.about("verify", 0), "held");
}

#[test]
fn several_stopped_owners_are_evicted_together() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owners: Vec<_> = (0..3).map(|_| sandbox.party()).collect();
    let identities = ["a", "b", "c"];
    for (owner, identity) in owners.iter_mut().zip(identities) {
        owner.acquire(&[identity]);
        owner.stop();
    }
    let locks = lock_granted(store.acquire_all(&requests(&identities), &evicting()));
    for (lock, owner) in locks.iter().zip(&mut owners) {
        assert_eq!(lock.evicted().unwrap().pid, Some(owner.pid()));
        owner.go_on();
        assert_eq!(owner.about("verify", 0)["lost"], "evicted");
        assert_eq!(owner.about("release", 0), "WasLost");
    }
    // Nothing else kept their rows.
    assert_eq!(sandbox.live_rows(), 1);
}

/// Found stopped once is not enough: one that goes on within the 200 ms keeps its lock.
#[test]
fn an_owner_that_goes_on_in_time_keeps_its_lock() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    let mut kept = 0;
    let began = Instant::now();
    for round in 0.. {
        if round >= 5 && kept > 0 {
            break;
        }
        assert!(began.elapsed() < LIMIT, "the machine is too busy to tell");
        owner.acquire(&["token"]);
        owner.stop();
        let asked = Instant::now();
        let thread = std::thread::spawn({
            let store = store.clone();
            move || store.acquire(&request("token"), &evicting()).unwrap()
        });
        // Long enough for the first look, too short for the second: it is about that interval.
        std::thread::sleep(Duration::from_millis(80));
        owner.go_on();
        // On a busy machine it may have been too late.
        let was_in_time = asked.elapsed() < Duration::from_millis(150);
        let answer = thread.join().unwrap();
        if was_in_time {
            assert!(matches!(answer, Acquire::Held(_)), "evicted: {answer:?}");
            assert_eq!(owner.about("verify", round), "held");
            kept += 1;
        }
        drop(answer);
        owner.about("release", round);
    }
}
