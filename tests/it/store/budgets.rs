//! Calls with a budget of their own: they fail fast beside a stuck writer, while others wait.

use std::time::{Duration, Instant};

use incumbent::lock::AcquireOptions;
use incumbent::{Acquire, Claim, ErrorKind, LockRequest, Standing, Store, Wait};

use crate::support::{LIMIT, Sandbox, assert_within, writer};

/// The store's own, which is 5 s.
const OWN: Duration = Duration::from_secs(5);

fn request(identity: &str) -> LockRequest {
    LockRequest::new("scope", identity).unwrap()
}

#[test]
fn a_call_with_a_budget_fails_fast_while_another_one_waits() {
    const BUDGET: Duration = Duration::from_millis(50);
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let Claim::Granted(tenure) = store.profile("default").unwrap().claim().unwrap() else {
        panic!("held")
    };
    let writer = writer(&sandbox);
    let asked = Instant::now();
    let error = store.within(BUDGET, |store| store.try_acquire(&request("a"))).unwrap_err();
    let took = asked.elapsed();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.retry_after().is_some() && error.is_temporary(), "{error}");
    assert!(error.to_string().contains(&format!("pid {}", writer.pid())), "{error}");
    assert!(took >= BUDGET, "{took:?}");
    assert_within(OWN / 2, took, "it");

    // Through a handle that knows nothing of it; and what only reads does not even wait.
    let asked = Instant::now();
    let status = incumbent::StatusUpdate::new().state("running");
    let error = store.within(BUDGET, |_| tenure.update_status(&status)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert_eq!(store.within(BUDGET, |_| tenure.verify()).unwrap(), Standing::Held);
    assert_within(OWN / 2, asked.elapsed(), "both");

    // Another thread waits for the writer, and one with a budget does not wait for that thread.
    let patient = std::thread::spawn({
        let store = store.clone();
        move || store.try_acquire(&request("b"))
    });
    let asked = Instant::now();
    let error = store.within(BUDGET, |store| store.try_acquire(&request("c"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert_within(OWN / 2, asked.elapsed(), "it");
    writer.finish(LIMIT).assert_code(0);
    let Acquire::Granted(lock) = patient.join().unwrap().unwrap() else { panic!("it is free") };
    lock.release().unwrap();
    tenure.release().unwrap();
}

/// The tighter one counts, whatever the call itself says.
#[test]
fn a_wait_ends_with_the_budget_of_its_caller() {
    const BUDGET: Duration = Duration::from_millis(200);
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&["--lock", "scope=a"]);
    let store = Store::open(sandbox.db()).unwrap();
    let options = AcquireOptions::new().wait(Wait::Forever);
    let asked = Instant::now();
    let answer = store.within(BUDGET, |store| store.acquire(&request("a"), &options)).unwrap();
    let took = asked.elapsed();
    assert!(matches!(answer, Acquire::Held(holder) if holder.pid == Some(run.pid())));
    assert!(took >= BUDGET, "{took:?}");
    assert_within(BUDGET + Duration::from_secs(2), took, "the wait");
    assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0);
    // It is over with its call.
    run.end().assert_code(0);
    let Acquire::Granted(_lock) = store.acquire(&request("a"), &options).unwrap() else {
        panic!("it is free")
    };
}
