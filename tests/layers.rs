//! The house: imports run down, and what else a reader relies on.
//!
//! ARCHITECTURE.md has the floors, once: its table is read here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sources;

use std::collections::{BTreeMap, BTreeSet};

use sources::{Source, root, sources, without_comments};

/// The command line parses, asks and prints. What decides is not its to name.
const NOT_FOR_CLI: [&str; 4] = ["records", "owner", "claim", "store"];

/// Columns of a line.
const WIDTH: usize = 100;

/// Lines of code of a file, without its unit tests.
const LENGTH: usize = 500;

impl Source {
    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
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
    for text in lib.split("\npub use crate::").skip(1) {
        let path = text.split(';').next().unwrap();
        let room = path.split("::").next().unwrap();
        let names = path.rsplit_once('{').map_or(path.rsplit("::").next().unwrap(), |it| it.1);
        for name in names.trim_end_matches('}').split(',') {
            rooms.insert(name.trim().to_owned(), room.to_owned());
        }
    }
    assert!(rooms.len() > 25, "the exports of src/lib.rs were not found");
    rooms
}

/// The modules that `lib.rs` makes of things from several rooms, for those outside:
/// `crate::lock::LockReport`.
fn shelves() -> BTreeSet<String> {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let names = lib.split("\npub mod ").skip(1).filter_map(|text| text.split_once(" {\n"));
    names.map(|it| it.0).filter(|name| !name.contains(';')).map(str::to_owned).collect()
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
    let (exported, shelves) = (exported(), shelves());
    // By a number of `super` that leaves the room, an import would not be seen here.
    let depth = source.module().split("::").count();
    let leaves_room = "super::".repeat(depth);
    if without_comments(source.code()).contains(&leaves_room) {
        wrong.push(format!("{}: name what is outside of `{room}` by `crate::`", source.path));
    }
    if room == "cli"
        && [".inner.write(", ".inner.read("].iter().any(|it| source.code().contains(it))
    {
        wrong.push(format!("{}: the command line opens no transaction", source.path));
    }
    for (line, name) in source.names() {
        let at = format!("{}:{line}", source.path);
        let other = exported.get(&name).unwrap_or(&name);
        if other == room {
            continue;
        }
        match floors.get(other) {
            // It sees what those outside see.
            None if room == "cli" && shelves.contains(other) => {}
            None if shelves.contains(other) => wrong.push(format!(
                "{at}: `{other}` is for those outside: name the room that the thing is in"
            )),
            None => wrong.push(format!("{at}: give `{other}` a floor in ARCHITECTURE.md")),
            Some(above) if above >= floor => wrong.push(format!(
                "{at}: `{room}` (floor {floor}) names `{other}` (floor {above}): a room may use \
                 lower floors only. Move what is needed down, or hand it in from above"
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

/// The handle of the store and its transactions: one thing in several files, which know each other.
const ONE_THING: [&str; 4] =
    ["store/deferred.rs", "store/handle.rs", "store/handle/settle.rs", "store/transaction.rs"];

/// Something that a file names: by an import, or where it uses it.
#[derive(Debug)]
struct Named {
    path: String,
    /// What an import calls it, where others may find it under that name.
    known_as: Option<String>,
    is_export: bool,
}

impl Source {
    /// `store::handle`; nothing for `lib.rs`.
    fn module(&self) -> String {
        let path = self.path.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
        if path == "lib" { String::new() } else { path }
    }

    fn named(&self) -> Vec<Named> {
        let code = without_comments(self.code()).replace("(in crate::", "(");
        let mut named = Vec::new();
        let in_path = |c: char| c.is_alphanumeric() || "_:".contains(c);
        for statement in code.split(';') {
            let (used, tree) = match statement.rsplit_once("use ") {
                Some((before, tree))
                    if (before.is_empty() || before.ends_with(char::is_whitespace))
                        && tree.chars().all(|c| in_path(c) || "{}*, \n".contains(c)) =>
                {
                    (before, tree)
                }
                Some(_) | None => (statement, ""),
            };
            let words = used.split(|c| !in_path(c)).map(|word| word.trim_end_matches(':'));
            named.extend(words.filter(|word| word.contains("::")).map(|word| Named {
                path: word.to_owned(),
                known_as: None,
                is_export: false,
            }));
            let is_export = used.rsplit('\n').next().unwrap().trim().starts_with("pub");
            for import in spelled_out(tree) {
                let (path, name) = match import.split_once(" as ") {
                    Some((path, name)) => (path, Some(name)),
                    None => (&*import, import.rsplit("::").next().filter(|_| is_export)),
                };
                let path = path.trim_end_matches("::self").to_owned();
                named.push(Named { path, known_as: name.map(str::to_owned), is_export });
            }
        }
        named
    }
}

/// `a::{b, c::d}` is `a::b` and `a::c::d`.
fn spelled_out(tree: &str) -> Vec<String> {
    match tree.split_once('{') {
        None => vec![tree.trim().to_owned()],
        Some((start, list)) => top_of(list)
            .flat_map(spelled_out)
            .map(|rest| format!("{}{rest}", start.trim()))
            .collect(),
    }
}

/// Where things come from: what a file exports is not its own.
struct Origins<'a> {
    files: BTreeMap<String, &'a str>,
    /// What a name of a module stands for: one thing, or one for each platform.
    aliases: BTreeMap<(String, String), Vec<String>>,
}

impl<'a> Origins<'a> {
    fn of(sources: &'a [Source]) -> Self {
        let files = sources.iter().map(|it| (it.module(), &*it.path)).collect();
        let mut origins = Self { files, aliases: BTreeMap::new() };
        for source in sources {
            let module = source.module();
            // `#[path = "signals_unix.rs"] mod signals;`
            for text in source.code().split("#[path = \"").skip(1) {
                let (file, rest) = text.split_once(".rs\"").unwrap();
                let name = rest.split_once("mod ").unwrap().1.split(';').next().unwrap();
                let key = (module.clone(), name.to_owned());
                origins.aliases.entry(key).or_default().push(format!("{module}::{file}"));
            }
            for Named { path, known_as, .. } in source.named() {
                if let (Some(path), Some(name)) = (origins.absolute(&module, &path), known_as) {
                    origins.aliases.entry((module.clone(), name)).or_default().push(path);
                }
            }
        }
        origins
    }

    /// Without `crate::`; `None` for what is of another crate.
    fn absolute(&self, module: &str, path: &str) -> Option<String> {
        if let Some(path) = path.strip_prefix("crate::") {
            return Some(path.to_owned());
        }
        let (mut module, mut path) = (module, path.strip_prefix("self::").unwrap_or(path));
        let is_super = path.starts_with("super::");
        while let Some(rest) = path.strip_prefix("super::") {
            (module, path) = (module.rsplit_once("::").map_or("", |it| it.0), rest);
        }
        let first = path.split("::").next().unwrap();
        let is_below = self.files.contains_key(&format!("{module}::{first}"))
            || self.aliases.contains_key(&(module.to_owned(), first.to_owned()));
        (is_super || is_below).then(|| format!("{module}::{path}").trim_matches(':').to_owned())
    }

    /// The files that a path leads to; through at most so many exports.
    fn files(&self, path: &str, exports: usize) -> BTreeSet<&'a str> {
        let mut module = path;
        while !self.files.contains_key(module) && !module.is_empty() {
            module = module.rsplit_once("::").map_or("", |it| it.0);
        }
        let rest = path[module.len()..].trim_start_matches("::");
        let (name, rest) = rest.split_once("::").unwrap_or((rest, ""));
        match self.aliases.get(&(module.to_owned(), name.to_owned())) {
            Some(all) if exports > 0 => all
                .iter()
                .map(|it| format!("{it}::{rest}"))
                .flat_map(|it| self.files(it.trim_end_matches(':'), exports - 1))
                .collect(),
            Some(_) | None => self.files.get(module).copied().into_iter().collect(),
        }
    }
}

/// Files of one room that import each other, directly or around, each with those of them that it
/// imports.
fn circles(sources: &[Source]) -> BTreeSet<BTreeMap<&str, Vec<&str>>> {
    const EXPORTS_MAX: usize = 5;
    let origins = Origins::of(sources);
    let mut imports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in sources.iter().filter(|it| !["lib", "main"].contains(&it.room())) {
        let named = source.named();
        let paths = named.iter().filter(|it| !it.is_export).map(|it| &it.path);
        let paths = paths.filter_map(|path| origins.absolute(&source.module(), path));
        let mut files: BTreeSet<_> =
            paths.flat_map(|path| origins.files(&path, EXPORTS_MAX)).collect();
        let of_room = |file: &str| file.split(['/', '.']).next() == Some(source.room());
        files.retain(|file| *file != source.path && of_room(file));
        imports.insert(&source.path, files);
    }
    let mut reached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for from in imports.keys() {
        let (found, mut left) = (reached.entry(from).or_default(), vec![*from]);
        while let Some(file) = left.pop() {
            left.extend(imports[file].iter().filter(|it| found.insert(**it)));
        }
    }
    let circle_of = |file: &str| {
        let back = |other: &&&str| reached[**other].contains(file);
        let circle: BTreeSet<&str> = reached[file].iter().filter(back).copied().collect();
        circle
            .iter()
            .map(|it| (*it, imports[it].intersection(&circle).copied().collect()))
            .collect()
    };
    imports
        .keys()
        .map(|file| circle_of(file))
        .filter(|it: &BTreeMap<_, _>| !it.is_empty())
        .collect()
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
    assert_eq!(planted("records/locks.rs", "use super::super::office::Profile;").len(), 1);
    let shelf = "use crate::lock::LockReport;";
    assert_eq!(planted("cli/locks.rs", shelf), [""; 0]);
    assert_eq!(planted("doctor/mod.rs", shelf).len(), 1, "a shelf is no room");
    assert_eq!(planted("cli/sql.rs", "store.inner.write(|tx| Ok(()))").len(), 1);
    let right = "use crate::clock::Deadline;\n// use crate::office\n#[cfg(test)]\nmod tests { \
                 use crate::cli; }";
    assert_eq!(planted("store/open.rs", right), [""; 0]);
}

#[test]
fn no_circle_within_a_room() {
    let sources = sources();
    let (excused, circles): (Vec<_>, Vec<_>) =
        circles(&sources).into_iter().partition(|circle| circle.keys().eq(&ONE_THING));
    let told = |(file, imports): (&str, Vec<&str>)| format!("{file} -> {}", imports.join(", "));
    let wrong: Vec<String> = circles
        .into_iter()
        .map(|circle| circle.into_iter().map(told).collect::<Vec<_>>().join("\n"))
        .map(|files| {
            format!(
                "{files}\nMove what several of them need to a file below them, or hand it in from \
                 above\n"
            )
        })
        .collect();
    assert_none(&wrong, "circles of files that import each other");
    assert_eq!(excused.len(), 1, "{ONE_THING:?} are no circle any more: name those that are");
}

/// The test itself: by whatever name something is imported, it counts for the file it comes from.
#[test]
fn a_circle_within_a_room_is_found() {
    let planted = |files: &[(&str, &str)]| {
        let source = |(path, text): &(&str, &str)| Source {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        let sources: Vec<Source> = files.iter().map(source).collect();
        circles(&sources)
            .into_iter()
            .map(|circle| circle.into_keys().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    let lib = ("lib.rs", "pub use crate::attic::chest::Chest;");
    let room = ("attic/mod.rs", "mod chest;\npub(crate) use self::lid::{Hinge, Lid as Top};");
    let lid = ("attic/lid.rs", "use super::lock;\nfn close() { lock::turn(); }");
    let lock = ("attic/lock.rs", "use crate::{\n    Chest,\n    clock::Clock,\n};");
    for import in [
        "use crate::attic::Top;",
        "use super::{Hinge, key::Key};",
        "fn open() -> crate::attic::lid::Lid {}",
        "use crate::{clock, attic::lid::{self, Lid}};",
    ] {
        let files = [lib, room, lid, lock, ("attic/chest.rs", import)];
        assert_eq!(planted(&files), ["attic/chest.rs attic/lid.rs attic/lock.rs"], "{import}");
    }
    for import in [
        "use crate::cellar::Lid;",
        "// use crate::attic::Lid",
        "pub(in crate::attic) fn open() {}",
        "#[cfg(test)]\nmod tests {\n    use crate::attic::Top;\n}",
    ] {
        assert_eq!(
            planted(&[lib, room, lid, lock, ("attic/chest.rs", import)]),
            [""; 0],
            "{import}"
        );
    }
    let parent = ("attic/chest.rs", "mod lid;\nfn open() { lid::lift(); }");
    let child = ("attic/chest/lid.rs", "use super::Chest;");
    assert_eq!(planted(&[lib, parent, child]), ["attic/chest.rs attic/chest/lid.rs"]);
    let platforms = ("attic/mod.rs", "#[path = \"a_unix.rs\"]\nmod a;\nuse a as os;");
    let files =
        [lib, platforms, ("attic/a_unix.rs", "use super::b::B;"), ("attic/b.rs", "use super::os;")];
    assert_eq!(planted(&files), ["attic/a_unix.rs attic/b.rs"]);
}

/// What stands behind the unit tests would be looked at by none of the tests here.
#[test]
fn the_unit_tests_end_their_file() {
    let behind = |source: &Source| {
        let tests = &source.text[source.code().len()..];
        tests.lines().skip(2).any(|line| !line.starts_with([' ', '}']) && !line.is_empty())
    };
    let wrong: Vec<String> =
        sources().into_iter().filter(behind).map(|source| source.path).collect();
    assert_none(&wrong, "files have code behind their unit tests: put it in front of them");
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

/// A program that links the library has methods, and no flags: a hint that names one is for the
/// command line alone.
#[test]
fn hints_of_the_library_name_no_flag() {
    const HINT: &str = ".with_hint(";
    let names_flag = |text: &str| {
        let after = text.split(HINT).skip(1);
        after.filter(|it| it[..hint_end(it)].contains("`--")).count()
    };
    assert_eq!(names_flag("error.with_hint(\"name it by `--db`\"); // `--db`"), 1);
    assert_eq!(names_flag("error.with_hint(\"name it\"); // `--db`"), 0);
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|source| source.room() != "cli" && names_flag(source.code()) > 0)
        .map(|source| format!("{}: say it `with_flag_hint`, or `with_hints` for both", source.path))
        .collect();
    assert_none(&wrong, "files hint at flags");
}

/// Where the bracket that is open before `text` is closed in it.
fn hint_end(text: &str) -> usize {
    let mut open = 1;
    let end = text.char_indices().find(|(_, character)| {
        match character {
            '(' => open += 1,
            ')' => open -= 1,
            _ => {}
        }
        open == 0
    });
    end.map_or(text.len(), |(at, _)| at)
}

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
