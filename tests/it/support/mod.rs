//! What every integration test stands on: a directory and an environment of its own, processes that
//! do not outlive their test, and waits that have a bound and say what they waited for.

#![allow(dead_code, reason = "not every module needs every helper")]

mod barrier;
mod container;
mod disk;
mod files;
pub mod forked;
mod healthy;
mod heed;
mod namespace;
pub mod older;
mod pace;
mod pm2;
mod process;
mod random;
mod roles;
mod schema;
pub mod second_sqlite;
mod service_directory;
mod supervisord;
mod time;
mod tools;
mod untouched;
mod user_manager;
mod writer;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use incumbent::{Claim, Store, Tenure};
use rustix::process::Signal;
use serde_json::Value;

pub use barrier::*;
pub use container::*;
pub use disk::*;
pub use files::*;
pub use heed::{ignore_children, ignores_children};
pub use namespace::*;
pub use pace::*;
pub use pm2::*;
pub use process::*;
pub use random::*;
pub use roles::*;
pub use service_directory::*;
pub use supervisord::*;
pub use time::*;
pub use tools::*;
pub use untouched::*;
pub use user_manager::*;
pub use writer::*;

/// How long to wait for what ought to happen at once. Generous, because the machine may be busy
/// with other things, and a single sync of a busy disk takes seconds; a test that is about speed has a bound of its own.
/// Where a fault was planted, what it makes hang is found within a minute.
pub const LIMIT: Duration = if cfg!(feature = "planted-faults") {
    Duration::from_secs(30)
} else {
    Duration::from_mins(10)
};

/// Set in the environment of everything that a sandbox starts: how its `Drop` finds what is left.
const TAG: &str = "IT_SANDBOX";

/// A directory, a store in it, and an environment in which nothing of the caller's shows.
pub struct Sandbox {
    directory: tempfile::TempDir,
    /// Why `doctor` is not content with its store.
    sick: std::sync::OnceLock<&'static str>,
}

impl Sandbox {
    pub fn new() -> Self {
        heed::signals_of_jobs();
        let directory = tempfile::Builder::new().prefix("incumbent-it-").tempdir().unwrap();
        std::fs::create_dir(directory.path().join("home")).unwrap();
        Self { directory, sick: std::sync::OnceLock::new() }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The store that `INCUMBENT_DB` names in here; it need not exist yet.
    pub fn db(&self) -> PathBuf {
        self.file("store/state.db")
    }

    pub fn anchors(&self) -> PathBuf {
        self.file("store/state.db.anchors")
    }

    /// A program in this sandbox' environment.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let is_ours = ["INCUMBENT_", "XDG_", "IT_"].iter().any(|it| text.starts_with(it));
            // A fault that was planted is to be met by all.
            let is_ours = is_ours && text != "INCUMBENT_PLANTED_FAULT";
            // The machine of the tests may have them.
            if is_ours || ["CI", "CLICOLOR", "CLICOLOR_FORCE", "NO_COLOR"].contains(&&*text) {
                command.env_remove(&name);
            }
        }
        let mut path = Path::new(BINARY).parent().unwrap().as_os_str().to_owned();
        if let Some(rest) = std::env::var_os("PATH") {
            path.push(":");
            path.push(rest);
        }
        command
            .env(TAG, self.path())
            .env("PATH", path)
            .env("HOME", self.file("home"))
            .env("INCUMBENT_DB", self.db())
            .current_dir(self.path());
        command
    }

    /// The program under test, with arguments.
    pub fn incumbent<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.program(BINARY);
        command.args(arguments);
        command
    }

    /// A shell script; `incumbent` in it is the program under test, as in all of the sandbox.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = self.program("/bin/sh");
        command.args(["-c", script]);
        command
    }

    /// Runs the program to its end.
    pub fn cli<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Answer {
        Process::start(self.incumbent(arguments)).finish(LIMIT)
    }

    /// Runs the program with `--json` to its end.
    pub fn json<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> (i32, Value) {
        let mut command = self.incumbent(["--json"]);
        command.args(arguments);
        let answer = Process::start(command).finish(LIMIT);
        (answer.code(), answer.json())
    }

    /// `status --json` of the default office.
    pub fn status(&self) -> (i32, Value) {
        self.json(["status"])
    }

    /// Asserts what `status` says; returns the document.
    pub fn assert_status(&self, code: i32, verdict: &str, reason: &str) -> Value {
        let (got, document) = self.status();
        assert_eq!(
            (got, document["verdict"].as_str(), document["reason"].as_str()),
            (code, Some(verdict), Some(reason)),
            "status: {document:#}"
        );
        document
    }

    /// `history --json` of the default office, newest first.
    pub fn history(&self) -> Vec<Value> {
        let (code, document) = self.json(["history"]);
        assert_eq!(code, 0, "{document:#}");
        document.as_array().unwrap().clone()
    }

    /// Starts `incumbent run` with a command that lives until its standard input is closed, and
    /// returns once that command runs: the office is held.
    #[track_caller]
    pub fn hold(&self, options: &[&str]) -> Run {
        Run::start(self.incumbent([&["run", "--no-backoff"], options, HOLDING].concat()))
    }

    /// `hold`, with a command of the caller's, which has to print its pid first.
    #[track_caller]
    pub fn hold_with(&self, command: &[&str]) -> Run {
        Run::start(self.incumbent([&["run", "--no-backoff", "--"], command].concat()))
    }

    /// A copy of the program under test. Another process makes it: if we had it open for writing
    /// while a test beside us forks, executing it would fail (ETXTBSY).
    pub fn copy_program(&self, name: &str) -> PathBuf {
        let copy = self.file(name);
        let copied = Command::new("cp").arg(BINARY).arg(&copy).status().unwrap();
        assert!(copied.success());
        copy
    }

    /// A copy of this very test program, for a user who may not look into the build directory.
    pub fn copy_of_this_program(&self) -> PathBuf {
        let copy = self.file("it");
        let copied = Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&copy).status();
        assert!(copied.unwrap().success());
        copy
    }

    /// Changes the store behind everybody's back (R:ROW). Returns how many rows that touched.
    pub fn forge(&self, statement: &str) -> usize {
        let connection = rusqlite::Connection::open(self.db()).unwrap();
        connection.busy_timeout(LIMIT).unwrap();
        connection.execute(statement, []).unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    /// Everything in the store's directory: contents, inode and modification time of each file. The
    /// `-shm` is SQLite's own shared memory, in which readers leave their marks.
    pub fn picture(&self) -> BTreeMap<PathBuf, (Vec<u8>, u64, i64, i64)> {
        let mut picture = BTreeMap::new();
        let mut left = vec![self.file("store")];
        while let Some(path) = left.pop() {
            let facts = std::fs::metadata(&path).unwrap();
            let contents = if facts.is_dir() {
                left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                Vec::new()
            } else if path.to_string_lossy().ends_with("-shm") {
                continue;
            } else {
                std::fs::read(&path).unwrap()
            };
            picture.insert(path, (contents, facts.ino(), facts.mtime(), facts.mtime_nsec()));
        }
        picture
    }

    /// The pids of the keepers that processes of this sandbox started: of pairs, the first.
    pub fn keepers(&self) -> Vec<u32> {
        self.keepers_called("__keeper")
    }

    /// The second ones of the pairs.
    pub fn second_keepers(&self) -> Vec<u32> {
        self.keepers_called("__keeper-second")
    }

    /// The pair of keepers that the live row names; 0 for one that is not on record.
    pub fn keepers_on_record(&self) -> [u32; 2] {
        let of = |column: &str| {
            let query = format!(
                "SELECT coalesce(max({column}), 0) FROM instances WHERE ended_at_ms IS NULL"
            );
            u32::try_from(self.number(&query)).unwrap()
        };
        ["keeper_pid", "keeper2_pid"].map(of)
    }

    /// The same once both are at work. What starts one of them is called by its name for a moment.
    #[track_caller]
    pub fn keeper_pair(&self) -> [u32; 2] {
        eventually("two keepers", LIMIT, || {
            let pair = self.keepers_on_record();
            pair.iter().all(|pid| *pid != 0 && is_running(*pid)).then_some(pair)
        })
    }

    fn keepers_called(&self, verb: &str) -> Vec<u32> {
        let is_keeper = |pid: &u32| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == verb.as_bytes()))
        };
        tagged("IT_SANDBOX", self.path()).into_iter().filter(is_keeper).collect()
    }

    /// Kills both of every pair, so that none can start another one.
    pub fn kill_keepers(&self) {
        let all = || [self.keepers(), self.second_keepers()].concat();
        let mut stopped = Vec::new();
        // Whoever is started while we look is found by the next look.
        while all() != stopped {
            stopped = all();
            kill_all(&stopped, Signal::STOP);
        }
        kill_all(&stopped, Signal::KILL);
        assert!(stopped.iter().all(|pid| wait_ended(*pid, LIMIT)), "{stopped:?}");
    }

    /// Asks the store for one number.
    pub fn number(&self, query: &str) -> i64 {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = rusqlite::Connection::open_with_flags(self.db(), flags).unwrap();
        connection.busy_timeout(LIMIT).unwrap();
        connection
            .query_row(query, [], |row| row.get(0))
            .unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The names of the files in the anchors directory, without those that commands lock.
    pub fn anchor_names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.anchors())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.strip_suffix(".cmd").is_none())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Sandbox {
    /// Ends whatever the test left running, so that a failed one does not disturb the others; and
    /// looks whether what is left is healthy.
    fn drop(&mut self) {
        end_tagged(TAG, self.path());
        self.assert_healthy();
    }
}

/// Says its pid, and lives until its standard input is closed.
pub const STAY: &str = "echo $$; exec cat";

/// What `hold` runs.
pub const HOLDING: &[&str] = &["--", "/bin/sh", "-c", STAY];

/// An ordinary start, of a command that ends at once.
pub const START: &[&str] = &["run", "--no-backoff", "--", "true"];

/// A process that has nothing to do with anybody, and lives until its standard input is closed.
#[track_caller]
pub fn bystander(sandbox: &Sandbox) -> Process {
    let mut process = Process::start(sandbox.shell(STAY));
    process.line();
    process
}

/// Somebody to record, who does nothing, and ends when it is killed.
pub fn sleeper(sandbox: &Sandbox) -> Process {
    let mut sleep = sandbox.program("sleep");
    sleep.arg("1000");
    Process::start(sleep)
}

/// The office that a claim asked for.
#[track_caller]
pub fn granted(claim: incumbent::Result<Claim>) -> Tenure {
    match claim.unwrap() {
        Claim::Granted(tenure) => tenure,
        Claim::Held(holder) => panic!("{holder}"),
    }
}

/// Claims the office of `profile`.
#[track_caller]
pub fn tenure_of(store: &Store, profile: &str) -> Tenure {
    granted(store.profile(profile).unwrap().claim())
}

/// The fields of a document, but for its format.
pub fn keys(document: &Value) -> Vec<&str> {
    let keys = document.as_object().unwrap().keys().map(String::as_str);
    keys.filter(|key| *key != "format").collect()
}

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_incumbent");

/// Waits until `look` finds something. Looking again and again is no synchronisation by sleep: it
/// ends when the condition is there, and fails by name when it never comes.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Tells, loudly, that a test did not test anything here.
pub fn skipped(why: &str) {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    eprintln!("SKIPPED: {name}: {why}");
}

/// The number of rounds: `short` as a rule, `long` where `INCUMBENT_TEST_ROUNDS=long` asks for it.
pub fn rounds(short: usize, long: usize) -> usize {
    let rounds = match std::env::var("INCUMBENT_TEST_ROUNDS") {
        Ok(word) if word == "long" => long,
        Ok(number) if number.parse::<usize>().is_ok() => number.parse().unwrap(),
        _ => short,
    };
    eprintln!("rounds: {rounds}");
    rounds
}

/// Whether we may become other users.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether `program` is on the path.
pub fn has(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|at| at.join(program).exists()))
}
