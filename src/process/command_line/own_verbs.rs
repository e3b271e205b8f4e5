//! Secrets in calls of this program's own verbs.

use std::ops::Range;

use crate::process::command_line::REDACTED;

/// Removes the identities from calls of our own verbs, in an argument list or in a script.
pub(super) fn redact_own_verbs(arguments: &[String]) -> Vec<String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut redacted: Vec<String> = arguments.iter().map(|it| redact_script(it)).collect();
    for (at, keep) in identities(&words) {
        redacted[at] = format!("{}{REDACTED}", &words[at][..keep]);
    }
    redacted
}

/// The same within one argument: `sh -c 'incumbent lock acquire SCOPE ID'`. Once with quotes as a
/// shell reads them and once without: an apostrophe in a comment would hide the rest, and quotes a
/// script within the script.
fn redact_script(script: &str) -> String {
    if !script.contains("lock") || !script.contains(char::is_whitespace) {
        return script.to_owned();
    }
    redact_commands(&redact_commands(script, Quotes::Heeded), Quotes::Ignored)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Heeded,
    Ignored,
}

fn redact_commands(script: &str, quotes: Quotes) -> String {
    let mut redacted = script.to_owned();
    // From the end, so that the ranges before stay right.
    for command in commands(script, quotes).iter().rev() {
        let words: Vec<&str> = command.iter().map(|range| &script[range.clone()]).collect();
        for (at, keep) in identities(&words).into_iter().rev() {
            let range = &command[at];
            redacted.replace_range(range.start + keep..range.end, REDACTED);
        }
    }
    redacted
}

/// The commands of a script, and the words of each, roughly as a shell splits them.
fn commands(script: &str, quotes: Quotes) -> Vec<Vec<Range<usize>>> {
    let mut commands = Vec::new();
    let mut words = Vec::new();
    let (mut quote, mut start, mut escaped) = (None, None, false);
    for (at, c) in script.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if quotes == Quotes::Heeded && matches!(c, '\'' | '"') => quote = Some(c),
            None if c.is_whitespace() || matches!(c, ';' | '|' | '&') => {
                words.extend(start.take().map(|from| from..at));
                // A backslash at the end of a line goes on with it.
                if !c.is_whitespace() || (c == '\n' && !escaped) {
                    commands.push(std::mem::take(&mut words));
                }
                escaped = false;
                continue;
            }
            Some(_) | None => {}
        }
        escaped = c == '\\' && !escaped;
        if !escaped {
            start.get_or_insert(at);
        }
    }
    words.extend(start.map(|from| from..script.len()));
    commands.push(words);
    commands
}

/// Which words hold an identity in a call of ours, and how many of their bytes come before it.
fn identities(words: &[&str]) -> Vec<(usize, usize)> {
    const TAKE_A_VALUE: [&str; 10] = [
        "--pid",
        "--ttl",
        "--metadata",
        "--fence",
        "--identity-env",
        "--db",
        "--profile",
        "--kind",
        "--home",
        "--allow-filesystem",
    ];
    // `unlock` is a word of many programs; `lock acquire` is not.
    let is_us = words.iter().any(|word| word.contains("incumbent"));
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let next = words.get(at + 1).copied().unwrap_or_default();
        let (arguments, after) = match *word {
            "lock" if matches!(next, "acquire" | "renew" | "verify" | "release") => (at + 2, 1),
            "unlock" if is_us => (at + 1, 1),
            "--lock" if is_us => {
                found.extend(next.find('=').map(|equals| (at + 1, equals + 1)));
                continue;
            }
            _ => {
                let value =
                    word.strip_prefix("--lock=").filter(|_| is_us).and_then(|lock| lock.find('='));
                found.extend(value.map(|equals| (at, "--lock=".len() + equals + 1)));
                continue;
            }
        };
        let mut positionals = 0;
        let (mut skip, mut options) = (false, true);
        for (at, word) in words.iter().enumerate().skip(arguments) {
            if std::mem::take(&mut skip) {
                continue;
            }
            if options && *word == "--" {
                options = false;
            } else if options && word.starts_with("--") {
                skip = TAKE_A_VALUE.contains(word);
            } else if positionals == after {
                // `-` stands for standard input.
                found.extend((*word != "-").then_some((at, 0)));
                break;
            } else {
                positionals += 1;
            }
        }
    }
    found.sort_unstable();
    // A word that is both: the form that keeps less of it.
    found.dedup_by_key(|(at, _)| *at);
    found
}
