//! Does each kind of hint help? A test makes the situation, runs the hint as it was printed, and
//! sees that it did what it said.
//!
//! A kind is a verb with its options, as the source has it: `stop --force`; or another program, as
//! `kill -CONT`. The source is read for them, so a kind without a test fails. What cannot run here
//! is listed with the reason.

mod after;
mod doctor;
mod holders;
mod others;
mod supervisors;
mod verbs;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::support::{Answer, LIMIT, Process, Sandbox};

/// Each kind of hint, and its test.
const KINDS: &[(&str, fn())] = &[
    ("claim", verbs::claim),
    ("claim --pid", verbs::claim_of_a_script),
    ("desired", verbs::desired),
    ("doctor --fix", doctor::fix),
    ("events", verbs::events),
    ("evict", doctor::evict),
    ("evict --force", holders::evict_by_force),
    ("history", doctor::history),
    ("help", verbs::help),
    ("import", verbs::import),
    ("lock acquire --wait", holders::lock_acquire_wait),
    ("locks", verbs::locks),
    ("release --pid", verbs::release_of_another),
    ("restart", doctor::restart),
    ("restart --timeout", verbs::restart_with_more_time),
    ("run", verbs::run),
    ("run --keep-stderr", after::run_with_its_last_words),
    ("run --legacy-home", verbs::run_for_a_directory),
    ("run --replace", holders::run_replace),
    ("run --replace --force", holders::run_replace_by_force),
    ("run --wait", holders::run_wait),
    ("signal", verbs::signal),
    ("sql", doctor::sql),
    ("status", verbs::status),
    ("status --all", doctor::status_of_all),
    ("status-set --clear", verbs::status_set_clear),
    ("status-set --serves", verbs::status_set_serves),
    ("stop", holders::stop),
    ("stop --all --desired", after::stop_of_all),
    ("stop --desired", verbs::stop_for_good),
    ("stop --force", verbs::stop_by_force),
    ("stop --force --timeout", holders::stop_of_one_that_is_stopped),
    ("stop --timeout", verbs::stop_with_more_time),
    ("unlock --hash --force", holders::unlock_by_force),
    ("unlock --stale", doctor::unlock_stale),
    ("wait --timeout", verbs::wait_with_more_time),
];

/// Made by the command line of a hint for a `run`, so not to be read in the source.
const MADE: &str = "lock acquire --wait";

/// Files that mention verbs and advise none: what `unit` prints, messages of a helper, help texts.
const MENTIONS: [&str; 4] = ["unit/", "sys/supervise_unix.rs", "cli/advice.rs", "cli/args"];

/// Options with a value that any verb may have.
const GLOBAL: [&str; 5] = ["--db", "--profile", "--kind", "--home", "--allow-filesystem"];

/// The kind of a command: its verb, and its options without their values; `None` for what is no
/// command, or asks for help.
fn kind_of(command: &str) -> Option<String> {
    let mut verb: Vec<&str> = Vec::new();
    let mut options: Vec<&str> = Vec::new();
    let mut words = command.split_whitespace();
    while let Some(word) = words.next() {
        if GLOBAL.contains(&word) {
            words.next();
        } else if word == "--" {
            break;
        } else if word.starts_with("--") {
            options.push(word.split('=').next().unwrap());
        } else if verb.is_empty() || verb.len() == 1 && ["lock", "marker"].contains(&verb[0]) {
            verb.push(word);
        }
    }
    let is_word = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    if verb.is_empty() || !verb.iter().all(is_word) || options.contains(&"--help") {
        return None;
    }
    verb.extend(options);
    Some(verb.join(" "))
}

/// A text with something in the place of its values: `X` for a word, nothing at the end of one.
fn filled_in(text: &str) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (_, after) = after.split_once('}').unwrap_or(("", ""));
        filled += before;
        if filled.is_empty() || filled.ends_with(' ') {
            filled.push('X');
        }
        rest = after;
    }
    filled + rest
}

/// The code of a file without comments and unit tests, its texts in one line each.
fn code_of(text: &str) -> String {
    let code = text.split("mod tests {").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut code = String::new();
    for line in lines {
        if let Some(line) = line.strip_suffix('\\') {
            code += line.trim_start();
        } else {
            code += line.trim_start();
            code.push('\n');
        }
    }
    code
}

/// The commands that a source file advises.
fn advised(text: &str) -> Vec<String> {
    let code = code_of(text);
    let mut found = Vec::new();
    for mark in ['`', '"'] {
        for piece in code.split(&format!("{mark}incumbent ")).skip(1) {
            found.push(piece.split(mark).next().unwrap().to_owned());
        }
    }
    // `Office::verb` adds the office to what it is given.
    for call in [".command(", ".verb("] {
        for piece in code.split(call).skip(1) {
            let piece = piece.trim_start_matches(['&', '\n']).trim_start_matches("format!(");
            if let Some(piece) = piece.trim_start().strip_prefix('"') {
                found.push(piece.split('"').next().unwrap().to_owned());
            }
        }
    }
    found.into_iter().map(|piece| filled_in(&piece)).collect()
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_kind_of_hint_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut kinds = BTreeSet::from([MADE.to_owned()]);
    let mut others = BTreeSet::new();
    for file in files {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap();
        if MENTIONS.iter().any(|mention| path.starts_with(mention)) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        kinds.extend(advised(&text).iter().filter_map(|command| kind_of(command)));
        others.extend(others::advised(&text));
    }
    assert_all_tested(&kinds, KINDS.iter().map(|(kind, _)| *kind));
    let is_run = |kind: &str| others::KINDS.iter().any(|it| it.0 == kind);
    for (kind, why) in others::NOT_RUN {
        assert!(!is_run(kind) && !why.is_empty(), "{kind} is run");
    }
    let tested = others::KINDS.iter().map(|(kind, _)| *kind);
    assert_all_tested(&others, tested.chain(others::NOT_RUN.iter().map(|(kind, _)| *kind)));
}

#[track_caller]
fn assert_all_tested<'a>(kinds: &BTreeSet<String>, tested: impl Iterator<Item = &'a str>) {
    let tested: BTreeSet<String> = tested.map(str::to_owned).collect();
    let untested: Vec<_> = kinds.difference(&tested).collect();
    assert!(untested.is_empty(), "no test makes these, and tries them: {untested:?}");
    let gone: Vec<_> = tested.difference(kinds).collect();
    assert!(gone.is_empty(), "nothing advises these any more: {gone:?}");
}

#[test]
fn a_hint_is_found_in_the_source() {
    let text = "
        // `incumbent nonsense`
        .with_hint(\"see `incumbent stop --force` or \\
                    `incumbent wait --timeout {longer}`\");
        let verb = format!(\"incumbent evict{force} --profile {profile} --kind {kind}\");
        let other = format!(\"{} --db {} `incumbent --db {} locks`\");
        scene.command(&format!(
            \"history --profile {}\"));
        format!(\"incumbent {}\", office.verb(\"stop --all\"));
        #[cfg(test)]
        mod tests { \"`incumbent sql`\" }";
    let found: BTreeSet<String> = advised(text).iter().filter_map(|it| kind_of(it)).collect();
    let expected = ["evict", "history", "locks", "stop --all", "stop --force", "wait --timeout"];
    assert_eq!(found, BTreeSet::from(expected.map(str::to_owned)));
}

/// The commands in backticks that were printed.
fn printed(answer: &Answer) -> Vec<String> {
    let text = format!("{}{}", answer.err, answer.out);
    let pieces = text.split('`').skip(1).step_by(2);
    pieces.filter(|piece| piece.starts_with("incumbent ")).map(str::to_owned).collect()
}

/// The command of this kind that was advised, as it was printed. It may have further options, those
/// of the call that was refused.
#[track_caller]
fn hint(answer: &Answer, kind: &str) -> String {
    let commands = printed(answer);
    let kinds: Vec<Option<String>> = commands
        .iter()
        .map(|command| kind_of(command.strip_prefix("incumbent ").unwrap()))
        .collect();
    let is_it = |found: &Option<String>| found.as_deref() == Some(kind);
    let begins = |found: &Option<String>| {
        found.as_ref().is_some_and(|found| found.starts_with(&format!("{kind} ")))
    };
    let at = kinds.iter().position(is_it).or_else(|| kinds.iter().position(begins));
    match at {
        Some(at) => commands[at].clone(),
        None => panic!("no `{kind}` in {answer:#?}"),
    }
}

/// Runs a command as a person would paste it.
fn paste(sandbox: &Sandbox, command: &str) -> Answer {
    // With something behind it, so that the shell stays its parent.
    let script = format!("{command}; exit $?");
    Process::start(sandbox.shell(&script)).finish(LIMIT)
}

/// What `words` say in a shell that goes on, be it a script or the command of a `run`.
fn say_in(shell: &mut Process, sandbox: &Sandbox, words: &str) -> Answer {
    shell.say(&format!("{words} > said.txt 2> told.txt; echo $?"));
    let code: i32 = shell.line().parse().unwrap();
    let read = |name: &str| std::fs::read_to_string(sandbox.file(name)).unwrap();
    Answer { status: ExitStatus::from_raw(code << 8), out: read("said.txt"), err: read("told.txt") }
}
