//! Every help text, to the letter: `tests/fixtures/help/` has a file for each verb.
//!
//! `NAME.txt` is what `--help` says, `NAME.short.txt` what `-h` says where that is less. To change
//! a text, change it, and then
//!
//! ```text
//! INCUMBENT_UPDATE_GOLDEN=1 cargo test --locked --test it cli::help
//! ```
//!
//! which writes the files anew and fails: look at the difference before it is committed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::every_verb;
use crate::support::{LIMIT, Process, Sandbox};

/// Set to `1`, it has the files written anew.
const UPDATE: &str = "INCUMBENT_UPDATE_GOLDEN";

/// How wide the terminal is said to be.
const COLUMNS: &str = "100";

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/help")
}

/// What the program says, by the name of the file.
fn said() -> BTreeMap<String, String> {
    let sandbox = Sandbox::new();
    let mut said = BTreeMap::new();
    for verb in every_verb(&sandbox) {
        let ask = |option: &str| {
            let mut command = sandbox.incumbent(&verb);
            command.arg(option).env("COLUMNS", COLUMNS);
            let answer = Process::start(command).finish(LIMIT).assert_code(0);
            assert_eq!(answer.err, "", "{verb:?} {option}");
            answer.out
        };
        let (long, short) = (ask("--help"), ask("-h"));
        let name = if verb.is_empty() { "incumbent".to_owned() } else { verb.join("-") };
        if short != long {
            said.insert(format!("{name}.short.txt"), short);
        }
        said.insert(format!("{name}.txt"), long);
    }
    said
}

/// What the files say, by their names.
fn kept() -> BTreeMap<String, String> {
    let mut kept = BTreeMap::new();
    for entry in std::fs::read_dir(place()).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        kept.insert(name, std::fs::read_to_string(&path).unwrap());
    }
    kept
}

/// What a person sees first of two texts that differ.
fn difference(kept: &str, said: &str) -> String {
    let (mut kept, mut said) = (kept.lines(), said.lines());
    for number in 1.. {
        match (kept.next(), said.next()) {
            (None, None) => return "the ends of lines differ".to_owned(),
            (kept, said) if kept != said => {
                let [kept, said] = [kept, said].map(|line| line.unwrap_or("(the end)"));
                return format!("line {number}\n  kept: {kept}\n  said: {said}");
            }
            _ => {}
        }
    }
    unreachable!("texts end")
}

/// As people ask who come from other programs.
#[test]
fn help_is_a_verb_as_well() {
    let sandbox = Sandbox::new();
    for verb in every_verb(&sandbox) {
        let ask = |words: Vec<String>| sandbox.cli(words).assert_code(0).out;
        let by_option = ask([&verb[..], &["--help".to_owned()]].concat());
        let by_verb = ask([&["help".to_owned()], &verb[..]].concat());
        assert_eq!(by_verb, by_option, "{verb:?}");
    }
    assert!(sandbox.cli(["help", "words"]).assert_code(0).out.contains("holder "));
    for words in [&["help", "nonsense"][..], &["help", "run", "true"], &["help", "lock", "words"]] {
        sandbox.cli(words).assert_code(2).assert_complains(&["is not a verb", "try:"]);
    }
}

#[test]
fn every_help_text_is_the_one_that_is_kept() {
    let (kept, said) = (kept(), said());
    if std::env::var(UPDATE).is_ok_and(|value| value == "1") {
        std::fs::create_dir_all(place()).unwrap();
        for name in kept.keys().filter(|name| !said.contains_key(*name)) {
            std::fs::remove_file(place().join(name)).unwrap();
        }
        for (name, text) in &said {
            std::fs::write(place().join(name), text).unwrap();
        }
        panic!(
            "{} is renewed: look at the difference (git diff), and unset {UPDATE}",
            place().display()
        );
    }
    let mut wrong = Vec::new();
    for (name, text) in &said {
        match kept.get(name) {
            None => wrong.push(format!("{name}: there is no such file")),
            Some(kept) if kept != text => {
                wrong.push(format!("{name}: {}", difference(kept, text)));
            }
            Some(_) => {}
        }
    }
    for name in kept.keys().filter(|name| !said.contains_key(*name)) {
        wrong.push(format!("{name}: no verb says that"));
    }
    assert!(
        wrong.is_empty(),
        "{}\n\nIf the new words are meant: {UPDATE}=1 cargo test --locked --test it cli::help",
        wrong.join("\n")
    );
}
