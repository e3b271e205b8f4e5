//! Scoped locks, by hand.

use rusqlite::Connection;

use super::{Hand, OWNER, event_with, make_anchor, probe};
use crate::linux::measure::Once;

/// What the process holds besides the lock that comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// Nothing: a row and an anchor come and go as well.
    Nothing,
    /// An office, and with it the anchor: a row for its locks comes and goes.
    Office,
    /// Another lock.
    Lock,
}

const LOCK_DETAIL: &str = concat!(
    r#"{"scope":"bot-token","identity_hash":"0123456789abcdef","#,
    r#""fence":1795305600000000,"evicted":null}"#
);

pub fn lock_alone(hand: Hand) -> Once {
    lock(hand, Company::Nothing)
}

pub fn lock_beside_office(hand: Hand) -> Once {
    lock(hand, Company::Office)
}

pub fn lock_beside_lock(hand: Hand) -> Once {
    lock(hand, Company::Lock)
}

fn lock(mut hand: Hand, company: Company) -> Once {
    let held = hand.own();
    let mut last_id = OWNER;
    Box::new(move || {
        acquire_and_release(&mut hand, &mut last_id, company).expect("a lock");
        let _ = &held;
    })
}

fn acquire_and_release(
    hand: &mut Hand,
    last_id: &mut i64,
    company: Company,
) -> rusqlite::Result<()> {
    let instance = if company == Company::Lock { OWNER } else { *last_id + 1 };
    let fence = *last_id + 2;
    *last_id = fence;
    let anchor = hand.anchors.join(format!("{instance}.lock"));
    let mut kept = None;
    hand.write(|tx| {
        if company == Company::Nothing {
            kept = Some(make_anchor(&anchor));
        }
        if company != Company::Lock {
            tx.prepare_cached(
                "INSERT INTO instances (id, nonce_hash, origin, pid, start_time, start_time_unit,
                    boot_id, pid_ns, host, uid, argv, party, supervisor, stop_budget_ms, anchor,
                    started_at_ms)
                 VALUES (?1, 'hash of 64 digits', 'library', 4711, 1, 'ticks', 'boot', 'ns', 'host',
                    0, '[\"gw\"]', 'party', 'none', 90000, 'anchor', 1)",
            )?
            .execute([instance])?;
        }
        take_lock(tx, instance, fence)?;
        event_with(tx, "lock_acquired", instance, LOCK_DETAIL)?;
        tx.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'last_id'")?.execute([fence])
    })?;
    hand.write(|tx| {
        tx.prepare_cached(
            "DELETE FROM scoped_locks
             WHERE scope = 'bot-token' AND identity_hash = '0123456789abcdef' AND fence = ?1",
        )?
        .execute([fence])?;
        event_with(tx, "lock_ended", instance, LOCK_DETAIL)?;
        if company == Company::Lock {
            return Ok(0);
        }
        tx.prepare_cached(
            "UPDATE instances SET ended_at_ms = 2, end_reason = 'released' WHERE id = ?1",
        )?
        .execute([instance])?;
        tx.prepare_cached("DELETE FROM instances WHERE id > 1000 AND id < ?1 - 400")?
            .execute([instance])
    })?;
    if kept.take().is_some() {
        std::fs::remove_file(&anchor).expect("an anchor");
    }
    Ok(())
}

fn take_lock(tx: &Connection, instance: i64, fence: i64) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "INSERT INTO scoped_locks (scope, identity_hash, instance_id, fence, acquired_at_ms,
            ttl_ms, lease_until_ms, lease_boot_id)
         VALUES ('bot-token', '0123456789abcdef', ?1, ?2, 1, 60000, 2, 'boot')",
    )?
    .execute([instance, fence])
}

/// As for a tenure, and the lock's own row.
pub fn verify_lock(hand: Hand) -> Once {
    let held = hand.own();
    take_lock(&hand.connection, OWNER, 1).expect("a lock");
    let mut reader = hand.reader();
    Box::new(move || {
        let tx = reader.transaction().expect("a snapshot");
        let hash: String = tx
            .prepare_cached(
                "SELECT nonce_hash FROM instances WHERE id = ?1 AND ended_at_ms IS NULL",
            )
            .and_then(|mut query| query.query_row([OWNER], |row| row.get(0)))
            .expect("a row");
        assert_eq!(hash.len(), 64);
        let fence: i64 = tx
            .prepare_cached(
                "SELECT fence FROM scoped_locks
                 WHERE scope = 'bot-token' AND identity_hash = '0123456789abcdef'",
            )
            .and_then(|mut query| query.query_row([], |row| row.get(0)))
            .expect("a lock");
        assert_eq!(fence, 1);
        drop(tx);
        std::fs::metadata(&hand.database).expect("the store");
        std::fs::metadata(&hand.anchors).expect("the anchors");
        let _ = &held;
    })
}

pub fn renew_lock(mut hand: Hand) -> Once {
    let held = hand.own();
    take_lock(&hand.connection, OWNER, 1).expect("a lock");
    let mut now = 0_i64;
    Box::new(move || {
        now += 1;
        let renewed = hand.write(|tx| {
            tx.prepare_cached(
                "UPDATE scoped_locks SET renewed_at_ms = ?1, lease_until_ms = ?1 + ttl_ms
                 WHERE scope = 'bot-token' AND identity_hash = '0123456789abcdef' AND fence = 1",
            )?
            .execute([now])
        });
        renewed.expect("a renewal");
        let _ = &held;
    })
}

/// Somebody else has it: the row, and a probe of its anchor. Nothing is written.
pub fn refused_lock(hand: Hand) -> Once {
    let held = hand.own();
    take_lock(&hand.connection, OWNER, 1).expect("a lock");
    let reader = hand.reader();
    Box::new(move || {
        let anchor: String = reader
            .prepare_cached(
                "SELECT anchor FROM scoped_locks JOIN instances ON id = instance_id
                 WHERE scope = 'bot-token' AND identity_hash = '0123456789abcdef'
                   AND ended_at_ms IS NULL",
            )
            .and_then(|mut query| query.query_row([], |row| row.get(0)))
            .expect("a holder");
        probe(&hand.anchors.join(anchor));
        let _ = &held;
    })
}
