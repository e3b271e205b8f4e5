//! Past incarnations.

use serde::Serialize;

use crate::clock::as_rfc3339;
use crate::liveness::{Lease, Ruling};
use crate::owner::look;
use crate::records::instances::PastSelection;
use crate::records::{Record, instances, runtime};
use crate::status::ended;
use crate::status::past::HistoryOptions;
use crate::status::summary::{manner, summary, was_found};
use crate::store::Inner;
use crate::{InstanceId, Office, Reason, Result, Store, sys};

/// One incarnation of an office, as the history tells it; see
/// [`Profile::history`](crate::Profile::history) and [`Store::history`]. In JSON an object with
/// these fields, with `profile` and `kind` in place of the office, and the times as `started_at`,
/// `ended_at` and `command_since` (RFC 3339, UTC, milliseconds); later versions may add others.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Incarnation {
    /// The generation.
    pub instance: InstanceId,
    /// Which office.
    #[serde(flatten)]
    pub office: Office,
    /// The recorded process, in its own pid namespace.
    pub pid: Option<sys::Pid>,
    /// When it was granted the office: Unix milliseconds, wall time.
    #[serde(rename = "started_at", serialize_with = "as_rfc3339")]
    pub started_at_ms: i64,
    /// When its end was recorded: Unix milliseconds, wall time. `None` while it is on record as
    /// live.
    #[serde(rename = "ended_at", serialize_with = "as_rfc3339")]
    pub ended_at_ms: Option<i64>,
    /// When somebody else first saw that it had ended: Unix milliseconds, wall time. It ended some
    /// time before. `None` where it recorded its end itself, or its `run` did, and in rows of
    /// version 0.1. Without `ended_at_ms`, too: this very question has seen it, or a keeper did,
    /// who noted when that was.
    #[serde(rename = "exit_seen_at", serialize_with = "as_rfc3339")]
    pub exit_seen_at_ms: Option<i64>,
    /// Why it ended. Present without `ended_at_ms` when it is dead and nobody has
    /// recorded that yet.
    pub end_reason: Option<Reason>,
    /// Who ended it, if they said so.
    pub ended_by: Option<String>,
    /// Its exit code, where that is known: of a `run`'s command, of a process that a keeper stood
    /// for, or as it said itself ([`Tenure::release_with`](crate::Tenure::release_with)).
    pub exit_code: Option<i32>,
    /// The signal that ended it, by number, where that is known.
    pub signal: Option<i32>,
    /// Anything else, for people.
    pub detail: Option<String>,
    /// The end in a few words, for people: `crashed: exit code 1`. `None` while it has not ended.
    pub summary: Option<String>,
    /// How often it, a `run`, has started its command again; `None` where it is no `run`, or that
    /// is not known.
    pub restarts: Option<u32>,
    /// Since when its last command had been running: Unix milliseconds, wall time.
    #[serde(rename = "command_since", serialize_with = "as_rfc3339")]
    pub command_since_ms: Option<i64>,
    /// What its process, or the command of a `run`, had in memory at its last heartbeat, in bytes;
    /// `None` where it gave none.
    pub memory_bytes: Option<u64>,
    /// When it gave its last heartbeat: Unix milliseconds, wall time.
    #[serde(skip)]
    pub heartbeat_at_ms: Option<i64>,
}

impl Incarnation {
    /// Whether its end is only when that was noticed: nobody saw it end.
    #[must_use]
    pub fn is_found(&self) -> bool {
        let reason = self.end_reason.as_ref();
        let is_seen = self.exit_seen_at_ms.is_some();
        reason.is_some_and(|it| was_found(it, manner(it, self.exit_code, self.signal), is_seen))
    }

    /// When it had ended, as far as that is known: that its end was seen or recorded, whichever
    /// was first. Unix milliseconds, wall time.
    #[must_use]
    pub fn ended_before_ms(&self) -> Option<i64> {
        self.ended_at_ms.into_iter().chain(self.exit_seen_at_ms).min()
    }

    /// What it last wrote to its standard error, where a `run` kept that.
    #[must_use]
    pub fn last_words(&self) -> Option<&str> {
        instances::last_words_in(self.detail.as_deref()?)
    }

    /// The line of that which says why it ended: of an exception that was not caught its own line,
    /// else the last one.
    #[must_use]
    pub fn last_line(&self) -> Option<&str> {
        instances::last_line(self.last_words()?)
    }
}

impl Store {
    /// The incarnations that `options` ask for, of all offices unless they name one, newest first;
    /// of each office the last 200 are kept, however old. What a dead one could not write is
    /// derived. Reads only.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::status::HistoryOptions;
    ///
    /// let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// drop(store.profile("work")?.claim()?);
    /// drop(store.profile("home")?.claim()?);
    /// let all = store.history(&HistoryOptions::new())?;
    /// let profiles: Vec<&str> = all.iter().map(|it| it.office.profile.as_str()).collect();
    /// assert_eq!(profiles, ["home", "work"]);
    /// let ended_ms = all[1].ended_at_ms.unwrap();
    /// let before = HistoryOptions::new().until_ms(ended_ms - 60_000);
    /// assert!(store.history(&before)?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::status_of`](crate::Profile::status_of).
    pub fn history(&self, options: &HistoryOptions) -> Result<Vec<Incarnation>> {
        let which = PastSelection {
            profile: options.profile.as_ref(),
            kind: options.kind.as_ref(),
            since_ms: options.since_ms,
            until_ms: options.until_ms,
            count_max: options.count_max,
        };
        told(&self.inner, &which)
    }
}

impl Store {
    /// The last incarnation of any office that a process of this pid held, itself or as the command
    /// of a [`Run`](crate::run::Run), and whose end is on record: the pid of a log is often that of
    /// one that has ended. `None` where none is kept. Reads only.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// let me = std::process::id();
    /// assert!(store.last_incarnation_of_process(me)?.is_none());
    /// drop(store.profile("work")?.claim()?);
    /// let last = store.last_incarnation_of_process(me)?.expect("it has ended");
    /// assert_eq!(last.office.to_string(), "work/gateway");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::status_of`](crate::Profile::status_of).
    pub fn last_incarnation_of_process(&self, pid: u32) -> Result<Option<Incarnation>> {
        let inner = &self.inner;
        let last = inner.read(|connection| instances::last_of_process(connection, pid))?;
        let last = last.map(|record| (record, None));
        inner.with_clear_sight(|| Ok(incarnations(inner, last.into_iter().collect())?.pop()))
    }
}

/// The incarnations of an office, newest first; what a dead one could not write is derived.
pub(crate) fn history(
    inner: &Inner,
    office: &Office,
    count_max: usize,
) -> Result<Vec<Incarnation>> {
    let which = PastSelection {
        profile: Some(&office.profile),
        kind: Some(&office.kind),
        count_max: Some(count_max),
        ..PastSelection::default()
    };
    told(inner, &which)
}

fn told(inner: &Inner, which: &PastSelection<'_>) -> Result<Vec<Incarnation>> {
    let recorded = inner.read(|connection| {
        let records = instances::history(connection, which)?;
        let ids: Vec<InstanceId> = records.iter().map(|record| record.id).collect();
        let memory = runtime::memory(connection, &ids)?;
        Ok(records.into_iter().zip(memory).collect())
    })?;
    inner.with_clear_sight(|| incarnations(inner, recorded))
}

fn incarnations(inner: &Inner, recorded: Vec<(Record, Option<u64>)>) -> Result<Vec<Incarnation>> {
    recorded
        .into_iter()
        // Names that no program of ours writes are nobody's.
        .filter_map(|(record, memory)| record.office().map(|office| (office, record, memory)))
        .map(|(office, record, memory_bytes)| {
            let exit_code = record.exit_code.and_then(|code| i32::try_from(code).ok());
            let signal = record.signal.and_then(|number| i32::try_from(number).ok());
            let end_reason = record.end_reason.clone();
            let recorded = Incarnation {
                summary: end_reason.as_ref().map(|reason| summary(reason, exit_code, signal)),
                restarts: record.command_life.restarts,
                command_since_ms: record.command_life.since_ms,
                instance: record.id,
                office,
                pid: record.pid,
                started_at_ms: record.started_at_ms,
                ended_at_ms: record.ended_at_ms,
                exit_seen_at_ms: record.exit_seen_at_ms,
                end_reason,
                ended_by: record.ended_by.clone(),
                exit_code,
                signal,
                detail: record.detail.clone(),
                memory_bytes,
                heartbeat_at_ms: record.heartbeat_at_ms,
            };
            if !record.is_live() {
                return Ok(recorded);
            }
            let Ruling::Dead(reason) = look(inner, &record, Lease::None).ruling else {
                return Ok(recorded);
            };
            let end = ended::unrecorded_end(inner, &record, reason)?;
            let end = ended::not_recorded(&record, end);
            Ok(Incarnation {
                exit_seen_at_ms: end.exit_seen_at_ms,
                end_reason: Some(end.reason),
                ended_by: end.by,
                exit_code: end.exit_code,
                signal: end.signal,
                detail: end.detail,
                summary: Some(end.summary),
                ..recorded
            })
        })
        .collect()
}
