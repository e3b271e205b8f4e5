//! The owner of a store that is gone: told, named, never beside another one.

use rustix::process::Signal;

use super::Fate;
use crate::claims::library::gateway::{GATEWAY, ROLE_TEST};
use crate::support::{
    Disk, LIMIT, Process, Sandbox, ask, eventually, has, kill, pid_namespace, skipped, works,
};

/// Whether somebody holds that anchor: `flock -n -s` is refused.
pub fn is_anchor_held(sandbox: &Sandbox, name: &str) -> bool {
    let file = sandbox.anchors().join(name);
    let script = format!("[ -e '{0}' ] && ! flock -n -s '{0}' true", file.display());
    Process::start(sandbox.shell(&script)).finish(LIMIT).code() == 0
}

/// A store that was recovered has the id of the damaged one, and the rows of those who lived in it.
/// Its owner has to be told all the same: nothing that it writes would arrive. Nobody else gets in
/// before that.
#[test]
fn the_owner_of_a_recovered_store_is_told() {
    for has_read_before in [false, true] {
        let sandbox = Sandbox::new();
        let mut owner = sandbox.owner();
        if has_read_before {
            assert_eq!(ask(&mut owner, "verify"), "Held");
        }
        crate::store::damage::destroy_root_of(&sandbox, "events");
        sandbox.cli(["doctor", "--fix"]);
        let what = format!("read before: {has_read_before}");
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        // The files still have names, so it is their paths that tell, which it looks at once a
        // second.
        eventually(&what, LIMIT, || {
            let standing = ask(&mut owner, "verify");
            assert!(["Held", "StoreReplaced"].contains(&standing.as_str()), "{what}: {standing}");
            (standing == "StoreReplaced").then_some(())
        });
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        assert_eq!(ask(&mut owner, "release"), "WasLost", "{what}");
        assert_eq!(ask(&mut owner, "close"), "closed");
        sandbox.assert_free();
    }
}

/// FIELD-BUGS rows 25 and 32. The store is deleted with its anchors under a stopped `run`. Symptom:
/// one contender in a container, which could see nobody, opened the office for everybody. It holds
/// because not being able to look is no sign that the owner has let go.
#[test]
fn who_cannot_see_the_owner_of_a_deleted_store_gets_nothing() {
    let Some(words) = pid_namespace() else { return skipped("needs pid namespaces") };
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    kill(run.pid(), Signal::STOP);
    std::fs::remove_dir_all(sandbox.file("store")).unwrap();
    let start = ["run", "--no-backoff", "--", "true"];
    sandbox.cli(start).assert_code(75);
    let inside = sandbox.incumbent_under(words, &start);
    Process::start(inside).finish(LIMIT).assert_code(75);
    sandbox.cli(start).assert_code(75);
    kill(run.pid(), Signal::CONT);
    sandbox.wait_claimed_again("default", &run, "deleted with its anchors");
    run.end().assert_code(0);
    sandbox.assert_free();
}

/// A `run` whose store was deleted with its anchors makes the new one itself, and has not claimed
/// in it yet. Symptom: a contender was faster, and the command of the run that had lost went on for
/// its stop budget. It holds because whoever makes a store leaves in it who is still in the one
/// before, itself among them.
#[test]
fn nobody_gets_in_while_a_run_makes_its_new_store() {
    if !has("strace") || !works(&["strace", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let mut strace = sandbox.program("strace");
    let pid = run.pid().to_string();
    // The last step before it can claim: the directory of the anchors.
    let slowly = "inject=mkdir,mkdirat:delay_enter=1500000:when=2+";
    strace.args(["-f", "-o", "/dev/null", "-e", slowly, "-p", &pid]);
    let mut strace = Process::start(strace);
    strace.err_line_with("attached");
    std::fs::remove_dir_all(sandbox.file("store")).unwrap();
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    eventually("the run has made the store", LIMIT, || {
        let connection = rusqlite::Connection::open_with_flags(sandbox.db(), flags).ok()?;
        let id = "SELECT value FROM meta WHERE key = 'store_uuid'";
        connection.query_row(id, [], |row| row.get::<_, String>(0)).ok()
    });
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    strace.kill();
    sandbox.wait_claimed_again("default", &run, "made anew by itself");
    run.end().assert_code(0);
    sandbox.assert_free();
}

/// An owner that is stopped notices nothing. Symptom: with the `-wal` alone deleted everybody else
/// got "disk I/O error, check free space" until it went on, and a healthy run could not claim
/// again. It holds because a `-shm` that tells of what is not in the `-wal` is taken away, as if
/// both had been deleted.
pub fn an_owner_that_does_not_look_is_named_and_keeps_its_office(fate: Fate) {
    let sandbox = Sandbox::new();
    let older = sandbox.used_store();
    let mut owner = sandbox.owner();
    let run = sandbox.hold(&["--profile", "other"]);
    kill(owner.pid(), Signal::STOP);
    sandbox.meets(fate, &older);
    let waits_for_it = matches!(fate, Fate::BackupCopiedOver | Fate::Emptied);
    if !waits_for_it {
        sandbox.wait_claimed_again("other", &run, &format!("{fate:?}"));
    }
    for profile in ["default", "third"] {
        let start = ["--profile", profile, "run", "--no-backoff", "--", "true"];
        let refused = sandbox.cli(start);
        // Who is on record there still keeps its office, and no others.
        let is_free = fate == Fate::ShmDeleted && profile == "third";
        let refused = refused.assert_code(if is_free { 0 } else { 75 });
        if !is_free {
            refused.assert_complains(&[&format!("pid {}", owner.pid())]);
        }
    }
    kill(owner.pid(), Signal::CONT);
    assert_eq!(ask(&mut owner, "verify"), "StoreReplaced", "{fate:?}");
    assert_eq!(ask(&mut owner, "close"), "closed");
    eventually("the run has claimed again", LIMIT, || {
        let (code, status) = sandbox.json(["status", "--profile", "other"]);
        (code == 0 && status["pid"] == run.pid()).then_some(())
    });
    assert!(!run.command.is_gone());
    run.end().assert_code(0);
    sandbox.assert_free();
}

/// Two runs lose their store at once, and each is an orphan in the other's eyes.
pub fn runs_of_two_profiles_survive_the_loss_of_their_store(fate: Fate) {
    let sandbox = Sandbox::new();
    let older = sandbox.used_store();
    let a = sandbox.hold(&["--profile", "a"]);
    let b = sandbox.hold(&["--profile", "b", "--lock", "token=one"]);
    sandbox.meets(fate, &older);
    sandbox.wait_claimed_again("a", &a, &format!("the first, {fate:?}"));
    sandbox.wait_claimed_again("b", &b, &format!("the second, {fate:?}"));
    for profile in ["a", "b"] {
        let start = ["run", "--no-backoff", "--profile", profile, "--", "true"];
        sandbox.cli(start).assert_code(75);
    }
    a.end().assert_code(0);
    b.end().assert_code(0);
}

/// Symptom: two owners, after a `cp -al` of the state directory and a disk that was full for a
/// second. Cause: an owner whose anchor had a second name let go of it before the new one was on
/// record. It holds because the old lock is kept until the record that names the new one is
/// committed.
#[test]
fn an_anchor_that_cannot_be_replaced_on_record_is_kept() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "1m") else { return };
    let mut owner = disk.role(ROLE_TEST, GATEWAY);
    assert_eq!(ask(&mut owner, "open"), "opened");
    assert!(ask(&mut owner, "claim default").starts_with("granted"));
    disk.shell("mv store/state.db.anchors/*.lock store/backup.lock").assert_code(0);
    for _ in 0..3 {
        // The file of a new anchor has room, and the record that names it has none.
        disk.fill_up_to_a_page();
        assert_eq!(ask(&mut owner, "verify"), "Err(CannotWrite)");
        let status = disk.cli(&["--json", "status"]);
        assert_eq!(status.code(), 0, "a live owner is seen dead: {status:#?}");
    }
    disk.shell("rm store/fill").assert_code(0);
    let start = ["run", "--no-backoff", "--", "echo", "second owner"];
    let second = disk.cli(&start);
    assert_eq!((second.code(), second.out.as_str()), (75, ""), "{second:#?}");
    assert_eq!(ask(&mut owner, "verify"), "Held");
    disk.cli(&start).assert_code(75);
    disk.cli(&["status"]).assert_code(0);
    assert_eq!(ask(&mut owner, "release"), "Free");
    disk.cli(&start).assert_code(0);
}
