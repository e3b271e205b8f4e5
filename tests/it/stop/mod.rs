//! Planned ends: does whoever is stopped, replaced or restarted know it, and is nobody else
//! signalled?

mod asked;
mod desired;
mod first_process;
mod intents;
mod interrupted;
mod owner;
mod proof;
mod reap;
mod restart;
mod supervisor;
mod swap;
mod takeover;
mod time;
mod told;
mod unwritable;
mod users;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use self::owner::{BUDGET_MS, OWNER, ROLE_TEST};
use crate::support::{Answer, LIMIT, Process, Run, Sandbox, kill};

/// Says each TERM and each WINCH, and ends with code 7 when it gets USR1.
pub const PATIENT: &str = "
    trap 'echo TERM' TERM; trap 'echo WINCH' WINCH; trap 'kill -KILL $sleeper; exit 7' USR1
    sleep 1000 > /dev/null 2>&1 &
    sleeper=$!
    echo $$
    while :; do wait $sleeper; done";

/// The same for a command that ends at its first TERM, with the code that its first argument names.
const POLITE: &str = "
    trap 'kill -KILL $sleeper; exit $1' TERM
    sleep 1000 > /dev/null 2>&1 &
    sleeper=$!
    echo $$
    while :; do wait $sleeper; done";

impl Sandbox {
    /// A run of [`PATIENT`].
    #[track_caller]
    pub fn patient(&self, options: &[&str]) -> Run {
        Run::start(self.incumbent(
            [&["run", "--no-backoff"], options, &["--", "/bin/sh", "-c", PATIENT]].concat(),
        ))
    }

    /// A run of [`POLITE`].
    #[track_caller]
    pub fn polite(&self, code: &str, options: &[&str]) -> Run {
        let command = ["--", "/bin/sh", "-c", POLITE, "sh", code];
        Run::start(self.incumbent([&["run", "--no-backoff"], options, &command].concat()))
    }

    /// Starts a verb, and does not wait for it.
    pub fn begin(&self, verb: &[&str]) -> Process {
        Process::start(self.incumbent(verb))
    }

    /// An owner that links the library, see [`role_of_an_owner`].
    #[track_caller]
    pub fn linked_owner(&self, budget_ms: u64) -> Process {
        let mut command = self.role_command(ROLE_TEST, OWNER);
        command.env(BUDGET_MS, budget_ms.to_string());
        let mut owner = Process::start(command);
        owner.err_line_with("=> owns");
        owner
    }

    #[track_caller]
    fn assert_planned(&self, stopper: u32) -> Value {
        let end = self.history().swap_remove(0);
        assert_eq!(end["end_reason"], "planned_stop", "{end:#}");
        let by = end["ended_by"].as_str().unwrap_or_default();
        assert!(by.contains(&format!("pid {stopper}")), "{end:#}");
        end
    }
}

/// How often the command of a run, or anybody, said `TERM`.
pub fn terms(answer: &Answer) -> usize {
    answer.out.lines().filter(|line| *line == "TERM").count()
}

impl Run {
    /// Lets the command of a patient run end.
    pub fn let_end(&self) {
        kill(self.command.pid, Signal::USR1);
    }

    /// Sends the run a signal that its command says: what was before it has been handled by then.
    /// Of several at once the lower number comes first, and this one has a high one.
    #[track_caller]
    pub fn round_trip(&mut self) {
        self.process.signal(Signal::WINCH);
        self.process.line_with("WINCH");
    }

    /// Time in which the run has every opportunity to do what it should not.
    #[track_caller]
    pub fn let_time_pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.round_trip();
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[track_caller]
    pub fn ended(self) -> Answer {
        self.process.finish_with_stdin_open(LIMIT)
    }
}

/// Somebody who is not the parent of `pid`, and signals it.
pub fn stranger(sandbox: &Sandbox, signal: &str, pid: u32) {
    Process::start(sandbox.shell(&format!("kill -{signal} {pid}"))).finish(LIMIT).assert_code(0);
}

/// A run whose command took a HUP for what it is to many, the wish that it reads its configuration
/// anew, and has gone on for longer than it may take to end.
#[track_caller]
pub fn reloaded(sandbox: &Sandbox, options: &[&str]) -> Run {
    let script = format!("trap 'echo HUP' HUP; {PATIENT}");
    let command = ["--stop-budget", "1s", "--", "/bin/sh", "-c", &script];
    let mut run =
        Run::start(sandbox.incumbent([&["run", "--no-backoff"], options, &command].concat()));
    stranger(sandbox, "HUP", run.pid());
    assert_eq!(run.process.line(), "HUP");
    run.let_time_pass(Duration::from_millis(1_500));
    run
}
