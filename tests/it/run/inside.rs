//! A run inside of a run, and the environment of a run that is over.

use crate::support::{LIMIT, Process, Sandbox};

/// FIELD-BUGS row 125.
///
/// Symptom: a unit starts `incumbent run -- start.sh`, and the script says `exec incumbent run --
/// gateway` as well. The refusal did not say that the holder is the run around it, and each of its
/// proposals was a trap: to stop or to replace ends who asks, to wait never ends.
#[test]
fn a_run_inside_of_its_own_run_says_where_it_is() {
    let sandbox = Sandbox::new();
    let inner = ["incumbent", "run", "--no-backoff", "--", "true"];
    let answer = sandbox.cli([&["run", "--no-backoff", "--"], &inner[..]].concat());
    let said = ["is held by pid", "this process is inside of that run", "start the program itself"];
    let answer = answer.assert_code(75).assert_complains(&said);
    for proposal in ["--replace", "--wait", "incumbent stop"] {
        assert!(!answer.err.contains(proposal), "{answer:#?}");
    }
    // Whoever waits all the same is told at once.
    let inner = ["incumbent", "run", "--no-backoff", "--wait=1ms", "--", "true"];
    let answer = sandbox.cli([&["run", "--no-backoff", "--"], &inner[..]].concat());
    answer.assert_code(75).assert_complains(&["inside the run that holds it", "and ends with"]);
}

/// Another office is none of its business, and neither is who asks from outside.
#[test]
fn a_run_of_another_office_is_no_run_in_a_run() {
    let sandbox = Sandbox::new();
    let inner = ["incumbent", "--profile", "other", "run", "--no-backoff", "--", "echo", "inner"];
    let answer = sandbox.cli([&["run", "--no-backoff", "--"], &inner[..]].concat());
    assert_eq!(answer.assert_code(0).out, "inner\n");
    let run = sandbox.hold(&[]);
    let answer = sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    let answer = answer.assert_complains(&["incumbent stop", "--replace", "--wait"]);
    assert!(!answer.err.contains("inside"), "{answer:#?}");
    run.end().assert_code(0);
}

/// FIELD-BUGS row 126.
///
/// Symptom: the gateway opened tmux, whose server keeps the environment of the run for ever. In
/// each shell of it claim, lock and marker were refused ("the run we are in has lost its office"),
/// and `run` started the profile of that run. It holds because a run that is over counts only for
/// what descends from it.
#[test]
fn what_a_run_that_is_over_left_in_an_environment_is_ignored() {
    let sandbox = Sandbox::new();
    let leave = "env | grep ^INCUMBENT_ > left";
    let run = ["--profile", "work", "run", "--no-backoff", "--", "/bin/sh", "-c", leave];
    sandbox.cli(run).assert_code(0);
    let left = std::fs::read_to_string(sandbox.file("left")).unwrap();
    let left: Vec<(&str, &str)> = left.lines().filter_map(|line| line.split_once('=')).collect();
    assert!(left.contains(&("INCUMBENT_PROFILE", "work")), "{left:?}");
    let mut shell = sandbox.shell(
        "incumbent lock acquire bot token > /dev/null; echo \"acquire $?\"
         incumbent claim; echo \"claim $?\"
         incumbent marker peek; echo \"peek $?\"
         incumbent run --no-backoff --kind other -- sh -c 'echo \"run in $INCUMBENT_PROFILE\"'
         INCUMBENT_PROFILE=mine incumbent run --no-backoff -- sh -c 'echo \"$INCUMBENT_PROFILE\"'
         echo $$; exec cat",
    );
    shell.envs(left.iter().copied());
    let mut shell = Process::start(shell);
    let pid = shell.pid().to_string();
    let claimed = format!("default/gateway: claimed for pid {pid}");
    for said in ["acquire 0", &claimed, "claim 0", "peek 1", "run in default", "mine", &pid] {
        assert_eq!(shell.line(), said);
    }
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], shell.pid());
    let answer = shell.finish(LIMIT);
    // Once by each verb that would have used it.
    assert!(answer.err.matches("is ignored, and its profile").count() >= 4, "{answer:#?}");
    // Where it is not over, it is the proof of who acts for it.
    let script = "echo $$; read -r go; incumbent claim; cat";
    let mut run = sandbox.hold_with(&["/bin/sh", "-c", script]);
    run.process.say("go");
    assert!(run.process.line().contains("holds it already"));
    run.end().assert_code(0);
}
