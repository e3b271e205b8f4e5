//! Of an office that nobody holds: what happened, and what to do. The first two lines of `status`.

use std::path::{Path, PathBuf};

use crate::cli::output::{ago, since};
use crate::forensics::StartAgain;
use crate::status::{Desired, LastEnd, Manner, RefusedStart, Waiter};
use crate::{Reason, Report, sys};

/// With less than this a start may fail: the WAL and an anchor need as much, unless there is room
/// in the files already.
const ROOM_TO_START: u64 = 256 * 1024;

/// What is to be known of the place of the store.
#[derive(Debug)]
pub(super) enum Place {
    Usual,
    /// `--db` names one, and none is there.
    NoStore(PathBuf),
    /// The disk of this directory is full.
    FullDisk(PathBuf),
}

impl Place {
    /// `db` is where the store is, or will be; `misplaced` is what `--db` says in vain.
    pub(super) fn of(db: Option<&Path>, misplaced: Option<&Path>) -> Self {
        if let Some(path) = misplaced {
            return Self::NoStore(path.to_owned());
        }
        match db.and_then(full_disk) {
            Some(directory) => Self::FullDisk(directory),
            None => Self::Usual,
        }
    }
}

/// What became of the office, in a clause.
pub(super) fn happened(report: &Report, place: &Place) -> String {
    match place {
        Place::NoStore(path) => format!("there is no store at {}", path.display()),
        Place::FullDisk(directory) => format!(
            "no space left on the disk of {}; before that: {}",
            directory.display(),
            told(report)
        ),
        Place::Usual => told(report),
    }
}

fn told(report: &Report) -> String {
    if let Some(kept_out) = kept_out(report) {
        return kept_out;
    }
    match &report.last_end {
        Some(end) => ended(end, report.heartbeat_at_ms),
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

/// Whether that says how the last holder ended.
pub(super) fn tells_end(report: &Report) -> bool {
    report.last_end.is_some() && kept_out(report).is_none()
}

/// How and when it ended, who did it, and what for; `seen_ms` is its last sign of life.
pub(super) fn ended(end: &LastEnd, seen_ms: Option<i64>) -> String {
    let who = who_and_why(end);
    let summary = &end.summary;
    if !end.is_found() && end.at_ms.is_some() {
        return format!("{summary}{who}, {}", when(end));
    }
    let seen = seen_ms.map(|at_ms| format!("; last seen alive {}", ago(at_ms)));
    format!("{summary}{who}; {}{}", when(end), seen.unwrap_or_default())
}

/// `3 s ago`; of one whose end nobody saw, when that was noticed.
pub(super) fn when(end: &LastEnd) -> String {
    match end.at_ms.map(ago) {
        Some(ago) if end.is_found() => format!("found dead {ago}"),
        Some(ago) => ago,
        None => "found dead just now".to_owned(),
    }
}

/// Who ended it, and what for.
pub(super) fn who_and_why(end: &LastEnd) -> String {
    // Who released it has not let it crash after that.
    if end.reason == Reason::Released && end.manner() == Manner::Crashed {
        return String::new();
    }
    // The words before it may have a "by" of their own.
    let word = match end.reason {
        Reason::Evicted => ":",
        Reason::Signalled => ", from",
        _ if end.summary.contains(", ") => ", by",
        _ => " by",
    };
    let by = end.by.as_ref().map(|by| format!("{word} {by}")).unwrap_or_default();
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

/// What a person does next; `None` where that was said already.
pub(super) fn what_to_do(report: &Report, place: &Place) -> Option<String> {
    match place {
        // A start would make a second store.
        Place::NoStore(_) => return None,
        Place::FullDisk(directory) => {
            return Some(format!(
                "{}; then {}",
                make_room(directory),
                again(&StartAgain::of(report), "start it")
            ));
        }
        Place::Usual => {}
    }
    if let Some(waiter) = report.waiters.first() {
        let holder =
            if waiter.lock.is_some() { "; who has that lock: `incumbent locks`" } else { "" };
        let waits = waits(waiter);
        return Some(format!("do not start another one: {waits}, and starts then{holder}"));
    }
    if let Some(refused) = newest_refusal(report) {
        return Some(instead_of(refused));
    }
    let start = StartAgain::of(report);
    if report.desired == Some(Desired::Stopped) {
        return Some(format!(
            "it is set to stay stopped; to start it: `incumbent desired running`, then {}",
            again(&start, "start it")
        ));
    }
    let Some(end) = &report.last_end else { return Some(again(&start, "start it")) };
    if let Some(pid) = goes_on_without(report, end) {
        return Some(format!(
            "pid {pid} still runs, without the office: end it first (`kill {pid}`), then {}",
            again(&start, "start it")
        ));
    }
    Some(match (end.manner(), &start) {
        (Manner::Asked, _) => format!("no action needed. {}", again(&start, "To start it")),
        (manner, _) => match first_of_all(manner, end, &start) {
            Some(first) => format!("{first}, then {}", again(&start, "start it again")),
            None if manner == Manner::Crashed => {
                "start it again with `incumbent run --keep-stderr -- CMD`: then the next crash \
                 shows what it wrote last"
                    .to_owned()
            }
            None => again(&start, "start it again"),
        },
    })
}

/// The process of a record that was ended by hand, if it still runs. A `run` ends by itself.
fn goes_on_without(report: &Report, end: &LastEnd) -> Option<u32> {
    let pid = report.pid.filter(|_| end.reason == Reason::Evicted)?;
    let found = sys::process_facts(pid);
    let is_it = report.start_time.is_some() && found.start_time == report.start_time;
    let is_there = is_it && found.state != sys::ProcessState::Zombie;
    (is_there && report.restarts.is_none()).then_some(pid)
}

/// What comes before the next start.
fn first_of_all(manner: Manner, end: &LastEnd, start: &StartAgain) -> Option<String> {
    let output = match start {
        StartAgain::Supervisor { output, .. } => output.as_ref(),
        _ => None,
    };
    let first = match manner {
        Manner::Crashed if matches!(end.exit_code, Some(126 | 127)) => {
            "look at the path, the mode and the interpreter of the command"
        }
        Manner::Crashed if end.last_words().is_some() => "read what it wrote last, below",
        Manner::Crashed | Manner::Unseen if output.is_some() => {
            return output.map(|output| format!("read what it wrote (`{output}`)"));
        }
        Manner::Crashed if *start == StartAgain::Run => return None,
        Manner::Crashed => "look into its own log",
        Manner::Killed => "nobody said why: find out who may have killed it",
        Manner::OutOfMemory => "give it more memory (systemd: `MemoryMax=`, docker: `--memory`)",
        Manner::Unseen => "nobody saw how it ended: look into its own log",
        Manner::Asked | Manner::Ended => return None,
    };
    Some(first.to_owned())
}

/// How it is started again, as it was started before; `start_it` are the words for that.
fn again(start: &StartAgain, start_it: &str) -> String {
    match start {
        StartAgain::Run => format!("{start_it}: `incumbent run -- CMD`"),
        StartAgain::Supervisor { start, .. } => format!("{start_it}: `{start}`"),
        StartAgain::Container => {
            format!("{start_it}: start its container, or, within that, `incumbent run -- CMD`")
        }
        StartAgain::Script => format!("{start_it}: start the script again that claimed it"),
        StartAgain::Program => format!("{start_it}: start its program"),
    }
}

fn instead_of(refused: &RefusedStart) -> String {
    let other = match &refused.lock {
        Some(lock) => format!("give this profile another {}", lock.scope),
        None => "leave it".to_owned(),
    };
    match &refused.holder {
        Some(office) => {
            format!("{other}, or stop that one: `incumbent {}`", office.verb("stop"))
        }
        None => format!("{other}, or see who holds it: `incumbent locks`"),
    }
}

/// What to do about a full disk.
pub(super) fn make_room(directory: &Path) -> String {
    format!(
        "free some space on the disk of {} first: a start may fail until then",
        directory.display()
    )
}

/// The directory of the store, if its disk may have no room for a start.
fn full_disk(db: &Path) -> Option<PathBuf> {
    let directory = db.parent()?;
    let left = sys::free_space(directory).ok()?;
    let has_room = left.bytes >= ROOM_TO_START && left.files.is_none_or(|(free, _)| free > 0);
    (!has_room).then(|| directory.to_owned())
}
