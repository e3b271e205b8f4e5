//! Hints about a holder that is in the way.

use rustix::process::Signal;

use super::{hint, paste};
use crate::support::{
    Answer, HOLDING, LIMIT, Process, Run, START, Sandbox, eventually, sleeper, wait_stopped,
};

/// A start that is refused.
fn refused(sandbox: &Sandbox) -> Answer {
    sandbox.cli(START).assert_code(75)
}

fn waiters(sandbox: &Sandbox) -> i64 {
    sandbox.number("SELECT count(*) FROM waiters")
}

#[test]
pub(super) fn stop() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&["--profile", "work"]);
    let told = sandbox.cli(["--profile", "work", "run", "--no-backoff", "--", "true"]);
    let told = told.assert_code(75);
    // Of another profile, which is left alone.
    let other = sandbox.hold(&[]);
    paste(&sandbox, &hint(&told, "stop")).assert_code(0);
    run.process.wait(LIMIT);
    sandbox.cli(["--profile", "work", "run", "--no-backoff", "--", "true"]).assert_code(0);
    assert_eq!(sandbox.status().0, 0);
    other.end().assert_code(0);
}

#[test]
pub(super) fn run_replace() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    let start = ["run", "--no-backoff", "--", "sh", "-c", "echo \"it's $1\" > said", "x", "mine"];
    let told = sandbox.cli(start).assert_code(75);
    paste(&sandbox, &hint(&told, "run --replace")).assert_code(0);
    run.process.wait(LIMIT);
    // The very command, with its words as they were.
    assert_eq!(std::fs::read_to_string(sandbox.file("said")).unwrap(), "it's mine\n");
}

#[test]
pub(super) fn run_replace_by_force() {
    let sandbox = Sandbox::new();
    let of_party = |party: &str, options: &[&str], command: &[&str]| {
        let words = [&["run", "--no-backoff"], options, command].concat();
        let mut start = sandbox.incumbent(words);
        start.env("INCUMBENT_PARTY", party);
        start
    };
    let mut first = Run::start(of_party("a", &[], HOLDING));
    let mut second = Run::start(of_party("b", &["--replace"], HOLDING));
    first.process.wait(LIMIT);
    let told = Process::start(of_party("a", &["--replace"], &["--", "true"])).finish(LIMIT);
    let told = told.assert_code(75);
    let mut pasted = sandbox.shell(&hint(&told, "run --replace --force"));
    pasted.env("INCUMBENT_PARTY", "a");
    Process::start(pasted).finish(LIMIT).assert_code(0);
    second.process.wait(LIMIT);
}

#[test]
pub(super) fn run_wait() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let told = refused(&sandbox);
    let waiting = Process::start(sandbox.shell(&hint(&told, "run --wait")));
    eventually("the waiter", LIMIT, || (waiters(&sandbox) > 0).then_some(()));
    run.end().assert_code(0);
    waiting.finish(LIMIT).assert_code(0);
    let starts = sandbox.number("SELECT count(*) FROM events WHERE event = 'office_claimed'");
    assert_eq!(starts, 2);
}

/// Symptom: the pasted start ran without the lock, and two gateways polled one token. The identity
/// is not repeated, its lock is.
#[test]
fn a_start_is_repeated_with_its_locks() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let start = ["run", "--no-backoff", "--lock", "s=a-secret", "--"];
    let command = ["sh", "-c", "incumbent locks > held.txt"];
    let told = sandbox.cli([&start[..], &command].concat()).assert_code(75);
    assert!(!told.err.contains("a-secret") && told.err.contains("variable VAR"), "{told:#?}");
    let mut pasted = sandbox.shell(&hint(&told, "run --wait"));
    pasted.env("VAR", "a-secret");
    let waiting = Process::start(pasted);
    eventually("the waiter", LIMIT, || (waiters(&sandbox) > 0).then_some(()));
    run.end().assert_code(0);
    waiting.finish(LIMIT).assert_code(0);
    let held = std::fs::read_to_string(sandbox.file("held.txt")).unwrap();
    assert!(held.starts_with("s/"), "{held}");
}

/// Who runs already is told no start: it would make another gateway, or one without the lock.
#[test]
fn a_claim_and_an_unlock_are_told_no_start() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&["--lock", "s=mine"]);
    let own = std::process::id().to_string();
    for words in [&["claim", "--pid", &own][..], &["unlock", "s", "mine"]] {
        let told = sandbox.cli(words).assert_code(75);
        let (_, advice) = told.err.split_once("try:").unwrap();
        assert!(!advice.contains("incumbent run"), "{told:#?}");
        assert!(advice.contains("`incumbent stop"), "{told:#?}");
    }
    run.end().assert_code(0);
}

/// The identity is not repeated: the pasted call reads it from standard input.
#[test]
pub(super) fn lock_acquire_wait() {
    let sandbox = Sandbox::new();
    let (first, second) = (sleeper(&sandbox), sleeper(&sandbox));
    let [one, other] = [&first, &second].map(|process| process.pid().to_string());
    sandbox.cli(["lock", "acquire", "s", "a-secret", "--pid", &one]).assert_code(0);
    let told = sandbox.cli(["lock", "acquire", "s", "a-secret", "--pid", &other]);
    let told = told.assert_code(75);
    assert!(!told.err.contains("a-secret"), "{told:#?}");
    let command = hint(&told, "lock acquire --wait");
    let mut waiting = Process::start(sandbox.shell(&command));
    waiting.write("a-secret");
    waiting.close_stdin();
    eventually("the waiter", LIMIT, || (waiters(&sandbox) > 0).then_some(()));
    sandbox.cli(["lock", "release", "s", "a-secret", "--pid", &one]).assert_code(0);
    waiting.finish(LIMIT).assert_code(0);
    sandbox.cli(["lock", "verify", "s", "a-secret", "--pid", &other]).assert_code(0);
}

/// One that cannot be checked from here, and that is known to be gone.
#[test]
pub(super) fn evict_by_force() {
    let sandbox = Sandbox::new();
    let owner = sleeper(&sandbox);
    sandbox.cli(["claim", "--no-keeper", "--pid", &owner.pid().to_string()]).assert_code(0);
    sandbox.forge("UPDATE instances SET pid_ns = 'elsewhere'");
    let told = refused(&sandbox);
    paste(&sandbox, &hint(&told, "evict --force")).assert_code(0);
    sandbox.cli(START).assert_code(0);
}

#[test]
pub(super) fn stop_of_one_that_is_stopped() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    run.process.signal(Signal::STOP);
    wait_stopped(run.pid());
    let told = refused(&sandbox);
    assert!(told.err.contains(&format!("`kill -CONT {}`", run.pid())), "{told:#?}");
    paste(&sandbox, &hint(&told, "stop --force --timeout")).assert_code(0);
    run.process.wait(LIMIT);
    assert!(run.command.is_gone());
    sandbox.cli(START).assert_code(0);
    assert_eq!(sandbox.history()[1]["end_reason"], "planned_stop");
}

#[test]
pub(super) fn unlock_by_force() {
    let sandbox = Sandbox::new();
    let owner = sleeper(&sandbox);
    let pid = owner.pid().to_string();
    sandbox.cli(["lock", "acquire", "s", "mine", "--pid", &pid]).assert_code(0);
    let told = sandbox.cli(["unlock", "s", "mine"]).assert_code(75);
    paste(&sandbox, &hint(&told, "unlock --hash --force")).assert_code(0);
    sandbox.cli(["lock", "verify", "s", "mine", "--pid", &pid]).assert_code(1);
}
