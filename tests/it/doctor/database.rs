//! The database: its schema, its rows, its log.

use rusqlite::Connection;

use super::Diagnosis;
use crate::support::{LIMIT, Process, Sandbox, set_mode};

/// FIELD-BUGS row 74. The library's own version is tested where it is decided; people write with
/// the shell.
#[test]
fn the_shell_on_the_path_is_asked_for_its_version() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    for (script, severity, words) in [
        ("echo '3.40.1 2022-12-28 14:03:47 df5c'", "info", "3.40.1"),
        ("echo '3.50.7 2026-01-01 00:00:00 abcd (64-bit)'", "ok", "3.50.7"),
        ("echo no", "unknown", "does not say"),
        ("exec sleep 100", "unknown", "did not answer within 1 s"),
    ] {
        sandbox.fake_program("sqlite3", script);
        let diagnosis = sandbox.doctor_with_programs();
        diagnosis.assert("sqlite_shell", severity, &[words]);
        diagnosis.assert_silent("sqlite_library");
        assert_eq!(diagnosis.code, 0);
    }
    let mut alone = sandbox.doctor_command(&[]);
    alone.env("PATH", sandbox.file("home"));
    std::fs::remove_file(sandbox.file("bin/sqlite3")).unwrap();
    Diagnosis::of(&Process::start(sandbox.among_fakes(alone)).finish(LIMIT)).assert(
        "sqlite_shell",
        "ok",
        &["no sqlite3"],
    );
}

/// FIELD-BUGS row 81: older and newer programs share a store.
#[test]
fn the_schema_is_compared_with_the_tables() {
    let sandbox = Sandbox::new();
    for version in 1..=5 {
        sandbox.used();
        sandbox.age_to(version);
        sandbox.sidecars_made();
        let before = sandbox.picture();
        let diagnosis = sandbox.doctor();
        diagnosis.assert("schema", "info", &[&format!("version {version}")]);
        diagnosis.assert_only(&[]);
        for finding in &diagnosis.findings {
            assert_ne!(finding["severity"], "unknown", "of version {version}: {finding:#}");
        }
        assert!(sandbox.picture() == before, "a question migrated");
    }
    let fixed = sandbox.doctor_with(&["--fix"]);
    let act = fixed.about("schema")[0]["act"].as_str().unwrap();
    assert!(act.starts_with("done: bring the schema from version 5"), "{act}");
    assert_eq!(
        sandbox.number(
            "SELECT count(*) FROM events WHERE event = 'store_migrated' AND \
    json_extract(detail, '$.from') = 5"
        ),
        1
    );
    sandbox.doctor().assert_silent("schema");

    sandbox.batch("PRAGMA user_version = 99");
    sandbox.doctor().assert("schema", "info", &["version 99", "newer"]);
    sandbox.doctor().assert_only(&[]);
    sandbox.batch("UPDATE meta SET value = 99 WHERE key = 'min_writer'");
    sandbox.doctor().assert("schema", "error", &["too new for this program"]);
    // A bit of the number is flipped: a migration would fail at the first table.
    sandbox.batch("UPDATE meta SET value = 1 WHERE key = 'min_writer'; PRAGMA user_version = 4");
    let diagnosis = sandbox.doctor();
    diagnosis.assert("open", "error", &["version 4", "damaged"]);
    let before = sandbox.picture();
    let dry = sandbox.doctor_with(&["--fix", "--dry-run"]);
    let act = dry.about("open")[0]["act"].as_str().unwrap();
    assert!(act.starts_with("would move"), "{act}");
    assert!(sandbox.picture() == before, "something was written");
}

/// Rows that lean on an incarnation that is gone: somebody deleted by hand.
#[test]
fn rows_that_belong_to_nobody_are_found_and_deleted() {
    let sandbox = Sandbox::new();
    sandbox.used();
    sandbox.batch(
        "INSERT INTO scoped_locks (scope, identity_hash, instance_id, fence, acquired_at_ms)
             VALUES ('token', '0123456789abcdef', 12, 13, 14);
         INSERT INTO serves (instance_id, profile, since_at_ms) VALUES (12, 'a', 1), (13, 'b', 1)",
    );
    let diagnosis = sandbox.doctor();
    let words = ["1 row of scoped_locks", "2 rows of serves"];
    let finding = diagnosis.assert("integrity", "warning", &words);
    diagnosis.assert_only(&["integrity"]);
    sandbox.try_remedy(finding, "incumbent doctor --fix").assert_code(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM scoped_locks"), 0);
    assert_eq!(sandbox.number("SELECT count(*) FROM serves"), 0);
    sandbox.doctor().assert_only(&[]);
}

/// Bytes in the middle, bytes at the beginning: an answer, a remedy, and nothing written.
#[test]
fn a_damaged_store_is_found_out_and_not_touched_by_the_question() {
    for (offset, id) in [(4096 * 3 + 5, "integrity"), (0, "open"), (68, "open")] {
        let sandbox = Sandbox::new();
        sandbox.used();
        sandbox.checkpointed();
        let mut bytes = std::fs::read(sandbox.db()).unwrap();
        for byte in &mut bytes[offset..offset + 20] {
            *byte ^= 0x5a;
        }
        std::fs::write(sandbox.db(), &bytes).unwrap();
        sandbox.sidecars_made();
        let before = sandbox.picture();
        let diagnosis = sandbox.doctor();
        let finding = diagnosis.assert(id, "error", &["damaged"]);
        assert!(finding["remedy"].as_str().unwrap().contains("doctor --fix"), "{finding:#}");
        let dry = sandbox.doctor_with(&["--fix", "--dry-run"]);
        let act = dry.about(id)[0]["act"].as_str().unwrap_or_default().to_owned();
        assert!(act.starts_with("would move"), "at {offset}: {dry:#?}");
        assert!(sandbox.picture() == before, "at {offset}");
    }
}

/// Of a store that is damaged at its root nothing else can be said, and that is said once.
#[test]
fn what_a_damaged_store_hides_is_one_line() {
    let sandbox = Sandbox::new();
    sandbox.used();
    sandbox.checkpointed();
    let mut bytes = std::fs::read(sandbox.db()).unwrap();
    bytes[100] ^= 0x5a;
    std::fs::write(sandbox.db(), &bytes).unwrap();
    let text = sandbox.cli(["doctor"]).assert_code(1).out;
    assert!(text.starts_with("error integrity: the database is damaged"), "{text}");
    let hidden: Vec<&str> = text.lines().filter(|line| line.starts_with("unknown ")).collect();
    assert!(hidden.len() == 1 && hidden[0].contains("stale_rows, unknown_holders"), "{text}");
}

/// Truncated by a full disk or a careless copy: what is empty is no store, but was one.
#[test]
fn a_store_that_was_emptied_is_a_problem() {
    let sandbox = Sandbox::new();
    sandbox.used();
    sandbox.checkpointed();
    std::fs::write(sandbox.db(), "").unwrap();
    let diagnosis = sandbox.doctor();
    diagnosis.assert("open", "warning", &["is empty", "show that it was a store"]);
    diagnosis.assert_only(&["open"]);
    sandbox.used();
    sandbox.doctor().assert_only(&[]);
}

/// A database of another program is not ours to repair.
#[test]
fn a_store_of_another_program_is_left_alone() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.file("store")).unwrap();
    set_mode(&sandbox.file("store"), 0o700);
    sandbox
        .batch("PRAGMA journal_mode = DELETE; CREATE TABLE theirs (a); PRAGMA application_id = 7");
    set_mode(&sandbox.db(), 0o600);
    sandbox.sidecars_made();
    let before = sandbox.picture();
    sandbox.doctor().assert("open", "error", &["belongs to another program"]);
    let fixed = sandbox.doctor_with(&["--fix"]);
    assert!(fixed.findings.iter().all(|it| it["act"].is_null()), "{fixed:#?}");
    assert!(sandbox.picture() == before, "it was touched");
    assert_eq!(fixed.code, 1);
}

/// FIELD-BUGS row 77: a reader that stays keeps the WAL from starting over.
#[test]
fn a_long_wal_is_found_and_emptied_once_no_reader_is_in_the_way() {
    let sandbox = Sandbox::new();
    sandbox.used();
    let reader = Connection::open(sandbox.db()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
    let _: i64 = reader.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    sandbox.batch(
        "CREATE TABLE junk (b); INSERT INTO junk VALUES (zeroblob(20 << 20)); DROP TABLE junk",
    );
    let wal = sandbox.file("store/state.db-wal");
    let length = || std::fs::metadata(&wal).unwrap().len();
    assert!(length() > 16 << 20);
    let us = format!("pid {}", std::process::id());
    sandbox.doctor().assert("wal_size", "warning", &["20 MiB", &us]);
    let fixed = sandbox.doctor_with(&["--fix"]);
    let act = fixed.about("wal_size")[0]["act"].as_str().unwrap().to_owned();
    assert!(act.starts_with("could not move the WAL"), "{act}");
    assert_eq!(fixed.code, 1);
    reader.execute_batch("COMMIT").unwrap();
    let finding = sandbox.doctor().assert("wal_size", "warning", &[]).clone();
    sandbox.try_remedy(&finding, "incumbent doctor --fix").assert_code(0);
    assert!(length() < 1 << 20, "{}", length());
    sandbox.doctor().assert_only(&[]);
}

/// FIELD-BUGS rows 12 and 13: the clock was wrong, and is right again; or the other way round.
#[test]
fn times_of_the_future_are_named() {
    let sandbox = Sandbox::new();
    sandbox.used();
    sandbox.forge("UPDATE instances SET started_at_ms = started_at_ms + 3600000");
    sandbox.doctor().assert("clock", "info", &["1 holder", "in the future"]);
    sandbox.forge("UPDATE instances SET started_at_ms = started_at_ms - 3600000");
    sandbox.doctor().assert_silent("clock");
    sandbox.forge("UPDATE meta SET value = value + 86400000000 WHERE key = 'last_id'");
    sandbox.doctor().assert("clock", "info", &["23 h ahead"]);
}
