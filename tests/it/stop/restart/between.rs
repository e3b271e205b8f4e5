//! What comes in between: signals, stops, takeovers, crashes, other restarts.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::{is_done, next_start, starts};
use crate::stop::{PATIENT, stranger, terms};
use crate::support::{HOLDING, LIMIT, Process, Run, SOON, Sandbox, assert_within, kill, rounds};

#[test]
fn a_strangers_term_during_a_restart_is_the_last_word() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let restart = sandbox.begin(&["restart", "--timeout", "2s"]);
    assert_eq!(run.process.line(), "TERM");
    stranger(&sandbox, "TERM", run.pid());
    run.round_trip();
    run.let_end();
    let answer = run.ended().assert_code(7);
    assert_eq!(starts(&answer.out), 1, "{answer:#?}");
    assert_eq!(sandbox.history()[0]["end_reason"], "signalled");
    // Nobody is left to be restarted.
    restart.finish(LIMIT).assert_code(3);
    assert_eq!(sandbox.served(), 0);
}

/// A request to reload (logrotate sends HUP) takes no request to end back.
#[test]
fn a_reload_takes_no_end_back() {
    let sandbox = Sandbox::new();
    let script = format!("trap : HUP; {PATIENT}");
    let mut run =
        Run::start(sandbox.incumbent(["run", "--no-backoff", "--", "/bin/sh", "-c", &script]));
    let restart = sandbox.begin(&["restart", "--timeout", "2s"]);
    assert_eq!(run.process.line(), "TERM");
    stranger(&sandbox, "TERM", run.pid());
    run.round_trip();
    stranger(&sandbox, "HUP", run.pid());
    run.round_trip();
    run.let_end();
    let answer = run.ended();
    assert_eq!(starts(&answer.out), 1, "the command was started again: {answer:#?}");
    restart.finish(LIMIT).assert_code(3);
}

/// A restart that was consumed is withdrawn by the stop that comes after it, like one that was not:
/// when that one gives up, nothing of either is left.
#[test]
fn a_stop_withdraws_a_consumed_restart_as_well() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let pid = run.pid().to_string();
    let restart = sandbox.begin(&["restart"]);
    assert_eq!(run.process.line(), "TERM");
    sandbox.cli(["marker", "consume", "restart", "--pid", &pid]).assert_code(0);
    sandbox.cli(["stop", "--timeout", "300ms"]).assert_code(1);
    restart.finish(LIMIT).assert_code(75).assert_complains(&["withdrawn"]);
    run.let_time_pass(Duration::from_secs(2));
    run.let_end();
    let answer = run.ended();
    assert_eq!(starts(&answer.out), 1, "{answer:#?}");
    assert_eq!(sandbox.served(), 0);
}

/// What cannot be recorded is tried again without a storm of forks; and what never will be, because
/// a newer program closed the store to this one, ends the run, so that its successor may start.
#[test]
fn a_restart_that_can_never_be_recorded_ends_the_run() {
    let sandbox = Sandbox::new();
    sandbox.sick("it is closed to this version");
    let mut run = sandbox.patient(&[]);
    let restart = sandbox.begin(&["restart", "--timeout", "3s"]);
    assert_eq!(run.process.line(), "TERM");
    sandbox.forge("PRAGMA user_version = 99");
    sandbox.forge("UPDATE meta SET value = 99 WHERE key = 'min_writer'");
    run.let_end();
    let answer = run.ended();
    assert_eq!(answer.code(), 78, "{answer:#?}");
    assert_eq!(starts(&answer.out), 1, "{answer:#?}");
    assert!(answer.err.contains("newer incumbent"), "{answer:#?}");
    restart.finish(LIMIT).assert_code(3);
}

#[test]
fn a_stop_during_a_restart_is_the_last_word() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let restart = sandbox.begin(&["--json", "restart"]);
    assert_eq!(run.process.line(), "TERM");
    let stop = sandbox.begin(&["stop"]);
    sandbox.wait_for_waiters(1);
    // That the stop came in its place is known at once.
    let asked = Instant::now();
    let document = restart.finish(LIMIT).assert_code(75).json();
    assert_within(SOON, asked.elapsed(), "the refusal");
    assert_eq!(document["restarted"], false, "{document:#}");
    assert_eq!(document["holder"]["pid"], run.pid(), "{document:#}");
    run.let_end();
    stop.finish(LIMIT).assert_code(0);
    let answer = run.ended().assert_code(0);
    // It is ending already: it is not asked again by the one who comes on top.
    assert_eq!((terms(&answer), starts(&answer.out)), (1, 1), "{answer:#?}");
    assert_eq!(sandbox.history()[0]["end_reason"], "planned_stop");
    assert_eq!(sandbox.served(), 0);
}

#[test]
fn a_takeover_during_a_restart_is_the_last_word() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let restart = sandbox.begin(&["restart", "--timeout", "20s"]);
    assert_eq!(run.process.line(), "TERM");
    let mut taker = Process::start(
        sandbox.incumbent([&["run", "--no-backoff", "--replace"], HOLDING].concat()),
    );
    sandbox.wait_for_waiters(1);
    run.let_end();
    taker.line();
    let answer = run.ended().assert_code(0);
    assert_eq!(starts(&answer.out), 1, "{answer:#?}");
    // The successor is a new start, or the request was withdrawn for it: both is true.
    let code = restart.finish(LIMIT).code();
    assert!(matches!(code, 0 | 75), "{code}");
    taker.finish(LIMIT).assert_code(0);
}

/// Nothing is asked of whom somebody brings to an end already.
#[test]
fn a_restart_during_a_stop_or_a_takeover_is_refused() {
    let sandbox = Sandbox::new();
    for verb in [&["stop"][..], &["run", "--no-backoff", "--replace", "--", "true"]] {
        let mut run = sandbox.patient(&[]);
        let ending = sandbox.begin(verb);
        assert_eq!(run.process.line(), "TERM");
        let (code, document) = sandbox.json(["restart"]);
        assert_eq!((code, &document["restarted"]), (75, &json!(false)), "{document:#}");
        assert_eq!(document["holder"]["reason"], "reserved", "{document:#}");
        assert_eq!(document["holder"]["pid"], ending.pid(), "{document:#}");
        let answer = sandbox.cli(["restart"]).assert_code(75);
        answer.assert_complains(&["reserved for", "a takeover or a stop is in progress"]);
        for _ in 0..3 {
            run.round_trip();
        }
        run.let_end();
        ending.finish(LIMIT).assert_code(0);
        let answer = run.ended().assert_code(0);
        assert_eq!((terms(&answer), starts(&answer.out)), (1, 1), "{answer:#?}");
    }
    assert_eq!(sandbox.restarts_asked_for(), 0);
}

/// FIELD-BUGS row 50: a restart in the moment of a crash is served or refused, and whoever asked is
/// told which.
#[test]
fn a_crash_in_the_moment_of_a_restart_is_told_as_it_is() {
    let seed = getrandom::u64().unwrap();
    eprintln!("seed: {seed}");
    let mut state = seed | 1;
    let mut codes = Vec::new();
    for round in 1..=rounds(20, 1_000) {
        let sandbox = Sandbox::new();
        let mut run = sandbox.hold(&[]);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let instant = Instant::now() + Duration::from_micros(state % 30_000);
        let restart = sandbox.begin(&["restart", "--timeout", "1s"]);
        // Not a synchronisation: the blind shot is the test.
        std::thread::sleep(instant.saturating_duration_since(Instant::now()));
        kill(run.command.pid, Signal::KILL);
        let answer = restart.finish(LIMIT);
        let is_served = answer.code() == 0;
        codes.push(answer.code());
        if is_served {
            next_start(&mut run);
            assert_eq!(sandbox.served(), 1, "round {round}, seed {seed}");
            run.end().assert_code(0);
        } else {
            assert!(matches!(answer.code(), 3 | 75), "round {round}, seed {seed}: {answer:#?}");
            let ended = run.ended().assert_code(137);
            assert_eq!(starts(&ended.out), 1, "round {round}, seed {seed}: {ended:#?}");
            assert_eq!(sandbox.served(), 0, "round {round}, seed {seed}");
        }
    }
    eprintln!("exit codes: {codes:?}");
}

/// FIELD-BUGS row 50: the request outlives its author.
#[test]
fn a_request_is_served_although_its_author_was_killed() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let mut asker = sandbox.begin(&["restart"]);
    assert_eq!(run.process.line(), "TERM");
    asker.kill();
    run.let_end();
    next_start(&mut run);
    assert_eq!((sandbox.restarts_asked_for(), sandbox.served()), (1, 1));
    run.let_end();
    run.ended().assert_code(7);

    // At any instant: what is on record is served, what is not was never asked.
    let seed = getrandom::u64().unwrap();
    eprintln!("seed: {seed}");
    let mut state = seed | 1;
    for round in 1..=rounds(15, 1_000) {
        let sandbox = Sandbox::new();
        let mut run = sandbox.hold(&[]);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let instant = Instant::now() + Duration::from_micros(state % 15_000);
        let mut asker = sandbox.begin(&["restart"]);
        std::thread::sleep(instant.saturating_duration_since(Instant::now()));
        asker.kill();
        let on_record = sandbox.restarts_asked_for();
        if on_record == 1 {
            next_start(&mut run);
        }
        let answer = run.end().assert_code(0);
        let last = usize::from(on_record == 0);
        assert_eq!(starts(&answer.out), 2 - last, "round {round}, seed {seed}: {answer:#?}");
        assert_eq!(sandbox.served(), on_record, "round {round}, seed {seed}");
    }
}

/// Several requests at once become one, or are served one after the other; no start serves nobody.
#[test]
fn restarts_at_once_are_never_served_twice() {
    const ASKERS: usize = 4;
    for round in 1..=rounds(6, 200) {
        let sandbox = Sandbox::new();
        let run = sandbox.polite("0", &[]);
        let askers: Vec<Process> =
            (0..ASKERS).map(|_| sandbox.begin(&["--json", "restart"])).collect();
        for asker in askers {
            let document = asker.finish(LIMIT).assert_code(0).json();
            assert_eq!(document["restarted"], true, "round {round}: {document:#}");
        }
        let served = sandbox.served();
        assert!((1..=4).contains(&served), "round {round}: {served}");
        assert_eq!(sandbox.restarts_asked_for(), served, "round {round}");
        sandbox.cli(["stop"]).assert_code(0);
        let answer = run.ended().assert_code(0);
        let restarts = answer.err.matches("restarted the command").count();
        assert_eq!(i64::try_from(restarts).unwrap(), served, "round {round}: {answer:#?}");
        assert_eq!(sandbox.history().len(), 1);
    }
}

/// The `run` itself dies on the way: the office is free, and its next holder is the restart that
/// was asked for, whoever started it.
#[test]
fn the_next_generation_is_a_restart_too() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let restart = sandbox.begin(&["--json", "restart"]);
    assert_eq!(run.process.line(), "TERM");
    run.kill();
    let next = sandbox.hold(&[]);
    let document = restart.finish(LIMIT).assert_code(0).json();
    is_done(&document, &sandbox.status().1["instance"]);
    // The old request means nothing to it.
    assert_eq!(sandbox.served(), 0);
    let answer = next.end().assert_code(0);
    assert!(!answer.err.contains("restarting"), "{answer:#?}");
}
