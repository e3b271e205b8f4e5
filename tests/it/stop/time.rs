//! How long a `stop` waits, with force and without.

use std::time::{Duration, Instant};

use serde_json::json;

use super::terms;
use crate::support::{LIMIT, Run, SOON, Sandbox, assert_within};

#[test]
fn without_force_an_owner_lives_on_after_the_time_to_wait() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&["--stop-budget", "300ms"]);
    let before = sandbox.status().1;
    let asked = Instant::now();
    let (code, document) = sandbox.json(["stop", "--timeout", "200ms"]);
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(200), "{took:?}");
    assert_within(Duration::from_millis(200) + SOON, took, "giving up");
    assert_eq!((code, &document["stopped"]), (1, &json!(false)), "{document:#}");
    assert_eq!(document["holder"]["pid"], run.pid(), "{document:#}");
    assert_eq!((&document["killed"], &document["recorded"]), (&json!(false), &json!(true)));
    assert_eq!(run.process.line(), "TERM");
    // Nor does the run kill it when its stop budget is over: whoever wants that says `--force`.
    let answer = sandbox.cli(["stop"]).assert_code(1);
    answer.assert_complains(&["still running", "did not end in time", "--force"]);
    run.let_time_pass(Duration::from_millis(800));
    let after = sandbox.assert_status(0, "alive", "anchor_held");
    for fact in ["pid", "child_pid", "instance"] {
        assert_eq!(after[fact], before[fact], "{after:#}");
    }
    // Two stops that asked in turn: two requests.
    run.let_end();
    let answer = run.ended().assert_code(0);
    assert!(!answer.err.contains("killing"), "{answer:#?}");
    assert_eq!(terms(&answer), 2, "{answer:#?}");
}

/// FIELD-BUGS row 48. An owner that ignores TERM is killed when its time is over: the command
/// first, so that its `run` can record how it ended, and exit as after any other planned stop.
#[test]
fn with_force_an_owner_that_ignores_term_is_gone_the_command_first() {
    let sandbox = Sandbox::new();
    let run = sandbox.patient(&[]);
    let command = run.command;
    let stop = sandbox.begin(&["--json", "stop", "--force", "--timeout", "300ms"]);
    let stopper = stop.pid();
    let document = stop.finish(LIMIT).assert_code(0).json();
    assert_eq!((&document["stopped"], &document["killed"]), (&json!(true), &json!(true)));
    assert!(command.is_gone());
    let answer = run.ended().assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    sandbox.assert_planned(stopper);

    // Without --timeout it is the time that the owner published.
    let mut owner = sandbox.linked_owner(300);
    let stop = sandbox.begin(&["stop", "--force"]);
    let stopper = stop.pid();
    let told = stop.finish(LIMIT).assert_code(0);
    assert!(told.out.contains(&format!("pid {} had to be killed", owner.pid())), "{told:#?}");
    assert_eq!(crate::support::exit_code(owner.wait(LIMIT)), 137);
    sandbox.assert_planned(stopper);
}

/// FIELD-BUGS row 48. Symptom: killed after 3, 5 or 10 s in the middle of an orderly end, and the
/// database malformed days later. It holds because the owner publishes how long it may take.
#[test]
fn a_drain_within_the_published_budget_is_not_cut_short_by_force() {
    let sandbox = Sandbox::new();
    let script = "trap 'sleep 3; echo drained; kill -KILL $sleeper; exit 0' TERM
        sleep 1000 > /dev/null 2>&1 & sleeper=$!; echo $$; while :; do wait $sleeper; done";
    let arguments = ["run", "--no-backoff", "--stop-budget", "10s", "--", "/bin/sh", "-c", script];
    let run = Run::start(sandbox.incumbent(arguments));
    let document =
        sandbox.begin(&["--json", "stop", "--force"]).finish(LIMIT).assert_code(0).json();
    assert_eq!(document["killed"], false, "{document:#}");
    let answer = run.ended().assert_code(0);
    assert!(answer.out.contains("drained\n"), "{answer:#?}");
}

/// Whoever cannot be signalled can only be waited for, and that has its bound as well: the one that
/// was asked for.
#[test]
fn the_time_to_wait_holds_also_where_no_signal_is_sent() {
    let sandbox = Sandbox::new();
    let owner = sandbox.linked_owner(90_000);
    sandbox.forge(
        "UPDATE instances SET start_time = NULL, start_time_unit = NULL, process_inode = NULL",
    );
    let asked = Instant::now();
    let answer = sandbox.cli(["stop", "--timeout", "500ms"]).assert_code(1);
    assert_within(Duration::from_millis(500) + SOON, asked.elapsed(), "giving up");
    answer.assert_complains(&["cannot be signalled", "start time is not known"]);
    let answer = owner.finish(LIMIT).assert_code(0);
    assert!(!answer.err.contains("TERM"), "{answer:#?}");
}
