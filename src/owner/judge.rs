//! From a record to a verdict.

use crate::liveness::{AnchorState, Evidence, Flags, Judgement, Lease, Presence, judge};
use crate::owner::evidence::{
    LiveCommandLine, anchor_of, compare_command_line, hangs_on_init, has_left_its_lock, observe,
};
use crate::owner::frozen;
use crate::process::anchor;
use crate::process::anchor::lost;
use crate::process::observer::FREE_TWICE_APART;
use crate::process::older::lock;
use crate::records::Record;
use crate::store::{Inner, Location};
use crate::sys;
use crate::sys::{Existence, ProcessFacts, ProcessState, StartTime};

/// Looks at a recorded owner and judges it.
pub(crate) fn judge_record(
    inner: &Inner,
    record: &Record,
    lease: Lease,
    command_line: &LiveCommandLine,
) -> Judgement {
    let mut anchor = anchor_of(record, &inner.location.anchors);
    if anchor == AnchorState::Free && holds_another(inner, record) {
        anchor = AnchorState::Held;
    }
    judge_with(inner, record, anchor, lease, command_line)
}

/// The same for whoever needs neither its lease nor its command line.
pub(crate) fn judgement(inner: &Inner, record: &Record) -> Judgement {
    judge_record(inner, record, Lease::None, &LiveCommandLine::not_read())
}

/// Whether the owner of a free anchor of ours has gone back to where the store was before it was
/// moved here (FIELD-BUGS row 96): it is at work, and its command is not one that was left behind.
fn holds_another(inner: &Inner, record: &Record) -> bool {
    let Location { file, anchors, .. } = &inner.location;
    match (&record.anchor, &record.identity.anchor) {
        (Some(name), Some(key)) => lost::went_back(anchors, name, key, file, record.pid),
        (Some(_) | None, None) | (None, Some(_)) => false,
    }
}

/// The same in a claim, which may try the lock of an older gateway: there the kernel's word
/// decides, and not its list.
pub(crate) fn judge_for_claim(
    inner: &Inner,
    record: &Record,
    lease: Lease,
    command_line: &LiveCommandLine,
) -> Judgement {
    match record.anchor.as_deref().and_then(lock::path_of) {
        Some(path) => judge_with(inner, record, lock::probe(path), lease, command_line),
        None => judge_record(inner, record, lease, command_line),
    }
}

fn judge_with(
    inner: &Inner,
    record: &Record,
    anchor: AnchorState,
    lease: Lease,
    command_line: &LiveCommandLine,
) -> Judgement {
    let seen = observe(record, inner.view(), anchor, command_line, inner.matcher());
    let judged = judge(Evidence { lease, ..seen });
    let leaked = judged.flags.anchor_leaked || has_left_its_lock(record, &seen);
    let release_pending = inner.has_pending_release(record.id);
    let flags = Flags { anchor_leaked: leaked, release_pending, ..judged.flags };
    Judgement { flags, ..judged }
}

/// Judges a record with everything that can be seen, the command line included: people want to
/// know when it changed, even where it decides nothing.
pub(crate) fn look(inner: &Inner, record: &Record, lease: Lease) -> Judgement {
    let mut judged = judge_record(inner, record, lease, &LiveCommandLine::not_read());
    if hangs_on_init(record, &judged.evidence) {
        std::thread::sleep(FREE_TWICE_APART);
        judged = judge_record(inner, record, lease, &LiveCommandLine::not_read());
    }
    let seen = judged.evidence;
    if !seen.is_here() || seen.process == Presence::Gone {
        return frozen::seen(inner, record, judged);
    }
    let command_line =
        compare_command_line(&LiveCommandLine::read(record), record, inner.matcher());
    let again = judge(Evidence { command_line, ..seen });
    let leaked = judged.flags.anchor_leaked || again.flags.anchor_leaked;
    let release_pending = judged.flags.release_pending;
    let flags = Flags { anchor_leaked: leaked, release_pending, ..again.flags };
    frozen::seen(inner, record, Judgement { flags, ..again })
}

/// Whether the process of a record of this namespace is stopped by job control, and the command of
/// a `run` with it: a stopped `run` does not stop what it started.
pub(crate) fn is_stopped(record: &Record) -> bool {
    let is_stopped = |facts: &ProcessFacts, start_time: Option<StartTime>| {
        facts.state == ProcessState::Stopped
            && start_time.is_some()
            && facts.start_time == start_time
    };
    let is_out_of_action = |pid: sys::Pid, start_time: Option<StartTime>| {
        let facts = sys::process_facts(pid);
        facts.existence == Existence::Gone || is_stopped(&facts, start_time)
    };
    record.pid.is_some_and(|pid| is_stopped(&sys::process_facts(pid), record.start_time))
        && record.child_pid.is_none_or(|child| is_out_of_action(child, record.child_start_time))
}

/// Whether some process holds the anchor of this name.
pub(crate) fn is_held(inner: &Inner, anchor: &str) -> bool {
    anchor::look(&inner.location.anchors, anchor, None) == AnchorState::Held
}
