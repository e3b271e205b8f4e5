//! Disks that are full or read-only.

use std::path::Path;
use std::time::Duration;

use incumbent::{Claim, StatusUpdate, Store};
use serde_json::{Value, json};

use super::{QUESTIONS, START, as_json};
use crate::support::{
    BINARY, Disk, LIMIT, Process, Sandbox, assert_untouched, fingerprint, has, mount_namespace,
    read_only_store, skipped, works,
};

/// R:FULL. FIELD-BUGS row 78.
///
/// Symptom: a lock was "granted" although nothing could be written. It holds because what is not
/// committed is not held; and questions need no room.
#[test]
fn on_a_full_disk_nothing_is_granted_and_questions_are_answered() {
    let Some(words) = mount_namespace() else { return skipped("needs root and mounts") };
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    let sandbox = Sandbox::new();
    let script = "
        incumbent run -- true
        sqlite3 store/state.db '.filectrl persist_wal 1' 'PRAGMA wal_checkpoint(TRUNCATE)' \
            > /dev/null
        fill
        incumbent --json run --no-backoff -- echo started > run.json; echo \"run $?\"
        incumbent --json status > status.json; echo \"status $?\"
        incumbent history > /dev/null; echo \"history $?\"
        rm store/fill
        incumbent run --no-backoff -- echo started; echo \"run $?\"
        ls store/state.db.anchors | wc -l
        incumbent --json history > history.json";
    let answer = sandbox.on_a_disk(words, "600k", script).finish(LIMIT).assert_code(0);
    let lines: Vec<_> = answer.out.lines().map(str::trim).collect();
    assert_eq!(lines[..3], ["run 70", "status 3", "history 0"], "{answer:#?}");
    assert_eq!(lines[3..5], ["started", "run 0"], "{answer:#?}");
    assert!(lines[5].parse::<u32>().unwrap() <= 1, "anchors are left behind: {answer:#?}");
    let read = |name: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(sandbox.file(name)).unwrap()).unwrap()
    };
    assert_eq!(read("run.json")["error"]["kind"], "cannot_write");
    assert_eq!(read("status.json")["reason"], "exited");
    assert_eq!(read("history.json").as_array().unwrap().len(), 2);
}

/// R:FULL. FIELD-BUGS row 78, the other end: a release that cannot be written is kept and written
/// later, and blocks nobody meanwhile. It holds because ownership ends with the lock, not the row.
#[test]
fn a_release_on_a_full_disk_is_pending_and_blocks_nobody() {
    let Some(words) = mount_namespace() else { return skipped("needs root and mounts") };
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    for meets_contender in [false, true] {
        let sandbox = Sandbox::new();
        let disk = sandbox.on_a_disk(words, "600k", "echo mounted; exec cat");
        let disk = Disk::new(&sandbox, disk);
        let mut gateway = disk.role(
            crate::claims::library::gateway::ROLE_TEST,
            crate::claims::library::gateway::GATEWAY,
        );
        let mut ask = |order: &str| crate::support::ask(&mut gateway, order);
        assert_eq!(ask("open"), "opened");
        assert!(ask("claim default").starts_with("granted"));
        disk.fill_up();
        assert!(ask("release").starts_with("Pending(CannotWrite)"));
        assert_eq!(ask("pending"), "1");
        let status = disk.cli(&["--json", "status"]);
        assert_eq!(status.code(), 3, "{status:#?}");
        disk.shell("rm store/fill").assert_code(0);
        if meets_contender {
            let answer = disk.cli(START).assert_code(0);
            assert_eq!(answer.out, "started\n", "{answer:#?}");
        }
        assert!(ask("claim other").starts_with("granted"));
        assert_eq!(ask("pending"), "0");
        let history = disk.cli(&["--json", "history"]).assert_code(0).json();
        let reasons: Vec<_> =
            history.as_array().unwrap().iter().map(|row| &row["end_reason"]).collect();
        let expected = if meets_contender {
            json!(["exited", "anchor_released"])
        } else {
            json!(["released"])
        };
        assert_eq!(json!(reasons), expected, "{history:#}");
    }
}

/// R:RO. A backup or a container's view that cannot be written still tells who runs.
#[test]
fn a_read_only_mount_answers_questions() {
    let Some(words) = read_only_store() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    let ask = |verb: &'static [&str]| {
        Process::start(sandbox.under(words, Path::new(BINARY), &as_json(verb))).finish(LIMIT)
    };
    let run = sandbox.hold(&[]);
    let status = ask(QUESTIONS[0]).assert_code(0).json();
    assert_eq!(status["verdict"], "alive", "{status:#}");
    assert_eq!(status["pid"], run.pid(), "{status:#}");
    let start = ask(START);
    assert!(matches!(start.code(), 70 | 78), "{start:#?}");
    let kind = start.json()["error"]["kind"].clone();
    assert!(kind == "cannot_write" || kind == "permission", "{start:#?}");
    run.end().assert_code(0);
    // FIELD-BUGS row 73: the sidecars stay after the last close, or this could not be read.
    for suffix in ["", "-wal", "-shm"] {
        assert!(sandbox.sidecar(suffix).exists(), "state.db{suffix} went with the last close");
    }
    let before = fingerprint(sandbox.path());
    assert_eq!(ask(QUESTIONS[0]).assert_code(3).json()["reason"], "exited");
    for verb in &QUESTIONS[1..] {
        ask(verb).assert_code(0);
    }
    assert_untouched(&before, sandbox.path(), "read-only");
}

/// Symptom: on a filesystem that was mounted read-only a `run` could not create its anchor (70),
/// without a word on what to do, and `unlock --stale` said that there was nothing to unlock. It
/// holds because a transaction that can only read is none for a change.
#[test]
fn no_change_begins_where_nothing_can_be_written() {
    let Some(words) = read_only_store() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    let cli = |verb: &[&str]| {
        let mut command = sandbox.within(words);
        command.arg(BINARY).args(verb);
        Process::start(command).finish(LIMIT)
    };
    for verb in [
        &["run", "--no-backoff", "--", "true"][..],
        &["--profile", "other", "run", "--no-backoff", "--", "true"],
        &["unlock", "--stale"],
        &["evict"],
        &["desired", "running"],
    ] {
        cli(verb).assert_code(78).assert_complains(&["state.db cannot be written", "read-only"]);
    }
    // Nobody takes for a crash what does not run.
    assert_eq!(cli(&["stop"]).assert_code(0).err, "");
}

/// Symptom: beside a disk with much to do, a refused start held up all other writers for seconds
/// when it ended: it emptied the WAL, and waited for the disk with the write lock in its hands. It
/// holds because the disk is waited for first, while others write.
#[test]
fn who_empties_the_wal_waits_for_a_slow_disk_alone() {
    /// Two syncs of this length are more than a call waits.
    const SYNC_TAKES: Duration = Duration::from_secs(3);
    if !works(&["strace", "-f", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let Claim::Granted(tenure) = store.profile("default").unwrap().claim().unwrap() else {
        panic!("refused");
    };
    let said = json!("x".repeat(1_000));
    let say = |number: u32| {
        let update = StatusUpdate::new().extra(json!({"number": number, "said": said}));
        tenure.update_status(&update).map(drop)
    };
    let wal = || std::fs::metadata(sandbox.file("store/state.db-wal")).unwrap().len();
    let mut number = 0;
    while wal() < 300 * 1024 {
        number += 1;
        say(number).unwrap();
    }
    let trace = sandbox.file("trace");
    let mut command = sandbox.program("strace");
    command.args(["-f", "-q", "-e", "trace=fsync,fdatasync", "-o"]).arg(&trace);
    let inject = format!("inject=fsync,fdatasync:delay_enter={}", SYNC_TAKES.as_micros());
    command.args(["-e", &inject, BINARY, "desired", "running", "--profile", "another"]);
    let mut traced = Process::start(command);
    while !traced.has_ended() {
        number += 1;
        say(number).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    traced.finish(LIMIT).assert_code(0);
    let trace = std::fs::read_to_string(trace).unwrap();
    assert!(trace.matches("sync(").count() >= 2, "the WAL was not moved: {trace}");
}
