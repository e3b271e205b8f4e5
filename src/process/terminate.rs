//! Ends a process that a caller names, proven on its pidfd or handle each time.

use std::io;
use std::time::Duration;

use crate::error::with_clear_sight;
use crate::liveness::Ruling;
use crate::process::reference::{ProcessRef, cannot_tell};
use crate::sys::{Proven, Unproven};
use crate::{Error, ErrorKind, Result};

/// How long a killed process may take to be gone: the kernel may be busy with its memory, or it
/// waits for a disk.
pub(super) const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// What becomes of a process that has not ended when its time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AfterBudget {
    /// It goes on.
    LetRun,
    /// SIGKILL, `TerminateProcess`.
    Kill,
}

/// What [`terminate`] came to. In JSON its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Terminated {
    /// It had ended before: nothing was done, also not to a process that has its pid by now.
    WasGone,
    /// It ended when it was asked to.
    Ended,
    /// It was killed.
    Killed,
    /// It still runs. Of a killed one: the kernel has not finished with it within 5 s.
    StillRuns,
}

impl Terminated {
    /// `was_gone`, `ended`, `killed` or `still_runs`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WasGone => "was_gone",
            Self::Ended => "ended",
            Self::Killed => "killed",
            Self::StillRuns => "still_runs",
        }
    }
}

/// Ends a process: SIGTERM, up to `budget` for it to end (zero: none), then what `after` says. A
/// stopped process also gets SIGCONT, or it would not see the request. Returns as soon as it has
/// ended, woken by the kernel; with [`AfterBudget::Kill`] up to 5 s after the budget.
///
/// Each signal goes through a pidfd (Windows: a process handle) that is proven to be the process
/// that was named, by the kernel's number or its start time: another process with its pid gets
/// none. What it has started lives on, see [`terminate_tree`](super::terminate_tree). A child of
/// ours stays a zombie until we wait for it.
///
/// Nothing but the reference is asked, so its text directs a signal: as root, take it only from a
/// place that no other user can write to.
///
/// ```
/// use incumbent::process::{AfterBudget, ProcessRef, Terminated, terminate};
/// use std::time::Duration;
///
/// let mut child = std::process::Command::new("sleep").arg("60").spawn()?;
/// let worker = ProcessRef::of(child.id())?;
/// # if cfg!(windows) { child.kill()?; }
/// # else {
/// let ended = terminate(&worker, Duration::from_secs(10), AfterBudget::Kill)?;
/// assert_eq!(ended, Terminated::Ended);
/// # }
/// child.wait()?;
/// let again = terminate(&worker, Duration::from_secs(10), AfterBudget::Kill)?;
/// assert_eq!(again, Terminated::WasGone);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Platform
/// Windows has nothing that asks a process to end: there [`AfterBudget::Kill`] ends it at once, and
/// [`AfterBudget::LetRun`] is an error. macOS, and Linux before 5.3, have no pidfd: there the start
/// time is compared right before each signal.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for this process, an ancestor of it, and pid 1;
/// [`Permission`](ErrorKind::Permission) if the system does not let us signal it;
/// [`Unsupported`](ErrorKind::Unsupported) where it is unknown whether it is alive (another pid
/// namespace, a hidden process), and on Windows as above; [`Busy`](ErrorKind::Busy) when this
/// process ran short of descriptors or memory. After an error nothing was signalled, unless it is
/// `Permission` for the second signal.
pub fn terminate(process: &ProcessRef, budget: Duration, after: AfterBudget) -> Result<Terminated> {
    let Some(proven) = prove(process)? else { return Ok(Terminated::WasGone) };
    match ask(&proven, after)? {
        Asked::HadEnded => return Ok(Terminated::WasGone),
        Asked::Yes if proven.wait_ended(budget) => return Ok(Terminated::Ended),
        Asked::Yes | Asked::NotHere => {}
    }
    match after {
        AfterBudget::LetRun => Ok(Terminated::StillRuns),
        AfterBudget::Kill => kill(&proven),
    }
}

/// The named process, pinned and proven; `None` if it has ended.
pub(super) fn prove(process: &ProcessRef) -> Result<Option<Proven>> {
    let judged = process.is_alive()?;
    let pid = process.pid();
    match judged.ruling {
        Ruling::Dead(_) => return Ok(None),
        Ruling::Unknown(_) => {
            return Err(cannot_tell(format!(
                "cannot tell whether pid {pid} is still that process"
            )));
        }
        Ruling::Alive(_) => {}
    }
    let what = || format!("prove that pid {pid} is still that process");
    match with_clear_sight(what, || Ok(process.prove()))? {
        Ok(proven) => Ok(Some(proven)),
        // It has ended since.
        Err(Unproven::Gone) => Ok(None),
        Err(why @ (Unproven::Ourselves | Unproven::Ancestor | Unproven::Reserved)) => {
            Err(Error::invalid(format!("the process with pid {pid} is not ended from here: {why}"))
                .with_hint("name a process that this one does not depend on"))
        }
        Err(why @ Unproven::Denied(_)) => Err(denied(pid, &why)),
        Err(
            why @ (Unproven::Unknown
            | Unproven::Elsewhere
            | Unproven::Copied
            | Unproven::NotOfTheUser(_)
            | Unproven::OfSeveralUsers),
        ) => Err(cannot_tell(format!("cannot end the process with pid {pid}: {why}"))),
    }
}

/// Whether a process was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Yes,
    /// There is nothing to ask with.
    NotHere,
    HadEnded,
}

pub(super) fn ask(process: &Proven, after: AfterBudget) -> Result<Asked> {
    match process.ask_to_end() {
        Ok(()) => Ok(Asked::Yes),
        Err(_) if process.has_ended() => Ok(Asked::HadEnded),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => match after {
            AfterBudget::Kill => Ok(Asked::NotHere),
            AfterBudget::LetRun => Err(Error::new(
                ErrorKind::Unsupported,
                "there is no signal here that asks a process to end",
            )
            .with_hint("use AfterBudget::Kill, or ask the process in a way of its own")),
        },
        Err(error) => Err(denied(process.pid(), &error)),
    }
}

pub(super) fn kill(process: &Proven) -> Result<Terminated> {
    process.kill().map_err(|error| denied(process.pid(), &error))?;
    let is_gone = process.wait_ended(KILLED_WITHIN);
    Ok(if is_gone { Terminated::Killed } else { Terminated::StillRuns })
}

fn denied(pid: u32, why: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Permission, format!("cannot signal the process with pid {pid}: {why}"))
        .with_hint("do it as the user that the process belongs to")
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests talk to themselves by the environment")]
mod tests {
    use std::io::Read;
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::process::{Existence, Fact, command_line, exists, start_time};

    const HELPER: &str = "INCUMBENT_TEST_TERMINATE_HELPER";

    /// No test by itself: a process that lives until its input ends.
    #[test]
    fn helper() {
        if std::env::var(HELPER).is_ok() {
            let _ = io::stdin().read_to_end(&mut Vec::new());
        }
    }

    struct Guard(Child);

    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn spawn() -> Guard {
        let helper = concat!(module_path!(), "::helper").split_once("::").unwrap().1;
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", helper, "--nocapture"])
            .env(HELPER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        Guard(child.unwrap())
    }

    /// FIELD-BUGS row 88: a start crashed on a stale pid, or its probe, signal 0, sent Ctrl+C to
    /// the whole console group. Here nothing is sent to look, on any platform, and a pid whose
    /// process has ended is an answer.
    #[test]
    fn a_child_is_looked_at_ended_and_looked_at_again() {
        let child = spawn();
        let pid = child.0.id();
        assert_eq!(exists(pid).unwrap(), Existence::Present);
        assert!(matches!(start_time(pid).unwrap(), Fact::Known(_)));
        let process = ProcessRef::of(pid).unwrap();
        assert_eq!(process.start_time(), start_time(pid).unwrap().known());
        assert!(matches!(process.is_alive().unwrap().ruling, Ruling::Alive(_)));
        // It may be between its start and its program for a moment: that is no answer yet.
        let words = loop {
            match command_line(pid).unwrap() {
                Fact::Unknown => std::thread::sleep(Duration::from_millis(1)),
                words => break words.known().unwrap(),
            }
        };
        assert_eq!(words.len(), 4, "{words:?}");

        let ended = terminate(&process, Duration::ZERO, AfterBudget::Kill).unwrap();
        assert!(matches!(ended, Terminated::Ended | Terminated::Killed), "{ended:?}");
        assert!(matches!(process.is_alive().unwrap().ruling, Ruling::Dead(_)));
        assert_eq!(exists(pid).unwrap(), Existence::Gone);
        assert_eq!(start_time(pid).unwrap(), Fact::Gone);
        assert_eq!(command_line(pid).unwrap(), Fact::Gone);
        let again = terminate(&process, Duration::ZERO, AfterBudget::Kill).unwrap();
        assert_eq!(again, Terminated::WasGone);
    }

    #[test]
    fn this_process_is_never_ended() {
        let error = terminate(&ProcessRef::current().unwrap(), Duration::ZERO, AfterBudget::Kill);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
