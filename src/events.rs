//! What happened in a store, in order.

use rusqlite::{Connection, named_params};
use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::error::Result;
use crate::store::Store;

/// One committed change.
#[derive(Clone, Debug)]
pub struct Event {
    /// Rises with every event of the store.
    pub id: i64,
    /// Unix milliseconds, wall time.
    pub at_ms: i64,
    /// What happened: `office_claimed`, `office_refused`, `office_ended`, ...
    pub event: String,
    /// The profile it is about, if any.
    pub profile: Option<String>,
    /// The kind of office it is about, if any.
    pub kind: Option<String>,
    /// The generation it is about, if any.
    pub instance: Option<i64>,
    /// The process that did it or that it happened to.
    pub pid: Option<i64>,
    /// What else is to be known, as JSON.
    pub detail: Value,
}

impl Event {
    /// The event as the CLI's JSON shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "at": rfc3339(self.at_ms),
            "event": self.event,
            "profile": self.profile,
            "kind": self.kind,
            "instance": self.instance,
            "pid": self.pid,
            "detail": self.detail,
        })
    }
}

/// Where to start reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// With the newest so many.
    Newest(usize),
    /// After the event of this id.
    After(i64),
}

impl Store {
    /// The newest `count_max` events, oldest first. Reads only.
    ///
    /// # Errors
    /// As [`Profile::status_of`](crate::Profile::status_of).
    pub fn recent_events(&self, count_max: usize) -> Result<Vec<Event>> {
        self.events_from(None, From::Newest(count_max), count_max)
    }

    /// Events of one profile, or of all, oldest first.
    pub(crate) fn events_from(
        &self,
        profile: Option<&str>,
        from: From,
        count_max: usize,
    ) -> Result<Vec<Event>> {
        self.inner.read(|connection| select(connection, profile, from, count_max))
    }
}

fn select(
    connection: &Connection,
    profile: Option<&str>,
    from: From,
    count_max: usize,
) -> Result<Vec<Event>> {
    const NEWEST: &str = "SELECT * FROM (SELECT * FROM events
            WHERE (:profile IS NULL OR profile = :profile) AND id > :after
            ORDER BY id DESC LIMIT :limit) ORDER BY id";
    const AFTER: &str = "SELECT * FROM events
            WHERE (:profile IS NULL OR profile = :profile) AND id > :after
            ORDER BY id LIMIT :limit";
    let (sql, after, limit) = match from {
        From::Newest(count) => (NEWEST, 0, count.min(count_max)),
        From::After(id) => (AFTER, id, count_max),
    };
    let parameters = named_params! {
        ":profile": profile,
        ":after": after,
        ":limit": i64::try_from(limit).unwrap_or(i64::MAX),
    };
    let events = connection
        .prepare_cached(sql)?
        .query_map(parameters, |row| {
            let detail: Option<String> = row.get("detail")?;
            Ok(Event {
                id: row.get("id")?,
                at_ms: row.get("at_ms")?,
                event: row.get("event")?,
                profile: row.get("profile")?,
                kind: row.get("kind")?,
                instance: row.get("instance_id")?,
                pid: row.get("pid")?,
                detail: detail
                    .and_then(|text| serde_json::from_str(&text).ok())
                    .unwrap_or(Value::Null),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(events)
}
