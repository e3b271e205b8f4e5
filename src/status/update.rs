//! Runtime status: what a gateway says about itself, and about the platforms it talks to.
//!
//! It is output, and never input: nothing that decides who lives, owns or may start reads it. Only
//! the office's holder writes it, and it ends with the holder's instance: the next one starts fresh
//! without anybody cleaning up. `set_child` forgets what the last command of a `run` said, because
//! the instance goes on (a trigger, so that a `run` of an older version does it, too). Every update
//! replaces the whole row, damaged cells included.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;

use crate::records::runtime::RuntimeStatus;
use crate::records::{Identities, identities, runtime};
use crate::status::field;
use crate::status::field::Field;
use crate::status::platform::PlatformUpdate;
use crate::store::Tx;
use crate::{Error, ProfileName, Result, state};

/// Profiles that one instance may serve: each is answered for with all that is known of the server.
const SERVES_MAX: usize = 256;

/// What a gateway wants to say about itself. Every field is kept as it is, cleared, or set; see
/// [`Tenure::update_status`](crate::Tenure::update_status), which also checks the values.
///
/// ```
/// use incumbent::StatusUpdate;
/// use incumbent::status::{Field, state};
///
/// let update = StatusUpdate::new().state(state::DRAINING).exit_reason(Field::Clear);
/// assert!(!update.is_empty());
/// assert!(StatusUpdate::new().is_empty());
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is written until a tenure is given it"]
pub struct StatusUpdate {
    state: Field<String>,
    exit_reason: Field<String>,
    restart_requested: Field<bool>,
    active_agents: Field<u64>,
    extra: Field<Value>,
    pub(super) serves: Field<Vec<ProfileName>>,
    pub(super) beats: bool,
    pub(super) heartbeat_every: Field<Duration>,
    pub(super) platforms: Vec<PlatformUpdate>,
    /// Profiles whose platforms are all forgotten first; `None`: that of the office.
    pub(super) forgotten: Vec<Option<ProfileName>>,
    pub(super) by: Option<String>,
}

impl StatusUpdate {
    /// One that keeps everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// `starting`, `running`, `draining`, `degraded`, `stopped`, `startup_failed` (see
    /// [`state`](crate::status::state)), or a word of the gateway's own: 1 to 64 characters.
    pub fn state(mut self, state: impl Into<Field<String>>) -> Self {
        self.state = state.into();
        self
    }

    /// Why it ends, in its own words. What looks like a secret is taken out, and what is longer
    /// than 4 KiB is cut.
    pub fn exit_reason(mut self, reason: impl Into<Field<String>>) -> Self {
        self.exit_reason = reason.into();
        self
    }

    /// Whether it wants to be started again.
    pub fn restart_requested(mut self, requested: impl Into<Field<bool>>) -> Self {
        self.restart_requested = requested.into();
        self
    }

    /// How many agents work for it just now: with one or more it is busy. At most 2^63 - 1.
    pub fn active_agents(mut self, count: impl Into<Field<u64>>) -> Self {
        self.active_agents = count.into();
        self
    }

    /// Whatever else it wants to say, at most 64 KiB of JSON. Never a secret: of what it
    /// says only identities that are locked in this store are taken out.
    pub fn extra(mut self, extra: impl Into<Field<Value>>) -> Self {
        self.extra = extra.into();
        self
    }

    /// The profiles that it serves beside that of its office, at most 256: questions about them are
    /// answered through it, for as long as nobody holds their own offices. These are all of them:
    /// what it said of the platforms of others is forgotten. They are shown in this order.
    pub fn serves(mut self, profiles: impl Into<Field<Vec<ProfileName>>>) -> Self {
        self.serves = profiles.into();
        self
    }

    /// A sign of life, see [`Tenure::heartbeat`](crate::Tenure::heartbeat).
    pub fn heartbeat(mut self) -> Self {
        self.beats = true;
        self
    }

    /// Set: a sign of life, and the promise to give the next one within this time (10 ms to 24 h).
    /// Cleared: no more are promised, as before a long drain.
    pub fn heartbeat_every(mut self, cadence: impl Into<Field<Duration>>) -> Self {
        self.heartbeat_every = cadence.into();
        self.beats |= matches!(self.heartbeat_every, Field::Set(_));
        self
    }

    /// What it says of one platform. Any number of them in one update.
    pub fn platform(mut self, platform: PlatformUpdate) -> Self {
        self.platforms.push(platform);
        self
    }

    /// Forgets all platforms of a profile (`None`: that of the office) before the rest is written.
    pub fn forget_platforms(mut self, of: Option<ProfileName>) -> Self {
        self.forgotten.push(of);
        self
    }

    /// Who writes it, in place of this process' pid and command line. What looks like a secret is
    /// taken out.
    pub fn by(mut self, by: impl Into<String>) -> Self {
        self.by = Some(by.into());
        self
    }

    pub(super) fn sets_runtime(&self) -> bool {
        !(self.state.is_keep()
            && self.exit_reason.is_keep()
            && self.restart_requested.is_keep()
            && self.active_agents.is_keep()
            && self.extra.is_keep())
    }

    /// Whether it is a sign of life.
    pub(super) fn is_a_beat(&self) -> bool {
        self.beats || matches!(self.heartbeat_every, Field::Set(_))
    }

    /// Whether it says anything about the instance, and not only about platforms.
    pub(crate) fn is_about_instance(&self) -> bool {
        self.sets_runtime()
            || self.beats
            || !self.serves.is_keep()
            || !self.heartbeat_every.is_keep()
    }

    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.is_about_instance() && self.platforms.is_empty() && self.forgotten.is_empty()
    }

    /// Whether all of it can be said.
    pub(crate) fn check(&self) -> Result<()> {
        self.state.check(|word| field::check_word("a state", word))?;
        self.extra.check(|extra| field::check_extra("extra", extra))?;
        self.active_agents.check(|count| {
            i64::try_from(*count).map(|_| ()).map_err(|_| {
                Error::invalid(format!("{count} active agents is out of range"))
                    .with_hint("a whole number from 0 on")
            })
        })?;
        self.heartbeat_every.check(|cadence| runtime::check_cadence(*cadence))?;
        self.serves.check(|profiles| {
            if profiles.len() <= SERVES_MAX {
                return Ok(());
            }
            Err(Error::invalid(format!("{} profiles are too many for one server", profiles.len()))
                .with_hint(format!("at most {SERVES_MAX}")))
        })?;
        self.platforms.iter().try_for_each(PlatformUpdate::check)
    }

    /// The same, without what is locked in this store: a text of an error likes to repeat the
    /// token.
    pub(super) fn without_identities(&self, tx: &Tx<'_>) -> Result<Cow<'_, Self>> {
        let mut texts = Vec::new();
        texts.extend(own_word(&self.state));
        texts.extend(set_text(&self.exit_reason));
        said_in(&self.extra, &mut texts);
        for platform in &self.platforms {
            texts.extend(own_word(&platform.state));
            texts.extend(set_text(&platform.error_code));
            texts.extend(set_text(&platform.error_message));
            said_in(&platform.extra, &mut texts);
        }
        if texts.is_empty() {
            return Ok(Cow::Borrowed(self));
        }
        let identities = Identities::within(tx, texts)?;
        let mut update = self.clone();
        hide_in_word(&mut update.state, &identities);
        hide_in_text(&mut update.exit_reason, &identities);
        hide_in_document(&mut update.extra, &identities);
        for platform in &mut update.platforms {
            hide_in_word(&mut platform.state, &identities);
            hide_in_word(&mut platform.error_code, &identities);
            hide_in_text(&mut platform.error_message, &identities);
            hide_in_document(&mut platform.extra, &identities);
        }
        Ok(Cow::Owned(update))
    }

    pub(super) fn apply(&self, status: &mut RuntimeStatus, now_ms: i64) {
        self.state.apply_state(&mut status.state, &mut status.state_since_ms, now_ms);
        self.exit_reason.apply_text(&mut status.exit_reason);
        self.restart_requested.apply(&mut status.restart_requested);
        self.active_agents.apply(&mut status.active_agents);
        self.extra.apply(&mut status.extra);
    }
}

fn set_text(field: &Field<String>) -> Option<&str> {
    match field {
        Field::Set(text) => Some(text),
        Field::Keep | Field::Clear => None,
    }
}

/// A state that is none of the usual ones, which come often.
fn own_word(state: &Field<String>) -> Option<&str> {
    let is_usual =
        |word: &str| state::USUAL.contains(&word) || state::USUAL_OF_PLATFORMS.contains(&word);
    set_text(state).filter(|word| !is_usual(word))
}

fn said_in<'a>(field: &'a Field<Value>, texts: &mut Vec<&'a str>) {
    if let Field::Set(document) = field {
        identities::strings(document, texts);
    }
}

fn hide_in_word(field: &mut Field<String>, identities: &Identities) {
    if let Field::Set(word) = field {
        *word = identities.mask(word);
    }
}

fn hide_in_text(field: &mut Field<String>, identities: &Identities) {
    if let Field::Set(text) = field {
        *text = identities.text(text);
    }
}

fn hide_in_document(field: &mut Field<Value>, identities: &Identities) {
    if let Field::Set(document) = field {
        identities.mask_document(document);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::field::TEXT_LENGTH_MAX;

    #[test]
    fn every_field_is_kept_cleared_or_set() {
        let mut cell = Some("before".to_owned());
        Field::Keep.apply(&mut cell);
        assert_eq!(cell.as_deref(), Some("before"));
        Field::Set("now".to_owned()).apply(&mut cell);
        assert_eq!(cell.as_deref(), Some("now"));
        Field::Clear.apply(&mut cell);
        assert_eq!(cell, None);
    }

    #[test]
    fn a_state_that_is_said_again_is_as_old_as_it_was() {
        let (mut cell, mut since) = (None, None);
        Field::from("running").apply_state(&mut cell, &mut since, 1);
        Field::from("running").apply_state(&mut cell, &mut since, 2);
        assert_eq!(since, Some(1));
        Field::from("draining").apply_state(&mut cell, &mut since, 3);
        assert_eq!(since, Some(3));
        Field::Clear.apply_state(&mut cell, &mut since, 4);
        assert_eq!((cell, since), (None, None));
    }

    #[test]
    fn texts_are_bounded_and_hide_tokens() {
        let long = field::presentable(&"ü".repeat(TEXT_LENGTH_MAX));
        assert!(long.len() <= TEXT_LENGTH_MAX && long.ends_with("ü…"));
        let message =
            "GET https://api.example.org/bot123456:AAEhBP0av28xKq91mZ7ttyQwe42Lp0/getMe: 401";
        let shown = field::presentable(message);
        assert!(!shown.contains("AAEhBP0av28") && shown.contains("getMe: 401"), "{shown}");
        assert_eq!(field::presentable("line one\n  line two"), "line one\n  line two");
    }

    /// On every platform: an owner says how it is, another handle is told, and follows the changes.
    #[test]
    fn what_an_owner_says_is_what_is_answered() {
        use crate::names::Kind;
        use crate::office::claim::Claim;
        use crate::patience::Wait;
        use crate::store::Store;

        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("state.db")).unwrap();
        let mut events = store.events().unwrap();
        let profile = store.profile("work").unwrap();
        let Claim::Granted(tenure) = profile.claim().unwrap() else {
            panic!("nobody else is here")
        };
        let served = ProfileName::new("home").unwrap();
        let chat = || PlatformUpdate::new("chat");
        let update = StatusUpdate::new()
            .state(state::RUNNING)
            .active_agents(1)
            .serves(vec![served.clone()])
            .platform(chat().state("connected").error_code("old"))
            .platform(chat().of_profile(served).state("fatal"));
        tenure.update_status(&update).unwrap();
        let clear = StatusUpdate::new().platform(chat().error_code(Field::Clear));
        tenure.update_status(&clear).unwrap();

        let report = profile.status().unwrap();
        assert!(report.running && report.busy() && report.drainable() && !report.stale);
        let platform = &report.platforms[0];
        assert_eq!((platform.state.as_deref(), &platform.error_code), (Some("connected"), &None));
        let served = store.profile("home").unwrap().status().unwrap();
        assert_eq!(served.served_by, Some(report.office.clone()));
        assert_eq!(served.platforms[0].state.as_deref(), Some("fatal"));
        assert_eq!(store.status_of_all().unwrap().len(), 2);

        tenure.release().unwrap();
        let after = profile.status().unwrap();
        assert!(!after.running && after.state.is_none() && !after.busy());
        assert_eq!(after.runtime.unwrap().state.as_deref(), Some(state::RUNNING));
        assert!(!store.profile("home").unwrap().status_of(&Kind::default()).unwrap().running);

        let mut told = Vec::new();
        while let Some(event) = events.next_event(Wait::No).unwrap() {
            told.push(event.event);
        }
        let expected = ["office_claimed", "status_changed", "served_by_changed", "serves_changed"];
        let rest = ["platform_changed", "platform_changed", "platform_changed", "office_ended"];
        assert_eq!(told, [expected, rest].concat());
    }

    #[test]
    fn words_are_checked() {
        for good in ["running", "warming up", "é", &"x".repeat(64)] {
            assert!(field::check_word("a state", good).is_ok(), "{good}");
        }
        for bad in ["", " ", "a\n", "\u{1b}[31m", " a", &"x".repeat(65)] {
            let error = field::check_word("a state", bad).unwrap_err();
            assert!(error.hint().is_some(), "{bad:?}");
        }
    }
}
