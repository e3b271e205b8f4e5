//! Stores that are old, full or read-only.

use serde_json::json;

use super::speakers::EVERYTHING;
use super::strangers::assert_not_owner;
use super::talker::{ROLE_TEST, TALKER};
use super::{claimed, set_for, write_for};
use crate::support::{
    BINARY, Disk, LIMIT, Process, Sandbox, ask, bystander, eventually, read_only_store, skipped,
};

/// FIELD-BUGS rows 78 and 81. A store of the version before: questions are answered and change
/// nothing, saying something is refused by name, and the next claim brings it up to date.
#[test]
fn a_store_from_before_there_was_a_runtime_status() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    sandbox.age_to(3);
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    for (key, nothing) in
        [("runtime", json!(null)), ("platforms", json!({})), ("serves", json!([]))]
    {
        assert_eq!(status[key], nothing, "{status:#}");
    }
    assert_eq!(sandbox.json(["status", "--profile", "other"]).0, 3);
    for verb in
        [&["status"][..], &["status", "--all"], &["status", "--all", "--metrics"], &["events"]]
    {
        sandbox.cli(verb).assert_code(0);
    }
    for words in [
        &["--state", "running"][..],
        &["--platform", "p", "--error-code", "E"],
        &["--heartbeat=1s"],
        &["--serves", "other"],
        &["--clear", "platforms"],
    ] {
        let (code, answer) = set_for(&sandbox, script.pid(), words);
        let error = &answer["error"];
        assert_eq!((code, &error["kind"]), (78, &json!("too_old")), "{words:?}: {answer:#}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("schema version 3"), "{message}");
        assert!(error["hint"].as_str().unwrap().contains("incumbent run"), "{error:#}");
    }
    // Who has no say is told that, not that the store is old.
    assert_not_owner(&sandbox, &[], &[], &["does not hold"]);
    assert_eq!(sandbox.number("PRAGMA user_version"), 3);
    sandbox.assert_status(0, "alive", "anchor_held");

    sandbox.cli(["claim", "--pid", &script.pid().to_string()]).assert_code(0);
    assert!(sandbox.number("PRAGMA user_version") >= 4);
    write_for(&sandbox, script.pid(), EVERYTHING);
    assert_eq!(sandbox.status().1["state"], "running");
}

/// R:FULL. FIELD-BUGS row 78: what cannot be written is an error, and costs nobody the office.
#[test]
fn on_a_full_disk_a_status_is_refused_and_the_gateway_keeps_its_office() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "1m") else { return };
    let mut gateway = disk.role(ROLE_TEST, TALKER);
    gateway.err_line_with("=> owns");
    let script = bystander(&sandbox);
    let pid = script.pid().to_string();
    disk.cli(&["claim", "--kind", "relay", "--pid", &pid]).assert_code(0);
    assert_eq!(ask(&mut gateway, "say running"), "Ok");
    disk.fill_up();
    // What fits in the pages that are there still goes in; then there is no more room.
    let mut count = 0;
    let refused = eventually("the log is full, too", LIMIT, || {
        count += 1;
        Some(ask(&mut gateway, &format!("say state-{count}"))).filter(|answer| answer != "Ok")
    });
    assert_eq!(refused, "CannotWrite");
    let set = ["--json", "status-set", "--kind", "relay", "--pid", &pid, "--state", "x"];
    let answer = disk.cli(&set).assert_code(70).json();
    assert_eq!(answer["error"]["kind"], "cannot_write", "{answer:#}");
    assert!(answer["error"]["hint"].is_string(), "{answer:#}");
    let status = disk.cli(&["--json", "status"]).assert_code(0).json();
    assert_eq!(
        status["state"],
        if count == 1 { "running".to_owned() } else { format!("state-{}", count - 1) }
    );
    for kind in ["gateway", "relay"] {
        disk.cli(&["run", "--no-backoff", "--kind", kind, "--", "true"]);
        disk.cli(&["status", "--kind", kind]).assert_code(0);
    }
    disk.shell("rm store/fill").assert_code(0);
    assert_eq!(ask(&mut gateway, "say recovered"), "Ok");
    disk.cli(&set).assert_code(0);
    let status = disk.cli(&["--json", "status"]).assert_code(0).json();
    assert_eq!((&status["state"], &status["pid"]), (&json!("recovered"), &json!(gateway.pid())));
}

/// R:RO. The same through a view of the store that cannot be written.
#[test]
fn on_a_read_only_mount_a_status_is_refused() {
    let Some(words) = read_only_store() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    let pid = script.pid().to_string();
    write_for(&sandbox, script.pid(), &["--state", "running"]);
    let set = ["--json", "status-set", "--pid", &pid, "--state", "x"];
    let answer = Process::start(sandbox.under(words, BINARY.as_ref(), &set)).finish(LIMIT);
    let error = answer.json()["error"].clone();
    assert!(matches!(answer.code(), 70 | 78), "{answer:#?}");
    assert!(error["kind"] == "cannot_write" || error["kind"] == "permission", "{error:#}");
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["state"], "running", "{status:#}");
    write_for(&sandbox, script.pid(), &["--state", "draining"]);
}
