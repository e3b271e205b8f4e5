//! What is not ours stays as it is: other databases, links, damaged files.

use std::os::unix::fs::{chown, symlink};
use std::path::Path;

use rusqlite::Connection;
use serde_json::json;

use super::{QUESTIONS, START, as_json, assert_error};
use crate::support::{
    LIMIT, NOBODY, Process, Sandbox, assert_untouched, fingerprint, is_root, set_mode, skipped,
};

fn another_programs_database(path: &Path, journal_mode: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "journal_mode", journal_mode).unwrap();
    connection
        .execute_batch("CREATE TABLE songs (title); INSERT INTO songs VALUES ('a'), ('b')")
        .unwrap();
    connection
}

/// Symptom of the like: a tool that "ensured its schema" in whatever file it was pointed to. It
/// holds because the file says whose it is before anything is written, its mode included.
#[test]
fn another_programs_file_stays_as_it_is() {
    type Make = fn(&Path);
    let text: Make = |db| std::fs::write(db, "milk\n".repeat(300)).unwrap();
    let short: Make = |db| std::fs::write(db, "milk\n").unwrap();
    let rollback: Make = |db| drop(another_programs_database(db, "DELETE"));
    let checkpointed: Make = |db| drop(another_programs_database(db, "WAL"));
    let with_frames: Make = |db| {
        // As a crash leaves it: the rows are in the log alone.
        let origin = db.with_file_name("origin.db");
        let connection = another_programs_database(&origin, "WAL");
        for suffix in ["", "-wal"] {
            let from = db.with_file_name(format!("origin.db{suffix}"));
            std::fs::copy(&from, db.with_file_name(format!("state.db{suffix}"))).unwrap();
        }
        drop(connection);
        std::fs::remove_file(&origin).unwrap();
        assert!(std::fs::metadata(db.with_file_name("state.db-wal")).unwrap().len() > 0);
    };
    let versioned: Make = |db| {
        let connection = Connection::open(db).unwrap();
        connection.pragma_update(None, "user_version", 7).unwrap();
    };
    for (what, make) in [
        ("a text", text),
        ("a short text", short),
        ("a database", rollback),
        ("a database in WAL mode", checkpointed),
        ("a database with frames in its log", with_frames),
        ("an empty database with a version", versioned),
    ] {
        for open in [0o644, 0o600, 0o666] {
            let sandbox = Sandbox::new();
            sandbox.make_store_directory(0o755);
            make(&sandbox.db());
            set_mode(&sandbox.db(), open);
            if sandbox.sidecar("-wal").exists() {
                set_mode(&sandbox.sidecar("-wal"), open);
            }
            let before = fingerprint(sandbox.path());
            for verb in [START, &["claim"], &["evict"], QUESTIONS[0], QUESTIONS[3]] {
                let error = assert_error(sandbox.incumbent(as_json(verb)), 78, "not_ours");
                assert!(error["hint"].as_str().unwrap().contains("--db"), "{what}: {error:#}");
                assert_eq!(error["path"], sandbox.db().to_str().unwrap(), "{what}");
                assert_untouched(&before, sandbox.path(), &format!("{what}, {verb:?}"));
            }
        }
    }
}

/// A user may put anything in his own directory; root, who opens a store there, must not be led to
/// change what lies elsewhere.
#[test]
fn links_in_a_users_directory_do_not_lead_root_astray() {
    if !is_root() {
        return skipped("needs root");
    }
    for name in ["state.db-wal", "state.db-shm", "state.db-journal", "state.db.anchors"] {
        for is_directory in [false, true] {
            let sandbox = Sandbox::new();
            sandbox.open_to_nobody();
            sandbox.make_store_directory(0o700);
            chown(sandbox.store(), Some(NOBODY), Some(NOBODY)).unwrap();
            let elsewhere = Sandbox::new();
            let victim = elsewhere.file("victim");
            if is_directory {
                std::fs::create_dir(&victim).unwrap();
                set_mode(&victim, 0o755);
            } else {
                std::fs::write(&victim, "precious").unwrap();
                set_mode(&victim, 0o644);
            }
            symlink(&victim, sandbox.store().join(name)).unwrap();
            let before = fingerprint(elsewhere.path());
            let what = format!("{name} -> {}", if is_directory { "directory" } else { "file" });
            for verb in [START, &["claim"], QUESTIONS[0]] {
                let answer = sandbox.cli(verb);
                assert!(answer.code() < 128, "{what}: {answer:#?}");
                assert_untouched(&before, elsewhere.path(), &format!("{what}, {verb:?}"));
            }
        }
    }
}

/// Nothing but a regular file is opened: a pipe would block, a device would act.
#[test]
fn what_is_not_a_regular_file_is_refused() {
    for what in ["pipe", "socket", "link to a device"] {
        let sandbox = Sandbox::new();
        sandbox.make_store_directory(0o700);
        let _socket = match what {
            "pipe" => {
                let answer = Process::start(sandbox.shell("mkfifo store/state.db")).finish(LIMIT);
                answer.assert_code(0);
                None
            }
            "socket" => Some(std::os::unix::net::UnixListener::bind(sandbox.db()).unwrap()),
            _ => {
                symlink("/dev/null", sandbox.db()).unwrap();
                None
            }
        };
        let before = fingerprint(sandbox.path());
        for verb in [START, QUESTIONS[0]] {
            let answer = sandbox.cli(verb);
            assert!(matches!(answer.code(), 2 | 78), "{what}: {answer:#?}");
            assert!(answer.err.contains("  try:   "), "{what}: {answer:#?}");
            assert_eq!(answer.out, "", "{what}");
        }
        assert_untouched(&before, sandbox.path(), what);
    }
}

/// FIELD-BUGS rows 58 and 72: damage is an error of its own. It is neither "nobody runs" nor a
/// crash, and nobody starts on top of it.
#[test]
fn a_damaged_store_is_said_to_be_damaged() {
    type Damage = fn(&mut Vec<u8>);
    let cases: [(&str, Damage); 6] = [
        ("cut off in its first page", |content| content.truncate(1_000)),
        ("cut off after two pages", |content| content.truncate(8_192)),
        ("a header of zeros", |content| content[..100].fill(0)),
        ("a first page of zeros", |content| content[..4_096].fill(0)),
        ("garbage from the second page on", |content| content[4_096..].fill(0xa5)),
        ("no list of tables", |content| content[100..4_096].fill(0xff)),
    ];
    for (what, damage) in cases {
        let sandbox = Sandbox::new();
        sandbox.make_store();
        sandbox.checkpoint();
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(sandbox.sidecar(suffix));
        }
        let mut content = std::fs::read(sandbox.db()).unwrap();
        damage(&mut content);
        std::fs::write(sandbox.db(), &content).unwrap();
        for verb in [START, &["claim"], &["evict"], QUESTIONS[0], QUESTIONS[1], QUESTIONS[2]] {
            let answer = sandbox.cli(as_json(verb));
            assert!(matches!(answer.code(), 70 | 78), "{what}: {verb:?}: {answer:#?}");
            let error = answer.json()["error"].clone();
            let kind = error["kind"].as_str().unwrap();
            assert!(matches!(kind, "corrupt" | "not_ours"), "{what}: {verb:?}: {error:#}");
            assert!(error["hint"].is_string(), "{what}: {error:#}");
            assert_eq!(error["path"], sandbox.db().to_str().unwrap(), "{what}");
        }
        assert!(std::fs::read(sandbox.db()).unwrap() == content, "{what}: written to");
    }
    let sandbox = Sandbox::new();
    sandbox.make_store();
    sandbox.forge("DELETE FROM meta");
    let error = assert_error(sandbox.incumbent(as_json(START)), 70, "corrupt");
    assert!(error["message"].as_str().unwrap().contains("meta"), "{error:#}");
}

/// A later program may close a store to older writers without changing its schema: that is no
/// damage, and no reason to move the store aside.
#[test]
fn a_store_that_a_later_program_closed_is_not_damaged() {
    let sandbox = Sandbox::new();
    sandbox.hold(&[]).end().assert_code(0);
    let later = sandbox.number("PRAGMA user_version") + 2;
    sandbox.forge(&format!("UPDATE meta SET value = {later} WHERE key = 'min_writer'"));
    let (code, answer) = sandbox.json(["claim", "--pid", &std::process::id().to_string()]);
    assert_eq!((code, &answer["error"]["kind"]), (78, &json!("too_new")), "{answer:#}");
    assert!(answer["error"]["hint"].as_str().unwrap().contains("upgrade"), "{answer:#}");
    let told = sandbox.cli(["doctor"]).assert_code(1);
    assert!(
        told.out.contains("too new for this program") && !told.out.contains("damaged"),
        "{told:#?}"
    );
    sandbox.cli(["doctor", "--fix"]);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances"), 1, "nothing was moved aside");
    sandbox.cli(["status"]).assert_code(3);
}
