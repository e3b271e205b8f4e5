//! What gateways say and are told, by hand: status, heartbeats, markers, events.

use rusqlite::Connection;

use super::{Flavour, Hand, OWNER, event_with};
use crate::linux::measure::Once;

/// A marker to ourselves: two transactions, with an event each.
pub fn marker(mut hand: Hand) -> Once {
    const DETAIL: &str =
        r#"{"by":"pid 4711 (gateway), uid 0","marker":1795305600000000,"name":"note"}"#;
    let held = hand.own();
    let mut id = 0;
    Box::new(move || {
        id += 1;
        if hand.flavour == Flavour::Yardstick {
            // Which process has the pid now.
            std::fs::read("/proc/self/stat").expect("a stat");
        }
        let written = hand.write(|tx| {
            tx.prepare_cached(
                "INSERT INTO markers (id, name, instance_id, pid, start_time, start_time_unit,
                    boot_id, pid_ns, writer, writer_pid, writer_uid, written_at_ms,
                    expires_at_ms, expires_boot_ms, expires_boot_id)
                 VALUES (?1, 'note', 1000, 4711, 1, 'ticks', 'boot', 'ns',
                    'pid 4711 (gateway), uid 0', 4711, 0, 1, 60001, 60001, 'boot')",
            )?
            .execute([id])?;
            event_with(tx, "marker_written", OWNER, DETAIL)?;
            tx.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'last_id'")?.execute([id])
        });
        written.expect("a marker");
        let open: i64 = hand
            .connection
            .prepare_cached(
                "SELECT id FROM markers
                 WHERE instance_id = 1000 AND closed_at_ms IS NULL AND name = 'note'",
            )
            .and_then(|mut query| query.query_row([], |row| row.get(0)))
            .expect("a marker");
        let consumed = hand.write(|tx| {
            tx.prepare_cached(
                "UPDATE markers SET closed_at_ms = 2, closed_how = 'consumed',
                    closed_by = 'pid 4711 (gateway), uid 0'
                 WHERE id = ?1 AND closed_at_ms IS NULL",
            )?
            .execute([open])?;
            event_with(tx, "marker_consumed", OWNER, DETAIL)?;
            tx.prepare_cached("DELETE FROM markers WHERE id < ?1 - 1000")?.execute([id])
        });
        consumed.expect("a marker");
        let _ = &held;
    })
}

/// What a gateway says about itself and about one platform, in one update: two rows, each with its
/// event.
pub fn update_status(mut hand: Hand) -> Once {
    let held = hand.own();
    let mut agents = 0_i64;
    Box::new(move || {
        agents += 1;
        hand.write(|tx| say(tx, agents).and_then(|_| say_of_platform(tx, agents)))
            .expect("an update");
        let _ = &held;
    })
}

/// About itself alone.
pub fn update_one(mut hand: Hand) -> Once {
    let held = hand.own();
    let mut agents = 0_i64;
    Box::new(move || {
        agents += 1;
        hand.write(|tx| say(tx, agents)).expect("an update");
        let _ = &held;
    })
}

fn say(tx: &Connection, agents: i64) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO runtime_status (instance_id, active_agents, writer, writer_pid,
            updated_at_ms)
         VALUES (?1, ?2, 'pid 4711 (gateway), uid 0', 4711, 1)",
    )?
    .execute((OWNER, agents))?;
    let detail = format!(
        concat!(
            r#"{{"state":null,"exit_reason":null,"restart_requested":null,"#,
            r#""active_agents":{},"extra":null}}"#
        ),
        agents
    );
    status_event(tx, "status_changed", &detail)
}

fn say_of_platform(tx: &Connection, agents: i64) -> rusqlite::Result<usize> {
    let word = word_of(agents.unsigned_abs());
    tx.prepare_cached(
        "INSERT OR REPLACE INTO platform_status (instance_id, profile, platform, state,
            state_since_at_ms, writer, writer_pid, updated_at_ms)
         VALUES (?1, 'default', 'telegram', ?2, 1, 'pid 4711 (gateway), uid 0', 4711, 1)",
    )?
    .execute((OWNER, word))?;
    let detail = format!(
        concat!(
            r#"{{"platform":"telegram","state":"{}","error_code":null,"error_message":null,"#,
            r#""needs_attention":null,"retrying_since":null,"extra":null}}"#
        ),
        word
    );
    status_event(tx, "platform_changed", &detail)
}

/// Every update changes something: one that does not writes no event.
pub fn word_of(count: u64) -> &'static str {
    if count.is_multiple_of(2) { "connected" } else { "retrying" }
}

fn status_event(tx: &Connection, name: &str, detail: &str) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "INSERT INTO events (at_ms, event, profile, kind, instance_id, pid, detail)
         VALUES (1, ?1, 'default', 'gateway', ?2, 4711, ?3)",
    )?
    .execute((name, OWNER, detail))
}

/// A sign of life: two rows.
pub fn heartbeat(mut hand: Hand) -> Once {
    let held = hand.own();
    let mut now = 0_i64;
    Box::new(move || {
        now += 1;
        let written = hand.write(|tx| {
            tx.prepare_cached("UPDATE instances SET heartbeat_at_ms = ?2 WHERE id = ?1")?
                .execute([OWNER, now])?;
            tx.prepare_cached(
                "INSERT INTO runtime_status (instance_id, heartbeat_boot_ms, writer, writer_pid,
                    updated_at_ms)
                 VALUES (?1, ?2, 'pid 4711 (gateway), uid 0', 4711, 1)
                 ON CONFLICT DO UPDATE SET heartbeat_boot_ms = excluded.heartbeat_boot_ms",
            )?
            .execute([OWNER, now])
        });
        written.expect("a heartbeat");
        let _ = &held;
    })
}

/// Whether there is a new event.
pub fn poll_events(hand: Hand) -> Once {
    let reader = hand.reader();
    let newest: i64 = reader
        .query_row("SELECT coalesce(max(id), 0) FROM events", [], |row| row.get(0))
        .expect("an event");
    Box::new(move || {
        let newer = reader
            .prepare_cached("SELECT id FROM events WHERE id > ?1 ORDER BY id LIMIT 1")
            .and_then(|mut query| query.exists([newest]))
            .expect("an answer");
        assert!(!newer);
        let _ = &hand;
    })
}
