//! The locks of a `run`, and the verbs inside its command.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{ID, LOCK, SCOPE, acquire, assert_has, code_of, hash_of, holder, locks, verb, waiters};
use crate::support::{HOLDING, LIMIT, Process, SOON, Sandbox, assert_within, bystander, rounds};

/// Inside a `run` the verbs act for it, and what they acquire ends with it.
#[test]
fn verbs_in_the_command_act_for_the_run() {
    let sandbox = Sandbox::new();
    let script = format!(
        "incumbent lock verify {SCOPE} {ID} > /dev/null; echo \"verify $?\"
         incumbent lock renew {SCOPE} {ID} > /dev/null; echo \"renew $?\"
         incumbent lock acquire {SCOPE} more > /dev/null; echo \"acquire $?\"
         (incumbent lock verify {SCOPE} more > /dev/null); echo \"verify $?\"
         exec cat"
    );
    let arguments = ["run", "--no-backoff", LOCK, "--", "/bin/sh", "-c", &script];
    let mut run = Process::start(sandbox.incumbent(arguments));
    assert_eq!(run.line(), "verify 0");
    assert_eq!(run.line(), "renew 0");
    assert_eq!(run.line(), "acquire 0");
    assert_eq!(run.line(), "verify 0");
    let held = locks(&sandbox);
    assert_eq!(held.len(), 2, "{held:#?}");
    let instance = sandbox.status().1["instance"].clone();
    for lock in &held {
        assert_eq!(lock["pid"], run.pid(), "{lock:#}");
        assert_eq!(lock["instance"], instance, "{lock:#}");
    }
    assert_eq!(sandbox.status().1["locks"].as_array().unwrap().len(), 2);
    assert_eq!(sandbox.keepers(), [] as [u32; 0]);
    run.finish(LIMIT).assert_code(0);
    assert_eq!(locks(&sandbox).len(), 0);
}

/// A lock that the command lets go is let go: the run goes on without it.
#[test]
fn a_lock_released_by_the_command_does_not_end_it() {
    let sandbox = Sandbox::new();
    // Not a synchronisation: the time in which a run that took this for a loss would end it.
    let script = format!(
        "incumbent lock release {SCOPE} {ID} > /dev/null; echo \"released $?\"
         sleep 1.5
         incumbent lock release --all; echo \"still here\""
    );
    let arguments = ["run", "--no-backoff", LOCK, "--lock", "port=80", "--", "sh", "-c", &script];
    let answer = sandbox.cli(arguments).assert_code(0);
    assert_eq!((answer.out.as_str(), answer.err.as_str()), ("released 0\n1\nstill here\n", ""));
}

/// All or none: with one lock held by another one, the command never starts, and nothing of it is
/// held: not the office, not the other locks.
#[test]
fn a_run_has_all_its_locks_or_does_not_start() {
    let sandbox = Sandbox::new();
    let script = holder(&sandbox, &[]);
    let start = |options: &[&str]| {
        let mut command = sandbox.incumbent(["run", "--no-backoff"]);
        command.args(options).args(["--", "touch", "started"]).env("IT_BOT_TOKEN", ID);
        Process::start(command).finish(LIMIT)
    };
    let by_env = format!("--lock-env={SCOPE}=IT_BOT_TOKEN");
    let named =
        format!("{SCOPE}/{} is held by profile default, pid {} (", hash_of(ID), script.pid());
    for lock in [LOCK, &by_env] {
        for locks_of_run in [&[lock][..], &["--lock=port=80", lock], &[lock, "--lock=port=80"]] {
            let answer = start(locks_of_run).assert_code(75);
            assert_eq!(answer.out, "");
            answer.assert_complains(&["incumbent: run: ", &named, "try:"]);
            let told = start(&[locks_of_run, &["-E", "99", "--json"]].concat()).assert_code(99);
            let document = told.json();
            assert_eq!(document["granted"], false, "{document:#}");
            assert_eq!(document["holder"]["pid"], script.pid(), "{document:#}");
        }
    }
    assert!(!sandbox.file("started").exists());
    assert_eq!(sandbox.status().1["reason"], "never_claimed");
    assert_eq!(locks(&sandbox).len(), 1);
    let pid = script.pid();
    assert_eq!(code_of(verb(&sandbox, "release", pid, &[])), 0);
    start(&["--lock=port=80", &by_env]).assert_code(0);
    assert!(sandbox.file("started").exists());
    assert_eq!(locks(&sandbox).len(), 0);
}

#[test]
fn a_runs_locks_are_visible_and_free_after_a_kill() {
    let sandbox = Sandbox::new();
    let other = bystander(&sandbox);
    let mut last_fence = 0;
    for round in 1..=rounds(20, 500) {
        let metadata = r#"{"bot":"@weather"}"#;
        let mut run = sandbox.hold(&[LOCK, "--lock", "port=80", "--metadata", metadata]);
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        let of_run = status["locks"].as_array().unwrap();
        let held = locks(&sandbox);
        for (at, scope, identity) in [(0, "port", "80"), (1, SCOPE, ID)] {
            let lock = &of_run[at];
            assert_has(lock, &["scope", "identity_hash", "fence", "acquired_at", "metadata"]);
            assert_eq!(lock["scope"], scope, "{status:#}");
            assert_eq!(lock["identity_hash"], hash_of(identity), "{status:#}");
            assert_eq!(lock["metadata"], json!({"bot": "@weather"}), "{status:#}");
            assert_eq!(held[at]["scope"], scope, "{held:#?}");
            assert_eq!(held[at]["fence"], lock["fence"], "{held:#?}");
            assert_eq!(held[at]["pid"], run.pid(), "{held:#?}");
            assert_eq!(held[at]["instance"], status["instance"], "{held:#?}");
            assert_eq!(held[at]["metadata"], json!({"bot": "@weather"}), "{held:#?}");
        }
        run.kill();
        let (code, answer) = acquire(&sandbox, &other, &[]);
        assert_eq!(code, 0, "round {round}: {answer:#}");
        assert_eq!(answer["evicted"]["pid"], run.pid(), "round {round}: {answer:#}");
        let fence = answer["fence"].as_i64().unwrap();
        assert!(fence > of_run[1]["fence"].as_i64().unwrap().max(last_fence), "{answer:#}");
        last_fence = fence;
        assert!(run.command.is_gone(), "round {round}: the command still acts");
        assert_eq!(code_of(verb(&sandbox, "release", other.pid(), &[])), 0);
    }
}

#[test]
fn a_run_waits_for_its_locks_and_then_owns_all() {
    let sandbox = Sandbox::new();
    let script = holder(&sandbox, &[]);
    let options = ["run", "--no-backoff", "--wait", LOCK, "--lock=port=80"];
    let mut run = Process::start(sandbox.incumbent([&options[..], HOLDING].concat()));
    sandbox.wait_for_waiters(1);
    let waiting = locks(&sandbox);
    assert_eq!(waiting.len(), 1, "it holds nothing while it waits: {waiting:#?}");
    assert_eq!(waiting[0]["waiters"][0]["pid"], run.pid(), "{waiting:#?}");
    assert_eq!(sandbox.status().1["reason"], "never_claimed");
    assert_eq!(code_of(verb(&sandbox, "release", script.pid(), &[])), 0);
    let released = Instant::now();
    run.line();
    assert_within(SOON, released.elapsed(), "the grant after the release");
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], run.pid());
    let held = locks(&sandbox);
    assert_eq!(held.len(), 2, "{held:#?}");
    assert!(held.iter().all(|lock| lock["pid"] == run.pid()), "{held:#?}");
    assert_eq!(waiters(&sandbox), 0);
    run.finish(LIMIT).assert_code(0);
}

/// FIELD-BUGS rows 44 and 67: a cloned profile carries the same token. The second one is refused,
/// by name, and the first one lives.
#[test]
fn of_two_profiles_with_one_token_the_second_is_refused() {
    let sandbox = Sandbox::new();
    let first = sandbox.hold(&[LOCK, "--profile", "home"]);
    for _ in 0..3 {
        let options = ["run", "--no-backoff", LOCK, "--profile", "work", "--", "true"];
        let refused = sandbox.cli(options).assert_code(75);
        let named = format!("is held by profile home, pid {} (", first.pid());
        refused.assert_complains(&[&named, "which is alive"]);
    }
    assert_eq!(sandbox.json(["status", "--profile", "work"]).0, 3);
    assert_eq!(sandbox.json(["status", "--profile", "home"]).0, 0);
    let held = &locks(&sandbox)[0];
    assert_eq!(held["conflicts"].as_array().unwrap().len(), 1, "{held:#}");
    assert_eq!(held["conflicts"][0]["profile"], "work", "{held:#}");
    assert_eq!(held["conflicts"][0]["count"], 3, "{held:#}");
    first.end().assert_code(0);
}

/// Without its lock a run is not wanted: it ends its command and says why.
#[test]
fn a_run_whose_lock_is_taken_away_ends_its_command() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[LOCK, "--lock=port=80"]);
    let command = run.command;
    let unlocked = sandbox.cli(["unlock", "port", "80", "--force"]).assert_code(0);
    assert_eq!(unlocked.err, "");
    let unlocked = Instant::now();
    let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(75);
    assert_within(SOON, unlocked.elapsed(), "the end of the run");
    assert!(command.is_gone());
    answer.assert_complains(&[
        "was lost",
        &format!("port/{}", hash_of("80")),
        "evicted by",
        "unlock --force",
        "ending the command",
    ]);
    assert_eq!(locks(&sandbox).len(), 0);
    assert_eq!(sandbox.status().0, 3);
}

fn run_of_party(sandbox: &Sandbox, party: &str) -> Process {
    let mut command = sandbox.incumbent([&["run", LOCK], HOLDING].concat());
    command.env("INCUMBENT_PARTY", party);
    Process::start(command)
}

/// FIELD-BUGS row 46: whoever is refused for the sake of a lock, again and again, is slowed down;
/// and nobody is kept out of a lock that is free.
#[test]
fn a_storm_for_a_lock_is_slowed_down_until_the_lock_is_free() {
    let sandbox = Sandbox::new();
    let script = holder(&sandbox, &[]);
    for number in 1..=6 {
        let answer = run_of_party(&sandbox, "red").finish(LIMIT).assert_code(75);
        assert!(!answer.err.contains("waiting"), "start {number}: {answer:#?}");
    }
    let began = Instant::now();
    let mut seventh = run_of_party(&sandbox, "red");
    let told = seventh.err_line_with("failed starts in a row");
    assert!(told.contains("6 failed starts in a row"), "{told}");
    let blue = run_of_party(&sandbox, "blue").finish(LIMIT).assert_code(75);
    assert!(!blue.err.contains("waiting"), "{blue:#?}");
    assert_eq!(sandbox.status().0, 3, "it holds no office while it waits");
    assert_eq!(code_of(verb(&sandbox, "release", script.pid(), &[])), 0);
    seventh.line();
    // The backoff lasts 5 s.
    let took = began.elapsed();
    assert_within(Duration::from_millis(4_500), took, "the start");
    assert_eq!(locks(&sandbox)[0]["pid"], seventh.pid());
    seventh.finish(LIMIT).assert_code(0);
}

pub fn waiter(sandbox: &Sandbox, process: &Process, options: &[&str]) -> Process {
    Process::start(verb(sandbox, "acquire", process.pid(), options))
}
