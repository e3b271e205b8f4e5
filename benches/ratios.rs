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
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs4::FileExt;
use incumbent::marker::{MarkerName, MarkerRequest};
use incumbent::status::PlatformUpdate;
use incumbent::{Acquire, Claim, LockRequest, ScopedLock, Standing, StatusUpdate, Store};
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
    locks(&store, directory.path());
    markers(&store, directory.path());
    status_update(&store, directory.path());
    status_process(&path);
    status_of_many(directory.path());
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
    let mut bare = bare_connection(directory, SCHEMA);
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
        || assert_eq!(tenure.verify().expect("an answer"), Standing::Held),
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

const SCHEMA: &str = concat!(
    include_str!("../migrations/0001_offices.sql"),
    include_str!("../migrations/0002_scoped_locks.sql"),
    include_str!("../migrations/0003_markers.sql"),
    include_str!("../migrations/0004_runtime_status.sql"),
    include_str!("../migrations/0005_shutdowns.sql"),
    include_str!("../migrations/0006_legacy.sql")
);

/// The row that bare locks are taken from where the process has one already.
const BARE_OWNER: i64 = 1_000;

/// What one acquisition writes and makes besides the lock itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Besides {
    /// The process holds nothing else: a row and an anchor.
    RowAndAnchor,
    /// It holds something else, and with it its anchor: a row for its locks.
    Row,
    /// It has another lock.
    Nothing,
}

/// The rows of scoped locks, written by hand.
fn locks(store: &Store, directory: &Path) {
    let bare = directory.join("bare-locks");
    std::fs::create_dir(&bare).expect("a directory");
    let mut connection = bare_connection(&bare, SCHEMA);
    connection
        .execute(
            "INSERT INTO instances (id, nonce_hash, origin, pid, stop_budget_ms, started_at_ms)
             VALUES (?1, 'hash', 'library', 4711, 90000, 1)",
            [BARE_OWNER],
        )
        .expect("an owner");
    let mut id = BARE_OWNER;
    let mut cycle = |name: &str, besides: Besides| {
        compare(
            name,
            50,
            || drop(acquire(store, "cycled").release().expect("released")),
            || acquire_and_release_bare(&mut connection, &bare, &mut id, besides),
        );
    };
    cycle("acquire + release a lock, holding nothing else", Besides::RowAndAnchor);
    let profile = store.profile("default").expect("a profile");
    let Ok(Claim::Granted(tenure)) = profile.claim() else { panic!("refused") };
    cycle("acquire + release a lock, holding an office", Besides::Row);
    let another = acquire(store, "another");
    cycle("acquire + release a lock, holding another one", Besides::Nothing);
    drop((another, tenure));
    let held = acquire(store, "held");
    verify_lock(&held, directory);
    renew_lock(&held, &mut connection);
}

fn acquire(store: &Store, identity: &str) -> ScopedLock {
    let request = LockRequest::new("bot-token", identity)
        .and_then(|request| request.ttl(Duration::from_mins(1)))
        .expect("a request");
    match store.try_acquire(&request).expect("an answer") {
        Acquire::Granted(lock) => lock,
        Acquire::Held(holder) => panic!("{holder}"),
    }
}

fn acquire_and_release_bare(
    bare: &mut Connection,
    directory: &Path,
    last_id: &mut i64,
    besides: Besides,
) {
    const DETAIL: &str = r#"{"scope":"bot-token","identity_hash":"0123456789abcdef","fence":1795305600000000,"evicted":null}"#;
    let instance = if besides == Besides::Nothing { BARE_OWNER } else { *last_id + 1 };
    let fence = *last_id + 2;
    *last_id = fence;
    let anchor = directory.join(format!("{instance}.lock"));
    let mut kept = None;
    write(bare, |tx| {
        if besides == Besides::RowAndAnchor {
            kept = Some(make_anchor(&anchor));
        }
        if besides != Besides::Nothing {
            tx.prepare_cached(
                "INSERT INTO instances (id, nonce_hash, origin, pid, start_time, start_time_unit,
                    boot_id, pid_ns, host, uid, argv, party, supervisor, stop_budget_ms, anchor,
                    started_at_ms)
                 VALUES (?1, 'hash of 64 digits', 'library', 4711, 1, 'ticks', 'boot', 'ns', 'host',
                    0, '[\"gw\"]', 'party', 'none', 90000, 'anchor', 1)",
            )?
            .execute([instance])?;
        }
        tx.prepare_cached(
            "INSERT INTO scoped_locks (scope, identity_hash, instance_id, fence, acquired_at_ms,
                ttl_ms, lease_until_ms, lease_boot_id)
             VALUES ('bot-token', '0123456789abcdef', ?1, ?2, 1, 60000, 2, 'boot')",
        )?
        .execute([instance, fence])?;
        event_with(tx, "lock_acquired", instance, DETAIL)?;
        tx.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'last_id'")?.execute([fence])
    });
    write(bare, |tx| {
        tx.prepare_cached(
            "DELETE FROM scoped_locks
             WHERE scope = 'bot-token' AND identity_hash = '0123456789abcdef' AND fence = ?1",
        )?
        .execute([fence])?;
        event_with(tx, "lock_ended", instance, DETAIL)?;
        if besides == Besides::Nothing {
            return Ok(0);
        }
        tx.prepare_cached(
            "UPDATE instances SET ended_at_ms = 2, end_reason = 'released' WHERE id = ?1",
        )?
        .execute([instance])?;
        tx.prepare_cached("DELETE FROM instances WHERE id > 1000 AND id < ?1 - 400")?
            .execute([instance])
    });
    if kept.take().is_some() {
        std::fs::remove_file(&anchor).expect("an anchor");
    }
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

/// As for a tenure, and the lock's own row.
fn verify_lock(held: &ScopedLock, directory: &Path) {
    let path = directory.join("state.db");
    let mut bare = Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
        .expect("a reader");
    compare(
        "verify a lock",
        200,
        || assert_eq!(held.verify().expect("an answer"), Standing::Held),
        || {
            let tx = bare.transaction().expect("a snapshot");
            let hash: String = tx
                .prepare_cached(
                    "SELECT nonce_hash FROM instances WHERE id = ?1 AND ended_at_ms IS NULL",
                )
                .and_then(|mut query| query.query_row([held.instance().as_i64()], |row| row.get(0)))
                .expect("a row");
            assert_eq!(hash.len(), 64);
            let name = held.name();
            let fence: i64 = tx
                .prepare_cached(
                    "SELECT fence FROM scoped_locks WHERE scope = ?1 AND identity_hash = ?2",
                )
                .and_then(|mut query| {
                    query.query_row((name.scope.as_str(), name.identity_hash.as_str()), |row| {
                        row.get(0)
                    })
                })
                .expect("a lock");
            assert_eq!(fence, held.fence());
            std::fs::metadata(&path).expect("the store");
            std::fs::metadata(directory.join("state.db.anchors")).expect("the anchors");
        },
    );
}

fn renew_lock(held: &ScopedLock, bare: &mut Connection) {
    bare.execute(
        "INSERT INTO scoped_locks (scope, identity_hash, instance_id, fence, acquired_at_ms, ttl_ms)
             VALUES ('bot-token', '0123456789abcdef', ?1, 1, 1, 60000)",
        [BARE_OWNER],
    )
    .expect("a lock");
    let mut now = 0;
    compare(
        "renew a lock (1 transaction, 1 row)",
        50,
        || assert_eq!(held.renew().expect("an answer"), Standing::Held),
        || {
            now += 1;
            write(bare, |tx| {
                tx.prepare_cached(
                    "UPDATE scoped_locks SET renewed_at_ms = ?1, lease_until_ms = ?1 + ttl_ms
                     WHERE scope = 'bot-token' AND identity_hash = '0123456789abcdef' AND fence = 1",
                )?
                .execute([now])
            });
        },
    );
}

/// A marker to ourselves: two transactions, with an event each.
fn markers(store: &Store, directory: &Path) {
    const DETAIL: &str =
        r#"{"by":"pid 4711 (gateway), uid 0","marker":1795305600000000,"name":"note"}"#;
    let profile = store.profile("default").expect("a profile");
    let Ok(Claim::Granted(tenure)) = profile.claim() else { panic!("refused") };
    let name = MarkerName::new("note").expect("a name");
    let request = MarkerRequest::new(name.clone());
    let bare_directory = directory.join("bare-markers");
    std::fs::create_dir(&bare_directory).expect("a directory");
    let mut bare = bare_connection(&bare_directory, SCHEMA);
    let mut id = 0;
    compare(
        "write + consume a marker (2 transactions, 4 rows)",
        50,
        || {
            store.write_marker(std::process::id(), &request).expect("written");
            let consumed = tenure.consume_marker(Some(&name)).expect("an answer");
            assert!(consumed.expect("a marker").recorded);
        },
        || {
            id += 1;
            // Which process has the pid now.
            std::fs::read("/proc/self/stat").expect("a stat");
            write(&mut bare, |tx| {
                tx.prepare_cached(
                    "INSERT INTO markers (id, name, instance_id, pid, start_time, start_time_unit,
                        boot_id, pid_ns, writer, writer_pid, writer_uid, written_at_ms,
                        expires_at_ms, expires_boot_ms, expires_boot_id)
                     VALUES (?1, 'note', 1, 4711, 1, 'ticks', 'boot', 'ns',
                        'pid 4711 (gateway), uid 0', 4711, 0, 1, 60001, 60001, 'boot')",
                )?
                .execute([id])?;
                event_with(tx, "marker_written", id, DETAIL)?;
                tx.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'last_id'")?.execute([id])
            });
            let open: i64 = bare
                .prepare_cached(
                    "SELECT id FROM markers
                     WHERE instance_id = 1 AND closed_at_ms IS NULL AND name = 'note'",
                )
                .and_then(|mut query| query.query_row([], |row| row.get(0)))
                .expect("a marker");
            write(&mut bare, |tx| {
                tx.prepare_cached(
                    "UPDATE markers SET closed_at_ms = 2, closed_how = 'consumed',
                        closed_by = 'pid 4711 (gateway), uid 0'
                     WHERE id = ?1 AND closed_at_ms IS NULL",
                )?
                .execute([open])?;
                event_with(tx, "marker_consumed", id, DETAIL)?;
                tx.prepare_cached("DELETE FROM markers WHERE id < ?1 - 1000")?.execute([id])
            });
        },
    );
    drop(tenure);
}

/// What a gateway says of itself and of one platform, in one update: two rows, each with its event.
fn status_update(store: &Store, directory: &Path) {
    let profile = store.profile("default").expect("a profile");
    let Ok(Claim::Granted(tenure)) = profile.claim() else { panic!("refused") };
    let bare_directory = directory.join("bare-status");
    std::fs::create_dir(&bare_directory).expect("a directory");
    let mut bare = bare_connection(&bare_directory, SCHEMA);
    bare.execute(
        "INSERT INTO instances (id, nonce_hash, profile, kind, origin, pid, stop_budget_ms,
            started_at_ms)
         VALUES (?1, 'hash', 'default', 'gateway', 'library', 4711, 90000, 1)",
        [BARE_OWNER],
    )
    .expect("an owner");
    let (mut agents, mut bare_agents) = (0_u64, 0_u64);
    // Every update changes something: one that does not writes no event.
    let word = |count: u64| if count.is_multiple_of(2) { "connected" } else { "retrying" };
    compare(
        "update a status (1 transaction, 4 rows)",
        50,
        || {
            agents += 1;
            let telegram = PlatformUpdate::new("telegram").state(word(agents));
            let update = StatusUpdate::new().active_agents(agents).platform(telegram);
            tenure.update_status(&update).expect("written");
        },
        || {
            bare_agents += 1;
            write(&mut bare, |tx| write_status(tx, bare_agents, word(bare_agents)));
        },
    );
    drop(tenure);
}

fn write_status(tx: &Connection, agents: u64, word: &str) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO runtime_status (instance_id, active_agents, writer, writer_pid,
            updated_at_ms)
         VALUES (?1, ?2, 'pid 4711 (gateway), uid 0', 4711, 1)",
    )?
    .execute((BARE_OWNER, i64::try_from(agents).expect("a few")))?;
    let detail = format!(
        concat!(
            r#"{{"state":null,"exit_reason":null,"restart_requested":null,"#,
            r#""active_agents":{},"extra":null}}"#
        ),
        agents
    );
    status_event(tx, "status_changed", &detail)?;
    tx.prepare_cached(
        "INSERT OR REPLACE INTO platform_status (instance_id, profile, platform, state,
            state_since_at_ms, writer, writer_pid, updated_at_ms)
         VALUES (?1, 'default', 'telegram', ?2, 1, 'pid 4711 (gateway), uid 0', 4711, 1)",
    )?
    .execute((BARE_OWNER, word))?;
    let detail = format!(
        concat!(
            r#"{{"platform":"telegram","state":"{}","error_code":null,"error_message":null,"#,
            r#""needs_attention":null,"retrying_since":null,"extra":null}}"#
        ),
        word
    );
    status_event(tx, "platform_changed", &detail)
}

fn status_event(tx: &Connection, name: &str, detail: &str) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "INSERT INTO events (at_ms, event, profile, kind, instance_id, pid, detail)
         VALUES (1, ?1, 'default', 'gateway', ?2, 4711, ?3)",
    )?
    .execute((name, BARE_OWNER, detail))
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

/// So many profiles of one user share a store where there are many.
const LIVE_PROFILES: usize = 50;

/// Whole processes that ask a store with many live gateways, each a `run` with three platforms,
/// against one of the same program that looks at nothing. One process at a time: the column shows
/// the median wall time of a single one.
fn status_of_many(directory: &Path) {
    let directory = directory.join("many");
    std::fs::create_dir(&directory).expect("a directory");
    let path = directory.join("state.db");
    std::fs::write(directory.join("gateway.sh"), SAYS).expect("a script");
    let mut runs: Vec<Child> = (0..LIVE_PROFILES).map(|at| start_gateway(&path, at)).collect();
    for run in &mut runs {
        let said = run.stdout.take().expect("a pipe");
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(said), &mut line).expect("a line");
        assert_eq!(line, "ready\n");
    }
    let ask = |arguments: &[&str]| {
        let answer = Command::new(env!("CARGO_BIN_EXE_incumbent"))
            .arg("--db")
            .arg(&path)
            .args(arguments)
            .output()
            .expect("an answer");
        assert!(answer.status.success(), "{arguments:?}: {answer:?}");
        answer.stdout.len()
    };
    for (name, arguments) in [
        ("`status`, 50 live profiles (vs path)", &["status", "--profile", "p25"][..]),
        ("`status --json`", &["status", "--profile", "p25", "--json"]),
        ("`status --metrics`", &["status", "--profile", "p25", "--metrics"]),
        ("`status --all`, 50 live profiles (vs path)", &["status", "--all"]),
        ("`status --all --json`", &["status", "--all", "--json"]),
        ("`status --all --metrics`", &["status", "--all", "--metrics"]),
    ] {
        compare(name, 1, || assert!(ask(arguments) > 0), || assert!(ask(&["path"]) > 0));
    }
    for mut run in runs {
        drop(run.stdin.take());
        assert!(run.wait().expect("an end").success());
    }
}

/// Says how it is through `$1`, then lives until its standard input is closed. A file, because a
/// command line as long as this is none of a gateway's.
const SAYS: &str = r#"
    "$1" status-set --state running --active-agents 1 &&
    for platform in telegram discord mail; do
        "$1" status-set --platform $platform --platform-state connected || exit
    done &&
    echo ready && exec cat"#;

/// A gateway that has said how it is, and lives until its standard input is closed.
fn start_gateway(path: &Path, at: usize) -> Child {
    Command::new(env!("CARGO_BIN_EXE_incumbent"))
        .arg("--db")
        .arg(path)
        .args(["--profile", &format!("p{at}"), "run", "--no-backoff", "--", "/bin/sh"])
        .arg(path.with_file_name("gateway.sh"))
        .arg(env!("CARGO_BIN_EXE_incumbent"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a gateway")
}
