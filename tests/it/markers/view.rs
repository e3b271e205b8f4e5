//! The view `open_markers` shows what is open.

use serde_json::{Value, json};

use crate::support::{Sandbox, assert_time, keys};

/// What people look at after an incident: what was asked of whom, and is not done yet.
#[test]
fn open_markers_shows_what_is_open() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&["--profile", "work"]);
    let script = sandbox.stranger();
    let claim = ["--kind", "relay", "--pid", &script.pid().to_string()];
    sandbox.cli([&["claim"], &claim[..]].concat()).assert_code(0);
    let stranger = sandbox.stranger();
    let of_run = sandbox.leave(run.pid(), &["note", "--reason", "why not"]);
    let of_script = sandbox.leave(script.pid(), &["planned_stop"]);
    let of_stranger = sandbox.leave(stranger.pid(), &["hello"]);
    let open = || sandbox.rows("SELECT * FROM open_markers");
    let rows = open();
    let expected = [
        "id", "name", "profile", "kind", "pid", "instance", "writer", "reason", "written",
        "expires",
    ];
    assert_eq!(keys(&rows[0]), expected, "{rows:#?}");
    for (row, (marker, profile, kind)) in rows.iter().zip([
        (&of_run, json!("work"), json!("gateway")),
        (&of_script, json!("default"), json!("relay")),
        (&of_stranger, json!(null), json!(null)),
    ]) {
        for (column, field) in [
            ("id", "id"),
            ("name", "name"),
            ("pid", "pid"),
            ("instance", "instance"),
            ("writer", "by"),
            ("reason", "reason"),
            ("written", "written_at"),
            ("expires", "expires_at"),
        ] {
            assert_eq!(row[column], marker[field], "{column}: {row:#}");
        }
        assert_eq!((&row["profile"], &row["kind"]), (&profile, &kind), "{row:#}");
        assert_time(&row["written"]);
    }
    assert_eq!(rows.len(), 3, "{rows:#?}");

    let names = || open().iter().map(|row| row["name"].clone()).collect::<Vec<_>>();
    sandbox.marker(stranger.pid(), &["consume"]);
    assert_eq!(names(), ["note", "planned_stop"], "consumed");
    sandbox.cli([&["release"], &claim[..]].concat()).assert_code(0);
    assert_eq!(names(), ["note"], "its target has ended");
    sandbox.marker(run.pid(), &["clear", "note"]);
    assert_eq!(names(), [] as [Value; 0], "cleared");
    sandbox.leave(run.pid(), &["note"]);
    run.end().assert_code(0);
    assert_eq!(names(), [] as [Value; 0], "its run has ended");
    let how: Vec<_> = sandbox.marker_rows().iter().map(|row| row["closed_how"].clone()).collect();
    assert_eq!(how, ["cleared", "target_ended", "consumed", "target_ended"]);
}
