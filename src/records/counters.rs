//! The table `counters`: how often something happened since the store was made. Triggers of the
//! schema write it, so that every program is counted, and pruning takes nothing away.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::Serialize;

use crate::{Kind, Office, ProfileName, Reason, Result};

/// How often a gateway was started, refused, ended and restarted since the store was made. Counts
/// never fall, also where the history is pruned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Claims that were granted.
    pub starts: u64,
    /// Claims that were refused; one that waits is refused once, when its time is over.
    pub refusals: u64,
    /// How often `run` started its command again within one tenure.
    pub restarts: u64,
    /// Ends, by reason and exit code.
    pub ends: Vec<EndCount>,
}

/// How often a gateway ended in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EndCount {
    /// Why it ended.
    pub reason: Reason,
    /// The exit code as a shell says it: 128 + n where signal n ended it. `None` where it was not
    /// known when the end was recorded.
    pub exit_code: Option<i32>,
    /// How often.
    pub count: u64,
}

impl Counters {
    /// How often somebody else took the office over.
    #[must_use]
    pub fn takeovers(&self) -> u64 {
        let taken_over = self.ends.iter().filter(|end| end.reason == Reason::TakenOver);
        taken_over.map(|end| end.count).sum()
    }
}

/// The counters of every office that has some. A row that no program of ours writes is left out.
/// `None` in a store of an older version, which a question does not migrate.
pub(crate) fn all(connection: &Connection) -> Result<Option<BTreeMap<Office, Counters>>> {
    if !connection.table_exists(None, "counters")? {
        return Ok(None);
    }
    let mut counters: BTreeMap<Office, Counters> = BTreeMap::new();
    let mut statement = connection.prepare_cached(
        "SELECT profile, kind, name, reason, exit_code, count FROM counters
         ORDER BY profile, kind, name, reason, exit_code",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text = |index| row.get::<_, String>(index).unwrap_or_default();
        let (Ok(profile), Ok(kind)) = (ProfileName::new(text(0)), Kind::new(text(1))) else {
            continue;
        };
        let count = row.get::<_, i64>(5).ok().and_then(|count| u64::try_from(count).ok());
        let Some(count) = count else { continue };
        let of_office = counters.entry(Office { profile, kind }).or_default();
        match text(2).as_str() {
            "starts" => of_office.starts = count,
            "refusals" => of_office.refusals = count,
            "restarts" => of_office.restarts = count,
            "ends" => of_office.ends.extend(end_count(text(3), &text(4), count)),
            // Of a later version.
            _ => {}
        }
    }
    Ok(Some(counters))
}

/// Two that could not be told apart would be one series twice.
fn end_count(reason: String, exit_code: &str, count: u64) -> Option<EndCount> {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    if reason.is_empty() || !reason.bytes().all(is_word) {
        return None;
    }
    let exit_code = match exit_code {
        "" => None,
        number => Some(number.parse().ok().filter(|code: &i32| code.to_string() == number)?),
    };
    Some(EndCount { reason: Reason::from(reason), exit_code, count })
}
