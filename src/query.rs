//! Read-only SQL, bounded in rows, size and time: [`Store::query`].
//!
//! What could change a file is kept out by the connection, which only reads, attaches nothing and
//! lasts as long as the query. A PRAGMA is another matter: SQLite obeys many of them while it only
//! compiles them, and some set what is the whole process' (`hard_heap_limit` would end every other
//! store of it in "out of memory", and nothing here could take it back). So those are refused
//! before they are compiled.

use std::time::Duration;

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, ErrorCode, params_from_iter};
use serde::{Serialize, Serializer};

use crate::clock::Deadline;
use crate::store::salvage::values_of;
use crate::store::{Store, gate};
use crate::{Error, Result, patience};

/// More rows are for `sqlite3 -readonly`.
const ROWS_MAX: usize = 10_000;

/// How much memory an answer may take: many times what the store keeps of anything.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The longest single value, which SQLite makes before anybody sees it: its own limit is 1 GB.
const VALUE_BYTES_MAX: i32 = 16 << 20;

/// A query that takes longer holds back the WAL's checkpoint.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Virtual machine steps between two looks at the clock: well under a millisecond.
const STEPS_PER_LOOK: i32 = 10_000;

/// The PRAGMAs whose argument says what is asked about. That of any other one is a new setting.
const ASKING_PRAGMAS: [&str; 10] = [
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
];

/// A value of SQLite's. In JSON null, a number or a text; bytes as a text of hex digits.
///
/// ```
/// use incumbent::query::Value;
///
/// assert_eq!(Value::from(7).as_i64(), Some(7));
/// assert_eq!(Value::from("work").as_str(), Some("work"));
/// assert_eq!(Value::Null.as_i64(), None);
/// assert_eq!(serde_json::to_value(Value::Blob(vec![0, 255]))?, "00ff");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Real(f64),
    /// A text. Bytes in it that are not UTF-8 are replaced.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl Value {
    /// The number, if it is a whole one.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Null | Self::Real(_) | Self::Text(_) | Self::Blob(_) => None,
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Integer(_) | Self::Real(_) | Self::Blob(_) => None,
        }
    }
}

/// Null, a number or a text; bytes as hex digits.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Integer(number) => serializer.serialize_i64(*number),
            Self::Real(number) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Blob(bytes) => serializer.serialize_str(&crate::names::hex(bytes)),
        }
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<crate::InstanceId> for Value {
    fn from(id: crate::InstanceId) -> Self {
        Self::Integer(id.as_i64())
    }
}

fn from_sqlite(value: SqlValue) -> Value {
    match value {
        SqlValue::Null => Value::Null,
        SqlValue::Integer(number) => Value::Integer(number),
        SqlValue::Real(number) => Value::Real(number),
        SqlValue::Text(text) => Value::Text(text),
        SqlValue::Blob(bytes) => Value::Blob(bytes),
    }
}

fn to_sqlite(value: &Value) -> SqlValue {
    match value {
        Value::Null => SqlValue::Null,
        Value::Integer(number) => SqlValue::Integer(*number),
        Value::Real(number) => SqlValue::Real(*number),
        Value::Text(text) => SqlValue::Text(text.clone()),
        Value::Blob(bytes) => SqlValue::Blob(bytes.clone()),
    }
}

/// What a query answered.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rows {
    /// The names of the columns, as the query gives them.
    pub columns: Vec<String>,
    /// Each row has a value for each column.
    pub rows: Vec<Vec<Value>>,
}

impl Store {
    /// Asks the store one SELECT, of the tables and views that `SELECT * FROM sqlite_schema` lists.
    /// A row says who claimed something, never that its owner lives: for that, ask
    /// [`Store::instance`](crate::Store::instance).
    ///
    /// What it reads is one snapshot. It never writes and sets nothing, and the whole answer is
    /// collected before it returns, so that it holds back nobody: at most 10,000 rows, 64 MiB, and
    /// 10 s, which are looked at between two steps of SQLite's. A column `*_at_ms` is Unix time in
    /// milliseconds; the views show it as text.
    ///
    /// ```
    /// use incumbent::Store;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("state.db");
    /// let store = Store::open(&path)?;
    /// let _tenure = store.profile("work")?.claim()?;
    /// let answer = store.query("SELECT profile, kind FROM gateways")?;
    /// assert_eq!(answer.columns, ["profile", "kind"]);
    /// assert_eq!(answer.rows, [["work".into(), "gateway".into()]]);
    /// assert!(store.query("DELETE FROM events").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for what is not one statement that asks,
    /// for a larger answer, and for a query that takes longer; else as
    /// [`Profile::status_of`](crate::Profile::status_of).
    pub fn query(&self, sql: &str) -> Result<Rows> {
        self.query_with(sql, &[])
    }

    /// [`Store::query`], with a value for each `?` of the SQL. A value is never read as SQL.
    ///
    /// ```
    /// use incumbent::{Claim, Store};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("state.db");
    /// let store = Store::open(&path)?;
    /// let Claim::Granted(tenure) = store.profile("work")?.claim()? else { panic!("nobody else") };
    /// let sql = "SELECT pid FROM instances WHERE id = ? AND profile = ?";
    /// let answer = store.query_with(sql, &[tenure.instance().into(), "work".into()])?;
    /// assert_eq!(answer.rows[0][0].as_i64(), Some(std::process::id().into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::query`]; also [`InvalidInput`](crate::ErrorKind::InvalidInput) for fewer or more
    /// values than the SQL has places for.
    pub fn query_with(&self, sql: &str, values: &[Value]) -> Result<Rows> {
        self.inner.check_process()?;
        let _inside = gate::enter()?;
        patience::with_budget(self.inner.busy_budget(), || self.answer(sql, values))
    }

    fn answer(&self, sql: &str, values: &[Value]) -> Result<Rows> {
        let connection = self.inner.watcher()?;
        // It opens what is there by now, which may be another store.
        self.inner.refuse_lost()?;
        let deadline = Deadline::after(TIME_MAX);
        connection.progress_handler(STEPS_PER_LOOK, Some(move || deadline.has_passed()))?;
        check_names(&connection).map_err(|damage| Error::from(damage).at(self.path()))?;
        connection.authorizer(Some(authorize))?;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)?;
        let failed = |error| self.query_failed(&connection, sql, error);
        let mut statement = connection.prepare(sql).map_err(failed)?;
        if !statement.readonly() {
            return Err(refused("this statement would write to the store"));
        }
        let columns: Vec<String> =
            statement.column_names().into_iter().map(str::to_owned).collect();
        if columns.is_empty() {
            return Err(refused("this statement returns nothing"));
        }
        let places = statement.parameter_count();
        if places != values.len() {
            let message = format!("the SQL has places for {places} values, not {}", values.len());
            return Err(Error::invalid(message).with_hint("give a value for each `?`"));
        }
        let (mut rows, mut answer_bytes) = (Vec::new(), 0);
        let values = params_from_iter(values.iter().map(to_sqlite));
        let mut cursor = statement.query(values).map_err(failed)?;
        while let Some(row) = cursor.next().map_err(failed)? {
            if rows.len() == ROWS_MAX {
                return Err(too_much(&format!("the result has more than {ROWS_MAX} rows")));
            }
            let row = values_of(row, columns.len()).map_err(failed)?;
            answer_bytes += row.iter().map(bytes_of).sum::<usize>();
            if answer_bytes > ANSWER_BYTES_MAX {
                let mib = ANSWER_BYTES_MAX >> 20;
                return Err(too_much(&format!("the result is larger than {mib} MiB")));
            }
            rows.push(row.into_iter().map(from_sqlite).collect());
        }
        Ok(Rows { columns, rows })
    }

    fn query_failed(&self, connection: &Connection, sql: &str, error: rusqlite::Error) -> Error {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => {
                Error::invalid(format!("the query was ended after {} s", TIME_MAX.as_secs()))
                    .with_hint("narrow it, by a WHERE or a LIMIT")
            }
            Some(ErrorCode::AuthorizationForStatementDenied) => {
                refused("this statement would change a setting")
            }
            Some(ErrorCode::TooBig) => {
                let mib = VALUE_BYTES_MAX >> 20;
                Error::invalid(format!("a value of the query is larger than {mib} MiB"))
                    .with_hint("ask for a part of it (`substr`)")
            }
            // The question may be as good as it likes.
            Some(
                ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::DatabaseBusy
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen,
            ) => Error::from(error).at(self.path()),
            _ => match check_schema(connection) {
                Ok(()) => wrong_sql(connection, sql, &error),
                Err(damage) => Error::from(damage).at(self.path()),
            },
        }
    }
}

/// Asked by SQLite for each part of a statement before it is compiled.
fn authorize(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Pragma { pragma_name, pragma_value: Some(_) }
            if !ASKING_PRAGMAS.iter().any(|asks| asks.eq_ignore_ascii_case(pragma_name)) =>
        {
            Authorization::Deny
        }
        _ => Authorization::Allow,
    }
}

/// What a value takes in memory.
fn bytes_of(value: &SqlValue) -> usize {
    let content = match value {
        SqlValue::Text(text) => text.len(),
        SqlValue::Blob(bytes) => bytes.len(),
        SqlValue::Null | SqlValue::Integer(_) | SqlValue::Real(_) => 0,
    };
    size_of::<SqlValue>() + content
}

/// Whether all of the schema is text: the authorizer is called with its names, and rusqlite takes
/// no others.
fn check_names(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT CAST(sql AS BLOB) FROM sqlite_schema")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if row.get_ref(0)?.as_blob_or_null()?.is_some_and(|sql| std::str::from_utf8(sql).is_err()) {
            let damaged = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            let what = "a name in the schema is not text".to_owned();
            return Err(rusqlite::Error::SqliteFailure(damaged, Some(what)));
        }
    }
    Ok(())
}

/// Whether the schema can be read, and its views fit its tables: a damaged one may be why a good
/// question cannot be answered.
fn check_schema(connection: &Connection) -> rusqlite::Result<()> {
    let views: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'view'")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for view in views {
        connection.prepare(&format!("SELECT * FROM \"{}\"", view.replace('"', "\"\"")))?;
    }
    Ok(())
}

/// What is wrong with the SQL, where, and what helps.
fn wrong_sql(connection: &Connection, sql: &str, error: &rusqlite::Error) -> Error {
    let (msg, offset) = match error {
        rusqlite::Error::SqlInputError { msg, offset, .. } => (msg, *offset),
        // Where SQLite knows no place.
        rusqlite::Error::SqliteFailure(_, Some(msg)) => (msg, -1),
        _ => return refused(&format!("SQLite: {error}")),
    };
    let place = usize::try_from(offset).ok().and_then(|offset| sql.get(..offset));
    let place = place.map(|before| {
        let column = before.chars().rev().take_while(|it| *it != '\n').count() + 1;
        format!(", at line {}, column {column}", before.matches('\n').count() + 1)
    });
    let wrong = Error::invalid(format!("SQLite: {msg}{}", place.unwrap_or_default()));
    if sql.trim_start().starts_with('.') {
        return wrong.with_hints(
            "ask `SELECT type, name, sql FROM sqlite_schema`: only the program sqlite3 has such a \
             command",
            "only the program sqlite3 has such a command: `sqlite3 -readonly \"$(incumbent \
             path)\"`; here ask `SELECT type, name, sql FROM sqlite_schema`",
        );
    }
    if msg.starts_with("no such function") {
        return wrong.with_hint("`SELECT DISTINCT name FROM pragma_function_list` lists them");
    }
    match unknown_name(connection, sql, msg) {
        Some(hint) => wrong.with_hint(hint),
        None => wrong.with_hint("check the SQL there, and just before it"),
    }
}

/// What there is, where the query names what there is not.
fn unknown_name(connection: &Connection, sql: &str, message: &str) -> Option<String> {
    let is_table = message.contains("no such table: ");
    if !is_table && !message.contains("no such column: ") {
        return None;
    }
    let tables = tables(connection).ok()?;
    let is_named = |table: &&String| {
        let mut words = sql.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        words.any(|word| word.eq_ignore_ascii_case(table))
    };
    let of_columns = |table: &String| Some(format!("{table} has {}", columns(connection, table)?));
    let known: Vec<String> = tables.iter().filter(is_named).filter_map(of_columns).collect();
    if is_table {
        return Some(format!("the tables and views are {}", tables.join(", ")));
    }
    if known.is_empty() {
        return Some("check the names that the query itself gives".to_owned());
    }
    Some(known.join("; "))
}

/// The views, which are made for people, before the tables.
fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare(
            "SELECT name FROM sqlite_schema
             WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' ORDER BY type DESC, name",
        )?
        .query_map([], |row| row.get(0))?
        .collect()
}

fn columns(connection: &Connection, table: &str) -> Option<String> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)").ok()?;
    let names = statement.query_map([table], |row| row.get::<_, String>(0)).ok()?;
    Some(names.collect::<rusqlite::Result<Vec<_>>>().ok()?.join(", "))
}

fn too_much(message: &str) -> Error {
    Error::invalid(message).with_hint("add a LIMIT")
}

fn refused(message: &str) -> Error {
    Error::invalid(message).with_hint("use one SELECT: a query never writes")
}
