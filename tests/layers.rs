//! The house: imports run down, and what else a reader relies on.
//!
//! ARCHITECTURE.md has the floors, once: its table is read here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The command line parses, asks and prints. What decides is not its to name.
const NOT_FOR_CLI: [&str; 4] = ["records", "owner", "claim", "store"];

/// Columns of a line.
const WIDTH: usize = 100;

/// Lines of code of a file, without its unit tests.
const LENGTH: usize = 500;

#[derive(Debug)]
struct Source {
    /// Below `src/`.
    path: String,
    text: String,
}

impl Source {
    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Without its unit tests.
    fn code(&self) -> &str {
        &self.text[..self.text.find("\nmod tests {").unwrap_or(self.text.len())]
    }

    /// What it names by `crate::NAME` or in `crate::{NAME, ...}`, with the number of the line.
    fn names(&self) -> Vec<(usize, String)> {
        let code = without_comments(self.code());
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let word = |text: &str| text.chars().take_while(|c| is_word(*c)).collect::<String>();
        let mut named = Vec::new();
        for (at, found) in code.match_indices("crate::") {
            if code[..at].ends_with(|c: char| is_word(c) || c == '$') {
                continue;
            }
            let line = code[..at].lines().count().max(1);
            let rest = &code[at + found.len()..];
            match rest.strip_prefix('{') {
                None => named.push((line, word(rest))),
                Some(list) => named.extend(top_of(list).map(|name| (line, word(name)))),
            }
        }
        named
    }
}

fn without_comments(code: &str) -> String {
    code.lines().map(|line| line.split("//").next().unwrap().to_owned() + "\n").collect()
}

/// The entries of a list of imports that has begun.
fn top_of(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let end = list.find(|c| {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        depth < 0
    });
    let mut depth = 0;
    let at_comma = move |c| {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        depth == 0 && c == ','
    };
    list[..end.unwrap_or(list.len())].split(at_comma).map(str::trim).filter(|it| !it.is_empty())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut files = Vec::new();
    files_below(&src, &mut files);
    files.sort();
    let read = |file: &PathBuf| Source {
        path: file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned(),
        text: std::fs::read_to_string(file).unwrap(),
    };
    files.iter().map(read).collect()
}

/// The floor of each room: `| 8 | `records` | one sentence |`.
fn floors() -> BTreeMap<String, u32> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut floors = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, floor, room, ..] = cells.as_slice() else { continue };
        if let Ok(floor) = floor.parse() {
            let twice = floors.insert(room.trim_matches('`').to_owned(), floor);
            assert_eq!(twice, None, "{room} stands twice in the table of ARCHITECTURE.md");
        }
    }
    assert!(floors.len() > 10, "the table of floors in ARCHITECTURE.md was not found");
    floors
}

/// The room of each name that `lib.rs` exports: `crate::Holder` is one of `owner`.
fn exported() -> BTreeMap<String, String> {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut rooms = BTreeMap::new();
    for text in lib.split("use crate::").skip(1) {
        let path = text.split(';').next().unwrap();
        let room = path.split("::").next().unwrap();
        let names = path.rsplit_once('{').map_or(path.rsplit("::").next().unwrap(), |it| it.1);
        for name in names.trim_end_matches('}').split(',') {
            rooms.insert(name.trim().to_owned(), room.to_owned());
        }
    }
    assert!(rooms.len() > 50, "the exports of src/lib.rs were not found");
    rooms
}

/// What is wrong with the imports of `source`.
fn wrong_imports(source: &Source, floors: &BTreeMap<String, u32>) -> Vec<String> {
    let room = source.room();
    if ["lib", "main"].contains(&room) {
        return Vec::new();
    }
    let Some(floor) = floors.get(room) else {
        return vec![format!("{}: give `{room}` a floor in ARCHITECTURE.md", source.path)];
    };
    let mut wrong = Vec::new();
    let exported = exported();
    for (line, name) in source.names() {
        let at = format!("{}:{line}", source.path);
        let other = exported.get(&name).unwrap_or(&name);
        if other == room {
            continue;
        }
        match floors.get(other) {
            None => wrong.push(format!("{at}: give `{other}` a floor in ARCHITECTURE.md")),
            Some(above) if above >= floor => wrong.push(format!(
                "{at}: `{room}` (floor {floor}) names `{other}` (floor {above}): a room may use lower \
                 floors only. Move what is needed down, or hand it in from above"
            )),
            // What the library exports is for everybody.
            Some(_) if room == "cli" && NOT_FOR_CLI.contains(&name.as_str()) => wrong.push(format!(
                "{at}: the command line names `{other}`: let a room below it do that, and return \
                 what is to be printed"
            )),
            Some(_) => {}
        }
    }
    wrong
}

fn assert_none(wrong: &[String], what: &str) {
    assert!(wrong.is_empty(), "{} {what}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn imports_run_down() {
    let floors = floors();
    let wrong: Vec<String> =
        sources().iter().flat_map(|source| wrong_imports(source, &floors)).collect();
    assert_none(&wrong, "imports are wrong");
}

/// The test itself: what runs up is found, and told with what to do.
#[test]
fn an_import_that_runs_up_is_found() {
    let floors = floors();
    let planted = |path: &str, text: &str| {
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        wrong_imports(&source, &floors)
    };
    let up = planted("records/locks.rs", "use crate::office::Profile;\n");
    assert_eq!(up.len(), 1, "{up:?}");
    for words in ["records/locks.rs:1", "`records` (floor", "names `office` (floor", "lower floors"]
    {
        assert!(up[0].contains(words), "no {words:?} in {up:?}");
    }
    assert_eq!(planted("store/open.rs", "use crate::{clock, doctor};").len(), 1);
    let nested = "use crate::{\n    Holder,\n    clock::{Clock, length},\n    Tenure,\n};";
    assert_eq!(planted("store/open.rs", nested).len(), 2, "`owner` and `office`, by their exports");
    assert_eq!(
        planted("claim/wait.rs", "use crate::status::report::Report;").len(),
        1,
        "the same floor"
    );
    assert_eq!(planted("cli/status.rs", "let row = crate::records::locks::all();").len(), 1);
    assert_eq!(planted("attic/mod.rs", "").len(), 1, "a room without a floor");
    let right = "use crate::clock::Deadline;\n// use crate::office\n#[cfg(test)]\nmod tests { use crate::cli; }";
    assert_eq!(planted("store/open.rs", right), [""; 0]);
}

#[test]
fn every_file_says_what_it_is() {
    let wrong: Vec<String> = sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("{}: begin it with `//! ` and a sentence", source.path))
        .collect();
    assert_none(&wrong, "files do not say what they are");
}

/// The state of a handle is the store's, its rows those of the records.
#[test]
fn nobody_else_adds_to_the_handle() {
    let mut wrong = Vec::new();
    for source in sources() {
        if ["store", "records"].contains(&source.room()) {
            continue;
        }
        if source.code().lines().any(|line| line.starts_with("impl Inner")) {
            wrong.push(format!("{}: make it a function that takes `&Inner`", source.path));
        }
    }
    assert_none(&wrong, "files add methods to the handle of the store");
}

/// Files that are longer, and why. What is short again leaves the list.
const LONG: [(&str, &str); 0] = [];

#[test]
fn no_file_is_long() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines = source.code().lines().count();
        let excused = LONG.iter().find(|(path, _)| *path == source.path);
        match excused {
            None if lines > LENGTH => {
                wrong.push(format!("{}: {lines} lines without its tests: split it", source.path));
            }
            Some((path, _)) if lines <= LENGTH => {
                wrong.push(format!("{path}: {lines} lines: take it from the list"));
            }
            Some(_) | None => {}
        }
    }
    assert_none(&wrong, "files");
}

#[test]
fn no_line_is_wide() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > WIDTH {
                wrong.push(format!("src/{}:{}: {columns} columns", source.path, number + 1));
            }
        }
    }
    assert_none(&wrong, "lines have more than 100 columns");
}
