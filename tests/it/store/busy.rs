//! A store that somebody else writes: questions do not wait, a claim gives up in time.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{QUESTIONS, START, as_json, assert_error};
use crate::support::{LIMIT, Sandbox, assert_within, stopped_writer};

/// FIELD-BUGS rows 63 and 77.
///
/// Symptom: every surface hung behind one stopped process. It holds because questions take no lock
/// that a writer holds, and a claim gives up in time and says who is in the way.
#[test]
fn a_stopped_writer_is_named_and_questions_do_not_wait_for_it() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let writer = stopped_writer(&sandbox);
    for verb in QUESTIONS {
        let asked = Instant::now();
        sandbox.cli(verb).assert_code(0);
        assert_within(Duration::from_secs(2), asked.elapsed(), &format!("{verb:?}"));
    }
    sandbox.assert_status(0, "alive", "anchor_held");
    let asked = Instant::now();
    let error = assert_error(sandbox.incumbent(as_json(START)), 75, "busy");
    assert_within(Duration::from_secs(10), asked.elapsed(), "it");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(&format!("pid {}", writer.pid())), "{message}");
    assert!(message.contains("stopped"), "{message}");
    assert!(error["hint"].as_str().unwrap().contains("kill -CONT"), "{error:#}");
    assert!(error["retry_after_ms"].is_u64(), "{error:#}");
    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    sandbox.cli(START).assert_code(75);
    run.end().assert_code(0);
}

/// A deadline is the caller's, whatever keeps the store busy: it does not wait for the store's own
/// patience (5 s) on top.
#[test]
fn a_deadline_holds_also_behind_a_stopped_writer() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let writer = stopped_writer(&sandbox);
    let asked = Instant::now();
    let command = ["run", "--no-backoff", "--wait=1s", "--", "echo", "started"];
    let answer = sandbox.cli(command).assert_code(75);
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(900), "gave up after {took:?}: {answer:#?}");
    assert_within(Duration::from_secs(4), took, &format!("{answer:#?}"));
    assert_eq!(answer.out, "");
    drop(writer);
    run.end().assert_code(0);
}
