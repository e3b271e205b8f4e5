//! What a process has started and may leave behind.

use std::time::Duration;

use crate::clock::Deadline;
use crate::process::command_line;
use crate::process::command_line::redact;
use crate::sys;
use crate::sys::{Pid, Proven, StartTime, Trust, Unproven};

/// How long what an owner left behind may take to end before it is killed.
const LEFT_OVER_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// A process that a replaced owner left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOver {
    /// Its pid.
    pub pid: Pid,
    /// Its redacted command line, where it can be read.
    pub command: Option<String>,
    start_time: Option<StartTime>,
}

impl LeftOver {
    /// What a process of this namespace has started.
    pub(crate) fn started_by(pid: Pid) -> Vec<Self> {
        let seen = sys::descendants(pid);
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
                })
            })
            .collect()
    }

    /// The process, if it still runs and is neither we nor one of those that we descend from.
    pub(crate) fn prove(&self, trust: &Trust) -> Result<Proven, Unproven> {
        Proven::of(self.pid, self.start_time, None, trust)
    }

    /// Ends these processes: asks all of them, and kills those that do not follow. Returns those
    /// that are left.
    pub(crate) fn reap(processes: Vec<Self>, trust: &Trust) -> Vec<Self> {
        let proven: Vec<(Self, Proven)> = processes
            .into_iter()
            .filter_map(|process| process.prove(trust).ok().map(|proven| (process, proven)))
            .collect();
        let on_all = |what: fn(&Proven) -> std::io::Result<()>| {
            for (process, proven) in &proven {
                if let Err(error) = what(proven) {
                    tracing::debug!(pid = process.pid, %error, "cannot end what was left over");
                }
            }
            let until = Deadline::after(LEFT_OVER_ENDS_WITHIN);
            proven.iter().all(|(_, proven)| proven.wait_ended(until.remaining()))
        };
        if !on_all(Proven::ask_to_end) {
            on_all(Proven::kill);
        }
        proven.into_iter().filter(|(_, proven)| !proven.has_ended()).map(|it| it.0).collect()
    }
}
