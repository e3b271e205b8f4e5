//! Takes known secrets out of a command line.

use crate::environment::{Fault, planted};
use crate::names::Secret;
use crate::process::command_line::REDACTED;
use crate::process::command_line::redact;

/// A command line as it was read, for redacting it anew. It hides from `{:?}`.
#[derive(Clone, Default)]
pub(crate) struct Raw(Vec<String>);

impl Raw {
    pub(crate) fn new(arguments: Vec<String>) -> Self {
        Self(arguments)
    }

    /// Whether none of these identities stands in it anywhere.
    pub(crate) fn is_free_of(&self, secrets: &[&Secret]) -> bool {
        let has = |secret: &&Secret| self.0.iter().any(|it| it.contains(secret.as_str()));
        !secrets.iter().any(has)
    }

    /// Redacted, and without these identities: they are looked for before anything is cut.
    pub(crate) fn redacted(&self, secrets: &[&Secret]) -> Vec<String> {
        redact::redact(&mask(&self.0, secrets))
    }
}

impl Raw {
    /// The words in it that `is_identity` knows: whole arguments, and parts of them as they stand
    /// in assignments, options and scripts.
    pub(crate) fn find(&self, is_identity: &dyn Fn(&str) -> bool) -> Vec<Secret> {
        const WORDS_MAX: usize = 1_000;
        let words = self.0.iter().flat_map(|argument| {
            let by_blanks = argument.split(char::is_whitespace);
            let of_assignments = argument.split(|c: char| {
                c.is_whitespace()
                    || matches!(c, '=' | '"' | '\'' | ',' | ';' | '(' | ')' | '&' | '`')
            });
            // As it stands in a sentence.
            let bare = argument
                .split(char::is_whitespace)
                .map(|word| word.trim_matches(|c: char| c.is_ascii_punctuation()));
            // Of a path or an address; Telegram's have the token behind a word.
            let of_paths = argument
                .split(|c: char| {
                    c.is_whitespace()
                        || matches!(c, '/' | '?' | '#' | '@' | '=' | '&' | '"' | '\'' | ',' | ')')
                })
                .flat_map(|part| [part, part.strip_prefix("bot").unwrap_or_default()]);
            std::iter::once(argument.as_str())
                .chain(by_blanks)
                .chain(of_assignments)
                .chain(bare)
                .chain(of_paths)
        });
        let words = words.filter(|word| !word.is_empty()).take(WORDS_MAX);
        words.filter(|word| is_identity(word)).map(|word| Secret::of(word.as_bytes())).collect()
    }
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Raw(..)")
    }
}

/// Removes from a command line the identities that are being locked: one need not look like
/// a secret to be one.
#[must_use]
pub(crate) fn mask(arguments: &[String], secrets: &[&Secret]) -> Vec<String> {
    if planted(Fault::IdentitiesKept) {
        return arguments.to_vec();
    }
    let masked = |argument: &String| {
        secrets.iter().fold(argument.clone(), |text, secret| mask_one(&text, secret.as_str()))
    };
    arguments.iter().map(masked).collect()
}

fn mask_one(text: &str, secret: &str) -> String {
    /// A shorter one may be part of any word by chance, and is masked only where it is a word.
    const LENGTH_ANYWHERE: usize = 8;

    let is_of_a_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(secret).filter(|_| !secret.is_empty()) {
        let (before, found) = rest.split_at(at);
        let after = &found[secret.len()..];
        let is_word = !is_of_a_word(before.chars().next_back().or(masked.chars().next_back()))
            && !is_of_a_word(after.chars().next());
        masked.push_str(before);
        masked.push_str(if is_word || secret.len() >= LENGTH_ANYWHERE { REDACTED } else { secret });
        rest = after;
    }
    masked + rest
}

/// The live command line `live`, without what is redacted in the `recorded` one: what was known to
/// be a secret then does not look like one now.
#[must_use]
pub(crate) fn redact_alike(live: &[String], recorded: &[String]) -> Vec<String> {
    let is_alike = |live: &str, recorded: &str| {
        let parts: Vec<&str> = recorded.split(REDACTED).collect();
        let [first, middle @ .., last] = parts.as_slice() else { return false };
        let Some(mut rest) = live.strip_prefix(first).and_then(|rest| rest.strip_suffix(last))
        else {
            return false;
        };
        middle.iter().all(|part| match rest.split_once(*part) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    };
    live.iter()
        .enumerate()
        .map(|(index, live)| match recorded.get(index) {
            Some(recorded) if is_alike(live, recorded) => recorded.clone(),
            Some(_) | None => live.clone(),
        })
        .collect()
}
