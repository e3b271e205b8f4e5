//! What a gateway leaves over, and whose children are not reaped.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::{assert_nothing_is_left, holder_of_lock, run_of, taking_over};
use crate::support::{Identity, LIMIT, Process, Run, Sandbox, eventually, kill, wait_ended};

/// FIELD-BUGS rows 14, 18 and 71.
///
/// What the old gateway had started and what outlives it is named, and ended only when asked for:
/// known by having been its child, never by what it is called.
#[test]
fn what_a_gateway_leaves_behind_is_named_and_reaped_only_when_asked_for() {
    const LEAVES: &str = "
        setsid sleep 1000 > /dev/null 2>&1 < /dev/null & first=$!
        nohup sleep 1000 > /dev/null 2>&1 < /dev/null & second=$!
        (trap '' TERM; exec sleep 1000) > /dev/null 2>&1 < /dev/null & deaf=$!
        env -u INCUMBENT_TOKEN -u INCUMBENT_INSTANCE \\
            incumbent lock acquire --profile other bot-token secret --pid $STRANGER > /dev/null
        trap 'exit 0' TERM; echo $$; echo $first; echo $second; echo $deaf
        while :; do wait; done";
    let sandbox = Sandbox::new();
    let mut stranger = sandbox.program("sleep");
    stranger.arg("1000");
    let mut stranger = Process::start(stranger);
    let leaving = |options: &[&str], party: &str| {
        let mut command = run_of(&sandbox, party, options, LEAVES);
        command.env("STRANGER", stranger.pid().to_string());
        let mut run = Run::start(command);
        let children: Vec<Identity> =
            (0..3).map(|_| Identity::of(run.process.line().parse().unwrap()).unwrap()).collect();
        (run, children)
    };
    // Otherwise each run ends what is in its command's session (`run::family`).
    let (old, children) = leaving(&["--leave"], "a");
    let keepers = sandbox.keepers();
    assert_eq!(keepers.len(), 1, "the test is about a keeper that lives");
    let (new, others) = leaving(&["--replace", "--leave"], "b");
    let told = {
        let mut new = new;
        let mut told = Vec::new();
        for _ in &children {
            told.push(new.process.err_line_with("still runs"));
        }
        for child in &children {
            assert!(!child.is_gone(), "nobody asked for it: {told:?}");
            let named = format!("pid {} (", child.pid);
            assert!(told.iter().any(|line| line.contains(&named)), "{named}: {told:?}");
        }
        assert!(told.iter().all(|line| line.contains("--reap")), "{told:?}");
        new
    };
    old.process.finish_with_stdin_open(LIMIT).assert_code(0);
    let mut reaper = taking_over(&sandbox, "c", &["--reap"]);
    reaper.line();
    for other in &others {
        assert!(other.is_gone(), "{other:?}");
    }
    told.process.finish_with_stdin_open(LIMIT).assert_code(0);
    assert!(!stranger.has_ended(), "a stranger was ended");
    for child in children {
        assert!(!child.is_gone(), "those of the one before are nobody's by now");
        kill(child.pid, Signal::KILL);
    }
    assert_eq!(sandbox.keepers(), keepers);
    assert_eq!(holder_of_lock(&sandbox, "secret"), Some(stranger.pid().into()));
}

/// The taker may be among what the old gateway had started, with those who wait for it.
#[test]
fn a_reaping_taker_does_not_saw_off_its_branch() {
    let sandbox = Sandbox::new();
    let script = "trap 'exit 0' TERM; echo $$; read -r go
        setsid sh -c '
            incumbent run --replace --reap --no-backoff -- true > /dev/null 2>&1 < /dev/null
            echo $? > code' > /dev/null 2>&1 < /dev/null &
        while :; do wait; done";
    let mut old = Run::start(run_of(&sandbox, "a", &[], script));
    old.process.say("go");
    old.process.finish_with_stdin_open(LIMIT).assert_code(0);
    let code = eventually("the shell that started the taker", LIMIT, || {
        let code = std::fs::read_to_string(sandbox.file("code")).ok()?;
        code.trim().parse::<i32>().ok()
    });
    assert_eq!(code, 0);
    assert_nothing_is_left(&sandbox, "at the end");
}

#[track_caller]
pub fn assert_taken_over_as(sandbox: &Sandbox, kind: &str, pid: u32) {
    let (_, history) = sandbox.json(["history", "--kind", kind]);
    assert_eq!(
        (&history[0]["pid"], &history[0]["end_reason"]),
        (&json!(pid), &json!("taken_over"))
    );
}

/// FIELD-BUGS row 17. Symptom: the recorded pid of a gateway in another container was taken for the
/// process that has the number here, and what that one had started was ended with `--reap`.
#[test]
fn the_children_of_a_stranger_are_not_reaped() {
    let sandbox = Sandbox::new();
    let stays = "trap 'exit 0' TERM
        sleep 1000 > /dev/null 2>&1 & echo $! > child
        echo $$
        while :; do sleep 0.05; done";
    let old = Run::start(run_of(&sandbox, "a", &["--leave"], stays));
    // As if it were recorded elsewhere: its number means nothing here, and it obeys its marker.
    sandbox.forge("UPDATE instances SET pid_ns = '1' WHERE ended_at_ms IS NULL");
    let mut taker = taking_over(&sandbox, "b", &["--reap"]);
    taker.line();
    let child = std::fs::read_to_string(sandbox.file("child")).unwrap();
    let child: u32 = child.trim().parse().unwrap();
    assert!(!wait_ended(child, Duration::ZERO), "it was reaped");
    kill(child, Signal::KILL);
    taker.signal(Signal::TERM);
    taker.finish_with_stdin_open(LIMIT);
    old.process.finish_with_stdin_open(LIMIT);
}
