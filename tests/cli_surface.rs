//! The command line stands on what every program can use: a binding gets nothing else.
//!
//! A path that it names leads to something public, and a function that it calls is public, but for
//! what [`INSIDE`] lists with its reason. What is taken off that list stays off.
//!
//! A text is read here, not a program: functions are told apart by their names alone, and fields are
//! not seen. A name that something public has too, or the command line itself, counts as that.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sources;

use std::collections::{BTreeMap, BTreeSet};

use sources::{Source, sources, without_comments};

/// What the command line names of the library's inside, and why.
const INSIDE: [(&str, &str); 18] = [
    // Words for people, in one place for both.
    ("clock", "times and lengths, as all texts of the library write them"),
    ("path_text", "paths that a shell or JSON could not take as they are"),
    ("span", "durations, as systemd writes them"),
    // The surroundings of a program that is not a library.
    ("environment", "the one place that reads variables"),
    ("sys", "names of signals, our user, whether anybody reads our output"),
    ("keeper", "the profile that a run which is over left in our environment"),
    // A question answers in its time, opening included.
    ("patience", "`with_budget`, around a verb as a whole"),
    ("status", "`ANSWER_WITHIN`, that time"),
    // It says what is wrong with its own arguments in the library's error.
    ("invalid", "an error of its own"),
    ("internal", "an error of its own"),
    ("with_hint", "an error of its own"),
    ("at", "an error of its own"),
    ("of_variable", "an error that names where the argument came from"),
    ("of_path", "the same, for the path of the store"),
    ("command_line_hint", "an error's advice, with the options of the command line"),
    // Without a store there is nobody to ask, and the answer is the same.
    ("lost_owner", "an owner of a store that is gone may be at work"),
    ("not_speaker", "nobody holds the office that is spoken for"),
    ("orphan", "the same owner as the holder that refuses"),
];

/// Functions that the standard library has as well.
const STANDARD: [&str; 17] = [
    "command", "contains", "count", "first", "forget", "insert", "last", "lock", "next", "now_ms",
    "ok", "parse", "push", "spawn", "stderr", "take", "without",
];

/// The code of each file below `src/`, without comments and unit tests.
fn codes() -> BTreeMap<String, String> {
    let code_of = |source: Source| {
        let code = without_comments(source.code());
        (source.path, code)
    };
    sources().into_iter().map(code_of).collect()
}

fn word(text: &str) -> &str {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap()
}

/// The names that a file exports: `pub use PATH::{A, B};`, `pub fn`, `pub struct` and the like.
fn exports(code: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for text in code.split("\npub use ").skip(1) {
        let path = text.split(';').next().unwrap();
        let list = path.rsplit_once('{').map_or(path.rsplit("::").next().unwrap(), |it| it.1);
        names.extend(list.split(',').map(|name| word(name.trim())).filter(|it| !it.is_empty()));
    }
    for kind in ["fn", "struct", "enum", "const", "type", "mod", "trait"] {
        let words = format!("\npub {kind} ");
        names.extend(code.split(words.as_str()).skip(1).map(word));
    }
    names
}

/// The entries of an import, each spelled out: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn spelled_out(prefix: &str, tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, list)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap();
        return vec![format!("{prefix}{path}")];
    };
    let prefix = format!("{prefix}{before}");
    let list = list.strip_suffix('}').unwrap_or(list);
    let (mut depth, mut entries, mut entry) = (0, Vec::new(), String::new());
    for c in list.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            entries.push(std::mem::take(&mut entry));
        } else {
            entry.push(c);
        }
    }
    entries.push(entry);
    let entries = entries.into_iter().filter(|entry| !entry.trim().is_empty());
    entries.flat_map(|entry| spelled_out(&prefix, &entry)).collect()
}

/// The paths below `crate::` that a file names.
fn paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        let rest = &code[at + found.len()..];
        let is_import = code[..at].ends_with("use ");
        if is_import {
            paths.extend(spelled_out("", rest.split(';').next().unwrap()));
        } else {
            let is_of_path = |c: char| c.is_alphanumeric() || "_:".contains(c);
            paths.push(rest.split(|c| !is_of_path(c)).next().unwrap().to_owned());
        }
    }
    paths
}

/// The functions that are visible as `visibility` says.
fn functions<'a>(code: &'a str, visibility: &str) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for line in code.lines() {
        let line = line.trim_start();
        let Some(rest) = line.strip_prefix(visibility) else { continue };
        let rest = rest.trim_start().trim_start_matches("const ");
        names.extend(rest.strip_prefix("fn ").map(word));
    }
    names
}

/// Those of `impl` blocks that are not public. Others are named by their path.
fn methods(code: &str) -> BTreeSet<&str> {
    let of = |visibility: &str| {
        let lines = code.lines().filter(|line| line.starts_with(' '));
        lines.flat_map(|line| functions(line, visibility)).collect::<Vec<_>>()
    };
    [of("pub(crate)"), of("pub(super)")].concat().into_iter().collect()
}

/// What is called by `.NAME(` or `::NAME(`.
fn calls(code: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices('(') {
        let before = &code[..at];
        let start = before.rfind(|c: char| !(c.is_alphanumeric() || c == '_'));
        let Some(start) = start else { continue };
        if before[..=start].ends_with('.') || before[..=start].ends_with("::") {
            names.insert(&before[start + 1..]);
        }
    }
    names
}

/// What the command line names of the library's inside, and where.
fn inside() -> BTreeMap<String, BTreeSet<String>> {
    let sources = codes();
    let code_of = |room: &str| {
        sources.get(&format!("{room}/mod.rs")).or_else(|| sources.get(&format!("{room}.rs")))
    };
    let lib = exports(&sources["lib.rs"]);
    let is_cli = |path: &str| path.starts_with("cli/");
    let (mut private, mut known) = (BTreeSet::new(), BTreeSet::from(STANDARD));
    for (path, code) in &sources {
        if is_cli(path) {
            known.extend(functions(code, ""));
            for visibility in ["pub", "pub(super)", "pub(crate)"] {
                known.extend(functions(code, visibility));
            }
        } else {
            private.extend(methods(code));
            known.extend(functions(code, "pub"));
        }
    }
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, code) in sources.iter().filter(|(path, _)| is_cli(path)) {
        let mut add = |name: &str| {
            found.entry(name.to_owned()).or_default().insert(path.clone());
        };
        for named in paths(code) {
            let mut parts = named.split("::").map(word);
            let (room, name) = (parts.next().unwrap(), parts.next());
            let is_public = room == "cli"
                || lib.contains(room)
                    && name.is_none_or(|name| {
                        let room = code_of(room).map(|code| exports(code));
                        name == "self" || room.is_none_or(|room| room.contains(name))
                    });
            if !is_public {
                add(room);
            }
        }
        for name in calls(code).into_iter().filter(|name| private.contains(name)) {
            if !known.contains(name) {
                add(name);
            }
        }
    }
    found
}

#[test]
fn the_command_line_uses_what_every_program_can() {
    let (found, allowed) = (inside(), BTreeMap::from(INSIDE));
    let mut wrong = Vec::new();
    for (name, files) in &found {
        if !allowed.contains_key(name.as_str()) {
            wrong.push(format!(
                "`{name}` in {files:?} is not public: make it so, or go another way"
            ));
        }
    }
    for name in allowed.keys() {
        if !found.contains_key(*name) {
            wrong.push(format!("`{name}` is not named any more: take it off the list"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_not_public_is_found() {
    let code = "use crate::sys::{signals, Pid as P};\nlet x = crate::records::find(1).hidden();";
    assert_eq!(paths(code), ["sys::signals", "sys::Pid", "records::find"]);
    assert_eq!(calls(code), BTreeSet::from(["find", "hidden"]));
    let code = "\npub use crate::a::{B, C};\npub fn d() {}\n    pub(crate) const fn e() {}\n";
    assert_eq!(exports(code), BTreeSet::from(["B", "C", "d"]));
    assert_eq!(methods(code), BTreeSet::from(["e"]));
}
