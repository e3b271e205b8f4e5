//! `export`: the shapes of the older program, and never over a live process.

use serde_json::{Value, json};

use crate::support::older::Older;
use crate::support::{LIMIT, Process, Sandbox, Stat};

/// What is exported is what the older program writes and reads, byte for byte where it matters, and
/// an import of it finds the same.
#[test]
fn an_export_has_the_shapes_of_the_older_program() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let export = |code: i32| {
        let (got, document) = sandbox.json(["export", older.home()]);
        assert_eq!(got, code, "{document:#}");
        let rows = document.as_array().cloned().unwrap_or_default();
        let name = |row: &Value| {
            let file = row["file"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
            format!("{file} {}", row["verdict"].as_str().unwrap())
        };
        rows.iter().map(name).collect::<Vec<_>>()
    };
    sandbox.cli(["export", older.home()]).assert_code(2).assert_complains(&["no store"]);
    let script = "incumbent status-set --state running --active-agents 3 --platform telegram \
        --platform-state fatal --error-code 409; echo $$; exec cat";
    let lock = ["--lock", "telegram-bot-token=123456:secret", "--metadata", "{\"a\": 1}"];
    let command = ["--", "/bin/sh", "-c", script];
    let arguments = [&["run", "--no-backoff"], &lock[..], &command[..]].concat();
    let mut run = Process::start(sandbox.incumbent(arguments));
    let pid = run.pid().to_string();
    while run.line().parse::<u32>().is_err() {}
    sandbox.cli(["marker", "write", "planned_stop", "--pid", &pid]).assert_code(0);
    let expected = [
        "gateway.lock written",
        "gateway.pid written",
        "gateway_state.json written",
        "telegram-bot-token-210fd51512083fab.lock written",
        ".gateway-planned-stop.json written",
    ];
    assert_eq!(export(0), expected);
    let record = older.read("gateway.pid");
    let keys = |document: &Value| {
        document.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keys(&record), "pid kind argv start_time");
    assert_eq!(record["pid"], run.pid());
    assert_eq!(record["start_time"], Stat::of(run.pid()).unwrap().start_time);
    let status = older.read("gateway_state.json");
    let fields = "gateway_state exit_reason restart_requested active_agents platforms updated_at";
    assert_eq!(keys(&status), format!("pid kind argv start_time {fields}"));
    assert_eq!(
        (&status["gateway_state"], &status["active_agents"]),
        (&json!("running"), &json!(3))
    );
    let telegram = &status["platforms"]["telegram"];
    assert_eq!(keys(telegram), "state error_code error_message updated_at");
    assert!(status["updated_at"].as_str().unwrap().ends_with("+00:00"), "{status:#}");
    let lock = older.read("gateway-locks/telegram-bot-token-210fd51512083fab.lock");
    assert_eq!(lock["metadata"], json!({"a": 1}), "{lock:#}");
    assert!(!lock.to_string().contains("secret"), "{lock:#}");
    let marker = older.read(".gateway-planned-stop.json");
    assert_eq!(keys(&marker), "target_pid target_start_time stopper_pid written_at");
    for name in ["gateway.pid", "gateway.lock", "gateway_state.json"] {
        use std::os::unix::fs::MetadataExt;
        let facts = std::fs::metadata(older.file(name)).unwrap();
        assert_eq!(facts.mode() & 0o777, 0o600, "{name}");
    }

    // Never over a lock file that is there.
    assert_eq!(export(0)[0], "gateway.lock left");
    // It is not held: without `--legacy-home` the older program is not kept out.
    assert_eq!(older.running(), "None");

    // Round trip into another store.
    assert_eq!(export(0), expected);
    let elsewhere = sandbox.file("elsewhere.db");
    let locks = older.file("gateway-locks");
    let mut import = sandbox.incumbent(["--json", "import", older.home(), "--lock-dir"]);
    import.arg(locks).env("INCUMBENT_DB", &elsewhere);
    let rows = Process::start(import).finish(LIMIT).assert_code(0).json();
    let verdicts: Vec<_> = rows.as_array().unwrap().iter().map(|row| &row["verdict"]).collect();
    // The lock file is not locked, and the kernel's word about that comes first.
    assert_eq!(verdicts, ["imported", "live", "stale", "stale", "live"], "{rows:#}");

    run.finish(LIMIT).assert_code(0);
    assert_eq!(export(0), ["gateway.lock left", "gateway.pid left", "gateway_state.json written"]);
    assert_eq!(older.read("gateway_state.json")["gateway_state"], "stopped");

    // The files of an older gateway that lives are its own.
    std::fs::remove_file(older.file("gateway.pid")).unwrap();
    let gateway = older.gateway();
    let before = older.read("gateway_state.json");
    let answer = sandbox.cli(["export", older.home()]).assert_code(75);
    let holder = format!("pid {}", gateway.pid());
    answer.assert_complains(&["nothing was written", "older gateway", &holder]);
    assert_eq!(older.read("gateway_state.json"), before);
}

/// Symptom: an export wrote over the `gateway.pid` and the lock files of a live older gateway,
/// because these had no start time. What an import takes for alive, an export leaves alone.
#[test]
fn an_export_leaves_the_files_of_a_live_process_alone() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let run = sandbox.hold(&["--lock", "telegram-bot-token=123456:secret"]);
    let mut gateway = older.named();
    let pid = gateway.pid().to_string();
    for shape in ["bare", "null", "json"] {
        older.write("gateway.pid", shape, gateway.pid());
        let before = std::fs::read(older.file("gateway.pid")).unwrap();
        let answer = sandbox.cli(["export", older.home()]).assert_code(75);
        answer.assert_complains(&["nothing was written", &pid]);
        assert_eq!(std::fs::read(older.file("gateway.pid")).unwrap(), before);
    }
    std::fs::remove_file(older.file("gateway.pid")).unwrap();
    let locks = older.file("gateway-locks");
    std::fs::create_dir(&locks).unwrap();
    let lock = locks.join("telegram-bot-token-210fd51512083fab.lock");
    older.write_at(&lock, &["lock", &pid]);
    let mut document: Value = serde_json::from_slice(&std::fs::read(&lock).unwrap()).unwrap();
    document["start_time"] = Value::Null;
    std::fs::write(&lock, document.to_string()).unwrap();
    let verdict = || {
        let (code, rows) = sandbox.json(["export", older.home()]);
        assert_eq!(code, 0, "{rows:#}");
        let is_lock = |row: &&Value| row["file"] == lock.to_str().unwrap();
        let rows = rows.as_array().unwrap();
        rows.iter().find(is_lock).unwrap()["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!(verdict(), "left");
    assert_eq!(std::fs::read_to_string(&lock).unwrap(), document.to_string());
    gateway.kill();
    assert_eq!(verdict(), "written");
    run.end().assert_code(0);
}
