//! While a takeover lasts, contenders do not get the office.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::gateway::ROLE;
use super::{
    ENDS, assert_holder, assert_nothing_is_left, assert_refused_because, assert_taken_over,
    draining, run_of, taking_over, try_to_take, wait_for_reservation,
};
use crate::stop::terms;
use crate::support::{
    LIMIT, Process, SOON, Sandbox, ask, assert_within, rounds, wait_stopped, writer,
};

/// For how long a call waits for the store at most.
const CALL_WAITS: Duration = Duration::from_secs(5);

/// While the old one drains, nobody else gets in: not a plain start, not a second taker, which
/// meets the first and says so. The owner is asked by one of them.
#[test]
fn a_second_taker_meets_the_first() {
    let sandbox = Sandbox::new();
    let mut old = draining(&sandbox, "a", &[]);
    let mut first = taking_over(&sandbox, "b", &[]);
    assert_eq!(old.process.line(), "TERM");
    let (code, answer) = sandbox.json(["run", "--no-backoff", "--", "true"]);
    assert_eq!(code, 75, "{answer:#}");
    let answer = try_to_take(&sandbox, "c", &[]);
    assert_refused_because(&answer, "reserved");
    assert_eq!(answer.1["holder"]["pid"], first.pid(), "{:#}", answer.1);
    assert!(answer.1["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{:#}", answer.1);
    let told = Process::start(run_of(&sandbox, "c", &["--replace"], "true")).finish(LIMIT);
    told.assert_code(75).assert_complains(&[
        &format!("is reserved for pid {} (", first.pid()),
        "a takeover or a stop is in progress",
    ]);
    // Nor does a person's `--force`: the first is under way.
    assert_refused_because(&try_to_take(&sandbox, "c", &["--force"]), "reserved");
    // One that waits, waits; and has it after the first one had it.
    let mut waiting = taking_over(&sandbox, "d", &["--wait"]);
    sandbox.wait_for_waiters(2);
    assert!(!first.has_ended() && !waiting.has_ended());
    let old_pid = old.pid();
    let answer = old.end().assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    waiting.line();
    // The first may have been asked before its command could say a word.
    let first_pid = first.pid();
    assert_taken_over(&sandbox, old_pid, first_pid);
    first.finish_with_stdin_open(LIMIT).assert_code(0);
    assert_taken_over(&sandbox, first_pid, waiting.pid());
    assert_holder(&sandbox, waiting.pid());
    assert_nothing_is_left(&sandbox, "at the end");
}

/// In the instant in which the old one ends its office is free, and contenders that ask again and
/// again would have it. It holds because it is reserved.
#[test]
fn contenders_never_get_the_office_between_two_gateways() {
    let sandbox = Sandbox::new();
    let mut old = taking_over(&sandbox, "p", &[]);
    old.line();
    let mut contenders: Vec<Process> = (0..2).map(|_| sandbox.role(ROLE, "gateway")).collect();
    for contender in &mut contenders {
        assert_eq!(ask(contender, "contend"), "contending");
    }
    for round in 1..=rounds(15, 200) {
        let mut new = taking_over(&sandbox, "p", &[]);
        new.line();
        assert_eq!(crate::support::exit_code(old.wait(LIMIT)), 0, "round {round}");
        for contender in &mut contenders {
            assert!(!contender.has_ended(), "round {round}: a contender got the office, or failed");
        }
        old = new;
    }
    for contender in contenders {
        let answer = contender.finish(LIMIT).assert_code(0);
        assert!(!answer.err.contains("STOLEN"), "{answer:#?}");
    }
    assert_nothing_is_left(&sandbox, "at the end");
}

/// A person interrupts the taker, or its supervisor ends it: the office stays reserved for nobody.
#[test]
fn an_interrupted_taker_leaves_nothing() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let sandbox = Sandbox::new();
        let mut old = draining(&sandbox, "a", &[]);
        let taker = taking_over(&sandbox, "b", &[]);
        assert_eq!(old.process.line(), "TERM");
        let asked = Instant::now();
        taker.signal(signal);
        taker.finish_with_stdin_open(LIMIT).assert_code(code);
        assert_within(SOON, asked.elapsed(), &format!("the end by {signal:?}"));
        for table in ["reservations", "waiters"] {
            assert_eq!(sandbox.number(&format!("SELECT count(*) FROM {table}")), 0, "{table}");
        }
        assert_holder(&sandbox, old.pid());
        let mut next = taking_over(&sandbox, "c", &[]);
        wait_for_reservation(&sandbox);
        let old_pid = old.pid();
        old.end().assert_code(0);
        next.line();
        assert_taken_over(&sandbox, old_pid, next.pid());
        assert_nothing_is_left(&sandbox, "at the end");
    }
}

/// R:STOP. A taker that is stopped in the middle keeps its reservation, for stopped is not dead,
/// but not beyond its deadline: the stop budget and 15 s. Those who wait know when that is over;
/// and the taker, when it goes on, finds that it came too late.
#[test]
fn a_stopped_taker_keeps_others_out_until_its_deadline() {
    let sandbox = Sandbox::new();
    let mut old = draining(&sandbox, "a", &["--stop-budget", "1min"]);
    let taker = taking_over(&sandbox, "b", &[]);
    assert_eq!(old.process.line(), "TERM");
    taker.signal(Signal::STOP);
    wait_stopped(taker.pid());
    old.end().assert_code(0);
    let (code, answer) = sandbox.json(["run", "--no-backoff", "--", "true"]);
    assert_refused_because(&(code, answer), "reserved");
    let mut waiter = Process::start(run_of(&sandbox, "w", &["--wait"], ENDS));
    sandbox.wait_for_waiters(2);
    // A minute is not to be waited for here. The second that is left is.
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let until_ms = (now.tv_sec + 1) * 1_000 + now.tv_nsec / 1_000_000;
    assert_eq!(sandbox.forge(&format!("UPDATE reservations SET until_boot_ms = {until_ms}")), 1);
    waiter.line();
    assert_holder(&sandbox, waiter.pid());
    taker.signal(Signal::CONT);
    let late = taker.finish_with_stdin_open(LIMIT).assert_code(75);
    assert_eq!(late.out, "", "it started its command");
    late.assert_complains(&[&format!("is held by pid {} (", waiter.pid())]);
    assert_holder(&sandbox, waiter.pid());
    assert_nothing_is_left(&sandbox, "at the end");
}

/// Symptom: beside a disk with much to do, a store stayed busy for longer than a call waits, just
/// when the old gateway had ended: the taker gave up, and nobody was left. It holds because the
/// claim that ends a takeover is tried for as long as the office is reserved for it.
#[test]
fn a_store_that_is_busy_when_the_old_one_has_ended_is_waited_for() {
    let sandbox = Sandbox::new();
    let mut old = draining(&sandbox, "a", &[]);
    let mut taker = taking_over(&sandbox, "b", &[]);
    assert_eq!(old.process.line(), "TERM");
    let writer = writer(&sandbox);
    let old_pid = old.pid();
    old.end();
    std::thread::sleep(CALL_WAITS + Duration::from_secs(2));
    assert!(!taker.has_ended(), "{:#?}", taker.finish(LIMIT));
    writer.finish(LIMIT);
    taker.line();
    let taker_pid = taker.pid();
    assert_taken_over(&sandbox, old_pid, taker_pid);
    taker.signal(Signal::TERM);
    taker.finish_with_stdin_open(LIMIT).assert_code(0);
    assert_nothing_is_left(&sandbox, "at the end");
}
