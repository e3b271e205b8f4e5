//! What an operator wants of a profile: a fact of its own, beside what is observed and how the last
//! incarnation ended. Only operators' verbs write it; it outlives every instance.

use std::fmt;
use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension};
use serde_json::json;

use super::Profile;
use crate::error::{Error, Result};
use crate::marker;
use crate::names::ProfileName;
use crate::store::{EventRecord, Tx};

/// What an operator wants of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Desired {
    /// It should run.
    Running,
    /// It should stay stopped.
    Stopped,
}

impl Desired {
    /// The word that is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Desired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Desired {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "running" => Ok(Self::Running),
            "stopped" => Ok(Self::Stopped),
            _ => Err(Error::invalid(format!("nothing can be desired as {word:?}"))
                .with_hint("it is `running` or `stopped`")),
        }
    }
}

/// What is on record for a profile; a word that no program of ours writes reads as nothing.
pub(crate) fn desired(connection: &Connection, profile: &ProfileName) -> Result<Option<Desired>> {
    let word: Option<String> = connection
        .prepare_cached("SELECT desired FROM profiles WHERE profile = ?1")?
        .query_row([profile.as_str()], |row| row.get(0))
        .optional()?
        .flatten();
    Ok(word.and_then(|word| word.parse().ok()))
}

pub(crate) fn set_desired(
    tx: &Tx<'_>,
    profile: &ProfileName,
    desired: Desired,
    by: &str,
) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO profiles (profile, created_at_ms) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
    )?
    .execute((profile.as_str(), tx.now_ms()))?;
    let changed = tx
        .prepare_cached(
            "UPDATE profiles SET desired = ?2 WHERE profile = ?1 AND desired IS NOT ?2",
        )?
        .execute((profile.as_str(), desired.as_str()))?;
    if changed == 0 {
        return Ok(());
    }
    tx.record(&EventRecord {
        event: "desired_changed",
        profile: Some(profile),
        detail: Some(json!({"desired": desired.as_str(), "by": by})),
        ..EventRecord::default()
    })
}

impl Profile {
    /// What an operator wants of this profile; `None` if nobody has said so. Reads only.
    ///
    /// # Errors
    /// As [`Profile::status`].
    pub fn desired(&self) -> Result<Option<Desired>> {
        self.store.inner.read(|connection| desired(connection, &self.name))
    }

    /// Records what an operator wants of this profile. Starts and stops nobody: `incumbent run
    /// --respect-desired` obeys it, and so may any other supervisor. `by` names who says so.
    ///
    /// # Errors
    /// [`CannotWrite`](crate::ErrorKind::CannotWrite), [`Busy`](crate::ErrorKind::Busy).
    pub fn set_desired(&self, desired: Desired, by: &str) -> Result<()> {
        let by = marker::presentable(&self.store.inner, by);
        self.store.inner.write(|tx| set_desired(tx, &self.name, desired, &by))
    }
}
