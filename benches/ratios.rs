//! How much the engine adds to what it cannot do without, as ratios taken in one run.
//!
//! Each row times an operation of incumbent and its bare counterpart in turn, in batches, on the
//! same machine at the same time: the same rows written by the same statements through a bare
//! rusqlite connection, the same probes made by hand. The ratio is what survives a noisy machine.
//!
//! `cargo bench --bench ratios`

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a benchmark may die of a surprise")]

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fs4::FileExt;
use incumbent::{Claim, Store};
use rusqlite::{Connection, TransactionBehavior};

/// Batches of each side; the median of their ratios is shown.
const BATCHES: usize = 41;

fn main() {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let path = directory.path().join("state.db");
    let store = Store::open(&path).expect("a store");
    println!("{:<46} {:>12} {:>12} {:>7}", "operation", "incumbent", "bare", "ratio");
    claim_and_release(&store, directory.path());
    find_running(&store, &path);
    verify(&store, directory.path());
    status_process(&path);
}

/// Times `ours` and `bare` in turn and prints the medians and the median ratio.
#[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn compare(name: &str, repeats: u32, mut ours: impl FnMut(), mut bare: impl FnMut()) {
    let time = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..repeats {
            work();
        }
        start.elapsed() / repeats
    };
    time(&mut ours);
    time(&mut bare);
    let mut rounds: Vec<(Duration, Duration)> =
        (0..BATCHES).map(|_| (time(&mut ours), time(&mut bare))).collect();
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    let ours = median(&mut rounds.iter().map(|round| micros(round.0)).collect());
    let bare = median(&mut rounds.iter().map(|round| micros(round.1)).collect());
    let ratio =
        median(&mut rounds.drain(..).map(|round| micros(round.0) / micros(round.1)).collect());
    println!("{name:<46} {ours:>9.1} us {bare:>9.1} us {ratio:>6.2}x");
}

fn bare_connection(directory: &Path, schema: &str) -> Connection {
    let connection = Connection::open(directory.join("bare.db")).expect("a bare database");
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;
             BEGIN; {schema} COMMIT;
             INSERT INTO meta VALUES ('last_id', 0), ('store_uuid', 'x'), ('min_writer', 1);
             INSERT INTO profiles (profile, created_at_ms) VALUES ('default', 0);"
        ))
        .expect("the schema");
    connection
}

/// The rows of one claim and one release, written by hand.
fn claim_and_release(store: &Store, directory: &Path) {
    let profile = store.profile("default").expect("a profile");
    // A gateway holds something all the time, and with it the anchor of its process.
    let other = incumbent::ClaimOptions::new().kind("other".parse().expect("a kind"));
    let _held = profile.claim_with(&other).expect("an answer");
    let mut bare = bare_connection(directory, include_str!("../migrations/0001_offices.sql"));
    let mut id = 0_i64;
    compare(
        "claim + release (2 transactions, 6 rows)",
        50,
        || {
            let Ok(Claim::Granted(tenure)) = profile.claim() else { panic!("refused") };
            tenure.release().expect("released");
        },
        || {
            id += 1;
            write(&mut bare, |tx| {
                tx.prepare_cached(
                    "INSERT INTO instances (id, nonce_hash, profile, kind, origin, pid, start_time,
                        start_time_unit, boot_id, pid_ns, host, uid, argv, party, supervisor,
                        stop_budget_ms, anchor, started_at_ms)
                     VALUES (?1, 'hash of 64 digits', 'default', 'gateway', 'library', 4711, 1,
                        'ticks', 'boot', 'ns', 'host', 0, '[\"gw\"]', 'party', 'none', 90000,
                        'anchor', 1)",
                )?
                .execute([id])?;
                tx.prepare_cached(
                    "INSERT INTO starts (profile, kind, outcome, instance_id, pid, party, counted,
                        at_ms, at_boot_ms, boot_id)
                     VALUES ('default', 'gateway', 'granted', ?1, 4711, 'party', 0, 1, 1, 'boot')",
                )?
                .execute([id])?;
                event(tx, "office_claimed", id)?;
                tx.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'last_id'")?.execute([id])
            });
            write(&mut bare, |tx| {
                tx.prepare_cached(
                    "UPDATE instances SET ended_at_ms = 2, end_reason = 'released' WHERE id = ?1",
                )?
                .execute([id])?;
                event(tx, "office_ended", id)?;
                tx.prepare_cached("DELETE FROM instances WHERE id < ?1 - 200")?.execute([id])
            });
        },
    );
}

fn event(tx: &Connection, name: &str, id: i64) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "INSERT INTO events (at_ms, event, profile, kind, instance_id, pid)
         VALUES (1, ?1, 'default', 'gateway', ?2, 4711)",
    )?
    .execute((name, id))
}

fn write(connection: &mut Connection, work: impl FnOnce(&Connection) -> rusqlite::Result<usize>) {
    let tx = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .expect("the write lock");
    work(&tx).expect("the rows");
    tx.commit().expect("a commit");
}

/// What finding the running instance cannot do without: a read, a probe of its anchor, a look at
/// its process.
fn find_running(store: &Store, path: &Path) {
    let profile = store.profile("default").expect("a profile");
    let Ok(Claim::Granted(tenure)) = profile.claim() else { panic!("refused") };
    let kind = incumbent::Kind::default();
    let bare = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
        .expect("a reader");
    let anchors = path.with_file_name("state.db.anchors");
    compare(
        "find the running instance",
        100,
        || assert!(profile.running_pid(&kind).expect("an answer").is_some()),
        || {
            let (pid, anchor): (u32, String) = bare
                .prepare_cached(
                    "SELECT pid, anchor FROM instances
                     WHERE profile = 'default' AND kind = 'gateway' AND ended_at_ms IS NULL",
                )
                .and_then(|mut query| query.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
                .expect("a row");
            probe(&anchors.join(anchor));
            std::fs::read(format!("/proc/{pid}/stat")).expect("a stat");
        },
    );
    drop(tenure);
}

#[allow(clippy::disallowed_methods, reason = "the bare counterpart of an anchor's probe")]
fn probe(anchor: &Path) {
    let file = File::open(anchor).expect("an anchor");
    assert!(FileExt::try_lock_shared(&file).is_err(), "the anchor is held");
}

/// What a verification cannot do without: a read of its row and two stats.
fn verify(store: &Store, directory: &Path) {
    let profile = store.profile("default").expect("a profile");
    let Ok(Claim::Granted(tenure)) = profile.claim() else { panic!("refused") };
    let path = directory.join("state.db");
    let bare = Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
        .expect("a reader");
    compare(
        "verify a tenure",
        200,
        || assert_eq!(tenure.verify().expect("an answer"), incumbent::Standing::Held),
        || {
            let hash: String = bare
                .prepare_cached(
                    "SELECT nonce_hash FROM instances WHERE id = ?1 AND ended_at_ms IS NULL",
                )
                .and_then(|mut query| {
                    query.query_row([tenure.instance().as_i64()], |row| row.get(0))
                })
                .expect("a row");
            assert_eq!(hash.len(), 64);
            std::fs::metadata(&path).expect("the store");
            std::fs::metadata(directory.join("state.db.anchors")).expect("the anchors");
        },
    );
    drop(tenure);
}

/// A whole `status` process, against one that only starts and ends.
fn status_process(path: &Path) {
    compare(
        "`incumbent status`, a whole process (vs true)",
        10,
        || {
            let status = Command::new(env!("CARGO_BIN_EXE_incumbent"))
                .args(["status", "--db"])
                .arg(path)
                .output()
                .expect("a status");
            assert_eq!(status.status.code(), Some(3));
        },
        || {
            Command::new("true").output().expect("true");
        },
    );
}
