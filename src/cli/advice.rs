//! Advice that can be pasted: a command in it names the store and the office that this call was
//! about, and is whole.
//!
//! A hint names only the verb, as in "`incumbent stop`". The global options that this call was
//! given are put in here, for all advice alike; what came from the environment is in the
//! environment of the person who pastes as well, unless a `run` or a supervisor has set it. A hint
//! about another office names that with both options. "`incumbent run --wait -- CMD`" becomes the
//! words of this very call, where it was a `run` (or a `lock acquire`). All of its options are
//! there: a start without its lock would do harm. Where a word of the command may be a secret, CMD
//! is left to the reader.

use std::ffi::OsString;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use crate::Office;
use crate::cli::args::{Cli, Global, Lock, Verb};
use crate::environment::{self, Fault, planted};
use crate::exit::Supervisor;
use crate::path_text::quoted;
use crate::process::redact;
use crate::sys::supervise;

/// Verbs about the store as a whole: a profile would only narrow what they look at.
const OF_THE_STORE: [&str; 9] =
    ["doctor", "locks", "unlock", "backup", "sql", "path", "completions", "man", "help"];

/// What a command begins with: alone, and within another one.
const BEGINNINGS: [&str; 2] = ["`incumbent ", "$(incumbent "];

/// The end of a command that starts a gateway, in a hint of whoever does not know which.
const CMD: &str = " -- CMD";

/// What stands on record in the place of a secret.
const REDACTED: &str = "<redacted>";

/// So many words of a command line are on record at most, and so much of each: one that is cut ends
/// in three dots.
const RECORDED_MAX: usize = 64;
const RECORDED_LENGTH: usize = 290;

/// Options of a start that is to take somebody's place.
const OF_REPLACE: [&str; 4] = ["--replace", "--force", "--reap", "--cross-home"];

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
    again: Option<Call>,
}

/// A call that waits for something if it is told to. It is looked at only where a hint repeats it.
#[derive(Clone, Debug)]
struct Call {
    verb: &'static [&'static str],
    /// The program's name, and what is its own: options and arguments.
    ours: Vec<OsString>,
    /// The command of a `run`.
    command: Vec<OsString>,
    /// The identities that it locks.
    identities: Vec<String>,
    /// It is on record, and has ended: there is nobody to be replaced.
    is_over: bool,
    /// Whether the words of the command are all that there were.
    is_whole: bool,
}

/// How a hint repeats a call, without its global options.
struct Again {
    verb: String,
    /// Its own options and arguments, but for the command of a `run`.
    own: Vec<Part>,
    /// That command, for a shell; CMD where a word of it may be a secret.
    command: String,
    /// The variables that stand for identities.
    variables: Vec<String>,
}

/// An option or an argument of a call, as it was typed.
struct Part {
    /// `--wait`; empty for an argument.
    option: String,
    /// What stands between the option and its value.
    glue: &'static str,
    value: Option<String>,
    /// What stands for a value that is not shown, as in the help.
    placeholder: String,
}

impl Invocation {
    pub(super) fn of(global: &Global) -> Self {
        let mut it = Self::default();
        if let Some(db) = global.db.clone().or_else(|| elsewhere(environment::DB).map(Into::into)) {
            it.of_store.push(("--db", quoted(db)));
        }
        for kind in &global.allow_filesystem {
            it.of_store.push(("--allow-filesystem", quoted(kind)));
        }
        let profile = || elsewhere(environment::PROFILE)?.into_string().ok();
        if let Some(profile) = global.profile.clone().or_else(profile) {
            it.of_office.push(("--profile", quoted(profile)));
        }
        if let Some(kind) = &global.kind {
            it.of_office.push(("--kind", quoted(kind)));
        }
        let home = || elsewhere(environment::HOME).map(Into::into);
        if let Some(home) = global.home.clone().or_else(home) {
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

    /// The same where a start is advised of what was started with these words, which are on record
    /// without what looks like a secret. Where a word of the command is missing, or its program is
    /// not found from here, CMD is left to the reader: a start that fails would hide how the last
    /// one ended.
    pub(super) fn started_as(mut self, argv: &[String]) -> Self {
        let Ok(cli) = Cli::try_parse_from(argv) else { return self };
        let Verb::Run(run) = &cli.verb else { return self };
        let Some(at) = argv.len().checked_sub(run.command.len()) else { return self };
        let (ours, command) = argv.split_at(at);
        let Some(program) = command.first().filter(|_| !ours.iter().any(|word| is_cut(word)))
        else {
            return self;
        };
        // A script of many lines is nothing for a hint.
        let is_whole = argv.len() < RECORDED_MAX
            && !command.iter().any(|word| is_cut(word) || word.contains(char::is_control))
            && supervise::find_program(program.as_ref()).is_ok();
        let words: Vec<OsString> = argv.iter().map(OsString::from).collect();
        let call = Call::of(&cli.verb, &words);
        self.again = call.map(|call| Call { is_over: true, is_whole, ..call });
        let home = cli.global.home.filter(|home| home.to_str().is_some_and(|it| !is_hidden(it)));
        if let Some(home) = home.filter(|_| !self.of_office.iter().any(|(it, _)| *it == "--home")) {
            self.of_office.push(("--home", quoted(home)));
        }
        self
    }

    /// The same of a call that was made with these `arguments`, the program's name first.
    pub(super) fn of_call(global: &Global, verb: &Verb, arguments: &[OsString]) -> Self {
        Self { again: Call::of(verb, arguments), ..Self::of(global) }
    }

    /// `advice` with these options in each command of ours. An option that a command has stays as
    /// it is.
    pub(crate) fn complete(&self, advice: &str) -> String {
        let mut text = String::new();
        let mut rest = advice;
        let is_repeated = advice.contains(CMD);
        let again = self.again.as_ref().filter(|_| is_repeated).and_then(Call::again);
        let mut explained = false;
        while let Some(at) =
            BEGINNINGS.iter().filter_map(|it| Some(rest.find(it)? + it.len())).min()
        {
            let (before, command) = rest.split_at(at);
            let end = command.find(['`', ')']).unwrap_or(command.len());
            let (words, after) = command.split_at(end);
            text += before;
            text += &self.missing_in(words);
            rest = after;
            let Some((again, whole)) = again.as_ref().and_then(|it| Some((it, it.in_full(words)?)))
            else {
                text += words;
                continue;
            };
            text += &whole;
            if let Some(after) = after.strip_prefix('`').filter(|_| !explained) {
                text += "`";
                text += &again.explained();
                explained = true;
                rest = after;
            }
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

impl Call {
    /// `None` for one that no hint repeats.
    fn of(verb: &Verb, arguments: &[OsString]) -> Option<Self> {
        match verb {
            Verb::Run(run) => {
                let at = arguments.len().checked_sub(run.command.len())?;
                let (ours, command) = arguments.split_at(at);
                let given = run.lock.iter().filter_map(|it| it.to_str()?.split_once('='));
                let given = given.map(|(_, identity)| identity.to_owned());
                let identities = given.chain(identities_in_variables(&run.lock_env));
                Some(Self {
                    verb: &["run"],
                    ours: ours.to_vec(),
                    command: command.to_vec(),
                    identities: identities.filter(|it| !it.is_empty()).collect(),
                    is_over: false,
                    is_whole: true,
                })
            }
            Verb::Lock(Lock::Acquire(_)) => Some(Self {
                verb: &["lock", "acquire"],
                ours: arguments.to_vec(),
                command: Vec::new(),
                identities: Vec::new(),
                is_over: false,
                is_whole: true,
            }),
            _ => None,
        }
    }

    /// All of its own options, always: a start without its `--lock` would do harm. What is told may
    /// end in a log, so another word stands for what may be a secret.
    fn again(&self) -> Option<Again> {
        let mut own = self.own_parts()?;
        own.retain(|part| !self.is_over || !OF_REPLACE.contains(&part.option.as_str()));
        let mut variables = Vec::new();
        let mut arguments = 0;
        for part in &mut own {
            if part.option.is_empty() {
                arguments += 1;
                // In the place of an identity the new call reads standard input.
                if arguments == 2 {
                    part.value = Some("-".to_owned());
                    continue;
                }
            }
            if part.option == "--lock" {
                let variable = match variables.len() {
                    0 => "VAR".to_owned(),
                    before => format!("VAR{}", before + 1),
                };
                let scope = part.value.as_deref().unwrap_or_default().split('=').next();
                part.value = Some(format!("{}={variable}", scope.unwrap_or_default()));
                "--lock-env".clone_into(&mut part.option);
                variables.push(variable);
            } else if self.may_tell(part) {
                part.value = Some(part.placeholder.clone());
            }
        }
        let command: Vec<String> = self.command.iter().map(in_words).collect();
        let is_shown = self.is_whole
            && redact(&command) == command
            && !command.iter().any(|it| self.is_hidden(it));
        let command = if is_shown {
            command.iter().map(quoted).collect::<Vec<_>>().join(" ")
        } else {
            "CMD".to_owned()
        };
        Some(Again { verb: self.verb.join(" "), own, command, variables })
    }

    /// Whether the value of an option, or an argument, may be a secret.
    fn may_tell(&self, part: &Part) -> bool {
        // A name of a variable may look like a secret, and is none.
        let is_name = ["--lock-env", "--identity-env"].contains(&part.option.as_str());
        let Some(value) = part.value.as_ref().filter(|it| !it.is_empty()) else { return false };
        let words = [part.option.clone(), value.clone()];
        let words = if part.option.is_empty() { &words[1..] } else { &words[..] };
        self.is_hidden(value) || !is_name && redact(words) != words
    }

    /// Whether a word has an identity in it, or cannot stand in a hint.
    fn is_hidden(&self, word: &str) -> bool {
        is_hidden(word) || self.identities.iter().any(|it| word.contains(it.as_str()))
    }

    /// Without global options, `--`, and what a `run` adds by itself. `None` where a word is not
    /// understood.
    fn own_parts(&self) -> Option<Vec<Part>> {
        let mut program = Cli::command();
        // The options of a verb are made when it is met, or by this.
        program.build();
        let mut syntax = &program;
        for name in self.verb {
            syntax = syntax.find_subcommand(name)?;
        }
        let mut verb = self.verb.iter().peekable();
        let mut own: Vec<Part> = Vec::new();
        let mut arguments = syntax.get_positionals();
        let mut are_options = true;
        let mut words = self.ours.iter().skip(1).map(in_words).peekable();
        while let Some(word) = words.next() {
            let name = word.split('=').next().unwrap_or_default();
            let of_all = |options: &[&str]| are_options && options.contains(&name);
            if of_all(&GLOBAL_ALONE) {
                continue;
            }
            if of_all(&GLOBAL_WITH_VALUE) {
                if name == word {
                    words.next();
                }
                continue;
            }
            if of_all(&["--known-as"]) {
                while words.next_if(|it| !it.starts_with('-')).is_some() {}
                continue;
            }
            if of_all(&["--"]) {
                are_options = false;
                continue;
            }
            match verb.peek() {
                Some(part) if **part == word => {
                    verb.next();
                    continue;
                }
                Some(_) => return None,
                None => {}
            }
            own.push(match option(syntax, &word).filter(|_| are_options) {
                Some((argument, length)) => {
                    let takes_next =
                        argument.get_action().takes_values() && !argument.is_require_equals_set();
                    let (option, rest) = word.split_at(length);
                    let (glue, value) = match rest.strip_prefix('=') {
                        Some(value) => ("=", Some(value.to_owned())),
                        None if !rest.is_empty() => ("", Some(rest.to_owned())),
                        None if takes_next => (" ", words.next()),
                        None => ("", None),
                    };
                    let placeholder = placeholder(Some(argument));
                    Part { option: option.to_owned(), glue, value, placeholder }
                }
                // Of an option that is not known nobody knows which words are its own: one of them
                // may be an identity.
                None if are_options && word.len() > 1 && word.starts_with('-') => return None,
                None => Part {
                    option: String::new(),
                    glue: "",
                    placeholder: placeholder(arguments.next()),
                    value: Some(word),
                },
            });
        }
        verb.peek().is_none().then_some(own)
    }
}

/// The option that a word begins with, and how long that part of it is.
fn option<'a>(syntax: &'a clap::Command, word: &str) -> Option<(&'a clap::Arg, usize)> {
    let mut all = syntax.get_arguments();
    if let Some(long) = word.strip_prefix("--") {
        let long = long.split('=').next().unwrap_or_default();
        return all.find(|it| it.get_long() == Some(long)).map(|it| (it, "--".len() + long.len()));
    }
    let short = word.strip_prefix('-')?.chars().next()?;
    all.find(|it| it.get_short() == Some(short)).map(|it| (it, "-".len() + short.len_utf8()))
}

fn placeholder(argument: Option<&clap::Arg>) -> String {
    let name = argument.and_then(|it| it.get_value_names()?.first());
    name.map_or_else(|| "VALUE".to_owned(), ToString::to_string)
}

/// What is not Unicode has a character in it that says so.
fn in_words(word: &OsString) -> String {
    word.to_string_lossy().into_owned()
}

impl Again {
    /// `run OPTIONS -- CMD` with the options and the command of this call. What waits for a lock
    /// does so as this call acquired it.
    fn in_full(&self, words: &str) -> Option<String> {
        let before = words.strip_suffix(CMD).filter(|it| verb_of(it) == "run")?;
        if self.verb == "run" {
            return Some(format!("{before}{} -- {}", self.lacking_in(before), self.command));
        }
        let waits = before == "run --wait";
        waits.then(|| format!("{} --wait{}", self.verb, self.lacking_in(before)))
    }

    /// The parts of this call whose option is not in `before`, each after a blank.
    fn lacking_in(&self, before: &str) -> String {
        let has = |option: &str| {
            !option.is_empty()
                && before.split(' ').any(|word| word.split('=').next() == Some(option))
        };
        let lacking = self.own.iter().filter(|part| !has(&part.option));
        lacking.fold(String::new(), |text, part| text + " " + &part.for_a_shell())
    }

    /// What stands for the identities that are not repeated.
    fn explained(&self) -> String {
        match self.variables.as_slice() {
            [] => String::new(),
            [one] => format!(" (with the identity in the variable {one})"),
            all => format!(" (with the identities in the variables {})", all.join(", ")),
        }
    }
}

impl Part {
    fn for_a_shell(&self) -> String {
        let value = self.value.as_ref().map(quoted).unwrap_or_default();
        format!("{}{}{value}", self.option, self.glue)
    }
}

/// Whether a word cannot stand in a hint, or was taken out of what is on record.
fn is_hidden(word: &str) -> bool {
    word.contains(['`', char::REPLACEMENT_CHARACTER]) || word.contains(REDACTED)
}

/// Whether the end of a word may be missing on record.
fn is_cut(word: &str) -> bool {
    word.len() >= RECORDED_LENGTH && word.ends_with("...")
}

/// The variable `name`, where whoever reads our words in a log has another environment: what a
/// `run` sets for its command, and a supervisor for its service, is in nobody's shell.
fn elsewhere(name: &str) -> Option<OsString> {
    let value = environment::value(name)?;
    let is_elsewhere = environment::value(environment::INSTANCE).is_some()
        || Supervisor::of_this_process() != Supervisor::None;
    is_elsewhere.then_some(value)
}

/// What the variables of each `--lock-env SCOPE=VAR` hold.
fn identities_in_variables(lock_env: &[OsString]) -> Vec<String> {
    let variables = lock_env.iter().filter_map(|argument| argument.to_str()?.split_once('='));
    let values = variables.filter_map(|(_, variable)| environment::value(variable));
    values.map(|value| value.to_string_lossy().into_owned()).collect()
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
    use super::*;

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

    /// What `advice` becomes where a gateway was started with `words` and has ended.
    fn of_record(words: &[&str], advice: &str) -> String {
        let argv: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Invocation::default().started_as(&redact(&argv)).complete(advice)
    }

    #[cfg(unix)]
    #[test]
    fn a_start_that_is_on_record_is_advised_again() {
        const START: &str = "start it: `incumbent run -- CMD`";
        let long = "x".repeat(400);
        for (words, expected) in [
            (
                &["incumbent", "--db", "/x", "run", "--quiet", "--", "/bin/sh", "-c", "a b"][..],
                "start it: `incumbent run --quiet -- /bin/sh -c 'a b'`",
            ),
            (
                &["incumbent", "run", "--replace", "--reap", "--force", "--home", "/h", "sh"],
                "start it: `incumbent --home /h run -- sh`",
            ),
            // Without what may be a secret, or a part of it.
            (&["incumbent", "run", "--", "sh", "--token", "12:ab"], START),
            (&["incumbent", "run", "--", "sh", &long], START),
            (&["incumbent", "run", "--", "sh", "`id`"], START),
            (
                &["incumbent", "run", "--lock", "s=<redacted>", "--", "sh"],
                "start it: `incumbent run --lock-env s=VAR -- sh` (with the identity in the \
                 variable VAR)",
            ),
            (&["incumbent", "run", "--lock", "s=abc", "--", "sh", "<redacted>"], {
                "start it: `incumbent run --lock-env s=VAR -- CMD` (with the identity in the \
                 variable VAR)"
            }),
            (&["incumbent", "run", "--", "sh", "-c", "a\nb"], START),
            // What would not be found, and what is no `run`.
            (
                &["incumbent", "run", "--quiet", "--", "/no/such/gateway"],
                "start it: `incumbent run --quiet -- CMD`",
            ),
            (&["incumbent", "run", "--", "no-such-gateway"], START),
            (&["incumbent", "stop"], START),
            (&["python3", "bot.py"], START),
            (&[], START),
        ] {
            assert_eq!(of_record(words, START), expected, "{words:?}");
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
            // What may be a secret is not repeated; all else is, the locks above all.
            (
                &["incumbent", "run", "--lock", "s=identity", "--quiet", "gw"][..],
                WAIT,
                "wait (`incumbent run --wait --lock-env s=VAR --quiet -- gw` (with the identity in \
                 the variable VAR))",
            ),
            (
                &["incumbent", "run", "--lock=s=a1", "--lock", "t=b2", "gw", "--b2"][..],
                WAIT,
                "wait (`incumbent run --wait --lock-env=s=VAR --lock-env t=VAR2 -- CMD` (with the \
                 identities in the variables VAR, VAR2))",
            ),
            (
                &["incumbent", "run", "-E3", "gw", "--token", "123456:abc"][..],
                WAIT,
                "wait (`incumbent run --wait -E3 -- CMD`)",
            ),
            (
                &["incumbent", "run", "--on-end", "curl -d token=123456:abc x", "gw"][..],
                WAIT,
                "wait (`incumbent run --wait --on-end LINE -- gw`)",
            ),
            (&["incumbent", "stop"][..], WAIT, WAIT),
            (
                &["incumbent", "lock", "acquire", "s", "mine", "--pid", "7", "--wait=1s"][..],
                WAIT,
                "wait (`incumbent lock acquire --wait s - --pid 7`)",
            ),
            // The word that is the identity, and no other one that is the same.
            (
                &["incumbent", "lock", "acquire", "s", "7", "--pid", "7"][..],
                WAIT,
                "wait (`incumbent lock acquire --wait s - --pid 7`)",
            ),
            (
                &["incumbent", "lock", "acquire", "--pid=7", "--", "s", "-7"][..],
                WAIT,
                "wait (`incumbent lock acquire --wait --pid=7 s -`)",
            ),
            (
                &["incumbent", "lock", "acquire", "s", "--identity-env", "TOK", "--kind", "k"][..],
                WAIT,
                "wait (`incumbent --kind k lock acquire --wait s --identity-env TOK`)",
            ),
        ] {
            assert_eq!(of_call(words, advice), expected, "{words:?}");
        }
    }
}
