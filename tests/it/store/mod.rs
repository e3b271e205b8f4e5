//! Opening a store: whose place is it, what lies there already, what does the disk allow, and what
//! if it is damaged?

mod backup;
mod beside;
mod budgets;
mod busy;
pub mod damage;
mod disks;
mod foreign;
mod modes;
mod names;
mod one_way_in;
mod query;

use std::path::PathBuf;
use std::process::Command;

use rusqlite::Connection;
use serde_json::Value;

use crate::support::{LIMIT, Process, Sandbox, set_mode};

/// Everything that asks.
pub const QUESTIONS: [&[&str]; 4] =
    [&["status"], &["history"], &["events"], &["sql", "SELECT * FROM gateways"]];

impl Sandbox {
    fn store(&self) -> PathBuf {
        self.file("store")
    }

    fn make_store_directory(&self, mode: u32) {
        std::fs::create_dir(self.store()).unwrap();
        set_mode(&self.store(), mode);
    }

    /// A store that is used once, so that there is something in it.
    pub fn make_store(&self) {
        self.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    }

    /// Moves all that is in the write-ahead log to the file itself.
    fn checkpoint(&self) {
        let connection = Connection::open(self.db()).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }
}

/// Runs it with `--json`, and asserts the error that comes of it.
#[track_caller]
pub fn assert_error(command: Command, code: i32, kind: &str) -> Value {
    let answer = Process::start(command).finish(LIMIT);
    assert_eq!(answer.code(), code, "{answer:#?}");
    let document = answer.json();
    assert_eq!(document["error"]["kind"], kind, "{document:#}");
    document["error"].clone()
}

pub const START: &[&str] = &["run", "--no-backoff", "--", "echo", "started"];

pub fn as_json(verb: &'static [&'static str]) -> Vec<&'static str> {
    [&["--json"], verb].concat()
}
