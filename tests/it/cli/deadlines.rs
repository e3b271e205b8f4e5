//! A deadline is kept, also beside a stuck writer; and nobody waits for the dead.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Answer, LIMIT, Process, Sandbox, eventually, stopped_writer, wait_for_looks};

/// Symptom: `--wait=0` and `stop --timeout 1s` took 5 s beside a writer that was stopped, the
/// store's own patience. It holds because that lies within the caller's.
#[test]
fn no_deadline_is_longer_beside_a_stopped_writer() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let owner = Process::start(sandbox.program("cat"));
    let pid = owner.pid().to_string();
    let acquire = ["lock", "acquire", "scope", "identity", "--pid", pid.as_str()];
    sandbox.cli(acquire).assert_code(0);
    let writer = stopped_writer(&sandbox);
    let named = format!("pid {}", writer.pid());
    let verbs: [&[&str]; 6] = [
        &[&acquire[..], &["--wait=0"]].concat(),
        &["run", "--no-backoff", "--wait=0", "--", "true"],
        &["--profile", "new", "run", "--no-backoff", "--wait=0", "--", "true"],
        &["restart", "--timeout", "0"],
        &["restart", "--timeout", "500ms"],
        // Asks it to end, and does not wait for that.
        &["stop", "--timeout", "0"],
    ];
    for verb in verbs {
        let answer = before_patience_ends(&sandbox, verb);
        let is_stop = verb[0] == "stop";
        let expected: &[i32] = if is_stop { &[0, 1] } else { &[75] };
        assert!(expected.contains(&answer.code()), "{verb:?}: {answer:#?}");
        assert!(answer.err.contains(&named), "{verb:?}: {answer:#?}");
        assert!(answer.err.contains("which is stopped"), "{verb:?}: {answer:#?}");
    }
    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    drop((run, owner));
}

/// What `verb` answers while somebody who began before it still waits for the store, with the
/// patience that everybody has (5 s). On a busy machine that may take a second attempt.
#[track_caller]
fn before_patience_ends(sandbox: &Sandbox, verb: &[&str]) -> Answer {
    for _ in 0..5 {
        let patient = ["--profile", "patient", "run", "--no-backoff", "--", "true"];
        let mut patient = Process::start(sandbox.incumbent(patient));
        // It looks for a second or so; what it does before that takes less.
        wait_for_looks(&[patient.pid()], 40);
        let answer = sandbox.cli(verb);
        if !patient.has_ended() {
            return answer;
        }
    }
    panic!("{verb:?} took as long as the store's own patience");
}

/// FIELD-BUGS row 139.
///
/// Symptom: `lock acquire --pid N --wait` went on waiting after N had died, for months. It holds
/// because the waiter has N pinned.
#[test]
fn a_wait_for_a_process_ends_with_it() {
    let sandbox = Sandbox::new();
    let holder = Process::start(sandbox.program("cat"));
    let mut other = Process::start(sandbox.program("cat"));
    let acquire = |process: &Process, wait: &[&str]| {
        let pid = process.pid().to_string();
        let verb = ["--json", "lock", "acquire", "scope", "identity", "--pid", &pid];
        Process::start(sandbox.incumbent([&verb[..], wait].concat()))
    };
    acquire(&holder, &[]).finish(LIMIT).assert_code(0);
    let waiter = acquire(&other, &["--wait"]);
    eventually("a waiter", LIMIT, || {
        let (_, locks) = sandbox.json(["locks"]);
        let waiters: Vec<Value> = locks[0]["waiters"].as_array()?.clone();
        (!waiters.is_empty()).then_some(())
    });
    let pid = other.pid();
    other.kill();
    let answer = waiter.finish(LIMIT).assert_code(75);
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains(&format!("pid {pid}, which was to hold it, has ended")), "{message}");
    let (_, locks) = sandbox.json(["locks"]);
    assert_eq!(locks[0]["pid"], holder.pid(), "{locks:#}");
    assert_eq!(locks[0]["waiters"].as_array().unwrap().len(), 0, "{locks:#}");
    drop(holder);
}
