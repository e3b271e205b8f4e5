//! Texts for people: no phrase that a tired reader stumbles over, in whatever is read; and two
//! sections of `tests/fixtures/messages.txt`.
//!
//! That file is written by three tests (`tests/golden/mod.rs`). These here read the help, which is
//! that of `tests/fixtures/help/`, and the sources: every text of theirs that none of the examples
//! shows stands at the end of the file, with `{}` for what is filled in. So none is forgotten, and
//! a new one is seen before it is released.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests live in a real environment")]

mod golden;
mod sources;

use std::collections::BTreeMap;
use std::fmt::Write;

use sources::{root, sources};

/// Phrases that a tired reader stumbles over, and what to say in their place.
const AVOIDED: [(&str, &str); 16] = [
    ("shall", "must, will, is set to"),
    ("whoever", "a process that, the holder"),
    ("is no", "is not a"),
    ("are no", "are not"),
    ("one that", "its name, and two sentences"),
    ("all the same", "anyway"),
    ("anew", "again"),
    ("in vain", "failed"),
    ("to be had", "available"),
    ("lets go", "releases"),
    ("let go of", "release"),
    ("got nowhere", "failed"),
    ("of itself", "say what"),
    ("beside", "next to, with"),
    ("make room", "free some disk space"),
    ("and no", "and not a, without, none"),
];

/// Words of the tables and of the library for what people know as a holder or an instance id. Not
/// in a message; the plural is a view.
const OF_PROGRAMS: [(&str, &str); 2] =
    [("incarnation", "holder"), ("generation", "instance id, or holder")];

/// Documents for people, and what is copied from `contrib/`.
const DOCUMENTS: [&str; 6] =
    [".", "docs", "docs/schema", "contrib", "contrib/grafana", "contrib/prometheus"];

/// Plain English that begins like one of those.
const PLAIN: [&str; 5] =
    ["there is no", "there are no", "is no longer", "are no longer", "and no longer"];

/// What a statement begins with. It is not for people.
const SQL: [&str; 14] = [
    "SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "PRAGMA", "WITH", "BEGIN",
    "AND", "FROM", "WHERE", "ORDER",
];

/// A text in the source, and the code between it and the one before.
#[derive(Debug)]
struct Literal {
    before: String,
    text: String,
}

fn literals(code: &str) -> Vec<Literal> {
    let chars: Vec<char> = code.chars().collect();
    let (mut found, mut before, mut at) = (Vec::new(), String::new(), 0);
    while at < chars.len() {
        let rest = &chars[at..];
        let text = match rest[0] {
            '"' => Some(quoted(rest)),
            'r' if !before.ends_with(|c: char| c.is_alphanumeric() || c == '_') => raw(rest),
            _ => None,
        };
        if let Some((text, length)) = text {
            found.push(Literal { before: std::mem::take(&mut before), text });
            at += length;
        } else if rest.starts_with(&['/', '/']) {
            at += rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
        } else {
            let length = if rest[0] == '\'' { character(rest) } else { 1 };
            before.extend(&rest[..length]);
            at += length;
        }
    }
    found
}

/// What a text in quotes says, and its length in the source.
fn quoted(rest: &[char]) -> (String, usize) {
    let (mut text, mut at) = (String::new(), 1);
    while rest[at] != '"' {
        if rest[at] != '\\' {
            text.push(rest[at]);
            at += 1;
            continue;
        }
        at += 2;
        match rest[at - 1] {
            '\n' => at += rest[at..].iter().take_while(|c| c.is_whitespace()).count(),
            'n' | 'r' | 't' => text.push(' '),
            'x' => at += 2,
            'u' => at += 1 + rest[at..].iter().position(|c| *c == '}').unwrap(),
            '0' => {}
            plain => text.push(plain),
        }
    }
    (text, at + 1)
}

/// The same of a raw one: `r"..."`, `r#"..."#`.
fn raw(rest: &[char]) -> Option<(String, usize)> {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    let start = hashes + 2;
    if rest.get(start - 1) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let length = rest[start..].windows(end.len()).position(|it| it == end.as_slice()).unwrap();
    Some((rest[start..start + length].iter().collect(), start + length + end.len()))
}

/// The length of a character in quotes, or of the quote of a lifetime.
fn character(rest: &[char]) -> usize {
    match rest {
        ['\'', '\\', _, tail @ ..] => tail.iter().position(|c| *c == '\'').unwrap() + 4,
        ['\'', _, '\'', ..] => 3,
        _ => 1,
    }
}

fn without_values(text: &str) -> String {
    let (mut plain, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('{') {
        plain += before;
        rest = after.split_once('}').map_or("", |it| it.1);
    }
    plain + rest
}

/// The last statement of `code`, which has no end yet.
fn statement(code: &str) -> &str {
    code.rsplit(';').next().unwrap()
}

impl Literal {
    /// Whether it is for people: some words, and neither SQL nor a word of a log.
    fn is_text(&self) -> bool {
        let (text, before) = (self.text.trim(), self.before.trim_end());
        let plain = without_values(text);
        let words: Vec<&str> = plain
            .split(|c: char| !c.is_ascii_alphabetic())
            .filter(|word| word.len() >= 2)
            .collect();
        let is_plain =
            |word: &&str| word.len() >= 3 && word.bytes().all(|it| it.is_ascii_lowercase());
        let is_sql = text.split_whitespace().next().is_some_and(|word| SQL.contains(&word))
            || ["IS NULL", "ORDER BY", " > :"].iter().any(|word| text.contains(*word))
            || text.as_bytes().windows(2).any(|it| it[0] == b'?' && it[1].is_ascii_digit());
        let is_elsewhere = ["tracing::", "const SQL", "COLUMNS"]
            .iter()
            .any(|word| statement(before).contains(*word));
        text.contains(' ')
            && words.len() >= 2
            && words.iter().any(is_plain)
            && !is_sql
            && !is_elsewhere
            && !["reason =", "expect("].iter().any(|end| before.ends_with(*end))
    }

    /// Whether it says what to do.
    fn is_hint(&self) -> bool {
        const BY: [&str; 5] = ["hint(", "hints(", "advising(", "remedy(", "advice:"];
        // With one of these behind it, it is the next message.
        const NEXT: [&str; 3] = ["=>", "Error::", "::new("];
        let is_next = |code: &str| NEXT.iter().any(|word| code.contains(*word));
        let behind = BY.iter().filter_map(|word| statement(&self.before).rsplit_once(*word));
        behind.map(|it| it.1).any(|code| !is_next(code))
    }
}

/// Whether a file says something to people. The rest of it stands in the help.
fn speaks(path: &str) -> bool {
    let room = path.split(['/', '.']).next().unwrap();
    let is_silent = ["lib", "main", "words", "environment"].contains(&room);
    let is_help = path == "cli/args.rs";
    !is_silent && !is_help && !path.starts_with("cli/schema") && !path.ends_with("tests.rs")
}

/// Help without what all verbs have in common.
fn own_part(help: &str) -> String {
    let (mut text, mut is_common) = (String::new(), false);
    for line in help.lines() {
        if line == "Global options:" {
            is_common = true;
        } else if !line.is_empty() && !line.starts_with(' ') {
            is_common = false;
        }
        if !is_common {
            text += line;
            text.push('\n');
        }
    }
    text.trim_end().to_owned() + "\n"
}

/// The help of each verb, by its name.
fn help() -> BTreeMap<String, String> {
    let mut help = BTreeMap::new();
    for entry in std::fs::read_dir(root().join("tests/fixtures/help")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().trim_end_matches(".txt").to_owned();
        if !name.contains(".short") {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = if name == "incumbent" { text } else { own_part(&text) };
            help.insert(name, text);
        }
    }
    help
}

/// The texts of all files, by file.
fn said() -> BTreeMap<String, Vec<String>> {
    let mut said = BTreeMap::new();
    for source in sources().into_iter().filter(|source| speaks(&source.path)) {
        let texts: Vec<String> = literals(source.code())
            .iter()
            .filter(|literal| literal.is_text())
            .map(|literal| {
                let text = literal.text.split_whitespace().collect::<Vec<_>>().join(" ");
                if literal.is_hint() { format!("  try: {text}") } else { text }
            })
            .collect();
        said.insert(source.path, texts);
    }
    said
}

/// Whether a line has `text`, with whatever was filled in.
fn shows(line: &str, text: &str) -> bool {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once('{') {
        pieces.push(before);
        rest = after.split_once('}').map_or("", |it| it.1);
    }
    pieces.push(rest);
    let mut left = line;
    pieces.iter().all(|piece| match left.split_once(piece) {
        Some((_, after)) => {
            left = after;
            true
        }
        None => false,
    })
}

fn help_section() -> String {
    let examples: Vec<(String, String)> = help().into_iter().collect();
    golden::written(&examples)
}

/// What no example shows.
fn rest(page: &str) -> String {
    let shown = [golden::ERRORS, golden::ERRORS_OF_PROGRAMS, golden::DOCTOR, golden::VERDICTS];
    let shown = shown.into_iter().chain([golden::ENDS]).map(|name| golden::section(page, name));
    let shown: Vec<String> = shown.collect();
    let is_shown = |text: &str| {
        let text = text.strip_prefix("  try: ").unwrap_or(text);
        shown.iter().flat_map(|it| it.lines()).any(|line| shows(line, text))
    };
    let mut examples = Vec::new();
    for (file, mut texts) in said() {
        texts.retain(|text| !is_shown(text));
        if !texts.is_empty() {
            examples.push((file, texts.join("\n")));
        }
    }
    golden::written(&examples)
}

#[test]
fn every_text_is_the_one_that_is_kept() {
    let update = std::env::var(golden::UPDATE).is_ok_and(|value| value == "1");
    let said = [(golden::REST, rest(&golden::page())), (golden::HELP, help_section())];
    golden::check(update, &said);
}

/// A kind that is new has no example yet: make one in `tests/it/messages/errors.rs`, or, if the
/// program itself cannot be brought to it, in `src/cli/sentences.rs`.
#[test]
fn every_kind_of_error_has_an_example() {
    let source = std::fs::read_to_string(root().join("src/error.rs")).unwrap();
    let kinds =
        source.split_once("pub enum ErrorKind {").unwrap().1.split_once("\n    }").unwrap().0;
    let kinds = kinds.lines().filter_map(|line| line.split_once(" = \"")?.1.split('"').next());
    let kinds: Vec<&str> = kinds.collect();
    assert!(kinds.len() > 10, "{kinds:?}");
    let page = golden::page();
    for kind in kinds {
        let begins = format!("{kind}, exit code ");
        let has = [golden::ERRORS, golden::ERRORS_OF_PROGRAMS].iter().any(|name| {
            let examples = golden::examples(&golden::section(&page, name));
            examples.iter().any(|(name, _)| name.starts_with(&begins))
        });
        assert!(has, "there is no example of the kind {kind}");
    }
}

/// The phrases of `avoided` that a text has.
fn avoided_in(
    text: &str,
    avoided: &[(&'static str, &'static str)],
) -> Vec<(&'static str, &'static str)> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let mut plain = format!(" {} ", words.collect::<Vec<_>>().join(" "));
    for phrase in PLAIN {
        plain = plain.replace(&format!(" {phrase} "), " ");
    }
    let has = |(phrase, _): &(&str, &str)| plain.contains(&format!(" {phrase} "));
    avoided.iter().copied().filter(has).collect()
}

/// The documents, with their names: of the CHANGELOG what is not released yet.
fn documents() -> Vec<(String, String)> {
    let mut documents = Vec::new();
    for directory in DOCUMENTS {
        for entry in std::fs::read_dir(root().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            let is_document = path
                .extension()
                .is_some_and(|it| ["md", "yml", "yaml", "json", "rules"].iter().any(|x| it == *x));
            let name = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
            // Not for users: of fields, and of what developers do.
            let is_other = name.ends_with("FIELD-BUGS.md") || name.ends_with("ARCHITECTURE.md");
            if is_document && !is_other {
                let text = std::fs::read_to_string(&path).unwrap();
                let text = match text.split_once("## Unreleased") {
                    Some((_, text)) if name.ends_with("CHANGELOG.md") => {
                        text.split("\n## ").next().unwrap().to_owned()
                    }
                    _ => text,
                };
                documents.push((name, text));
            }
        }
    }
    documents
}

#[test]
fn nothing_is_said_in_a_quaint_way() {
    let mut all = documents();
    let documents = all.len();
    all.push(("messages.txt".to_owned(), golden::page()));
    all.push(("the help".to_owned(), help_section()));
    let texts = said().into_iter().map(|(file, texts)| (file, texts.join("\n\n")));
    all.extend(texts);
    let in_messages = [&AVOIDED[..], &OF_PROGRAMS].concat();
    let mut wrong = String::new();
    for (at, (name, text)) in all.into_iter().enumerate() {
        let avoided = if at < documents { &AVOIDED[..] } else { &in_messages };
        // What stands in two lines is one sentence.
        for block in text.split("\n\n") {
            // The name of a file is no text.
            let lines = block.lines().filter(|line| !line.starts_with("## "));
            let words = lines.flat_map(str::split_whitespace);
            let block = words.collect::<Vec<_>>().join(" ");
            for (phrase, better) in avoided_in(&block, avoided) {
                let at = block.to_lowercase().find(phrase).unwrap_or_default();
                let from = block.floor_char_boundary(at.saturating_sub(40));
                let to = block.ceil_char_boundary((at + 60).min(block.len()));
                writeln!(wrong, "{name}: {phrase:?} (say: {better}): {}", &block[from..to])
                    .unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// The test itself: it finds what it looks for, and takes no code for a text.
#[test]
fn texts_are_found_and_phrases_are_seen() {
    let code = r##"
        // "no text of ours"
        const SQL: &str = "the rows of a table";
        let c = ['"', '\'', 'x'];
        fn a<'a>(it: &'a str) {}
        tracing::debug!("not for people, either");
        Error::new(format!("the store {} \
                            is \"busy\"", x)).with_hint("ask again");
        let raw = r#"a "raw" text"#;
        run("SELECT name FROM a_table", "a_word");
    "##;
    let found = literals(code);
    let found: Vec<(&str, bool)> = found
        .iter()
        .filter(|literal| literal.is_text())
        .map(|literal| (literal.text.as_str(), literal.is_hint()))
        .collect();
    let expected =
        [("the store {} is \"busy\"", false), ("ask again", true), ("a \"raw\" text", false)];
    assert_eq!(found, expected);
    for (text, expected) in [
        ("there is no store at {}", &[][..]),
        ("it is no longer held", &[][..]),
        ("{} is no name of a service", &["is no"][..]),
        ("It starts anew, in vain", &["anew", "in vain"][..]),
        ("marshall the allegations", &[][..]),
        ("make room: it and no other", &["make room", "and no"][..]),
    ] {
        let phrases: Vec<&str> = avoided_in(text, &AVOIDED).into_iter().map(|it| it.0).collect();
        assert_eq!(phrases, expected, "{text}");
    }
}
