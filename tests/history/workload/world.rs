//! What all parts of a soak share: its directory, its log, its names, and how programs are started
//! in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::ROLE_TEST;
use crate::log::{Log, Origin, Thing};
use crate::support::set_role;

/// The directory of the soak.
pub const PLACE: &str = "INCUMBENT_TEST_PLACE";
/// The pid namespace that we are in, if it is another one than that of the harness.
const NAMESPACE: &str = "INCUMBENT_TEST_NAMESPACE";

/// The stores: the one that everything happens to, and one that others are imported into.
pub const MAIN: &str = "main";
pub const OTHER: &str = "other";

/// Profile and kind.
pub const OFFICES: [(&str, &str); 4] =
    [("home", "gateway"), ("work", "gateway"), ("play", "gateway"), ("home", "worker")];

/// A lock that somebody may want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockKind {
    pub scope: &'static str,
    pub identity: &'static str,
    pub slots: u32,
    /// One guard within a process, too.
    pub exclusive: bool,
}

const fn lock(scope: &'static str, identity: &'static str) -> LockKind {
    LockKind { scope, identity, slots: 1, exclusive: false }
}

/// The last two are for those who link the library: no verb asks for slots.
pub const LOCKS: [LockKind; 6] = [
    lock("bot", "one"),
    lock("bot", "two"),
    lock("account", "one"),
    lock("account", "two"),
    LockKind { slots: 2, ..lock("port", "one") },
    LockKind { exclusive: true, ..lock("port", "two") },
];

/// How many of them a verb can ask for.
pub const LOCKS_OF_VERBS: usize = 4;

impl LockKind {
    pub fn thing(self) -> Thing {
        Thing::Lock {
            store: MAIN.to_owned(),
            scope: self.scope.to_owned(),
            identity: self.identity.to_owned(),
            slots: self.slots,
        }
    }
}

pub fn office(number: usize) -> Thing {
    let (profile, kind) = OFFICES[number];
    Thing::Office { store: MAIN.to_owned(), profile: profile.to_owned(), kind: kind.to_owned() }
}

/// What a part is to do: each role has its own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Part {
    pub seed: u64,
    pub life_ms: u64,
    /// What is held, or asked for: of a command, the office first.
    pub things: Vec<Thing>,
    /// The call that the part belongs to.
    pub op: Option<u64>,
    /// How it behaves.
    pub conduct: String,
    /// It was handed its office by this incarnation.
    pub heir_of: Option<i64>,
    /// It executed itself, and has its witness files still.
    pub goes_on: bool,
}

/// Where a role finds its [`Part`].
const PART: &str = "INCUMBENT_TEST_PART";

impl Part {
    pub fn inherited() -> Self {
        let text = std::env::var(PART).expect("a part is started with what it is to do");
        serde_json::from_str(&text).expect("a part of ours")
    }

    /// In the environment of a program that becomes `role`, now or later.
    pub fn give(&self, command: &mut Command, role: &str) {
        set_role(command, ROLE_TEST, role);
        command.env(PART, serde_json::to_string(self).expect("plain data"));
    }
}

/// The log, as it is written; it is copied away at the end.
pub fn log_of(place: &Path) -> PathBuf {
    place.join("log")
}

/// What the parts say on their standard error.
pub fn complaints(place: &Path) -> PathBuf {
    place.join("complaints")
}

#[derive(Debug)]
pub struct World {
    pub place: PathBuf,
    pub log: Log,
    /// Where the calls of this process come from.
    pub from: Origin,
    /// Whether what we start acts for the run that we are the command of.
    acts_for_run: bool,
}

impl World {
    /// That of whoever started us.
    pub fn inherited() -> Self {
        let place: PathBuf = std::env::var_os(PLACE).expect("started by a soak").into();
        let namespace = std::env::var(NAMESPACE).ok();
        let log = Log::open(&log_of(&place));
        let log = if namespace.is_some() { log.without_pid() } else { log };
        let from = Origin { namespace, ..Origin::default() };
        Self { log, from, place, acts_for_run: false }
    }

    /// The same, of the command of a run: its verbs act for the run.
    pub fn of_run() -> Self {
        Self { acts_for_run: true, ..Self::inherited() }
    }

    /// Whether our pids are those of the harness.
    pub fn sees_pids(&self) -> bool {
        self.from.namespace.is_none()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// The disk that may be full: a directory like others where there are no mounts.
    pub fn disk(&self) -> PathBuf {
        self.file("disk")
    }

    pub fn db(&self, store: &str) -> PathBuf {
        if store == MAIN { self.disk().join("store/state.db") } else { self.file("other/state.db") }
    }

    /// A program that knows where it is.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        if !self.acts_for_run {
            for name in ["INSTANCE", "TOKEN", "PROFILE", "KIND", "HANDOVER", "PARTY"] {
                command.env_remove(format!("INCUMBENT_{name}"));
            }
        }
        command
            .env_remove("IT_ROLE")
            .env("INCUMBENT_DB", self.db(MAIN))
            .env("INCUMBENT_PROGRAM", self.file("incumbent"))
            .current_dir(&self.place);
        command
    }

    /// The same, to be started by `words`: the program comes behind them.
    pub fn under(&self, words: &[&str], program: impl AsRef<OsStr>) -> Command {
        let Some((first, rest)) = words.split_first() else { return self.program(program) };
        let mut command = self.program(first);
        command.args(rest).arg(program);
        command
    }

    /// The words that start this very program, for a role that the environment names.
    pub fn words_of_this_program(&self) -> Vec<String> {
        let program = self.file("it").to_string_lossy().into_owned();
        let words = ["--exact", ROLE_TEST, "--nocapture", "--test-threads=1"];
        std::iter::once(program).chain(words.map(str::to_owned)).collect()
    }

    pub fn role(&self, role: &str, part: &Part) -> Command {
        let words = self.words_of_this_program();
        let mut command = self.program(&words[0]);
        command.args(&words[1..]);
        part.give(&mut command, role);
        command
    }

    /// The name of a pid namespace, for all that is started in it.
    pub fn name_namespace(command: &mut Command, name: &str) {
        command.env(NAMESPACE, name);
    }
}

/// The options of the command line that name the thing's store and, for an office, the office.
pub fn place_options(world: &World, thing: &Thing) -> Vec<String> {
    let db = world.db(thing.store()).to_string_lossy().into_owned();
    let mut options = vec!["--db".to_owned(), db];
    if let Thing::Office { profile, kind, .. } = thing {
        let words = ["--profile", profile.as_str(), "--kind", kind.as_str()];
        options.extend(words.map(str::to_owned));
    }
    options
}
