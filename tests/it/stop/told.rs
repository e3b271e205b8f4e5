//! What `stop` says of those who have to do with the owner.

use serde_json::json;

use crate::support::{LIMIT, Process, Sandbox};

/// Invariant 7: never a signal to what we descend from. The advice was for another container: a
/// process that stops its own gateway is told that it is its own, and that the request stands.
#[test]
fn a_stop_by_what_the_owner_has_started_says_so() {
    let sandbox = Sandbox::new();
    let mut script = Process::start(sandbox.shell(
        "incumbent claim --pid $$ > claimed && incumbent stop --timeout 1; echo code $?
         incumbent stop --force --timeout 1; echo code $?
         incumbent marker peek --pid $$ planned_stop; exec cat",
    ));
    for _ in 0..2 {
        assert_eq!(script.line(), "code 1");
    }
    assert!(script.line().starts_with("planned_stop by incumbent stop"), "the request stands");
    let answer = script.finish(LIMIT).assert_code(0);
    for words in ["it started this process", "a marker asks it to end", "run this outside of it"] {
        assert!(answer.err.contains(words), "{words}: {answer:#?}");
    }
    assert!(!answer.err.contains("another container"), "{answer:#?}");
}

/// Of an owner that releases when it is asked, and lives on, nobody says that its process has
/// ended.
#[test]
fn an_owner_that_releases_and_lives_on_is_said_to_run() {
    let sandbox = Sandbox::new();
    let script = "trap 'echo asked; incumbent release --pid $$ > released' TERM
        incumbent claim --pid $$ > claimed; echo ready
        while [ ! -e over ]; do sleep 0.05; done";
    let mut owner = Process::start(sandbox.shell(script));
    assert_eq!(owner.line(), "ready");
    let told = sandbox.cli(["stop"]).assert_code(0);
    let words = format!("stopped: pid {} released it and keeps running", owner.pid());
    assert!(told.out.contains(&words), "{told:#?}");
    assert!(!owner.has_ended());
    let (code, again) = sandbox.json(["stop"]);
    assert_eq!((code, &again["was_running"]), (0, &json!(false)), "{again:#}");
    std::fs::write(sandbox.file("over"), "").unwrap();
    let answer = owner.finish(LIMIT).assert_code(0);
    assert_eq!(answer.out, "ready\nasked\n", "nobody signals it any more");
}
