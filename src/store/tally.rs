//! For tests: what SQLite does for some work of this thread, counted. Counts do not hang on how
//! busy a machine is.

use std::cell::RefCell;
use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::trace::{TraceEvent, TraceEventCodes};

/// What was done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Steps of SQLite's virtual machine, those of triggers among them.
    pub(crate) steps: u64,
    /// Each statement, and how often it was run.
    pub(crate) statements: BTreeMap<String, u64>,
}

impl Tally {
    /// How many statements were run.
    pub(crate) fn runs(&self) -> u64 {
        self.statements.values().sum()
    }
}

thread_local! {
    static TALLY: RefCell<Option<Tally>> = const { RefCell::new(None) };
}

/// Whatever this thread does in `work`, by all of its connections.
pub(crate) fn of<T>(work: impl FnOnce() -> T) -> (T, Tally) {
    TALLY.set(Some(Tally::default()));
    let value = work();
    (value, TALLY.take().unwrap_or_default())
}

fn note(note: impl FnOnce(&mut Tally)) {
    TALLY.with_borrow_mut(|tally| tally.as_mut().map(note));
}

/// Counts what a new connection does.
pub(super) fn watch(connection: &Connection) {
    connection
        .progress_handler(
            1,
            Some(|| {
                note(|tally| tally.steps += 1);
                false
            }),
        )
        .unwrap();
    let noted: fn(TraceEvent<'_>) = |event| {
        if let TraceEvent::Profile(statement, _) = event {
            let sql = statement.sql().into_owned();
            note(|tally| *tally.statements.entry(sql).or_default() += 1);
        }
    };
    connection.trace_v2(TraceEventCodes::SQLITE_TRACE_PROFILE, Some(noted));
}
