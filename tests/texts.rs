//! Every text for people in one file: `tests/fixtures/texts.txt`, for a reviewer who reads it from
//! top to bottom.
//!
//! The help is that of `tests/fixtures/help/`, which another test holds against the program. All
//! else is read in the sources: verdicts, findings of the doctor, messages and hints. So none can
//! be forgotten, and a new one is seen before it is released. `{}` stands for what is filled in.
//! To change a text, change it, and then
//!
//! ```text
//! INCUMBENT_UPDATE_GOLDEN=1 cargo test --locked --test texts
//! ```
//!
//! which writes the file anew and fails: look at the difference before it is committed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests live in a real environment")]

mod sources;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use sources::{root, sources};

/// Set to `1`, it has the file written anew.
const UPDATE: &str = "INCUMBENT_UPDATE_GOLDEN";

/// Phrases that a tired reader stumbles over, and what to say in their place.
const AVOIDED: [(&str, &str); 13] = [
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
];

/// Plain English that begins like one of those.
const PLAIN: [&str; 4] = ["there is no", "there are no", "is no longer", "are no longer"];

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

/// Where the texts of a file stand; `None` for a file that has none for people.
fn section(path: &str) -> Option<&'static str> {
    let room = path.split(['/', '.']).next().unwrap();
    match room {
        _ if path.starts_with("cli/schema") || path.ends_with("tests.rs") => None,
        // All of it stands in the help.
        _ if path == "cli/args.rs" => None,
        "lib" | "main" | "words" | "environment" => None,
        _ if path == "status/summary.rs" => Some(VERDICTS),
        "liveness" => Some(VERDICTS),
        "doctor" => Some("The doctor"),
        "cli" => Some("The command line"),
        "unit" => Some("What `unit` prints"),
        _ => Some("Messages, and what to do"),
    }
}

const VERDICTS: &str = "Verdicts, and how something ended";

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

/// The texts of all files, by section and file.
fn said() -> BTreeMap<&'static str, BTreeMap<String, Vec<String>>> {
    let mut said: BTreeMap<_, BTreeMap<_, Vec<_>>> = BTreeMap::new();
    for source in sources() {
        let Some(section) = section(&source.path) else { continue };
        let texts: Vec<String> = literals(source.code())
            .iter()
            .filter(|literal| literal.is_text())
            .map(|literal| {
                let text = literal.text.split_whitespace().collect::<Vec<_>>().join(" ");
                if literal.is_hint() { format!("  try: {text}") } else { text }
            })
            .collect();
        if !texts.is_empty() {
            said.entry(section).or_default().insert(source.path, texts);
        }
    }
    said
}

/// The file.
fn page() -> String {
    let mut page = "# Help\n".to_owned();
    for (name, text) in help() {
        write!(page, "\n## {name}\n\n{text}").unwrap();
    }
    for (section, files) in said() {
        writeln!(page, "\n# {section}").unwrap();
        for (file, texts) in files {
            writeln!(page, "\n## {file}\n\n{}", texts.join("\n")).unwrap();
        }
    }
    page
}

fn place() -> PathBuf {
    root().join("tests/fixtures/texts.txt")
}

#[test]
fn every_text_is_the_one_that_is_kept() {
    let page = page();
    if std::env::var(UPDATE).is_ok_and(|value| value == "1") {
        std::fs::write(place(), page).unwrap();
        panic!("{} is renewed: look at the difference, and unset {UPDATE}", place().display());
    }
    let kept = std::fs::read_to_string(place()).unwrap();
    let renew = format!("If the new words are meant: {UPDATE}=1 cargo test --locked --test texts");
    for (number, (kept, said)) in kept.lines().zip(page.lines()).enumerate() {
        assert_eq!(kept, said, "line {}. {renew}", number + 1);
    }
    assert_eq!(kept.lines().count(), page.lines().count(), "{renew}");
}

/// The phrases of [`AVOIDED`] that a text has.
fn avoided_in(text: &str) -> Vec<(&'static str, &'static str)> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let mut plain = format!(" {} ", words.collect::<Vec<_>>().join(" "));
    for phrase in PLAIN {
        plain = plain.replace(&format!(" {phrase} "), " ");
    }
    let has = |(phrase, _): &(&str, &str)| plain.contains(&format!(" {phrase} "));
    AVOIDED.into_iter().filter(has).collect()
}

#[test]
fn nothing_is_said_in_a_quaint_way() {
    let page = page();
    // What stands in two lines of a help is one sentence.
    let blocks = page.split("\n\n").map(|block| block.replace("\n         ", " "));
    let lines: Vec<String> =
        blocks.flat_map(|it| it.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let mut wrong = String::new();
    for line in lines {
        for (phrase, better) in avoided_in(&line) {
            writeln!(wrong, "{phrase:?} (say: {better}) in: {}", line.trim()).unwrap();
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
    ] {
        let phrases: Vec<&str> = avoided_in(text).into_iter().map(|it| it.0).collect();
        assert_eq!(phrases, expected, "{text}");
    }
}
