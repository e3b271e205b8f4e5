//! Rows that make no sense stand in nobody's way.

use serde_json::json;

use crate::support::Sandbox;

/// R:ROW. FIELD-BUGS row 57.
///
/// Symptom: a marker without the data that its consumption demanded could never be consumed and
/// never be cleared, and updates failed for weeks. It holds because each has an end of its own, and
/// because clearing asks for no more than a name and a pid.
#[test]
fn a_damaged_marker_can_be_cleared_and_stands_in_nobodys_way() {
    let other_boot = "boot_id = '11111111-2222-3333-4444-555555555555'";
    // What is damaged, and whether it is seen all the same.
    let cases = [
        ("start_time = NULL", false),
        ("start_time = NULL, start_time_unit = NULL, boot_id = NULL, pid_ns = NULL", false),
        ("start_time = -1", false),
        ("start_time = start_time + 1", false),
        // Doubt, and the clocks say that it is this boot (FIELD-BUGS row 91).
        (other_boot, true),
        ("instance_id = 12345", false),
        ("expires_boot_id = NULL", true),
        ("expires_boot_ms = -1", false),
        ("start_time_unit = NULL", true),
        ("writer_pid = -4, writer_uid = 99999999999, writer_id = -1", true),
        ("writer = '', reason = ''", true),
    ];
    let sandbox = Sandbox::new();
    sandbox.make_it();
    let stranger = sandbox.stranger();
    let pid = stranger.pid();
    for (damage, is_seen) in cases {
        let marker = sandbox.leave(pid, &["note", "--ttl", "1h"]);
        let id = &marker["id"];
        assert_eq!(sandbox.forge(&format!("UPDATE markers SET {damage} WHERE id = {id}")), 1);
        assert_eq!(sandbox.peek(pid).is_some(), is_seen, "{damage}");
        for words in [&["events"][..], &["sql", "SELECT * FROM open_markers"], &["status"]] {
            assert!(matches!(sandbox.cli(words).code(), 0 | 3), "{damage}: {words:?}");
        }
        if !is_seen {
            assert_eq!(sandbox.marker(pid, &["consume"]).0, 1, "{damage}");
        }
        assert_eq!(sandbox.marker(pid, &["clear", "note"]), (0, json!({"cleared": 1})), "{damage}");
        assert_eq!(sandbox.peek(pid), None, "{damage}");
    }
    // One for a process of another pid namespace, by what it says, is not for its namesake here.
    let marker = sandbox.leave(pid, &["note"]);
    sandbox.forge(&format!("UPDATE markers SET pid_ns = 'elsewhere' WHERE id = {}", marker["id"]));
    assert_eq!(sandbox.peek(pid), None);
    assert_eq!(sandbox.marker(pid, &["consume"]).0, 1);
}

/// R:ROW. FIELD-BUGS row 57: one row that no program of ours could have written must not keep
/// anybody from clearing, reading or writing the good ones beside it.
#[test]
fn a_row_that_makes_no_sense_spoils_no_other() {
    let sandbox = Sandbox::new();
    sandbox.make_it();
    let script = sandbox.stranger();
    sandbox.cli(["claim", "--pid", &script.pid().to_string()]).assert_code(0);
    let instance = sandbox.status().1["instance"].as_i64().unwrap();
    for damage in [
        "pid = -1".to_owned(),
        "pid = 0".to_owned(),
        "pid = 99999999999".to_owned(),
        format!("pid = {}", i64::MIN),
        "name = 'not a name'".to_owned(),
        "name = '\u{1f480}'".to_owned(),
        format!("name = 'not a name', instance_id = {instance}"),
        format!("pid = -1, instance_id = {instance}"),
    ] {
        let victim = sandbox.stranger();
        let bad = sandbox.leave(victim.pid(), &["note", "--ttl", "1h"]);
        let id = &bad["id"];
        assert_eq!(sandbox.forge(&format!("UPDATE markers SET {damage} WHERE id = {id}")), 1);
        for process in [&victim, &script] {
            let pid = process.pid();
            let good = sandbox.leave(pid, &["note"]);
            let (code, peeked) = sandbox.marker(pid, &["peek"]);
            assert_eq!((code, &peeked["id"]), (0, &good["id"]), "{damage}: {peeked:#}");
            let (code, cleared) = sandbox.marker(pid, &["clear", "note"]);
            assert_eq!((code, &cleared["cleared"]), (0, &json!(1)), "{damage}: {cleared:#}");
            let good = sandbox.leave(pid, &["planned_stop"]);
            let (code, consumed) = sandbox.marker(pid, &["consume", "planned_stop"]);
            assert_eq!((code, &consumed["id"]), (0, &good["id"]), "{damage}: {consumed:#}");
        }
        sandbox.cli(["sql", "SELECT * FROM open_markers"]).assert_code(0);
        // It has an end of its own.
        sandbox.forge(&format!("UPDATE markers SET expires_boot_ms = 1 WHERE id = {id}"));
        sandbox.leave(victim.pid(), &["word"]);
        let how = sandbox.closed_how(&bad);
        let is_over = matches!(how.as_deref(), Some("expired" | "replaced" | "cleared"));
        assert!(is_over, "{damage}: {how:?}");
    }
    sandbox.cli(["release", "--pid", &script.pid().to_string()]).assert_code(0);
}
