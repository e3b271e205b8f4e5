//! A recovery keeps every byte of the old store, and what can be read of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{PAGE, Sample, asides, destroy_root_of, files_of, wal_of};
use crate::support::{
    Disk, LIMIT, Process, Sandbox, assert_within, eventually, has, kill, rounds, skipped,
    wait_ended,
};

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

/// A store is repaired while gateways live in it: at no moment a second one starts, the `run` is
/// back in the new store within 2 s, and its command notices nothing.
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

/// R:FULL. There is no room for the new store: the old one is where it was, to the last byte, and
/// the next attempt succeeds.
#[test]
fn a_full_disk_leaves_the_damaged_store_in_its_place() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "1m") else { return };
    let run = ["run", "--no-backoff", "--", "true"];
    disk.cli(&run).assert_code(0);
    let damage = format!(
        "cd \"$(dirname \"$INCUMBENT_DB\")\" && \
         sqlite3 state.db 'PRAGMA wal_checkpoint(TRUNCATE)' && \
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

/// A damaged store with a writer that hangs: the recovery does not hang with it, and says who it
/// is.
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

/// Two stores in one directory are recovered at once: neither takes the other's unfinished files
/// away.
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

/// A commit that is under way while the store is moved aside: it counts in the new store, or it is
/// refused. Symptom: two processes were told that they had the same lock.
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

/// A link to the store leads to one that is being recovered: that passes, and no supervisor gives
/// up on it.
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

/// Somebody else's words about where the damaged store is lead nowhere else: whoever repairs may be
/// root.
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

/// Root repairs a user's store, and everything in it stays the user's: also what only the next
/// repair needs.
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
