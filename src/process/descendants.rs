//! What a process has started and may leave behind.

use std::time::Duration;

use crate::clock::Deadline;
use crate::process::command_line;
use crate::process::command_line::redact;
use crate::sys;
use crate::sys::{Pid, ProcessNumber, Proven, StartTime, Trust, Unproven};

/// How long what an owner left behind may take to end before it is killed.
pub(super) const LEFT_OVER_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// A process that another one has started, and has left behind or may leave behind; what can be
/// said of it, for people. Its pid may be another's by the time it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOver {
    /// Its pid.
    pub pid: Pid,
    /// Its redacted command line, where it can be read.
    pub command: Option<String>,
    start_time: Option<StartTime>,
    number: Option<ProcessNumber>,
}

/// Does `what` to all of these processes, and waits for their end, for at most `within` altogether;
/// whether all have ended.
pub(crate) fn end_all(
    processes: &[&Proven],
    what: fn(&Proven) -> std::io::Result<()>,
    within: Duration,
) -> bool {
    for process in processes {
        if let Err(error) = what(process) {
            tracing::debug!(pid = process.pid(), %error, "cannot end what was left behind");
        }
    }
    let until = Deadline::after(within);
    processes.iter().all(|process| process.wait_ended(until.remaining()))
}

impl LeftOver {
    /// What a process of this namespace has started.
    pub(crate) fn started_by(pid: Pid) -> Vec<Self> {
        Self::of(pid, &sys::descendants(pid))
    }

    /// What a `run` has started with its `command`. Whom it adopted has left that.
    pub(crate) fn started_by_run(pid: Pid, command: Pid) -> Vec<Self> {
        let mut seen = sys::descendants(command);
        seen.insert(0, command);
        Self::of(pid, &seen)
    }

    /// Those of `seen` that descend from `pid`.
    fn of(pid: Pid, seen: &[Pid]) -> Vec<Self> {
        seen.iter()
            .filter_map(|&child| {
                let facts = sys::process_facts(child);
                // Its pid may have been recycled since.
                let is_one_of_them =
                    facts.parent.is_some_and(|parent| parent == pid || seen.contains(&parent));
                is_one_of_them.then(|| Self {
                    pid: child,
                    command: sys::command_line(child)
                        .map(|words| command_line::display(&redact::redact(&words))),
                    start_time: facts.start_time,
                    number: facts.number,
                })
            })
            .collect()
    }

    /// The process, if it still runs and is neither we nor one of those that we descend from.
    pub(crate) fn prove(&self, trust: &Trust) -> Result<Proven, Unproven> {
        Proven::of(self.pid, self.start_time, self.number, trust)
    }

    /// Whether both are one process.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.pid == other.pid && self.start_time == other.start_time && self.number == other.number
    }

    /// Ends these processes: asks all of them, and kills those that do not follow. Returns those
    /// that are left.
    pub(crate) fn reap(processes: Vec<Self>, trust: &Trust) -> Vec<Self> {
        let proven: Vec<(Self, Proven)> = processes
            .into_iter()
            .filter_map(|process| process.prove(trust).ok().map(|proven| (process, proven)))
            .collect();
        let all: Vec<&Proven> = proven.iter().map(|(_, proven)| proven).collect();
        if !end_all(&all, Proven::ask_to_end, LEFT_OVER_ENDS_WITHIN) {
            end_all(&all, Proven::kill, LEFT_OVER_ENDS_WITHIN);
        }
        proven.into_iter().filter(|(_, proven)| !proven.has_ended()).map(|it| it.0).collect()
    }
}
