//! `stop --reap`: what a gateway has started and left behind is named, and ended only when asked
//! for.
//!
//! Known by having been its child, as with `run --replace --reap`, never by what it is called.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Answer, Identity, LIMIT, Process, Run, Sandbox, bystander, kill};

/// Says its pid, and those of two processes that outlive it: one that has left its session, and one
/// that ignores TERM.
const LEAVES: &str = "
    setsid sleep 1000 > /dev/null 2>&1 < /dev/null & first=$!
    (trap '' TERM; exec sleep 1000) > /dev/null 2>&1 < /dev/null & deaf=$!
    trap 'exit 0' TERM; echo $$; echo $first; echo $deaf
    while :; do wait; done";

/// A `run` with these options of [`LEAVES`], and whom that has started.
#[track_caller]
fn leaving(sandbox: &Sandbox, options: &[&str]) -> (Run, [Identity; 2]) {
    let command = ["--", "/bin/sh", "-c", LEAVES];
    let words = [&["run", "--no-backoff", "--wait"], options, &command].concat();
    let mut run = Run::start(sandbox.incumbent(words));
    let started = [(); 2].map(|()| Identity::of(run.process.line().parse().unwrap()).unwrap());
    (run, started)
}

#[track_caller]
fn finish(run: Run) -> Answer {
    run.process.finish_with_stdin_open(LIMIT)
}

/// A `run` that leaves alone what its command leaves; and no `run` at all, whose command ends by
/// itself.
#[test]
fn what_a_gateway_leaves_behind_is_named_and_ended_only_when_asked_for() {
    for how in ["--leave", "--exec"] {
        let sandbox = Sandbox::new();
        let mut stranger = bystander(&sandbox);
        let (run, started) = leaving(&sandbox, &[how]);
        let answer = sandbox.cli(["stop"]).assert_code(0);
        for process in started {
            let named = format!("pid {} (", process.pid);
            let line = answer.err.lines().find(|line| line.contains(&named));
            let says = |words: &str| line.is_some_and(|line| line.contains(words));
            assert!(says("still runs") && says("--reap"), "{how}: {named}: {answer:#?}");
            assert!(!process.is_gone(), "{how}: nobody asked for it: {answer:#?}");
        }
        finish(run);

        let (run, others) = leaving(&sandbox, &[how]);
        let (code, document) = sandbox.json(["stop", "--reap"]);
        assert_eq!((code, &document["left_over"]), (0, &json!([])), "{how}: {document:#}");
        let reaped = document["reaped"].as_array().unwrap();
        assert_eq!(reaped.len(), others.len(), "{how}: {document:#}");
        for process in others {
            let is_named = reaped.iter().any(|it| it["pid"] == process.pid);
            assert!(is_named && process.is_gone(), "{how}: {process:?}: {document:#}");
        }
        finish(run);
        for process in started {
            assert!(!process.is_gone(), "{how}: those of the one before are nobody's by now");
            kill(process.pid, Signal::KILL);
        }
        assert!(stranger.echoes(), "{how}: a stranger was ended");
    }
}

/// Where nothing outlives the gateway, nothing is said: a `run` ends its command's family itself.
#[test]
fn where_nothing_is_left_nothing_is_said() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold_with(&["/bin/sh", "-c", "sleep 1000 & echo $$; wait"]);
    let answer = sandbox.cli(["stop", "--reap"]).assert_code(0);
    assert_eq!(answer.err, "");
    finish(run);
    // Nor where nobody runs.
    let (code, document) = sandbox.json(["stop", "--reap"]);
    assert_eq!((code, &document["reaped"]), (0, &json!([])), "{document:#}");
}

/// What holds an office by itself is a gateway of its own, with all that it has started.
#[test]
fn another_gateway_is_spared() {
    let sandbox = Sandbox::new();
    let script = "
        env -u INCUMBENT_TOKEN -u INCUMBENT_INSTANCE -u INCUMBENT_PROFILE setsid \\
            incumbent --profile other run --no-backoff -- \\
            /bin/sh -c 'echo $$ > inner; exec sleep 1000' > /dev/null 2>&1 < /dev/null &
        until [ -s inner ]; do sleep 0.02; done
        trap 'exit 0' TERM; echo $$
        while :; do wait; done";
    let run = ["run", "--no-backoff", "--leave", "--", "/bin/sh", "-c", script];
    let run = Run::start(sandbox.incumbent(run));
    let other = ["--profile", "other", "status"];
    let (code, before) = sandbox.json(other);
    assert_eq!(code, 0, "{before:#}");
    let (code, document) = sandbox.json(["stop", "--reap"]);
    assert_eq!((code, &document["reaped"]), (0, &json!([])), "{document:#}");
    let left = document["left_over"].as_array().unwrap();
    for pid in [&before["pid"], &before["child_pid"]] {
        assert!(left.iter().any(|it| it["pid"] == *pid), "{pid}: {document:#}");
    }
    let (code, after) = sandbox.json(other);
    assert_eq!((code, &after["child_pid"]), (0, &before["child_pid"]), "{after:#}");
    finish(run);
    sandbox.cli(["--profile", "other", "stop"]).assert_code(0);
}

/// A process that has released the office and goes on has left nothing behind.
#[test]
fn what_a_process_has_started_that_goes_on_is_its_own() {
    let sandbox = Sandbox::new();
    let script = "
        sleep 1000 > /dev/null 2>&1 < /dev/null & child=$!
        incumbent claim --pid $$ > /dev/null
        trap 'incumbent release --pid $$ > /dev/null; echo released' TERM
        echo $$; echo $child
        while :; do wait $child; done";
    let mut process = Process::start(sandbox.shell(script));
    let pid = process.line();
    let child = Identity::of(process.line().parse().unwrap()).unwrap();
    let (code, document) = sandbox.json(["stop", "--reap"]);
    assert_eq!((code, &document["still_runs"]), (0, &json!(true)), "{document:#}");
    assert_eq!(process.line(), "released");
    let lists = (&document["reaped"], &document["left_over"]);
    assert_eq!(lists, (&json!([]), &json!([])), "pid {pid}: {document:#}");
    assert!(!child.is_gone(), "{document:#}");
    process.kill();
    kill(child.pid, Signal::KILL);
}
