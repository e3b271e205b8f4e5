//! `wait` and `status --ready`.

use incumbent::status::{Awaited, ReadyOptions};
use incumbent::{Cancel, Kind, OpenOptions, Wait};
use serde_json::json;

use super::{obey, obeying, say};
use crate::support::{
    HOLDING, LIMIT, Process, START, Sandbox, eventually, tenure_of, wait_for_looks,
};

/// It begins before there is a store, and ends when the gateway says so.
#[test]
fn it_waits_for_the_store_the_claim_and_the_state() {
    let sandbox = Sandbox::new();
    let mut waiter = Process::start(sandbox.incumbent(["wait", "--state", "running"]));
    wait_for_looks(&[waiter.pid()], 2);
    assert!(!sandbox.db().exists(), "a question makes no store");
    let mut run = obeying(&sandbox, &[]);
    say(&mut run, "starting");
    assert!(!waiter.has_ended());
    say(&mut run, "running");
    let answer = waiter.finish(LIMIT).assert_code(0);
    assert_eq!(answer.out, format!("default/gateway: says running, pid {}\n", run.pid()));
    let (code, document) = sandbox.json(["wait"]);
    assert_eq!((code, &document["outcome"]), (0, &json!("reached")), "{document:#}");
    assert_eq!(document["status"]["pid"], run.pid(), "{document:#}");
    run.end().assert_code(0);
}

/// What is not ready is told by word, and by exit code; a gateway that says nothing is ready.
#[test]
fn ready_is_what_can_be_used() {
    let sandbox = Sandbox::new();
    sandbox.cli(["status", "--ready"]).assert_code(3);
    sandbox
        .cli(["wait", "--timeout", "0"])
        .assert_code(1)
        .assert_complains(&["timed out waiting until it is ready: it is not running", "try:"]);
    let mut run = obeying(&sandbox, &[]);
    sandbox.cli(["status", "--ready"]).assert_code(0);
    sandbox.cli(["wait", "--timeout", "0"]).assert_code(0);
    for state in ["starting", "draining", "degraded", "stopped", "startup_failed"] {
        say(&mut run, state);
        sandbox
            .cli(["status", "--ready"])
            .assert_code(1)
            .assert_complains(&["default/gateway is not ready: ", state]);
        sandbox.cli(["status"]).assert_code(0);
        let status = sandbox.status().1;
        assert_eq!((&status["ready"], &status["not_ready"]), (&json!(false), &json!(state)));
        let (code, document) = sandbox.json(["wait", "--timeout", "0"]);
        assert_eq!((code, &document["outcome"]), (1, &json!("not_in_time")), "{document:#}");
        sandbox
            .cli(["wait", "--timeout", "0", "--state", "running"])
            .assert_code(1)
            .assert_complains(&["until it says running: it is ", state]);
    }
    for state in ["running", "polling"] {
        say(&mut run, state);
        sandbox.cli(["status", "--ready"]).assert_code(0);
        let status = sandbox.status().1;
        assert_eq!((&status["ready"], &status["not_ready"]), (&json!(true), &json!(null)));
        sandbox.cli(["wait", "--timeout", "0", "--state", state]).assert_code(0);
    }
    // A promise that it breaks.
    assert_eq!(obey(&mut run, "incumbent status-set --heartbeat=10ms > said"), 0);
    eventually("two beats are missing", LIMIT, || {
        (sandbox.cli(["status", "--ready"]).code() == 1).then_some(())
    });
    assert_eq!(sandbox.status().1["not_ready"], "unresponsive");
    run.end().assert_code(0);
    for wrong in [&["--all"][..], &["--metrics"]] {
        sandbox.cli([&["status", "--ready"], wrong].concat()).assert_code(2);
    }
}

/// Whoever waits for one is not told of the next.
#[test]
fn a_tenure_that_ends_ends_the_wait() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let wait = ["wait", "--state", "never"];
    let waiter = Process::start(sandbox.incumbent(wait));
    wait_for_looks(&[waiter.pid()], 2);
    run.end().assert_code(0);
    waiter.finish(LIMIT).assert_code(3).assert_complains(&["its holder has ended before it says"]);
    // Another one has come in the place of the one that was seen.
    let mut run = sandbox.hold(&[]);
    let waiter = Process::start(sandbox.incumbent(wait));
    wait_for_looks(&[waiter.pid()], 2);
    let next = [&["run", "--no-backoff", "--replace"], HOLDING].concat();
    let mut next = crate::support::Run::start(sandbox.incumbent(next));
    waiter.finish(LIMIT).assert_code(3);
    next.kill();
    run.kill();
    // One that came and went between two looks.
    let waiter = Process::start(sandbox.incumbent(wait));
    wait_for_looks(&[waiter.pid()], 2);
    sandbox.cli(START).assert_code(0);
    let (code, document) = (waiter.finish(LIMIT).code(), sandbox.json(["status"]).1);
    assert_eq!(code, 3, "{document:#}");
}

/// A state that stays true is found also of one that has ended.
#[test]
fn a_last_word_is_a_state() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    let waiter = Process::start(sandbox.incumbent(["wait", "--state", "startup_failed"]));
    wait_for_looks(&[waiter.pid()], 2);
    say(&mut run, "startup_failed");
    run.end().assert_code(0);
    waiter.finish(LIMIT).assert_code(0);
    sandbox.cli(["wait", "--state", "startup_failed", "--timeout", "0"]).assert_code(0);
}

/// The library can do the same, and be told to stop waiting.
#[test]
fn a_program_waits_too() {
    let sandbox = Sandbox::new();
    let store = incumbent::Store::open(sandbox.db()).unwrap();
    let (profile, kind) = (store.profile("default").unwrap(), Kind::default());
    let once = ReadyOptions::new().wait(Wait::No);
    assert!(matches!(profile.wait_ready(&kind, &once).unwrap(), Awaited::NotInTime(_)));
    let tenure = tenure_of(&store, "default");
    let Awaited::Reached(report) = profile.wait_ready(&kind, &once).unwrap() else {
        panic!("it says nothing, so it is ready")
    };
    assert_eq!(report.instance, Some(tenure.instance()));
    let cancel = Cancel::new();
    let options = ReadyOptions::new().state("never").cancel(cancel.clone());
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| profile.wait_ready(&kind, &options).unwrap());
        cancel.cancel();
        assert!(matches!(waiting.join().unwrap(), Awaited::NotInTime(_)));
    });
    drop(tenure);
    let options = OpenOptions::new().path(sandbox.db());
    let office = incumbent::Office::default();
    assert!(matches!(options.wait_ready(&office, &once).unwrap(), Awaited::NotInTime(_)));
}
