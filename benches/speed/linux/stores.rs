//! Stores with many others in them: 500 live processes; and, in the big one, also 10,000 ended
//! incarnations, 1,000 locks and 100,000 events.

use std::io::{BufRead, BufReader, PipeReader, PipeWriter};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rusqlite::Connection;

use super::library::store;
use super::roles::{Role, text};

pub const LIVE: usize = 500;

const ENDED: i64 = 10_000;

const EVENTS: i64 = 100_000;

/// Where everything of one run lives.
pub struct Places {
    root: tempfile::TempDir,
}

impl Places {
    pub fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a scratch directory") }
    }

    /// A new directory; the same name gives the same one.
    pub fn directory(&self, name: &str) -> PathBuf {
        let directory = self.root.path().join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        directory
    }

    pub fn store(&self, name: &str) -> PathBuf {
        self.directory(name).join("state.db")
    }
}

/// Many processes that hold something and sleep, until this is dropped.
pub struct Crowd {
    live: PathBuf,
    big: PathBuf,
    children: Vec<Child>,
    /// All sleep until this is closed.
    gate: Option<PipeWriter>,
    waiting: PipeReader,
    said: BufReader<PipeReader>,
    say: PipeWriter,
}

impl Crowd {
    /// Nobody yet.
    pub fn new(live: &Path, big: &Path) -> Self {
        for path in [live, big] {
            drop(store(path));
        }
        fill(big);
        let (waiting, gate) = std::io::pipe().expect("a pipe");
        let (said, say) = std::io::pipe().expect("a pipe");
        Self {
            live: live.to_owned(),
            big: big.to_owned(),
            children: Vec::new(),
            gate: Some(gate),
            waiting,
            said: BufReader::new(said),
            say,
        }
    }

    pub fn grow_to(&mut self, count: usize) {
        while self.children.len() < count {
            let name = format!("live{}", self.children.len());
            let child = Role::command(&["live", text(&self.live), text(&self.big), &name])
                .stdin(Stdio::from(self.waiting.try_clone().expect("a pipe")))
                .stdout(Stdio::from(self.say.try_clone().expect("a pipe")))
                .spawn()
                .expect("a process");
            self.children.push(child);
            let mut line = String::new();
            self.said.read_line(&mut line).expect("a line");
            assert_eq!(line, "ready\n");
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.gate.take());
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

/// What was there before: the history of 50 offices, each as long as it ever gets.
fn fill(path: &Path) {
    let connection = Connection::open(path).expect("a database");
    connection
        .execute_batch(&format!(
            "BEGIN;
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ENDED})
             INSERT INTO instances (id, nonce_hash, profile, kind, origin, pid, start_time,
                 start_time_unit, boot_id, pid_ns, host, uid, argv, party, supervisor,
                 stop_budget_ms, anchor, started_at_ms, ended_at_ms, end_reason)
             SELECT i, '0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef',
                 'old' || (i % 50), 'gateway', 'library', 4711, i, 'ticks', 'boot', 'ns', 'host', 0,
                 '[\"gateway\",\"--config\",\"/etc/gateway.toml\"]', 'party', 'none', 90000,
                 'ended-' || i || '.lock', 1795305600000 + i, 1795305600001 + i, 'released' FROM n;
             INSERT INTO starts (profile, kind, outcome, instance_id, pid, party, counted, at_ms,
                 at_boot_ms, boot_id)
             SELECT profile, kind, 'granted', id, pid, 'party', 0, started_at_ms, 1, 'boot'
             FROM instances WHERE id <= {ENDED};
             INSERT OR IGNORE INTO profiles (profile, created_at_ms)
             SELECT DISTINCT profile, 0 FROM instances WHERE id <= {ENDED};
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {EVENTS})
             INSERT INTO events (at_ms, event, profile, kind, instance_id, pid)
             SELECT 1795305600000 + i, iif(i % 2, 'office_claimed', 'office_ended'),
                 'old' || (i % 50), 'gateway', i % {ENDED} + 1, 4711 FROM n;
             COMMIT;"
        ))
        .expect("a past");
}
