//! What older gateways and their files do beside rows of ours: one directory for two profiles, later versions
//! that look again and again, and words in files that name nobody.

use serde_json::json;

use crate::support::older::{Older, has_python};
use crate::support::{LIMIT, Process, Sandbox, Stat, eventually, skipped};

/// FIELD-BUGS row 137. Symptom: a bare `gateway.pid` whose number a thread of the kernel has by now counted as
/// a live gateway: an empty command line was equal to the empty one on record. It holds because a thread of
/// the kernel is known by its flags, and is no gateway, in every kind of file.
#[test]
fn a_kernel_thread_in_a_file_is_no_gateway() {
    if !has_python() {
        return;
    }
    let Some(thread) = kernel_thread() else {
        return skipped("no thread of the kernel is visible");
    };
    for shape in ["bare", "null", "bom-null", "wordless"] {
        let sandbox = Sandbox::new();
        let older = Older::new(&sandbox);
        older.write("gateway.pid", shape, thread);
        older.assert_import(0, &["gateway.pid stale identity_mismatch"]);
        older.hold().end().assert_code(0);
    }
    let sandbox = Sandbox::new();
    let older = Older::new(&sandbox);
    std::fs::create_dir(older.locks()).unwrap();
    older.write("gateway.lock", "bare", thread);
    older.write("gateway_state.json", "status-null", thread);
    older.write_at(&older.locks().join("telegram.lock"), &["lock-null", &thread.to_string()]);
    older.write(".gateway-takeover.json", "fresh-null", thread);
    older.assert_import(
        0,
        &[
            ".gateway-takeover.json stale identity_mismatch",
            "gateway.lock stale anchor_released",
            "gateway_state.json imported identity_mismatch",
            "telegram.lock stale identity_mismatch",
        ],
    );
    older.hold().end().assert_code(0);
}

/// The other side of row 137: an ordinary process that shows no command line could be any, and nobody is
/// evicted for that.
#[test]
fn a_process_that_shows_no_command_line_is_not_known_to_be_dead() {
    if !has_python() {
        return;
    }
    let sandbox = Sandbox::new();
    let older = Older::new(&sandbox);
    let mut command = sandbox.program("python3");
    command.args(["-c", crate::support::WITHOUT_MAIN_THREAD]);
    let mut wordless = Process::start(command);
    assert_eq!(wordless.line(), "alone");
    for shape in ["bare", "wordless"] {
        older.write("gateway.pid", shape, wordless.pid());
        assert_eq!(older.import_with_code(0), ["gateway.pid unknown not_verifiable"], "{shape}");
    }
    let holder = older.refused();
    assert_eq!(
        (&holder["pid"], &holder["verdict"]),
        (&json!(wordless.pid()), &json!("unknown")),
        "{holder:#}"
    );
    wordless.kill();
    older.hold().end().assert_code(0);
}

fn kernel_thread() -> Option<u32> {
    let stat = std::fs::read_to_string("/proc/2/stat").ok()?;
    stat.starts_with("2 (kthreadd)").then_some(2)
}

/// A directory of locks that is not there, or is none, leaves the rest to be imported, and is named.
#[test]
fn an_import_without_its_directory_of_locks_imports_the_rest() {
    if !has_python() {
        return;
    }
    let sandbox = Sandbox::new();
    let older = Older::new(&sandbox);
    let gateway = older.gateway();
    let import = |directory: &str| {
        let (code, document) = sandbox.json(["import", older.home(), "--lock-dir", directory]);
        assert_eq!(code, 0, "{document:#}");
        let rows = document.as_array().unwrap().clone();
        let row = rows.iter().find(|row| row["file"] == directory).unwrap();
        (rows.len(), row["verdict"].clone(), row["reason"].clone())
    };
    assert_eq!(import("missing"), (3, json!("missing"), json!("no_directory")));
    std::fs::write(sandbox.file("plain"), "").unwrap();
    assert_eq!(import("plain"), (3, json!("missing"), json!("not_a_directory")));
    assert_eq!(sandbox.status().1["pid"], gateway.pid());
    let answer = sandbox.cli(["import", older.home(), "--lock-dir", "missing"]).assert_code(0);
    assert!(answer.out.contains("no directory"), "{answer:#?}");

    // Nothing else to import.
    std::fs::create_dir(sandbox.file("empty")).unwrap();
    let (code, document) =
        sandbox.json(["import", "empty", "--lock-dir", "missing", "--profile", "p"]);
    assert_eq!((code, document.as_array().map(Vec::len)), (0, Some(1)), "{document:#}");
}

/// Symptom: a gateway that had been running for days was shown as started by the import. It holds because its
/// row is dated back by the kernel's start time, on both clocks: else they would look as after a restart.
#[test]
fn an_imported_gateway_shows_its_own_start() {
    if !has_python() {
        return;
    }
    let sandbox = Sandbox::new();
    let older = Older::new(&sandbox);
    let gateway = older.gateway();
    eventually("the gateway is two seconds old", LIMIT, || {
        (age_ms(gateway.pid()) > 2_000).then_some(())
    });
    older.refused();
    let row = |column: &str| {
        sandbox.number(&format!("SELECT {column} FROM instances WHERE ended_at_ms IS NULL"))
    };
    let age_on_record = sandbox.number(
        "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - started_at_ms
         FROM instances WHERE ended_at_ms IS NULL",
    );
    let age = age_ms(gateway.pid());
    // Ticks are 10 ms, and the two looks are apart.
    assert!(age_on_record > 1_900 && age_on_record <= age + 100, "{age_on_record} {age}");
    assert!(row("written_boot_clock_ms") > 0);
    sandbox.assert_status(0, "alive", "anchor_held");

    // A boot id that differs is doubt: the clocks show no restart.
    sandbox.forge("UPDATE instances SET boot_id = 'other'");
    sandbox.assert_status(0, "alive", "anchor_held");
    older.refused();
}

fn age_ms(pid: u32) -> i64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let started = Stat::of(pid).unwrap().start_time;
    #[allow(clippy::cast_possible_truncation, reason = "milliseconds")]
    let now_ms = (seconds * 1_000.0) as i64;
    now_ms - i64::try_from(started).unwrap() * 10
}
