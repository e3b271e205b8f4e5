//! Which part of the past is asked for: of the history, and of the events.

use crate::{Kind, ProfileName};

/// Which incarnations to tell of, see [`Store::history`](crate::Store::history); all, if nothing
/// else is said.
///
/// ```
/// use incumbent::ProfileName;
/// use incumbent::status::HistoryOptions;
///
/// // Who held an office of `work` between these two moments?
/// let (from_ms, to_ms) = (1_795_334_400_000, 1_795_338_000_000);
/// let options = HistoryOptions::new().profile(ProfileName::new("work")?);
/// let options = options.since_ms(from_ms).until_ms(to_ms).count_max(20);
/// # let _ = options;
/// # Ok::<(), incumbent::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct HistoryOptions {
    pub(super) profile: Option<ProfileName>,
    pub(super) kind: Option<Kind>,
    pub(super) since_ms: Option<i64>,
    pub(super) until_ms: Option<i64>,
    pub(super) count_max: Option<usize>,
}

impl HistoryOptions {
    /// All incarnations that are kept.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only those of this profile.
    #[must_use]
    pub fn profile(mut self, profile: ProfileName) -> Self {
        self.profile = Some(profile);
        self
    }

    /// Only those of this kind of office.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Only those that still held their office at this time or later: Unix milliseconds, wall time.
    #[must_use]
    pub fn since_ms(mut self, since_ms: i64) -> Self {
        self.since_ms = Some(since_ms);
        self
    }

    /// Only those that had their office by this time: Unix milliseconds, wall time.
    #[must_use]
    pub fn until_ms(mut self, until_ms: i64) -> Self {
        self.until_ms = Some(until_ms);
        self
    }

    /// At most the newest `count_max` of those; zero gives none.
    #[must_use]
    pub fn count_max(mut self, count_max: usize) -> Self {
        self.count_max = Some(count_max);
        self
    }
}

/// Which events to tell of, see [`Store::past_events`](crate::Store::past_events); all that are
/// kept, if nothing else is said.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
/// use incumbent::status::EventOptions;
///
/// drop(store.profile("work")?.claim()?);
/// let events = store.past_events(&EventOptions::new().event("office_ended"))?;
/// assert_eq!(events.len(), 1);
/// assert_eq!(events[0].detail["reason"], "released");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct EventOptions {
    pub(super) profile: Option<ProfileName>,
    pub(super) kind: Option<Kind>,
    pub(super) events: Vec<String>,
    pub(super) since_ms: Option<i64>,
    pub(super) count_max: Option<usize>,
}

impl EventOptions {
    /// All events that are kept.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only those of this profile.
    #[must_use]
    pub fn profile(mut self, profile: ProfileName) -> Self {
        self.profile = Some(profile);
        self
    }

    /// Only those that are about an office of this kind.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Only those of this name, or of another one that is named by a further call.
    #[must_use]
    pub fn event(mut self, event: impl Into<String>) -> Self {
        self.events.push(event.into());
        self
    }

    /// Only those that were committed at this time or later: Unix milliseconds, wall time.
    #[must_use]
    pub fn since_ms(mut self, since_ms: i64) -> Self {
        self.since_ms = Some(since_ms);
        self
    }

    /// At most the newest `count_max` of those; zero gives none.
    #[must_use]
    pub fn count_max(mut self, count_max: usize) -> Self {
        self.count_max = Some(count_max);
        self
    }
}
