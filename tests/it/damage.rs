//! A store that the disk, a copy or a person has damaged: no crash, no hang, no wrong owner; and
//! `doctor --fix` brings back one that works, keeps every byte of the old one, and what can be read of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Answer, Disk, LIMIT, Process, Random, Sandbox, assert_within, eventually, has, kill, rounds,
    skipped, wait_ended,
};

const PAGE: usize = 4096;

/// No answer takes longer; a sound store answers in milliseconds.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

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
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
        let (database, wal) = (sandbox.db(), wal_of(&sandbox.db()));
        let read = |path: &Path| std::fs::read(path).unwrap();
        let wal = read(&wal);
        // Everything into the database, so that damage to it is damage to what is in the store.
        let connection = rusqlite::Connection::open(&database).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(connection);
        let database = read(&database);
        assert!(database.len() > 20 * PAGE && wal.len() > 20 * PAGE);
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

fn flipped(database: &[u8], seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = database.to_vec();
    let count = [1, 1, 4, 16, 64, 256][random.index(6)];
    for _ in 0..count {
        // The header and the schema get their share.
        let among = if random.below(10) < 3 { PAGE } else { bytes.len() };
        let at = random.index(among);
        bytes[at] ^= u8::try_from(1 + random.below(255)).unwrap();
    }
    bytes
}

/// Half of the seeds each, so that two cores have something to do.
fn survives_flipped_bytes(half: usize) {
    let sample = Sample::new();
    for seed in (0..rounds(100, 2_000)).filter(|seed| seed % 2 == half) {
        sample.put(&flipped(&sample.database, seed as u64), &[]);
        sample.assert_survived(&format!("seed {seed}"));
    }
}

/// FIELD-BUGS rows 72 to 74: a database that something else wrote to. Symptom elsewhere: a crash loop, or
/// "not running" while it runs. It holds because every error of SQLite becomes a kind that says so, and
/// because no trust is put in what a damaged schema says.
#[test]
fn random_bytes_flipped_even_seeds() {
    survives_flipped_bytes(0);
}

#[test]
fn random_bytes_flipped_odd_seeds() {
    survives_flipped_bytes(1);
}

/// A full disk, a copy that was interrupted: the end of the file is missing.
#[test]
fn truncated_at_every_page_boundary() {
    let sample = Sample::new();
    for pages in 1..sample.database.len() / PAGE {
        sample.put(&sample.database[..pages * PAGE], &[]);
        sample.assert_survived(&format!("{pages} pages"));
    }
    // An empty file is a store that nobody has begun.
    sample.put(&[], &[]);
    sample.sandbox.assert_status(3, "dead", "never_claimed");
    sample.assert_works("no page");
}

/// A `-wal` of garbage, one that is cut off, one with flipped bytes, one with a good header: SQLite takes
/// what its checksums vouch for, and nothing of ours must stumble over what is missing then.
#[test]
fn a_garbage_wal() {
    let sample = Sample::new();
    for seed in 0..rounds(40, 400) {
        let mut random = Random::new(seed as u64);
        let mut wal = sample.wal.clone();
        match seed % 4 {
            0 => {
                let length = 1 + random.index(200_000);
                wal = random.bytes(length);
            }
            1 => {
                for _ in 0..[1, 8, 64][random.index(3)] {
                    let at = random.index(wal.len());
                    wal[at] ^= u8::try_from(1 + random.below(255)).unwrap();
                }
            }
            2 => wal.truncate(random.index(sample.wal.len())),
            _ => {
                let rest = random.bytes(wal.len() - 32);
                wal[32..].copy_from_slice(&rest);
            }
        }
        sample.put(&sample.database, &wal);
        sample.assert_survived(&format!("seed {seed}"));
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

/// Everything but the table that is gone is there again, and the event says where the old file is.
#[test]
fn what_can_be_read_is_saved_and_the_old_bytes_are_kept() {
    let sample = Sample::new();
    let sandbox = &sample.sandbox;
    let counts = |sandbox: &Sandbox| -> BTreeMap<&str, i64> {
        ["instances", "starts", "profiles", "platform_status", "markers"]
            .map(|table| (table, sandbox.number(&format!("SELECT count(*) FROM {table}"))))
            .into()
    };
    let before = counts(sandbox);
    let uuid = "SELECT count(*) FROM meta WHERE key = 'store_uuid' AND value = ";
    let id: String = rusqlite::Connection::open(sandbox.db())
        .unwrap()
        .query_row("SELECT value FROM meta WHERE key = 'store_uuid'", [], |row| row.get(0))
        .unwrap();
    let damaged = destroy_root_of(sandbox, "events");
    let history = sandbox.cli(["events"]).assert_code(70);
    history.assert_complains(&["doctor --fix"]);
    let wal = std::fs::read(wal_of(&sandbox.db())).unwrap();
    let repaired = sandbox.cli(["doctor", "--fix"]);
    assert!(matches!(repaired.code(), 0 | 1), "{repaired:#?}");
    let aside = asides(sandbox);
    assert_eq!(aside.len(), 1, "{repaired:#?}");
    assert!(repaired.out.contains(aside[0].to_str().unwrap()), "{repaired:#?}");
    assert_eq!(std::fs::read(&aside[0]).unwrap(), damaged);
    let mut wal_aside = aside[0].clone().into_os_string();
    wal_aside.push("-wal");
    assert_eq!(std::fs::read(wal_aside).unwrap(), wal);
    assert_eq!(counts(sandbox), before);
    assert_eq!(sandbox.number(&format!("{uuid}'{id}'")), 1, "it is another store");
    assert_eq!(
        sandbox.number(&format!(
            "SELECT count(*) FROM events WHERE event = 'store_recovered'
             AND json_extract(detail, '$.aside') = '{}'",
            aside[0].file_name().unwrap().to_str().unwrap()
        )),
        1
    );
    sample.assert_works("recovered");
    // There is nothing more to do.
    sandbox.cli(["doctor", "--fix"]);
    assert_eq!(asides(sandbox).len(), 1);
}

/// A store is repaired while gateways live in it: at no moment a second one starts, the `run` is back in
/// the new store within 2 s, and its command notices nothing.
#[test]
fn a_live_run_goes_on_in_the_recovered_store() {
    for table in ["events", "instances", "meta"] {
        let sandbox = Sandbox::new();
        let run = sandbox.hold(&["--lock", "token=one"]);
        destroy_root_of(&sandbox, table);
        let second = ["run", "--no-backoff", "--", "true"];
        assert_ne!(sandbox.cli(second).code(), 0, "{table}: two owners");
        let named = sandbox.cli(["doctor", "--fix"]);
        assert!(named.out.contains(&format!("pid {}", run.pid())), "{table}: {named:#?}");
        let recovered = Instant::now();
        assert_eq!(sandbox.cli(second).code(), 75, "{table}: two owners");
        eventually("the run is back", LIMIT, || {
            let (code, status) = sandbox.status();
            (code == 0 && status["pid"] == run.pid()).then_some(())
        });
        assert_within(Duration::from_secs(2), recovered.elapsed(), table);
        assert!(!run.command.is_gone(), "{table}: its command was ended");
        let lock = ["lock", "acquire", "token", "one", "--pid", &std::process::id().to_string()];
        assert_eq!(sandbox.cli(lock).code(), 75, "{table}: the lock has two owners");
        run.end().assert_code(0);
        sandbox.cli(second).assert_code(0);
    }
}

/// Whoever is killed in the middle of a recovery leaves the old bytes, and the next one goes on.
#[test]
fn a_recovery_that_is_killed_is_gone_on_with() {
    if !has("strace") {
        return skipped("needs strace");
    }
    let sample = Sample::new();
    let sandbox = &sample.sandbox;
    let mut finished = 0;
    for call in ["renameat2", "rename", "unlinkat", "rmdir"] {
        for when in 1..6 {
            sample.put(&sample.database, &[]);
            let damaged = destroy_root_of(sandbox, "events");
            let mut strace = sandbox.program("strace");
            let inject = format!("inject={call}:signal=KILL:when={when}");
            strace.args(["-f", "-o", "/dev/null", "-e", &inject]);
            strace.arg(crate::support::BINARY).args(["doctor", "--fix"]);
            let what = format!("{call} {when}");
            let killed = Process::start(strace).finish(LIMIT).code() == 137;
            finished += usize::from(!killed);
            if killed {
                let again = sandbox.cli(["doctor", "--fix"]);
                assert!(matches!(again.code(), 0 | 1), "{what}: {again:#?}");
            }
            let is_left = |path: &PathBuf| {
                let name = path.file_name().unwrap().to_str().unwrap();
                name.starts_with(".incumbent-") || (name.contains("damaged") && path.is_dir())
            };
            let left: Vec<_> = files_of(sandbox).into_iter().filter(is_left).collect();
            // Killed when all was done, but for the last bit of tidying.
            assert!(left.len() <= usize::from(killed), "{what}: {left:?}");
            let kept = asides(sandbox).iter().any(|it| std::fs::read(it).unwrap() == damaged);
            assert!(kept, "{what}: the old bytes are gone: {:?}", files_of(sandbox));
            sample.assert_works(&what);
        }
    }
    // Calls that never came: else the loop has not reached the end of a recovery.
    assert!(finished > 0);
}

/// While the old files are being moved, nobody takes the directory in their place for a store, and
/// nobody begins another one.
#[test]
fn in_the_middle_of_a_recovery_everybody_is_told_to_wait() {
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    let aside = sandbox.file("store/state.db.damaged-20261122T031140Z");
    std::fs::rename(sandbox.db(), &aside).unwrap();
    std::fs::create_dir(sandbox.db()).unwrap();
    std::fs::write(sandbox.db().join("moved-to"), "state.db.damaged-20261122T031140Z").unwrap();
    for verb in [&["status"][..], &["run", "--", "true"], &["locks"], &["claim"]] {
        let told = sandbox.cli(verb).assert_code(75);
        told.assert_complains(&["is being recovered", "doctor --fix"]);
    }
    sandbox.cli(["doctor"]).assert_code(1);
    sandbox.cli(["doctor", "--fix"]);
    sandbox.assert_status(3, "dead", "exited");
    assert!(aside.is_file());
}

/// Two people repair at once: one of them does it.
#[test]
fn two_doctors_move_one_store_aside() {
    let sample = Sample::new();
    let sandbox = &sample.sandbox;
    for _ in 0..rounds(5, 50) {
        sample.put(&sample.database, &[]);
        destroy_root_of(sandbox, "starts");
        let doctors: Vec<_> =
            (0..3).map(|_| Process::start(sandbox.incumbent(["doctor", "--fix"]))).collect();
        for doctor in doctors {
            let answer = doctor.finish(LIMIT);
            assert!(matches!(answer.code(), 0 | 1 | 75), "{answer:#?}");
        }
        assert_eq!(asides(sandbox).len(), 1, "{:?}", files_of(sandbox));
        sample.assert_works("two doctors");
    }
}

/// A path that was mistyped: `--db ~/photo.jpg doctor --fix`.
#[test]
fn a_file_that_was_never_a_store_is_left_alone() {
    let sandbox = Sandbox::new();
    let directory = sandbox.file("store");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(sandbox.db(), vec![7; 10_000]).unwrap();
    let before = sandbox.picture();
    let answer = sandbox.cli(["doctor", "--fix"]);
    assert_ne!(answer.code(), 0, "{answer:#?}");
    assert_eq!(sandbox.picture(), before);
    std::fs::remove_file(sandbox.db()).unwrap();
    let other = rusqlite::Connection::open(sandbox.db()).unwrap();
    other.execute_batch("CREATE TABLE songs (name TEXT); PRAGMA user_version = 3").unwrap();
    drop(other);
    let before = sandbox.picture();
    let answer = sandbox.cli(["doctor", "--fix"]);
    assert_ne!(answer.code(), 0, "{answer:#?}");
    assert_eq!(sandbox.picture(), before);
}

/// R:FULL. There is no room for the new store: the old one is where it was, to the last byte, and the
/// next attempt succeeds.
#[test]
fn a_full_disk_leaves_the_damaged_store_in_its_place() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "1m") else { return };
    let run = ["run", "--no-backoff", "--", "true"];
    disk.cli(&run).assert_code(0);
    let damage = format!(
        "cd \"$(dirname \"$INCUMBENT_DB\")\" && sqlite3 state.db 'PRAGMA wal_checkpoint(TRUNCATE)' && \
         head -c {PAGE} /dev/urandom | dd of=state.db bs={PAGE} seek=6 conv=notrunc 2>&1 && \
         cp state.db ../before && {{ cat /dev/zero > filler || true; }}"
    );
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    disk.shell(&damage).assert_code(0);
    let refused = disk.cli(&["doctor", "--fix"]);
    assert_ne!(refused.code(), 0, "{refused:#?}");
    let same = "cd \"$(dirname \"$INCUMBENT_DB\")\" && cmp state.db ../before && ls";
    let listing = disk.shell(same).assert_code(0);
    assert!(!listing.out.contains("damaged"), "{listing:#?}");
    disk.shell("rm \"$(dirname \"$INCUMBENT_DB\")/filler\"").assert_code(0);
    let repaired = disk.cli(&["doctor", "--fix"]);
    assert!(matches!(repaired.code(), 0 | 1), "{repaired:#?}");
    disk.cli(&run).assert_code(0);
}

/// A damaged store with a writer that hangs: the recovery does not hang with it, and says who it is.
#[test]
fn a_recovery_does_not_wait_for_a_stopped_writer() {
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    destroy_root_of(&sandbox, "events");
    if !has("python3") {
        return skipped("needs python3");
    }
    let script = "import sqlite3, os, sys\n\
                  c = sqlite3.connect(os.environ['INCUMBENT_DB'], isolation_level=None)\n\
                  c.execute('BEGIN IMMEDIATE')\nprint('holding', flush=True)\nsys.stdin.read()";
    let mut writer = Process::start({
        let mut command = sandbox.program("python3");
        command.args(["-c", script]);
        command
    });
    writer.line_with("holding");
    writer.signal(Signal::STOP);
    let started = Instant::now();
    let answer = sandbox.cli(["doctor", "--fix"]);
    assert_within(Duration::from_secs(20), started.elapsed(), "it");
    let said = format!("{}{}", answer.out, answer.err);
    assert!(said.contains(&format!("pid {}", writer.pid())), "{answer:#?}");
    kill(writer.pid(), Signal::KILL);
    assert!(wait_ended(writer.pid(), LIMIT));
    let repaired = sandbox.cli(["doctor", "--fix"]);
    assert!(matches!(repaired.code(), 0 | 1), "{repaired:#?}");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
}

/// Values in `meta` that no program of ours writes, each of which kept everybody out for ever: a version
/// that nobody has, a counter at its end, an id that would lead out of the directory.
#[test]
fn impossible_words_about_the_store_itself_are_repaired() {
    for (key, value) in [
        ("min_writer", "4611686018427387905"),
        ("min_writer", "'seven'"),
        ("last_id", "9223372036854775807"),
        ("last_id", "-5"),
        ("store_uuid", "'zz/../../x'"),
        ("store_uuid", "''"),
    ] {
        let what = format!("{key} = {value}");
        let sandbox = Sandbox::new();
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
        sandbox.forge(&format!("UPDATE meta SET value = {value} WHERE key = '{key}'"));
        let run = ["run", "--no-backoff", "--", "true"];
        if key == "last_id" {
            // Ids rise with the clock: that one is no obstacle.
            sandbox.cli(run).assert_code(0);
            continue;
        }
        assert_typed(&sandbox.cli(run), &what);
        sandbox.cli(["doctor"]).assert_code(1);
        let repaired = sandbox.cli(["doctor", "--fix"]);
        assert_eq!(asides(&sandbox).len(), 1, "{what}: {repaired:#?}");
        sandbox.cli(run).assert_code(0);
        assert_eq!(sandbox.number("SELECT count(*) FROM instances"), 2, "{what}");
    }
}

/// Two stores in one directory are recovered at once: neither takes the other's unfinished files away.
#[test]
fn recoveries_of_neighbours_do_not_meet() {
    if !has("strace") {
        return skipped("needs strace");
    }
    let sandbox = Sandbox::new();
    let other = sandbox.file("store/other.db").to_str().unwrap().to_owned();
    let run = ["run", "--no-backoff", "--", "true"];
    sandbox.cli(run).assert_code(0);
    let run_other = ["--db", &other, "run", "--no-backoff", "--", "true"];
    sandbox.cli(run_other).assert_code(0);
    destroy_root_of(&sandbox, "events");
    let script = format!(
        "sqlite3 {other} 'PRAGMA wal_checkpoint(TRUNCATE)'; \
         head -c {PAGE} /dev/urandom | dd of={other} bs={PAGE} seek=6 conv=notrunc 2>&1"
    );
    Process::start(sandbox.shell(&script)).finish(LIMIT);
    let mut slow = sandbox.program("strace");
    slow.args(["-f", "-o", "/dev/null", "-e", "inject=renameat2:delay_enter=1500000:when=2"]);
    slow.arg(crate::support::BINARY).args(["doctor", "--fix"]);
    let slow = Process::start(slow);
    eventually("the first has moved its store aside", LIMIT, || {
        sandbox.db().is_dir().then_some(())
    });
    sandbox.cli(["--db", &other, "doctor", "--fix"]);
    sandbox.cli(run_other).assert_code(0);
    let first = slow.finish(LIMIT);
    assert!(matches!(first.code(), 0 | 1), "{first:#?}");
    assert!(sandbox.db().is_file(), "{first:#?}");
    sandbox.cli(run).assert_code(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances"), 2, "{first:#?}");
}

/// A commit that is under way while the store is moved aside: it counts in the new store, or it is refused.
/// Symptom: two processes were told that they had the same lock.
#[test]
fn no_grant_is_lost_with_the_old_file() {
    if !has("strace") {
        return skipped("needs strace");
    }
    let sandbox = Sandbox::new();
    let (one, other) = (sandbox.shell("exec cat"), sandbox.shell("exec cat"));
    let (one, other) = (Process::start(one), Process::start(other));
    for process in [&one, &other] {
        let pid = process.pid().to_string();
        sandbox.cli(["lock", "acquire", "first", &pid, "--pid", &pid]).assert_code(0);
    }
    // What a lock does not need.
    destroy_root_of(&sandbox, "platform_status");
    let acquire = |pid: u32| {
        let pid = pid.to_string();
        ["lock", "acquire", "tg", "token", "--pid", &pid].map(str::to_owned)
    };
    let traced = |inject: &[&str]| {
        let mut command = sandbox.program("strace");
        command.args(["-f", "-o", "/dev/null"]).args(inject).arg(crate::support::BINARY);
        command
    };
    let mut doctor = traced(&["-e", "inject=renameat2:delay_enter=1500000:when=1"]);
    doctor.args(["doctor", "--fix"]);
    let doctor = Process::start(doctor);
    let is_ready = |path: &PathBuf| path.to_str().unwrap().contains(".damaged-") && path.is_dir();
    eventually("the store is about to be moved", LIMIT, || {
        files_of(&sandbox).iter().any(is_ready).then_some(())
    });
    let wal = wal_of(&sandbox.db());
    let wal = wal.to_str().unwrap();
    let mut slow = traced(&["-P", wal, "-e", "inject=pwrite64:delay_enter=3000000:when=1"]);
    slow.args(acquire(one.pid()));
    let slow = Process::start(slow);
    doctor.finish(LIMIT);
    let later = sandbox.cli(acquire(other.pid())).code();
    let earlier = slow.finish(LIMIT).code();
    let holders = [earlier, later].iter().filter(|code| **code == 0).count();
    assert!(holders <= 1, "{earlier} {later}: two processes have one lock");
    let held = |pid: u32| {
        let pid = pid.to_string();
        sandbox.cli(["lock", "verify", "tg", "token", "--pid", &pid]).code() == 0
    };
    assert!([held(one.pid()), held(other.pid())] != [true, true]);
}

/// A link to the store leads to one that is being recovered: that passes, and no supervisor gives up on it.
#[test]
fn by_a_link_a_recovery_is_seen_as_well() {
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    let link = sandbox.file("link.db");
    std::os::unix::fs::symlink(sandbox.db(), &link).unwrap();
    let aside = sandbox.file("store/state.db.damaged-20261122T031140Z");
    std::fs::rename(sandbox.db(), &aside).unwrap();
    std::fs::create_dir(sandbox.db()).unwrap();
    std::fs::write(sandbox.db().join("moved-to"), aside.file_name().unwrap().as_encoded_bytes())
        .unwrap();
    let link = link.to_str().unwrap();
    sandbox.cli(["--db", link, "run", "--", "true"]).assert_code(75);
    sandbox.cli(["--db", link, "doctor", "--fix"]);
    sandbox.cli(["--db", link, "run", "--no-backoff", "--", "true"]).assert_code(0);
}

/// Somebody else's words about where the damaged store is lead nowhere else: whoever repairs may be root.
#[test]
fn an_interrupted_recovery_is_not_led_away() {
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    let secret = sandbox.file("secret.db");
    std::fs::copy(sandbox.db(), &secret).unwrap();
    std::fs::remove_file(sandbox.db()).unwrap();
    std::fs::create_dir(sandbox.db()).unwrap();
    let link = sandbox.file("store/state.db.damaged-1");
    std::os::unix::fs::symlink(&secret, &link).unwrap();
    for words in
        [secret.to_str().unwrap(), "../secret.db", "state.db.damaged-1", "", "state.db.anchors"]
    {
        std::fs::write(sandbox.db().join("moved-to"), words).unwrap();
        let before = std::fs::read(&secret).unwrap();
        let answer = sandbox.cli(["doctor", "--fix"]);
        assert_eq!(answer.code(), 1, "{words:?}: {answer:#?}");
        assert!(sandbox.db().is_dir(), "{words:?}: {answer:#?}");
        assert_eq!(std::fs::read(&secret).unwrap(), before);
        let said = format!("{}{}", answer.out, answer.err);
        assert!(
            said.contains("does not name where the damaged store is"),
            "{words:?}: {answer:#?}"
        );
    }
}

/// Root repairs a user's store, and everything in it stays the user's: also what only the next repair needs.
#[test]
fn what_root_repairs_stays_its_owners() {
    if !crate::support::is_root() {
        return skipped("needs root");
    }
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    destroy_root_of(&sandbox, "events");
    let own = "chown -R 65534:65534 \"$(dirname \"$INCUMBENT_DB\")\"";
    Process::start(sandbox.shell(own)).finish(LIMIT).assert_code(0);
    sandbox.cli(["doctor", "--fix"]);
    assert_eq!(asides(&sandbox).len(), 1);
    let list = "find \"$(dirname \"$INCUMBENT_DB\")\" ! -user 65534";
    let foreign = Process::start(sandbox.shell(list)).finish(LIMIT).out;
    assert_eq!(foreign, "", "not the owner's");
}
