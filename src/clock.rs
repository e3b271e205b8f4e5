//! Wall time for people, boot time for decisions.
//!
//! Nothing that decides reads the wall clock: it steps. Leases, storms and reservations count
//! milliseconds of the boot clock, which never steps and counts suspend, and store them together
//! with the boot id; a time of another boot has passed. Of a promise that somebody keeps by living
//! (a heartbeat) the time that the machine was suspended is taken off: nobody could beat in it. For
//! the same reason nothing is forgotten by the wall clock: only newer rows push out history,
//! contenders and events.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use crate::sys;

/// A source of both times: of the wall clock, for people, and of the one that decides.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Unix time in microseconds. It may step in either direction.
    fn wall_us(&self) -> i64;

    /// Unix time in milliseconds.
    fn wall_ms(&self) -> i64 {
        self.wall_us() / 1_000
    }

    /// Milliseconds since boot, on a clock that does not step and counts suspend; comparable within
    /// one boot.
    fn boot_ms(&self) -> i64;

    /// For how many of the milliseconds of [`Clock::boot_ms`] the machine was suspended. 0, as it
    /// is provided, where that is not known: then a suspend counts like any other time.
    fn asleep_ms(&self) -> i64 {
        0
    }
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_us(&self) -> i64 {
        i64::try_from(unix_time().as_micros()).unwrap_or(i64::MAX)
    }

    fn boot_ms(&self) -> i64 {
        sys::boot_clock_ms()
    }

    fn asleep_ms(&self) -> i64 {
        sys::asleep_ms()
    }
}

/// Clocks that stand still until told otherwise, for tests of what depends on time: an application
/// gives one to its store ([`OpenOptions::clock`](crate::OpenOptions::clock)).
///
/// ```
/// use incumbent::clock::{Clock, ManualClock};
/// use std::time::Duration;
///
/// let clock = ManualClock::new(1_000, 50);
/// clock.advance(Duration::from_millis(7));
/// assert_eq!((clock.wall_ms(), clock.boot_ms()), (1_007, 57));
/// clock.step_wall_ms(-500);
/// assert_eq!((clock.wall_ms(), clock.boot_ms()), (507, 57));
/// clock.suspend(Duration::from_millis(3));
/// assert_eq!((clock.wall_ms(), clock.boot_ms(), clock.asleep_ms()), (510, 60, 3));
/// ```
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// use incumbent::clock::ManualClock;
/// use incumbent::{Acquire, LockRequest, OpenOptions};
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// let clock = Arc::new(ManualClock::new(1_790_000_000_000, 1_000_000));
/// let path = directory.path().join("state.db");
/// let store = OpenOptions::new().path(path).clock(clock.clone()).open()?;
/// let request = LockRequest::new("account", "42")?.ttl(Duration::from_secs(30))?;
/// let Acquire::Granted(_lock) = store.try_acquire(&request)? else { panic!("nobody else") };
/// clock.advance(Duration::from_secs(60));
/// assert!(store.locks()?[0].flags.lease_overdue, "it lives, and did not renew");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[allow(clippy::struct_field_names, reason = "each says its unit")]
pub struct ManualClock {
    wall_ms: AtomicI64,
    boot_ms: AtomicI64,
    asleep_ms: AtomicI64,
}

impl ManualClock {
    /// Clocks that show these times.
    #[must_use]
    pub fn new(wall_ms: i64, boot_ms: i64) -> Self {
        Self {
            wall_ms: AtomicI64::new(wall_ms),
            boot_ms: AtomicI64::new(boot_ms),
            asleep_ms: AtomicI64::new(0),
        }
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, duration: Duration) {
        let by_ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        self.wall_ms.fetch_add(by_ms, Ordering::Relaxed);
        self.boot_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// The same while the machine is suspended, and nobody runs.
    pub fn suspend(&self, duration: Duration) {
        self.advance(duration);
        let by_ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        self.asleep_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Steps the wall clock alone, as a person or NTP would.
    pub fn step_wall_ms(&self, by_ms: i64) {
        self.wall_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn wall_us(&self) -> i64 {
        self.wall_ms.load(Ordering::Relaxed).saturating_mul(1_000)
    }

    fn boot_ms(&self) -> i64 {
        self.boot_ms.load(Ordering::Relaxed)
    }

    fn asleep_ms(&self) -> i64 {
        self.asleep_ms.load(Ordering::Relaxed)
    }
}

/// Unix time; a clock set before 1970 reads as 1970.
#[allow(clippy::disallowed_methods, reason = "the home of the wall clock")]
pub(crate) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The same in milliseconds, as it is stored.
pub(crate) fn now_ms() -> i64 {
    i64::try_from(unix_time().as_millis()).unwrap_or(i64::MAX)
}

/// A deadline of this process, on the monotonic clock: for budgets, never stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// `duration` from now; one that overflows the clock never passes.
    #[allow(clippy::disallowed_methods, reason = "the home of the monotonic clock")]
    pub(crate) fn after(duration: Duration) -> Self {
        Self(Instant::now().checked_add(duration))
    }

    pub(crate) fn never() -> Self {
        Self(None)
    }

    /// Time left: zero once passed, [`Duration::MAX`] when it never passes.
    #[allow(clippy::disallowed_methods, reason = "the home of the monotonic clock")]
    pub(crate) fn remaining(&self) -> Duration {
        match self.0 {
            Some(at) => at.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        }
    }

    /// Whichever passes first.
    pub(crate) fn earlier(self, other: Self) -> Self {
        if other.remaining() < self.remaining() { other } else { self }
    }

    /// Whichever passes last.
    pub(crate) fn later(self, other: Self) -> Self {
        if other.remaining() > self.remaining() { other } else { self }
    }

    pub(crate) fn has_passed(&self) -> bool {
        self.remaining().is_zero()
    }
}

/// A stored Unix time in milliseconds as RFC 3339 UTC with milliseconds; `None` for one that is
/// negative or beyond the year 9999, which no clock of ours has written.
#[must_use]
pub(crate) fn rfc3339(wall_ms: i64) -> Option<String> {
    const YEAR_9999_MS: i64 = 253_402_300_799_999;
    if !(0..=YEAR_9999_MS).contains(&wall_ms) {
        return None;
    }
    let time = chrono::DateTime::from_timestamp_millis(wall_ms)?;
    Some(time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

/// A stored Unix time in milliseconds as documents show it: RFC 3339, or null for one that no clock
/// of ours has written.
pub(crate) fn as_rfc3339<S: Serializer>(
    wall_ms: &(impl Copy + Into<Option<i64>>),
    serializer: S,
) -> Result<S::Ok, S::Error> {
    (*wall_ms).into().and_then(rfc3339).serialize(serializer)
}

/// A length of time as documents show it: whole milliseconds.
pub(crate) fn as_millis<S: Serializer>(
    length: &(impl Copy + Into<Option<Duration>>),
    serializer: S,
) -> Result<S::Ok, S::Error> {
    (*length).into().map(millis).serialize(serializer)
}

/// A length of time for people, in its largest fitting unit: `850 ms`, `1.1 s`, `12 s`, `3 min`.
pub(crate) fn length(ms: i64) -> String {
    const UNITS: [(i64, &str); 4] =
        [(86_400_000, "days"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    UNITS
        .iter()
        // Below two of a unit the smaller one says more: 90 s, not 1 min.
        .find(|(unit_ms, _)| ms >= 2 * unit_ms)
        .map_or_else(|| below_two_seconds(ms), |(unit_ms, name)| format!("{} {name}", ms / unit_ms))
}

fn below_two_seconds(ms: i64) -> String {
    match (ms / 1_000, ms % 1_000 / 100) {
        (1, 0) => "1 s".to_owned(),
        (1, tenths) => format!("1.{tenths} s"),
        _ => format!("{ms} ms"),
    }
}

/// What [`millis`] gives, back; of a negative number, nothing.
pub(crate) fn of_millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_times_that_no_clock_wrote_read_as_unknown() {
        assert_eq!(rfc3339(0).as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(rfc3339(1_795_305_600_123).as_deref(), Some("2026-11-22T00:00:00.123Z"));
        assert_eq!(rfc3339(-1), None);
        assert_eq!(rfc3339(i64::MAX), None);
    }

    #[test]
    fn a_deadline_that_overflows_never_passes() {
        assert!(!Deadline::after(Duration::MAX).has_passed());
        assert_eq!(Deadline::never().remaining(), Duration::MAX);
        assert!(Deadline::after(Duration::ZERO).has_passed());
    }

    #[test]
    fn lengths_for_people() {
        for (ms, expected) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (1_126, "1.1 s"),
            (1_999, "1.9 s"),
            (12_345, "12 s"),
            (119_999, "119 s"),
            (180_000, "3 min"),
            (18_000_000, "5 h"),
            (200_000_000, "2 days"),
        ] {
            assert_eq!(length(ms), expected);
        }
    }
}
