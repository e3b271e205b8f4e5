//! Each guard is needed: with one of them left out the same is broken.

use std::os::unix::fs::MetadataExt;

use super::one_at_a_time::{a_cleaner, another_reader, another_that_closes, another_writer};
use super::storm::storm;
use super::witness::Others;
use crate::support::{LIMIT, Process, Sandbox, has, skipped};

/// It takes a fraction of a second, as a rule.
const LONGEST_S: u64 = 60;

/// FIELD-BUGS row 106, where the kernel has no such locks (macOS): a close cancels those of SQLite,
/// so the header is read only while nobody in the process has the store open. `doctor --fix`
/// repaired no mode there.
#[test]
fn them_doctor_fix_still_sets_modes() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    std::fs::set_permissions(sandbox.db(), PermissionsExt::from_mode(0o644)).unwrap();
    let mut command = sandbox.incumbent(["doctor", "--fix"]);
    command.env("INCUMBENT_WITHOUT_GUARD", "locks");
    Process::start(command).finish(LIMIT);
    assert_eq!(std::fs::metadata(sandbox.db()).unwrap().mode() & 0o777, 0o600);
}

fn storm_breaks(guard: &str, others: Others) {
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    let outcome = storm(LONGEST_S, others, Some(guard));
    assert!(!outcome.broken.is_empty(), "nothing was broken in {:?}", outcome.lasted);
}

fn breaks(scenario: impl Fn(Option<&str>) -> Vec<String>, guard: &str, how: &str) {
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    let broken = scenario(Some(guard));
    eprintln!("without {guard}: {broken:#?}");
    assert!(broken.iter().any(|what| what.contains(how)), "nothing of {how:?}: {broken:#?}");
}

#[test]
fn the_locks_a_storm_breaks_it() {
    storm_breaks("locks", Others::All);
}

#[test]
fn the_lock_that_says_in_use_a_storm_breaks_it() {
    storm_breaks("in_use", Others::OneShell);
}

#[test]
fn the_lock_on_the_database_a_storm_breaks_it() {
    storm_breaks("database", Others::OneShell);
}

#[test]
fn the_locks_two_write_at_once() {
    breaks(another_writer, "locks", "in the middle of a change");
}

#[test]
fn the_lock_that_says_in_use_somebody_begins_the_index_anew() {
    breaks(another_reader, "in_use", "");
}

#[test]
fn the_lock_on_the_database_the_wal_is_deleted() {
    breaks(another_that_closes, "database", "the files are");
}

#[test]
fn comparing_the_files_an_acknowledged_write_is_lost() {
    breaks(|without| a_cleaner(&["-wal", "-shm"], without), "files", "was told that");
}
