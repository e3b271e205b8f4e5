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
    /// pm2, under this name, where that is known.
    Pm2 {
        /// The name of the application.
        name: Option<String>,
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
        let by_parents = || {
            let pid = record.pid.filter(|_| record.pid_ns == inner.observer().pid_ns)?;
            let is_it = record.start_time.is_some()
                && sys::process_facts(pid).start_time == record.start_time;
            is_it.then(|| Self::of_process(pid)).flatten()
        };
        let by_record = || {
            let unit = record.supervisor.as_deref()?.strip_prefix("systemd:")?;
            Some(Self::Systemd { unit: unit.to_owned() })
        };
        by_parents().or_else(by_record)
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
                Some(Self::Pm2 { name: None })
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
            Self::Pm2 { .. } => Self::Pm2 { name: variable("name") },
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
                Some(Restarter::Pm2 { name: None }),
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
}
