//! A store that others open, too: threads of an owner that open and close its files, another SQLite
//! in the same process, Python in it, and `sqlite3` beside it. FIELD-BUGS row 98.
//!
//! Symptom: a gateway that made a backup of its own `state.db`, or asked it by Python's `sqlite3`,
//! went on in files that nobody else had; two writers wrote at once; rows that had been
//! acknowledged were gone. Cause: SQLite locks by POSIX record locks, and any close of a file by a
//! process cancels all of that process (<https://sqlite.org/howtocorrupt.html>, section 2.2). It
//! holds because our connections lock by open file (`sys/wal_index/`), and look whether the files
//! are still those that others have (`store/files.rs`).
//!
//! Whatever happens in the storm, four things hold: what was acknowledged is seen by everybody
//! else; there are never two holders, by a lock that incumbent does not know; the database is
//! whole; and `-wal` and `-shm` stay the same files. What no lock of ours can help: a close cancels
//! those of the *other* SQLite in the same process as well, so nobody closes a `-shm` here while
//! that one is at work.
//!
//! `INCUMBENT_STRAY` is for how many seconds (5). In a build with the feature `switchable-guards`
//! the same is run with one guard left out at a time, and has to be broken.

mod counts;
mod obedient;
mod one_at_a_time;
mod owner;
mod storm;
#[cfg(feature = "switchable-guards")]
mod without;
mod witness;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use crate::support::Random;

const OWNERS: u64 = 2;
const SHELLS: u64 = 3;

/// How the names of the three files end.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// What anybody else in the process does to a file, a backup or a hash.
fn open_and_close(path: &Path) {
    let mut some = [0; 64];
    // One that is gone is found out elsewhere.
    let _ = File::open(path).and_then(|mut file| file.read(&mut some));
}

fn one_more(counter: &str) -> String {
    format!("UPDATE meta SET value = value + 1 WHERE key = 'count-{counter}' RETURNING value")
}

/// Between two visits of somebody else. Now and then all of them are away at once.
fn pause(random: &mut Random) {
    let longest_ms = if random.chance(10) { 60 } else { 5 };
    random.pause_up_to(Duration::from_millis(longest_ms));
}

/// Something harmless in a table that everybody may write to.
const AN_EVENT: &str = "INSERT INTO events (at_ms, event, detail) VALUES (0, 'of_a_test', '{}')";
