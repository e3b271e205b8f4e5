//! Integration tests: real processes, real signals, a store of their own for each test.
//!
//! One binary, so that they link once and run in parallel. A test that needs root, a user namespace
//! or a tool that is not there prints a line that starts with `SKIPPED`.
//!
//! Races are run for a number of rounds that fits a build; `INCUMBENT_TEST_ROUNDS=long` (or a
//! number) asks for more.
//!
//! A folder answers the question that its `mod.rs` begins with, a file one part of it. `library` in
//! a folder asks the crate, in processes that link it; `cli` asks the program alone; what is not in
//! one of the two needs both, or has only one kind. What many tests stand on is in `support`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests live in real time and a real environment")]

mod support;

mod arguments;
mod claims;
mod cli;
mod doctor;
mod endings;
mod events;
mod examples;
mod faults;
mod forensics;
mod handover;
mod hints;
mod identity;
mod keepers;
mod kill;
mod legacy;
mod locks;
mod lost_store;
mod markers;
mod messages;
mod processes;
mod run;
mod status;
mod stop;
mod store;
mod supervisors;
mod trust;
mod verbs;
mod versions;

use std::path::{Path, PathBuf};

/// A longer file is about more than one thing.
const LINES_MAX: usize = 600;

/// Every file below `directory`.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it")
}

/// A module that is not declared in the folder above it is a test that never runs.
#[test]
fn every_file_is_declared() {
    let here = here();
    let mut forgotten = Vec::new();
    for path in files(&here) {
        // A folder counts by its `mod.rs`.
        let module = if path.ends_with("mod.rs") { path.parent().unwrap() } else { &path };
        let folder = module.parent().unwrap();
        let root = folder.join(if folder == here { "main.rs" } else { "mod.rs" });
        let declaration = format!("mod {};", module.file_stem().unwrap().to_str().unwrap());
        let declared = std::fs::read_to_string(&root).unwrap_or_default();
        let is_declared = |line: &str| line.strip_prefix("pub ").unwrap_or(line) == declaration;
        if path != root && !declared.lines().any(is_declared) {
            forgotten.push(format!("{} in {}", path.display(), root.display()));
        }
    }
    assert!(forgotten.is_empty(), "not declared: {forgotten:#?}");
}

#[test]
fn every_file_says_what_it_is_and_is_short() {
    let mut wrong = Vec::new();
    for path in files(&here()) {
        let text = std::fs::read_to_string(&path).unwrap();
        if !text.starts_with("//! ") {
            wrong.push(format!("{}: begin it with `//! ` and a sentence", path.display()));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{}: {lines} lines: split it by subject", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Elsewhere `test_name!` would make the name of a test that is not there, and a process that is
/// started to play it would play nothing.
#[test]
fn every_role_is_named_in_its_own_file() {
    let mut wrong = Vec::new();
    for path in files(&here()) {
        if path.ends_with("main.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for after in text.split("test_name!(").skip(1) {
            let name = after.split(')').next().unwrap();
            if !text.contains(&format!("\nfn {name}()")) {
                wrong.push(format!("{name} in {}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
