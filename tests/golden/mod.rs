//! `tests/fixtures/messages.txt`: everything that is said to people, for a reviewer who reads it
//! from top to bottom.
//!
//! Three tests write it, each its own sections: what the functions that speak make of values (the
//! unit tests of `src/cli/sentences.rs`), what the real program says in situations that a test
//! makes (`tests/it/messages/`), and the help, with the texts that none of those has said
//! (`tests/texts.rs`). To change a text, change it, and then run these three once more:
//!
//! ```text
//! export INCUMBENT_UPDATE_GOLDEN=1
//! cargo test --locked --lib sentences; cargo test --locked --test it messages
//! cargo test --locked --test texts
//! ```
//!
//! which writes the file again and fails: look at the difference before it is committed.

#![allow(dead_code, reason = "not every test needs every part")]

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Set to `1`, it has the file written again.
pub const UPDATE: &str = "INCUMBENT_UPDATE_GOLDEN";

pub const HELP: &str = "Help";
pub const ERRORS: &str = "Errors and refusals";
pub const ERRORS_OF_PROGRAMS: &str = "Errors that only a program meets";
pub const DOCTOR: &str = "The doctor";
pub const VERDICTS: &str = "Verdicts";
pub const ENDS: &str = "How something ended";
pub const REST: &str = "Texts without an example above";

const ORDER: [&str; 7] = [ERRORS, ERRORS_OF_PROGRAMS, DOCTOR, VERDICTS, ENDS, HELP, REST];

pub fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/messages.txt")
}

pub fn page() -> String {
    std::fs::read_to_string(place()).unwrap_or_default()
}

fn heading(name: &str) -> String {
    format!("# {name}\n")
}

/// A section as it is kept, without its heading.
pub fn section(page: &str, name: &str) -> String {
    let is_heading = |line: &str| ORDER.iter().any(|name| heading(name) == line);
    let mut lines = page.split_inclusive('\n').skip_while(|line| **line != heading(name)).skip(1);
    let text: String = lines.by_ref().take_while(|line| !is_heading(line)).collect();
    text.trim_matches('\n').to_owned()
}

/// The examples of a section, by the names over them.
pub fn examples(section: &str) -> Vec<(String, String)> {
    let examples = format!("\n{section}");
    let examples = examples.split("\n## ").skip(1);
    let examples = examples.map(|text| text.split_once('\n').unwrap_or((text, "")));
    examples.map(|(name, text)| (name.to_owned(), text.trim_matches('\n').to_owned())).collect()
}

/// One section of these.
pub fn written<'a>(examples: impl IntoIterator<Item = &'a (String, String)>) -> String {
    let examples =
        examples.into_iter().map(|(name, text)| format!("## {name}\n\n{}\n", text.trim_end()));
    examples.collect::<Vec<_>>().join("\n")
}

/// Asserts that these sections are the ones that are kept, or writes them.
#[track_caller]
pub fn check(update: bool, said: &[(&str, String)]) {
    let page = page();
    let said_of = |name: &str| {
        let own = said.iter().find(|(own, _)| *own == name);
        own.map_or_else(|| section(&page, name), |it| it.1.trim_matches('\n').to_owned())
    };
    if update {
        let mut page = String::new();
        for name in ORDER {
            let _ = write!(page, "{}\n{}\n\n", heading(name), said_of(name));
        }
        std::fs::write(place(), page.trim_end().to_owned() + "\n").unwrap();
        panic!("{} is renewed: look at the difference, and unset {UPDATE}", place().display());
    }
    for (name, _) in said {
        let (kept, said) = (section(&page, name), said_of(name));
        let mut lines = kept.lines().zip(said.lines());
        let first = lines.find(|(kept, said)| kept != said);
        let first = first.map(|(kept, said)| format!("kept: {kept}\n  said: {said}"));
        assert!(
            kept == said,
            "{name}: {}\nIf the new words are meant, see tests/golden/mod.rs.\n{said}",
            first.unwrap_or_else(|| "one of the two is longer".to_owned()),
        );
    }
}
