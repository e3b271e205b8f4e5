//! What the supervisor is told: exit codes, signals, the history.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{POLITE, reloaded, stranger};
use crate::support::{LIMIT, Process, Run, Sandbox, kill, pid_namespace, rounds, skipped};

/// FIELD-BUGS rows 46, 54 and 55.
///
/// Symptom: exit 0 after TERM: never revived. Exit 1: "failed". There is no code that is right
/// everywhere: the table has a column for each supervisor, and the cause is a fact of its own.
#[test]
fn the_exit_code_tells_the_supervisor_what_it_needs_to_know() {
    let sandbox = Sandbox::new();
    std::thread::scope(|scope| {
        for (supervisor, by_its_own, by_a_stranger) in [
            ("systemd", 0, 143),
            ("launchd", 0, 143),
            ("s6", 0, 143),
            ("docker", 7, 143),
            ("none", 7, 0),
        ] {
            let sandbox = &sandbox;
            scope.spawn(move || {
                let options = ["--profile", supervisor, "--supervisor", supervisor];
                let end = || {
                    let (_, history) = sandbox.json(["history", "--profile", supervisor]);
                    history[0]["end_reason"].as_str().unwrap().to_owned()
                };
                let run = sandbox.polite("7", &options);
                sandbox.cli(["stop", "--profile", supervisor]).assert_code(0);
                run.ended().assert_code(0);
                assert_eq!(end(), "planned_stop");

                let run = sandbox.polite("7", &options);
                run.process.signal(Signal::TERM);
                let answer = run.ended();
                assert_eq!(answer.code(), by_its_own, "{supervisor}: {answer:#?}");
                assert_eq!(end(), "signalled");

                for (own, told) in [("0", by_a_stranger), ("7", 7)] {
                    let run = sandbox.polite(own, &options);
                    stranger(sandbox, "TERM", run.pid());
                    let answer = run.ended();
                    assert_eq!(answer.code(), told, "{supervisor}, {own}: {answer:#?}");
                    assert_eq!(end(), "signalled");
                }

                let run = sandbox.patient(&options);
                let refused =
                    sandbox.cli([&["run", "--no-backoff"], &options[..], &["--", "true"]].concat());
                refused.assert_code(75);
                run.let_end();
                run.ended().assert_code(7);

                let run = sandbox.polite("7", &options);
                let replace = [&["run", "--no-backoff", "--replace"], &options[..]].concat();
                sandbox.cli([&replace[..], &["--", "true"]].concat()).assert_code(0);
                run.ended().assert_code(0);
                assert_eq!(
                    sandbox.json(["history", "--profile", supervisor]).1[1]["end_reason"],
                    "taken_over"
                );
            });
        }
    });
}

/// FIELD-BUGS row 54. Symptom: `systemctl stop` left the unit "failed". A standby, and one that
/// sits out a backoff, is stopped by its supervisor like one that runs.
#[test]
fn a_standby_that_its_supervisor_stops_has_not_failed() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    for (supervisor, by_its_own, by_a_stranger) in
        [("systemd", 0, 143), ("launchd", 0, 143), ("s6", 0, 143), ("none", 143, 143)]
    {
        for is_own in [true, false] {
            let wait = ["run", "--no-backoff", "--wait", "--supervisor", supervisor, "--", "true"];
            let waiter = sandbox.begin(&wait);
            sandbox.wait_for_waiters(1);
            if is_own {
                waiter.signal(Signal::TERM);
            } else {
                stranger(&sandbox, "TERM", waiter.pid());
            }
            let answer = waiter.finish_with_stdin_open(LIMIT);
            let expected = if is_own { by_its_own } else { by_a_stranger };
            assert_eq!(answer.code(), expected, "{supervisor}, its own: {is_own}: {answer:#?}");
        }
    }

    let start = || {
        let mut command = sandbox.incumbent(["run", "--supervisor", "systemd", "--", "true"]);
        command.env("INCUMBENT_PARTY", "unlucky");
        Process::start(command)
    };
    for _ in 0..6 {
        start().finish(LIMIT).assert_code(75);
    }
    for (is_own, code) in [(true, 0), (false, 143)] {
        let mut waiter = start();
        waiter.err_line_with("failed starts in a row");
        if is_own {
            waiter.signal(Signal::TERM);
        } else {
            stranger(&sandbox, "TERM", waiter.pid());
        }
        waiter.finish_with_stdin_open(LIMIT).assert_code(code);
    }
    run.end().assert_code(0);
}

/// Not every signal ends a gateway. How it ends later has nothing to do with a reload of long ago.
#[test]
fn a_reload_is_no_stop() {
    let sandbox = Sandbox::new();
    let run = reloaded(&sandbox, &["--supervisor", "systemd"]);
    run.let_end();
    run.ended().assert_code(7);
    let end = sandbox.history().swap_remove(0);
    assert_eq!(end["end_reason"], "exited", "{end:#}");
    assert!(end["ended_by"].is_null(), "{end:#}");
}

/// Whoever was told to reload still has to be told to end.
#[test]
fn after_a_reload_a_marker_alone_stops_a_run() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let mut run = reloaded(&sandbox, &[]);
    let stop = sandbox.in_namespace(namespace, "incumbent stop --timeout 1min; exit $?");
    assert_eq!(run.process.line(), "TERM");
    run.let_end();
    stop.finish(LIMIT).assert_code(0);
    run.ended().assert_code(0);
}

#[test]
fn a_cause_may_have_a_code_of_its_own() {
    let sandbox = Sandbox::new();
    let stopped = |options: &[&str]| {
        let run = sandbox.polite("7", options);
        sandbox.cli(["stop"]).assert_code(0);
        run.ended().code()
    };
    assert_eq!(stopped(&["--exit-code", "planned_stop=3"]), 3);
    assert_eq!(stopped(&["--exit-code", "planned_stop=own"]), 7);
    // The last word counts.
    assert_eq!(stopped(&["--exit-code", "planned_stop=3", "--exit-code", "planned_stop=4"]), 4);
    assert_eq!(stopped(&["--exit-code", "signalled=3", "--supervisor", "systemd"]), 0);
    let exited = ["run", "--exit-code", "exited=33", "--", "/bin/sh", "-c", "exit 5"];
    sandbox.cli(exited).assert_code(33);

    let run = sandbox.hold(&[]);
    for (options, code) in [
        (&["-E", "9"][..], 9),
        (&["-E", "0"], 0),
        (&["--exit-code", "refused=8"], 8),
        (&["--supervisor", "docker", "-E", "200"], 200),
    ] {
        let refused = [&["run", "--no-backoff"], options, &["--", "true"]].concat();
        sandbox.cli(refused).assert_code(code);
    }
    run.end().assert_code(0);
}

#[test]
fn what_is_no_exit_code_is_a_usage_error() {
    let sandbox = Sandbox::new();
    for (option, value, words) in [
        ("--exit-code", "planned_stop", "CAUSE=CODE"),
        ("--exit-code", "planned_stop=", "not a valid exit code"),
        ("--exit-code", "planned_stop=256", "from 0 to 255"),
        ("--exit-code", "planned_stop=-1", "from 0 to 255"),
        ("--exit-code", "planned_stop=zero", "from 0 to 255"),
        ("--exit-code", "stopped=1", "planned_stop"),
        ("--exit-code", "=1", "planned_stop"),
        ("--supervisor", "cron", "systemd"),
        ("--supervisor", "", "systemd"),
        ("-E", "256", "256"),
        ("-E", "-1", "-1"),
    ] {
        let answer = sandbox.cli(["run", &format!("{option}={value}"), "--", "echo", "started"]);
        let answer = answer.assert_code(2);
        assert_eq!(answer.out, "", "{option} {value}");
        assert!(answer.err.contains(words), "{option} {value}: {answer:#?}");
    }
    assert!(!sandbox.file("store").exists());
}

/// FIELD-BUGS row 86. Symptom: a terminal on a desktop was taken for a service, because everything
/// that descends from one has its `INVOCATION_ID`.
#[test]
fn a_shell_in_a_service_is_not_the_service() {
    let sandbox = Sandbox::new();
    let command = ["run", "--no-backoff", "--", "/bin/sh", "-c", POLITE, "sh", "0"];
    let mut command = sandbox.incumbent(command);
    command.env("INVOCATION_ID", "0123456789abcdef0123456789abcdef");
    command.env("JOURNAL_STREAM", "8:12345").env("SYSTEMD_EXEC_PID", "1");
    let run = Run::start(command);
    stranger(&sandbox, "TERM", run.pid());
    // The table of no supervisor: its own code. systemd would be told 143.
    run.ended().assert_code(0);
}

/// Symptom: a marker lived for 60 s, and the drain of the gateway for 90: at its end nobody knew
/// any more that it had been stopped on purpose. It holds because the marker of a request outlives
/// the time that its target said it may take. In the long form the drain takes its 90 s.
#[test]
fn a_marker_is_still_there_at_the_end_of_a_drain() {
    let drain = rounds(2, 90);
    let patience = Duration::from_secs(drain as u64) + LIMIT;
    let sandbox = Sandbox::new();
    let script = format!(
        "trap 'echo TERM; sleep {drain}; incumbent --json marker consume; exit 0' TERM
         echo $$
         while :; do sleep 0.05; done"
    );
    let budget = format!("{}s", drain + 30);
    let options = ["run", "--no-backoff", "--stop-budget", &budget, "--", "/bin/sh", "-c", &script];
    let run = Run::start(sandbox.incumbent(options));
    let stop = sandbox.begin(&["stop", "--reason", "upgrade"]);
    let stop = stop.finish(patience).assert_code(0);
    assert!(stop.out.contains("has ended"), "{stop:#?}");
    let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(0);
    let consumed = answer.out.split_once("TERM\n").unwrap().1;
    let consumed: Value = serde_json::from_str(consumed).unwrap();
    assert_eq!(consumed["name"], "planned_stop", "{consumed:#}");
    assert_eq!(consumed["reason"], "upgrade", "{consumed:#}");
    assert_eq!(consumed["recorded"], true, "{consumed:#}");
    let (_, history) = sandbox.json(["history"]);
    assert_eq!(history[0]["end_reason"], "planned_stop", "{history:#}");
}

/// Symptom: the gateway died of a kill, and the history said that a TERM had ended it.
#[test]
fn the_history_names_the_signal_that_ended_it() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    sandbox.cli(["stop", "--force", "--timeout", "300ms"]).assert_code(0);
    assert_eq!(run.process.line(), "TERM");
    run.ended().assert_code(0);
    let end = sandbox.history().swap_remove(0);
    assert_eq!(
        (&end["end_reason"], &end["signal"]),
        (&json!("planned_stop"), &json!(9)),
        "{end:#}"
    );
}

/// An owner that lets go of its office and goes on working is not said to have ended.
#[test]
fn who_lets_go_and_goes_on_is_said_to_go_on() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.linked_owner(90_000);
    let stop = sandbox.begin(&["stop"]);
    owner.err_line_with("TERM: planned_stop");
    // Evicted: the office is not its own any more, and it runs.
    sandbox.cli(["evict", "--force"]).assert_code(0);
    let stop = stop.finish(LIMIT).assert_code(0);
    assert!(stop.out.contains("keeps running"), "{stop:#?}");
    assert!(!owner.has_ended());
}

/// Symptom: somebody stopped the gateway, gave up waiting, and what the OOM killer did to it a
/// moment later was told as a planned stop, with an exit code that no supervisor starts again for.
#[test]
fn a_kill_after_a_stop_that_gave_up_is_no_planned_stop() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&["--supervisor", "systemd"]);
    sandbox.cli(["stop", "--timeout", "300ms"]).assert_code(1);
    assert_eq!(run.process.line(), "TERM");
    run.let_time_pass(Duration::from_millis(300));
    kill(run.command.pid, Signal::KILL);
    run.ended().assert_code(137);
    let end = sandbox.history().swap_remove(0);
    assert_eq!((&end["end_reason"], &end["signal"]), (&json!("signalled"), &json!(9)), "{end:#}");
    assert!(end["detail"].as_str().unwrap().contains("was abandoned"), "{end:#}");
}

/// Another home's gateway is nobody's to stop or restart from here.
#[test]
fn a_gateway_of_another_home_is_not_stopped() {
    let sandbox = Sandbox::new();
    for home in ["one", "two"] {
        std::fs::create_dir(sandbox.file(home)).unwrap();
    }
    let [one, two] = ["one", "two"].map(|home| sandbox.file(home).display().to_string());
    let run = sandbox.polite("0", &["--home", &one]);
    for verb in ["stop", "restart"] {
        let answer = sandbox.cli(["--home", &two, verb]).assert_code(78);
        answer.assert_complains(&["belongs to the home"]);
    }
    assert!(!run.command.is_gone());
    sandbox.cli(["--home", &one, "stop"]).assert_code(0);
    run.ended().assert_code(0);
}
