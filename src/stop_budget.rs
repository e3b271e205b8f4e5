//! How long a gateway may take to stop: the one place that knows.
//!
//! The gateway publishes a stop budget; its unit file, whoever stops or replaces it, the markers
//! that tell it so and the check of its unit all count from that number. Where each of them had a
//! formula of its own, a supervisor killed gateways in the middle of their orderly end.

use std::time::Duration;

use crate::span::Span;
use crate::{Error, Result};

/// How long a gateway lets its work finish when it did not say.
const DRAIN_DEFAULT: Duration = Duration::from_mins(1);

/// What comes on top of all phases, and has none of its own: the kill of what does not follow,
/// disconnects, closing databases.
const HEADROOM: Duration = Duration::from_secs(30);

/// The stop budget of who published none, in milliseconds: the default phases.
#[allow(clippy::cast_possible_truncation, reason = "90 s")]
pub(crate) const DEFAULT_MS: u64 = (DRAIN_DEFAULT.as_millis() + HEADROOM.as_millis()) as u64;

/// The longest stop budget that is believed: others wait for it before they escalate.
pub(crate) const MAX: Duration = Duration::from_hours(1);

/// How long a killed process may take to be gone; longer only if it hangs in the kernel.
pub(crate) const KILL_GRACE: Duration = Duration::from_secs(10);

/// How long it may take to claim what the killed have left.
const CLAIM_WITHIN: Duration = Duration::from_secs(5);

/// How long the marker of a request outlives the request's deadline.
const AFTER_DEADLINE: Duration = Duration::from_mins(1);

/// What a gateway does when it is asked to end, and how long each of that may take. It makes the
/// stop budget that is published ([`ClaimOptions::stop_phases`](crate::ClaimOptions::stop_phases))
/// and the time that the unit file has to give, so that the two never differ.
///
/// ```
/// use incumbent::stop::StopPhases;
/// use std::time::Duration;
///
/// let phases = StopPhases::draining_for(Duration::from_secs(60))
///     .and("cron jobs", Duration::from_secs(30));
/// assert_eq!(phases.budget(), Duration::from_secs(120)); // 30 s for all the rest
/// assert_eq!(phases.unit_line(), "TimeoutStopSec=120s");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopPhases {
    drain: Duration,
    further: Vec<(String, Duration)>,
}

impl Default for StopPhases {
    /// Work may finish for 60 s: a budget of 90 s.
    fn default() -> Self {
        Self::draining_for(DRAIN_DEFAULT)
    }
}

impl StopPhases {
    /// The first phase: the work at hand may finish for this long.
    #[must_use]
    pub fn draining_for(drain: Duration) -> Self {
        Self { drain, further: Vec::new() }
    }

    /// A further phase, after those before it.
    #[must_use]
    pub fn and(mut self, name: impl Into<String>, limit: Duration) -> Self {
        self.further.push((name.into(), limit));
        self
    }

    /// The phases of which only the budget is known: what it leaves for the drain, at least
    /// nothing.
    #[must_use]
    pub fn of_budget(budget: Duration) -> Self {
        Self::draining_for(budget.saturating_sub(HEADROOM))
    }

    /// How long the work at hand may finish.
    #[must_use]
    pub fn drain(&self) -> Duration {
        self.drain
    }

    /// The further phases, by name, in their order.
    #[must_use]
    pub fn further(&self) -> &[(String, Duration)] {
        &self.further
    }

    /// The stop budget: all phases one after the other, and 30 s for what comes after them (the
    /// kill of what does not follow, disconnects, closing databases).
    #[must_use]
    pub fn budget(&self) -> Duration {
        let further = self.further.iter().map(|(_, limit)| *limit);
        further.fold(self.drain.saturating_add(HEADROOM), Duration::saturating_add)
    }

    /// The line for the section `[Service]` of a systemd unit, in whole seconds:
    /// `TimeoutStopSec=120s`.
    ///
    /// # References
    /// systemd.service(5)
    #[must_use]
    pub fn unit_line(&self) -> String {
        unit_line(self.budget())
    }
}

/// The line of a unit file that gives at least `budget`, in whole seconds.
pub(crate) fn unit_line(budget: Duration) -> String {
    let seconds = Duration::from_secs(whole_seconds(budget));
    format!("TimeoutStopSec={}", Span::Finite(seconds))
}

/// At least `budget`, for a supervisor that counts in whole seconds.
pub(crate) fn whole_seconds(budget: Duration) -> u64 {
    let begun = u64::from(budget.subsec_nanos() > 0);
    budget.as_secs().saturating_add(begun)
}

/// A stop budget as it is published.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) for one that nobody believes.
pub(crate) fn published_ms(budget: Duration) -> Result<u64> {
    if budget > MAX {
        return Err(Error::invalid(format!("a stop budget of {} s is too long", budget.as_secs()))
            .with_hint(format!(
                "use at most {} s: a stop or a takeover waits that long",
                MAX.as_secs()
            )));
    }
    Ok(u64::try_from(budget.as_millis()).unwrap_or(u64::MAX))
}

/// A published stop budget, as far as it is believed; the default where there is none.
pub(crate) fn believed(published: Option<Duration>) -> Duration {
    published.unwrap_or(Duration::from_millis(DEFAULT_MS)).min(MAX)
}

/// When a request is over whose target gets `budget` to end: the killed are gone, and what they
/// left is claimed.
pub(crate) fn deadline(budget: Duration) -> Duration {
    budget.saturating_add(KILL_GRACE + CLAIM_WITHIN)
}

/// How long the marker of a request lives that is over after `deadline`.
pub(crate) fn marker_lives(deadline: Duration) -> Duration {
    deadline.saturating_add(AFTER_DEADLINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// FIELD-BUGS 85: unit file, gateway and takeover each had a formula of their own.
    #[test]
    fn all_numbers_follow_from_the_phases() {
        for (phases, budget, line) in [
            (StopPhases::default(), s(90), "TimeoutStopSec=90s"),
            (StopPhases::draining_for(s(0)), s(30), "TimeoutStopSec=30s"),
            (StopPhases::draining_for(s(60)).and("cron", s(30)), s(120), "TimeoutStopSec=120s"),
            (
                StopPhases::draining_for(s(1)).and("a", s(2)).and("b", Duration::from_millis(1)),
                Duration::from_millis(33_001),
                "TimeoutStopSec=34s",
            ),
            (
                StopPhases::draining_for(Duration::MAX).and("more", Duration::MAX),
                Duration::MAX,
                "TimeoutStopSec=18446744073709551615s",
            ),
        ] {
            assert_eq!(phases.budget(), budget, "{phases:?}");
            assert_eq!(phases.unit_line(), line, "{phases:?}");
        }
        assert_eq!(Duration::from_millis(DEFAULT_MS), StopPhases::default().budget());
        assert_eq!(deadline(s(90)), s(105));
        assert_eq!(marker_lives(deadline(s(90))), s(165));
        assert_eq!(marker_lives(deadline(Duration::MAX)), Duration::MAX);
    }

    #[test]
    fn a_budget_gives_its_drain_back() {
        for (budget, drain) in [(s(90), s(60)), (s(30), s(0)), (s(5), s(0)), (s(3_600), s(3_570))] {
            assert_eq!(StopPhases::of_budget(budget).drain(), drain);
        }
        let phases = StopPhases::draining_for(s(45));
        assert_eq!(StopPhases::of_budget(phases.budget()), phases);
    }

    #[test]
    fn only_what_is_believed_is_published() {
        assert_eq!(published_ms(MAX).unwrap(), 3_600_000);
        let error = published_ms(MAX + Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::InvalidInput);
        assert_eq!(believed(None), s(90));
        assert_eq!(believed(Some(Duration::from_millis(1_500))), Duration::from_millis(1_500));
        assert_eq!(believed(Some(Duration::MAX)), MAX);
    }
}
