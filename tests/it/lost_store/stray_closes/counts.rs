//! Who counts: the others that open the files.

use std::path::Path;

use super::storm::asked;
use super::{AN_EVENT, one_more};
use crate::support::Random;
use crate::support::second_sqlite::Failed;

/// A count in the database that nobody else touches: each number comes once.
pub struct Count {
    pub name: String,
    pub last: u64,
    pub done: u64,
    pub busy: u64,
}

impl Count {
    pub fn new(name: String) -> Self {
        Self { name, last: 0, done: 0, busy: 0 }
    }

    /// A statement, and whether it counts.
    pub fn draw(&self, random: &mut Random, further: &[&str]) -> (String, bool) {
        let others = [
            "SELECT count(*) FROM instances",
            AN_EVENT,
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "PRAGMA user_version",
        ];
        if random.chance(2) {
            return (one_more(&self.name), true);
        }
        let drawn = random.index(others.len() + further.len());
        (others.iter().chain(further).nth(drawn).copied().unwrap_or(AN_EVENT).to_owned(), false)
    }

    /// Whether others find what it has counted to; what is wrong, if not.
    pub fn look(&self, database: &Path) -> Result<(), String> {
        let Self { name, last, .. } = self;
        let value = asked(database, &format!("SELECT value FROM meta WHERE key = 'count-{name}'"));
        if value == Ok(last.to_string()) {
            return Ok(());
        }
        Err(format!("{name} has counted to {last}, and there is {value:?}"))
    }

    /// What is wrong, if anything is. What stayed busy was not done.
    pub fn check(
        &mut self,
        statement: &str,
        counts: bool,
        done: Result<Option<String>, Failed>,
    ) -> Result<(), String> {
        let value = match done {
            Ok(value) => value.unwrap_or_default(),
            Err(Failed::Busy) => {
                self.busy += 1;
                return Ok(());
            }
            Err(Failed::Otherwise(error)) => return Err(format!("{statement}: {error}")),
        };
        self.done += 1;
        if counts {
            let last = self.last;
            // From here on by what is there, so that one loss is told once.
            self.last = value.parse().unwrap_or(last + 1);
            if self.last != last + 1 {
                return Err(format!("it has counted to {last}, and then to {value:?}"));
            }
        }
        if statement == "PRAGMA quick_check" && value != "ok" {
            return Err(format!("{statement}: {value}"));
        }
        Ok(())
    }
}

pub const PYTHON: &str = r#"
import hashlib, sqlite3
counted = 0
def once(statement):
    connection = sqlite3.connect("DATABASE", timeout=20, isolation_level=None)
    try:
        return connection.execute(statement).fetchall()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error): raise
        return None
    finally:
        connection.close()
def count():
    global counted
    rows = once("UPDATE meta SET value = value + 1 WHERE key = 'count-COUNTER' RETURNING value")
    if rows is None: return
    last, counted = counted, rows[0][0]
    assert counted == last + 1, (last, rows)
def read():
    once("SELECT count(*) FROM instances")
def checkpoint():
    once("PRAGMA wal_checkpoint(TRUNCATE)")
def hash_it():
    hashlib.sha256(open("DATABASE", "rb").read())
"#;
