//! A process that stands in the way of every other writer.

use std::time::Duration;

use rusqlite::Connection;
use rustix::process::Signal;

use super::{
    LIMIT, Process, Sandbox, eventually, kill_all, order, plays, role_db, test_name, wait_stopped,
};

/// The part of a process that holds the write lock.
#[test]
fn role_of_a_writer() {
    if !plays("writer") {
        return;
    }
    let connection = Connection::open(role_db()).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE; DELETE FROM events").unwrap();
    eprintln!("writing");
    assert_eq!(order(), None);
}

/// A process that writes: it has the store's write lock until its standard input is closed.
pub fn writer(sandbox: &Sandbox) -> Process {
    let mut writer = sandbox.role(test_name!(role_of_a_writer), "writer");
    writer.err_line_with("writing");
    writer
}

/// The same, stopped.
pub fn stopped_writer(sandbox: &Sandbox) -> Process {
    let writer = writer(sandbox);
    writer.signal(Signal::STOP);
    wait_stopped(writer.pid());
    writer
}

/// Stops processes, none of them within a transaction: it would keep everybody out by that.
pub fn stop_between_transactions(sandbox: &Sandbox, pids: &[u32]) {
    eventually("they are stopped between two transactions", LIMIT, || {
        kill_all(pids, Signal::STOP);
        for pid in pids {
            wait_stopped(*pid);
        }
        let connection = Connection::open(sandbox.db()).unwrap();
        connection.busy_timeout(Duration::from_millis(100)).unwrap();
        let is_between = connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok();
        if !is_between {
            kill_all(pids, Signal::CONT);
        }
        is_between.then_some(())
    });
}
