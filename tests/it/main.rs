//! Integration tests: real processes, real signals, a store of their own for each test.
//!
//! One binary, so that they link once and run in parallel. A test that needs root, a user namespace
//! or a tool that is not there prints a line that starts with `SKIPPED`.
//!
//! Races are run for a number of rounds that fits a build; `INCUMBENT_TEST_ROUNDS=long` (or a
//! number) asks for more.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests live in real time and a real environment")]

mod support;

mod bad_input;
mod beside;
mod clocks;
mod command_lock;
mod conditions;
mod containers;
mod contention;
mod damage;
mod deadlines;
mod doctor;
mod doctor_repairs;
mod endings;
mod events;
mod faults;
mod forensics_diagnose;
mod forensics_snapshot;
mod forensics_systemd;
mod full_disk;
mod ground;
mod ground_shared;
mod hostile_store;
mod identity;
mod keeper;
mod keeper_pair;
mod kill;
mod killed_writers;
mod left_behind;
mod legacy;
mod library;
mod limits;
mod lock_contention;
mod lock_records;
mod lock_secrets;
mod lock_verbs;
mod locks;
mod lost_owners;
mod many_rows;
mod markers;
mod moved;
mod namespaces;
mod old_binary;
mod older_beside;
mod older_files;
mod older_gateways;
mod open;
mod orphans;
mod printed;
mod random_kills;
mod readers;
mod reaped;
mod reboot;
mod restart;
mod run;
mod sql_views;
mod status;
mod status_all;
mod status_contention;
mod status_set;
mod stop;
mod storm;
mod stray_closes;
mod swap;
mod takeover;
mod terminal;
mod three_files;
mod users_store;
mod verdict;
mod versions;
mod wait;
mod words;

/// A module that is not declared above is a test that never runs.
#[test]
fn every_file_is_declared() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let main = std::fs::read_to_string(here.join("main.rs")).unwrap();
    let mut forgotten = Vec::new();
    for entry in std::fs::read_dir(&here).unwrap() {
        let path = entry.unwrap().path();
        let is_module = path.join("mod.rs").exists()
            || path.extension().is_some_and(|extension| extension == "rs");
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let is_declared = main.lines().any(|line| line.trim() == format!("mod {name};"));
        if is_module && name != "main" && !is_declared {
            forgotten.push(name);
        }
    }
    assert!(forgotten.is_empty(), "not declared in tests/it/main.rs: {forgotten:?}");
}
