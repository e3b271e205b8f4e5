//! See the head of the program.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a benchmark may die of a surprise")]

mod by_hand;
mod c_program;
mod contention;
mod counts;
mod growth;
mod handover;
mod idle;
mod library;
mod load;
mod long;
mod measure;
mod page;
mod picture;
mod programs;
mod python;
mod roles;
mod rows;
mod stores;
mod table;

use std::path::PathBuf;

use measure::{Effort, QUICK, THOROUGH};
use stores::Places;
use table::Table;

/// What is there to compare with, and to count with.
pub struct Tools {
    python: Option<PathBuf>,
    c_program: Option<PathBuf>,
    /// Whether instructions are counted.
    count: bool,
}

pub fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let numbers: Vec<u64> = arguments.iter().filter_map(|word| word.parse().ok()).collect();
    match arguments.first().map(String::as_str) {
        Some(roles::ROLE) => roles::play(&arguments[1..]),
        Some("idle") if arguments.len() == numbers.len() + 1 => idle::main(&numbers),
        Some("contention") => contention::main(&numbers),
        Some("count") => counts::main(&arguments[1..]),
        Some("long") => long::main(&numbers),
        Some(_) | None => whole_table(arguments),
    }
}

fn whole_table(arguments: Vec<String>) {
    let has = |option: &str| arguments.iter().any(|it| it == option);
    let (quick, write) = (has("--quick"), has("--write"));
    let unknown = arguments.iter().find(|it| it.starts_with('-') && !OPTIONS.contains(&&***it));
    assert!(unknown.is_none(), "{unknown:?} is not an option of this benchmark: {OPTIONS:?}");
    let words: Vec<String> = arguments.into_iter().filter(|it| !it.starts_with('-')).collect();
    assert!(!write || words.is_empty(), "--write writes the whole table");
    let effort: Effort = if quick { QUICK } else { THOROUGH };
    let rounds = if quick { 15 } else { 200 };
    let tools = Tools {
        python: python::interpreter(),
        c_program: c_program::build(),
        count: !quick && counts::works(),
    };
    let places = Places::new();
    let mut table = Table { words, ..Table::default() };
    rows::library(&mut table, &places, &tools, effort);
    handover::rows(&mut table, &places, rounds);
    programs::rows(&mut table, &places, &tools, effort);
    load::rows(&mut table, &places, rounds * 5);
    contention::rows(&mut table, &places, tools.python.as_deref(), quick);
    idle::rows(&mut table, &places, quick);
    // A million of each takes `long`.
    long::rows(&mut table, &places, if quick { 3_000 } else { 100_000 });
    let growth = growth::rows(&mut table, &places, &tools, effort);
    let pictures = if write { vec![growth.picture()] } else { Vec::new() };
    println!("{}\n{}\n{}", page::machine(), table.markdown(), table.summary());
    if write {
        let crowds = contention::series(&places, tools.python.as_deref(), quick);
        page::write(&table, &[pictures, crowds].concat());
    }
}

const OPTIONS: [&str; 2] = ["--quick", "--write"];
