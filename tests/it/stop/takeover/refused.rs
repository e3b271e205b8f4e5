//! An owner that cannot be ended keeps its office.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::gateway::{ROLE, deaf_gateway};
use super::{
    AFTER_BUDGET, ENDS, assert_holder, assert_nothing_is_left, assert_refused_because, run_of,
    try_to_take,
};
use crate::stop::terms;
use crate::support::{
    LIMIT, Process, Run, SOON, Sandbox, another_user, ask, assert_within, eventually, kill,
    pid_namespace, skipped,
};

/// FIELD-BUGS rows 16, 17 and 25.
///
/// Whoever may not be signalled gets its marker and its time, and is never evicted: of another
/// user, in another container, or the very script that asks. All of them at once, because each
/// takes its budget and ten seconds.
#[test]
fn whoever_cannot_be_signalled_keeps_its_office() {
    std::thread::scope(|scope| {
        let cases: [fn(); 3] = [
            one_of_another_user_keeps_its_office,
            one_in_another_namespace_keeps_its_office,
            ones_own_parent_keeps_its_office,
        ];
        let running = cases.map(|case| scope.spawn(case));
        for case in running {
            if let Err(failed) = case.join() {
                std::panic::resume_unwind(failed);
            }
        }
    });
}

const ONE_SECOND: Duration = Duration::from_secs(1);

/// A refusal after the budget of `claim 1000` and the time for the markers of others.
#[track_caller]
fn assert_gave_up_in_time(began: Instant) {
    let took = began.elapsed();
    assert!(took >= ONE_SECOND, "gave up after {took:?} of {ONE_SECOND:?}");
    assert_within(ONE_SECOND + AFTER_BUDGET + SOON, took, "giving up");
}

fn one_of_another_user_keeps_its_office() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let as_nobody = |arguments: &[&str]| {
        let mut command = sandbox.within(nobody);
        command.arg(&binary).args(arguments);
        Process::start(command).finish(LIMIT)
    };
    as_nobody(&["run", "--no-backoff", "--", "true"]).assert_code(0);
    let mut roots = sandbox.role(ROLE, "gateway");
    assert_eq!(ask(&mut roots, "claim 1000"), "granted None");
    let began = Instant::now();
    let answer = as_nobody(&["--json", "run", "--no-backoff", "--replace", "--", "true"]);
    assert_gave_up_in_time(began);
    assert_refused_because(&(answer.code(), answer.json()), "cannot_signal");
    assert_eq!(ask(&mut roots, "verify"), "Held");
    assert_eq!(sandbox.number("SELECT count(*) FROM reservations"), 0);
    // It learns by whom, when it looks.
    assert_eq!(ask(&mut roots, "ask"), "TakenOver true");
    drop(roots);

    // Root's `run` looks, and obeys.
    let old = Run::start(run_of(&sandbox, "a", &[], ENDS));
    let answer = as_nobody(&["run", "--no-backoff", "--replace", "--", "echo", "taken"]);
    assert_eq!(answer.assert_code(0).out, "taken\n");
    let answer = old.process.finish_with_stdin_open(LIMIT).assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    assert_nothing_is_left(&sandbox, "at the end");
}

fn one_in_another_namespace_keeps_its_office() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let mut inside = deaf_gateway(&sandbox, namespace);
    assert_eq!(ask(&mut inside, "claim 1000"), "granted None");
    let began = Instant::now();
    let answer = try_to_take(&sandbox, "b", &[]);
    assert_gave_up_in_time(began);
    assert_refused_because(&answer, "cannot_signal");
    assert_eq!(answer.1["holder"]["flags"], json!(["elsewhere"]), "{:#}", answer.1);
    assert_eq!(ask(&mut inside, "verify"), "Held");
    assert_eq!(sandbox.number("SELECT count(*) FROM reservations"), 0);
}

fn ones_own_parent_keeps_its_office() {
    let sandbox = Sandbox::new();
    let script = "incumbent claim > /dev/null; trap 'echo TERM' TERM; echo $$; read -r go
        incumbent --json run --replace --force --reap --no-backoff -- true > answer.json
        echo \"code $?\"; exec cat";
    let mut script = Process::start(sandbox.shell(script));
    script.line();
    sandbox.forge("UPDATE instances SET stop_budget_ms = 1000");
    script.say("go");
    // At once, or when its time is over: it cannot end while it waits for us.
    let began = Instant::now();
    assert_eq!(script.line(), "code 75");
    assert_within(ONE_SECOND + AFTER_BUDGET + SOON, began.elapsed(), "the refusal");
    let answer = std::fs::read_to_string(sandbox.file("answer.json")).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_refused_because(&(75, answer), "cannot_signal");
    assert_holder(&sandbox, script.pid());
    assert_eq!(sandbox.number("SELECT count(*) FROM reservations"), 0);
}

/// A taker inside of the command that it replaces (row 50): the `run` obeys, its command ends, and
/// the taker, which outlives its own parent, has the office.
#[test]
fn a_command_may_be_succeeded_by_its_own_child() {
    let sandbox = Sandbox::new();
    let script = format!(
        "trap 'echo TERM; exit 0' TERM; echo $$; read -r go
         incumbent run --replace --reap --no-backoff -- /bin/sh -c '{}' \
             < /dev/null > taken.txt 2>&1 &
         while :; do wait; done",
        "echo taken by $PPID; exec sleep 1000"
    );
    let mut old = Run::start(run_of(&sandbox, "a", &[], &script));
    old.process.say("go");
    let answer = old.process.finish_with_stdin_open(LIMIT).assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    let taken = eventually("the successor", LIMIT, || {
        let text = std::fs::read_to_string(sandbox.file("taken.txt")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("taken by ")?.parse::<u32>().ok())
    });
    assert_holder(&sandbox, taken);
    assert_nothing_is_left(&sandbox, "at the end");
    kill(taken, Signal::TERM);
}
