//! What is on record of a process, compared with what can be seen here and now: the parts of an
//! [`Evidence`] that no anchor is needed for.
//!
//! Boot ids that differ prove nothing by themselves: a service may see another one than its
//! neighbours (FIELD-BUGS row 91). Only the clocks prove a restart.

use crate::environment::{Fault, planted};
use crate::liveness::{
    AnchorState, Boot, Evidence, Lease, Presence, ProcessTable, Relation, RunState, StartTimeMatch,
    Table,
};
use crate::process::observer::{Clocks, Observer};
use crate::sys;
use crate::sys::{Existence, Pid, ProcessNumber, ProcessState, StartTime};

/// Where and when something was put on record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written<'a> {
    pub(crate) host: Option<&'a str>,
    pub(crate) boot_id: Option<&'a str>,
    pub(crate) pid_ns: Option<&'a str>,
    pub(crate) clocks: Option<Clocks>,
}

/// From where and when it is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here<'a> {
    pub(crate) observer: &'a Observer,
    pub(crate) clocks: Clocks,
    /// One kernel sees all who write where the record is: what is unknown on both sides is equal.
    pub(crate) is_local: bool,
}

impl Written<'_> {
    /// Whether pids that were written then and there mean the same here and now.
    pub(crate) fn seen_from(&self, here: &Here<'_>, anchor: AnchorState) -> Evidence {
        let Here { observer, is_local, .. } = *here;
        let by_id = absent_or(self.host, observer.host.as_deref(), is_local);
        let boot = self.boot(here, anchor, by_id);
        let host = match by_id {
            // One boot is one machine, also where the machine has no id.
            Relation::Unknown if boot == Boot::Same => Relation::Same,
            host => host,
        };
        let has_none = is_local || !sys::HAS_PID_NAMESPACES;
        let namespace = absent_or(self.pid_ns, observer.pid_ns.as_deref(), has_none);
        let is_visible = observer.process_table == ProcessTable::Ours
            && host == Relation::Same
            && namespace == Relation::Same;
        Evidence {
            anchor,
            host,
            boot,
            namespace,
            table: if is_visible { Table::Visible } else { Table::NotVisible },
            lease: Lease::None,
            ..Evidence::nothing_seen()
        }
    }

    fn boot(&self, here: &Here<'_>, anchor: AnchorState, host: Relation) -> Boot {
        if anchor == AnchorState::Held && here.is_local {
            return Boot::Same;
        }
        let clocks_agree = || self.clocks.is_some_and(|then| here.clocks.restarted_since(then));
        let restarted = || planted(Fault::RebootByIdAlone) || clocks_agree();
        match relation(self.boot_id, here.observer.boot_id.as_deref()) {
            Relation::Same => Boot::Same,
            // Of another machine the clocks say nothing.
            Relation::Different if host != Relation::Different && restarted() => Boot::Rebooted,
            Relation::Different | Relation::Unknown => Boot::Unknown,
        }
    }
}

/// A process as a record names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub(crate) pid: Option<Pid>,
    pub(crate) start_time: Option<StartTime>,
    pub(crate) number: Option<ProcessNumber>,
    pub(crate) uid: Option<u32>,
}

impl Named {
    /// Adds what can be seen of it. Elsewhere the number names somebody else's process, or
    /// nobody's, and nothing is looked at.
    pub(crate) fn seen_on(&self, machine: Evidence) -> Evidence {
        let Some(pid) = self.pid.filter(|_| machine.is_here()) else { return machine };
        let facts = sys::process_facts(pid);
        Evidence {
            process: presence(facts.existence),
            start_time: compare_start_times(self.start_time, facts.start_time),
            process_id: compare_numbers(self.number, facts.number),
            process_state: run_state(facts.state),
            uid: relation(self.uid, facts.uid),
            ..machine
        }
    }
}

fn absent_or(recorded: Option<&str>, own: Option<&str>, absent_is_equal: bool) -> Relation {
    match (recorded, own) {
        (None, None) if absent_is_equal => Relation::Same,
        (recorded, own) => relation(recorded, own),
    }
}

fn relation<T: PartialEq>(recorded: Option<T>, own: Option<T>) -> Relation {
    match (recorded, own) {
        (Some(recorded), Some(own)) if recorded == own => Relation::Same,
        (Some(_), Some(_)) => Relation::Different,
        (Some(_) | None, None) | (None, Some(_)) => Relation::Unknown,
    }
}

/// Values of different units say nothing about each other.
fn compare_start_times(recorded: Option<StartTime>, live: Option<StartTime>) -> StartTimeMatch {
    match (recorded, live) {
        (Some(recorded), Some(live)) if recorded.unit != live.unit => StartTimeMatch::Unknown,
        (Some(recorded), Some(live)) if recorded == live => StartTimeMatch::Equal,
        (Some(_), Some(_)) => StartTimeMatch::Different,
        (Some(_) | None, None) | (None, Some(_)) => StartTimeMatch::Unknown,
    }
}

fn compare_numbers(recorded: Option<ProcessNumber>, live: Option<ProcessNumber>) -> StartTimeMatch {
    match relation(recorded, live) {
        Relation::Same => StartTimeMatch::Equal,
        Relation::Different => StartTimeMatch::Different,
        Relation::Unknown => StartTimeMatch::Unknown,
    }
}

fn presence(existence: Existence) -> Presence {
    match existence {
        Existence::Present => Presence::Present,
        Existence::Gone => Presence::Gone,
        Existence::Unknown => Presence::Unknown,
    }
}

fn run_state(state: ProcessState) -> RunState {
    match state {
        ProcessState::Running | ProcessState::Traced => RunState::Running,
        ProcessState::Stopped => RunState::Stopped,
        ProcessState::Zombie => RunState::Zombie,
        ProcessState::Unknown => RunState::Unknown,
    }
}
