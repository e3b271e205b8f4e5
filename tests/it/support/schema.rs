//! Stores as older versions made them.

use super::Sandbox;

/// The migrations that older versions did not have.
const LATER: [(i64, &str); 11] = [
    (2, include_str!("../../../migrations/0002_scoped_locks.sql")),
    (3, include_str!("../../../migrations/0003_markers.sql")),
    (4, include_str!("../../../migrations/0004_runtime_status.sql")),
    (5, include_str!("../../../migrations/0005_shutdowns.sql")),
    (6, include_str!("../../../migrations/0006_legacy.sql")),
    (7, include_str!("../../../migrations/0007_identity.sql")),
    (8, include_str!("../../../migrations/0008_slots.sql")),
    (9, include_str!("../../../migrations/0009_asleep.sql")),
    (10, include_str!("../../../migrations/0010_counters_memory.sql")),
    (11, include_str!("../../../migrations/0011_exit_seen.sql")),
    (12, include_str!("../../../migrations/0012_fewer_pages.sql")),
];

/// What a migration makes, by kind, what depends on the rest first.
fn made_by(migration: &str) -> Vec<(&'static str, String)> {
    let mut made = Vec::new();
    for kind in ["VIEW", "TRIGGER", "TABLE", "INDEX"] {
        for line in migration.lines() {
            let words: Vec<&str> =
                line.split_whitespace().filter(|word| *word != "UNIQUE").collect();
            if let ["CREATE", found, name, ..] = words.as_slice()
                && *found == kind
            {
                made.push((kind, (*name).to_owned()));
            }
        }
    }
    made
}

/// The statement of a migration that begins so, up to what ends it.
fn statement<'a>(migration: &'a str, begin: &str, end: &str) -> &'a str {
    let from = &migration[migration.find(begin).unwrap()..];
    &from[..from.find(end).unwrap() + end.len()]
}

/// The statement of the first migration that begins like this.
fn of_the_first(begin: &str) -> &'static str {
    statement(include_str!("../../../migrations/0001_offices.sql"), begin, ";")
}

/// The table and the column of an `ALTER TABLE ... ADD COLUMN`.
fn added_column(line: &str) -> Option<(&str, &str)> {
    match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["ALTER", "TABLE", table, "ADD", "COLUMN", column, ..] => Some((table, column)),
        _ => None,
    }
}

impl Sandbox {
    /// Takes everything out of the store that came after schema version `version`.
    pub fn age_to(&self, version: i64) {
        for (later, migration) in LATER.iter().rev().filter(|(later, _)| *later > version) {
            for (kind, name) in made_by(migration) {
                self.forge(&format!("DROP {kind} IF EXISTS {name}"));
            }
            for line in migration.lines() {
                if let Some((table, column)) = added_column(line) {
                    self.forge(&format!("ALTER TABLE {table} DROP COLUMN {column}"));
                }
            }
            // A later one has made it again, with more columns.
            if migration.contains("DROP VIEW incarnations") {
                self.forge(of_the_first("CREATE VIEW incarnations"));
            }
            if *later == 12 {
                self.make_what_schema_12_has_not();
            }
        }
        if version == 1 {
            self.forge("DROP TABLE IF EXISTS waiters");
            self.forge(of_the_first("CREATE TABLE waiters"));
        }
        // Those versions were closed to nobody.
        self.forge("UPDATE meta SET value = 1 WHERE key = 'min_writer'");
        self.forge(&format!("PRAGMA user_version = {version}"));
    }

    /// The events, the indexes and the trigger as they were made before.
    fn make_what_schema_12_has_not(&self) {
        let second = include_str!("../../../migrations/0002_scoped_locks.sql");
        let fourth = include_str!("../../../migrations/0004_runtime_status.sql");
        self.forge("CREATE TABLE kept AS SELECT * FROM events");
        self.forge("DROP TABLE events");
        self.forge(of_the_first("CREATE TABLE events"));
        self.forge("INSERT INTO events SELECT * FROM kept");
        self.forge("DROP TABLE kept");
        self.forge(of_the_first("CREATE INDEX unended_anchors"));
        self.forge(statement(second, "CREATE INDEX ended_anchors", ";"));
        self.forge(statement(second, "CREATE INDEX ids_without_office", ";"));
        self.forge(statement(fourth, "CREATE TRIGGER next_command_starts_fresh", "\nEND;"));
    }
}
