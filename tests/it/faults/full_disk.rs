//! A disk that is full of somebody else's files, and a WAL that could give room.

use crate::support::{Disk, Process, Sandbox};

/// Fills `disk`, beside a WAL with pages of `pid`'s for which the database has room.
fn fill_beside_wal(disk: &Disk, pid: &str) {
    disk.shell("rm -f store/fill").assert_code(0);
    // Pages that the database has room for: one that has to grow itself cannot be helped.
    let free = "sqlite3 store/state.db '.filectrl persist_wal 1' \
        \"INSERT INTO events (at_ms, event, detail) \
           VALUES (0, 'test', json_quote(hex(zeroblob(100000))))\" \
        \"DELETE FROM events WHERE event = 'test'\" 'PRAGMA wal_checkpoint(TRUNCATE)' > /dev/null";
    disk.shell(free).assert_code(0);
    // Less than what makes the next one that closes empty it.
    let grow = "while [ $(stat -c %s store/state.db-wal) -lt 150000 ]; do
        incumbent --profile owner marker write note --pid $0 > /dev/null || exit; done";
    disk.shell(&grow.replace("$0", pid)).assert_code(0);
    disk.shell("dd if=/dev/zero of=store/fill bs=1k 2> /dev/null; true").assert_code(0);
    // What follows meets a disk on which there is no room, beside frames that are not in the
    // database yet.
    let is_so = "[ $(stat -f -c %a store) = 0 ] && [ $(stat -c %s store/state.db-wal) -ge 150000 ]";
    disk.shell(is_so).assert_code(0);
}

/// FIELD-BUGS row 133.
///
/// Symptom: beside a WAL of hundreds of KiB, for whose pages the database had room, each start and
/// each other change was refused, also after `doctor --fix`. It holds because a change that finds
/// no room is done again after a checkpoint.
#[test]
fn a_full_disk_that_a_checkpoint_eases_refuses_no_change() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "2500k") else { return };
    let mut owner = disk.enter();
    owner.arg("cat");
    let owner = Process::start(owner);
    let pid = owner.pid().to_string();
    let pid = pid.as_str();
    disk.cli(&["--profile", "owner", "claim", "--pid", pid]).assert_code(0);
    let verbs: &[&[&str]] = &[
        &["run", "--no-backoff", "--", "true"],
        &["--profile", "other", "run", "--no-backoff", "--", "true"],
        &["--profile", "owner", "marker", "write", "last", "--pid", pid],
        &["--profile", "owner", "status-set", "--pid", pid, "--state", "running"],
        &["--profile", "owner", "lock", "acquire", "scope", "identity", "--pid", pid],
        &["--profile", "owner", "lock", "release", "scope", "identity", "--pid", pid],
        &["--profile", "owner", "desired", "running"],
        &["run", "--no-backoff", "--", "true"],
        &["--profile", "owner", "release", "--pid", pid],
    ];
    for verb in verbs {
        fill_beside_wal(&disk, pid);
        let answer = disk.cli(verb);
        assert_eq!(answer.code(), 0, "{verb:?}: {answer:#?}");
    }
    drop(owner);
}

/// Its siblings in one transaction.
///
/// Symptom: `unlock --stale` left the lock of one dead holder, and said that it had removed all. It
/// holds because a change that is done again begins with nothing of the first time.
#[test]
fn a_change_that_is_done_again_on_a_full_disk_is_done_as_a_whole() {
    const HOLDERS: usize = 4;
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "2500k") else { return };
    let mut owner = disk.enter();
    owner.arg("cat");
    let owner = Process::start(owner);
    let pid = owner.pid().to_string();
    disk.cli(&["--profile", "owner", "claim", "--pid", &pid]).assert_code(0);
    for nth in 0..HOLDERS {
        // Killed by what it has started: nobody records its end.
        let holder = "incumbent --profile p$0 run --no-backoff --lock scope$0=x -- \
                      sh -c 'kill -KILL $PPID'; true";
        disk.shell(&holder.replace("$0", &nth.to_string())).assert_code(0);
    }
    fill_beside_wal(&disk, &pid);
    let unlocked = disk.cli(&["--json", "unlock", "--stale"]).assert_code(0);
    let removed = unlocked.json()["unlocked"].as_array().map(Vec::len);
    assert_eq!(removed, Some(HOLDERS), "{unlocked:#?}");
    assert_eq!(disk.cli(&["--json", "locks"]).json(), serde_json::json!([]));
    drop(owner);
}

/// FIELD-BUGS row 78. Symptom: on a full disk a start beside a living owner was told of the disk
/// (70), and not of the owner. It holds because what is refused needs no record of it: 75, by name.
#[test]
fn on_a_full_disk_a_refusal_is_a_refusal() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "600k") else { return };
    let [owner, other] = [(); 2].map(|()| {
        let mut sleeper = disk.enter();
        sleeper.arg("cat");
        Process::start(sleeper)
    });
    let (pid, other_pid) = (owner.pid().to_string(), other.pid().to_string());
    disk.cli(&["claim", "--pid", &pid]).assert_code(0);
    disk.cli(&["lock", "acquire", "scope", "token", "--pid", &pid]).assert_code(0);
    disk.fill_up();
    let held = format!("pid {pid} (");
    for verb in [
        &["run", "--no-backoff", "--", "true"][..],
        &["run", "--no-backoff", "--profile", "b", "--lock", "scope=token", "--", "true"],
        &["claim", "--pid", &other_pid],
        &["lock", "acquire", "scope", "token", "--pid", &other_pid],
    ] {
        disk.cli(verb).assert_code(75).assert_complains(&[&held]);
    }
    // What is not refused cannot be recorded, and so is not granted.
    disk.cli(&["claim", "--profile", "c", "--pid", &other_pid]).assert_code(70);
    drop((owner, other));
}
