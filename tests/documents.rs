//! The documents: what they name exists. A moved file would else leave a wrong signpost behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

/// Written for people who change the code: whatever looks like a path is one of ours.
const FOR_DEVELOPERS: [&str; 4] =
    ["ARCHITECTURE.md", "CONTRIBUTING.md", "RELEASE.md", "docs/testing.md"];

/// These also name files of their readers, so only what is certainly ours is looked for.
const FOR_USERS: [&str; 9] = [
    "README.md",
    "SECURITY.md",
    "contrib/README.md",
    "docs/doctor.md",
    "docs/draining.md",
    "docs/linking.md",
    "docs/python-compat.md",
    "docs/python.md",
    "docs/supervisors.md",
];

/// Bytes of ARCHITECTURE.md: it is read in one go.
const LENGTH: usize = 10_000;

/// Columns of a line that is not part of a table.
const WIDTH: usize = 100;

/// One piece of `code` in a document.
#[derive(Debug)]
struct Code<'a> {
    line: usize,
    text: &'a str,
    /// What stands between it and the next piece.
    after: &'a str,
}

/// The pieces in backticks, without blocks of code.
fn pieces(document: &str) -> Vec<Code<'_>> {
    let mut pieces = Vec::new();
    let mut line = 1;
    for (number, block) in document.split("```").enumerate() {
        let parts: Vec<&str> = block.split('`').collect();
        for (index, text) in parts.iter().enumerate() {
            if number % 2 == 0 && index % 2 == 1 {
                let after = parts.get(index + 1).copied().unwrap_or_default();
                pieces.push(Code { line, text, after });
            }
            line += text.matches('\n').count();
        }
    }
    pieces
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where a path may start: ARCHITECTURE.md leaves `src/` out.
fn bases() -> [PathBuf; 2] {
    [root().to_owned(), root().join("src")]
}

/// `target/` is made by a build, so a fresh clone does not have it. `mod.rs` alone is any of them.
fn is_path(text: &str, is_for_developers: bool) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./*{},".contains(c);
    let is_elsewhere = text.starts_with('/') || text.starts_with("target/") || text == "mod.rs";
    if !text.chars().all(is_plain) || is_elsewhere {
        return false;
    }
    let is_source = [".rs", ".md", ".sql", ".toml"].iter().any(|end| text.ends_with(end));
    let Some((first, _)) = text.split_once('/') else { return is_source };
    is_source || is_for_developers || bases().iter().any(|base| base.join(first).exists())
}

/// `sys/{files,locks}.rs` is two paths.
fn expand(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
    let (choices, after) = rest.split_once('}').unwrap();
    choices.split(',').map(|choice| format!("{before}{choice}{after}")).collect()
}

/// `*windows*` fits many names, `VERB.rs` that of any source.
fn fits(pattern: &str, name: &str) -> bool {
    if let Some(stem) = pattern.strip_suffix(".rs")
        && stem.chars().all(|c| c.is_ascii_uppercase())
    {
        return name.strip_suffix(".rs").is_some();
    }
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// The files below `directory` that `path` names.
fn find(directory: &Path, path: &str) -> Vec<PathBuf> {
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let fitting = entries.map(|entry| entry.unwrap()).filter(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| fits(first, name))
    });
    let below = |entry: std::fs::DirEntry| match rest {
        "" => vec![entry.path()],
        rest => find(&entry.path(), rest),
    };
    fitting.flat_map(below).collect()
}

/// Whether `text` defines `name`: a function, a type, a constant or a module.
fn defines(text: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    ["fn", "struct", "enum", "trait", "const", "type", "mod"].iter().any(|keyword| {
        let definition = format!("{keyword} {name}");
        text.match_indices(&definition)
            .any(|(at, found)| !text[at + found.len()..].starts_with(is_word))
    })
}

/// What `document` names and is not there.
fn wrong_names(document: &str, text: &str, is_for_developers: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let pieces = pieces(text);
    for (index, piece) in pieces.iter().enumerate() {
        if !is_path(piece.text, is_for_developers) {
            continue;
        }
        for path in expand(piece.text) {
            let found: Vec<PathBuf> =
                bases().iter().flat_map(|base| find(base, path.trim_end_matches('/'))).collect();
            if found.is_empty() {
                wrong.push(format!("{document}:{}: there is no `{path}`", piece.line));
            }
            // `owner/ending.rs` `end_own`: the second is in the first.
            let Some(next) = pieces.get(index + 1) else { continue };
            let name = next.text.rsplit("::").next().unwrap();
            let is_name = !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && !is_path(next.text, is_for_developers);
            let is_behind = ["", ":"].contains(&piece.after.trim());
            if let [file] = found.as_slice()
                && file.is_file()
                && is_name
                && is_behind
                && !defines(&std::fs::read_to_string(file).unwrap(), name)
            {
                wrong.push(format!("{document}:{}: `{path}` has no `{name}`", next.line));
            }
        }
    }
    wrong
}

fn read(document: &str) -> String {
    std::fs::read_to_string(root().join(document)).unwrap()
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "say where it is now:\n{}", wrong.join("\n"));
}

#[test]
fn what_documents_name_exists() {
    let check = |document: &&str, is_for_developers| {
        wrong_names(document, &read(document), is_for_developers)
    };
    let mut wrong: Vec<String> = FOR_DEVELOPERS.iter().flat_map(|it| check(it, true)).collect();
    wrong.extend(FOR_USERS.iter().flat_map(|it| check(it, false)));
    assert_none(&wrong);
}

/// The test itself.
#[test]
fn a_wrong_name_is_found() {
    let wrong = |text: &str| wrong_names("A.md", text, true);
    let right = "`liveness/mod.rs` `judge`, `sys/{files,locks}.rs`, `sys/*windows*`\n\
        `cli/VERB.rs`, `migrations/`, `README.md`; `cargo test`, `mod.rs`, `/proc/locks`\n\
        `<db>.anchors/`\n```sh\nrm `attic/old.rs`\n```\n`src/lib.rs`";
    assert_eq!(wrong(right), [""; 0]);
    assert_eq!(wrong("one\n`attic/old.rs`"), ["A.md:2: there is no `attic/old.rs`"]);
    assert_eq!(wrong("```\n\n```\n`attic/`"), ["A.md:4: there is no `attic/`"]);
    assert_eq!(wrong("`sys/{files,attic}.rs`"), ["A.md:1: there is no `sys/attic.rs`"]);
    assert_eq!(wrong("`sys/*attic*`, `LOFT.md`").len(), 2);
    let moved = ["A.md:1: `liveness/mod.rs` has no `judg`"];
    assert_eq!(wrong("`liveness/mod.rs`: `liveness::judg`"), moved);
    let of_a_user = "`state.db.anchors/`, `~/.config/a.toml`, `gateway.pid`";
    assert_eq!(wrong_names("A.md", of_a_user, false), [""; 0]);
    assert_eq!(wrong_names("A.md", "`tests/attic.rs`, `sys/attic`", false).len(), 2);
}

#[test]
fn architecture_is_short() {
    let length = read("ARCHITECTURE.md").len();
    assert!(
        length <= LENGTH,
        "ARCHITECTURE.md has {length} bytes, {LENGTH} are the limit: what is hard about one file \
         stands at the head of that file"
    );
}

#[test]
fn no_line_of_a_document_is_wide() {
    let mut wrong = Vec::new();
    for document in FOR_DEVELOPERS.iter().chain(&FOR_USERS).chain(&["CHANGELOG.md"]) {
        for (number, line) in read(document).lines().enumerate() {
            let columns = line.chars().count();
            if columns > WIDTH && !line.starts_with('|') {
                wrong.push(format!("{document}:{}: {columns} columns", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "lines have more than {WIDTH} columns:\n{}", wrong.join("\n"));
}
