//! Processes that keep others from writing are named, and a repair does not wait for them.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::json;

use crate::support::{LIMIT, Sandbox, assert_within, stopped_writer};

/// FIELD-BUGS rows 63 and 77: all wait for one process. The doctor does not, and names it.
#[test]
fn whoever_keeps_others_from_writing_is_named_in_time() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let writer = stopped_writer(&sandbox);
    let before = sandbox.picture();
    let asked = Instant::now();
    let diagnosis = sandbox.doctor();
    assert_within(Duration::from_secs(3), asked.elapsed(), "it");
    let pid = format!("pid {}", writer.pid());
    let finding = diagnosis.assert("write_lock", "error", &[&pid, "which is stopped"]);
    diagnosis.assert_only(&["write_lock"]);
    assert!(sandbox.picture() == before, "something was written");
    // It goes on, and still has the lock.
    sandbox.try_remedy(finding, "kill -CONT").assert_code(0);
    sandbox.doctor().assert("write_lock", "warning", &[&pid]);
    drop(writer);
    sandbox.doctor().assert_only(&[]);
    run.end().assert_code(0);
}

/// A repair behind a stopped writer gives up in time, says why, and leaves everything as it is.
#[test]
fn a_repair_does_not_wait_for_a_stopped_writer() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    run.kill();
    run.command.wait_gone(LIMIT);
    let writer = stopped_writer(&sandbox);
    let asked = Instant::now();
    let fixed = sandbox.doctor_with(&["--fix"]);
    assert_within(Duration::from_secs(12), asked.elapsed(), "it");
    let finding = fixed.about("stale_rows")[0];
    let act = finding["act"].as_str().unwrap();
    assert!(act.starts_with("could not") && act.contains("stayed busy"), "{act}");
    assert_eq!((fixed.code, &finding["left"]), (1, &json!(true)));
    drop(writer);
    assert_eq!(sandbox.doctor_with(&["--fix"]).code, 0);
}

/// A program that has the database for itself alone keeps even questions out.
#[test]
fn a_store_that_somebody_has_for_himself_is_said_to_be_busy() {
    let sandbox = Sandbox::new();
    sandbox.used();
    let alone = Connection::open(sandbox.db()).unwrap();
    alone.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    let asked = Instant::now();
    let diagnosis = sandbox.doctor();
    assert_within(Duration::from_secs(3), asked.elapsed(), "it");
    let us = format!("pid {}", std::process::id());
    diagnosis.assert("open", "error", &["stayed busy", &us]);
    diagnosis.assert("write_lock", "warning", &[&us]);
    drop(alone);
    sandbox.doctor().assert_only(&[]);
}
