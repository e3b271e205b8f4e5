//! One read-only query, bounded in rows and time.

use std::time::Duration;

use rusqlite::types::Value;

use crate::clock::Deadline;
use crate::store::Store;
use crate::store::gate;
use crate::store::salvage::values_of;
use crate::{Error, Result};

/// More rows are for `sqlite3 -readonly`.
const ROWS_MAX: usize = 10_000;

/// A query that takes longer holds back the WAL's checkpoint.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Virtual machine steps between two looks at the clock: well under a millisecond.
const STEPS_PER_LOOK: i32 = 10_000;

/// What a query answered.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) columns: Vec<String>,
    /// Each as long as `columns`.
    pub(crate) rows: Vec<Vec<Value>>,
}

impl Store {
    /// Collects the whole answer before anything is printed: no reader of ours keeps the store's
    /// snapshot open.
    pub(crate) fn query(&self, text: &str) -> Result<Rows> {
        let _inside = gate::enter()?;
        let connection = self.inner.watcher()?;
        let deadline = Deadline::after(TIME_MAX);
        connection.progress_handler(STEPS_PER_LOOK, Some(move || deadline.has_passed()))?;
        let refused = |message: String| {
            Error::invalid(message).with_hint("ask one SELECT; `incumbent sql` never writes")
        };
        let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::OperationInterrupted) => {
                Error::invalid(format!("the query was ended after {} s", TIME_MAX.as_secs()))
                    .with_hint("narrow it, or use `sqlite3 -readonly \"$(incumbent path)\"`")
            }
            // The question may be as good as it likes.
            Some(
                rusqlite::ErrorCode::DatabaseCorrupt
                | rusqlite::ErrorCode::NotADatabase
                | rusqlite::ErrorCode::DatabaseBusy
                | rusqlite::ErrorCode::SystemIoFailure
                | rusqlite::ErrorCode::CannotOpen,
            ) => Error::from(error).at(self.path()),
            _ => match connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())) {
                Ok(()) => refused(format!("SQLite: {error}")),
                Err(damage) => Error::from(damage).at(self.path()),
            },
        };
        let mut statement = connection.prepare(text).map_err(failed)?;
        if !statement.readonly() {
            return Err(refused("this statement would write".to_owned()));
        }
        let columns: Vec<String> =
            statement.column_names().into_iter().map(str::to_owned).collect();
        if columns.is_empty() {
            return Err(refused("this statement answers nothing".to_owned()));
        }
        let mut rows = Vec::new();
        let mut cursor = statement.query([]).map_err(failed)?;
        while let Some(row) = cursor.next().map_err(failed)? {
            if rows.len() == ROWS_MAX {
                return Err(Error::invalid(format!("the answer has more than {ROWS_MAX} rows"))
                    .with_hint("add a LIMIT, or use `sqlite3 -readonly \"$(incumbent path)\"`"));
            }
            rows.push(values_of(row, columns.len()).map_err(failed)?);
        }
        Ok(Rows { columns, rows })
    }
}
