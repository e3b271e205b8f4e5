//! A store with a living owner, of each kind.

use std::sync::mpsc::Receiver;

use incumbent::{Acquire, Claim, LockRequest, Standing, Store};
use rustix::process::Signal;

use crate::support::{
    Identity, LIMIT, Process, Sandbox, another_user, kill, plays, role_db, test_name, wait_ended,
};

/// How the living owner came to its office and its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// It links the library.
    Library,
    /// `run`; the command has another user id.
    Run,
    /// The same, and the `run` was killed: the command lives.
    RunKilled,
    /// `claim --pid`, and one of its keepers was killed.
    KeeperKilled,
    /// The same, and both were.
    KeepersKilled,
}

pub const OWNERS: [Owner; 5] =
    [Owner::Library, Owner::Run, Owner::RunKilled, Owner::KeeperKilled, Owner::KeepersKilled];

impl Owner {
    /// Which of a verb's codes is meant: how many keepers are left makes no difference.
    pub fn place(self) -> usize {
        match self {
            Self::Library => 0,
            Self::Run => 1,
            Self::RunKilled => 2,
            Self::KeeperKilled | Self::KeepersKilled => 3,
        }
    }
}

pub const ROLE_TEST: &str = test_name!(role_of_an_owner);
pub const OWNING: &str = "owning";

/// Owns an office and a lock by the library, until its standard input is closed, and asks for them.
#[test]
fn role_of_an_owner() {
    if !plays(OWNING) {
        return;
    }
    // Orders come by another thread than the one whose calls fail.
    let (orders, received) = std::sync::mpsc::channel();
    let owner = std::thread::spawn(move || own(&received));
    let mut line = String::new();
    // A read that fails says nothing about the next one.
    while !matches!(std::io::stdin().read_line(&mut line), Ok(0)) {
        if line.ends_with('\n') {
            orders.send(std::mem::take(&mut line).trim().to_owned()).unwrap();
        }
    }
    drop(orders);
    owner.join().unwrap();
}

fn own(orders: &Receiver<String>) {
    let store = Store::open(role_db()).unwrap();
    let profile = store.profile("default").unwrap();
    let Claim::Granted(tenure) = profile.claim().unwrap() else { panic!("the office is held") };
    let request = LockRequest::new("k", "k").unwrap();
    let Acquire::Granted(lock) = store.try_acquire(&request).unwrap() else {
        panic!("the lock is held");
    };
    eprintln!("=> owning");
    while let Ok(order) = orders.recv() {
        let standing = match order.as_str() {
            "verify" => tenure.verify(),
            "verify the lock" => lock.verify(),
            "renew" => lock.renew(),
            "status" => profile.status().map(|report| {
                assert_eq!(report.verdict.to_string(), "alive", "{report:?}");
                Standing::Held
            }),
            "claim again" => profile.claim().map(|claim| {
                assert!(matches!(claim, Claim::Granted(_)), "it holds it: {claim:?}");
                Standing::Held
            }),
            _ => panic!("{order}"),
        };
        match standing {
            Ok(Standing::Held) => eprintln!("=> Held"),
            Ok(Standing::Lost(lost)) => eprintln!("=> Lost: {lost:?}"),
            Err(error) => eprintln!("=> Err({:?}): {error}", error.kind()),
        }
    }
}

/// A store with a living owner of the default office and of the lock `k k`.
pub struct World {
    pub sandbox: Sandbox,
    /// What has to live; for a `run` that is its command.
    pub living: Identity,
    /// Of the pid that is on record.
    pub owner_pid: u32,
    /// Another process, for which verbs ask.
    pub other: Process,
    instance: i64,
    fence: i64,
    _processes: Vec<Process>,
}

impl World {
    pub fn new(owner: Owner) -> Self {
        let sandbox = Sandbox::new();
        let mut processes = Vec::new();
        let (living, owner_pid) = match owner {
            Owner::Library => {
                let mut process = sandbox.role(ROLE_TEST, OWNING);
                process.err_line_with("=> owning");
                let pid = process.pid();
                processes.push(process);
                (pid, pid)
            }
            Owner::Run | Owner::RunKilled => {
                let words = another_user().expect("looked for before");
                let mut command = sandbox.incumbent(["run", "--no-backoff", "--lock", "k=k", "--"]);
                command.args(words).args(["/bin/sh", "-c", "echo $$; exec sleep 600"]);
                let mut run = Process::start(command);
                let child = run.line().trim().parse().unwrap();
                let pid = run.pid();
                if owner == Owner::RunKilled {
                    run.kill();
                }
                processes.push(run);
                (child, pid)
            }
            Owner::KeeperKilled | Owner::KeepersKilled => {
                let process = sandbox.sleeper();
                let pid = process.pid();
                let words = pid.to_string();
                sandbox.cli(["claim", "--pid", &words]).assert_code(0);
                sandbox.cli(["lock", "acquire", "k", "k", "--pid", &words]).assert_code(0);
                if owner == Owner::KeepersKilled {
                    sandbox.kill_keepers();
                }
                for keeper in sandbox.keepers() {
                    kill(keeper, Signal::KILL);
                    wait_ended(keeper, LIMIT);
                }
                processes.push(process);
                (pid, pid)
            }
        };
        let status = sandbox.status().1;
        assert_eq!(status["verdict"], "alive", "{owner:?}: {status:#}");
        let world = Self {
            living: Identity::of(living).expect("it lives"),
            owner_pid,
            other: sandbox.sleeper(),
            instance: status["instance"].as_i64().unwrap(),
            fence: sandbox.number("SELECT fence FROM scoped_locks WHERE scope = 'k'"),
            _processes: processes,
            sandbox,
        };
        assert!(matches!(world.state(), Ok(State::Same)), "{owner:?}: {:?}", world.state());
        world
    }

    /// What is true of the owner, by the store's rows and by a status that nothing disturbs.
    pub fn state(&self) -> Result<State, String> {
        let rows = |condition: &str| {
            self.sandbox.number(&format!("SELECT count(*) FROM instances WHERE {condition}"))
        };
        let instance = self.instance;
        let of_office = "profile = 'default' AND kind = 'gateway'";
        let is_on_record = rows(&format!("id = {instance} AND ended_at_ms IS NULL")) == 1;
        let successors = rows(&format!("{of_office} AND id > {instance}"));
        let fence = self.fence;
        let has_lock = format!("SELECT count(*) FROM scoped_locks WHERE fence = {fence}");
        let has_lock = self.sandbox.number(&has_lock) == 1;
        let lock_holders =
            self.sandbox.number("SELECT count(*) FROM scoped_locks WHERE scope = 'k'");
        if self.living.is_gone() {
            return Ok(State::OwnerGone);
        }
        if successors > 0 {
            return Err("a second owner of the office".to_owned());
        }
        if !has_lock && lock_holders > 0 {
            return Err("a second owner of the lock".to_owned());
        }
        match (is_on_record, has_lock) {
            (false, _) => return Ok(State::RecordGone),
            (true, false) => return Ok(State::LockGone),
            (true, true) => {}
        }
        let (code, status) = self.sandbox.status();
        if code != 0 || status["instance"] != instance {
            return Err(format!("the next status: exit code {code}: {status}"));
        }
        Ok(State::Same)
    }
}

impl Sandbox {
    fn sleeper(&self) -> Process {
        let mut command = self.program("sleep");
        command.arg("600");
        Process::start(command)
    }
}

/// What became of the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Same,
    LockGone,
    RecordGone,
    OwnerGone,
}
