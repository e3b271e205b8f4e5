//! Processes that want what others have, and parties that start again and again.

use super::Diagnosis;
use crate::support::{HOLDING, LIMIT, Process, Sandbox};

/// FIELD-BUGS row 67: a cloned profile carries the token of the first, and a contender in a loop is
/// one finding with a count.
#[test]
fn tokens_of_two_profiles_and_refusals_are_counted() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&["--lock", "token=a-secret-of-mine"]);
    let script = "for n in $(seq 100); do
            incumbent --profile clone run --no-backoff --lock token=a-secret-of-mine -- true
        done 2> /dev/null; exit 0";
    let mut clone = sandbox.shell(script);
    clone.env("INCUMBENT_PARTY", "red");
    Process::start(clone).finish(LIMIT * 2).assert_code(0);
    let answer = Process::start(sandbox.doctor_command(&[])).finish(LIMIT);
    assert!(!answer.out.contains("a-secret-of-mine"), "{answer:#?}");
    let diagnosis = Diagnosis::of(&answer);
    let words = ["2 profiles", "clone, default", "default holds it now"];
    diagnosis.assert("duplicate_tokens", "warning", &words);
    let words = ["100 times", "of profile clone", "the supervisor red"];
    let finding = diagnosis.assert("conflicts", "info", &words);
    diagnosis.assert(
        "storms",
        "warning",
        &["clone/gateway was refused to the supervisor red", "times in a row"],
    );
    diagnosis.assert_only(&["duplicate_tokens", "storms"]);
    sandbox.try_remedy(finding, "incumbent status --all").assert_code(0);
    run.end().assert_code(0);

    // Older than a day, and older than a week: what is over needs nobody.
    sandbox.batch(
        "UPDATE lock_conflicts SET first_at_ms = first_at_ms - 90000000, last_at_ms = last_at_ms \
        - 90000000; UPDATE starts SET counted = 0",
    );
    sandbox.doctor().assert("conflicts", "info", &["100 times"]);
    let diagnosis = sandbox.doctor();
    diagnosis.assert("duplicate_tokens", "info", &["nobody holds it now"]);
    diagnosis.assert_only(&[]);
    sandbox.batch(
        "UPDATE lock_conflicts SET last_at_ms = last_at_ms - 900000000;
         UPDATE events SET at_ms = at_ms - 900000000",
    );
    let diagnosis = sandbox.doctor();
    diagnosis.assert_silent("duplicate_tokens");
    diagnosis.assert_silent("conflicts");
}

/// Symptom: a clone that waits for its token, for days, was nowhere to be seen.
#[test]
fn a_clone_that_waits_for_the_token_is_named() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&["--lock", "token=mine"]);
    let wait = ["--profile", "clone", "run", "--no-backoff", "--wait", "--lock", "token=mine"];
    let mut waiter = Process::start(sandbox.incumbent([&wait[..], HOLDING].concat()));
    sandbox.wait_for_waiters(1);
    let diagnosis = sandbox.doctor();
    let words = ["2 profiles", "clone, default", "default holds it now"];
    diagnosis.assert("duplicate_tokens", "warning", &words);
    diagnosis.assert_silent("conflicts");
    diagnosis.assert_only(&["duplicate_tokens"]);
    waiter.kill();
    sandbox.doctor().assert_silent("duplicate_tokens");
    run.end().assert_code(0);
}

/// Symptom: doctor exited with 1 for a day after the holder of a token had been killed which another
/// profile had wanted: its row was taken for a holder.
#[test]
fn the_dead_keep_nobody_from_a_token() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&["--profile", "home", "--lock", "token=mine"]);
    let start = ["--profile", "work", "run", "--no-backoff", "--lock", "token=mine", "--", "true"];
    sandbox.cli(start).assert_code(75);
    let words = ["home, work", "home holds it now"];
    sandbox.doctor().assert("duplicate_tokens", "warning", &words);
    run.kill();
    run.command.wait_gone(LIMIT);
    let diagnosis = sandbox.doctor();
    diagnosis.assert("duplicate_tokens", "info", &["home, work", "nobody holds it now"]);
    diagnosis.assert_only(&[]);
}

/// A token that moved from one profile to another is no clone: the probe stays silent.
#[test]
fn a_token_that_another_profile_uses_now_is_worth_knowing() {
    let sandbox = Sandbox::new();
    for profile in ["old", "new"] {
        let run = ["--profile", profile, "run", "--no-backoff", "--lock", "token=mine", "true"];
        sandbox.cli(run).assert_code(0);
    }
    let diagnosis = sandbox.doctor();
    diagnosis.assert("duplicate_tokens", "info", &["new, old", "nobody holds it now"]);
    diagnosis.assert_only(&[]);
}

/// FIELD-BUGS row 46.
#[test]
fn a_party_that_starts_again_and_again_is_named() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    for _ in 0..6 {
        let mut start = sandbox.incumbent(["run", "--no-backoff", "--", "true"]);
        start.env("INCUMBENT_PARTY", "red");
        Process::start(start).finish(LIMIT).assert_code(75);
    }
    let diagnosis = sandbox.doctor();
    let words = ["default/gateway", "the supervisor red", "6 times in a row"];
    let finding = diagnosis.assert("storms", "warning", &words);
    diagnosis.assert("conflicts", "info", &["default/gateway", "6 times"]);
    diagnosis.assert_only(&["storms"]);
    sandbox.try_remedy(finding, "incumbent history").assert_code(0);
    let of_another = sandbox.json(["--profile", "other", "doctor"]);
    assert_eq!(of_another.0, 0, "{of_another:#?}");
    run.end().assert_code(0);
}

#[test]
fn what_was_asked_and_what_is_wanted_is_told() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let pid = run.pid().to_string();
    sandbox.cli(["marker", "write", "drain", "--pid", &pid, "--reason", "soon"]).assert_code(0);
    sandbox.cli(["--profile", "work", "desired", "stopped"]).assert_code(0);
    let diagnosis = sandbox.doctor();
    diagnosis.assert(
        "open_markers",
        "info",
        &["drain for default/gateway", "soon", "counts until"],
    );
    let finding = diagnosis.assert("desired", "info", &["profile work is set to stay stopped"]);
    diagnosis.assert_only(&[]);
    sandbox.try_remedy(finding, "incumbent desired running").assert_code(0);
    sandbox.doctor().assert_silent("desired");
    run.end().assert_code(0);
    sandbox.doctor().assert_silent("open_markers");
}
