//! Two intents at once: a second stop, a takeover, a start, a stop that was killed.

use rustix::process::Signal;
use serde_json::json;

use super::terms;
use crate::support::{HOLDING, LIMIT, Process, Sandbox, eventually, wait_stopped};

#[test]
fn a_second_stop_joins_the_first() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let first = sandbox.begin(&["--json", "stop"]);
    let stopper = first.pid();
    assert_eq!(run.process.line(), "TERM");
    let second = sandbox.begin(&["--json", "stop", "--desired"]);
    // Its wish is committed together with its look at who is stopping already.
    eventually("the second stop has begun", LIMIT, || {
        (sandbox.status().1["desired"] == "stopped").then_some(())
    });
    for _ in 0..3 {
        run.round_trip();
    }
    run.let_end();
    for stop in [first, second] {
        let document = stop.finish(LIMIT).assert_code(0).json();
        assert_eq!(document["stopped"], true, "{document:#}");
    }
    let answer = run.ended().assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    sandbox.assert_planned(stopper);
}

/// The second one may be in more of a hurry.
#[test]
fn a_second_stop_with_force_ends_what_the_first_one_waits_for() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let first = sandbox.begin(&["--json", "stop"]);
    assert_eq!(run.process.line(), "TERM");
    let (code, document) = sandbox.json(["stop", "--force", "--timeout", "100ms"]);
    assert_eq!((code, &document["killed"]), (0, &json!(true)), "{document:#}");
    assert_eq!(first.finish(LIMIT).assert_code(0).json()["killed"], false);
    assert_eq!(terms(&run.ended().assert_code(0)), 1);
}

/// One open intent per instance: whoever comes second says so.
#[test]
fn a_stop_and_a_takeover_meet() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let mut taker = Process::start(
        sandbox.incumbent([&["run", "--no-backoff", "--replace"], HOLDING].concat()),
    );
    assert_eq!(run.process.line(), "TERM");
    let (code, document) = sandbox.json(["stop"]);
    assert_eq!((code, &document["stopped"]), (75, &json!(false)), "{document:#}");
    assert_eq!(document["holder"]["reason"], "reserved", "{document:#}");
    assert_eq!(document["holder"]["pid"], taker.pid(), "{document:#}");
    sandbox
        .cli(["stop"])
        .assert_code(75)
        .assert_complains(&["reserved for pid", "a takeover or a stop is in progress"]);
    run.let_end();
    taker.line();
    let answer = run.ended().assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    assert_eq!(sandbox.history()[1]["end_reason"], "taken_over");
    sandbox.cli(["stop"]).assert_code(0);
    taker.finish(LIMIT).assert_code(0);

    let mut run = sandbox.patient(&[]);
    let stop = sandbox.begin(&["stop"]);
    assert_eq!(run.process.line(), "TERM");
    let replace = ["run", "--no-backoff", "--replace", "--force", "--", "true"];
    let (code, refused) = sandbox.json(replace);
    assert_eq!((code, &refused["holder"]["reason"]), (75, &json!("reserved")), "{refused:#}");
    assert_eq!(refused["holder"]["pid"], stop.pid(), "{refused:#}");
    run.let_end();
    stop.finish(LIMIT).assert_code(0);
    assert_eq!(terms(&run.ended().assert_code(0)), 1);
}

/// FIELD-BUGS row 49. Symptom: the supervisor's next one got in between the stop and what the
/// person wanted to do. Until the stop is done the office is nobody's.
#[test]
fn nobody_starts_before_a_stop_is_done() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let stop = sandbox.begin(&["stop"]);
    assert_eq!(run.process.line(), "TERM");
    // As long as it lives, it is who holds the office.
    let (code, refused) = sandbox.json(["run", "--no-backoff", "--", "echo", "started"]);
    assert_eq!((code, &refused["holder"]["reason"]), (75, &json!("anchor_held")), "{refused:#}");
    assert_eq!(refused["holder"]["pid"], run.pid(), "{refused:#}");
    let mut waiter =
        Process::start(sandbox.incumbent([&["run", "--no-backoff", "--wait"], HOLDING].concat()));
    // The stop is on record as one that waits for the office, too.
    sandbox.wait_for_waiters(2);
    run.let_end();
    waiter.line();
    stop.finish(LIMIT).assert_code(0);
    run.ended().assert_code(0);
    waiter.finish(LIMIT).assert_code(0);
    assert_eq!(sandbox.history()[1]["end_reason"], "planned_stop");

    // The owner is gone, its stop is not done yet: it is stopped itself.
    let mut run = sandbox.patient(&[]);
    let stop = sandbox.begin(&["stop"]);
    assert_eq!(run.process.line(), "TERM");
    stop.signal(Signal::STOP);
    wait_stopped(stop.pid());
    run.let_end();
    run.ended().assert_code(0);
    let (code, refused) = sandbox.json(["run", "--no-backoff", "--", "echo", "started"]);
    assert_eq!((code, &refused["holder"]["reason"]), (75, &json!("reserved")), "{refused:#}");
    assert_eq!(refused["holder"]["pid"], stop.pid(), "{refused:#}");
    assert!(refused["retry_after_ms"].is_u64(), "{refused:#}");
    let mut waiter =
        Process::start(sandbox.incumbent([&["run", "--no-backoff", "--wait"], HOLDING].concat()));
    sandbox.wait_for_waiters(2);
    stop.signal(Signal::CONT);
    waiter.line();
    stop.finish(LIMIT).assert_code(0);
    waiter.finish(LIMIT).assert_code(0);
}

/// A stop that dies on the way blocks nobody, and the one after it asks anew.
#[test]
fn a_killed_stop_leaves_nothing_in_the_way() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let mut killed = sandbox.begin(&["stop"]);
    assert_eq!(run.process.line(), "TERM");
    killed.kill();
    let refused = sandbox.json(["run", "--no-backoff", "--", "true"]).1;
    assert_eq!(refused["holder"]["reason"], "anchor_held", "{refused:#}");
    let stop = sandbox.begin(&["stop"]);
    let stopper = stop.pid();
    assert_eq!(run.process.line(), "TERM", "the second request");
    run.let_end();
    stop.finish(LIMIT).assert_code(0);
    assert_eq!(terms(&run.ended().assert_code(0)), 2);
    sandbox.assert_planned(stopper);
}
