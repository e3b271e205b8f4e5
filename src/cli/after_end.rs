//! Of an office that nobody holds: what happened, and what to do. The first two lines of `status`.

use std::path::{Path, PathBuf};

use crate::cli::output;
use crate::cli::output::{ago, since};
use crate::forensics::StartAgain;
use crate::status::{Desired, LastEnd, Manner, RefusedStart, Waiter};
use crate::sys::CoreDumps;
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
    let summary = summary(end);
    if is_dated(end) {
        return format!("{summary}{who}, {}", when(end));
    }
    let seen = seen_ms.map(|at_ms| format!("; last seen alive {}", ago(at_ms)));
    format!("{summary}{who}; {}{}", when(end), seen.unwrap_or_default())
}

/// The end in a few words, and of a crash what was written last, as far as one line goes.
fn summary(end: &LastEnd) -> String {
    const LINE_LENGTH_MAX: usize = 120;
    let line = end.last_line().filter(|_| end.manner() == Manner::Crashed);
    let Some(line) = line.map(str::trim) else { return end.summary.clone() };
    let cut = line.floor_char_boundary(LINE_LENGTH_MAX);
    let more = if cut < line.len() { "..." } else { "" };
    format!("{}: {}{more}", end.summary, &line[..cut])
}

/// Whether it is known when it was: it was recorded as it happened, or somebody waited for it.
fn is_dated(end: &LastEnd) -> bool {
    let is_watched = end.reason.is_found_dead() && end.exit_seen_at_ms.is_some();
    !end.is_found() && (end.at_ms.is_some() || is_watched)
}

/// `3 s ago`; of one whose end nobody saw, when that was noticed.
pub(super) fn when(end: &LastEnd) -> String {
    match end.ended_before_ms().map(ago) {
        Some(ago) if is_dated(end) => ago,
        Some(ago) if end.at_ms.is_some() => format!("found dead {ago}"),
        Some(_) | None => "found dead just now".to_owned(),
    }
}

/// What else is on record of an end, beside what the answer says: of what it wrote the last.
pub(super) fn more(end: &LastEnd, answer: &str) -> Option<String> {
    const LENGTH_MAX: usize = 160;
    let more = end.more()?;
    let Some(words) = end.last_words() else {
        return Some(more.to_owned()).filter(|more| !answer.contains(more));
    };
    let before = more.strip_suffix(words).unwrap_or_default();
    let before = before.trim_end_matches("stderr: ").trim_end_matches("; ");
    let mut words = output::one_line(words);
    if answer.contains(&words) {
        return Some(before.to_owned()).filter(|before| !before.is_empty());
    }
    let from = words.ceil_char_boundary(words.len().saturating_sub(LENGTH_MAX));
    if from > 0 {
        words.replace_range(..from, "...");
    }
    let before = if before.is_empty() { String::new() } else { format!("{before}; ") };
    Some(format!("{before}stderr: {words}"))
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
    Some(match (end.manner(), &start) {
        (Manner::Asked, _) => format!("no action needed. {}", again(&start, "To start it")),
        (manner, _) => match first_of_all(manner, end, &start, report) {
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

/// What comes before the next start.
fn first_of_all(
    manner: Manner,
    end: &LastEnd,
    start: &StartAgain,
    report: &Report,
) -> Option<String> {
    if let (Manner::Crashed, Some(signal)) = (manner, end.signal) {
        let pid = report.child_pid.or(report.pid);
        let first = after_fault(&sys::signal_name(signal), sys::core_dumps(), pid);
        if first.is_some() {
            return first;
        }
    }
    let output = match start {
        StartAgain::Supervisor { output, .. } => output.as_ref(),
        _ => None,
    };
    let first = match manner {
        Manner::Crashed if matches!(end.exit_code, Some(126 | 127)) => {
            "look at the path, the mode and the interpreter of the command"
        }
        Manner::Crashed if end.last_words().is_some() => "read what it wrote last",
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

/// What comes first where the kernel ended it for a fault of its own; `pid` was its process.
fn after_fault(signal: &str, dumps: CoreDumps, pid: Option<sys::Pid>) -> Option<String> {
    let first = match signal {
        "SIGSEGV" | "SIGABRT" | "SIGBUS" | "SIGILL" | "SIGFPE" | "SIGTRAP" => match (dumps, pid) {
            (CoreDumps::Systemd, Some(pid)) => {
                return Some(format!("see where it crashed: `coredumpctl info {pid}`"));
            }
            (CoreDumps::Systemd, None) => "see where it crashed: `coredumpctl list`",
            (CoreDumps::Files, _) => {
                "look for a file `core` in its directory; if there is none, `ulimit -c unlimited` \
                 before its start has the next crash leave one"
            }
            (CoreDumps::Elsewhere, _) => return None,
        },
        "SIGXCPU" => "it used all the CPU time that it may: raise that (`ulimit -t`, `LimitCPU=`)",
        "SIGXFSZ" => {
            "a file of its was about to grow too large: raise that limit (`ulimit -f`, \
             `LimitFSIZE=`)"
        }
        "SIGSYS" => {
            "it made a system call that it may not make: look at its seccomp filter \
             (`SystemCallFilter=`)"
        }
        _ => return None,
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Each group of signals has an advice of its own, and it fits the machine.
    #[test]
    fn what_comes_first_after_a_fault() {
        const FAULTS: [&str; 6] = ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP"];
        let dumps = [CoreDumps::Systemd, CoreDumps::Files, CoreDumps::Elsewhere];
        for signal in FAULTS {
            for (dumps, pid, words) in [
                (CoreDumps::Systemd, Some(7), Some("`coredumpctl info 7`")),
                (CoreDumps::Systemd, None, Some("`coredumpctl list`")),
                (CoreDumps::Files, Some(7), Some("`ulimit -c unlimited`")),
                (CoreDumps::Elsewhere, Some(7), None),
            ] {
                let first = after_fault(signal, dumps, pid);
                assert_eq!(first.is_some(), words.is_some(), "{signal} {dumps:?}");
                assert!(first.unwrap_or_default().contains(words.unwrap_or_default()), "{signal}");
            }
        }
        for dumps in dumps {
            for (signal, word) in
                [("SIGXCPU", "`ulimit -t`"), ("SIGXFSZ", "`ulimit -f`"), ("SIGSYS", "seccomp")]
            {
                let first = after_fault(signal, dumps, Some(7)).unwrap();
                assert!(first.contains(word), "{first}");
            }
            for signal in ["SIGTERM", "SIGKILL", "SIGHUP", "signal#64"] {
                assert_eq!(after_fault(signal, dumps, Some(7)), None, "{signal}");
            }
        }
        // None is forgotten that ends a program for a fault of its own.
        for signal in 1..=31 {
            let is_told = after_fault(&sys::signal_name(signal), CoreDumps::Files, None).is_some();
            assert_eq!(is_told, sys::signals::is_fault(signal), "{signal}");
        }
    }
}
