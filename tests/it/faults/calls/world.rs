//! A store with a living owner, of each kind.

use incumbent::{Acquire, LockRequest, Store};
use rustix::process::Signal;

use crate::support::{
    Identity, LIMIT, Process, Sandbox, another_user, kill, order, plays, role_db, sleeper,
    tenure_of, test_name, wait_ended,
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

const ROLE_TEST: &str = test_name!(role_of_an_owner);
const OWNING: &str = "owning";

/// Owns an office and a lock by the library, until its standard input is closed.
#[test]
fn role_of_an_owner() {
    if !plays(OWNING) {
        return;
    }
    let store = Store::open(role_db()).unwrap();
    let tenure = tenure_of(&store, "default");
    let request = LockRequest::new("k", "k").unwrap();
    let Acquire::Granted(lock) = store.try_acquire(&request).unwrap() else {
        panic!("the lock is held");
    };
    eprintln!("=> owning");
    assert_eq!(order(), None);
    drop((lock, tenure));
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
    owner: Owner,
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
                let process = sleeper(&sandbox);
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
            other: sleeper(&sandbox),
            owner,
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
        self.answered(code == 0 && status["instance"] == instance, || {
            format!("the next status: exit code {code}: {status}")
        })
    }

    /// An answer that fits, or one of an owner that has ended while it was asked about.
    fn answered(&self, is_right: bool, said: impl FnOnce() -> String) -> Result<State, String> {
        if self.living.is_gone() {
            return Ok(State::OwnerGone);
        }
        if is_right { Ok(State::Same) } else { Err(said()) }
    }

    /// The next one who wants the office is refused by its owner. Of a killed `run` he would end
    /// the command, so nobody is sent there.
    pub fn contend(&self) -> Result<State, String> {
        if self.owner == Owner::RunKilled {
            return Ok(State::Same);
        }
        let pid = self.other.pid().to_string();
        let (code, document) = self.sandbox.json(["claim", "--no-keeper", "--pid", &pid]);
        let is_refused = code == 75 && document["holder"]["instance"] == self.instance;
        self.answered(is_refused, || format!("a contender hears: exit code {code}: {document}"))
    }

    /// Whether the next start goes well once the owner, and whoever else was recorded, is gone;
    /// what it says if not.
    pub fn start_again(&mut self) -> Result<(), String> {
        self.other.kill();
        start_again(&self.sandbox)
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

/// A start that nothing disturbs, of an office and a lock that nobody holds who lives. It waits for
/// what is just ending, and not for what was left behind.
pub fn start_again(sandbox: &Sandbox) -> Result<(), String> {
    let words = ["run", "--no-backoff", "--wait=1min", "--lock", "k=k", "--", "true"];
    let answer = sandbox.cli(words);
    if answer.code() == 0 { Ok(()) } else { Err(format!("the next start: {answer:?}")) }
}
