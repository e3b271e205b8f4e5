//! Advice that can be pasted: a command in it names the store and the office that this call was
//! about.
//!
//! A hint names only the verb, as in "`incumbent stop`". The global options that this call was
//! given are put in here, for all advice alike; what came from the environment is in the
//! environment of the person who pastes as well. A hint about another office names that with both
//! options.

use crate::environment::{Fault, planted};
use crate::path_text::quoted;

/// Verbs about the store as a whole: a profile would only narrow what they look at.
const OF_THE_STORE: [&str; 8] =
    ["doctor", "locks", "unlock", "backup", "sql", "path", "completions", "man"];

/// What a command begins with: alone, and within another one.
const BEGINNINGS: [&str; 2] = ["`incumbent ", "$(incumbent "];

/// The global options of this call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Invocation {
    /// `--db` and what else says which store.
    of_store: Vec<(&'static str, String)>,
    /// `--profile` and what else says which office.
    of_office: Vec<(&'static str, String)>,
}

impl Invocation {
    pub(super) fn of(global: &crate::cli::args::Global) -> Self {
        let mut it = Self::default();
        if let Some(db) = &global.db {
            it.of_store.push(("--db", quoted(db)));
        }
        for kind in &global.allow_filesystem {
            it.of_store.push(("--allow-filesystem", quoted(kind)));
        }
        if let Some(profile) = &global.profile {
            it.of_office.push(("--profile", quoted(profile)));
        }
        if let Some(kind) = &global.kind {
            it.of_office.push(("--kind", quoted(kind)));
        }
        if let Some(home) = &global.home {
            it.of_office.push(("--home", quoted(home)));
        }
        it
    }

    /// The same for advice about all offices of the store.
    pub(super) fn of_all_offices(mut self) -> Self {
        self.of_office.clear();
        self
    }

    /// `advice` with these options in each command of ours. An option that a command has stays as
    /// it is.
    pub(crate) fn complete(&self, advice: &str) -> String {
        let mut text = String::new();
        let mut rest = advice;
        while let Some(at) =
            BEGINNINGS.iter().filter_map(|it| Some(rest.find(it)? + it.len())).min()
        {
            let (before, command) = rest.split_at(at);
            text += before;
            text += &self.missing_in(command);
            rest = command;
        }
        text + rest
    }

    /// The same in the document of an error.
    pub(crate) fn complete_in(&self, document: &mut serde_json::Value) {
        if let Some(hint) = document.pointer_mut("/error/hint")
            && let Some(text) = hint.as_str()
        {
            *hint = self.complete(text).into();
        }
    }

    /// The options that the command with these words lacks, each followed by a blank.
    fn missing_in(&self, words: &str) -> String {
        let words = words.split(['`', ')']).next().unwrap_or_default();
        let has = |option: &str| words.split(' ').any(|word| word == option);
        let verb = verb_of(words);
        let is_of_store = OF_THE_STORE.contains(&verb);
        let of_office = self.of_office.iter().filter(|_| !is_of_store);
        // The profile and the kind name one office: those of another one do not mix with ours.
        let names_office = has("--profile") || has("--kind");
        let of_office = of_office.filter(|_| !names_office);
        let all = self.of_store.iter().chain(of_office);
        let all = all.filter(|_| !planted(Fault::HintForgetsOptions));
        all.filter(|(option, _)| !has(option) && verb != "--help")
            .fold(String::new(), |text, (option, value)| text + option + " " + value + " ")
    }
}

/// The first word that is neither an option nor the value of one.
fn verb_of(words: &str) -> &str {
    let mut words = words.split(' ');
    while let Some(word) = words.next() {
        match word {
            "--json" => {}
            "--help" => return word,
            _ if word.starts_with("--") => drop(words.next()),
            _ => return word,
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation() -> Invocation {
        Invocation {
            of_store: vec![("--db", "'/a b/x.db'".to_owned())],
            of_office: vec![("--profile", "work".to_owned()), ("--kind", "bot".to_owned())],
        }
    }

    #[test]
    fn a_command_gets_what_it_lacks() {
        for (advice, expected) in [
            ("nothing", "nothing"),
            (
                "stop it (`incumbent stop`), or `incumbent doctor --fix`",
                "stop it (`incumbent --db '/a b/x.db' --profile work --kind bot stop`), or \
                 `incumbent --db '/a b/x.db' doctor --fix`",
            ),
            ("`incumbent stop --profile a`", "`incumbent --db '/a b/x.db' stop --profile a`"),
            ("`incumbent --db y sql`", "`incumbent --db y sql`"),
            ("`sqlite3 \"$(incumbent path)\"`", "`sqlite3 \"$(incumbent --db '/a b/x.db' path)\"`"),
            ("see `incumbent --help`", "see `incumbent --help`"),
        ] {
            assert_eq!(invocation().complete(advice), expected);
            assert_eq!(Invocation::default().complete(advice), advice);
        }
    }
}
