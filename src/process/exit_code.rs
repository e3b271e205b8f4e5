//! Exit codes: what a supervisor is to make of an end.
//!
//! A supervisor sees one number, and each reads it differently: systemd's `Restart=on-failure`,
//! launchd's `SuccessfulExit`, a `finish` script of s6 and docker's `on-failure` all start again
//! after anything but 0. So an end that somebody wanted is 0, and an end that nobody announced is
//! not, whatever the gateway itself made of the signal. `run --respect-desired` tells a supervisor
//! 0, and everybody else 75: to be kept stopped is not a failure that asks for another start.

use std::str::FromStr;

use crate::names::unknown;
use crate::words::words;
use crate::{Error, Result, environment, sys};

words! {
    /// Who starts this process again. In JSON its word, which `FromStr` reads.
    ///
    /// ```
    /// use incumbent::exit::Supervisor;
    ///
    /// let ours = Supervisor::of_this_process();
    /// assert_eq!(ours.as_str().parse::<Supervisor>()?, ours);
    /// # Ok::<(), incumbent::Error>(())
    /// ```
    #[non_exhaustive]
    pub enum Supervisor {
        /// A systemd service, whose main process this is.
        Systemd = "systemd",
        /// A launchd job.
        Launchd = "launchd",
        /// An s6 service.
        S6 = "s6",
        /// The container's first process, or the one that its init started.
        Docker = "docker",
        /// Nobody, or nobody that is known here.
        None = "none",
    }
}

impl Supervisor {
    /// What supervises this process, by what can be seen of it and of its parent. A shell that was
    /// started in a service is not supervised by it, although it has its `INVOCATION_ID`.
    #[must_use]
    pub fn of_this_process() -> Self {
        let pid = std::process::id();
        let supervision = sys::supervision(pid);
        let parent = sys::process_facts(pid).parent;
        let parents_name = parent.and_then(sys::program_name);
        let parent_is = |name: &str| parents_name.as_deref() == Some(name);
        if supervision.systemd_service.is_some()
            && (is_executed_by_systemd(pid) || parent_is("systemd"))
        {
            Self::Systemd
        } else if supervision.launchd_label.is_some() && parent == Some(1) {
            Self::Launchd
        } else if parent_is("s6-supervise") {
            Self::S6
        } else if supervision.container.is_some() && (pid == 1 || parent == Some(1)) {
            Self::Docker
        } else {
            Self::None
        }
    }
}

/// Whether systemd executed `pid` itself (systemd.exec(5), since version 248), and not somebody who
/// only inherited the variable.
pub(crate) fn is_executed_by_systemd(pid: sys::Pid) -> bool {
    environment::text("SYSTEMD_EXEC_PID").is_some_and(|exec| exec == pid.to_string())
}

impl FromStr for Supervisor {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        Self::parse(word).ok_or_else(|| unknown("supervisor", word, Self::ALL))
    }
}

words! {
    /// Why a gateway ends, as far as its supervisor should care. In JSON its word, which `FromStr`
    /// reads.
    #[non_exhaustive]
    pub enum ExitCause {
        /// Somebody stopped it on purpose (marker `planned_stop`).
        PlannedStop = "planned_stop",
        /// Somebody else took its office over (marker `takeover`).
        TakenOver = "taken_over",
        /// Its own supervisor sent the signal, or somebody at the terminal that it runs on in the
        /// foreground pressed Ctrl-C.
        SupervisorStop = "supervisor_stop",
        /// Somebody sent a signal and announced nothing.
        Signalled = "signalled",
        /// The same, while it said that it was `starting`: it never served. Under s6, docker and
        /// nobody also if the supervisor sent it: there a start that was cut short is no success.
        StartInterrupted = "start_interrupted",
        /// It is set to stay stopped, and did not start.
        DesiredStopped = "desired_stopped",
        /// Somebody else holds what it needs, and it did not start; or it lost that while it ran.
        Refused = "refused",
        /// One of its threads panicked.
        Panicked = "panicked",
        /// It ended by itself.
        Exited = "exited",
    }
}

impl FromStr for ExitCause {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        Self::parse(word).ok_or_else(|| unknown("cause of an exit", word, Self::ALL))
    }
}

/// What to exit with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitRule {
    /// This code.
    Code(u8),
    /// What the gateway itself ended with; 128 + n if signal n ended it.
    Own,
    /// The same, but never success: 128 + n in place of 0, where n is the signal that was sent.
    OwnButFailed,
}

/// Which end is told by which exit code.
///
/// | cause | systemd | launchd | s6 | docker | none |
/// |---|---|---|---|---|---|
/// | `planned_stop` | 0 | 0 | 0 | 0 | 0 |
/// | `taken_over` | 0 | 0 | 0 | 0 | 0 |
/// | `supervisor_stop` | 0 | 0 | 0 | own | own |
/// | `signalled` | own, not 0 | own, not 0 | own, not 0 | own, not 0 | own |
/// | `start_interrupted` | 75 | 75 | 75 | 75 | 75 |
/// | `desired_stopped` | 0 | 0 | 0 | 0 | 75 |
/// | `refused` | 75 | 75 | 75 | 75 | 75 |
/// | `panicked` | own, not 0 | own, not 0 | own, not 0 | own, not 0 | own, not 0 |
/// | `exited` | own | own | own | own | own |
///
/// "Own" is what the gateway ended with, 128 + n for signal n; where it would be 0 and may not,
/// 128 + n for the signal that came, and 101 after a panic, as Rust's own. docker does not start
/// what `docker stop` ended, whatever its code; but a container that ends with 0 while the host
/// shuts down stays down after the boot under `on-failure`, hence no 0 there.
///
/// ```
/// use incumbent::exit::{ExitCause, ExitCodes, ExitRule, Supervisor};
///
/// let codes = ExitCodes::of(Supervisor::Systemd);
/// assert_eq!(codes.code(ExitCause::PlannedStop, 143, Some(15)), 0);
/// // systemd is to start it again, although it ended politely:
/// assert_eq!(codes.code(ExitCause::Signalled, 0, Some(15)), 143);
/// let codes = codes.with(ExitCause::Signalled, ExitRule::Code(1));
/// assert_eq!(codes.code(ExitCause::Signalled, 0, Some(15)), 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitCodes {
    supervisor: Supervisor,
    overrides: Vec<(ExitCause, ExitRule)>,
}

impl ExitCodes {
    /// The table's column for `supervisor`.
    #[must_use]
    pub fn of(supervisor: Supervisor) -> Self {
        Self { supervisor, overrides: Vec::new() }
    }

    /// What `cause` becomes for a gateway that was still `starting`: under s6, docker and nobody a
    /// signal that cut a start short is no success, whoever sent it. A stop by systemd or launchd
    /// is one at any time.
    #[must_use]
    pub fn cause_while_starting(&self, cause: ExitCause) -> ExitCause {
        use crate::process::exit_code::Supervisor::Launchd;
        use crate::process::exit_code::Supervisor::Systemd;
        match (cause, self.supervisor) {
            (ExitCause::SupervisorStop, Systemd | Launchd) => cause,
            (ExitCause::SupervisorStop | ExitCause::Signalled, _) => ExitCause::StartInterrupted,
            _ => cause,
        }
    }

    /// Another rule for one cause.
    #[must_use]
    pub fn with(mut self, cause: ExitCause, rule: ExitRule) -> Self {
        self.overrides.push((cause, rule));
        self
    }

    /// The rule for `cause`.
    #[must_use]
    pub fn rule(&self, cause: ExitCause) -> ExitRule {
        use crate::process::exit_code::ExitCause as Cause;
        use crate::process::exit_code::ExitRule::Code;
        use crate::process::exit_code::ExitRule::Own;
        use crate::process::exit_code::ExitRule::OwnButFailed;
        use crate::process::exit_code::Supervisor::Docker;
        use crate::process::exit_code::Supervisor::Launchd;
        use crate::process::exit_code::Supervisor::None;
        use crate::process::exit_code::Supervisor::S6;
        use crate::process::exit_code::Supervisor::Systemd;
        let latest = self.overrides.iter().rev().find(|(of, _)| *of == cause);
        if let Some((_, rule)) = latest {
            return *rule;
        }
        match (cause, self.supervisor) {
            (Cause::PlannedStop | Cause::TakenOver, _)
            | (Cause::SupervisorStop, Systemd | Launchd | S6)
            | (Cause::DesiredStopped, Systemd | Launchd | S6 | Docker) => Code(0),
            (Cause::Signalled, Systemd | Launchd | S6 | Docker) | (Cause::Panicked, _) => {
                OwnButFailed
            }
            (Cause::DesiredStopped, None) | (Cause::Refused | Cause::StartInterrupted, _) => {
                Code(75)
            }
            (Cause::SupervisorStop, Docker | None)
            | (Cause::Signalled, None)
            | (Cause::Exited, _) => Own,
        }
    }

    /// The exit code for `cause`, of a gateway that ended with `own` (128 + n if signal n ended it)
    /// after it was sent `signal`; `None`: none was sent.
    #[must_use]
    pub fn code(&self, cause: ExitCause, own: i32, signal: Option<i32>) -> i32 {
        /// SIGTERM, where nobody knows what was sent.
        const TERMINATE: i32 = 15;
        /// What a Rust program exits with when its main thread has panicked.
        const PANICKED: i32 = 101;
        match self.rule(cause) {
            ExitRule::OwnButFailed if own == 0 && cause == ExitCause::Panicked => PANICKED,
            ExitRule::Code(code) => i32::from(code),
            ExitRule::OwnButFailed if own == 0 => 128 + signal.unwrap_or(TERMINATE),
            ExitRule::Own | ExitRule::OwnButFailed => own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the documentation, cell by cell: what a gateway that exits 0, or 7, after
    /// SIGTERM is told by.
    #[test]
    fn the_whole_table() {
        for (cause, politely, own) in [
            (ExitCause::PlannedStop, [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
            (ExitCause::TakenOver, [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
            (ExitCause::SupervisorStop, [0, 0, 0, 0, 0], [0, 0, 0, 7, 7]),
            (ExitCause::Signalled, [143, 143, 143, 143, 0], [7, 7, 7, 7, 7]),
            (ExitCause::StartInterrupted, [75, 75, 75, 75, 75], [75, 75, 75, 75, 75]),
            (ExitCause::DesiredStopped, [0, 0, 0, 0, 75], [0, 0, 0, 0, 75]),
            (ExitCause::Refused, [75, 75, 75, 75, 75], [75, 75, 75, 75, 75]),
            (ExitCause::Panicked, [101, 101, 101, 101, 101], [7, 7, 7, 7, 7]),
            (ExitCause::Exited, [0, 0, 0, 0, 0], [7, 7, 7, 7, 7]),
        ] {
            let codes = |own| {
                let all = Supervisor::ALL.iter();
                all.map(|it| ExitCodes::of(*it).code(cause, own, Some(15))).collect::<Vec<_>>()
            };
            assert_eq!((&*codes(0), &*codes(7)), (&politely[..], &own[..]), "{cause}");
        }
    }

    #[test]
    fn the_words_are_read_as_they_are_shown() {
        for cause in ExitCause::ALL {
            assert_eq!(cause.to_string().parse::<ExitCause>().unwrap(), *cause);
        }
        for supervisor in Supervisor::ALL {
            assert_eq!(supervisor.to_string().parse::<Supervisor>().unwrap(), *supervisor);
        }
        assert!("stopped".parse::<ExitCause>().is_err() && "cron".parse::<Supervisor>().is_err());
    }
}
