//! A bad value spoils its own cell, and the next write heals it.

use serde_json::{Value, json};

use super::{claimed, write_for};
use crate::support::{LIMIT, Process, Sandbox, eventually, unix_ms};

/// Writes what no program of ours writes.
#[track_caller]
pub fn damage(sandbox: &Sandbox, statement: &str) {
    let connection = rusqlite::Connection::open(sandbox.db()).unwrap();
    connection.busy_timeout(LIMIT).unwrap();
    connection.execute_batch("PRAGMA ignore_check_constraints = 1").unwrap();
    let touched = connection.execute(statement, []);
    let touched = touched.unwrap_or_else(|error| panic!("{statement}: {error}"));
    assert!(touched > 0, "{statement}");
}

/// Column, key in the JSON.
const CELLS: &[(&str, &str, &[&str])] = &[
    ("runtime_status", "state", &["last_state", "state"]),
    ("runtime_status", "state_since_at_ms", &["state_since"]),
    ("runtime_status", "exit_reason", &["exit_reason"]),
    ("runtime_status", "restart_requested", &["restart_requested"]),
    ("runtime_status", "active_agents", &["active_agents"]),
    ("runtime_status", "extra", &["extra"]),
    ("runtime_status", "heartbeat_boot_ms", &[]),
    ("runtime_status", "heartbeat_asleep_ms", &[]),
    ("runtime_status", "writer", &["writer"]),
    ("runtime_status", "writer_pid", &["writer_pid"]),
    ("runtime_status", "updated_at_ms", &["updated_at"]),
    ("runtime_status", "memory_bytes", &["memory_bytes"]),
    ("platform_status", "state", &["last_state", "state"]),
    ("platform_status", "state_since_at_ms", &["state_since"]),
    ("platform_status", "error_code", &["error_code"]),
    ("platform_status", "error_message", &["error_message"]),
    ("platform_status", "needs_attention", &["needs_attention"]),
    ("platform_status", "retrying_since_at_ms", &["retrying_since"]),
    ("platform_status", "extra", &["extra"]),
    ("platform_status", "writer", &["writer"]),
    ("platform_status", "writer_pid", &["writer_pid"]),
    ("platform_status", "updated_at_ms", &["updated_at"]),
];

/// What a STRICT table lets in when its checks are off, by column.
fn bad_values(column: &str) -> &'static [&'static str] {
    match column {
        "restart_requested" | "needs_attention" => &["7", "-1"],
        "active_agents" => &["-3", "-9223372036854775808"],
        "heartbeat_boot_ms" | "heartbeat_asleep_ms" | "memory_bytes" => &["-1"],
        "writer_pid" => &["-4", "99999999999"],
        "state_since_at_ms" | "retrying_since_at_ms" | "updated_at_ms" => {
            &["-1", "9223372036854775807", "253402300800000"]
        }
        "extra" => &[
            "'{\"a\":'",
            "'TLS bytes'",
            "''",
            "'1e999'",
            "CAST(x'efbbbf7b7d' AS TEXT)",
            "CAST(x'22ff22' AS TEXT)",
            "'{} {}'",
        ],
        _ => &["CAST(x'ff41' AS TEXT)", "CAST(x'c328' AS TEXT)"],
    }
}

const BADLY_TREATED: &[&str] = &[
    "--state",
    "running",
    "--exit-reason",
    "none",
    "--restart-requested",
    "true",
    "--active-agents",
    "3",
    "--extra",
    "{}",
    "--heartbeat=1h",
    "--platform",
    "p",
    "--platform-state",
    "connected",
    "--error-code",
    "E1",
    "--error-message",
    "message",
    "--needs-attention",
    "true",
    "--retrying-since",
    "now",
    "--platform-extra",
    "[]",
];

/// The rows of a status document.
fn row_of<'a>(status: &'a Value, table: &str) -> &'a Value {
    if table == "runtime_status" { &status["runtime"] } else { &status["platforms"]["p"] }
}

/// Asserts that exactly this cell is spoilt, and that a write that is not about it heals it.
#[track_caller]
fn assert_only_this_cell_is_spoilt(
    sandbox: &Sandbox,
    script: &Process,
    before: &Value,
    (table, column, keys): (&str, &str, &[&str]),
    value: &str,
) {
    let what = format!("{table}.{column} = {value}");
    let (code, status) = sandbox.status();
    assert_eq!((code, &status["verdict"]), (0, &json!("alive")), "{what}: {status:#}");
    let (row, row_before) = (row_of(&status, table), row_of(before, table));
    assert_eq!(row["damaged"], json!([column]), "{what}: {row:#}");
    for (key, shown) in row.as_object().unwrap() {
        if keys.contains(&key.as_str()) {
            assert_eq!(*shown, json!(null), "{what}: {key}: {row:#}");
        } else if key != "damaged" {
            assert_eq!(*shown, row_before[key], "{what}: {key}: {row:#}");
        }
    }
    let other = if table == "runtime_status" { "platform_status" } else { "runtime_status" };
    assert_eq!(row_of(&status, other), row_of(before, other), "{what}");
    let text = sandbox.cli(["status"]).assert_code(0).out;
    let complaint = text.lines().find(|line| line.contains("damaged") && line.contains(column));
    assert!(complaint.is_some(), "{what}: {text}");
    // The others are of the same function: once for each column will do.
    let others: &[&[&str]] = if value == bad_values(column)[0] {
        &[&["status", "--all"], &["status", "--metrics"], &["status", "--all", "--json"]]
    } else {
        &[]
    };
    for verb in others {
        let answer = sandbox.cli(*verb).assert_code(0);
        assert_eq!(answer.err, "", "{what}: {verb:?}");
    }
    let heal: &[&str] = match (table, column) {
        ("runtime_status", "active_agents") => &["--exit-reason", "none"],
        ("runtime_status", _) => &["--active-agents", "3"],
        (_, "error_code") => &["--platform", "p", "--error-message", "message"],
        (_, _) => &["--platform", "p", "--error-code", "E1"],
    };
    write_for(sandbox, script.pid(), heal);
    let healed = sandbox.status().1;
    let row = row_of(&healed, table);
    assert_eq!(row["damaged"], json!([]), "{what}: {row:#}");
    for (key, shown) in row.as_object().unwrap() {
        let is_of_the_write = ["writer", "writer_pid", "updated_at", "state_since"];
        if !keys.contains(&key.as_str()) && !is_of_the_write.contains(&key.as_str()) {
            assert_eq!(*shown, row_before[key], "{what}: {key}: {row:#}");
        }
    }
    for key in keys.iter().filter(|key| ["writer", "writer_pid", "updated_at"].contains(key)) {
        assert!(!row[*key].is_null(), "{what}: {key}: {row:#}");
    }
}

/// FIELD-BUGS row 58.
///
/// Symptom: foreign bytes in the status file: a warning on every write, never healed, HTTP 500, and
/// the live gateway "missing". Cause: one text that is read, changed and written as a whole. It
/// holds because a value that cannot be read spoils its own cell alone, and the next write replaces
/// it.
#[test]
fn a_bad_value_spoils_its_own_cell_and_the_next_write_heals_it() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    for (table, column, keys) in CELLS {
        for value in bad_values(column) {
            write_for(&sandbox, script.pid(), BADLY_TREATED);
            let before = sandbox.status().1;
            damage(&sandbox, &format!("UPDATE {table} SET {column} = {value}"));
            assert_only_this_cell_is_spoilt(
                &sandbox,
                &script,
                &before,
                (table, column, keys),
                value,
            );
        }
    }
    // All at once, and said anew in one write.
    write_for(&sandbox, script.pid(), BADLY_TREATED);
    for (table, column, _) in CELLS {
        damage(&sandbox, &format!("UPDATE {table} SET {column} = {}", bad_values(column)[0]));
    }
    let status = sandbox.status().1;
    assert_eq!(status["verdict"], "alive", "{status:#}");
    assert_eq!(status["runtime"]["damaged"].as_array().unwrap().len(), 12, "{status:#}");
    assert_eq!(status["platforms"]["p"]["damaged"].as_array().unwrap().len(), 10, "{status:#}");
    write_for(&sandbox, script.pid(), BADLY_TREATED);
    let status = sandbox.status().1;
    assert_eq!(status["runtime"]["damaged"], json!([]), "{status:#}");
    assert_eq!(status["platforms"]["p"]["damaged"], json!([]), "{status:#}");
    assert_eq!((&status["state"], &status["busy"]), (&json!("running"), &json!(true)));
}

/// The same for values of another type, which only a table that is no longer STRICT lets in.
#[test]
fn a_value_of_another_type_spoils_its_own_cell() {
    let sandbox = Sandbox::new();
    sandbox.sick("it changes the schema");
    let script = claimed(&sandbox, &[]);
    write_for(&sandbox, script.pid(), BADLY_TREATED);
    let connection = rusqlite::Connection::open(sandbox.db()).unwrap();
    connection
        .execute_batch(
            "PRAGMA writable_schema = 1;
             UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')')
             WHERE name = 'runtime_status';
             UPDATE sqlite_schema SET sql = replace(sql, ') STRICT, WITHOUT', ') WITHOUT')
             WHERE name = 'platform_status';",
        )
        .unwrap();
    let version: i64 = connection.query_row("PRAGMA schema_version", [], |row| row.get(0)).unwrap();
    connection.execute_batch(&format!("PRAGMA schema_version = {}", version + 1)).unwrap();
    drop(connection);
    for (table, column, keys) in CELLS {
        let is_text = ["state", "exit_reason", "extra", "writer", "error_code", "error_message"]
            .contains(column);
        let values: &[&str] =
            if is_text { &["x'00ff'"] } else { &["'NaN'", "x'ff'", "1.5", "9e99"] };
        for value in values {
            write_for(&sandbox, script.pid(), BADLY_TREATED);
            let before = sandbox.status().1;
            damage(&sandbox, &format!("UPDATE {table} SET {column} = {value}"));
            let row = (*table, *column, *keys);
            assert_only_this_cell_is_spoilt(&sandbox, &script, &before, row, value);
        }
    }
}

/// A name that cannot be read is still to be seen, and can be removed with the others.
#[test]
fn a_platform_with_a_bad_name_is_shown_and_can_be_removed() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    for platform in ["good", "bad"] {
        let options = ["--platform", platform, "--platform-state", "up"];
        write_for(&sandbox, script.pid(), &options);
    }
    damage(
        &sandbox,
        "UPDATE platform_status SET platform = CAST(x'62ff1b5b6d' AS TEXT) WHERE platform = 'bad'",
    );
    let status = sandbox.status().1;
    assert_eq!(status["platforms"].as_object().unwrap().len(), 2, "{status:#}");
    assert_eq!(status["platforms"]["good"]["state"], "up", "{status:#}");
    let text = sandbox.cli(["status"]).assert_code(0).out;
    assert!(text.contains("good") && !text.contains('\u{1b}'), "{text:?}");
    sandbox.cli(["status", "--all", "--metrics"]).assert_code(0);
    write_for(&sandbox, script.pid(), &["--platform", "good", "--platform-state", "down"]);
    write_for(&sandbox, script.pid(), &["--clear", "platforms"]);
    assert_eq!(sandbox.status().1["platforms"], json!({}));
    // Who is served by a bad name is nobody.
    write_for(&sandbox, script.pid(), &["--serves", "other"]);
    damage(&sandbox, "UPDATE serves SET profile = CAST(x'ff' AS TEXT)");
    assert_eq!(sandbox.status().1["serves"], json!([]));
    sandbox.cli(["status", "--all"]).assert_code(0);
    write_for(&sandbox, script.pid(), &["--serves", "third"]);
    assert_eq!(sandbox.status().1["serves"], json!(["third"]));
}

/// FIELD-BUGS row 61. A time that no clock has shown yet, or never will, is of an unknown age: it
/// makes nothing fresh.
#[test]
fn an_absurd_time_is_never_fresh() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    write_for(
        &sandbox,
        script.pid(),
        &["--state", "running", "--platform", "p", "--error-code", "E"],
    );
    assert_eq!(sandbox.status().1["stale"], false);
    let century = unix_ms() + 3_000_000_000_000;
    let hour = unix_ms() + 3_600_000;
    for time in [-1, i64::MIN, i64::MAX, 253_402_300_800_000, century, hour] {
        for table in ["runtime_status", "platform_status"] {
            damage(&sandbox, &format!("UPDATE {table} SET updated_at_ms = {time}"));
        }
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        assert_eq!(
            (&status["stale"], &status["state"]),
            (&json!(true), &json!("running")),
            "{time}"
        );
        let text = sandbox.cli(["status"]).assert_code(0).out;
        assert!(text.starts_with("default/gateway: running"), "{time}: {text}");
    }

    // A heartbeat that lies ahead, or before all time, is no sign of life.
    write_for(&sandbox, script.pid(), &["--heartbeat=10ms"]);
    eventually("two beats are missing", LIMIT, || sandbox.status().1["unresponsive_ms"].as_u64());
    for (boot, wall) in [
        (i64::MAX, i64::MAX),
        (i64::MAX, century),
        (i64::MAX - 1, hour),
        (-1, -1),
        (i64::MIN, i64::MIN),
        (-1, century),
    ] {
        damage(&sandbox, &format!("UPDATE runtime_status SET heartbeat_boot_ms = {boot}"));
        damage(&sandbox, &format!("UPDATE instances SET heartbeat_at_ms = {wall}"));
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        assert!(status["unresponsive_ms"].is_u64(), "{boot} {wall}: {status:#}");
    }
    // A cadence that is none promises nothing.
    for cadence in [0, -5, i64::MIN] {
        damage(&sandbox, &format!("UPDATE instances SET heartbeat_every_ms = {cadence}"));
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        assert_eq!(status["unresponsive_ms"], json!(null), "{cadence}: {status:#}");
    }
    damage(&sandbox, &format!("UPDATE instances SET heartbeat_every_ms = {}", i64::MAX));
    sandbox.assert_status(0, "alive", "anchor_held");
}
