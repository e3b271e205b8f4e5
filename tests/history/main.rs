//! The history checker: real processes do random things to one store while a nemesis hurts them;
//! all that was asked, answered and witnessed is written down, and a checker that knows only the
//! contract looks for a promise that was not kept.
//!
//! `workload` makes the log, `log` is its format, `check` judges it, `shorten` and `story` tell
//! what was found. `INCUMBENT_SOAK` says for how long (`30min`; a minute where it says nothing),
//! `INCUMBENT_SEED` repeats the choices of an earlier soak (not its timing), and
//! `INCUMBENT_HISTORY` names a log that was kept, to be checked again.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests live in real time and a real environment")]

mod check;
mod log;
mod shorten;
mod story;
#[allow(unused_imports, reason = "the helpers of all tests; few are needed here")]
#[path = "../it/support/mod.rs"]
mod support;
mod workload;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use check::Judged;

/// How long a soak takes of which nobody says that. The choices differ each time.
const LENGTH: Duration = Duration::from_mins(1);

/// So many violations are told; more are mostly the same.
const TOLD: usize = 3;

#[test]
fn soak() {
    let length = std::env::var("INCUMBENT_SOAK").map_or(LENGTH, |text| length_of(&text));
    let seed = match std::env::var("INCUMBENT_SEED") {
        Ok(text) => text.parse().expect("INCUMBENT_SEED is a number"),
        Err(_) => getrandom::u64().unwrap(),
    };
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("history-{seed}.jsonl"));
    eprintln!("INCUMBENT_SEED={seed}; the log of a failure: {}", log.display());

    let begin = Instant::now();
    let figures = workload::soak(&workload::Soak { length, seed, log: log.clone() });
    for line in &figures.skipped {
        eprintln!("{line}");
    }
    eprintln!(
        "{} operations, {} kills, {} faults, {} restarts in {} s, seed {seed}",
        figures.operations,
        figures.kills,
        figures.faults,
        figures.restarts,
        begin.elapsed().as_secs()
    );
    assert!(figures.operations > 0 && figures.faults > 0, "nothing happened");
    judge(&log);
    std::fs::remove_file(&log).unwrap();
}

#[test]
fn a_kept_log() {
    match std::env::var_os("INCUMBENT_HISTORY") {
        Some(path) => judge(&PathBuf::from(path)),
        None => support::skipped("INCUMBENT_HISTORY names no log"),
    }
}

/// Checks a log. A bad one stays where it is, with the shortest that shows the same beside it.
fn judge(path: &Path) {
    let log::Kept { records, torn } = log::read(path);
    let Judged { violations, allowed } = check::judge(&records);
    eprintln!("{} records, {torn} torn; needed allowances: {allowed:?}", records.len());
    assert!(!records.is_empty(), "{}: an empty log", path.display());
    if violations.is_empty() {
        return;
    }
    for (number, violation) in violations.iter().take(TOLD).enumerate() {
        let (short, violation) = shorten::shorten(&records, violation);
        let beside = path.with_extension(format!("{}.jsonl", number + 1));
        log::write(&beside, &short);
        eprintln!("\n{}in {}", story::tell(&short, &violation), beside.display());
    }
    let rest = violations.iter().skip(TOLD).map(|it| format!("\n{:?}: {}", it.rule, it.what));
    panic!(
        "{} violations in {}{}",
        violations.len(),
        path.display(),
        rest.take(20).collect::<Vec<_>>().concat()
    );
}

/// `500ms`, `60s`, `30min`, `2h`; a bare number is seconds.
fn length_of(text: &str) -> Duration {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    match unit {
        "ms" => Duration::from_millis(number),
        "" | "s" => Duration::from_secs(number),
        "m" | "min" => Duration::from_mins(number),
        "h" => Duration::from_hours(number),
        _ => panic!("{text}: ms, s, min or h"),
    }
}

#[test]
fn lengths_of_a_soak() {
    for (text, seconds) in [("60s", 60), ("90", 90), ("30min", 1_800), ("2h", 7_200)] {
        assert_eq!(length_of(text), Duration::from_secs(seconds), "{text}");
    }
}

/// A module that is not declared is a test that never runs.
#[test]
fn every_file_is_declared_and_says_what_it_is() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/history");
    let mut left = vec![here.clone()];
    while let Some(folder) = left.pop() {
        let root = folder.join(if folder == here { "main.rs" } else { "mod.rs" });
        let declared = std::fs::read_to_string(&root).unwrap();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path.clone());
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(text.starts_with("//! "), "{}", path.display());
                assert!(text.lines().count() <= 600, "{}: too long", path.display());
            }
            let name = path.file_stem().unwrap().to_str().unwrap();
            let declaration = format!("mod {name};");
            let mut lines = declared.lines();
            let is_declared = path == root
                || lines.any(|line| line.strip_prefix("pub ").unwrap_or(line) == declaration);
            assert!(is_declared, "{} in {}", path.display(), root.display());
        }
    }
}
