//! A store that the disk, a copy or a person has damaged: no crash, no hang, no wrong owner; and
//! `doctor --fix` brings back one that works, keeps every byte of the old one, and what can be read
//! of it.

mod bytes;
mod recovery;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::{Answer, LIMIT, Process, Sandbox, assert_within};

const PAGE: usize = 4096;

/// What takes longer hangs. A sound store answers in milliseconds.
const ANSWERED_WITHIN: Duration = LIMIT;

/// A store with something in every table, and its files as they are while nobody has them open.
struct Sample {
    sandbox: Sandbox,
    database: Vec<u8>,
    wal: Vec<u8>,
}

impl Sample {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        for number in 0..20 {
            let profile = format!("p{}", number % 5);
            let run = ["--profile", &profile, "run", "--no-backoff", "--", "true"];
            sandbox.cli(run).assert_code(0);
        }
        let script = "incumbent status-set --state running --platform telegram \
                      --platform-state fatal --error-message boo && \
                      incumbent marker write hello --pid $$ && \
                      incumbent lock acquire token one && kill -9 $PPID";
        sandbox.cli(["run", "--no-backoff", "--", "/bin/sh", "-c", script]).assert_code(137);
        let (database, wal) = (sandbox.db(), wal_of(&sandbox.db()));
        let read = |path: &Path| std::fs::read(path).unwrap();
        // Whoever closes it may empty a long one.
        let mut runs = (0..4).map(|_| {
            sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
            read(&wal)
        });
        let wal = runs.find(|wal| wal.len() > 20 * PAGE).unwrap();
        // Everything into the database, so that damage to it is damage to what is in the store.
        let connection = rusqlite::Connection::open(&database).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(connection);
        let database = read(&database);
        assert!(database.len() > 20 * PAGE);
        Self { sandbox, database, wal }
    }

    /// Puts these files in the place of the store.
    fn put(&self, database: &[u8], wal: &[u8]) {
        for path in files_of(&self.sandbox) {
            if path.is_file() {
                std::fs::remove_file(path).unwrap();
            } else if path != self.sandbox.anchors() {
                std::fs::remove_dir_all(path).unwrap();
            }
        }
        let db = self.sandbox.db();
        for (path, bytes) in [(db.clone(), database), (wal_of(&db), wal)] {
            std::fs::write(&path, bytes).unwrap();
        }
    }

    /// Asks everything, and starts; then repairs, and all of it has to work.
    fn assert_survived(&self, what: &str) {
        let sandbox = &self.sandbox;
        for verb in [
            &["status"][..],
            &["status", "--all"],
            &["history"],
            &["locks"],
            &["sql", "SELECT * FROM incarnations"],
            &["doctor"],
            &["run", "--no-backoff", "--", "true"],
            &["lock", "acquire", "a", "b", "--pid", &std::process::id().to_string(), "--no-keeper"],
        ] {
            let started = Instant::now();
            let answer = sandbox.cli(verb);
            assert_within(ANSWERED_WITHIN, started.elapsed(), &format!("{what}: {verb:?}"));
            assert_typed(&answer, &format!("{what}: {verb:?}"));
        }
        let damaged = std::fs::read(sandbox.db()).unwrap();
        let repaired = sandbox.cli(["doctor", "--fix"]);
        assert!(matches!(repaired.code(), 0 | 1), "{what}: {repaired:#?}");
        let aside = asides(sandbox);
        if let Some(aside) = aside.first() {
            assert_eq!(
                std::fs::read(aside).unwrap(),
                damaged,
                "{what}: the old bytes have changed"
            );
        }
        self.assert_works(&format!("{what}, {repaired:#?}"));
    }

    fn assert_works(&self, what: &str) {
        let sandbox = &self.sandbox;
        let run = ["run", "--no-backoff", "--", "true"];
        let ran = sandbox.cli(run);
        assert_eq!(ran.code(), 0, "{what}: {ran:#?}");
        let (code, status) = sandbox.status();
        assert_eq!((code, status["reason"].as_str()), (3, Some("exited")), "{what}: {status:#}");
        let pid = std::process::id().to_string();
        let lock = ["lock", "acquire", "x", "y", "--pid", &pid, "--no-keeper"];
        let locked = sandbox.cli(lock);
        assert_eq!(locked.code(), 0, "{what}: {locked:#?}");
        let connection = rusqlite::Connection::open(sandbox.db()).unwrap();
        let check: String =
            connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok", "{what}");
    }
}

fn wal_of(db: &Path) -> PathBuf {
    db.with_file_name("state.db-wal")
}

fn files_of(sandbox: &Sandbox) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(sandbox.file("store")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The databases that were moved aside.
fn asides(sandbox: &Sandbox) -> Vec<PathBuf> {
    let is_aside = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("state.db.damaged-") && name.ends_with('Z') && path.is_file()
    };
    let mut asides: Vec<_> = files_of(sandbox).into_iter().filter(is_aside).collect();
    asides.sort();
    asides
}

/// Right, or an error with a kind of its own that says what to do.
#[track_caller]
fn assert_typed(answer: &Answer, what: &str) {
    assert!(matches!(answer.code(), 0 | 1 | 3 | 70 | 75 | 78), "{what}: {answer:#?}");
    assert!(!answer.err.contains("panicked"), "{what}: {answer:#?}");
    if answer.code() == 70 {
        let says_what_to_do = answer.err.contains("doctor --fix") || answer.err.contains("try:");
        assert!(says_what_to_do, "{what}: {answer:#?}");
    }
}

/// The damage of the other tests: garbage in the page where `table` begins.
pub fn destroy_root_of(sandbox: &Sandbox, table: &str) -> Vec<u8> {
    let connection = rusqlite::Connection::open(sandbox.db()).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let page: i64 = connection
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [table], |row| row.get(0))
        .unwrap();
    drop(connection);
    // By another process: one that opens the file here would cancel locks of this one.
    let script = format!(
        "head -c {PAGE} /dev/urandom | dd of=\"$INCUMBENT_DB\" bs={PAGE} seek={} conv=notrunc 2>&1",
        page - 1
    );
    Process::start(sandbox.shell(&script)).finish(LIMIT).assert_code(0);
    std::fs::read(sandbox.db()).unwrap()
}
