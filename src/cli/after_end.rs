//! Of an office that nobody holds: what happened, and what to do. The first two lines of `status`.

use std::path::Path;

use crate::cli::output::{ago, since};
use crate::status::{Desired, LastEnd, Manner, RefusedStart, Waiter};
use crate::{Reason, Report, sys};

/// With less than this a start writes nothing: the WAL and an anchor need as much.
const ROOM_TO_START: u64 = 256 * 1024;

/// What became of the office, in a clause.
pub(super) fn happened(report: &Report) -> String {
    if let Some(kept_out) = kept_out(report) {
        return kept_out;
    }
    match &report.last_end {
        Some(end) => {
            let when = end.at_ms.map_or_else(|| "found just now".to_owned(), ago);
            format!("{}{}, {when}", end.summary, who_and_why(end))
        }
        None => report.because().to_owned(),
    }
}

/// Who wants it and does not get it, in a clause.
pub(super) fn kept_out(report: &Report) -> Option<String> {
    if let Some(waiter) = report.waiters.first() {
        return Some(format!("{}, {}", waits(waiter), since(&ago(waiter.since_ms))));
    }
    let refused = newest_refusal(report)?;
    Some(format!("a start was refused {}: {}", ago(refused.at_ms), in_the_way(refused)))
}

/// Who waits for what.
pub(super) fn waits(waiter: &Waiter) -> String {
    let pid = waiter.pid.map_or_else(|| "pid unknown".to_owned(), |pid| format!("pid {pid}"));
    match &waiter.lock {
        Some(lock) => format!("{pid} waits for {lock}"),
        None => format!("{pid} waits for it"),
    }
}

/// Who ended it, and what for.
pub(super) fn who_and_why(end: &LastEnd) -> String {
    let word = if end.reason == Reason::Signalled { "from" } else { "by" };
    let by = end.by.as_ref().map(|by| format!(" {word} {by}")).unwrap_or_default();
    // The reason that was given to `stop` or `run --replace`.
    let is_asked = matches!(end.reason, Reason::PlannedStop | Reason::TakenOver);
    let why = end.detail.as_ref().filter(|_| is_asked).map(|why| format!(": {why}"));
    by + &why.unwrap_or_default()
}

/// The refusal that came after the last end, by somebody else than its own holder.
fn newest_refusal(report: &Report) -> Option<&RefusedStart> {
    let refused = report.refused.as_ref()?;
    let ended_at_ms = report.last_end.as_ref().and_then(|end| end.at_ms);
    let is_newer = ended_at_ms.is_none_or(|ended_ms| refused.at_ms >= ended_ms);
    let is_another = refused.holder.as_ref() != Some(&report.office);
    Some(refused).filter(|_| is_newer && is_another)
}

/// Who holds what was wanted.
fn in_the_way(refused: &RefusedStart) -> String {
    let what = refused.lock.as_ref().map_or_else(|| "it".to_owned(), ToString::to_string);
    let holder = refused.holder.as_ref().map(|office| format!("profile {}, ", office.profile));
    let pid = refused.holder_pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    format!("{what} is held by {}pid {pid}", holder.unwrap_or_default())
}

/// What a person does next; `db` is where the store is, or will be.
pub(super) fn what_to_do(report: &Report, db: Option<&Path>) -> String {
    if let Some(directory) = db.and_then(full_disk) {
        return format!(
            "free some space on the disk of {directory} first: until then no gateway can start; \
             then `incumbent run -- CMD`"
        );
    }
    if let Some(waiter) = report.waiters.first() {
        let holder =
            if waiter.lock.is_some() { "; who has that lock: `incumbent locks`" } else { "" };
        return format!("do not start another one: {}, and starts then{holder}", waits(waiter));
    }
    if let Some(refused) = newest_refusal(report) {
        return instead_of(refused);
    }
    if report.desired == Some(Desired::Stopped) {
        return "it is set to stay stopped; to start it: `incumbent desired running`, then \
                `incumbent run -- CMD`"
            .to_owned();
    }
    let Some(end) = &report.last_end else { return "start it: `incumbent run -- CMD`".to_owned() };
    let next = match end.manner() {
        Manner::Crashed if matches!(end.exit_code, Some(126 | 127)) => {
            "look at the path, the mode and the interpreter of the command, then start it again: \
             `incumbent run -- CMD`"
        }
        Manner::Crashed if has_last_words(end) => {
            "read what it wrote last, below, then start it again: `incumbent run -- CMD`"
        }
        Manner::Crashed => {
            "start it again with `incumbent run --keep-stderr -- CMD`: then the next crash shows \
             what it wrote last"
        }
        Manner::Killed => {
            "nobody said why: find out who may have killed it, then start it again: `incumbent run \
             -- CMD`"
        }
        Manner::OutOfMemory => {
            "give it more memory (systemd: `MemoryMax=`, docker: `--memory`), then start it again: \
             `incumbent run -- CMD`"
        }
        Manner::Unseen => {
            "nobody saw how it ended: look into its own log, then start it again: `incumbent run \
             -- CMD`"
        }
        Manner::Asked => "nothing, or start it again: `incumbent run -- CMD`",
        Manner::Ended => "start it again: `incumbent run -- CMD`",
    };
    next.to_owned()
}

/// Whether what it wrote last to its standard error is on record.
fn has_last_words(end: &LastEnd) -> bool {
    end.detail.as_ref().is_some_and(|detail| detail.contains("stderr: "))
}

fn instead_of(refused: &RefusedStart) -> String {
    let other = match &refused.lock {
        Some(lock) => format!("give this profile another {}", lock.scope),
        None => "leave it".to_owned(),
    };
    match &refused.holder {
        Some(office) => format!(
            "{other}, or stop that one: `incumbent stop --profile {} --kind {}`",
            office.profile, office.kind
        ),
        None => format!("{other}, or see who holds it: `incumbent locks`"),
    }
}

/// The directory of the store, if its disk has no room for a start.
fn full_disk(db: &Path) -> Option<String> {
    let directory = db.parent()?;
    let left = sys::free_space(directory).ok()?;
    let has_room = left.bytes >= ROOM_TO_START && left.files.is_none_or(|(free, _)| free > 0);
    (!has_room).then(|| directory.display().to_string())
}
