//! Gathers the evidence about one recorded owner, and what we know of ourselves to compare with.
//!
//! The first process of a container: the kernel ends all others of a pid namespace before its first
//! process releases what it held. So where that process was ours (pid 1, not in the machine's own
//! namespace), its free anchor proves the end of its command, too, if it is seen twice, 50 ms
//! apart. A claim does that by an errand between two transactions (`Errand::LookAgain`).
//!
//! A boot id that differs is doubt, not proof (`process/compare.rs`). A process is gone only where
//! pidfd and process table agree.

use std::path::Path;

use crate::environment::{Fault, planted};
use crate::liveness::{
    AnchorState, Boot, ChildState, CommandLineMatch, CommandLockState, Evidence, Keeper, Observed,
    Presence, Relation, RunState, StartTimeMatch, Table, Writer,
};
use crate::owner::older::Keeps;
use crate::owner::{command_lock, older};
use crate::process::command_line::matcher::CommandLineMatcher;
use crate::process::command_line::{mask, matcher, redact};
use crate::process::compare::{Here, Named, Written};
use crate::process::older::lock;
use crate::process::{Clocks, Observer, View, anchor};
use crate::records::Record;
use crate::records::instances::LockNow;
use crate::{InstanceId, sys};

/// The live command line of a recorded pid, read before the transaction because it is slow. It
/// counts only for the generation it was read for.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveCommandLine(Option<(InstanceId, Option<Shown>)>);

/// What a live process shows as its command line.
#[derive(Clone, Debug)]
enum Shown {
    /// Redacted, and never empty: a process that shows none could be any.
    Words(Vec<String>),
    /// A thread of the kernel has none, which is not the same as hiding it: it is no gateway
    /// (FIELD-BUGS row 137).
    KernelThread,
}

impl LiveCommandLine {
    pub(crate) fn not_read() -> Self {
        Self(None)
    }

    pub(crate) fn read(record: &Record) -> Self {
        let live = record.pid.and_then(|pid| match sys::command_line(pid) {
            Some(arguments) => {
                let redacted = redact::redact(&arguments);
                Some(Shown::Words(mask::redact_alike(&redacted, &record.argv)))
            }
            None => sys::is_kernel_thread(pid).then_some(Shown::KernelThread),
        });
        Self(Some((record.id, live)))
    }

    /// Whether it was read for this generation.
    pub(crate) fn is_for(&self, id: InstanceId) -> bool {
        self.0.as_ref().is_some_and(|(read_for, _)| *read_for == id)
    }

    fn compare(&self, record: &Record, matcher: &dyn CommandLineMatcher) -> CommandLineMatch {
        match &self.0 {
            Some((id, live)) if *id == record.id => match live {
                Some(Shown::Words(live)) if live.is_empty() => CommandLineMatch::Unreadable,
                Some(Shown::Words(live)) if record.argv.is_empty() => {
                    // Nothing was recorded to compare with, but a kind may be known by its forms.
                    if matcher.is_of_recorded_kind(record.kind(), &[], live) {
                        CommandLineMatch::Match
                    } else if record.kind().is_some_and(matcher::has_known_forms) {
                        CommandLineMatch::Mismatch
                    } else {
                        CommandLineMatch::Unreadable
                    }
                }
                Some(Shown::Words(live))
                    if matcher.is_of_recorded_kind(record.kind(), &record.argv, live) =>
                {
                    CommandLineMatch::Match
                }
                Some(Shown::Words(_) | Shown::KernelThread) => CommandLineMatch::Mismatch,
                None => CommandLineMatch::Unreadable,
            },
            Some(_) | None => CommandLineMatch::NotRead,
        }
    }
}

/// The anchor that a record names, as far as questions look at it.
pub(crate) fn anchor_of(record: &Record, anchors: &Path) -> AnchorState {
    let is_it = record.identity.anchor.as_ref();
    let seen =
        record.anchor.as_ref().map_or(AnchorState::None, |name| anchor::look(anchors, name, is_it));
    let is_missed = seen == AnchorState::Held && planted(Fault::HeldAnchorFree);
    if is_missed { AnchorState::Free } else { seen }
}

/// Whether the owner was the first process of a pid namespace of its own that cannot be looked
/// into, and has let go of its anchor.
fn was_init_elsewhere(record: &Record, machine: &Evidence) -> bool {
    machine.anchor == AnchorState::Free
        && machine.table == Table::NotVisible
        && record.pid == Some(1)
        && record.pid_ns.as_deref().is_some_and(|it| !sys::is_first_pid_namespace(it))
}

/// Whether nothing but a second look at such an anchor can tell.
pub(crate) fn hangs_on_init(record: &Record, seen: &Evidence) -> bool {
    seen.child == ChildState::Unknown && was_init_elsewhere(record, seen)
}

/// Looks at everything else that [`crate::liveness::judge`] asks for.
pub(crate) fn observe(
    record: &Record,
    view: View<'_>,
    anchor: AnchorState,
    command_line: &LiveCommandLine,
    matcher: &dyn CommandLineMatcher,
) -> Evidence {
    let seen = look_at_process(record, view, anchor, command_line, matcher);
    // Whoever it names, it does not act for this row (FIELD-BUGS row 136).
    if record.older_lock == LockNow::Ours {
        return Evidence { anchor: AnchorState::Free, ..seen };
    }
    let is_gone = match seen.observed() {
        Observed::Alive => return seen,
        Observed::Gone(_) => true,
        Observed::Unknown => false,
    };
    match whose_older_lock(record, anchor) {
        // It has let go, and another one has taken the lock.
        Some(Keeps::Another) => Evidence { anchor: AnchorState::Free, ..seen },
        // What it left behind may be the gateway itself, detached: nobody can tell.
        Some(keeps) if is_gone || keeps == Keeps::WhatItLeft => Evidence {
            process: Presence::Unknown,
            start_time: StartTimeMatch::Unknown,
            process_id: StartTimeMatch::Unknown,
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
    let path = record.anchor.as_deref().and_then(lock::path_of)?;
    (anchor == AnchorState::Held).then(|| older::who_keeps(record, path))
}

/// Whether an older gateway has ended, and something that it started keeps its lock. It is no sign
/// of death: one that detached itself after it had taken the lock looks the same.
pub(crate) fn has_left_its_lock(record: &Record, seen: &Evidence) -> bool {
    seen.is_here()
        && seen.process == Presence::Unknown
        && whose_older_lock(record, seen.anchor) == Some(Keeps::WhatItLeft)
}

fn look_at_process(
    record: &Record,
    view: View<'_>,
    anchor: AnchorState,
    command_line: &LiveCommandLine,
    matcher: &dyn CommandLineMatcher,
) -> Evidence {
    let machine = place(record, view, anchor);
    let process = Named {
        pid: record.pid,
        start_time: record.start_time,
        number: record.identity.process,
        uid: record.uid,
    };
    let (child, command_lock) = child_state(record, &machine, view);
    Evidence {
        command_line: if machine.is_here() {
            command_line.compare(record, matcher)
        } else {
            CommandLineMatch::NotRead
        },
        child,
        command_lock,
        keeper: match (record.keeper_pid, record.identity.keeper_ended_at_ms) {
            (Some(_), Some(_)) => Keeper::EndedAlone,
            (Some(_), None) => Keeper::Recorded,
            (None, _) => Keeper::None,
        },
        writer: match record.identity.written_by {
            Some(_) => Writer::Current,
            None => Writer::Older,
        },
        ..process.seen_on(machine)
    }
}

/// The anchor, and whether the owner's pids are ours.
fn place(record: &Record, view: View<'_>, anchor: AnchorState) -> Evidence {
    let written = Written {
        host: record.host.as_deref(),
        boot_id: record.boot_id.as_deref(),
        pid_ns: record.pid_ns.as_deref(),
        clocks: record
            .identity
            .written_boot_clock_ms
            .map(|boot_ms| Clocks { wall_ms: record.started_at_ms, boot_ms }),
    };
    let here = Here { observer: view.observer, clocks: view.clocks(), is_local: view.is_local };
    written.seen_from(&here, anchor)
}

fn child_state(
    record: &Record,
    machine: &Evidence,
    view: View<'_>,
) -> (ChildState, CommandLockState) {
    let Some(child) = record.child_pid else { return (ChildState::None, CommandLockState::None) };
    let by_table = child_by_table(record, child, machine, view.observer);
    if by_table == ChildState::Alive {
        return (by_table, CommandLockState::None);
    }
    let lock = command_lock::look(record, view.observer, view.anchors);
    let state = match (lock, by_table) {
        (CommandLockState::Held, _) => ChildState::Alive,
        (CommandLockState::Free, ChildState::Unknown) => ChildState::Gone,
        (_, ChildState::Unknown)
            if was_init_elsewhere(record, machine) && view.seen_free.twice(record.id) =>
        {
            ChildState::Gone
        }
        (
            CommandLockState::None
            | CommandLockState::Inherited
            | CommandLockState::Free
            | CommandLockState::Unknown,
            by_table,
        ) => by_table,
    };
    (state, lock)
}

fn child_by_table(
    record: &Record,
    child: sys::Pid,
    machine: &Evidence,
    observer: &Observer,
) -> ChildState {
    if machine.boot == Boot::Rebooted {
        return ChildState::Gone;
    }
    if machine.table == Table::NotVisible {
        return ChildState::Unknown;
    }
    // We are that process now: the command executed itself as a claimant, or its pid came to us
    // within the same tick. Either way it is not somebody else who still acts for the dead run.
    if child == observer.pid {
        return ChildState::Gone;
    }
    let child = Named {
        pid: Some(child),
        start_time: record.child_start_time,
        number: record.identity.child,
        uid: None,
    };
    let seen = child.seen_on(*machine);
    match seen.observed() {
        Observed::Alive => ChildState::Alive,
        Observed::Gone(_) => ChildState::Gone,
        Observed::Unknown => ChildState::Unknown,
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
        && seen.table == Table::Visible
        && seen.observed() == Observed::Unknown
        && seen.start_time == StartTimeMatch::Unknown
}
