//! A user manager of systemd's own, and the service that `unit systemd` prints.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{BINARY, LIMIT, Process, Sandbox, UserManager, eventually, kill};

/// Installs `gw.service` for the gateway; `options` are those of `unit`, `before` of all verbs.
#[track_caller]
fn install(sandbox: &Sandbox, manager: &UserManager<'_>, before: &[&str], options: &[&str]) {
    let gateway = sandbox.gateway_words();
    let gateway: Vec<&str> = gateway.iter().map(String::as_str).collect();
    let verb = &["unit", "systemd", "--name", "gw"];
    let words = [before, verb, options, &["--"], &gateway[..]].concat();
    let out = sandbox.cli(words).assert_code(0).out;
    manager.install("gw.service", out);
}

/// FIELD-BUGS rows 46, 54 and 115: a crash and a stranger's signal are followed by a start, what
/// somebody asked for is not, and no end is called a failure that is none.
#[test]
fn a_service_is_started_again_unless_somebody_stops_it() {
    let sandbox = Sandbox::new();
    let Some(manager) = UserManager::start(&sandbox) else { return };
    install(&sandbox, &manager, &[], &[]);
    manager.systemctl(["start", "gw"]).assert_code(0);
    let gateway = sandbox.wait_for_starts(1);
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["supervisor"], "systemd:gw.service", "{status:#}");
    assert_eq!(status["pid"], manager.main_pid("gw"), "{status:#}");
    assert!(sandbox.cli(["status"]).out.contains("systemd:gw.service"));

    kill(gateway, Signal::KILL);
    sandbox.wait_for_starts(2);
    assert_eq!(manager.property("gw", "NRestarts"), "1");

    // Somebody's `kill`: it drains, and ends politely.
    kill(manager.main_pid("gw"), Signal::TERM);
    sandbox.wait_for_word("TERM");
    sandbox.let_gateways_end();
    sandbox.wait_for_starts(3);
    assert_eq!(manager.property("gw", "NRestarts"), "2");

    sandbox.cli(["stop"]).assert_code(0);
    manager.wait_for("gw", "SubState", "dead");
    assert_eq!(manager.property("gw", "Result"), "success");
    assert_eq!(manager.property("gw", "ExecMainStatus"), "0");
    assert_eq!(sandbox.history()[0]["end_reason"], "planned_stop");

    sandbox.let_gateways_drain();
    manager.systemctl(["start", "gw"]).assert_code(0);
    sandbox.wait_for_starts(4);
    let stop = manager.begin_systemctl(["stop", "gw"]);
    sandbox.wait_for_word("TERM");
    sandbox.let_gateways_end();
    stop.finish(LIMIT).assert_code(0);
    assert_eq!(sandbox.heard(), ["TERM"]);
    assert_eq!(manager.property("gw", "Result"), "success");
    let end = &sandbox.history()[0];
    assert_eq!((&end["end_reason"], &end["exit_code"]), (&json!("signalled"), &json!(0)));
    let by = format!("pid {} (", manager.pid());
    assert!(end["ended_by"].as_str().unwrap().starts_with(&by), "{end:#}");
}

/// 78 is for a person: a start each second would change nothing.
#[test]
fn a_mistake_in_the_configuration_is_not_tried_again() {
    let sandbox = Sandbox::new();
    let Some(manager) = UserManager::start(&sandbox) else { return };
    let [ours, other] = ["ours", "other"].map(|name| sandbox.file(name));
    for home in [&ours, &other] {
        std::fs::create_dir(home).unwrap();
    }
    let [ours, other] = [&ours, &other].map(|home| home.to_str().unwrap());
    sandbox.cli(["--home", ours, "run", "--no-backoff", "--", "true"]).assert_code(0);
    install(&sandbox, &manager, &["--home", other], &[]);
    manager.systemctl(["start", "gw"]).assert_code(0);
    manager.wait_for("gw", "SubState", "failed");
    assert_eq!(manager.property("gw", "ExecMainStatus"), "78");
    assert_eq!(manager.property("gw", "NRestarts"), "0");
    assert_eq!(sandbox.said(), [""; 0]);
}

/// 75 is for later: whoever holds the office will not hold it for ever.
#[test]
fn a_refused_start_is_tried_again_until_the_office_is_free() {
    let sandbox = Sandbox::new();
    let Some(manager) = UserManager::start(&sandbox) else { return };
    let holder = sandbox.hold(&[]);
    install(&sandbox, &manager, &[], &[]);
    manager.systemctl(["start", "gw"]).assert_code(0);
    eventually("a second try", LIMIT, || {
        (manager.property("gw", "NRestarts") != "0").then_some(())
    });
    holder.end().assert_code(0);
    sandbox.wait_for_starts(1);
    assert_eq!(manager.property("gw", "ActiveState"), "active");
}

/// FIELD-BUGS row 85: what is printed gives the time that the check asks for, rounded up.
#[test]
fn the_check_finds_the_printed_time_right() {
    let sandbox = Sandbox::new();
    let Some(manager) = UserManager::start(&sandbox) else { return };
    install(&sandbox, &manager, &[], &["--stop-budget", "33001ms"]);
    let mut check = manager.program(BINARY);
    check.args(["--json", "forensics", "systemd", "--unit", "gw", "--drain", "3001ms"]);
    let answer = Process::start(check).finish(LIMIT).assert_code(0).json();
    assert_eq!(answer["manager"], "user", "{answer:#}");
    assert_eq!(answer["expected_min"], 33.001, "{answer:#}");
    assert_eq!(answer["timeout_stop_sec"], 34, "{answer:#}");
    assert_eq!(answer["mismatch"], false, "{answer:#}");
}
