//! Owners that belong to another user.

use incumbent::{Reason, Verdict};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::pids::Decoy;
use crate::support::{LIMIT, Process, Sandbox, another_user, kill, skipped, wait_ended};

/// The program, as nobody.
fn as_nobody(
    sandbox: &Sandbox,
    nobody: &[&str],
    binary: &std::path::Path,
    verb: &[&str],
) -> (i32, Value) {
    let mut command = sandbox.within(nobody);
    command.arg(binary).arg("--json").args(verb);
    let answer = Process::start(command).finish(LIMIT);
    (answer.code(), answer.json())
}

/// R:UID. FIELD-BUGS rows 11 and 34: a pid that belongs to another user by now, which may not even
/// be signalled, neither stops a start nor counts as the owner.
#[test]
fn a_pid_that_another_user_has_by_now_keeps_nobody_out() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    for (columns, reason) in [
        ("anchor = anchor", "anchor_released"),
        ("anchor = NULL", "pid_reused"),
        ("anchor = NULL, start_time = NULL", "pid_reused"),
    ] {
        let sandbox = Sandbox::new();
        let binary = sandbox.open_to_nobody();
        let run =
            ["run", "--no-backoff", "--", "/bin/sh", "-c", "kill -KILL $PPID; while :; do :; done"];
        let mut command = sandbox.within(nobody);
        command.arg(&binary).args(run);
        Process::start(command).finish(LIMIT).assert_code(137);
        let decoy = Decoy::new(&sandbox);
        sandbox.forge(&format!(
            "UPDATE instances SET child_pid = NULL, pid = {}, {columns}",
            decoy.0.pid()
        ));
        let (code, status) = as_nobody(&sandbox, nobody, &binary, &["status"]);
        assert_eq!((code, &status["reason"]), (3, &json!(reason)), "{columns}: {status:#}");
        let start = ["run", "--no-backoff", "--", "true"];
        let mut command = sandbox.within(nobody);
        command.arg(&binary).args(start);
        Process::start(command).finish(LIMIT).assert_code(0);
        decoy.assert_left_alone();
    }
}

/// FIELD-BUGS rows 33, 34 and 36.
///
/// Symptom: one start as root left files that the user's own gateway could not open; or the user's
/// `status` could not look, called that "stale" and deleted a live lock. It holds because files are
/// given to the directory's owner, and not being able to look is never evidence of death.
#[test]
fn a_root_owner_in_a_users_store_is_seen_by_that_user() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let run = sandbox.hold(&[]);
    let (code, status) = as_nobody(&sandbox, nobody, &binary, &["status"]);
    assert_eq!((code, &status["reason"]), (0, &json!("anchor_held")), "{status:#}");
    assert_eq!(status["pid"], run.pid());
    let (code, answer) =
        as_nobody(&sandbox, nobody, &binary, &["run", "--no-backoff", "--", "true"]);
    assert_eq!(code, 75, "{answer:#}");
    assert_eq!(answer["holder"]["pid"], run.pid());
    // An anchor that cannot be opened is not a free one.
    let anchor = sandbox.anchors().join(&sandbox.anchor_names()[0]);
    std::os::unix::fs::chown(&anchor, Some(0), Some(0)).unwrap();
    let (code, status) = as_nobody(&sandbox, nobody, &binary, &["status"]);
    assert_eq!(status["evidence"]["anchor"], "unreadable", "{status:#}");
    assert_eq!((code, &status["verdict"]), (0, &json!("alive")), "{status:#}");
    assert!(anchor.exists());
    run.end().assert_code(0);
    // After root has gone, the user goes on with the same store.
    let start = ["run", "--no-backoff", "--", "true"];
    let mut command = sandbox.within(nobody);
    command.arg(&binary).args(start);
    Process::start(command).finish(LIMIT).assert_code(0);
}

/// A killed owner that is not yet collected by its parent, seen through the library as well.
#[test]
fn the_library_sees_what_the_program_sees() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let store = incumbent::Store::open_existing(sandbox.db()).unwrap().unwrap();
    let profile = store.profile("default").unwrap();
    assert_eq!(profile.status().unwrap().reason, Reason::AnchorHeld);
    kill(run.pid(), Signal::KILL);
    assert!(wait_ended(run.pid(), LIMIT));
    run.command.wait_gone(LIMIT);
    let report = profile.status().unwrap();
    assert_eq!((report.verdict, report.reason), (Verdict::Dead, Reason::AnchorReleased));
}
