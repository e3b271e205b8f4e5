//! Gathers the evidence about one recorded owner, and what we know of ourselves to compare with.

use std::path::Path;

use crate::anchor;
use crate::command_line::{self, CommandLineMatcher};
use crate::instance::Record;
use crate::legacy::{self, Keeps};
use crate::liveness::{
    AnchorState, ChildState, CommandLineMatch, Evidence, Keeper, Lease, Presence, ProcessTable,
    Relation, RunState, StartTimeMatch,
};
use crate::names::InstanceId;
use crate::sys::{self, Existence, ProcessFacts, ProcessState, StartTime};

/// What this process knows of itself; it does not change while the process lives.
#[derive(Debug)]
pub(crate) struct Observer {
    pub(crate) pid: sys::Pid,
    pub(crate) start_time: Option<StartTime>,
    pub(crate) uid: Option<u32>,
    pub(crate) host: Option<String>,
    pub(crate) boot_id: Option<String>,
    pub(crate) pid_ns: Option<String>,
    pub(crate) process_table: ProcessTable,
}

impl Observer {
    pub(crate) fn new() -> Self {
        let pid = std::process::id();
        Self {
            pid,
            start_time: sys::process_facts(pid).start_time,
            uid: sys::effective_uid(),
            host: sys::host_id(),
            boot_id: sys::boot_id(),
            pid_ns: sys::pid_namespace(),
            process_table: if sys::process_table_is_ours() {
                ProcessTable::Ours
            } else {
                ProcessTable::Foreign
            },
        }
    }
}

/// The live command line of a recorded pid, read before the transaction because it is slow. It
/// counts only for the generation it was read for.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveCommandLine(Option<(InstanceId, Option<Vec<String>>)>);

impl LiveCommandLine {
    pub(crate) fn not_read() -> Self {
        Self(None)
    }

    pub(crate) fn read(record: &Record) -> Self {
        let live = record
            .pid
            .and_then(sys::command_line)
            .map(|arguments| command_line::redact(&arguments))
            .map(|arguments| command_line::redact_alike(&arguments, &record.argv));
        Self(Some((record.id, live)))
    }

    /// Whether it was read for this generation.
    pub(crate) fn is_for(&self, id: InstanceId) -> bool {
        self.0.as_ref().is_some_and(|(read_for, _)| *read_for == id)
    }

    fn compare(&self, record: &Record, matcher: &dyn CommandLineMatcher) -> CommandLineMatch {
        match &self.0 {
            Some((id, live)) if *id == record.id => match live {
                Some(live) if record.argv.is_empty() => {
                    // Nothing was recorded to compare with, but a kind may be known by its forms.
                    if matcher.is_of_recorded_kind(record.kind(), &[], live) {
                        CommandLineMatch::Match
                    } else if record.kind().is_some_and(command_line::has_known_forms) {
                        CommandLineMatch::Mismatch
                    } else {
                        CommandLineMatch::Unreadable
                    }
                }
                Some(live) if matcher.is_of_recorded_kind(record.kind(), &record.argv, live) => {
                    CommandLineMatch::Match
                }
                Some(_) => CommandLineMatch::Mismatch,
                None => CommandLineMatch::Unreadable,
            },
            Some(_) | None => CommandLineMatch::NotRead,
        }
    }
}

/// The anchor that a record names, as far as questions look at it.
pub(crate) fn anchor_of(record: &Record, anchors: &Path) -> AnchorState {
    record.anchor.as_ref().map_or(AnchorState::None, |name| anchor::look(anchors, name))
}

/// Looks at everything else that [`crate::liveness::judge`] asks for.
pub(crate) fn observe(
    record: &Record,
    observer: &Observer,
    anchor: AnchorState,
    command_line: &LiveCommandLine,
    matcher: &dyn CommandLineMatcher,
) -> Evidence {
    let seen = look_at_process(record, observer, anchor, command_line, matcher);
    if seen.process == Presence::Present && seen.start_time == StartTimeMatch::Equal {
        return seen;
    }
    let is_gone = seen.process == Presence::Gone || seen.start_time == StartTimeMatch::Different;
    match whose_older_lock(record, anchor) {
        // It has let go, and another one has taken the lock.
        Some(Keeps::Another) => Evidence { anchor: AnchorState::Free, ..seen },
        // What it left behind may be the gateway itself, detached: nobody can tell.
        Some(keeps) if is_gone || keeps == Keeps::WhatItLeft => Evidence {
            process: Presence::Unknown,
            start_time: StartTimeMatch::Unknown,
            process_state: RunState::Unknown,
            uid: Relation::Unknown,
            command_line: CommandLineMatch::NotRead,
            ..seen
        },
        Some(_) | None => seen,
    }
}

/// Who keeps the lock of an older gateway, if that is what `anchor` is, and it is held.
fn whose_older_lock(record: &Record, anchor: AnchorState) -> Option<Keeps> {
    let path = record.anchor.as_deref().and_then(legacy::path_of)?;
    (anchor == AnchorState::Held).then(|| legacy::who_keeps(record, path).0)
}

/// Whether an older gateway has ended, and something that it started keeps its lock. It is no sign of death:
/// one that detached itself after it had taken the lock looks the same.
pub(crate) fn has_left_its_lock(record: &Record, seen: &Evidence) -> bool {
    seen.is_here()
        && seen.process == Presence::Unknown
        && whose_older_lock(record, seen.anchor) == Some(Keeps::WhatItLeft)
}

fn look_at_process(
    record: &Record,
    observer: &Observer,
    anchor: AnchorState,
    command_line: &LiveCommandLine,
    matcher: &dyn CommandLineMatcher,
) -> Evidence {
    let machine = place(record, observer, anchor);
    // Elsewhere the recorded number names somebody else's process, or nobody's.
    let facts = match record.pid {
        Some(pid) if machine.is_here() => sys::process_facts(pid),
        Some(_) | None => ProcessFacts::UNKNOWN,
    };
    Evidence {
        process: presence(facts.existence),
        start_time: compare_start_times(record.start_time, facts.start_time),
        process_state: run_state(facts.state),
        uid: relation(record.uid.as_ref(), facts.uid.as_ref()),
        command_line: if machine.is_here() {
            command_line.compare(record, matcher)
        } else {
            CommandLineMatch::NotRead
        },
        child: child_state(record, &machine, observer),
        keeper: match record.keeper_pid {
            Some(_) => Keeper::Recorded,
            None => Keeper::None,
        },
        ..machine
    }
}

/// The anchor, and whether the owner's pids are ours.
fn place(record: &Record, observer: &Observer, anchor: AnchorState) -> Evidence {
    let boot = relation(record.boot_id.as_ref(), observer.boot_id.as_ref());
    let host = match relation(record.host.as_ref(), observer.host.as_ref()) {
        // One boot is one machine, also where the machine has no id.
        Relation::Unknown if boot == Relation::Same => Relation::Same,
        host => host,
    };
    // Where a platform has no such thing, both sides lack it.
    let absent_or = |recorded: Option<&String>, own: Option<&String>| match (recorded, own) {
        (None, None) if host == Relation::Same => Relation::Same,
        (recorded, own) => relation(recorded, own),
    };
    Evidence {
        anchor,
        host,
        boot: absent_or(record.boot_id.as_ref(), observer.boot_id.as_ref()),
        namespace: absent_or(record.pid_ns.as_ref(), observer.pid_ns.as_ref()),
        process_table: observer.process_table,
        lease: Lease::None,
        ..Evidence::nothing_seen()
    }
}

fn child_state(record: &Record, machine: &Evidence, observer: &Observer) -> ChildState {
    let Some(child) = record.child_pid else { return ChildState::None };
    if !machine.is_here() {
        return ChildState::Unknown;
    }
    // We are that process now: the command executed itself as a claimant, or its pid came to us
    // within the same tick. Either way it is not somebody else who still acts for the dead run.
    if child == observer.pid {
        return ChildState::Gone;
    }
    let facts = sys::process_facts(child);
    let start_time = compare_start_times(record.child_start_time, facts.start_time);
    match (presence(facts.existence), start_time) {
        (Presence::Gone, _) | (_, StartTimeMatch::Different) => ChildState::Gone,
        (Presence::Present, StartTimeMatch::Equal) => ChildState::Alive,
        (Presence::Present, StartTimeMatch::Unknown)
        | (Presence::Unknown, StartTimeMatch::Equal | StartTimeMatch::Unknown) => {
            ChildState::Unknown
        }
    }
}

/// What a command line that was read later adds to the evidence.
pub(crate) fn compare_command_line(
    command_line: &LiveCommandLine,
    record: &Record,
    matcher: &dyn CommandLineMatcher,
) -> CommandLineMatch {
    command_line.compare(record, matcher)
}

/// Whether the verdict hangs on the command line, so that it is worth reading.
pub(crate) fn needs_command_line(seen: &Evidence) -> bool {
    let no_kernel_answer = match seen.anchor {
        AnchorState::Missing | AnchorState::None | AnchorState::Unreadable => true,
        AnchorState::Held | AnchorState::Free => false,
    };
    no_kernel_answer
        && seen.is_here()
        && seen.process != Presence::Gone
        && seen.start_time == StartTimeMatch::Unknown
}

fn relation<T: PartialEq>(recorded: Option<&T>, own: Option<&T>) -> Relation {
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
