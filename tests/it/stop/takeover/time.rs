//! The owner has the time that it published.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::gateway::{ROLE, deaf_gateway};
use super::{
    AFTER_BUDGET, assert_nothing_is_left, assert_taken_over, draining, run_of, taking_over,
};
use crate::stop::terms;
use crate::support::{LIMIT, Run, SOON, Sandbox, ask, assert_within, eventually, rounds};

/// FIELD-BUGS row 48.
///
/// Symptom: the taker killed, after a few seconds of its own choosing, a gateway whose drain may
/// take a minute. It holds because the owner's own published budget is what the taker waits for.
#[test]
fn a_drain_within_the_budget_is_never_cut_short() {
    let (budget, drain) = if rounds(1, 2) > 1 { ("10s", "8") } else { ("4s", "3") };
    let sandbox = Sandbox::new();
    let script = format!(
        "trap 'asked=yes; echo TERM' TERM
         sleep 1000 > /dev/null 2>&1 & work=$!
         echo $$
         while [ -z \"$asked\" ]; do wait $work; done
         sleep {drain} > /dev/null 2>&1 & drain=$!
         while kill -0 $drain 2> /dev/null; do wait $drain; done
         kill -KILL $work; echo drained; exit 7"
    );
    let old = Run::start(run_of(&sandbox, "a", &["--stop-budget", budget], &script));
    let old_pid = old.pid();
    let began = Instant::now();
    let mut taker = taking_over(&sandbox, "b", &[]);
    taker.line();
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(drain.parse().unwrap()), "{took:?}");
    let answer = old.process.finish_with_stdin_open(LIMIT).assert_code(0);
    // Ten looks a second for its marker, one signal: asked once.
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    assert!(answer.out.ends_with("drained\n"), "{answer:#?}");
    let end = assert_taken_over(&sandbox, old_pid, taker.pid());
    assert_eq!(end["exit_code"], 7, "{end:#}");
    assert_nothing_is_left(&sandbox, "at the end");
}

/// Whoever does not end in its time is gone after it: the command first, so that it never runs
/// without its `run`, and the history says what it was.
#[test]
fn a_deaf_owner_is_gone_after_its_budget() {
    const BUDGET: Duration = Duration::from_secs(2);
    let sandbox = Sandbox::new();
    let old = draining(&sandbox, "a", &["--stop-budget", "2s"]);
    let old_pid = old.pid();
    let began = Instant::now();
    let mut taker = taking_over(&sandbox, "b", &[]);
    old.command.wait_gone(BUDGET + AFTER_BUDGET);
    let took = began.elapsed();
    assert!(took >= BUDGET, "killed after {took:?} of {BUDGET:?}");
    taker.line();
    let took = began.elapsed();
    assert_within(BUDGET + AFTER_BUDGET + SOON, took, "it");
    assert_taken_over(&sandbox, old_pid, taker.pid());
    // Its `run` was not killed, or not before the command: it told its supervisor.
    let answer = old.process.finish_with_stdin_open(LIMIT).assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    // Taker and `run` count the same time, and either may have been first to act on it.
    taker.signal(Signal::TERM);
    let told = taker.finish_with_stdin_open(LIMIT).err;
    assert!(
        told.contains(&format!("took over from pid {old_pid}, which had to be killed"))
            || answer.err.contains("the stop budget is over: killing the command"),
        "{told}, {answer:#?}"
    );
    assert_nothing_is_left(&sandbox, "at the end");
}

/// FIELD-BUGS row 20. The `run` itself hangs while its command drains (somebody stopped it again):
/// then it is killed too, after its command, and nothing of it acts once the taker does.
#[test]
fn an_owner_that_hangs_is_killed_with_its_command() {
    let sandbox = Sandbox::new();
    let mut old = draining(&sandbox, "a", &["--stop-budget", "1s"]);
    let old_pid = old.pid();
    let began = Instant::now();
    let mut taker = taking_over(&sandbox, "b", &[]);
    assert_eq!(old.process.line(), "TERM");
    // Again and again: the taker's own CONT may be yet to come.
    eventually("the end of the command", LIMIT, || {
        old.process.signal(Signal::STOP);
        old.command.is_gone().then_some(())
    });
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1), "{took:?}");
    taker.line();
    let took = began.elapsed();
    assert_within(Duration::from_secs(1) + AFTER_BUDGET + SOON, took, "it");
    assert_eq!(crate::support::exit_code(old.process.wait(LIMIT)), 137);
    taker.err_line_with(&format!("took over from pid {old_pid}, which had to be killed"));
    assert_taken_over(&sandbox, old_pid, taker.pid());
    assert_nothing_is_left(&sandbox, "at the end");
}

/// A library gateway that ignores TERM is killed as well.
#[test]
fn a_deaf_library_gateway_is_killed_after_its_budget() {
    let sandbox = Sandbox::new();
    let mut old = deaf_gateway(&sandbox, &[]);
    assert_eq!(ask(&mut old, "claim 1000"), "granted None");
    let mut new = sandbox.role(ROLE, "gateway");
    let began = Instant::now();
    assert_eq!(ask(&mut new, "replace"), format!("granted Some(({}, true))", old.pid()));
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert_within(Duration::from_secs(1) + AFTER_BUDGET + SOON, took, "it");
    assert_eq!(crate::support::exit_code(old.wait(LIMIT)), 137);
    assert_taken_over(&sandbox, old.pid(), new.pid());
    assert_nothing_is_left(&sandbox, "at the end");
}

/// R:ROW. What a row claims is believed up to an hour; what is no time at all is the default. The
/// request lives for that time and 75 s.
#[test]
fn an_absurd_budget_is_not_believed() {
    const HOUR_MS: i64 = 3_600_000;
    for (forged, expected_ms) in [
        ("9223372036854775807", HOUR_MS),
        ("3600001", HOUR_MS),
        ("7000", 7_000),
        ("-1", 90_000),
        ("NULL", 90_000),
    ] {
        let sandbox = Sandbox::new();
        let mut old = draining(&sandbox, "a", &[]);
        let forge = format!("UPDATE instances SET stop_budget_ms = {forged}");
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sandbox.forge(&forge))).is_err()
        {
            // The schema itself refuses it.
            assert_ne!(forged, "7000");
            continue;
        }
        let taker = taking_over(&sandbox, "b", &[]);
        assert_eq!(old.process.line(), "TERM");
        let query = "SELECT expires_at_ms - written_at_ms FROM markers WHERE closed_at_ms IS NULL";
        assert_eq!(sandbox.number(query), expected_ms + 75_000, "{forged}");
        old.end().assert_code(0);
        drop(taker);
    }
}
