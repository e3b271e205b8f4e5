//! Runtime status: what a gateway says about itself, and about the platforms it talks to.
//!
//! It is information, and never authority: nothing here decides whether somebody lives or owns
//! something. Only the office's holder writes it, and it ends with the holder's instance: the next one
//! starts fresh.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::command_line::redact_text;
use crate::error::{Error, ErrorKind, Result};
use crate::identities::{self, Identities};
use crate::instance;
use crate::marker::{by_or_self, millis};
use crate::names::{InstanceId, ProfileName};
use crate::office::Tenure;
use crate::path_text::is_unprintable;
use crate::runtime_table::{self, Owner};
use crate::standing::BackgroundThread;
use crate::state;
use crate::store::{Inner, Tx, with_budget};
use crate::sys;

/// The longest state, platform name or error code, in characters.
const WORD_LENGTH_MAX: usize = 64;

/// Longer texts (an exit reason, an error message) are cut, in bytes: the write matters more than the
/// end of a stack trace.
const TEXT_LENGTH_MAX: usize = 4_096;

/// The largest JSON of a caller's own, in bytes.
const EXTRA_LENGTH_MAX: usize = 64 * 1_024;

/// Events repeat a caller's own JSON up to this size, in bytes; of a larger one they give the size.
const EXTRA_IN_EVENTS_MAX: usize = 1_024;

/// Platforms that one instance may speak of: a status is read as a whole.
const PLATFORMS_MAX: i64 = 256;

/// Profiles that one instance may serve: each is answered for with all that is known of the server.
const SERVES_MAX: usize = 256;

/// How long one beat may take to be written. The next one comes soon.
const BEAT_WITHIN: Duration = Duration::from_millis(250);

/// The shortest and the longest cadence of heartbeats: each is a write, and somebody watches for them.
const HEARTBEAT_MIN: Duration = Duration::from_millis(10);
const HEARTBEAT_MAX: Duration = Duration::from_hours(24);

/// What an update does to one field.
///
/// ```
/// use incumbent::{Field, StatusUpdate};
///
/// StatusUpdate::new()
///     .state("running")            // set
///     .exit_reason(Field::Clear);  // forgotten; everything else is kept
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Field<T> {
    /// Leaves it as it is.
    #[default]
    Keep,
    /// Forgets what was said.
    Clear,
    /// Says this from now on.
    Set(T),
}

impl<T> From<T> for Field<T> {
    fn from(value: T) -> Self {
        Self::Set(value)
    }
}

impl From<&str> for Field<String> {
    fn from(value: &str) -> Self {
        Self::Set(value.to_owned())
    }
}

impl<T> Field<T> {
    pub(crate) fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    fn check(&self, check: impl FnOnce(&T) -> Result<()>) -> Result<()> {
        match self {
            Self::Set(value) => check(value),
            Self::Keep | Self::Clear => Ok(()),
        }
    }
}

impl<T: Clone> Field<T> {
    fn apply(&self, cell: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Clear => *cell = None,
            Self::Set(value) => *cell = Some(value.clone()),
        }
    }
}

impl Field<String> {
    /// As [`Field::apply`], for a text that may have been copied from anywhere.
    fn apply_text(&self, cell: &mut Option<String>) {
        match self {
            Self::Set(text) => *cell = Some(presentable(text)),
            Self::Keep | Self::Clear => self.apply(cell),
        }
    }

    /// As [`Field::apply`], for a state: since when it is so.
    fn apply_state(&self, cell: &mut Option<String>, since_ms: &mut Option<i64>, now_ms: i64) {
        let before = cell.clone();
        self.apply(cell);
        if cell.is_none() {
            *since_ms = None;
        } else if *cell != before || since_ms.is_none() {
            *since_ms = Some(now_ms);
        }
    }
}

/// Without what looks like a secret, and of a bounded length.
fn presentable(text: &str) -> String {
    let mut text = redact_text(text);
    if text.len() > TEXT_LENGTH_MAX {
        text.truncate(text.floor_char_boundary(TEXT_LENGTH_MAX - '…'.len_utf8()));
        text.push('…');
    }
    text
}

/// What a gateway wants to say about itself. Every field is kept as it is, cleared, or set; see
/// [`Tenure::update_status`].
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is written until a tenure is given it"]
pub struct StatusUpdate {
    state: Field<String>,
    exit_reason: Field<String>,
    restart_requested: Field<bool>,
    active_agents: Field<u64>,
    extra: Field<Value>,
    serves: Field<Vec<ProfileName>>,
    beats: bool,
    heartbeat_every: Field<Duration>,
    platforms: Vec<PlatformUpdate>,
    /// Profiles whose platforms are all forgotten first; `None`: that of the office.
    forgotten: Vec<Option<ProfileName>>,
    by: Option<String>,
}

impl StatusUpdate {
    /// One that keeps everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// `starting`, `running`, `draining`, `degraded`, `stopped`, `startup_failed` (see [`state`]), or a
    /// word of the gateway's own: 1 to 64 characters.
    pub fn state(mut self, state: impl Into<Field<String>>) -> Self {
        self.state = state.into();
        self
    }

    /// Why it ends, in its own words.
    pub fn exit_reason(mut self, reason: impl Into<Field<String>>) -> Self {
        self.exit_reason = reason.into();
        self
    }

    /// Whether it wants to be started again.
    pub fn restart_requested(mut self, requested: impl Into<Field<bool>>) -> Self {
        self.restart_requested = requested.into();
        self
    }

    /// How many agents work for it just now: with one or more it is busy.
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

    /// The profiles that it serves beside that of its office: questions about them are answered
    /// through it, for as long as nobody holds their own offices. These are all of them: what it said
    /// of the platforms of others is forgotten.
    pub fn serves(mut self, profiles: impl Into<Field<Vec<ProfileName>>>) -> Self {
        self.serves = profiles.into();
        self
    }

    /// A sign of life, see [`Tenure::heartbeat`].
    pub fn heartbeat(mut self) -> Self {
        self.beats = true;
        self
    }

    /// Set: a sign of life, and the promise to give the next one within this time. Cleared: no more
    /// are promised, as before a long drain.
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

    /// Who writes it, in place of this process' pid and command line.
    pub fn by(mut self, by: impl Into<String>) -> Self {
        self.by = Some(by.into());
        self
    }

    fn sets_runtime(&self) -> bool {
        !(self.state.is_keep()
            && self.exit_reason.is_keep()
            && self.restart_requested.is_keep()
            && self.active_agents.is_keep()
            && self.extra.is_keep())
    }

    /// Whether it says anything about the instance, and not only about platforms.
    pub(crate) fn is_about_instance(&self) -> bool {
        self.sets_runtime()
            || self.beats
            || !self.serves.is_keep()
            || !self.heartbeat_every.is_keep()
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.is_about_instance() && self.platforms.is_empty() && self.forgotten.is_empty()
    }

    /// Whether all of it can be said.
    pub(crate) fn check(&self) -> Result<()> {
        self.state.check(|word| check_word("a state", word))?;
        self.extra.check(|extra| check_extra("extra", extra))?;
        self.active_agents.check(|count| {
            i64::try_from(*count).map(|_| ()).map_err(|_| {
                Error::invalid(format!("{count} active agents are too many to be true"))
                    .with_hint("a whole number from 0 on")
            })
        })?;
        self.heartbeat_every.check(|cadence| check_cadence(*cadence))?;
        self.serves.check(|profiles| {
            if profiles.len() <= SERVES_MAX {
                return Ok(());
            }
            Err(Error::invalid(format!("{} profiles are too many for one server", profiles.len()))
                .with_hint(format!("at most {SERVES_MAX}")))
        })?;
        self.platforms.iter().try_for_each(PlatformUpdate::check)
    }

    /// The same, without what is locked in this store: a text of an error likes to repeat the token.
    fn without_identities(&self, tx: &Tx<'_>) -> Result<Cow<'_, Self>> {
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

    fn apply(&self, status: &mut RuntimeStatus, now_ms: i64) {
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

/// What a gateway wants to say about one platform; see [`StatusUpdate::platform`].
#[derive(Clone, Debug, Default)]
#[must_use = "it is a part of an update"]
pub struct PlatformUpdate {
    profile: Option<ProfileName>,
    platform: String,
    state: Field<String>,
    error_code: Field<String>,
    error_message: Field<String>,
    needs_attention: Field<bool>,
    retrying_since_ms: Field<i64>,
    extra: Field<Value>,
    is_removed: bool,
}

impl PlatformUpdate {
    /// About the platform of this name (1 to 64 characters), for the profile of the office.
    pub fn new(platform: impl Into<String>) -> Self {
        Self { platform: platform.into(), ..Self::default() }
    }

    /// For another profile, which the instance serves.
    pub fn of_profile(mut self, profile: ProfileName) -> Self {
        self.profile = Some(profile);
        self
    }

    /// `connected`, `retrying`, `fatal`, or whatever word says it: 1 to 64 characters.
    pub fn state(mut self, state: impl Into<Field<String>>) -> Self {
        self.state = state.into();
        self
    }

    /// What programs make of its last error: 1 to 64 characters.
    pub fn error_code(mut self, code: impl Into<Field<String>>) -> Self {
        self.error_code = code.into();
        self
    }

    /// What people make of it. What looks like a token is taken out, and a long text is cut.
    pub fn error_message(mut self, message: impl Into<Field<String>>) -> Self {
        self.error_message = message.into();
        self
    }

    /// Whether a person has to do something.
    pub fn needs_attention(mut self, needs: impl Into<Field<bool>>) -> Self {
        self.needs_attention = needs.into();
        self
    }

    /// Since when it tries to connect again: Unix milliseconds.
    pub fn retrying_since_ms(mut self, since_ms: impl Into<Field<i64>>) -> Self {
        self.retrying_since_ms = since_ms.into();
        self
    }

    /// Whatever else there is to say, at most 64 KiB of JSON. Never a secret: of what it
    /// says only identities that are locked in this store are taken out.
    pub fn extra(mut self, extra: impl Into<Field<Value>>) -> Self {
        self.extra = extra.into();
        self
    }

    /// Forgets the platform as a whole.
    pub fn remove(mut self) -> Self {
        self.is_removed = true;
        self
    }

    fn sets_something(&self) -> bool {
        !(self.state.is_keep()
            && self.error_code.is_keep()
            && self.error_message.is_keep()
            && self.needs_attention.is_keep()
            && self.retrying_since_ms.is_keep()
            && self.extra.is_keep())
    }

    fn check(&self) -> Result<()> {
        check_word("a platform", &self.platform)?;
        if self.is_removed && self.sets_something() {
            return Err(Error::invalid(format!(
                "platform {} cannot be forgotten and described at once",
                self.platform
            ))
            .with_hint("leave out one of the two"));
        }
        self.state.check(|word| check_word("a platform's state", word))?;
        self.error_code.check(|word| check_word("an error code", word))?;
        self.extra.check(|extra| check_extra("a platform's extra", extra))?;
        self.retrying_since_ms.check(|ms| match rfc3339(*ms) {
            Some(_) => Ok(()),
            None => Err(Error::invalid(format!("{ms} ms is no time since 1970"))
                .with_hint("Unix milliseconds")),
        })
    }

    fn apply(&self, status: &mut PlatformStatus, now_ms: i64) {
        self.state.apply_state(&mut status.state, &mut status.state_since_ms, now_ms);
        self.error_code.apply(&mut status.error_code);
        self.error_message.apply_text(&mut status.error_message);
        self.needs_attention.apply(&mut status.needs_attention);
        self.retrying_since_ms.apply(&mut status.retrying_since_ms);
        self.extra.apply(&mut status.extra);
    }
}

fn check_word(what: &str, word: &str) -> Result<()> {
    let problem = if word.trim().is_empty() {
        format!("{what} cannot be empty")
    } else if word.chars().count() > WORD_LENGTH_MAX {
        format!("{what} of {} characters is too long", word.chars().count())
    } else if word.contains(is_unprintable) || word.trim() != word {
        format!("{what} cannot be {word:?}")
    } else {
        return Ok(());
    };
    Err(Error::invalid(problem)
        .with_hint("1 to 64 characters, without control characters or blanks at its ends"))
}

fn check_extra(what: &str, extra: &Value) -> Result<()> {
    let text = extra.to_string();
    // Whoever reads it back has the same limit of depth.
    if serde_json::from_str::<Value>(&text).is_err() {
        return Err(Error::invalid(format!("{what} is nested too deeply"))
            .with_hint("at most 127 levels of arrays and objects"));
    }
    let length = text.len();
    if length <= EXTRA_LENGTH_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!("{what} of {length} bytes is too long")).with_hint(format!(
        "at most {EXTRA_LENGTH_MAX} bytes of JSON: it is read with every status"
    )))
}

/// A cadence that somebody can be held to.
pub(crate) fn check_cadence(cadence: Duration) -> Result<()> {
    if (HEARTBEAT_MIN..=HEARTBEAT_MAX).contains(&cadence) {
        return Ok(());
    }
    Err(Error::invalid(format!("no heart beats every {} ms", cadence.as_millis()))
        .with_hint("at least 10 ms, at most 24 h"))
}

/// A caller's own JSON as events repeat it.
fn abridged(extra: &Value) -> Value {
    match extra.to_string().len() {
        0..=EXTRA_IN_EVENTS_MAX => extra.clone(),
        length => json!({"omitted_bytes": length}),
    }
}

/// What an instance said of itself, last.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RuntimeStatus {
    /// Its state as it said it. Whether that is still true, [`Report::state`](crate::Report) tells.
    pub state: Option<String>,
    /// Since when: Unix milliseconds, wall time.
    pub state_since_ms: Option<i64>,
    /// Why it ends, in its own words.
    pub exit_reason: Option<String>,
    /// Whether it wants to be started again.
    pub restart_requested: Option<bool>,
    /// How many agents work for it.
    pub active_agents: Option<u64>,
    /// Whatever else it says.
    pub extra: Option<Value>,
    /// Who wrote this.
    pub writer: Option<String>,
    /// The pid of whoever wrote this, in its own pid namespace.
    pub writer_pid: Option<sys::Pid>,
    /// When it was written: Unix milliseconds, wall time.
    pub updated_at_ms: Option<i64>,
    /// The columns whose stored values cannot be read. The next write replaces them.
    pub damaged: Vec<&'static str>,
    /// The last heartbeat, on the boot clock.
    pub(crate) heartbeat_boot_ms: Option<i64>,
}

impl RuntimeStatus {
    /// Whether this says what `other` says, whenever and by whomever it was said.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        self.damaged.is_empty()
            && self.state == other.state
            && self.exit_reason == other.exit_reason
            && self.restart_requested == other.restart_requested
            && self.active_agents == other.active_agents
            && self.extra == other.extra
    }

    /// What is said, as its event shows it.
    pub(crate) fn as_event(&self) -> Value {
        json!({
            "state": self.state,
            "exit_reason": self.exit_reason,
            "restart_requested": self.restart_requested,
            "active_agents": self.active_agents,
            "extra": self.extra.as_ref().map(abridged),
        })
    }

    /// What was said, as the CLI's JSON shows it; `now` is the state that is still true.
    pub(crate) fn to_json(&self, now: Option<&str>) -> Value {
        // Nothing said is nobody at work; what cannot be read is not known.
        let unless_damaged = |column, value: Value| {
            if self.damaged.contains(&column) { Value::Null } else { value }
        };
        json!({
            "state": now,
            "last_state": self.state,
            "state_since": self.state_since_ms.and_then(rfc3339),
            "exit_reason": self.exit_reason,
            "restart_requested": unless_damaged(
                "restart_requested",
                self.restart_requested.unwrap_or(false).into(),
            ),
            "active_agents": unless_damaged(
                "active_agents",
                self.active_agents.unwrap_or(0).into(),
            ),
            "extra": self.extra,
            "writer": self.writer,
            "writer_pid": self.writer_pid,
            "updated_at": self.updated_at_ms.and_then(rfc3339),
            "damaged": self.damaged,
        })
    }
}

/// What an instance said of one platform, last.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PlatformStatus {
    /// The profile it is about: that of the office, or one that the instance serves.
    pub profile: String,
    /// The platform's name.
    pub platform: String,
    /// Its state.
    pub state: Option<String>,
    /// Since when: Unix milliseconds, wall time.
    pub state_since_ms: Option<i64>,
    /// Its last error, for programs.
    pub error_code: Option<String>,
    /// Its last error, for people.
    pub error_message: Option<String>,
    /// Whether a person has to do something.
    pub needs_attention: Option<bool>,
    /// Since when it tries to connect again: Unix milliseconds, wall time.
    pub retrying_since_ms: Option<i64>,
    /// Whatever else is to be said.
    pub extra: Option<Value>,
    /// Who wrote this.
    pub writer: Option<String>,
    /// The pid of whoever wrote this, in its own pid namespace.
    pub writer_pid: Option<sys::Pid>,
    /// When it was written: Unix milliseconds, wall time.
    pub updated_at_ms: Option<i64>,
    /// The columns whose stored values cannot be read. The next write replaces them.
    pub damaged: Vec<&'static str>,
}

impl PlatformStatus {
    /// Whether this says what `other` says, whenever and by whomever it was said.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        self.damaged.is_empty()
            && self.state == other.state
            && self.error_code == other.error_code
            && self.error_message == other.error_message
            && self.needs_attention == other.needs_attention
            && self.retrying_since_ms == other.retrying_since_ms
            && self.extra == other.extra
    }

    /// What is said, as its event shows it.
    pub(crate) fn as_event(&self) -> Value {
        json!({
            "platform": self.platform,
            "state": self.state,
            "error_code": self.error_code,
            "error_message": self.error_message,
            "needs_attention": self.needs_attention,
            "retrying_since": self.retrying_since_ms.and_then(rfc3339),
            "extra": self.extra.as_ref().map(abridged),
        })
    }

    /// What was said, as the CLI's JSON shows it. The state of a platform is no longer true when its
    /// gateway `is_alive` no more; its last error is.
    pub(crate) fn to_json(&self, is_alive: bool) -> Value {
        let needs_attention = if self.damaged.contains(&"needs_attention") {
            Value::Null
        } else {
            self.needs_attention.unwrap_or(false).into()
        };
        json!({
            "state": self.state.as_ref().filter(|_| is_alive),
            "last_state": self.state,
            "state_since": self.state_since_ms.and_then(rfc3339),
            "error_code": self.error_code,
            "error_message": self.error_message,
            "needs_attention": needs_attention,
            "retrying_since": self.retrying_since_ms.and_then(rfc3339),
            "extra": self.extra,
            "writer": self.writer,
            "writer_pid": self.writer_pid,
            "updated_at": self.updated_at_ms.and_then(rfc3339),
            "damaged": self.damaged,
        })
    }
}

/// Writes `update` to the row `id`, as its owner, all of it or nothing.
pub(crate) fn write(
    inner: &Inner,
    id: InstanceId,
    nonce_hash: &str,
    update: &StatusUpdate,
) -> Result<()> {
    update.check()?;
    let writer = by_or_self(inner, update.by.as_deref().map(presentable).as_deref());
    inner.write(|tx| {
        let update = &*update.without_identities(tx)?;
        let standing = instance::standing(tx, id)?;
        let Some(standing) = standing.filter(|row| row.nonce_hash == nonce_hash) else {
            return Err(not_owner("this instance is not on record in the store"));
        };
        if let Some((reason, _)) = standing.ended {
            return Err(not_owner(&format!("the office was lost: {reason}")));
        }
        let Some((office, pid)) = instance::office_of(tx, id)? else {
            return Err(not_owner("a process without an office has no runtime status"));
        };
        if !runtime_table::exists(tx)? {
            tx.check_schema()?;
        }
        let owner =
            Owner { id, office: &office, pid, writer: &writer, writer_pid: inner.observer().pid };
        apply(tx, &owner, update)
    })
}

fn not_owner(why: &str) -> Error {
    Error::new(ErrorKind::NotOwner, format!("only the holder of an office says how it is: {why}"))
        .with_hint("`incumbent status` says who holds it; claim it first")
}

fn apply(tx: &Tx<'_>, owner: &Owner<'_>, update: &StatusUpdate) -> Result<()> {
    if update.sets_runtime() {
        let before = runtime_table::runtime(tx, owner.id)?;
        let mut now = before.clone().unwrap_or_default();
        update.apply(&mut now, tx.now_ms());
        owner.set_runtime(tx, before.as_ref(), &now)?;
    }
    match update.heartbeat_every {
        Field::Set(cadence) => owner.beat(tx, Some(millis(cadence)))?,
        Field::Clear => owner.promise_nothing(tx)?,
        Field::Keep if update.beats => owner.beat(tx, None)?,
        Field::Keep => {}
    }
    match &update.serves {
        Field::Keep => {}
        Field::Clear => owner.set_serves(tx, &[])?,
        Field::Set(profiles) => {
            // Its own it serves anyway.
            let others: Vec<ProfileName> = profiles
                .iter()
                .filter(|profile| **profile != owner.office.profile)
                .cloned()
                .collect();
            owner.set_serves(tx, &others)?;
        }
    }
    let own = &owner.office.profile;
    for profile in &update.forgotten {
        owner.remove_platforms(tx, profile.as_ref().unwrap_or(own), None)?;
    }
    let of_others =
        |platform: &PlatformUpdate| platform.profile.as_ref().is_some_and(|of| of != own);
    let served = if update.platforms.iter().any(of_others) {
        runtime_table::serves(tx, owner.id)?
    } else {
        Vec::new()
    };
    for platform in &update.platforms {
        let profile = platform.profile.as_ref().unwrap_or(own);
        if profile != own && !served.contains(profile) {
            return Err(Error::new(
                ErrorKind::NotOwner,
                format!("{} neither holds profile {profile} nor serves it", owner.office),
            )
            .with_hint(format!(
                "say so first: `incumbent status-set --profile {} --kind {} --serves {profile}`",
                own, owner.office.kind
            )));
        }
        apply_to_platform(tx, owner, profile, platform)?;
    }
    Ok(())
}

/// Says all of `update`, of the time `at_ms`, unless all of it was said already; whether it was news.
pub(crate) fn apply_if_news(
    tx: &Tx<'_>,
    owner: &Owner<'_>,
    update: &StatusUpdate,
    at_ms: i64,
) -> Result<bool> {
    let before = runtime_table::runtime(tx, owner.id)?;
    let mut now = before.clone().unwrap_or_default();
    update.apply(&mut now, tx.now_ms());
    let mut is_news = update.sets_runtime() && before.is_none_or(|it| !it.says_the_same(&now));
    for platform in &update.platforms {
        let profile = &owner.office.profile;
        let before = runtime_table::platform(tx, owner.id, profile, &platform.platform)?;
        let mut now = before.clone().unwrap_or_default();
        platform.apply(&mut now, tx.now_ms());
        is_news |= before.is_none_or(|it| !it.says_the_same(&now));
    }
    if is_news {
        apply(tx, owner, update)?;
        runtime_table::said_at(tx, owner.id, at_ms)?;
    }
    Ok(is_news)
}

fn apply_to_platform(
    tx: &Tx<'_>,
    owner: &Owner<'_>,
    profile: &ProfileName,
    update: &PlatformUpdate,
) -> Result<()> {
    if update.is_removed {
        return owner.remove_platforms(tx, profile, Some(&update.platform));
    }
    let before = runtime_table::platform(tx, owner.id, profile, &update.platform)?;
    if before.is_none() && runtime_table::platform_count(tx, owner.id)? >= PLATFORMS_MAX {
        return Err(Error::invalid(format!(
            "{} speaks of {PLATFORMS_MAX} platforms already",
            owner.office
        ))
        .with_hint("forget some (`incumbent status-set --clear platforms`)"));
    }
    let mut now = before.clone().unwrap_or_default();
    now.platform.clone_from(&update.platform);
    update.apply(&mut now, tx.now_ms());
    owner.set_platform(tx, profile, before.as_ref(), &now)
}

impl Tenure {
    /// Says how the gateway is: everything in `update`, or nothing. Whoever asks sees it when this
    /// returns; nobody ever sees half of it.
    ///
    /// It waits for the store as any write does, at most the busy budget (5 s): not for the thread that
    /// must not block.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// use incumbent::{Claim, Field, PlatformUpdate, StatusUpdate, state};
    ///
    /// let profile = store.profile("default")?;
    /// let Claim::Granted(tenure) = profile.claim()? else { panic!("nobody else runs here") };
    /// let telegram = PlatformUpdate::new("telegram").state("connected").error_code(Field::Clear);
    /// tenure.update_status(
    ///     &StatusUpdate::new().state(state::RUNNING).active_agents(2).platform(telegram),
    /// )?;
    /// let report = profile.status()?;
    /// assert!(report.running && report.busy());
    /// assert_eq!(report.platforms[0].state.as_deref(), Some("connected"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`NotOwner`](ErrorKind::NotOwner) when the office was lost, or a platform is of a profile that
    /// this instance does not serve; [`InvalidInput`](ErrorKind::InvalidInput) for a word or a JSON that
    /// is too long; [`TooOld`](ErrorKind::TooOld), [`CannotWrite`](ErrorKind::CannotWrite),
    /// [`Busy`](ErrorKind::Busy), [`StoreReplaced`](ErrorKind::StoreReplaced),
    /// [`Forked`](ErrorKind::Forked).
    pub fn update_status(&self, update: &StatusUpdate) -> Result<()> {
        write(&self.footing.inner, self.footing.instance, &self.footing.nonce_hash, update)
    }

    /// Promises a sign of life every `cadence` (10 ms to 24 h), and returns the heart. Whoever asks sees
    /// the gateway as unresponsive once two beats in a row are missing; nobody loses anything by it.
    ///
    /// The store is written from a thread of the crate's own, so that a slow disk does not stop what
    /// the beats come from. Beating stops when the heart is dropped, which may take a quarter of a
    /// second; the promise stays, until [`StatusUpdate::heartbeat_every`] clears it. The heart keeps
    /// the store open.
    ///
    /// # Errors
    /// As [`Tenure::update_status`]; [`Internal`](ErrorKind::Internal) when no thread can be started.
    pub fn heartbeat(&self, cadence: Duration) -> Result<Heartbeat> {
        self.update_status(&StatusUpdate::new().heartbeat_every(cadence))?;
        let footing = self.footing.clone();
        let beats = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&beats);
        let mut written = 0;
        let beat = StatusUpdate::new().heartbeat();
        let thread = BackgroundThread::start("incumbent-heart", cadence / 4, move || {
            let now = seen.load(Ordering::Acquire);
            if now == written {
                return false;
            }
            let written_now = with_budget(BEAT_WITHIN, || {
                write(&footing.inner, footing.instance, &footing.nonce_hash, &beat)
            });
            match written_now {
                Ok(()) => written = now,
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotOwner | ErrorKind::StoreReplaced) =>
                {
                    return true;
                }
                Err(error) => tracing::warn!(%error, "a heartbeat could not be written"),
            }
            false
        })?;
        Ok(Heartbeat { beats, _thread: thread })
    }
}

/// Signs of life of a gateway; see [`Tenure::heartbeat`].
#[derive(Debug)]
#[must_use = "dropping the heart stops it"]
pub struct Heartbeat {
    beats: Arc<AtomicU64>,
    _thread: BackgroundThread,
}

impl Heartbeat {
    /// One beat: call it from the loop whose life it is to prove. Never blocks and never fails.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let long = presentable(&"ü".repeat(TEXT_LENGTH_MAX));
        assert!(long.len() <= TEXT_LENGTH_MAX && long.ends_with("ü…"));
        let message =
            "GET https://api.example.org/bot123456:AAEhBP0av28xKq91mZ7ttyQwe42Lp0/getMe: 401";
        let shown = presentable(message);
        assert!(!shown.contains("AAEhBP0av28") && shown.contains("getMe: 401"), "{shown}");
        assert_eq!(presentable("line one\n  line two"), "line one\n  line two");
    }

    /// On every platform: an owner says how it is, another handle is told, and follows the changes.
    #[test]
    fn what_an_owner_says_is_what_is_answered() {
        use crate::{Claim, Kind, Store, Wait};

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
            assert!(check_word("a state", good).is_ok(), "{good}");
        }
        for bad in ["", " ", "a\n", "\u{1b}[31m", " a", &"x".repeat(65)] {
            let error = check_word("a state", bad).unwrap_err();
            assert!(error.hint().is_some(), "{bad:?}");
        }
    }
}
