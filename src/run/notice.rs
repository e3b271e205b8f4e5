//! What a run tells while it goes on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::claim::examine::Evicted;
use crate::clock::{length, millis};
use crate::office::tenure::Replaced;
use crate::process::descendants::LeftOver;
use crate::sys::{ChildEnd, Pid, signal_name};
use crate::{Error, Holder, Office};

/// Something that the log of a run should have. Its text is one line, without a full stop. Times
/// and pids are those of the moment; later versions may tell more.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "`office` is the run's own, and each `pid` is named by its variant")]
pub enum Notice<'a> {
    /// The command was started, for the first time. From now on nobody may be waited for.
    Started { office: &'a Office, pid: u32 },
    /// This process is inside of the run that holds what it is about to wait for, or to take over.
    InOwnRun { office: &'a Office, pid: u32 },
    /// A signal ended the wait, and nothing was started. `holder` is who was in the way; it was
    /// `asked` to stop.
    NotStarted { office: &'a Office, signal: i32, holder: Option<&'a Holder>, asked: bool },
    /// So many starts of our party failed: the next one waits.
    Storm { starts: usize, wait: Duration },
    /// A holder was replaced.
    TookOver { office: &'a Office, from: &'a Replaced },
    /// What that one had started goes on.
    LeftOver { office: &'a Office, process: &'a LeftOver },
    /// A dead holder of `what`, the office or a lock, lost it to us.
    Evicted { what: &'a str, evicted: &'a Evicted },
    /// What that one had left in its session was ended.
    EndedRemains { what: &'a str, pid: u32 },
    /// What had left that session was not.
    LeftAlone { what: &'a str, pid: u32 },
    /// The unit that we are in gives less time to stop than the command has.
    ShortUnit { warning: String },
    /// A signal asked for an end: the line of its snapshot.
    Signalled { office: &'a Office, snapshot: String },
    /// The command is ended, to be started again; asked for `by` whom.
    Restarting { office: &'a Office, pid: u32, by: &'a str },
    /// It was, and the one before ended so.
    Restarted { office: &'a Office, pid: u32, by: &'a str, before: ChildEnd },
    /// It could not be yet.
    RestartDelayed { error: &'a Error },
    /// The command has ended, and what it had left in its session was ended as well.
    FamilyEnded { office: &'a Office, command: u32, pids: &'a [u32] },
    /// The same, but it was left alone, or could not be ended.
    FamilyLives { office: &'a Office, command: u32, pids: &'a [u32] },
    /// The command has ended, and this process, which had left its session, goes on.
    LeftSession { office: &'a Office, command: u32, process: &'a LeftOver },
    /// The command ended by itself with exit code 0 and left processes behind: it may have been a
    /// start script, or have executed itself again. [`Run::follow`](crate::run::Run::follow) is for
    /// such commands.
    MayBeFollowed { office: &'a Office, command: u32 },
    /// The command, which was pid `before`, has ended, and this process, which it had started, is
    /// the command now.
    Follows { office: &'a Office, process: &'a LeftOver, before: u32 },
    /// The command, which was pid `before` and has ended, had handed over to `pid`.
    HandedOver { office: &'a Office, pid: u32, before: u32 },
    /// The office was lost; `ending` is the command that is ended for it.
    Lost { office: &'a Office, why: &'a str, ending: Option<u32> },
    /// Our supervisor has asked for an end, and the command has not ended in half of its time.
    NotEnding { office: &'a Office, pid: u32, killed_in: Duration },
    /// The command had its time to stop.
    Killing,
    /// Something could not be found out or recorded; it is tried again, and told once.
    Doubt { what: &'a str },
    /// The store was lost, how, and the office is ours in the new one.
    NewStore { office: &'a Office, lost: &'a str },
    /// Somebody removed the lock file of the older program.
    OlderLockMadeAgain { office: &'a Office, path: &'a Path },
    /// The same of its record.
    OlderRecordRestored { office: &'a Office, path: PathBuf },
    /// That lock cannot be looked at.
    OlderLockFailed { office: &'a Office, error: &'a Error },
    /// How the run ended is not on record.
    EndNotRecorded { error: &'a Error },
}

impl Notice<'_> {
    /// What can be done about it, for a person; `None` where nothing is known.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        match self {
            Self::RestartDelayed { error } => error.hint(),
            _ => None,
        }
    }
}

impl fmt::Display for Notice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { office, pid } => {
                write!(f, "{office}: started the command (pid {pid})")
            }
            Self::NotStarted { office, signal, holder, asked } => {
                write!(f, "{office}: {}", not_started(*signal, *holder, *asked))
            }
            Self::Storm { starts, wait } => write!(
                f,
                "{starts} failed starts in a row: waiting {} before the next",
                length(millis(*wait))
            ),
            Self::TookOver { office, from } => {
                write!(f, "{office}: took over from {}", process(from.pid))?;
                if let Some(profile) = from.profile.as_ref().filter(|it| **it != office.profile) {
                    write!(f, " (profile {profile})")?;
                }
                f.write_str(if from.killed { ", which had to be killed" } else { "" })
            }
            Self::LeftOver { office, process } => write!(
                f,
                "{office}: pid {} ({}), which the old holder started, still runs",
                process.pid,
                process.command.as_deref().unwrap_or("its command cannot be read")
            ),
            Self::Evicted { what, evicted } => write!(
                f,
                "{what}: took the place of {}, which is dead ({})",
                process(evicted.pid),
                evicted.reason.in_words()
            ),
            Self::EndedRemains { what, pid } => {
                write!(f, "{what}: ended pid {pid}, which the old holder had left behind")
            }
            Self::LeftAlone { what, pid } => write!(
                f,
                "{what}: pid {pid} left the session of the old holder's command, and is left alone"
            ),
            Self::ShortUnit { warning } => f.write_str(warning),
            Self::Signalled { office, snapshot } => write!(f, "{office}: {snapshot}"),
            Self::Restarting { office, pid, by } => {
                write!(f, "{office}: restarting the command (pid {pid}), asked for by {by}")
            }
            Self::Restarted { office, pid, by, before } => {
                write!(f, "{office}: restarted the command (pid {pid}), asked for by {by}; the ")?;
                match before {
                    ChildEnd::Exited(code) => write!(f, "one before ended with exit code {code}"),
                    ChildEnd::Signalled(signal) => {
                        write!(f, "one before was ended by {}", signal_name(*signal))
                    }
                }
            }
            Self::RestartDelayed { error } => {
                write!(f, "the command cannot be restarted yet: {error}")
            }
            Self::FamilyEnded { .. }
            | Self::FamilyLives { .. }
            | Self::LeftSession { .. }
            | Self::Follows { .. }
            | Self::MayBeFollowed { .. }
            | Self::InOwnRun { .. } => self.fmt_of_family(f),
            Self::HandedOver { office, pid, before } => {
                write!(f, "{office}: the command (pid {before}) handed over to pid {pid}")
            }
            Self::Lost { office, why, ending } => {
                write!(f, "{office} was lost: {why}")?;
                ending.map_or(Ok(()), |pid| write!(f, "; ending the command (pid {pid})"))
            }
            Self::NotEnding { office, pid, killed_in } => write!(
                f,
                "{office}: the command (pid {pid}) was asked to end and has not; it is killed in \
                 {}",
                length(millis(*killed_in))
            ),
            Self::Killing => f.write_str("the stop budget is spent, killing the command"),
            Self::Doubt { what } => f.write_str(what),
            Self::NewStore { office, lost } => {
                write!(f, "{lost}; {office} is claimed again in the new one")
            }
            Self::OlderLockMadeAgain { office, path } => write!(
                f,
                "{office}: {} was removed or replaced; it was created and locked again",
                path.display()
            ),
            Self::OlderRecordRestored { office, path } => {
                write!(f, "{office}: {} was removed; it is written again", path.display())
            }
            Self::OlderLockFailed { office, error } => write!(
                f,
                "{office}: {error}; until that works, older gateways may not see this run"
            ),
            Self::EndNotRecorded { error } => write!(
                f,
                "the end could not be recorded ({error}); the office is free anyway, and the next \
                 claim records it"
            ),
        }
    }
}

impl Notice<'_> {
    /// What is told of those that a run is related to.
    fn fmt_of_family(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FamilyEnded { office, command, pids } => {
                let whose = format!("which the command (pid {command}) had left behind");
                write!(f, "{office}: ended {}, {whose}", named(pids))
            }
            Self::FamilyLives { office, command, pids } => {
                let (who, run) = (named(pids), if pids.len() == 1 { "runs" } else { "run" });
                let whose = format!("which the command (pid {command}) had started");
                write!(f, "{office}: {who}, {whose}, still {run}")
            }
            Self::LeftSession { office, command, process } => write!(
                f,
                "{office}: pid {} ({}) left the session of the command (pid {command}), and is \
                 left alone",
                process.pid,
                process.command.as_deref().unwrap_or("its command cannot be read")
            ),
            Self::Follows { office, process, before } => write!(
                f,
                "{office}: the command (pid {before}) has ended, and is followed by pid {} ({})",
                process.pid,
                process.command.as_deref().unwrap_or("its command cannot be read")
            ),
            Self::MayBeFollowed { office, command } => write!(
                f,
                "{office}: the command (pid {command}) ended with exit code 0, and left processes \
                 behind"
            ),
            Self::InOwnRun { office, pid } => write!(
                f,
                "{office}: this process is inside the run that holds it (pid {pid}), and ends with \
                 it"
            ),
            _ => Ok(()),
        }
    }
}

/// How things stand after a wait that a signal has ended.
fn not_started(signal: i32, holder: Option<&Holder>, asked: bool) -> String {
    let ended = format!("{} ended the wait, and nothing was started", signal_name(signal));
    match holder {
        Some(holder) if asked => {
            format!("{ended}: {} was asked to stop, and may end yet", process(holder.pid))
        }
        Some(holder) => format!("{ended}: {holder}"),
        None => ended,
    }
}

fn named(pids: &[u32]) -> String {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    format!("pid {}", pids.join(", "))
}

fn process(pid: Option<Pid>) -> String {
    pid.map_or_else(|| "a process".to_owned(), |pid| format!("pid {pid}"))
}
