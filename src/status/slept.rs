//! The machine was suspended: an event, written once, by whoever notices first.

use std::time::Duration;

use serde_json::json;

use crate::Result;
use crate::clock::Deadline;
use crate::records::events;
use crate::records::events::EventRecord;
use crate::store::{Inner, Tx};

/// Its name. Of no profile: it happened to all.
const MACHINE_SLEPT: &str = "machine_slept";

/// Less than this is no sleep: the two clocks are read one after the other.
const SLEEP_MIN_MS: i64 = 1_000;

/// Between two looks, and two attempts to write it down.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// For how long the machine had been suspended since its start, when it was last looked at.
#[derive(Debug)]
pub(crate) struct Asleep {
    ms: i64,
    look_at: Deadline,
}

impl Asleep {
    pub(crate) fn now(inner: &Inner) -> Self {
        Self { ms: inner.clock().asleep_ms(), look_at: Deadline::after(LOOK_EVERY) }
    }

    /// Leaves an event where it slept since the last look. What could not be written is tried again
    /// a second later.
    pub(crate) fn look(&mut self, inner: &Inner) -> Result<()> {
        if !self.look_at.has_passed() {
            return Ok(());
        }
        self.look_at = Deadline::after(LOOK_EVERY);
        let now_ms = inner.clock().asleep_ms();
        let slept_ms = now_ms.saturating_sub(self.ms);
        if slept_ms >= SLEEP_MIN_MS {
            inner.write(|tx| note(tx, slept_ms, now_ms))?;
            self.ms = now_ms;
        }
        Ok(())
    }
}

/// Unless somebody else has done so.
fn note(tx: &Tx<'_>, slept_ms: i64, now_ms: i64) -> Result<()> {
    let now = tx.boot_time();
    let known = events::newest_detail(tx, MACHINE_SLEPT)?.unwrap_or_default();
    let is_of_this_boot = known["boot_id"].as_str() == now.boot_id;
    let is_told = known["asleep_ms"].as_i64().is_some_and(|ms| ms > now_ms - SLEEP_MIN_MS);
    if is_of_this_boot && is_told {
        return Ok(());
    }
    tx.record(&EventRecord {
        event: MACHINE_SLEPT,
        detail: Some(json!({
            "slept_ms": slept_ms,
            "asleep_ms": now_ms,
            "boot_id": now.boot_id,
        })),
        ..EventRecord::default()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::OpenOptions;
    use crate::clock::ManualClock;

    #[test]
    fn of_many_who_notice_one_tells() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(1_795_305_600_000, 1_000_000));
        let path = directory.path().join("state.db");
        let store = OpenOptions::new().path(path).clock(Arc::clone(&clock) as _).open().unwrap();
        let inner = &store.inner;
        let mut watchers = [(); 3].map(|()| Asleep::now(inner));
        let mut look = |expected: &[i64]| {
            for watcher in &mut watchers {
                watcher.look_at = Deadline::after(Duration::ZERO);
                watcher.look(inner).unwrap();
            }
            let events = store.recent_events(None, 100).unwrap();
            let told = events.iter().filter(|event| event.event == MACHINE_SLEPT);
            let told: Vec<i64> =
                told.map(|event| event.detail["slept_ms"].as_i64().unwrap()).collect();
            assert_eq!(told, expected);
        };
        look(&[]);
        clock.advance(Duration::from_hours(1));
        look(&[]);
        clock.suspend(Duration::from_hours(8));
        look(&[28_800_000]);
        look(&[28_800_000]);
        clock.suspend(Duration::from_secs(2));
        look(&[28_800_000, 2_000]);
    }
}
