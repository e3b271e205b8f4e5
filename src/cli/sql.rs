//! `sql`: one read-only query, bounded in rows and time.

use serde_json::{Map, Value, json};

use crate::cli::args::Global;
use crate::cli::context::no_store;
use crate::cli::output::{Answer, Format, Outcome, exit};
use crate::cli::{args, printable};
use crate::query::Value as SqlValue;
use crate::{Error, Result};

pub(super) fn sql(global: &Global, arguments: &args::Sql, format: Format) -> Outcome {
    if arguments.csv && format == Format::Json {
        return Err(Error::invalid("the argument '--csv' cannot be used with '--json'")
            .with_hint("ask for one of them"));
    }
    let Some(store) = global.existing()? else { return Err(no_store(global)?) };
    let answer = store.query(&arguments.query)?;
    let (columns, rows) = (&answer.columns, &answer.rows);
    if arguments.csv {
        return Ok(Answer::data(exit::OK, csv(columns, rows)?));
    }
    let text = if format == Format::Text { table(columns, rows) } else { String::new() };
    Ok(Answer::new(exit::OK, text, documents(columns, rows)))
}

fn documents(columns: &[String], rows: &[Vec<SqlValue>]) -> Value {
    rows.iter()
        .map(|row| {
            let fields = columns.iter().cloned().zip(row.iter().map(|value| json!(value)));
            Value::Object(fields.collect::<Map<_, _>>())
        })
        .collect()
}

fn to_text(value: &SqlValue) -> String {
    match value {
        SqlValue::Null => String::new(),
        SqlValue::Integer(number) => number.to_string(),
        SqlValue::Real(number) => number.to_string(),
        SqlValue::Text(text) => text.clone(),
        SqlValue::Blob(bytes) => hex(bytes),
    }
}

fn csv(columns: &[String], rows: &[Vec<SqlValue>]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |error: String| Error::internal(format!("cannot write the CSV: {error}"));
    writer.write_record(columns).map_err(|error| failed(error.to_string()))?;
    for row in rows {
        let cells = row.iter().map(to_text);
        writer.write_record(cells).map_err(|error| failed(error.to_string()))?;
    }
    writer.into_inner().map_err(|error| failed(error.to_string()))
}

fn table(columns: &[String], rows: &[Vec<SqlValue>]) -> String {
    let mut table = comfy_table::Table::new();
    table
        .load_style(comfy_table::presets::UTF8_NO_BORDERS)
        .set_header(columns.iter().map(|name| printable::lines(name)));
    for row in rows {
        table.add_row(row.iter().map(|cell| printable::lines(&to_text(cell))));
    }
    format!("{table}\n")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
