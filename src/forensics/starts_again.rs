//! Whether a supervisor starts a gateway again that somebody has just stopped, and what ends it for
//! good.

use std::io;
use std::io::Read;
use std::path::Path;

use serde::Serialize;

use crate::forensics::systemd::{Manager, restart_setting, unit_name};
use crate::office::takeover::restarter::Restarter;
use crate::office::takeover::stop::{StopOutcome, StopReport};
use crate::path_text::quoted;
use crate::process::party;
use crate::process::subject::supervisor_word;
use crate::records::instances::Origin;
use crate::{Report, sys};

/// A script that is longer than this has something in it that is not ours.
const FINISH_LENGTH_MAX: u64 = 64 * 1024;

/// The line of the `finish` script of `incumbent unit s6` by which it is known: after 0 and 78 it
/// tells `s6-supervise` not to start the service again.
const KEEPS_DOWN: &str = "0 | 78) exit 125 ;;";

/// What becomes of a stopped gateway; see [`StopReport::starts_again`]. In JSON an object with
/// these fields; later versions may add others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StartsAgain {
    /// Who starts it again: `systemd:UNIT`, `pm2`, `runit`, `s6` or `supervisord`.
    pub by: String,
    /// Whether that is its setting; it may only be possible.
    pub is_certain: bool,
    /// Why, as a clause for people.
    pub because: String,
    /// The command that stops it for good, for a shell.
    pub stop_with: String,
}

/// How the holder has ended, as its supervisor sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// With 0: a `run` that was stopped on purpose.
    Well,
    /// By SIGKILL, or with a code of its own.
    Somehow,
}

impl StopReport {
    /// Whether a supervisor will start again what has been stopped; `None` where nobody is known
    /// who would, or nothing has ended.
    ///
    /// Of a systemd service the manager is asked (`systemctl show`): that takes 2 s at most, and
    /// never fails. Of one of s6 the script `finish` is read.
    #[must_use]
    pub fn starts_again(&self) -> Option<StartsAgain> {
        let StopOutcome::Ended { killed, still_runs: false, .. } = self.outcome else {
            return None;
        };
        let ended = if self.was_run && !killed { Ended::Well } else { Ended::Somehow };
        self.restarter.as_ref()?.after(ended)
    }
}

impl Restarter {
    /// Its name, with that of its service where it is systemd, see [`StartsAgain::by`].
    #[must_use]
    pub fn by(&self) -> String {
        match self {
            Self::Systemd { unit } => format!("systemd:{unit}"),
            Self::Pm2 { .. } => "pm2".to_owned(),
            Self::Runit { .. } => "runit".to_owned(),
            Self::S6 { .. } => "s6".to_owned(),
            Self::Supervisord { .. } => "supervisord".to_owned(),
        }
    }

    /// The command that has it start again what it supervises, for a shell; `None` where it is not
    /// known by what name, or by which manager of systemd.
    ///
    /// Of a systemd service the managers are asked (`systemctl show`): that takes 2 s at most, and
    /// never fails.
    #[must_use]
    pub fn restart_with(&self) -> Option<String> {
        match self {
            Self::Systemd { unit } => {
                let unit = unit_name(unit).ok()?;
                let (manager, _) = restart_setting(&unit)?;
                Some(systemctl(Some(manager), "restart", &unit))
            }
            Self::Pm2 { name, .. } => {
                name.as_ref().map(|name| format!("pm2 restart {}", quoted(name)))
            }
            Self::Runit { directory } => {
                directory.as_ref().map(|directory| format!("sv restart {}", quoted(directory)))
            }
            Self::S6 { directory } => {
                directory.as_ref().map(|directory| format!("s6-svc -r {}", quoted(directory)))
            }
            Self::Supervisord { name } => {
                name.as_ref().map(|name| format!("supervisorctl restart {}", quoted(name)))
            }
        }
    }

    /// The command that has it start what it supervises, for a shell, with NAME where it is not
    /// known by what name.
    fn start_with(&self) -> String {
        let named = |name: Option<String>| name.unwrap_or_else(|| "NAME".to_owned());
        match self {
            Self::Systemd { unit } => systemctl(None, "start", unit),
            Self::Pm2 { name, .. } => format!("pm2 start {}", named(name.as_ref().map(quoted))),
            Self::Runit { directory } => {
                format!("sv up {}", named(directory.as_ref().map(quoted)))
            }
            Self::S6 { directory } => {
                format!("s6-svc -u {}", named(directory.as_ref().map(quoted)))
            }
            Self::Supervisord { name } => {
                format!("supervisorctl start {}", named(name.as_ref().map(quoted)))
            }
        }
    }

    fn after(&self, ended: Ended) -> Option<StartsAgain> {
        let named = |name: Option<String>| name.unwrap_or_else(|| "NAME".to_owned());
        let (Again { is_certain, because }, stop_with) = match self {
            Self::Systemd { unit } => return systemd(unit, ended),
            Self::Pm2 { name, autorestart, stop_exit_codes } => (
                judge_pm2(*autorestart, stop_exit_codes.as_deref(), ended)?,
                format!("pm2 stop {}", named(name.as_ref().map(quoted))),
            ),
            Self::Runit { directory } => (
                Again::certainly("runsv starts its service again, however it ends"),
                format!("sv down {}", named(directory.as_ref().map(quoted))),
            ),
            Self::S6 { directory } => (
                judge_finish(&finish_in(directory.as_deref()), ended)?,
                format!("s6-svc -d {}", named(directory.as_ref().map(quoted))),
            ),
            Self::Supervisord { name } => (
                Again::perhaps(match ended {
                    Ended::Well => "supervisord does with autorestart=true",
                    Ended::Somehow => "supervisord does, unless it expects that exit code",
                }),
                format!("supervisorctl stop {}", named(name.as_ref().map(quoted))),
            ),
        };
        Some(StartsAgain { by: self.by(), is_certain, because: because.to_owned(), stop_with })
    }
}

/// How a gateway that has ended is started again: as it was started, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartAgain {
    /// By `incumbent run`.
    Run,
    /// By a command of its supervisor, for a shell.
    Supervisor {
        /// The command that starts it.
        start: String,
        /// The command that shows what it wrote, where the supervisor keeps that.
        output: Option<String>,
    },
    /// In a container, which is not that of whoever asks.
    Container,
    /// A script claimed the office for a process.
    Script,
    /// The program claimed it itself.
    Program,
}

impl StartAgain {
    /// Of an office that nobody holds. Of a systemd service the managers are asked (`systemctl
    /// show`): that takes 2 s at most, and never fails.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let Some(origin) = report.origin else { return Self::Run };
        let parent = report.party.as_deref().and_then(party::living_parent);
        if let Some(restarter) = parent.and_then(Restarter::left_by) {
            return Self::Supervisor { start: restarter.start_with(), output: None };
        }
        match report.supervisor.as_deref().and_then(|word| word.split_once(':')) {
            Some(("systemd", unit)) if may_have_started(unit, parent) => {
                if let Ok(unit) = unit_name(unit) {
                    let manager = restart_setting(&unit).map(|(manager, _)| manager);
                    return Self::of_unit(&unit, manager);
                }
            }
            Some(("launchd", label)) => {
                let start = format!("launchctl start {}", quoted(label));
                return Self::Supervisor { start, output: None };
            }
            Some(("container", _)) if report.supervisor.as_deref() != Some(&supervisor_of_us()) => {
                return Self::Container;
            }
            _ => {}
        }
        match origin {
            Origin::Run => Self::Run,
            Origin::Pid => Self::Script,
            Origin::Library => Self::Program,
        }
    }

    fn of_unit(unit: &str, manager: Option<Manager>) -> Self {
        let user = if manager == Some(Manager::User) { "--user " } else { "" };
        Self::Supervisor {
            start: systemctl(manager, "start", unit),
            output: Some(format!("journalctl {user}-u {}", quoted(unit))),
        }
    }
}

fn supervisor_of_us() -> String {
    supervisor_word(&sys::supervision(std::process::id()))
}

/// Services that start what people or time tables tell them: to start them again starts none of
/// that.
const START_OTHERS: [&str; 6] = [
    "cron.service",
    "crond.service",
    "atd.service",
    "ssh.service",
    "sshd.service",
    "docker.service",
];

/// Whether the gateway was what a unit starts, or a script of the unit started it. Somebody's shell
/// that lives on is neither.
fn may_have_started(unit: &str, living_parent: Option<sys::Pid>) -> bool {
    let is_manager = |pid| sys::program_name(pid).as_deref() == Some("systemd");
    !START_OTHERS.contains(&unit) && living_parent.is_none_or(is_manager)
}

/// That a supervisor starts it again, and why.
#[derive(Debug, PartialEq, Eq)]
struct Again {
    is_certain: bool,
    because: &'static str,
}

impl Again {
    fn certainly(because: &'static str) -> Self {
        Self { is_certain: true, because }
    }

    fn perhaps(because: &'static str) -> Self {
        Self { is_certain: false, because }
    }
}

/// pm2 starts again what ends, unless it is told not to, by these settings of an application.
fn judge_pm2(autorestart: Option<bool>, codes: Option<&[i32]>, ended: Ended) -> Option<Again> {
    match (autorestart, codes, ended) {
        (Some(false), _, _) => None,
        (_, Some(codes), Ended::Well) if codes.contains(&0) => None,
        (Some(true), Some([]), _) => {
            Some(Again::certainly("pm2 starts its applications again, however they end"))
        }
        (Some(true), Some(_), Ended::Well) => {
            Some(Again::certainly("pm2 does, and 0 is not among its stop_exit_codes"))
        }
        (Some(true), Some(_), Ended::Somehow) => {
            Some(Again::perhaps("pm2 does, unless that is one of its stop_exit_codes"))
        }
        (None, _, _) | (Some(true), None, _) => {
            Some(Again::perhaps("pm2 does, unless its stop_exit_codes or autorestart=false forbid"))
        }
    }
}

/// The script of an s6 service that says what follows an end.
#[derive(Debug, PartialEq, Eq)]
enum Finish {
    /// There is none.
    Missing,
    /// The one that `incumbent unit s6` prints: 0 and 78 keep the service down.
    Ours,
    /// Another one, or nobody knows.
    Other,
}

fn finish_in(directory: Option<&Path>) -> Finish {
    let Some(directory) = directory else { return Finish::Other };
    // It is somebody else's file: no link is followed, no FIFO waited for, and no more is read.
    let script = sys::open_anchor_file(&directory.join("finish")).and_then(|file| {
        let mut script = Vec::new();
        file.take(FINISH_LENGTH_MAX).read_to_end(&mut script)?;
        Ok(script)
    });
    match script {
        Ok(script) => Finish::of(&String::from_utf8_lossy(&script)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finish::Missing,
        Err(_) => Finish::Other,
    }
}

impl Finish {
    fn of(script: &str) -> Self {
        if script.lines().any(|line| line.trim() == KEEPS_DOWN) { Self::Ours } else { Self::Other }
    }
}

/// `s6-supervise` starts again what ends, unless the script exits with 125.
fn judge_finish(finish: &Finish, ended: Ended) -> Option<Again> {
    match (finish, ended) {
        (Finish::Ours, Ended::Well) => None,
        (Finish::Missing, _) => {
            Some(Again::certainly("s6-supervise starts its service again, however it ends"))
        }
        (Finish::Ours, Ended::Somehow) => {
            Some(Again::perhaps("s6-supervise does, unless it has ended with 0 or 78"))
        }
        (Finish::Other, _) => {
            Some(Again::perhaps("s6-supervise does, unless the service's finish exits with 125"))
        }
    }
}

/// A command for a manager of systemd.
fn systemctl(manager: Option<Manager>, verb: &str, unit: &str) -> String {
    let user = match manager {
        Some(Manager::User) => "--user ",
        Some(Manager::System) | None => "",
    };
    format!("systemctl {user}{verb} {}", quoted(unit))
}

fn systemd(unit: &str, ended: Ended) -> Option<StartsAgain> {
    let unit = unit_name(unit).ok()?;
    judge_setting(&unit, ended, restart_setting(&unit).as_ref())
}

/// `Restart=` of systemd.service(5).
fn judge_setting(
    unit: &str,
    ended: Ended,
    setting: Option<&(Manager, String)>,
) -> Option<StartsAgain> {
    let starts = |is_certain: bool, because: String| StartsAgain {
        by: format!("systemd:{unit}"),
        is_certain,
        because,
        stop_with: systemctl(setting.map(|(manager, _)| *manager), "stop", unit),
    };
    let Some((_, setting)) = setting else {
        return Some(starts(false, format!("{unit} may have a Restart= setting")));
    };
    let is_certain = match (setting.as_str(), ended) {
        // The latter look for a code other than 0, or a signal.
        ("no" | "on-watchdog" | "", _)
        | ("on-failure" | "on-abnormal" | "on-abort", Ended::Well) => return None,
        ("always", _) | ("on-success", Ended::Well) => true,
        // By how it ended, or a word that is newer than this.
        (_, Ended::Well | Ended::Somehow) => false,
    };
    Some(starts(is_certain, format!("{unit} has Restart={setting}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_of_systemd() {
        let certainty = |setting: &str, ended| {
            let setting = Some((Manager::System, setting.to_owned()));
            judge_setting("gw.service", ended, setting.as_ref()).map(|it| it.is_certain)
        };
        for (setting, well, somehow) in [
            ("no", None, None),
            ("always", Some(true), Some(true)),
            ("on-success", Some(true), Some(false)),
            ("on-failure", None, Some(false)),
            ("on-abnormal", None, Some(false)),
            ("on-abort", None, Some(false)),
            ("on-watchdog", None, None),
            ("on-tuesdays", Some(false), Some(false)),
        ] {
            assert_eq!(certainty(setting, Ended::Well), well, "{setting}");
            assert_eq!(certainty(setting, Ended::Somehow), somehow, "{setting}");
        }
        let user = Some((Manager::User, "always".to_owned()));
        let said = judge_setting("gw@a.service", Ended::Well, user.as_ref()).unwrap();
        assert_eq!(said.stop_with, "systemctl --user stop gw@a.service");
        assert_eq!(said.because, "gw@a.service has Restart=always");
        let unknown = judge_setting("gw.service", Ended::Well, None).unwrap();
        assert!(!unknown.is_certain, "{unknown:?}");
    }

    #[test]
    fn what_stops_it_for_good() {
        let of = |restarter: Restarter| restarter.after(Ended::Well).unwrap();
        let runit = Restarter::Runit { directory: Some("/etc/service/gw".into()) };
        assert_eq!(of(runit).stop_with, "sv down /etc/service/gw");
        let unknown = Restarter::Pm2 { name: None, autorestart: None, stop_exit_codes: None };
        assert_eq!(of(unknown.clone()).stop_with, "pm2 stop NAME");
        assert_eq!(unknown.restart_with(), None);
        let odd = Restarter::Supervisord { name: Some("a b".to_owned()) };
        assert_eq!(of(odd).stop_with, "supervisorctl stop 'a b'");
    }

    #[test]
    fn how_it_was_started() {
        let record = |supervisor: &str, origin| Report {
            supervisor: Some(supervisor.to_owned()),
            origin: Some(origin),
            ..Report::never_claimed(crate::Office::default())
        };
        let us = supervisor_of_us();
        let shell = |start: &str, output: Option<&str>| StartAgain::Supervisor {
            start: start.to_owned(),
            output: output.map(str::to_owned),
        };
        for (supervisor, origin, expected) in [
            ("none", Origin::Run, StartAgain::Run),
            ("none", Origin::Pid, StartAgain::Script),
            ("none", Origin::Library, StartAgain::Program),
            ("launchd:org.example.gw", Origin::Run, shell("launchctl start org.example.gw", None)),
            ("container:0123", Origin::Run, StartAgain::Container),
            ("systemd:cron.service", Origin::Run, StartAgain::Run),
            (
                "systemd:no-such-gateway.service",
                Origin::Pid,
                shell(
                    "systemctl start no-such-gateway.service",
                    Some("journalctl -u no-such-gateway.service"),
                ),
            ),
        ] {
            assert_eq!(StartAgain::of(&record(supervisor, origin)), expected, "{supervisor}");
        }
        if us.starts_with("container:") {
            assert_eq!(StartAgain::of(&record(&us, Origin::Run)), StartAgain::Run, "{us}");
        }
        let of_user = StartAgain::of_unit("gw@a.service", Some(Manager::User));
        let output = Some("journalctl --user -u gw@a.service");
        assert_eq!(of_user, shell("systemctl --user start gw@a.service", output));
        let runit = Restarter::Runit { directory: Some("/etc/service/gw".into()) };
        assert_eq!(runit.start_with(), "sv up /etc/service/gw");
        let pm2 = Restarter::Pm2 { name: None, autorestart: None, stop_exit_codes: None };
        assert_eq!(pm2.start_with(), "pm2 start NAME");
    }

    #[test]
    fn the_settings_of_pm2() {
        let codes: [Option<&[i32]>; 4] = [None, Some(&[]), Some(&[0]), Some(&[7, 143])];
        for (autorestart, well, somehow) in [
            (None, [Some(false), Some(false), None, Some(false)], [Some(false); 4]),
            (
                Some(true),
                [Some(false), Some(true), None, Some(true)],
                [Some(false), Some(true), Some(false), Some(false)],
            ),
            (Some(false), [None; 4], [None; 4]),
        ] {
            let certainty = |ended| {
                codes.map(|codes| judge_pm2(autorestart, codes, ended).map(|it| it.is_certain))
            };
            assert_eq!(certainty(Ended::Well), well, "{autorestart:?}");
            assert_eq!(certainty(Ended::Somehow), somehow, "{autorestart:?}");
        }
    }

    #[test]
    fn the_scripts_of_s6() {
        for (finish, well, somehow) in [
            (Finish::Missing, Some(true), Some(true)),
            (Finish::Ours, None, Some(false)),
            (Finish::Other, Some(false), Some(false)),
        ] {
            let certainty = |ended| judge_finish(&finish, ended).map(|it| it.is_certain);
            assert_eq!(certainty(Ended::Well), well, "{finish:?}");
            assert_eq!(certainty(Ended::Somehow), somehow, "{finish:?}");
        }
        assert_eq!(Finish::of("#!/bin/sh\nexit 125\n"), Finish::Other);
        assert_eq!(finish_in(None), Finish::Other);
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(finish_in(Some(directory.path())), Finish::Missing);
        std::fs::write(directory.path().join("finish"), format!("  {KEEPS_DOWN}\n")).unwrap();
        assert_eq!(finish_in(Some(directory.path())), Finish::Ours);
    }

    #[test]
    fn what_starts_it_again_now() {
        let directory = Some(std::path::PathBuf::from("/etc/a service"));
        for (restarter, expected) in [
            (
                Restarter::Pm2 {
                    name: Some("gw".to_owned()),
                    autorestart: Some(true),
                    stop_exit_codes: None,
                },
                Some("pm2 restart gw"),
            ),
            (
                Restarter::Runit { directory: directory.clone() },
                Some("sv restart '/etc/a service'"),
            ),
            (Restarter::S6 { directory }, Some("s6-svc -r '/etc/a service'")),
            (Restarter::S6 { directory: None }, None),
            (
                Restarter::Supervisord { name: Some("group:gw".to_owned()) },
                Some("supervisorctl restart group:gw"),
            ),
            // It is no name of a unit, and nobody is asked.
            (Restarter::Systemd { unit: "--all".to_owned() }, None),
        ] {
            assert_eq!(restarter.restart_with().as_deref(), expected, "{restarter:?}");
        }
    }
}
