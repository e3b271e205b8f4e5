//! `sql`: read-only queries, bounded in rows and time.

use std::fs::File;
use std::io::Read;

use serde_json::{Map, Value, json};

use crate::cli::args::Global;
use crate::cli::context::no_store;
use crate::cli::output::{Answer, Complaint, Format, Outcome, exit, exit_code};
use crate::cli::statements::statements;
use crate::cli::{args, printable};
use crate::query::Value as SqlValue;
use crate::{Error, Result, Store};

/// More is the wrong file.
const SQL_BYTES_MAX: u64 = 1 << 20;

pub(super) fn sql(global: &Global, arguments: &args::Sql, format: Format) -> Outcome {
    if arguments.csv && format == Format::Json {
        return Err(Error::invalid("the argument '--csv' cannot be used with '--json'")
            .with_hint("ask for one of them"));
    }
    let text = asked(arguments)?;
    let statements = statements(&text);
    let Some(store) = global.existing()? else { return Err(no_store(global)?) };
    if statements.len() > 1 {
        if arguments.csv || format == Format::Json {
            let message = format!(
                "there are {} statements; with `--csv` or `--json` only one is allowed",
                statements.len()
            );
            return Err(Error::invalid(message)
                .with_hint("run them one at a time, or leave out `--csv` and `--json`"));
        }
        return one_after_the_other(&store, &text, &statements);
    }
    // What says nothing is refused in SQLite's own words.
    let statement = statements.first().map(|statement| in_place(&text, statement));
    let answer = store.query(statement.as_deref().unwrap_or(&text))?;
    let (columns, rows) = (&answer.columns, &answer.rows);
    if format == Format::Json {
        refuse_names(columns)?;
    }
    if arguments.csv {
        return Ok(Answer::data(exit::OK, csv(columns, rows)?));
    }
    let text = if format == Format::Text { table(columns, rows) } else { String::new() };
    Ok(Answer::new(exit::OK, text, documents(columns, rows)))
}

/// What was answered before a statement fails is told.
fn one_after_the_other(store: &Store, text: &str, statements: &[&str]) -> Outcome {
    let mut tables = Vec::new();
    for statement in statements {
        match store.query(&in_place(text, statement)) {
            Ok(answer) => tables.push(table(&answer.columns, &answer.rows)),
            Err(error) if tables.is_empty() => return Err(error),
            Err(error) => {
                let answer = Answer::new(exit_code(&error), tables.join("\n"), Value::Null);
                return Ok(answer.complaining(Some(Complaint::of(&error))));
            }
        }
    }
    Ok(Answer::new(exit::OK, tables.join("\n"), Value::Null))
}

/// A statement with blanks for what stands before it: a line that SQLite names is one of the whole.
fn in_place(text: &str, statement: &str) -> String {
    let before = statement.as_ptr().addr().saturating_sub(text.as_ptr().addr());
    let before = text.get(..before).unwrap_or_default();
    let blank: String = before.chars().map(|it| if it == '\n' { it } else { ' ' }).collect();
    blank + statement
}

/// The SQL: the argument, a file, or standard input.
fn asked(arguments: &args::Sql) -> Result<String> {
    let (bytes, whence) = match (&arguments.file, arguments.query.as_deref()) {
        (Some(path), _) => (File::open(path).and_then(read), path.display().to_string()),
        (None, Some("-")) => (read(std::io::stdin()), "standard input".to_owned()),
        (None, query) => return Ok(query.unwrap_or_default().to_owned()),
    };
    let refused = |why: String| {
        let message = format!("cannot read the SQL from {whence}: {why}");
        Error::invalid(message).with_hint("give it as an argument, by `--file FILE`, or by a pipe")
    };
    let bytes = bytes.map_err(|error| refused(error.to_string()))?;
    if bytes.len() as u64 > SQL_BYTES_MAX {
        return Err(refused(format!("it has more than {SQL_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8".to_owned()))
}

fn read(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(SQL_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Each row is an object that has its format, and one value for each name.
fn refuse_names(columns: &[String]) -> Result<()> {
    let refused = |what: String| {
        let hint = "name it with AS, as in `SELECT 1 AS a, 2 AS b`, or ask without `--json`";
        Err(Error::invalid(what).with_hint(hint))
    };
    for (nth, name) in columns.iter().enumerate() {
        if name == printable::FORMAT_NAME {
            return refused(format!(
                "a column is called {name:?}: in JSON that is the format of the row"
            ));
        }
        if columns[..nth].contains(name) {
            return refused(format!("two columns are called {name:?}: in JSON one would be lost"));
        }
    }
    Ok(())
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
