//! Owners that are starting, and starts that were cut short.

use rustix::process::Signal;
use serde_json::json;

use super::{obey, obeying, say};
use crate::stop::stranger;
use crate::support::{LIMIT, Run, Sandbox, bystander, unix_ms};

/// FIELD-BUGS row 23.
///
/// Symptom: a slow but healthy start was killed as stale, again and again. It holds because whoever
/// comes is told that it is starting, and since when; and starting is as good a reason as any to
/// leave it alone.
#[test]
fn a_contender_is_told_that_the_holder_is_starting() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    let script = bystander(&sandbox);
    let pid = script.pid().to_string();
    let verbs = [&["run", "--no-backoff", "--", "true"][..], &["claim", "--pid", &pid]];
    for (state, words) in [
        ("starting", Some("it has been starting for ")),
        ("draining", Some("it has been draining for ")),
        ("running", None),
        ("warming up", None),
    ] {
        say(&sandbox, &mut run, &["--state", state]);
        for verb in verbs {
            let answer = sandbox.cli(verb).assert_code(75);
            match words {
                Some(words) => drop(answer.assert_complains(&["is alive", words, " s"])),
                None => assert!(!answer.err.contains("it has been"), "{answer:#?}"),
            }
            let (code, answer) = sandbox.json(verb);
            assert_eq!((code, &answer["holder"]["state"]), (75, &json!(state)), "{answer:#}");
        }
    }
    // Since when, by what was said; not since the last time that it was said.
    say(&sandbox, &mut run, &["--state", "starting"]);
    let ago = unix_ms() - 421_000;
    sandbox.forge(&format!("UPDATE runtime_status SET state_since_at_ms = {ago}"));
    say(&sandbox, &mut run, &["--state", "starting", "--active-agents", "0"]);
    let answer = sandbox.cli(verbs[0]).assert_code(75);
    let seconds = answer.err.split("starting for ").nth(1).unwrap().split(' ').next().unwrap();
    let seconds: u64 = seconds.parse().unwrap();
    assert!((421..480).contains(&seconds), "{answer:#?}");
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], run.pid());
    run.end().assert_code(0);
}

/// FIELD-BUGS row 55.
///
/// Symptom: a gateway that was ended by TERM while it started exited with 0, and s6 kept it down
/// for four and a half hours. It holds because who never served has not ended well: its exit code
/// asks for another start, unless somebody announced the stop.
#[test]
fn a_start_that_was_cut_short_is_told_from_an_end() {
    let sandbox = Sandbox::new();
    std::thread::scope(|scope| {
        for (supervisor, if_running) in
            [("systemd", 143), ("launchd", 143), ("s6", 143), ("docker", 143), ("none", 143)]
        {
            let sandbox = &sandbox;
            scope.spawn(move || {
                let options = ["--profile", supervisor, "--supervisor", supervisor];
                let last = || sandbox.json(["history", "--profile", supervisor]).1[0].clone();
                let tell = |run: &mut Run, words: &str| {
                    assert_eq!(obey(run, &format!("incumbent status-set {words} > /dev/null")), 0);
                };
                let mut run = obeying(sandbox, &options);
                tell(&mut run, "--state starting");
                stranger(sandbox, "TERM", run.pid());
                run.process.finish_with_stdin_open(LIMIT).assert_code(75);
                let end = last();
                assert_eq!(end["end_reason"], "signalled", "{supervisor}: {end:#}");
                let detail = end["detail"].as_str().unwrap_or_default();
                assert!(detail.contains("while it was starting"), "{supervisor}: {end:#}");

                // One that had come up, or takes it back, or said nothing at all.
                for words in ["--state running", "--clear state", ""] {
                    let mut run = obeying(sandbox, &options);
                    if !words.is_empty() {
                        tell(&mut run, "--state starting");
                        tell(&mut run, words);
                    }
                    stranger(sandbox, "TERM", run.pid());
                    run.process.finish_with_stdin_open(LIMIT).assert_code(if_running);
                    let end = last();
                    let detail = end["detail"].as_str().unwrap_or_default();
                    assert!(!detail.contains("starting"), "{supervisor}: {words:?}: {end:#}");
                }

                // Announced is announced.
                let mut run = obeying(sandbox, &options);
                tell(&mut run, "--state starting");
                sandbox.cli(["stop", "--profile", supervisor]).assert_code(0);
                run.process.finish_with_stdin_open(LIMIT).assert_code(0);
                let end = last();
                assert_eq!(end["end_reason"], "planned_stop", "{supervisor}: {end:#}");
                let detail = end["detail"].as_str().unwrap_or_default();
                assert!(detail.contains("while it was starting"), "{supervisor}: {end:#}");
            });
        }
    });
}

/// What the supervisor reads is a person's to choose; and an end of its own is its own.
#[test]
fn other_ends_while_starting() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &["--exit-code", "start_interrupted=99"]);
    say(&sandbox, &mut run, &["--state", "starting"]);
    stranger(&sandbox, "TERM", run.pid());
    run.process.finish_with_stdin_open(LIMIT).assert_code(99);

    let mut run = obeying(&sandbox, &[]);
    say(&sandbox, &mut run, &["--state", "starting"]);
    run.process.say("exit 5");
    run.process.finish_with_stdin_open(LIMIT).assert_code(5);
    let end = &sandbox.history()[0];
    assert_eq!(end["end_reason"], "exited", "{end:#}");
    assert!(end["detail"].as_str().unwrap().contains("while it was starting"), "{end:#}");

    // Its own supervisor wanted it: that is on record, and no failure.
    let mut run = obeying(&sandbox, &["--supervisor", "systemd"]);
    say(&sandbox, &mut run, &["--state", "starting"]);
    run.process.signal(Signal::TERM);
    run.process.finish_with_stdin_open(LIMIT).assert_code(0);
    let end = &sandbox.history()[0];
    assert_eq!(end["end_reason"], "signalled", "{end:#}");
    assert!(end["detail"].as_str().unwrap().contains("while it was starting"), "{end:#}");

    // Killed: whoever comes next records it.
    let mut run = obeying(&sandbox, &[]);
    say(&sandbox, &mut run, &["--state", "starting"]);
    let command = run.command;
    run.kill();
    command.wait_gone(LIMIT);
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    let end = &sandbox.history()[1];
    assert_eq!(end["end_reason"], "anchor_released", "{end:#}");
    assert!(end["detail"].as_str().unwrap().contains("while it was starting"), "{end:#}");
}
