//! What the command has said to its service manager and is not on record yet.

use std::time::Duration;

use crate::clock::Deadline;
use crate::environment;
use crate::run::notify::Notification;

/// Between two writes. A program may say a hundred times a second how far it is.
const WRITES_APART: Duration = Duration::from_millis(100);

/// Between two signs of life that were promised for no time.
const BEATS_APART: Duration = Duration::from_secs(1);

/// What can be promised, see `records/runtime/heartbeat.rs`.
const CADENCES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_hours(24));

/// Of one command.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) state: Option<&'static str>,
    pub(super) status: Option<String>,
    pub(super) beats: bool,
    /// Within which time the next sign of life is promised.
    pub(super) cadence: Option<Duration>,
    /// The promise that is on record, and ours.
    pub(super) promised: Option<Duration>,
    write_at: Option<Deadline>,
    beat_at: Option<Deadline>,
}

impl Said {
    /// Of a command that starts now.
    pub(super) fn new() -> Self {
        Self { cadence: watchdog().map(cadence), ..Self::default() }
    }

    pub(super) fn add(&mut self, said: Notification) {
        self.state = said.state.or(self.state);
        self.status = said.status.or(self.status.take());
        if let Some(time) = said.watchdog.filter(|time| !time.is_zero()) {
            self.cadence = Some(cadence(time));
            self.beat_at = None;
        }
        let is_due = self.beat_at.as_ref().is_none_or(Deadline::has_passed);
        if said.beats && is_due {
            let apart = self.cadence.map_or(BEATS_APART, |cadence| cadence / 4);
            self.beat_at = Some(Deadline::after(apart));
            self.beats = true;
        }
    }

    /// Whether there is something to be written, now or later.
    pub(super) fn is_something(&self) -> bool {
        self.state.is_some() || self.status.is_some() || self.beats
    }

    /// Whether there is something to be written now.
    pub(super) fn is_due(&self) -> bool {
        self.is_something() && self.write_at.as_ref().is_none_or(Deadline::has_passed)
    }

    /// The next write comes no sooner.
    pub(super) fn is_being_written(&mut self) {
        self.write_at = Some(Deadline::after(WRITES_APART));
    }

    pub(super) fn is_written(&mut self, promised: Option<Duration>) {
        self.promised = promised;
        self.state = None;
        self.status = None;
        self.beats = false;
    }

    /// Nothing more will come.
    pub(super) fn write_at_once(&mut self) {
        self.write_at = None;
    }
}

/// What the manager expects of us (`sd_watchdog_enabled(3)`), and so of the command.
fn watchdog() -> Option<Duration> {
    let is_ours = |pid: String| pid == std::process::id().to_string();
    let time = environment::text("WATCHDOG_USEC")?.parse::<u64>().ok().map(Duration::from_micros);
    time.filter(|time| !time.is_zero())
        .filter(|_| environment::text("WATCHDOG_PID").is_none_or(is_ours))
}

/// Two that are missing are reported, and a manager waits for one of its time.
fn cadence(watchdog: Duration) -> Duration {
    (watchdog / 2).clamp(CADENCES.0, CADENCES.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_often_is_written_now_and_then() {
        let status = |text: &str| Notification {
            status: Some(text.to_owned()),
            beats: true,
            ..Notification::default()
        };
        let mut said = Said { cadence: Some(Duration::from_hours(1)), ..Said::default() };
        assert!(!said.is_due());
        said.add(status("one"));
        assert!(said.is_due() && said.beats);
        said.is_written(None);
        // A slow machine does not make it due.
        said.write_at = Some(Deadline::never());
        said.add(status("two"));
        assert!(!said.is_due() && !said.beats, "too soon");
        said.add(Notification { state: Some("running"), ..Notification::default() });
        said.write_at_once();
        assert!(said.is_due());
        assert_eq!((said.status.as_deref(), said.state), (Some("two"), Some("running")));
        assert_eq!(cadence(Duration::from_secs(2)), Duration::from_secs(1));
        assert_eq!(cadence(Duration::from_micros(1)), Duration::from_millis(10));
    }
}
