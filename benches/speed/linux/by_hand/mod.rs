//! The same things by bare SQLite and bare system calls.
//!
//! *The yardstick* is what version 0.1 was compared with: its schema, and a connection that begins
//! each transaction and looks each statement up as that version's did. It stays as it is, whatever
//! we become. *The floor* writes the same rows into the present schema, by a connection that keeps
//! even `BEGIN` and `COMMIT` prepared: what no change above SQLite gets below.

mod locks;
mod said;

use std::fs::File;
use std::path::{Path, PathBuf};

use fs4::FileExt;
use incumbent::Store;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

pub use locks::*;
pub use said::*;

use super::measure::Once;

/// Version 0.1's, whatever migrations come after it.
const SCHEMA: &str = concat!(
    include_str!("../../../../migrations/0001_offices.sql"),
    include_str!("../../../../migrations/0002_scoped_locks.sql"),
    include_str!("../../../../migrations/0003_markers.sql"),
    include_str!("../../../../migrations/0004_runtime_status.sql"),
    include_str!("../../../../migrations/0005_shutdowns.sql"),
    include_str!("../../../../migrations/0006_legacy.sql")
);

/// A live row of this process.
const OWNER: i64 = 1_000;

const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    Yardstick,
    Floor,
}

/// A database of its own, and who writes it by hand.
pub struct Hand {
    connection: Connection,
    database: PathBuf,
    anchors: PathBuf,
    flavour: Flavour,
}

impl Hand {
    /// In a directory that is empty.
    pub fn new(flavour: Flavour, directory: &Path) -> Self {
        let database = directory.join("by-hand.db");
        let anchors = directory.join("by-hand.db.anchors");
        let connection = match flavour {
            Flavour::Yardstick => {
                std::fs::create_dir(&anchors).expect("a directory");
                let connection = Connection::open(&database).expect("a database");
                connection
                    .execute_batch(&format!(
                        "PRAGMA journal_mode = WAL; BEGIN; {SCHEMA} COMMIT;
                         INSERT INTO meta VALUES
                             ('last_id', 0), ('store_uuid', 'x'), ('min_writer', 1);"
                    ))
                    .expect("the schema");
                connection
            }
            Flavour::Floor => {
                drop(Store::open(&database).expect("a store"));
                Connection::open(&database).expect("a database")
            }
        };
        connection
            .execute_batch(
                "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;
                 INSERT INTO profiles (profile, created_at_ms) VALUES ('default', 0);",
            )
            .expect("a profile");
        Self { connection, database, anchors, flavour }
    }

    /// The same store for another process.
    pub fn join(database: &Path) -> Self {
        let connection = Connection::open(database).expect("a database");
        connection
            .execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;")
            .expect("settings");
        connection.busy_timeout(std::time::Duration::from_secs(5)).expect("a timeout");
        let anchors = database.with_extension("db.anchors");
        Self { connection, database: database.to_owned(), anchors, flavour: Flavour::Floor }
    }

    fn write(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<usize>,
    ) -> rusqlite::Result<()> {
        match self.flavour {
            Flavour::Yardstick => {
                let immediate = TransactionBehavior::Immediate;
                let tx = self.connection.transaction_with_behavior(immediate)?;
                work(&tx)?;
                tx.commit()
            }
            Flavour::Floor => {
                self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
                work(&self.connection)?;
                self.connection.prepare_cached("COMMIT")?.execute([]).map(drop)
            }
        }
    }

    /// A live row with an anchor that is held, for as long as the file is open.
    fn own(&self) -> File {
        let name = format!("{OWNER}.lock");
        let file = make_anchor(&self.anchors.join(&name));
        self.connection
            .execute(
                "INSERT INTO instances (id, nonce_hash, profile, kind, origin, pid, stop_budget_ms,
                    anchor, started_at_ms)
                 VALUES (?1, ?2, 'default', 'gateway', 'library', ?3, 90000, ?4, 1)",
                (OWNER, HASH, std::process::id(), name),
            )
            .expect("an owner");
        file
    }

    fn reader(&self) -> Connection {
        Connection::open_with_flags(&self.database, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .expect("a reader")
    }
}

/// One claim, by `pid`, of the office of `profile`.
pub fn claim(hand: &mut Hand, profile: &str, id: i64) -> rusqlite::Result<()> {
    hand.write(|tx| {
        tx.prepare_cached(
            "INSERT INTO instances (id, nonce_hash, profile, kind, origin, pid, start_time,
                start_time_unit, boot_id, pid_ns, host, uid, argv, party, supervisor,
                stop_budget_ms, anchor, started_at_ms)
             VALUES (?1, 'hash of 64 digits', ?2, 'gateway', 'library', 4711, 1,
                'ticks', 'boot', 'ns', 'host', 0, '[\"gw\"]', 'party', 'none', 90000,
                'anchor', 1)",
        )?
        .execute((id, profile))?;
        tx.prepare_cached(
            "INSERT INTO starts (profile, kind, outcome, instance_id, pid, party, counted,
                at_ms, at_boot_ms, boot_id)
             VALUES (?2, 'gateway', 'granted', ?1, 4711, 'party', 0, 1, 1, 'boot')",
        )?
        .execute((id, profile))?;
        event(tx, "office_claimed", profile, id)?;
        tx.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'last_id'")?.execute([id])
    })
}

/// Of ids from `first` on, 200 stay.
pub fn release(hand: &mut Hand, profile: &str, first: i64, id: i64) -> rusqlite::Result<()> {
    hand.write(|tx| {
        tx.prepare_cached(
            "UPDATE instances SET ended_at_ms = 2, end_reason = 'released' WHERE id = ?1",
        )?
        .execute([id])?;
        event(tx, "office_ended", profile, id)?;
        tx.prepare_cached("DELETE FROM instances WHERE id >= ?2 AND id < ?1 - 200")?
            .execute((id, first))
    })
}

pub fn claim_and_release(mut hand: Hand) -> Once {
    let mut id = 0_i64;
    Box::new(move || {
        id += 1;
        claim(&mut hand, "default", id).expect("a claim");
        release(&mut hand, "default", 0, id).expect("a release");
    })
}

fn event(tx: &Connection, name: &str, profile: &str, id: i64) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "INSERT INTO events (at_ms, event, profile, kind, instance_id, pid)
         VALUES (1, ?1, ?3, 'gateway', ?2, 4711)",
    )?
    .execute((name, id, profile))
}

/// What version 0.1 needed to find the running instance: a read, a probe of its anchor, a look at
/// its process.
pub fn find_running(hand: Hand) -> Once {
    let held = hand.own();
    let reader = hand.reader();
    Box::new(move || {
        let (pid, anchor): (u32, String) = reader
            .prepare_cached(
                "SELECT pid, anchor FROM instances
                 WHERE profile = 'default' AND kind = 'gateway' AND ended_at_ms IS NULL",
            )
            .and_then(|mut query| query.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
            .expect("a row");
        probe(&hand.anchors.join(anchor));
        std::fs::read(format!("/proc/{pid}/stat")).expect("a stat");
        let _ = &held;
    })
}

/// What nobody can do without who has asked before: is the store the one it was, is its lock still
/// held, has the process ended? The pages are looked at in memory.
pub fn find_running_floor(hand: Hand) -> Once {
    let held = hand.own();
    let anchor = File::open(hand.anchors.join(format!("{OWNER}.lock"))).expect("an anchor");
    let this = rustix::process::getpid();
    let process = rustix::process::pidfd_open(this, rustix::process::PidfdFlags::empty())
        .expect("a descriptor of this process");
    Box::new(move || {
        std::fs::metadata(&hand.database).expect("the store");
        still_held(&anchor);
        let mut wanted = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut wanted, Some(&now)).expect("a look"), 0);
        let _ = &held;
    })
}

#[allow(clippy::disallowed_methods, reason = "the bare counterpart of an anchor's probe")]
fn still_held(anchor: &File) {
    assert!(FileExt::try_lock_shared(anchor).is_err(), "the anchor is held");
}

fn probe(anchor: &Path) {
    still_held(&File::open(anchor).expect("an anchor"));
}

/// What a verification of version 0.1 needed: a read of its row and two stats.
pub fn verify(hand: Hand) -> Once {
    let held = hand.own();
    let reader = hand.reader();
    Box::new(move || {
        let hash: String = reader
            .prepare_cached(
                "SELECT nonce_hash FROM instances WHERE id = ?1 AND ended_at_ms IS NULL",
            )
            .and_then(|mut query| query.query_row([OWNER], |row| row.get(0)))
            .expect("a row");
        assert_eq!(hash.len(), 64);
        std::fs::metadata(&hand.database).expect("the store");
        std::fs::metadata(&hand.anchors).expect("the anchors");
        let _ = &held;
    })
}

/// Both files are the ones they were.
pub fn verify_floor(hand: Hand) -> Once {
    let held = hand.own();
    let anchor = hand.anchors.join(format!("{OWNER}.lock"));
    Box::new(move || {
        std::fs::metadata(&hand.database).expect("the store");
        std::fs::metadata(&anchor).expect("the anchor");
        let _ = &held;
    })
}

/// A connection that has read the schema.
pub fn open(hand: Hand) -> Once {
    Box::new(move || {
        let connection = Connection::open(&hand.database).expect("a database");
        connection
            .execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;")
            .expect("settings");
        let id: i64 = connection
            .query_row("SELECT value FROM meta WHERE key = 'last_id'", [], |row| row.get(0))
            .expect("the schema");
        assert!(id >= 0);
    })
}

/// Made, locked, and found to be locked.
#[allow(clippy::disallowed_methods, reason = "the bare counterpart of an anchor")]
fn make_anchor(path: &Path) -> File {
    let file = File::options().write(true).create_new(true).open(path).expect("a new file");
    FileExt::try_lock(&file).expect("a lock");
    probe(path);
    file
}

fn event_with(tx: &Connection, name: &str, instance: i64, detail: &str) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "INSERT INTO events (at_ms, event, instance_id, pid, detail) VALUES (1, ?1, ?2, 4711, ?3)",
    )?
    .execute((name, instance, detail))
}
