//! What a process has given back, and meets again on record: it executed nothing.

use serde_json::json;

use super::party::Party;
use crate::support::Sandbox;

impl Sandbox {
    /// How many rows ended for this reason.
    fn rows_ended_as(&self, reason: &str) -> i64 {
        self.number(&format!("SELECT count(*) FROM instances WHERE end_reason = '{reason}'"))
    }

    /// Deletes the `-wal`, which has nothing that is not in the database.
    fn lose_empty_wal(&self) {
        let connection = rusqlite::Connection::open(self.db()).unwrap();
        let emptied = "PRAGMA wal_checkpoint(TRUNCATE)";
        let is_busy: i64 = connection.query_row(emptied, [], |row| row.get(0)).unwrap();
        assert_eq!(is_busy, 0);
        drop(connection);
        std::fs::remove_file(self.sidecar("-wal")).unwrap();
    }
}

fn open(owner: &mut Party) {
    assert_eq!(owner.ask(&json!({"do": "open"})), "opened");
}

fn close(owner: &mut Party) {
    assert_eq!(owner.ask(&json!({"do": "close"})), "closed");
}

fn loses(owner: &mut Party) {
    assert_eq!(owner.about("release", 0), "WasLost");
}

/// Symptom: the history said of a process that had executed nothing that it re-executed itself.
/// Cause: the `-wal` was deleted, and it gave back what it had before it claimed again. What it
/// meets then looks like an exec: its own pid and start time, and its anchor free. It holds because
/// a process knows the anchors that it let go, through whatever handle that was.
#[test]
fn what_was_given_back_in_a_lost_store_is_no_exec() {
    let orders: [&[fn(&mut Party)]; 3] = [&[loses, open], &[loses, close, open], &[open, loses]];
    for (case, orders) in orders.into_iter().enumerate() {
        let sandbox = Sandbox::new();
        let mut owner = sandbox.party();
        let fence = owner.acquire(&["token"])[0];
        sandbox.lose_empty_wal();
        for order in orders {
            order(&mut owner);
        }
        assert_eq!(sandbox.live_rows(), 1, "case {case}: it is back on record");
        assert!(owner.acquire(&["token"])[0] > fence, "case {case}");
        let ended = ["store_replaced", "re_executed"].map(|reason| sandbox.rows_ended_as(reason));
        assert_eq!((ended, sandbox.live_rows()), ([1, 0], 1), "case {case}");
    }
}

/// Symptom: the same, of a release that could not be written. Cause: it was kept by the handle, and
/// went with it. It holds because the next handle of the process has it, and counts and writes it.
#[test]
fn a_pending_release_outlives_its_handle() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.party_with(&json!({"busy_ms": 50}));
    owner.acquire(&["token"]);
    let blocker = rusqlite::Connection::open(sandbox.db()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(owner.about("release", 0), json!({"pending": "busy"}));
    close(&mut owner);
    blocker.execute_batch("ROLLBACK").unwrap();
    assert_eq!((sandbox.rows_ended_as("released"), sandbox.live_rows()), (0, 1));
    open(&mut owner);
    assert_eq!(owner.ask(&json!({"do": "pending"})), 1);
    owner.acquire(&["token"]);
    assert_eq!(owner.ask(&json!({"do": "pending"})), 0);
    let ended = ["released", "re_executed"].map(|reason| sandbox.rows_ended_as(reason));
    assert_eq!((ended, sandbox.live_rows()), ([1, 0], 1));
}
