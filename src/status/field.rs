//! A field of an update: left, set or cleared; and what may be said in it.

use serde_json::Value;

use crate::path_text::is_unprintable;
use crate::process::command_line::redact::redact_text;
use crate::{Error, Result};

/// The longest state, platform name or error code, in characters.
const WORD_LENGTH_MAX: usize = 64;

/// Longer texts (an exit reason, an error message) are cut, in bytes: the write matters more than
/// the end of a stack trace.
pub(super) const TEXT_LENGTH_MAX: usize = 4_096;

/// The largest JSON of a caller's own, in bytes.
const EXTRA_LENGTH_MAX: usize = 64 * 1_024;

/// What an update does to one field.
///
/// ```
/// use incumbent::StatusUpdate;
/// use incumbent::status::Field;
///
/// let update = StatusUpdate::new()
///     .state("running")            // set
///     .exit_reason(Field::Clear);  // forgotten; everything else is kept
/// assert!(!update.is_empty());
/// assert_eq!(Field::from(3), Field::Set(3));
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

    pub(super) fn check(&self, check: impl FnOnce(&T) -> Result<()>) -> Result<()> {
        match self {
            Self::Set(value) => check(value),
            Self::Keep | Self::Clear => Ok(()),
        }
    }
}

impl<T: Clone> Field<T> {
    pub(super) fn apply(&self, cell: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Clear => *cell = None,
            Self::Set(value) => *cell = Some(value.clone()),
        }
    }
}

impl Field<String> {
    /// As [`Field::apply`], for a text that may have been copied from anywhere.
    pub(super) fn apply_text(&self, cell: &mut Option<String>) {
        match self {
            Self::Set(text) => *cell = Some(presentable(text)),
            Self::Keep | Self::Clear => self.apply(cell),
        }
    }

    /// As [`Field::apply`], for a state: since when it is so.
    pub(super) fn apply_state(
        &self,
        cell: &mut Option<String>,
        since_ms: &mut Option<i64>,
        now_ms: i64,
    ) {
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
pub(super) fn presentable(text: &str) -> String {
    let mut text = redact_text(text);
    if text.len() > TEXT_LENGTH_MAX {
        text.truncate(text.floor_char_boundary(TEXT_LENGTH_MAX - '…'.len_utf8()));
        text.push('…');
    }
    text
}

pub(super) fn check_word(what: &str, word: &str) -> Result<()> {
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

pub(super) fn check_extra(what: &str, extra: &Value) -> Result<()> {
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
