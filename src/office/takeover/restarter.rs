//! Who starts a holder again when it has ended: seen while it lives, by its parents and by what its
//! row says.
//!
//! The nearest one counts: below pm2 in a systemd service it is pm2 that starts it again.

use std::path::{Path, PathBuf};

use crate::records::Record;
use crate::store::Inner;
use crate::sys;
use crate::sys::Pid;

/// A wrapper script may stand between a supervisor and what it starts, or two.
const GENERATIONS_MAX: usize = 3;

/// A supervisor that may start a holder again. Whether it will is asked by
/// [`StopReport::starts_again`](crate::stop::StopReport::starts_again).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Restarter {
    /// systemd, in this service.
    Systemd {
        /// The service.
        unit: String,
    },
    /// pm2, under this name, where that is known; with the settings that it tells an application.
    Pm2 {
        /// The name of the application.
        name: Option<String>,
        /// Whether it starts it again at all.
        autorestart: Option<bool>,
        /// The exit codes after which it does not.
        stop_exit_codes: Option<Vec<i32>>,
    },
    /// runit: `runsv`, in this directory, where that is known.
    Runit {
        /// The directory of the service.
        directory: Option<PathBuf>,
    },
    /// s6: `s6-supervise`, in this directory, where that is known.
    S6 {
        /// The directory of the service.
        directory: Option<PathBuf>,
    },
    /// supervisord, under this name (with its group), where that is known.
    Supervisord {
        /// The name of the program.
        name: Option<String>,
    },
}

impl Restarter {
    /// Of a holder that lives here; `None` where nobody is known who would.
    pub(super) fn of(inner: &Inner, record: &Record) -> Option<Self> {
        let pid = record.pid.filter(|_| record.pid_ns == inner.observer().pid_ns)?;
        let start_time = record.start_time?;
        if sys::process_facts(pid).start_time != Some(start_time) {
            return None;
        }
        let by_record = || {
            let unit = record.supervisor.as_deref()?.strip_prefix("systemd:")?;
            is_of_systemd(pid).then(|| Self::Systemd { unit: unit.to_owned() })
        };
        Self::of_process(pid).or_else(by_record)
    }

    /// The process `supervisor`, if it is one, of something that has ended: by what name it knew
    /// that, nobody can tell any more.
    pub(crate) fn left_by(supervisor: Pid) -> Option<Self> {
        let found = Self::called(
            &sys::program_name(supervisor).unwrap_or_default(),
            &sys::command_line(supervisor).unwrap_or_default(),
        );
        Some(match found? {
            Self::Runit { .. } => Self::Runit { directory: sys::directory_of(supervisor) },
            Self::S6 { .. } => Self::S6 { directory: sys::directory_of(supervisor) },
            other => other,
        })
    }

    /// The nearest one above `pid`. What stands between them is of its session: a shell that
    /// somebody logged in to has a supervisor as well, which does not start its commands again.
    fn of_process(pid: Pid) -> Option<Self> {
        let session = sys::session_of(pid)?;
        let parents = std::iter::successors(Some(pid), |pid| sys::process_facts(*pid).parent);
        for parent in parents.skip(1).take(GENERATIONS_MAX).take_while(|parent| *parent > 1) {
            let found = Self::called(
                &sys::program_name(parent).unwrap_or_default(),
                &sys::command_line(parent).unwrap_or_default(),
            );
            if let Some(found) = found {
                return Some(found.with_place(pid, parent));
            }
            if sys::session_of(parent) != Some(session) {
                return None;
            }
        }
        None
    }

    /// The supervisor that a program is, by its name and its command line.
    fn called(name: &str, words: &[String]) -> Option<Self> {
        let file = |word: &String| {
            Path::new(word).file_name().map(|name| name.to_string_lossy().into_owned())
        };
        let is_supervisord = |word: &String| {
            word == "supervisor.supervisord" || file(word).as_deref() == Some("supervisord")
        };
        match name {
            "runsv" => Some(Self::Runit { directory: None }),
            "s6-supervise" => Some(Self::S6 { directory: None }),
            _ if name.starts_with("PM2 ") && words.iter().any(|it| it.contains("God Daemon")) => {
                Some(Self::of_pm2(|_| None))
            }
            // Of an interpreter the program is its first argument, or that of `-m`.
            _ if name == "supervisord" || words.iter().take(3).any(is_supervisord) => {
                Some(Self::Supervisord { name: None })
            }
            _ => None,
        }
    }

    /// Adds by what name it knows what it has started.
    fn with_place(self, pid: Pid, supervisor: Pid) -> Self {
        let variable = |name: &str| {
            let words = sys::environment_of(pid)?;
            let value = words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        match self {
            Self::Systemd { .. } => self,
            Self::Pm2 { .. } => Self::of_pm2(variable),
            Self::Runit { .. } => Self::Runit { directory: sys::directory_of(supervisor) },
            Self::S6 { .. } => Self::S6 { directory: sys::directory_of(supervisor) },
            Self::Supervisord { .. } => {
                let name = variable("SUPERVISOR_PROCESS_NAME");
                let group = variable("SUPERVISOR_GROUP_NAME");
                let name = name.map(|name| match group {
                    Some(group) if group != name => format!("{group}:{name}"),
                    Some(_) | None => name,
                });
                Self::Supervisord { name }
            }
        }
    }

    /// In fork mode pm2 hands its settings to the application as variables, a list with commas.
    fn of_pm2(variable: impl Fn(&str) -> Option<String>) -> Self {
        let Some(name) = variable("name") else {
            return Self::Pm2 { name: None, autorestart: None, stop_exit_codes: None };
        };
        let codes = variable("stop_exit_codes").filter(|it| it != "null").unwrap_or_default();
        let codes = codes.split(',').map(str::trim).filter(|code| !code.is_empty());
        Self::Pm2 {
            name: Some(name),
            autorestart: Some(variable("autorestart").as_deref() != Some("false")),
            // One that is no number is pm2's own business.
            stop_exit_codes: codes.map(|code| code.parse::<i32>().ok()).collect(),
        }
    }
}

/// Whether systemd has started `pid`, or a script around it. What cron or a terminal starts is in a
/// service as well, whose manager does not start that again; but in a session of its own.
fn is_of_systemd(pid: Pid) -> bool {
    /// Its name may be hidden.
    const FIRST: Pid = 1;
    let session = sys::session_of(pid);
    let parents = std::iter::successors(Some(pid), |pid| sys::process_facts(*pid).parent);
    for parent in parents.skip(1).take(GENERATIONS_MAX) {
        if parent == FIRST || sys::program_name(parent).as_deref() == Some("systemd") {
            return true;
        }
        if session.is_none() || sys::session_of(parent) != session {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supervisors_by_their_names() {
        let words = |line: &str| line.split('|').map(str::to_owned).collect::<Vec<_>>();
        for (name, line, expected) in [
            ("runsv", "runsv|gw", Some(Restarter::Runit { directory: None })),
            ("s6-supervise", "s6-supervise|gw", Some(Restarter::S6 { directory: None })),
            (
                "PM2 v5.4.2: God",
                "PM2 v5.4.2: God Daemon (/root/.pm2)",
                Some(Restarter::Pm2 { name: None, autorestart: None, stop_exit_codes: None }),
            ),
            (
                "supervisord",
                "/usr/bin/python3|/usr/bin/supervisord|-c|x",
                Some(Restarter::Supervisord { name: None }),
            ),
            (
                "python3",
                "/usr/bin/python3|-m|supervisor.supervisord",
                Some(Restarter::Supervisord { name: None }),
            ),
            ("bash", "bash|-c|echo supervisord", None),
            ("bash", "-bash", None),
            ("node", "node|God Daemon", None),
            ("vi", "vi|a|b|c|/etc/supervisord", None),
        ] {
            assert_eq!(Restarter::called(name, &words(line)), expected, "{line}");
        }
    }

    #[test]
    fn what_pm2_tells_its_applications() {
        for (told, autorestart, stop_exit_codes) in [
            ("", true, Some(vec![])),
            ("autorestart=true|stop_exit_codes=0", true, Some(vec![0])),
            ("autorestart=false|stop_exit_codes=0, 143", false, Some(vec![0, 143])),
            ("stop_exit_codes=null", true, Some(vec![])),
            ("stop_exit_codes=SIGTERM", true, None),
        ] {
            let found = Restarter::of_pm2(|wanted| {
                let mut variables = told.split('|').chain(["name=gw"]);
                let value = variables.find_map(|it| it.strip_prefix(wanted)?.strip_prefix('='))?;
                Some(value.to_owned())
            });
            let (name, autorestart) = (Some("gw".to_owned()), Some(autorestart));
            assert_eq!(found, Restarter::Pm2 { name, autorestart, stop_exit_codes }, "{told}");
        }
        let untold = Restarter::Pm2 { name: None, autorestart: None, stop_exit_codes: None };
        assert_eq!(Restarter::of_pm2(|_| None), untold);
    }
}
