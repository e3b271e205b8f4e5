//! A store before somebody acts on it, and what holds of it afterwards.

use super::answers::document;
use super::world::start_again;
use crate::support::{LIMIT, Process, Sandbox, sleeper};

/// What is there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// No store.
    Nothing,
    /// A store in which nobody holds anything.
    Free,
    /// The office and the lock `k k` are on record for a `run` that was killed with its command.
    Dead,
    /// The other process holds both.
    Held,
    /// And has a marker `word`.
    Marked,
}

/// What holds once it was said to be done, as somebody finds who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// The command ran, once.
    Ran,
    /// The other process holds the office, and no contender gets it.
    Office,
    NoOffice,
    /// It holds the lock `k k`, and no contender gets that.
    Lock,
    NoLock,
    Marker,
    NoMarker,
    /// It says that it is draining.
    Draining,
    /// The profile is to stay stopped.
    Desired,
}

pub struct Scene {
    pub sandbox: Sandbox,
    /// For whom verbs ask.
    pub other: Process,
}

impl Scene {
    /// The command that leaves a word.
    pub const RAN: &str = "echo ran >>ran";

    pub fn new(before: Before) -> Self {
        let sandbox = Sandbox::new();
        let other = sleeper(&sandbox);
        let scene = Self { sandbox, other };
        let pid = scene.other.pid().to_string();
        let done = |words: &[&str]| drop(scene.sandbox.cli(words).assert_code(0));
        match before {
            Before::Nothing => {}
            Before::Free => done(&["run", "--no-backoff", "--", "true"]),
            Before::Dead => {
                // It is killed by its own command, so nobody records the end.
                let script = "incumbent run --no-backoff --lock k=k -- sh -c 'kill -KILL $PPID'; :";
                Process::start(scene.sandbox.shell(script)).finish(LIMIT);
            }
            Before::Held | Before::Marked => {
                done(&["claim", "--pid", &pid]);
                done(&["lock", "acquire", "k", "k", "--pid", &pid]);
                if before == Before::Marked {
                    done(&["marker", "write", "word", "--ttl", "1h", "--pid", &pid]);
                }
            }
        }
        scene
    }

    /// Whether somebody who looks finds that it is so.
    pub fn keeps(&self, promise: Promise) -> bool {
        let pid = self.other.pid().to_string();
        let code = |words: &[&str]| self.sandbox.cli(words).code();
        match promise {
            Promise::Ran => self.times_run() == 1,
            Promise::Office => {
                let (_, status) = self.sandbox.status();
                status["verdict"] == "alive"
                    && status["pid"] == self.other.pid()
                    && code(&["run", "--no-backoff", "--", "true"]) == 75
            }
            // A dead owner holds nothing either: the row has ended as well.
            Promise::NoOffice => {
                code(&["status"]) == 3 && self.sandbox.number("SELECT count(*) FROM gateways") == 0
            }
            Promise::Lock => {
                let contend = "--profile contender run --no-backoff --lock k=k -- true";
                code(&["lock", "verify", "k", "k", "--pid", &pid]) == 0
                    && code(&contend.split(' ').collect::<Vec<_>>()) == 75
            }
            Promise::NoLock => {
                let answer = self.sandbox.cli(["--json", "locks"]);
                document(&answer.out).is_some_and(|locks| locks == serde_json::json!([]))
            }
            Promise::Marker => code(&["marker", "peek", "word", "--pid", &pid]) == 0,
            Promise::NoMarker => code(&["marker", "peek", "word", "--pid", &pid]) == 1,
            Promise::Draining => self.sandbox.status().1["state"] == "draining",
            Promise::Desired => self.sandbox.cli(["desired"]).out.contains("stopped"),
        }
    }

    fn times_run(&self) -> usize {
        std::fs::read_to_string(self.sandbox.file("ran")).unwrap_or_default().lines().count()
    }

    /// No command is started twice by one `run`.
    pub fn ran_twice(&self) -> Option<String> {
        let times = self.times_run();
        (times > 1).then(|| format!("the command ran {times} times"))
    }

    /// Whether the next start goes well once all that lived was killed.
    pub fn start_again(&mut self) -> Result<(), String> {
        self.other.kill();
        start_again(&self.sandbox)
    }
}
