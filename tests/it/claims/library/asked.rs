//! Waits that ask their caller whether to go on: on its own thread, often enough for Ctrl-C, and
//! with one waiter on record however long they last.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use incumbent::lock::AcquireOptions;
use incumbent::stop::{Restart, RestartOptions, StopOptions, StopOutcome};
use incumbent::{Acquire, Cancel, Claim, ClaimOptions, ErrorKind, Kind, LockRequest, Store, Wait};

use crate::support::{LIMIT, Sandbox, assert_within, eventually, writer};

/// A question, and what became of it.
#[derive(Clone, Default)]
struct Asked {
    count: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    by: Arc<Mutex<Vec<ThreadId>>>,
    longest: Arc<Mutex<Duration>>,
}

impl Asked {
    fn cancel(&self) -> Cancel {
        let asked = self.clone();
        let mut last = Instant::now();
        Cancel::polling(move || {
            let mut by = asked.by.lock().unwrap();
            if !by.contains(&std::thread::current().id()) {
                by.push(std::thread::current().id());
            }
            let mut longest = asked.longest.lock().unwrap();
            *longest = longest.max(last.elapsed());
            last = Instant::now();
            asked.answer()
        })
    }

    fn answer(&self) -> ControlFlow<()> {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.ends.load(Ordering::SeqCst) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Waits until it was asked a few times more.
    fn wait_until_asked(&self) {
        let before = self.count.load(Ordering::SeqCst);
        eventually("it is asked", LIMIT, || {
            (self.count.load(Ordering::SeqCst) >= before + 3).then_some(())
        });
    }

    /// Lets the wait end; `ended` gives what it came to.
    fn end<T>(&self, ended: impl FnOnce() -> T) -> T {
        let count = self.count.load(Ordering::SeqCst);
        self.ends.store(true, Ordering::SeqCst);
        let answered = Instant::now();
        let ended = ended();
        assert_within(Duration::from_secs(2), answered.elapsed(), "the end of the wait");
        assert!(self.count.load(Ordering::SeqCst) <= count + 2, "asked after it had ended");
        ended
    }

    /// Never by another thread than the one that waits; of this test that one is `thread`.
    fn assert_asked_by(&self, thread: ThreadId) {
        assert_eq!(*self.by.lock().unwrap(), [thread]);
    }
}

fn waiters(sandbox: &Sandbox) -> i64 {
    sandbox.number("SELECT count(*) FROM waiters")
}

/// How many waits were ever begun.
fn waits(sandbox: &Sandbox) -> i64 {
    sandbox.number("SELECT count(*) FROM events WHERE event IN ('office_awaited', 'lock_awaited')")
}

#[test]
fn a_long_claim_asks_its_caller_and_is_one_waiter() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let store = Store::open(sandbox.db()).unwrap();
    let asked = Asked::default();
    let options = ClaimOptions::new().wait(Wait::Forever).cancel(asked.cancel());
    let thread = std::thread::spawn({
        let profile = store.profile("default").unwrap();
        move || profile.claim_with(&options)
    });
    let id = thread.thread().id();
    for _ in 0..5 {
        asked.wait_until_asked();
        assert_eq!((waiters(&sandbox), waits(&sandbox)), (1, 1));
    }
    let longest = *asked.longest.lock().unwrap();
    assert_within(Duration::from_millis(100), longest, "between two questions");
    let claim = asked.end(|| thread.join().unwrap());
    assert!(matches!(claim, Ok(Claim::Held(holder)) if holder.pid == Some(run.pid())));
    asked.assert_asked_by(id);
    assert_eq!((waiters(&sandbox), waits(&sandbox)), (0, 1));
    run.end().assert_code(0);
}

#[test]
fn a_long_acquisition_asks_its_caller_who_may_use_the_library() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&["--lock", "port=8080"]);
    let store = Store::open(sandbox.db()).unwrap();
    let asked = Asked::default();
    let cancel = Cancel::polling({
        // What an interpreter's signal handler may do.
        let (store, asked) = (store.clone(), asked.clone());
        move || {
            assert!(store.profile("default").unwrap().status().unwrap().running);
            let own = LockRequest::new("other", "lock").unwrap();
            let Acquire::Granted(lock) = store.try_acquire(&own).unwrap() else { panic!("held") };
            lock.release().unwrap();
            asked.answer()
        }
    });
    let request = LockRequest::new("port", "8080").unwrap();
    let options = AcquireOptions::new().wait(Wait::Forever).cancel(cancel);
    let thread = std::thread::spawn({
        let store = store.clone();
        move || store.acquire(&request, &options)
    });
    asked.wait_until_asked();
    assert_eq!((waiters(&sandbox), waits(&sandbox)), (1, 1));
    let acquire = asked.end(|| thread.join().unwrap());
    assert!(matches!(acquire, Ok(Acquire::Held(holder)) if holder.pid == Some(run.pid())));
    assert_eq!(waiters(&sandbox), 0);
    run.end().assert_code(0);
}

/// Also where not the holder is waited for, but the store itself.
#[test]
fn a_claim_behind_a_stuck_writer_asks_its_caller() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let writer = writer(&sandbox);
    let asked = Asked::default();
    let options = ClaimOptions::new().wait(Wait::Forever).cancel(asked.cancel());
    let thread = std::thread::spawn({
        let profile = store.profile("default").unwrap();
        move || profile.claim_with(&options)
    });
    asked.wait_until_asked();
    let error = asked.end(|| thread.join().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    writer.finish(LIMIT).assert_code(0);
    assert_eq!(waiters(&sandbox), 0);
}

/// A wait that is not ended goes on as if nobody had been asked.
#[test]
fn a_caller_who_goes_on_gets_what_it_waits_for() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let store = Store::open(sandbox.db()).unwrap();
    let asked = Asked::default();
    let options = ClaimOptions::new().wait(Wait::Forever).cancel(asked.cancel());
    let thread = std::thread::spawn({
        let profile = store.profile("default").unwrap();
        move || profile.claim_with(&options)
    });
    asked.wait_until_asked();
    run.end().assert_code(0);
    let Claim::Granted(tenure) = thread.join().unwrap().unwrap() else { panic!("it is free") };
    assert_eq!((waiters(&sandbox), waits(&sandbox)), (0, 1));
    tenure.release().unwrap();
}

#[test]
fn a_stop_and_a_restart_ask_their_caller() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.linked_owner(90_000);
    let store = Store::open(sandbox.db()).unwrap();
    let profile = store.profile("default").unwrap();
    let kind = Kind::default();

    let asked = Asked::default();
    let options = RestartOptions::new().cancel(asked.cancel());
    let thread = std::thread::spawn({
        let (profile, kind) = (profile.clone(), kind.clone());
        move || profile.restart(&kind, &options)
    });
    asked.wait_until_asked();
    let restart = asked.end(|| thread.join().unwrap());
    assert!(matches!(restart, Ok(Restart::NotServed(_))), "{restart:?}");
    owner.say("look");
    owner.err_line_with("=> ");

    let asked = Asked::default();
    let options = StopOptions::new().cancel(asked.cancel());
    let thread = std::thread::spawn(move || profile.stop(&kind, &options));
    asked.wait_until_asked();
    assert_eq!(waiters(&sandbox), 1);
    let report = asked.end(|| thread.join().unwrap()).unwrap();
    assert!(matches!(report.outcome, StopOutcome::StillRunning(..)), "{report:?}");
    assert_eq!(waiters(&sandbox), 0);
    owner.say("release");
    owner.err_line_with("=> released");
}

/// Nobody was asked to end yet, and nobody is.
#[test]
fn a_stop_that_is_cancelled_behind_a_stuck_writer_stops_nobody() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.linked_owner(90_000);
    let store = Store::open(sandbox.db()).unwrap();
    let writer = writer(&sandbox);
    let asked = Asked::default();
    let options = StopOptions::new().cancel(asked.cancel());
    let thread = std::thread::spawn({
        let profile = store.profile("default").unwrap();
        move || profile.stop(&Kind::default(), &options)
    });
    asked.wait_until_asked();
    let error = asked.end(|| thread.join().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    writer.finish(LIMIT).assert_code(0);
    owner.say("release");
    let said = owner.err_line_with("=> ");
    assert!(said.ends_with("=> released"), "{said}");
}

/// A question that panics is its caller's affair: nothing is left of the wait.
#[test]
fn a_question_that_panics_leaves_nothing_behind() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let store = Store::open(sandbox.db()).unwrap();
    let cancel = Cancel::polling(|| panic!("as it was asked"));
    let options = ClaimOptions::new().wait(Wait::Forever).cancel(cancel);
    let profile = store.profile("default").unwrap();
    let thread = std::thread::spawn(move || drop(profile.claim_with(&options)));
    assert!(thread.join().is_err());
    assert_eq!(waiters(&sandbox), 0);
    run.end().assert_code(0);
    let Claim::Granted(_tenure) = store.profile("default").unwrap().claim().unwrap() else {
        panic!("it is free")
    };
}
