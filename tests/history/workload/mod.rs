//! The workload: real processes that do random things to one store, and a nemesis that hurts them.
//!
//! Three kinds of processes. The test ([`soak`]) owns the directory and cleans up, whatever happens
//! to the rest. The harness is a process of its own (`harness`): the parent of all others, in
//! mounts of its own, so that its disk goes with it. Everything else plays a part (`roles`) or is
//! the program under test. They share one directory (`world`), and each writes to one log.
//!
//! The seed decides what is done to whom; when, the machine decides.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a soak lives in real time and a real environment")]

mod actors;
mod answers;
mod caller;
mod deaths;
mod draw;
mod harness;
mod last_look;
mod nemesis;
mod operations;
mod places;
mod reaper;
mod roles;
mod sqlite;
mod weather;
mod witness;
mod world;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::log::{self, Answer, Call, Hurt, Phase, What};
use crate::support::{
    Process, Sandbox, end_tagged, eventually, mount_namespace, role, set_mode, set_role, test_name,
};

/// The test that plays every part: it returns at once where there is none to play.
const ROLE_TEST: &str = test_name!(role_of_the_workload);

/// More than the slowest end of a soak takes, of which each wait has a bound of its own.
const ENDS_WITHIN: Duration = Duration::from_mins(10);

/// How long a soak takes, and what decides about it.
#[derive(Clone, Debug)]
pub struct Soak {
    pub length: Duration,
    pub seed: u64,
    /// Where the log goes; written anew.
    pub log: PathBuf,
}

/// What happened, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Calls that were begun.
    pub operations: usize,
    /// SIGKILLs of the nemesis.
    pub kills: usize,
    /// All that the nemesis did.
    pub faults: usize,
    /// Commands that were started again by `restart`.
    pub restarts: usize,
    /// What could not be done here, and why.
    pub skipped: Vec<String>,
}

/// What the test tells the harness.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    length_ms: u64,
    seed: u64,
    /// The control group for those who are frozen.
    freezer: Option<PathBuf>,
}

/// Where the harness finds its [`Order`].
const ORDER: &str = "INCUMBENT_TEST_ORDER";

/// Plays the part that the environment names.
#[test]
fn role_of_the_workload() {
    if let Some(part) = role() {
        roles::play(&part);
    }
}

/// Lets it all happen, and cleans up. The log is complete when this returns, or panics.
///
/// # Panics
/// Where something hung, or a part of the workload itself failed.
pub fn soak(how: &Soak) -> Figures {
    let sandbox = Sandbox::new();
    // Others have to get at what is in it: a command may be another user's.
    set_mode(sandbox.path(), 0o755);
    sandbox.copy_program("incumbent");
    sandbox.copy_of_this_program();
    let freezer = nemesis::freezer::place();
    let _remains = Remains { place: sandbox.path(), log: &how.log, freezer: freezer.clone() };
    let _ = std::fs::remove_file(&how.log);
    let mut skipped = Vec::new();
    let order = Order {
        length_ms: u64::try_from(how.length.as_millis()).unwrap_or(u64::MAX),
        seed: how.seed,
        freezer,
    };
    let mut harness = start(&sandbox, &order);
    while let Some(line) = harness.err_line_with_or_end("") {
        eprintln!("{line}");
        if line.starts_with("SKIPPED: ") {
            skipped.push(line);
        }
    }
    let status = harness.wait(ENDS_WITHIN);
    let complaints = std::fs::read_to_string(world::complaints(sandbox.path())).unwrap_or_default();
    assert!(status.success(), "the harness ended with {status}; its parts said: {complaints}");
    assert!(!complaints.contains("panicked at"), "a part of the workload failed: {complaints}");
    drop(harness);
    copy_log(sandbox.path(), &how.log);
    Figures { skipped, ..count(&how.log) }
}

/// The harness, with a disk of its own where that can be.
fn start(sandbox: &Sandbox, order: &Order) -> Process {
    const ON_A_DISK: &str = "mkdir -p disk && mount -t tmpfs -o size=96m,mode=755 t disk || exit 99
        exec \"$@\"";
    let mut command = match mount_namespace() {
        Some(words) => {
            let mut command = sandbox.within(words);
            command.args(["/bin/sh", "-c", ON_A_DISK, "sh"]).arg(sandbox.file("it"));
            command
        }
        None => sandbox.program(sandbox.file("it")),
    };
    command.args(["--exact", ROLE_TEST, "--nocapture", "--test-threads=1"]);
    set_role(&mut command, ROLE_TEST, roles::HARNESS);
    command
        .env("IT_PROGRAM", sandbox.file("it"))
        .env(ORDER, serde_json::to_string(order).unwrap())
        .env(world::PLACE, sandbox.path());
    Process::start(command)
}

fn copy_log(place: &Path, to: &Path) {
    if let Err(error) = std::fs::copy(world::log_of(place), to) {
        eprintln!("{}: {error}", to.display());
    }
}

fn count(path: &Path) -> Figures {
    let mut figures = Figures::default();
    let mut restarts = Vec::new();
    for record in log::read(path).records {
        match record.what {
            What::Begin { op, call, .. } => {
                figures.operations += 1;
                if matches!(call, Call::Restart { .. }) {
                    restarts.push(op);
                }
            }
            What::End { op, answer: Answer::Yes } if restarts.contains(&op) => {
                figures.restarts += 1;
            }
            What::Fault { phase: Phase::Begin, hurt, .. } => {
                figures.faults += 1;
                let is_kill = matches!(hurt, Hurt::Signal { signal: libc::SIGKILL, .. });
                figures.kills += usize::from(is_kill);
            }
            _ => {}
        }
    }
    figures
}

/// Whatever became of the soak: the log is kept, and nothing else stays. The sandbox ends the
/// processes that are left when it is dropped; here the frozen ones among them are thawed before.
struct Remains<'a> {
    place: &'a Path,
    log: &'a Path,
    freezer: Option<PathBuf>,
}

impl Drop for Remains<'_> {
    fn drop(&mut self) {
        if !self.log.exists() {
            copy_log(self.place, self.log);
        }
        let Some(group) = &self.freezer else { return };
        if !group.exists() {
            return;
        }
        nemesis::freezer::thaw(group);
        end_tagged("IT_SANDBOX", self.place);
        let remove = || std::fs::remove_dir(group).is_ok().then_some(());
        if std::thread::panicking() {
            let _ = remove();
        } else {
            eventually("the removal of the control group", ENDS_WITHIN, remove);
        }
    }
}
