//! On whose record a snapshot is.

use rustix::process::Signal;
use serde_json::Value;

use super::gateway::{GATEWAY, ROLE_TEST, raise};
use crate::support::{LIMIT, Process, Sandbox, ask, kill};

/// The verb describes its own process, and leaves the row to the run that it is in, or to its
/// parent if that is on record, and else to nobody.
#[test]
fn the_verb_leaves_its_row_to_the_run_or_to_its_parent() {
    let sandbox = Sandbox::new();
    // Nobody's.
    sandbox.hold(&[]).end().assert_code(0);
    let snapshot = sandbox.forensic_snapshot(&["--signal", "TERM"]);
    let row = sandbox.newest_shutdown();
    assert_eq!(row["id"], snapshot["recorded"], "{row:#}");
    for column in ["instance_id", "profile", "kind", "sender_pid", "sender_uid"] {
        assert_eq!(row[column], Value::Null, "{column}: {row:#}");
    }
    assert_eq!(row["pid"], snapshot["pid"], "{row:#}");
    assert!(row["sender"].as_str().unwrap().contains("not caught by incumbent"), "{row:#}");
    // Without a signal there is no row.
    sandbox.forensic_snapshot(&[]);
    assert_eq!(sandbox.shutdown_rows(), 1);

    // A trap of the run's command.
    let script = "trap 'incumbent --json forensics snapshot --signal TERM > said.json; exit 7' TERM
        echo $$; while :; do sleep 0.05; done";
    let run = sandbox.hold_with(&["/bin/sh", "-c", script]);
    kill(run.command.pid, Signal::TERM);
    run.process.finish_with_stdin_open(LIMIT).assert_code(7);
    let said = std::fs::read_to_string(sandbox.file("said.json")).unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    let row = sandbox.newest_shutdown();
    assert_eq!(row["id"], said["recorded"], "{row:#}");
    assert_eq!(row["instance_id"], sandbox.history()[0]["instance"], "{row:#}");
    assert_eq!(row["profile"], "default", "{row:#}");

    // A shell that is on record itself, under another name.
    let script = "incumbent claim --profile work --kind relay > /dev/null || exit
        trap 'incumbent --json forensics snapshot --signal INT > said.json; exit 8' INT
        echo $$; while :; do sleep 0.05; done";
    let mut shell = Process::start(sandbox.shell(script));
    shell.line();
    shell.signal(Signal::INT);
    let pid = shell.pid();
    shell.finish_with_stdin_open(LIMIT).assert_code(8);
    let row = sandbox.newest_shutdown();
    assert_eq!(row["signal_name"], "SIGINT", "{row:#}");
    assert_eq!(row["profile"], "work", "{row:#}");
    assert_eq!(row["kind"], "relay", "{row:#}");
    let (_, history) = sandbox.json(["history", "--profile", "work", "--kind", "relay"]);
    assert_eq!(history[0]["pid"], pid, "{history:#}");
    assert_eq!(row["instance_id"], history[0]["instance"], "{row:#}");
}

/// Who signals in a loop fills no disk, and pushes out nobody else's word.
#[test]
fn the_newest_twenty_rows_of_an_instance_are_kept() {
    const SIGNALS: usize = 100;
    let sandbox = Sandbox::new();
    let mut other = Process::start(sandbox.role_command(ROLE_TEST, GATEWAY));
    other.err_line_with("=> open");
    ask(&mut other, "claim other gateway");
    assert_eq!(ask(&mut other, "listen other none"), "listening");
    raise(&mut other, libc::SIGTERM);
    let mut gateway = sandbox.listening_gateway();
    let mut newest = Vec::new();
    for _ in 0..SIGNALS {
        let report = raise(&mut gateway, libc::SIGTERM);
        newest.push(report["snapshot"]["recorded"].as_i64());
    }
    // One that could not be written at once was written with a later one.
    let counted = sandbox.number("SELECT count(*) FROM shutdowns WHERE profile = 'default'");
    assert_eq!(counted, 20);
    if newest.iter().all(Option::is_some) {
        let oldest = sandbox.number("SELECT min(id) FROM shutdowns WHERE profile = 'default'");
        assert_eq!(newest[SIGNALS - 20], Some(oldest));
    }
    assert_eq!(sandbox.number("SELECT count(*) FROM shutdowns WHERE profile = 'other'"), 1);
}
