//! A process is asked to end, gets its time, and is killed only where that was asked for.

use incumbent::Verdict;
use std::time::{Duration, Instant};

use incumbent::ErrorKind;
use incumbent::process::{AfterBudget, ProcessRef, Terminated, terminate};
use rustix::process::Signal;

use super::{reference, verdict};
use crate::support::{LIMIT, Process, Sandbox, ask, wait_stopped};

/// A process that says `term` when it is asked to end, and goes on.
fn deaf(sandbox: &Sandbox) -> Process {
    let script = "trap 'echo term' TERM; echo ready; while :; do sleep 0.02; done";
    let mut process = Process::start(sandbox.shell(script));
    assert_eq!(process.line(), "ready");
    process
}

#[test]
fn it_ends_when_it_is_asked_to() {
    let sandbox = Sandbox::new();
    let script = "trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    let mut worker = Process::start(sandbox.shell(script));
    worker.line();
    let stored = reference(&worker);
    let asked = Instant::now();
    assert_eq!(terminate(&stored, LIMIT, AfterBudget::LetRun).unwrap(), Terminated::Ended);
    assert!(asked.elapsed() < LIMIT, "it came back when the process ended");
    assert_eq!(terminate(&stored, LIMIT, AfterBudget::Kill).unwrap(), Terminated::WasGone);
    let answer = worker.finish(LIMIT).assert_code(3);
    assert_eq!(answer.out, "ready\nterm\n");
    assert_eq!(terminate(&stored, LIMIT, AfterBudget::Kill).unwrap(), Terminated::WasGone);
}

#[test]
fn one_that_does_not_follow_is_killed_only_where_that_was_asked_for() {
    let sandbox = Sandbox::new();
    let mut worker = deaf(&sandbox);
    let stored = reference(&worker);
    let budget = Duration::from_millis(100);
    assert_eq!(terminate(&stored, budget, AfterBudget::LetRun).unwrap(), Terminated::StillRuns);
    assert_eq!(worker.line(), "term");
    assert_eq!(verdict(&stored).0, Verdict::Alive);
    assert_eq!(terminate(&stored, budget, AfterBudget::Kill).unwrap(), Terminated::Killed);
    worker.finish(LIMIT).assert_code(128 + 9);
}

/// FIELD-BUGS row 20: a stopped process gets the request when it goes on, so it has to go on.
#[test]
fn a_stopped_process_sees_the_request() {
    let sandbox = Sandbox::new();
    let mut worker = Process::start(sandbox.shell("trap 'exit 4' TERM; echo; read -r line"));
    worker.line();
    worker.signal(Signal::STOP);
    wait_stopped(worker.pid());
    let ended = terminate(&reference(&worker), LIMIT, AfterBudget::LetRun).unwrap();
    assert_eq!(ended, Terminated::Ended);
    worker.finish_with_stdin_open(LIMIT).assert_code(4);
}

/// FIELD-BUGS rows 16 and 18: a process that ends itself, or what it hangs on, by a pid from a
/// table.
#[test]
fn ourselves_and_what_we_descend_from_are_refused() {
    let own = ProcessRef::current().unwrap();
    let mut refused = vec![own];
    refused
        .extend([1, std::os::unix::process::parent_id()].map(ProcessRef::of).map(Result::unwrap));
    for process in refused {
        for after in [AfterBudget::LetRun, AfterBudget::Kill] {
            let errors = [
                terminate(&process, LIMIT, after).unwrap_err(),
                incumbent::process::terminate_tree(&process, LIMIT, after).unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{process}: {error}");
                assert!(error.to_string().contains(&format!("pid {}", process.pid())), "{error}");
            }
        }
    }
}

/// FIELD-BUGS rows 92 and 110. Where the last descriptors went to pin the process, nobody could see
/// any more who descends from it, and it was signalled, although it might have been our parent.
#[test]
fn a_shortage_in_the_middle_of_the_proof_signals_nobody() {
    let sandbox = Sandbox::new();
    let mut worker = Process::start(sandbox.shell("exec cat"));
    assert!(worker.echoes());
    let stored = reference(&worker);
    let mut asker = sandbox.asker();
    // What it knows of itself it learns before.
    assert_eq!(ask(&mut asker, &format!("alive {stored}")), "alive start_time_matches");
    for free in 0..3 {
        for order in ["terminate", "tree"] {
            let answer = ask(&mut asker, &format!("with {free} {order} {stored}"));
            assert!(answer.starts_with("error busy: "), "{order} with {free}: {answer}");
        }
    }
    assert!(worker.echoes());
    assert_eq!(ask(&mut asker, &format!("with 16 terminate {stored}")), "ended");
}
