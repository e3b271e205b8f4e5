//! What a process has started and may leave behind.

use std::time::Duration;

use crate::clock::Deadline;
use crate::process::command_line;
use crate::process::command_line::redact;
use crate::sys;
use crate::sys::{Pid, ProcessFacts, ProcessNumber, Proven, StartTime, Trust, Unproven};

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

/// Those of `listed`, parents first, that descend from `root` as a second look at each one shows
/// it. The list goes by numbers, and a number may be another process' by now: on Windows a child
/// keeps that of its parent for good, although it was given to `root` since. Whoever is not one of
/// them makes nobody one of them.
fn confirmed(
    root: Pid,
    listed: Vec<Pid>,
    look: impl Fn(Pid) -> ProcessFacts,
) -> Vec<(Pid, ProcessFacts)> {
    let mut found: Vec<(Pid, ProcessFacts)> = Vec::with_capacity(listed.len());
    for pid in listed {
        let facts = look(pid);
        let is_one_of_them = facts.parent.is_some_and(|parent| {
            parent == root || found.iter().any(|(member, _)| *member == parent)
        });
        if is_one_of_them {
            found.push((pid, facts));
        }
    }
    found
}

impl LeftOver {
    /// A process of this namespace.
    pub(crate) fn of_pid(pid: Pid) -> Self {
        Self::described(pid, &sys::process_facts(pid))
    }

    fn described(pid: Pid, facts: &ProcessFacts) -> Self {
        Self {
            pid,
            command: sys::command_line(pid)
                .map(|words| command_line::display(&redact::redact(&words))),
            start_time: facts.start_time,
            number: facts.number,
        }
    }

    /// What a process of this namespace has started.
    pub(crate) fn started_by(pid: Pid) -> Vec<Self> {
        Self::of(pid, sys::descendants(pid))
    }

    /// What a `run` has started with its `command`. Whom it adopted has left that.
    pub(crate) fn started_by_run(pid: Pid, command: Pid) -> Vec<Self> {
        let mut listed = sys::descendants(command);
        listed.insert(0, command);
        Self::of(pid, listed)
    }

    /// Those of `listed`, parents first, that descend from `pid`.
    fn of(pid: Pid, listed: Vec<Pid>) -> Vec<Self> {
        confirmed(pid, listed, sys::process_facts)
            .into_iter()
            .map(|(child, facts)| Self::described(child, &facts))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// FIELD-BUGS row 17. The table says that 20 was started by 10, and 30 by 20. The second look
    /// says that 20 is a child of somebody else, an older process whose parent had the number 10
    /// before: all that 20 has ever started, on Windows a whole desktop, was ended with 10.
    #[test]
    fn what_a_stranger_has_started_is_no_descendant() {
        let descendants = |parents: &[(Pid, Option<Pid>)]| -> Vec<Pid> {
            let look = |pid: Pid| ProcessFacts {
                parent: parents.iter().find(|(of, _)| *of == pid).and_then(|(_, parent)| *parent),
                ..ProcessFacts::UNKNOWN
            };
            let listed = parents.iter().map(|(pid, _)| *pid).collect();
            confirmed(10, listed, look).into_iter().map(|(pid, _)| pid).collect()
        };
        assert_eq!(descendants(&[(20, Some(10)), (30, Some(20)), (40, Some(30))]), [20, 30, 40]);
        // Its number is another process' by now; or its parent's was never its parent's.
        for another in [None, Some(7)] {
            assert!(descendants(&[(20, another), (30, Some(20)), (40, Some(30))]).is_empty());
            assert_eq!(descendants(&[(20, Some(10)), (21, another), (30, Some(21))]), [20]);
        }
        // One that was left to another parent since is nobody's.
        assert_eq!(descendants(&[(20, Some(10)), (30, Some(1)), (40, Some(20))]), [20, 40]);
    }
}
