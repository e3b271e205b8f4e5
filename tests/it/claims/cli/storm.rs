//! Storms: a party whose starts get nowhere is slowed down, and only that party.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{HOLDING, LIMIT, Process, Sandbox, assert_within, rounds};

/// The first backoff lasts 5 s; whoever waited for it was not faster than this.
const WITHOUT_BACKOFF: Duration = Duration::from_millis(3_500);

fn as_party(sandbox: &Sandbox, party: &str, arguments: &[&str]) -> Command {
    let mut command = sandbox.incumbent(arguments);
    command.env("INCUMBENT_PARTY", party);
    command
}

fn start_of_party(sandbox: &Sandbox, party: &str, options: &[&str]) -> Process {
    Process::start(as_party(sandbox, party, &[&["run"], options, HOLDING].concat()))
}

/// FIELD-BUGS rows 46 and 47.
///
/// Symptom: 52,000 restarts in three days by the instance that had lost; breakers inside the
/// process forgot each time. It holds because refusals are counted in the store, per office and
/// party: the seventh start of a party in two minutes waits, says so, and can be interrupted.
#[test]
fn the_seventh_refused_start_of_a_party_waits_and_says_so() {
    let sandbox = Sandbox::new();
    let owner = sandbox.hold(&[]);
    for number in 1..=6 {
        let answer = start_of_party(&sandbox, "red", &[]).finish(LIMIT).assert_code(75);
        assert!(!answer.err.contains("waiting"), "start {number}: {answer:#?}");
    }
    let mut seventh = start_of_party(&sandbox, "red", &[]);
    let told = seventh.err_line_with("failed starts in a row");
    assert!(told.contains("6 failed starts in a row"), "{told}");
    assert!(told.contains("--no-backoff"), "{told}");

    // Meanwhile others are not delayed: another party, and whoever asks to go ahead.
    for answer in [
        start_of_party(&sandbox, "blue", &[]).finish(LIMIT),
        start_of_party(&sandbox, "red", &["--no-backoff"]).finish(LIMIT),
        start_of_party(&sandbox, "red", &["--kind", "other"]).finish(LIMIT),
    ] {
        assert!(!answer.err.contains("waiting"), "{answer:#?}");
    }
    // Nor does it hold anything while it waits.
    assert_eq!(sandbox.status().1["pid"], owner.pid());

    // Had the wait come to its end by itself, it would be refused: 75.
    seventh.signal(Signal::TERM);
    seventh.finish_with_stdin_open(LIMIT).assert_code(143);
    owner.end().assert_code(0);
}

/// Nobody is kept out of a free office: the holder's end ends the backoff it was the cause of.
#[test]
fn a_backoff_ends_when_the_holder_goes() {
    // The holder may go in any instant: also in the one in which the wait begins.
    for round in 1..=rounds(8, 100) {
        let sandbox = Sandbox::new();
        let owner = sandbox.hold(&[]);
        for _ in 0..6 {
            start_of_party(&sandbox, "red", &[]).finish(LIMIT).assert_code(75);
        }
        let began = Instant::now();
        let mut seventh = start_of_party(&sandbox, "red", &[]);
        seventh.err_line_with("failed starts in a row");
        owner.end().assert_code(0);
        seventh.line();
        let took = began.elapsed();
        assert_within(WITHOUT_BACKOFF, took, &format!("round {round}: the start"));
        seventh.finish(LIMIT).assert_code(0);
    }
}

/// The wait is over by itself as well: then the start is tried, and refused.
#[test]
fn a_backoff_comes_to_its_end() {
    let sandbox = Sandbox::new();
    let _owner = sandbox.hold(&[]);
    for _ in 0..6 {
        start_of_party(&sandbox, "red", &[]).finish(LIMIT).assert_code(75);
    }
    let began = Instant::now();
    start_of_party(&sandbox, "red", &[]).finish(LIMIT).assert_code(75);
    assert!(began.elapsed() > WITHOUT_BACKOFF, "{:?}", began.elapsed());
}

/// A command that crashes at once is a storm as well, though its starts are granted.
#[test]
fn a_crash_loop_is_slowed_down() {
    let sandbox = Sandbox::new();
    let crash = ["run", "--", "/bin/sh", "-c", "exit 1"];
    // The first start follows nothing, six more follow a failure.
    for number in 1..=7 {
        let answer = Process::start(as_party(&sandbox, "red", &crash)).finish(LIMIT);
        assert_eq!(answer.code(), 1, "start {number}: {answer:#?}");
        assert_eq!(answer.err, "", "start {number}");
    }
    let mut next = Process::start(as_party(&sandbox, "red", &crash));
    next.err_line_with("failed starts in a row");
    next.signal(Signal::TERM);
    next.finish_with_stdin_open(LIMIT).assert_code(143);
}

/// A gateway that is run every few seconds and ends well is no storm.
#[test]
fn starts_that_end_well_are_never_slowed_down() {
    let sandbox = Sandbox::new();
    for number in 1..=20 {
        let command = as_party(&sandbox, "red", &["run", "--", "true"]);
        let answer = Process::start(command).finish(LIMIT).assert_code(0);
        assert_eq!(answer.err, "", "start {number}");
    }
}

/// Who keeps starting is told apart by its parent process where no name is given: two shells are
/// two parties.
#[test]
fn two_parents_are_two_parties() {
    let sandbox = Sandbox::new();
    let _owner = sandbox.hold(&[]);
    let six = "for n in 1 2 3 4 5 6; do incumbent run -- true; done; echo \"code $?\"";
    for parent in 1..=2 {
        let answer = Process::start(sandbox.shell(six)).finish(LIMIT).assert_code(0);
        assert_eq!(answer.out, "code 75\n", "parent {parent}: {answer:#?}");
        assert!(!answer.err.contains("failed starts in a row"), "parent {parent}: {answer:#?}");
    }
}

/// Conflicts are counted, not listed: who wanted it, and how often (FIELD-BUGS row 67).
#[test]
fn a_loop_of_refusals_is_one_conflict() {
    let sandbox = Sandbox::new();
    let owner = sandbox.hold(&[]);
    for _ in 0..12 {
        start_of_party(&sandbox, "red", &["--no-backoff"]).finish(LIMIT).assert_code(75);
    }
    let status = sandbox.status().1;
    let conflicts = status["conflicts"].as_array().unwrap();
    assert_eq!(conflicts.len(), 1, "{status:#}");
    assert_eq!(conflicts[0]["count"], 12, "{status:#}");
    let refusals = "SELECT count(*) FROM events WHERE event = 'office_refused'";
    assert_eq!(sandbox.number(refusals), 1);
    owner.end().assert_code(0);
}
