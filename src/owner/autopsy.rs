//! How an incarnation ended, told from what it and the kernel left behind.
//!
//! A process that is killed writes nothing. `explain` is called both to record an end and only to
//! ask, so that a question shows what the next writer will record. It asks in this order: the
//! marker of a request; the kernel's log naming its pid; its own last word that it has not
//! survived; the `oom_kill` counter of its memory cgroup; how it was found.
//!
//! An open or consumed marker that has not expired turns `released`, `exited`, `signalled` and
//! "found dead" into `planned_stop` or `taken_over`. A crash stays a crash; a taker that died has
//! taken nothing over; a kill after a stop that gave up is nobody's plan.
//!
//! The counter is recorded with the row and compared. Unmoved, nobody of the group was killed, and
//! the log (slow, and read under the write lock) is not asked. A group with another inode was made
//! again, as systemd does, and then only the log can tell.
//!
//! A release within the stop budget after a signal is the end by that signal. SIGHUP, but from a
//! closed terminal, may mean "read your configuration again", and explains nothing. A sender that
//! cannot be named is not an `ended_by`: the reason is in `detail`.

use std::fmt;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use crate::clock::{length, millis, of_millis};
use crate::environment::{Fault, planted};
use crate::liveness::{AnchorState, DeadReason};
use crate::names::MarkerName;
use crate::process::{anchor, subject};
use crate::records::shutdowns::{LastWord, Word};
use crate::records::{End, EndReason, events, instances, markers, runtime, shutdowns};
use crate::store::{Inner, What};
use crate::sys::{KernelLog, MemoryGroup, StartTime, StartTimeUnit};
use crate::{Error, InstanceId, Result, stop_budget, sys};

/// SIGKILL, and what stands for it elsewhere.
const KILL: i32 = 9;

/// The end of `id` as far as it can be explained; `how` is how it was found or recorded. Reads
/// only.
pub(crate) fn explain(
    connection: &Connection,
    inner: &Inner,
    id: InstanceId,
    how: &End,
) -> Result<End> {
    let mut end = explain_reason(connection, inner, id, how)?;
    if end.reason.may_be_cut_short() && runtime::is_starting(connection, id)? {
        let detail = end.detail.take().map_or_else(String::new, |detail| format!("; {detail}"));
        end.detail = Some(format!("while it was starting{detail}"));
    }
    Ok(end)
}

fn explain_reason(
    connection: &Connection,
    inner: &Inner,
    id: InstanceId,
    how: &End,
) -> Result<End> {
    let how = match as_asked(connection, inner, id, how)? {
        Asked::For(end) => return Ok(end),
        Asked::GivenUp(end) => end,
        Asked::Not => how.clone(),
    };
    let end = match Left::read(connection, inner, id, &how)? {
        Some(left) => left.explain(&how),
        None => how,
    };
    with_sender(connection, id, end)
}

/// Names who sent the signal that ended it, where that was `incumbent signal`: the kernel tells a
/// process that a default action ends of no sender.
fn with_sender(connection: &Connection, id: InstanceId, end: End) -> Result<End> {
    let Some(signal) = end.signal.filter(|it| *it != KILL && end.by.is_none()) else {
        return Ok(end);
    };
    let is_by_signal =
        matches!(end.reason, EndReason::Signalled | EndReason::Crashed | EndReason::Dead(_));
    if !is_by_signal || end.exit_code.is_some() {
        return Ok(end);
    }
    let name = sys::signal_name(signal);
    // `incumbent signal` does not send these, and every event would be looked at for nothing.
    if ["SIGTERM", "SIGINT", "SIGQUIT"].contains(&name.as_str()) {
        return Ok(end);
    }
    let Some(row) = Row::read(connection, id)? else { return Ok(end) };
    for (pid, _) in row.processes {
        if let Some(by) = events::sender_of(connection, id, pid, &name)? {
            return Ok(End { by: Some(by), ..end });
        }
    }
    Ok(end)
}

/// What a marker says of an end.
enum Asked {
    /// Somebody asked for it.
    For(End),
    /// Somebody had asked for it, and wanted it no more: that is to be told, and explains nothing.
    GivenUp(End),
    Not,
}

/// The end as it was asked for, if it was: a marker says more than the way it came about.
fn as_asked(connection: &Connection, inner: &Inner, id: InstanceId, how: &End) -> Result<Asked> {
    if !how.reason.may_have_been_asked_for() || !markers::exists(connection)? {
        return Ok(Asked::Not);
    }
    let Some(marker) = markers::asked_end(connection, inner.boot_time(), id)? else {
        return Ok(Asked::Not);
    };
    let is_takeover = marker.name.as_str() == MarkerName::TAKEOVER;
    // A taker that died has left an office that somebody has to fill; and whoever gave up waiting
    // has not killed anybody.
    let gone = match marker.requester {
        Some(requester) if is_takeover || how.signal == Some(KILL) => {
            !is_waiting(connection, inner, requester)?
        }
        Some(_) | None => false,
    };
    if gone && !planted(Fault::GivenUpStopExplains) {
        let given_up = format!("a {} by {} was abandoned", marker.name, marker.by);
        let detail = Some(match &how.detail {
            Some(more) => format!("{given_up}; {more}"),
            None => given_up,
        });
        return Ok(Asked::GivenUp(End { detail, ..how.clone() }));
    }
    let reason = if is_takeover { EndReason::TakenOver } else { EndReason::PlannedStop };
    // Who found it dead is nothing beside who asked for it, and why.
    let found_dead = matches!(how.reason, EndReason::Dead(_));
    let detail = marker.reason.or(how.detail.clone().filter(|_| !found_dead));
    Ok(Asked::For(End { reason, by: Some(marker.by), detail, ..how.clone() }))
}

/// Whether the process of a waiting row lives, by the kernel's word.
fn is_waiting(connection: &Connection, inner: &Inner, id: InstanceId) -> Result<bool> {
    let row = instances::standing(connection, id)?.filter(|row| row.ended.is_none());
    let anchor = row.and_then(|row| row.anchor);
    Ok(anchor.is_some_and(|name| {
        anchor::look(&inner.location.anchors, &name, None) == AnchorState::Held
    }))
}

/// What an incarnation and the kernel left behind.
#[derive(Debug)]
struct Left {
    signal: Option<RecentWord>,
    panic: Option<RecentWord>,
    stop_budget: Duration,
    /// What the kernel says of its killing for want of memory.
    out_of_memory: Option<OutOfMemory>,
}

/// A last word that was not survived.
#[derive(Debug)]
struct RecentWord {
    id: i64,
    said: LastWord,
    /// How long ago that was; `None`: under another boot.
    ago: Option<Duration>,
    /// The process wrote it itself, and would have noted by now if it had survived it.
    is_its_own: bool,
}

/// Why a shortage of memory is suspected.
#[derive(Debug)]
enum OutOfMemory {
    /// The kernel's log names it.
    Named(String),
    /// The kernel has killed somebody of its memory cgroup since it started.
    Counted(String),
}

impl Left {
    /// `None` where nothing could explain an end like this one, or nothing is known.
    fn read(
        connection: &Connection,
        inner: &Inner,
        id: InstanceId,
        how: &End,
    ) -> Result<Option<Self>> {
        let was_killed = match how.reason {
            // Only a process that has said something can have ended by that; a verb acts for
            // another.
            EndReason::Released | EndReason::Panicked
                if inner.last_words.has_said_something() || how.by.is_some() =>
            {
                false
            }
            EndReason::Signalled if how.signal == Some(KILL) && how.by.is_none() => true,
            EndReason::Dead(DeadReason::LeaseExpired) => false,
            // Where the kernel told how it ended, memory has killed only who got that signal.
            EndReason::Dead(_) => how.exit_code.is_none() && how.signal.is_none_or(|it| it == KILL),
            _ => return Ok(None),
        };
        if !shutdowns::exists(connection)? {
            return Ok(None);
        }
        let Some(row) = Row::read(connection, id)? else { return Ok(None) };
        let last = |what| {
            let word = shutdowns::last_word(connection, id, what)?;
            Ok::<_, Error>(word.map(|word| row.last_word(word, inner)))
        };
        // Another machine's, boot's or namespace's counters and pids are not its own.
        let observer = inner.observer();
        let is_here = observer.boot_id.is_some()
            && row.boot_id == observer.boot_id
            && row.pid_ns == observer.pid_ns;
        Ok(Some(Self {
            signal: last(What::Signal)?,
            panic: last(What::Panic)?,
            stop_budget: row.stop_budget,
            out_of_memory: (was_killed && is_here).then(|| row.out_of_memory()).flatten(),
        }))
    }

    fn explain(&self, how: &End) -> End {
        match how.reason {
            EndReason::Released => self.release(how),
            EndReason::Panicked => match &self.panic {
                Some(panic) => End { detail: Some(panic.to_string()), ..how.clone() },
                None => how.clone(),
            },
            EndReason::Dead(DeadReason::Rebooted) => match self.newest() {
                Some(word) => with_detail(how, how.reason, &format!("before that: {word}")),
                None => how.clone(),
            },
            _ => self.death(how),
        }
    }

    fn newest(&self) -> Option<&RecentWord> {
        [&self.signal, &self.panic].into_iter().flatten().max_by_key(|word| word.id)
    }

    /// Who lets go in peace has survived its panics; and follows the signal that came just before.
    fn release(&self, how: &End) -> End {
        let is_recent = |word: &&RecentWord, within| word.ago.is_some_and(|ago| ago <= within);
        let panic = self.panic.as_ref().filter(|word| is_recent(word, self.stop_budget));
        let how = match panic {
            Some(panic) => {
                let ago = panic.ago.unwrap_or_default();
                let told = format!("{panic}, {} before", length(millis(ago)));
                with_detail(how, how.reason, &told)
            }
            None => how.clone(),
        };
        let deadline = stop_budget::deadline(self.stop_budget);
        match self.signal.as_ref().filter(|word| is_recent(word, deadline)) {
            Some(RecentWord {
                said: LastWord::Signal { number, sender, unknown_because }, ..
            }) => {
                let end = End { signal: Some(*number), by: sender.clone(), ..how };
                match unknown_because {
                    Some(why) => with_detail(&end, EndReason::Signalled, why),
                    None => End { reason: EndReason::Signalled, ..end },
                }
            }
            Some(_) | None => how,
        }
    }

    fn death(&self, how: &End) -> End {
        match &self.out_of_memory {
            Some(OutOfMemory::Named(killed)) => {
                let told = format!("the kernel's log says: {killed}");
                return with_detail(how, EndReason::OomSuspected, &told);
            }
            Some(OutOfMemory::Counted(_)) | None => {}
        }
        let newest = self.newest().filter(|_| how.reason != EndReason::Signalled);
        let explains = |word: &&RecentWord| {
            let deadline = stop_budget::deadline(self.stop_budget);
            word.is_its_own || word.ago.is_some_and(|ago| ago <= deadline)
        };
        if let Some(word) = newest.filter(explains) {
            return self.death_by(word, how);
        }
        let how = match newest.and_then(|word| Some((word, word.ago?))) {
            Some((word, ago)) => {
                with_detail(how, how.reason, &format!("{word}, {} before", length(millis(ago))))
            }
            None => how.clone(),
        };
        match &self.out_of_memory {
            Some(OutOfMemory::Counted(told)) => with_detail(&how, EndReason::OomSuspected, told),
            Some(OutOfMemory::Named(_)) | None => how,
        }
    }

    fn death_by(&self, word: &RecentWord, how: &End) -> End {
        let LastWord::Signal { number, sender, unknown_because } = &word.said else {
            let after = self.signal.as_ref().map(|signal| format!(", after {signal}"));
            let detail = Some(format!("{word}{}", after.unwrap_or_default()));
            return End { reason: EndReason::Panicked, detail, ..how.clone() };
        };
        let ago =
            word.ago.map_or_else(String::new, |ago| format!(" {} before", length(millis(ago))));
        let name = sys::signal_name(*number);
        let never = format!("it got {name}{ago}, and did not release the office");
        // What the kernel said of it, where it said something.
        let signal = how.signal.or(Some(*number));
        let end = End { signal, by: sender.clone(), ..how.clone() };
        let end = with_detail(&end, EndReason::Signalled, &never);
        match unknown_because {
            Some(why) => with_detail(&end, EndReason::Signalled, why),
            None => end,
        }
    }
}

/// The end for this reason, with more to be told of it.
fn with_detail(how: &End, reason: EndReason, told: &str) -> End {
    let detail = Some(match &how.detail {
        Some(more) => format!("{told}; {more}"),
        None => told.to_owned(),
    });
    End { reason, detail, ..how.clone() }
}

impl fmt::Display for RecentWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.said {
            LastWord::Panic { message, place: Some(place) } => write!(f, "{message} at {place}"),
            LastWord::Panic { message, place: None } => f.write_str(message),
            LastWord::Signal { number, sender: Some(sender), .. } => {
                write!(f, "{} from {sender}", sys::signal_name(*number))
            }
            LastWord::Signal { number, .. } => f.write_str(&sys::signal_name(*number)),
        }
    }
}

/// What a row of `instances` says beside what decides.
#[derive(Debug)]
struct Row {
    processes: Vec<(sys::Pid, Option<StartTime>)>,
    boot_id: Option<String>,
    pid_ns: Option<String>,
    stop_budget: Duration,
    memory: Option<(MemoryGroup, u64)>,
}

impl Row {
    fn read(connection: &Connection, id: InstanceId) -> Result<Option<Self>> {
        const SQL: &str = "SELECT pid, start_time, child_pid, child_start_time, start_time_unit,
                boot_id, pid_ns, stop_budget_ms, memory_cgroup, memory_cgroup_inode, oom_kills
             FROM instances WHERE id = ?1";
        let row = connection
            .prepare_cached(SQL)?
            .query_row([id.as_i64()], |row| {
                // A value of another type reads as absent.
                let number = |index| row.get::<_, Option<i64>>(index).unwrap_or(None);
                let text = |index| row.get::<_, Option<String>>(index).unwrap_or(None);
                let unit = text(4).and_then(|unit| StartTimeUnit::parse(&unit));
                let process = |pid, start| {
                    let start = number(start).zip(unit);
                    let start = start.map(|(value, unit)| StartTime { value, unit });
                    Some((subject::valid_pid(number(pid)?)?, start))
                };
                let kills = number(10).and_then(|kills| u64::try_from(kills).ok());
                Ok(Self {
                    processes: process(0, 1).into_iter().chain(process(2, 3)).collect(),
                    boot_id: text(5),
                    pid_ns: text(6),
                    stop_budget: stop_budget::believed(number(7).map(of_millis)),
                    memory: text(8)
                        .and_then(|directory| MemoryGroup::recorded(directory, number(9)))
                        .zip(kills),
                })
            })
            .optional()?;
        Ok(row)
    }

    fn last_word(&self, word: Word, inner: &Inner) -> RecentWord {
        let now = inner.boot_time();
        let is_of_this_boot = word.boot_id.is_some() && word.boot_id.as_deref() == now.boot_id;
        let age_ms = word.at_boot_ms.filter(|_| is_of_this_boot).map(|at_ms| now.ms - at_ms);
        let is_own = |(pid, _): &(sys::Pid, _)| word.pid == Some(i64::from(*pid));
        RecentWord {
            id: word.id,
            // Ahead of this clock: nobody of ours wrote that.
            ago: age_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis),
            is_its_own: self.processes.iter().any(is_own),
            said: word.said,
        }
    }

    /// A group that was removed and made anew, as systemd does, counts from 0 again; then, and
    /// without a group, only the log can tell.
    fn out_of_memory(&self) -> Option<OutOfMemory> {
        let more = self.memory.as_ref().and_then(|(group, before)| {
            Some((group.oom_kills().ok()?.checked_sub(*before)?, &group.directory))
        });
        match more {
            // Most of the dead: nobody of its group was killed.
            Some((0, _)) => None,
            more => match (sys::details::killed_for_memory(&self.processes), more) {
                (KernelLog::Killed(text), _) => Some(OutOfMemory::Named(text)),
                // Somebody else of its group.
                (KernelLog::Spared, _) | (KernelLog::Unknown, None) => None,
                (KernelLog::Unknown, Some((more, directory))) => {
                    Some(OutOfMemory::Counted(format!(
                        "memory ran out: the kernel has killed {more} process(es) of its cgroup \
                         {directory} since it started"
                    )))
                }
            },
        }
    }
}
