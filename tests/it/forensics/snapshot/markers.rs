//! Stops and takeovers that were announced.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::gateway::{next_report, raise};
use super::left::assert_log_line;
use crate::stop::PATIENT;
use crate::support::{LIMIT, Process, Run, Sandbox, ask, kill};

/// FIELD-BUGS rows 46 and 82: a stop that was announced is told from one that was not, in the
/// snapshot, in the cause and in the exit code.
#[test]
fn a_planned_stop_is_seen_in_the_snapshot() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let stop = sandbox.begin(&["stop", "--reason", "new version"]);
    let report = next_report(&mut gateway);
    let snapshot = &report["snapshot"];
    let marker = &snapshot["planned_stop_marker"];
    assert_eq!(marker["name"], "planned_stop", "{marker:#}");
    assert_eq!(marker["pid"], gateway.pid(), "{marker:#}");
    assert_eq!(marker["by_pid"], stop.pid(), "{marker:#}");
    assert_eq!(marker["reason"], "new version", "{marker:#}");
    assert_eq!(snapshot["takeover_marker"], Value::Null, "{snapshot:#}");
    assert_eq!(snapshot["takeover_marker_for_self"], Value::Null, "{snapshot:#}");
    assert_eq!(snapshot["sender"]["pid"], stop.pid(), "{snapshot:#}");
    assert_eq!(report["cause"], "planned_stop", "{report:#}");
    assert_eq!(report["exit_code"], 0, "{report:#}");
    assert_eq!((&report["stop"], &report["stop_by"]), (&json!("planned_stop"), &json!(stop.pid())));
    let said = assert_log_line(report["line"].as_str().unwrap());
    assert_eq!(said["planned_stop_marker_present"], "yes");
    assert!(!said.contains_key("takeover_marker_present"), "{said:?}");
    let row = sandbox.newest_shutdown();
    assert_eq!(row["cause"], "planned_stop", "{row:#}");
    assert_eq!(row["snapshot"]["planned_stop_marker"], *marker, "{row:#}");
    assert_eq!(ask(&mut gateway, "release default"), "Free");
    gateway.say("exit 0");
    gateway.finish(LIMIT).assert_code(0);
    stop.finish(LIMIT).assert_code(0);
    assert_eq!(sandbox.history()[0]["end_reason"], "planned_stop");

    // Under `run`, which may have asked its command before the signal came.
    let mut run = sandbox.patient(&[]);
    let stop = sandbox.begin(&["stop"]);
    let said = said_of_signal(&mut run.process);
    assert_eq!(said["planned_stop_marker_present"], "yes");
    assert_eq!(said["sender_pid"], stop.pid().to_string());
    assert!(said["sender_cmdline"].ends_with("incumbent stop"), "{said:?}");
    assert_eq!(run.process.line(), "TERM");
    run.let_end();
    stop.finish(LIMIT).assert_code(0);
    run.process.finish_with_stdin_open(LIMIT).assert_code(0);
}

/// What a `run` says of the signal that it gets.
#[track_caller]
pub fn said_of_signal(run: &mut Process) -> BTreeMap<String, String> {
    let line = run.err_line_with("signal=SIGTERM");
    assert_log_line(line.strip_prefix("incumbent: run: default/gateway: ").unwrap())
}

#[test]
fn a_takeover_is_seen_in_the_snapshot() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let taking = ["run", "--no-backoff", "--replace", "--", "/bin/sh", "-c", PATIENT];
    let mut taker = sandbox.begin(&taking);
    let report = next_report(&mut gateway);
    let snapshot = &report["snapshot"];
    let marker = &snapshot["takeover_marker"];
    assert_eq!(marker["name"], "takeover", "{marker:#}");
    assert_eq!(marker["pid"], gateway.pid(), "{marker:#}");
    assert_eq!(marker["by_pid"], taker.pid(), "{marker:#}");
    assert_eq!(snapshot["takeover_marker_for_self"], true, "{snapshot:#}");
    assert_eq!(snapshot["planned_stop_marker"], Value::Null, "{snapshot:#}");
    assert_eq!(report["cause"], "taken_over", "{report:#}");
    assert_eq!(report["exit_code"], 0, "{report:#}");
    assert_eq!((&report["stop"], &report["stop_by"]), (&json!("taken_over"), &json!(taker.pid())));
    let said = assert_log_line(report["line"].as_str().unwrap());
    assert_eq!(said["takeover_marker_present"], "self");
    assert_eq!(ask(&mut gateway, "release default"), "Free");
    gateway.say("exit 0");
    gateway.finish(LIMIT).assert_code(0);
    let command: u32 = taker.line().parse().unwrap();
    assert_eq!(sandbox.history()[1]["end_reason"], "taken_over");

    // And under `run`, by the next one.
    let mut next = sandbox.begin(&taking);
    let said = said_of_signal(&mut taker);
    assert_eq!(said["takeover_marker_present"], "self", "{said:?}");
    assert_eq!(said["sender_pid"], next.pid().to_string());
    let row = sandbox.newest_shutdown();
    assert_eq!(row["snapshot"]["takeover_marker_for_self"], true, "{row:#}");
    assert_eq!(row["cause"], "taken_over", "{row:#}");
    kill(command, Signal::USR1);
    taker.finish_with_stdin_open(LIMIT).assert_code(0);
    let command: u32 = next.line().parse().unwrap();
    kill(command, Signal::USR1);
    next.finish_with_stdin_open(LIMIT).assert_code(7);
}

/// The seed's smoking gun: another incarnation of the same profile is being replaced while somebody
/// signals this one.
#[test]
fn a_takeover_of_another_incarnation_is_not_ones_own() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let relay = ["run", "--no-backoff", "--kind", "relay", "--", "/bin/sh", "-c", PATIENT];
    let mut relay = Run::start(sandbox.incumbent(relay));
    let taker =
        sandbox.begin(&["run", "--no-backoff", "--kind", "relay", "--replace", "--", "true"]);
    assert_eq!(relay.process.line(), "TERM");
    let report = raise(&mut gateway, libc::SIGTERM);
    let snapshot = &report["snapshot"];
    assert_eq!(snapshot["takeover_marker"]["pid"], relay.pid(), "{snapshot:#}");
    assert_eq!(snapshot["takeover_marker_for_self"], false, "{snapshot:#}");
    assert_eq!(report["cause"], "signalled", "{report:#}");
    assert_eq!(report["stop"], "unplanned", "{report:#}");
    let said = assert_log_line(report["line"].as_str().unwrap());
    assert_eq!(said["takeover_marker_present"], "other");
    relay.let_end();
    relay.process.finish_with_stdin_open(LIMIT).assert_code(0);
    taker.finish(LIMIT).assert_code(0);
    let report = raise(&mut gateway, libc::SIGTERM);
    assert_eq!(report["snapshot"]["takeover_marker"], Value::Null, "{report:#}");
    assert_eq!(report["snapshot"]["takeover_marker_for_self"], Value::Null, "{report:#}");
}
