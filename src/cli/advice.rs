//! Advice that can be pasted: a command in it names the store and the office that this call was
//! about, and is whole.
//!
//! A hint names only the verb, as in "`incumbent stop`". The global options that this call was
//! given are put in here, for all advice alike; what came from the environment is in the
//! environment of the person who pastes as well. A hint about another office names that with both
//! options. "`incumbent run --wait -- CMD`" becomes the words of this very call, where it was a
//! `run` (or a `lock acquire`) and no word of it may be a secret; else CMD is left to the reader.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use crate::Office;
use crate::cli::args::{Global, Lock, Verb};
use crate::environment::{self, Fault, planted};
use crate::path_text::quoted;
use crate::process::redact;

/// Verbs about the store as a whole: a profile would only narrow what they look at.
const OF_THE_STORE: [&str; 9] =
    ["doctor", "locks", "unlock", "backup", "sql", "path", "completions", "man", "help"];

/// What a command begins with: alone, and within another one.
const BEGINNINGS: [&str; 2] = ["`incumbent ", "$(incumbent "];

/// The end of a command that starts a gateway, in a hint of whoever does not know which.
const CMD: &str = " -- CMD";

/// The global options that take a value, and those that do not.
const GLOBAL_WITH_VALUE: [&str; 5] =
    ["--db", "--profile", "--kind", "--home", "--allow-filesystem"];
const GLOBAL_ALONE: [&str; 2] = ["--json", "--progress"];

/// The global options of this call, and what it was.
#[derive(Clone, Debug, Default)]
pub(crate) struct Invocation {
    /// `--db` and what else says which store.
    of_store: Vec<(&'static str, String)>,
    /// `--profile` and what else says which office.
    of_office: Vec<(&'static str, String)>,
    /// What this call was, where a hint may repeat it.
    again: Option<Again>,
}

/// A call that waits for something if it is told to, without its global options. Each word is one
/// for a shell.
#[derive(Clone, Debug)]
struct Again {
    verb: &'static str,
    /// Its own options and arguments, but for the command of a `run`.
    words: Vec<String>,
    /// That command.
    command: Vec<String>,
}

impl Invocation {
    pub(super) fn of(global: &Global) -> Self {
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

    /// The same for advice about this office, which may be another one than the call named.
    pub(super) fn about(mut self, global: &Global, office: &Office) -> Self {
        if global.office().ok().as_ref() != Some(office) {
            self.of_office = vec![
                ("--profile", quoted(office.profile.as_str())),
                ("--kind", quoted(office.kind.as_str())),
            ];
        }
        self
    }

    /// The same for advice about all offices of the store.
    pub(super) fn of_all_offices(mut self) -> Self {
        self.of_office.clear();
        self
    }

    /// The same of a call that was made with these `arguments`, the program's name first.
    pub(super) fn of_call(global: &Global, verb: &Verb, arguments: &[OsString]) -> Self {
        Self { again: Again::of(verb, arguments), ..Self::of(global) }
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
            let end = command.find(['`', ')']).unwrap_or(command.len());
            let (words, after) = command.split_at(end);
            text += before;
            text += &self.missing_in(words);
            text += &self.again.as_ref().map_or_else(|| words.to_owned(), |it| it.in_full(words));
            rest = after;
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

impl Again {
    /// `None` for a call that no hint repeats, and for one with a word that may be a secret: what
    /// is told may end in a log.
    fn of(verb: &Verb, arguments: &[OsString]) -> Option<Self> {
        let it = match verb {
            Verb::Run(run) => {
                let at = arguments.len().checked_sub(run.command.len())?;
                let (ours, command) = arguments.split_at(at);
                // It would be in clear.
                if !run.lock.is_empty() {
                    return None;
                }
                let own = own_words(ours, &["run"])?;
                let command: Vec<_> =
                    command.iter().map(|word| in_clear(word)).collect::<Option<_>>()?;
                let secrets = identities_in_variables(&run.lock_env);
                if command.iter().any(|word| secrets.iter().any(|it| word.contains(it))) {
                    return None;
                }
                Self { verb: "run", words: own, command }
            }
            Verb::Lock(Lock::Acquire(acquire)) => {
                let mut own = own_words(arguments, &["lock", "acquire"])?;
                // In its place the new call reads standard input.
                if let Some(identity) = &acquire.identity.identity {
                    let at = own.iter().rposition(|word| *identity == *word.as_str())?;
                    "-".clone_into(&mut own[at]);
                }
                Self { verb: "lock acquire", words: own, command: Vec::new() }
            }
            _ => return None,
        };
        // A name of a variable may look like a secret, and is none.
        let mut to_be_shown = it.command.clone();
        let mut words = it.words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--lock-env" | "--identity-env" => drop(words.next()),
                word if word.starts_with("--lock-env=") || word.starts_with("--identity-env=") => {}
                word => to_be_shown.push(word.to_owned()),
            }
        }
        let is_plain = !to_be_shown.iter().any(|word| word.contains('`'));
        (is_plain && redact(&to_be_shown) == to_be_shown).then(|| it.quoted())
    }

    fn quoted(self) -> Self {
        let all = |words: Vec<String>| words.iter().map(quoted).collect();
        Self { words: all(self.words), command: all(self.command), ..self }
    }

    /// `run OPTIONS -- CMD` with the options and the command of this call. What waits for a lock
    /// does so as this call acquired it.
    fn in_full(&self, words: &str) -> String {
        let Some(before) = words.strip_suffix(CMD).filter(|it| verb_of(it) == "run") else {
            return words.to_owned();
        };
        if self.verb == "run" {
            let own = self.lacking_in(before);
            return format!("{before}{own} -- {}", self.command.join(" "));
        }
        match before {
            "run --wait" => format!("{} --wait{}", self.verb, self.lacking_in(before)),
            _ => words.to_owned(),
        }
    }

    /// The words of this call whose option is not in `before`, each after a blank.
    fn lacking_in(&self, before: &str) -> String {
        let name = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
        let has = |option: &str| {
            option.starts_with("--") && before.split(' ').any(|word| name(word) == option)
        };
        let mut text = String::new();
        let mut words = self.words.iter();
        while let Some(word) = words.next() {
            if has(&name(word)) {
                // The only one of those that hints name whose value may be the next word.
                if word == "--legacy-home" {
                    words.next();
                }
                continue;
            }
            text += " ";
            text += word;
        }
        text
    }
}

/// The words behind `verb`, without global options, `--`, and what a `run` adds by itself; `None`
/// for one that is not Unicode.
fn own_words(arguments: &[OsString], verb: &[&str]) -> Option<Vec<String>> {
    let mut verb = verb.iter().peekable();
    let mut own: Vec<String> = Vec::new();
    let mut words = arguments.iter().skip(1).peekable();
    while let Some(word) = words.next() {
        let word = in_clear(word)?;
        let name = word.split('=').next().unwrap_or_default();
        if GLOBAL_ALONE.contains(&name) {
            continue;
        }
        if GLOBAL_WITH_VALUE.contains(&name) {
            if name == word {
                words.next();
            }
            continue;
        }
        if name == "--known-as" {
            while words.next_if(|it| !it.to_string_lossy().starts_with('-')).is_some() {}
            continue;
        }
        match verb.peek() {
            Some(part) if **part == word => drop(verb.next()),
            Some(_) => return None,
            None if word == "--" => {}
            None => own.push(word),
        }
    }
    verb.peek().is_none().then_some(own)
}

/// What the variables of each `--lock-env SCOPE=VAR` hold.
fn identities_in_variables(lock_env: &[OsString]) -> Vec<String> {
    let variables = lock_env.iter().filter_map(|argument| argument.to_str()?.split_once('='));
    let values = variables.filter_map(|(_, variable)| environment::value(variable));
    values.map(|value| value.to_string_lossy().into_owned()).collect()
}

fn in_clear(word: &OsStr) -> Option<String> {
    word.to_str().map(str::to_owned)
}

/// Twice as long as `waited` was not enough, as an argument; a minute where it is not known.
pub(super) fn twice(waited: Option<Duration>) -> String {
    const LEAST: Duration = Duration::from_secs(1);
    let longer = waited.map_or(Duration::from_mins(1), |it| it.max(LEAST).saturating_mul(2));
    format!("{}s", longer.as_secs())
}

/// The first word that is neither an option nor the value of one.
fn verb_of(words: &str) -> &str {
    let mut words = words.split(' ');
    while let Some(word) = words.next() {
        match word {
            "--json" | "--progress" => {}
            "--help" => return word,
            _ if word.starts_with("--") => drop(words.next()),
            _ => return word,
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::Cli;

    fn invocation() -> Invocation {
        Invocation {
            of_store: vec![("--db", "'/a b/x.db'".to_owned())],
            of_office: vec![("--profile", "work".to_owned()), ("--kind", "bot".to_owned())],
            again: None,
        }
    }

    /// What a call with these words makes of `advice`.
    fn of_call(words: &[&str], advice: &str) -> String {
        let arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
        let cli = Cli::try_parse_from(&arguments).unwrap();
        Invocation::of_call(&cli.global, &cli.verb, &arguments).complete(advice)
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

    #[test]
    fn a_start_is_repeated_whole() {
        const WAIT: &str = "wait (`incumbent run --wait -- CMD`)";
        const REPLACE: &str = "`incumbent run --profile a --replace -- CMD`";
        for (words, advice, expected) in [
            (
                &["incumbent", "run", "my-gateway", "--serve", "a b"][..],
                WAIT,
                "wait (`incumbent run --wait -- my-gateway --serve 'a b'`)",
            ),
            (
                &["incumbent", "--db", "/x", "run", "--lock-env=bot-token=TOKEN", "--", "gw"][..],
                WAIT,
                "wait (`incumbent --db /x run --wait --lock-env=bot-token=TOKEN -- gw`)",
            ),
            (
                &["incumbent", "run", "--profile", "a", "--wait=5s", "-E", "3", "gw", "--db"][..],
                WAIT,
                "wait (`incumbent --profile a run --wait -E 3 -- gw --db`)",
            ),
            (
                &["incumbent", "run", "--replace", "--reap", "gw"][..],
                REPLACE,
                "`incumbent run --profile a --replace --reap -- gw`",
            ),
            // What may be a secret is not repeated.
            (&["incumbent", "run", "--lock", "s=identity", "gw"][..], WAIT, WAIT),
            (&["incumbent", "run", "gw", "--token", "123456:abc"][..], WAIT, WAIT),
            (&["incumbent", "stop"][..], WAIT, WAIT),
            (
                &["incumbent", "lock", "acquire", "s", "mine", "--pid", "7", "--wait=1s"][..],
                WAIT,
                "wait (`incumbent lock acquire --wait s - --pid 7`)",
            ),
            (
                &["incumbent", "lock", "acquire", "s", "--identity-env", "TOKEN", "--kind", "k"][..],
                WAIT,
                "wait (`incumbent --kind k lock acquire --wait s --identity-env TOKEN`)",
            ),
        ] {
            assert_eq!(of_call(words, advice), expected, "{words:?}");
        }
    }
}
