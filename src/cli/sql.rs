//! `sql`: one read-only query, bounded in rows and time.

use std::time::Duration;

use rusqlite::types::Value as SqlValue;
use serde_json::{Map, Value, json};

use crate::Store;
use crate::cli::args::Global;
use crate::cli::context::no_store;
use crate::cli::output::{Answer, Format, Outcome, exit};
use crate::cli::{args, printable};
use crate::clock::Deadline;
use crate::error::{Error, Result};
use crate::store::salvage::values_of;

/// More rows are for `sqlite3 -readonly`.
const ROWS_MAX: usize = 10_000;

/// A query that takes longer holds back the WAL's checkpoint.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Virtual machine steps between two looks at the clock: well under a millisecond.
const STEPS_PER_LOOK: i32 = 10_000;

#[derive(Debug)]
struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<SqlValue>>,
}

pub(super) fn sql(global: &Global, arguments: &args::Sql, format: Format) -> Outcome {
    if arguments.csv && format == Format::Json {
        return Err(Error::invalid("the argument '--csv' cannot be used with '--json'")
            .with_hint("ask for one of them"));
    }
    let Some(store) = global.existing()? else { return Err(no_store(global)?) };
    let answer = query(&store, &arguments.query)?;
    if arguments.csv {
        return Ok(Answer::data(exit::OK, csv(&answer)?));
    }
    let text = if format == Format::Text { table(&answer) } else { String::new() };
    Ok(Answer::new(exit::OK, format, &text, &documents(&answer)))
}

/// Collects the whole answer before anything is printed: no reader of ours keeps the store's
/// snapshot open.
fn query(store: &Store, text: &str) -> Result<Table> {
    let connection = store.inner.watcher()?;
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
        ) => Error::from(error).at(store.path()),
        _ => match connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())) {
            Ok(()) => refused(format!("SQLite: {error}")),
            Err(damage) => Error::from(damage).at(store.path()),
        },
    };
    let mut statement = connection.prepare(text).map_err(failed)?;
    if !statement.readonly() {
        return Err(refused("this statement would write".to_owned()));
    }
    let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
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
    Ok(Table { columns, rows })
}

fn documents(answer: &Table) -> Value {
    answer
        .rows
        .iter()
        .map(|row| {
            let fields = answer.columns.iter().cloned().zip(row.iter().map(to_json));
            Value::Object(fields.collect::<Map<_, _>>())
        })
        .collect()
}

fn to_json(value: &SqlValue) -> Value {
    match value {
        SqlValue::Null => Value::Null,
        SqlValue::Integer(number) => json!(number),
        SqlValue::Real(number) => json!(number),
        SqlValue::Text(text) => json!(text),
        SqlValue::Blob(bytes) => json!(crate::names::hex(bytes)),
    }
}

fn to_text(value: &SqlValue) -> String {
    match value {
        SqlValue::Null => String::new(),
        SqlValue::Integer(number) => number.to_string(),
        SqlValue::Real(number) => number.to_string(),
        SqlValue::Text(text) => text.clone(),
        SqlValue::Blob(bytes) => crate::names::hex(bytes),
    }
}

fn csv(answer: &Table) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |error: String| Error::internal(format!("cannot write the CSV: {error}"));
    writer.write_record(&answer.columns).map_err(|error| failed(error.to_string()))?;
    for row in &answer.rows {
        let cells = row.iter().map(to_text);
        writer.write_record(cells).map_err(|error| failed(error.to_string()))?;
    }
    writer.into_inner().map_err(|error| failed(error.to_string()))
}

fn table(answer: &Table) -> String {
    let mut table = comfy_table::Table::new();
    table
        .load_style(comfy_table::presets::UTF8_NO_BORDERS)
        .set_header(answer.columns.iter().map(|name| printable::lines(name)));
    for row in &answer.rows {
        table.add_row(row.iter().map(|cell| printable::lines(&to_text(cell))));
    }
    format!("{table}\n")
}
