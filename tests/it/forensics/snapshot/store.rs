//! Where the store does not answer, no shutdown waits for it.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::AT_ONCE;
use super::gateway::{GATEWAY, ROLE_TEST, micros, next_report, raise};
use super::left::{assert_log_line, snapshot_of, why};
use super::markers::said_of_signal;
use crate::support::{
    Disk, LIMIT, Sandbox, another_user, ask, assert_within, skipped, stopped_writer,
};

/// FIELD-BUGS rows 63, 77 and 82. The store's write lock is held by a process that is stopped: the
/// gateway learns of its signal at once all the same, and the row follows with the next change.
#[test]
fn a_stopped_writer_holds_no_shutdown_up() {
    const SIGNALS: usize = 5;
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let writer = stopped_writer(&sandbox);
    let says_why = |snapshot: &Value| {
        let reason = why(&snapshot["recorded"]).to_owned();
        assert!(reason.contains("not written"), "{reason}");
        assert!(reason.contains(&format!("pid {}", writer.pid())), "{reason}");
        assert!(reason.contains("stopped"), "{reason}");
    };
    let reports: Vec<Value> = (0..SIGNALS).map(|_| raise(&mut gateway, libc::SIGTERM)).collect();
    for report in &reports {
        says_why(&report["snapshot"]);
        let said = assert_log_line(report["line"].as_str().unwrap());
        assert!(said["recorded"].contains("not written"), "{said:?}");
        assert!(said["recorded"].contains(&format!("pid {}", writer.pid())), "{said:?}");
        assert_eq!(report["cause"], "signalled", "{report:#}");
        assert_eq!(report["snapshot"]["takeover_marker"], Value::Null, "reads go on: {report:#}");
    }
    let best = reports.iter().map(micros).min().unwrap();
    assert_within(AT_ONCE, best, "a signal");
    let taken: Vec<Value> = (0..SIGNALS)
        .map(|_| serde_json::from_str(&ask(&mut gateway, "snapshot default")).unwrap())
        .collect();
    for taken in &taken {
        says_why(&taken["snapshot"]);
    }
    let best = taken.iter().map(micros).min().unwrap();
    assert_within(AT_ONCE, best, "a snapshot");

    // The verb: with a process to start, and 50 ms for the store.
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let started = Instant::now();
        let snapshot = sandbox.forensic_snapshot(&["--signal", "15"]);
        best = best.min(started.elapsed());
        let reason = why(&snapshot["recorded"]);
        assert!(reason.contains("not written"), "{reason}");
        assert!(reason.contains(&format!("pid {}", writer.pid())), "{reason}");
    }
    assert_within(Duration::from_secs(1), best, "the verb");
    assert_eq!(sandbox.shutdown_rows(), 0);

    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    assert_eq!(ask(&mut gateway, "change default"), "changed");
    // What the gateway said; the verb's process has ended with what it had to say.
    assert_eq!(sandbox.shutdown_rows(), 2 * i64::try_from(SIGNALS).unwrap());
    let (_, rows) =
        sandbox.json(["sql", "SELECT at_ms, sender_pid, pid FROM shutdowns ORDER BY id"]);
    for (row, report) in rows.as_array().unwrap().iter().zip(&reports) {
        assert_eq!(row["sender_pid"], gateway.pid(), "{row:#}");
        let ts = report["snapshot"]["ts"].as_f64().unwrap();
        let at = Duration::from_millis(row["at_ms"].as_u64().unwrap()).as_secs_f64();
        assert!((ts - at).abs() < 0.002, "{at} {ts}: the time at which it came");
    }
    // And the story can be told.
    let report = raise(&mut gateway, libc::SIGTERM);
    assert!(report["snapshot"]["recorded"].is_i64(), "{report:#}");
    assert_eq!(ask(&mut gateway, "release default"), "Free");
    assert_eq!(sandbox.history()[0]["end_reason"], "signalled");
}

/// The same with a stop on record that cannot be consumed now: the cause is known, and soon.
#[test]
fn an_announced_stop_is_known_also_behind_a_stopped_writer() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let pid = gateway.pid().to_string();
    sandbox.cli(["marker", "write", "planned_stop", "--pid", &pid]).assert_code(0);
    let writer = stopped_writer(&sandbox);
    let reports: Vec<Value> = (0..5).map(|_| raise(&mut gateway, libc::SIGTERM)).collect();
    for report in &reports {
        assert_eq!(report["cause"], "planned_stop", "{report:#}");
        assert_eq!(report["exit_code"], 0, "{report:#}");
        assert_eq!(report["stop"], "planned_stop", "{report:#}");
    }
    // Consuming the marker has a bound of its own, of 250 ms.
    let first = micros(&reports[0]);
    assert_within(Duration::from_secs(2), first, "it");
    let best = reports.iter().map(micros).min().unwrap();
    assert_within(Duration::from_millis(300), best, "a signal");
    drop(writer);
}

/// A process that holds four offices and panics: it was held up for 250 ms by each of them in turn.
/// There is one limit for all of them together.
#[test]
fn a_panic_is_held_up_once_for_all_offices() {
    const OFFICES: [&str; 4] = ["default", "two", "three", "four"];
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.role(ROLE_TEST, GATEWAY);
    gateway.err_line_with("=> open");
    for profile in OFFICES {
        ask(&mut gateway, &format!("claim {profile} gateway"));
        assert_eq!(ask(&mut gateway, &format!("record {profile}")), "recording");
    }
    let writer = stopped_writer(&sandbox);
    let took = (0..3).map(|_| ask(&mut gateway, "panic").parse().unwrap());
    let best = Duration::from_micros(took.min().unwrap());
    assert_within(Duration::from_millis(600), best, "a panic");
    assert_eq!(sandbox.shutdown_rows(), 0);
    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    assert_eq!(ask(&mut gateway, "change default"), "changed");
    let offices = "SELECT count(DISTINCT profile) FROM shutdowns WHERE what = 'panic'";
    assert_eq!((sandbox.shutdown_rows(), sandbox.number(offices)), (12, 4));
}

/// Each question tried to write what was kept first, for 10 ms: a process whose word waited asked a
/// hundred times slower. A word waits for the next change; only a release is tried before.
#[test]
fn a_kept_word_makes_no_question_slow() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let writer = stopped_writer(&sandbox);
    let report = raise(&mut gateway, libc::SIGTERM);
    assert!(why(&report["snapshot"]["recorded"]).contains("not written"), "{report:#}");
    let took = (0..3).map(|_| ask(&mut gateway, "look default").parse().unwrap());
    let best = Duration::from_micros(took.min().unwrap());
    assert_within(Duration::from_millis(100), best, "20 questions");
    assert_eq!(sandbox.shutdown_rows(), 0);
    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    assert_eq!(ask(&mut gateway, "change default"), "changed");
    assert_eq!(sandbox.shutdown_rows(), 1);
}

/// Words and releases that wait for the same lock: more words than are kept, one release before
/// them and one after. What was written was counted off the front of a list that loses its oldest
/// words meanwhile, and with them a release. It holds because each is taken off by itself.
#[test]
fn no_release_is_lost_among_the_words_that_wait_with_it() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let instance = ask(&mut gateway, "claim work gateway");
    assert!(instance.parse::<i64>().is_ok(), "{instance}");
    let writer = stopped_writer(&sandbox);
    let released = ask(&mut gateway, "release work");
    assert!(released.starts_with("Pending"), "{released}");
    for _ in 0..25 {
        raise(&mut gateway, libc::SIGTERM);
    }
    let released = ask(&mut gateway, "release default");
    assert!(released.starts_with("Pending"), "{released}");
    let ended = "SELECT count(*) FROM instances
         WHERE pid = (SELECT max(pid) FROM instances WHERE id = INSTANCE) AND ended_at_ms NOT NULL";
    let ended = ended.replace("INSTANCE", &instance);
    assert_eq!(sandbox.number(&ended), 0);
    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    let next = ask(&mut gateway, "claim default gateway");
    assert!(next.parse::<i64>().is_ok(), "{next}");
    assert_eq!(sandbox.number(&ended), 2, "both are released");
    assert_eq!(sandbox.shutdown_rows(), 20, "the newest words are there");
    let reason = |profile: &str| {
        let query = format!(
            "SELECT end_reason FROM instances WHERE profile = '{profile}' AND ended_at_ms NOT NULL"
        );
        sandbox.json(["sql", &query]).1[0]["end_reason"].clone()
    };
    assert_eq!((reason("work"), reason("default")), (json!("released"), json!("signalled")));
}

/// The store went from under a gateway that has read it before, and from under one that has not.
/// Its signal arrives in time, with all that the store is not asked for.
#[track_caller]
fn assert_told_without_its_store(has_read: bool, limit: Duration) {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    if has_read {
        ask(&mut gateway, "snapshot default");
    }
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
    }
    let mut deployer = sandbox.deployer();
    deployer.send("TERM", gateway.pid());
    let reports = [next_report(&mut gateway), raise(&mut gateway, 15), raise(&mut gateway, 15)];
    for report in &reports {
        assert!(!why(&report["snapshot"]["recorded"]).is_empty(), "{report:#}");
        assert_eq!(report["snapshot"]["signal"], "SIGTERM", "{report:#}");
    }
    assert_eq!(reports[0]["snapshot"]["sender"]["pid"], deployer.pid(), "{:#}", reports[0]);
    assert!(!sandbox.db().exists(), "a snapshot makes no store");
    let best = reports[1..].iter().map(micros).min().unwrap();
    assert_within(limit, best, "a signal");
}

#[test]
fn a_store_that_is_gone_holds_no_shutdown_up() {
    assert_told_without_its_store(true, AT_ONCE);
}

/// 300 ms are promised for a store that cannot be read.
#[test]
fn a_store_that_is_gone_before_it_was_read_holds_no_shutdown_up() {
    assert_told_without_its_store(false, Duration::from_millis(400));
}

/// A `run` behind a stopped writer: its command is asked at once, the line says what is not on
/// record yet and who is in the way, and the story is complete when that one has gone on.
#[test]
fn a_run_behind_a_stopped_writer_passes_the_signal_on() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let writer = stopped_writer(&sandbox);
    let mut deployer = sandbox.deployer();
    deployer.send("TERM", run.pid());
    assert_eq!(run.process.line(), "TERM");
    let said = said_of_signal(&mut run.process);
    assert_eq!(said["sender_pid"], deployer.pid().to_string());
    assert!(said["recorded"].contains("not written"), "{said:?}");
    assert!(said["recorded"].contains(&format!("pid {}", writer.pid())), "{said:?}");
    assert_eq!(sandbox.shutdown_rows(), 0);
    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    run.let_end();
    run.process.finish_with_stdin_open(LIMIT).assert_code(7);
    assert_eq!(sandbox.newest_shutdown()["sender_pid"], deployer.pid());
    let end = &sandbox.history()[0];
    assert_eq!(end["end_reason"], "signalled", "{end:#}");
    let by = end["ended_by"].as_str().unwrap();
    assert!(by.starts_with(&format!("pid {} (", deployer.pid())), "{end:#}");
}

/// Without a store to ask, or with one that cannot be used, a snapshot has everything else, and
/// none is made.
#[test]
fn without_a_usable_store_a_snapshot_says_why() {
    let markers = ["takeover_marker", "takeover_marker_for_self", "planned_stop_marker"];
    let assert_reasons = |snapshot: &Value, reason: &str| {
        for field in [&markers[..], &["recorded"]].concat() {
            let seen = why(&snapshot[field]);
            assert!(seen.contains(reason), "{field}: {seen:?}, not {reason:?}");
        }
        assert_eq!(snapshot["parent"]["pid"], std::process::id(), "{snapshot:#}");
    };

    let sandbox = Sandbox::new();
    assert_reasons(&sandbox.forensic_snapshot(&["--signal", "15"]), "there is no store");
    assert_reasons(&sandbox.forensic_snapshot(&[]), "there is no store");
    assert!(!sandbox.file("store").exists());

    // Not ours.
    std::fs::create_dir(sandbox.file("store")).unwrap();
    std::fs::set_permissions(sandbox.file("store"), PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::write(sandbox.db(), "this is no database, and longer than its header".repeat(200))
        .unwrap();
    std::fs::set_permissions(sandbox.db(), PermissionsExt::from_mode(0o600)).unwrap();
    let before = sandbox.picture();
    assert_reasons(&sandbox.forensic_snapshot(&["--signal", "15"]), "not an SQLite database");
    assert_eq!(sandbox.picture(), before);

    // Damaged in the middle: whatever cannot be read says so, and the rest is there.
    let sandbox = Sandbox::new();
    sandbox.hold(&[]).end().assert_code(0);
    let length = std::fs::metadata(sandbox.db()).unwrap().len();
    let mut file = std::fs::OpenOptions::new().write(true).open(sandbox.db()).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(4096)).unwrap();
    file.write_all(&vec![0xa5; usize::try_from(length).unwrap() - 4096]).unwrap();
    drop(file);
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(sandbox.sidecar(suffix));
    }
    let snapshot = sandbox.forensic_snapshot(&["--signal", "15"]);
    assert!(!why(&snapshot["recorded"]).is_empty(), "{snapshot:#}");
    assert_eq!(snapshot["parent"]["pid"], std::process::id(), "{snapshot:#}");
}

/// FIELD-BUGS row 81: a store of an older version is read as it is, and not migrated by a question.
#[test]
fn an_older_store_is_read_and_left_as_it_is() {
    for version in [4, 3, 2, 1] {
        let sandbox = Sandbox::new();
        let run = sandbox.hold(&[]);
        run.end().assert_code(0);
        sandbox.age_to(version);
        let snapshot = sandbox.forensic_snapshot(&["--signal", "15"]);
        let reason = why(&snapshot["recorded"]);
        assert!(reason.contains("not written") && reason.contains("older"), "{reason}");
        for field in ["takeover_marker", "takeover_marker_for_self", "planned_stop_marker"] {
            assert_eq!(snapshot[field], Value::Null, "version {version}: {snapshot:#}");
        }
        assert_eq!(sandbox.number("PRAGMA user_version"), version);
        // Without a signal there is nothing to put on record, whatever the store.
        let snapshot = sandbox.forensic_snapshot(&[]);
        assert!(why(&snapshot["recorded"]).contains("no signal"), "{snapshot:#}");
    }
}

#[test]
fn a_store_that_may_not_be_read_costs_only_what_it_says() {
    let Some(nobody) = another_user() else { return skipped("needs root") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    sandbox.hold(&[]).end().assert_code(0);
    let root = Some(rustix::process::Uid::ROOT);
    for path in [sandbox.file("store"), sandbox.db()] {
        rustix::fs::chown(&path, root, None).unwrap();
    }
    let snapshot = sandbox.forensic_snapshot_behind(nobody, &binary, &["--signal", "15"]);
    for field in ["recorded", "takeover_marker", "planned_stop_marker"] {
        let reason = why(&snapshot[field]);
        assert!(reason.contains("state.db") || reason.contains("store"), "{field}: {reason}");
    }
    assert_eq!(snapshot["self"]["uid"], 65534, "{snapshot:#}");
    assert_eq!(sandbox.shutdown_rows(), 0);
}

/// R:FULL. FIELD-BUGS row 78.
#[test]
fn on_a_full_disk_a_snapshot_says_that_it_is_not_on_record() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "2m") else { return };
    disk.cli(&["run", "--no-backoff", "--", "true"]).assert_code(0);
    disk.fill_up();
    let snapshot = snapshot_of(disk.cli(&["--json", "forensics", "snapshot", "--signal", "15"]));
    let reason = why(&snapshot["recorded"]);
    assert!(reason.contains("full"), "{reason}");
    assert_eq!(snapshot["signal"], "SIGTERM", "{snapshot:#}");
    assert!(snapshot["self"]["cmdline"].is_string(), "{snapshot:#}");
    disk.shell("rm store/fill").assert_code(0);
    let snapshot = snapshot_of(disk.cli(&["--json", "forensics", "snapshot", "--signal", "15"]));
    assert!(snapshot["recorded"].is_i64(), "{snapshot:#}");
}
