//! `signal`: to the command alone, once, and only with proof.

use serde_json::json;

use super::{obey, obeying};
use crate::support::{LIMIT, Run, Sandbox, sleeper};

/// Says each HUP and each USR1, and ends at its first TERM.
const TALKATIVE: &str = "
    trap 'echo HUP' HUP; trap 'echo USR1' USR1; trap 'kill -KILL $sleeper; exit 0' TERM
    sleep 1000 > /dev/null 2>&1 &
    sleeper=$!
    echo $$
    while :; do wait $sleeper; done";

#[test]
fn the_command_of_a_run_gets_it_once() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold_with(&["/bin/sh", "-c", TALKATIVE]);
    let command = run.command.pid;
    for (word, name) in [("HUP", "HUP"), ("SIGUSR1", "USR1"), ("hup", "HUP"), ("10", "USR1")] {
        let said = sandbox.cli(["signal", word]).assert_code(0).out;
        assert_eq!(said, format!("default/gateway: SIG{name} sent to pid {command}\n"));
        // Each line is the next one: none came twice.
        assert_eq!(run.process.line(), name);
    }
    let (code, document) = sandbox.json(["signal", "HUP"]);
    assert_eq!((code, &document["sent"]), (0, &json!(true)), "{document:#}");
    assert_eq!((&document["pid"], &document["signal"]), (&json!(command), &json!("SIGHUP")));
    assert_eq!(run.process.line(), "HUP");
    let (_, events) = sandbox.json(["events"]);
    let sent: Vec<_> =
        events.as_array().unwrap().iter().filter(|it| it["event"] == "signal_sent").collect();
    assert_eq!(sent.len(), 5, "{events:#}");
    assert_eq!(sent[0]["detail"]["signal"], "SIGHUP");
    assert!(sent[0]["detail"]["by"].as_str().unwrap().starts_with("incumbent signal (pid "));
    sandbox.cli(["stop"]).assert_code(0);
    run.process.finish(LIMIT).assert_code(0);
    sandbox.cli(["signal", "HUP"]).assert_code(3);
}

/// A stop says that it is one, and this does not.
#[test]
fn what_ends_a_gateway_is_refused() {
    let sandbox = Sandbox::new();
    // Also where there is no store.
    for word in ["TERM", "INT", "QUIT", "KILL", "STOP", "15", "SIGKILL", "TSTP"] {
        let answer = sandbox.cli(["signal", word]).assert_code(2);
        answer.assert_complains(&["is not sent", "`incumbent stop`"]);
    }
    assert!(!sandbox.db().exists());
    let mut run = sandbox.hold(&[]);
    for word in ["TERM", "KILL", "STOP"] {
        sandbox.cli(["signal", word]).assert_code(2).assert_complains(&["`incumbent stop`"]);
    }
    sandbox.cli(["signal", "NONSENSE"]).assert_code(2);
    assert!(run.process.echoes(), "it got none of them");
    run.end().assert_code(0);
}

/// FIELD-BUGS row 17: another process has the pid on record by now. And whoever asks from inside is
/// not signalled through its own ancestors.
#[test]
fn nobody_is_signalled_without_proof() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    assert_eq!(obey(&mut run, "incumbent signal USR1 2> said"), 1);
    let said = std::fs::read_to_string(sandbox.file("said")).unwrap();
    assert!(said.contains("this process was started by it"), "{said}");
    let mut stranger = sleeper(&sandbox);
    let forged = format!("UPDATE instances SET child_pid = {}", stranger.pid());
    assert_eq!(sandbox.forge(&forged), 1);
    let (code, document) = sandbox.json(["signal", "USR1"]);
    assert_eq!((code, &document["sent"]), (1, &json!(false)), "{document:#}");
    assert!(!stranger.has_ended(), "USR1 would have ended it");
    run.end();
}

/// A record of `claim` has no command: the process itself gets it.
#[test]
fn a_recorded_process_gets_it_itself() {
    let sandbox = Sandbox::new();
    let mut script = Run::start(sandbox.shell(TALKATIVE));
    let pid = script.pid().to_string();
    sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
    sandbox.cli(["signal", "USR1"]).assert_code(0);
    assert_eq!(script.process.line(), "USR1");
    script.kill();
}

/// Symptom: `signal USR1` ended a gateway that knew nothing of that signal, and the end was told as
/// a crash. It holds because the kernel is asked first what the process does about it.
#[test]
fn what_would_end_the_gateway_is_not_sent() {
    let sandbox = Sandbox::new();
    let script = "trap 'echo HUP' HUP; trap '' USR2; echo $$; while :; do read -r line; done";
    let mut run = sandbox.hold_with(&["/bin/sh", "-c", script]);
    let who = format!("pid {} does not handle it", run.command.pid);
    for word in ["USR1", "ALRM", "PIPE"] {
        let told = sandbox.cli(["signal", word]).assert_code(1);
        told.assert_complains(&["was not sent", &who, "`incumbent stop "]);
    }
    let (code, document) = sandbox.json(["signal", "USR1"]);
    assert_eq!((code, &document["sent"]), (1, &json!(false)), "{document:#}");
    assert_eq!(document["holder"]["pid"], run.pid(), "{document:#}");
    // What it handles, what it ignores, and what ends nobody.
    for word in ["HUP", "USR2", "WINCH", "CONT", "URG"] {
        sandbox.cli(["signal", word]).assert_code(0);
    }
    assert_eq!(run.process.line(), "HUP");
    assert_eq!(sandbox.number("SELECT count(*) FROM events WHERE event = 'signal_sent'"), 5);
    assert!(!run.command.is_gone());
    drop(run);
}
