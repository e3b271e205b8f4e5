//! `sqlite3`, a program that knows the files, and nothing of us.

use std::path::{Path, PathBuf};

use super::caller::Caller;
use super::nemesis::faults::hurting;
use super::world::{MAIN, World};
use crate::log::{Answer, Hurt};

/// The copy that the nemesis may put back.
pub fn backup_of(world: &World) -> PathBuf {
    world.file("backup.db")
}

/// Statements on a database that is there; where there is none, it is not made. Whether they were
/// carried out.
fn statements(caller: Caller<'_>, database: &Path, mode: &str, all: &[&str]) -> bool {
    let mut command = caller.world.program("sqlite3");
    command.args(["-batch", "-bail", "-cmd", ".timeout 5000"]);
    command.arg(format!("file:{}?mode={mode}", database.display())).args(all);
    let asked = caller.tool(&format!("sqlite3 {}", all.join("; ")), command);
    matches!(asked.answer, Some(Answer::Exit { code: 0 }))
}

/// A reader that keeps its snapshot, so that the WAL grows.
pub fn read(caller: Caller<'_>, store: &str, for_ms: u64) {
    let hurt = Hurt::Foreign { store: store.to_owned(), how: format!("reads for {for_ms} ms") };
    let sleep = format!(".shell sleep {}.{:03}", for_ms / 1_000, for_ms % 1_000);
    hurting(caller.world, hurt, |_| {
        let all = ["BEGIN", "SELECT count(*) FROM events", &sleep, "COMMIT"];
        statements(caller, &caller.world.db(store), "ro", &all)
    });
}

/// A writer that has the write lock.
pub fn write(caller: Caller<'_>, store: &str, for_ms: u64) {
    let hurt = Hurt::Foreign { store: store.to_owned(), how: format!("writes for {for_ms} ms") };
    let sleep = format!(".shell sleep {}.{:03}", for_ms / 1_000, for_ms % 1_000);
    hurting(caller.world, hurt, |_| {
        let update = "UPDATE meta SET value = value WHERE key = 'nothing'";
        let all = ["BEGIN IMMEDIATE", update, &sleep, "COMMIT"];
        statements(caller, &caller.world.db(store), "rw", &all)
    });
}

/// One that moves all of the WAL into the database, and begins a new one.
pub fn checkpoint(caller: Caller<'_>, store: &str) {
    let how = "moves the -wal into the database".to_owned();
    hurting(caller.world, Hurt::Foreign { store: store.to_owned(), how }, |_| {
        statements(caller, &caller.world.db(store), "rw", &["PRAGMA wal_checkpoint(TRUNCATE)"])
    });
}

/// The copy is there as a whole, or the one before it.
pub fn back_up(caller: Caller<'_>) {
    let (new, backup) = (caller.world.file("backup.new"), backup_of(caller.world));
    let _ = std::fs::remove_file(&new);
    let copy = format!(".backup '{}'", new.display());
    if statements(caller, &caller.world.db(MAIN), "ro", &[&copy]) {
        let _ = std::fs::rename(new, backup);
    }
}
