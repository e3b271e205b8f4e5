//! Whether a supervisor starts a gateway again that somebody has just stopped, and what ends it for
//! good.

use serde::Serialize;

use crate::forensics::systemd::{Manager, restart_setting, unit_name};
use crate::office::takeover::restarter::Restarter;
use crate::office::takeover::stop::{StopOutcome, StopReport};
use crate::path_text::quoted;

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
    /// never fails.
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
    fn after(&self, ended: Ended) -> Option<StartsAgain> {
        let always = |by: &str, because: &str, stop_with: String| {
            let (by, because) = (by.to_owned(), because.to_owned());
            Some(StartsAgain { by, is_certain: true, because, stop_with })
        };
        let named = |name: Option<String>| name.unwrap_or_else(|| "NAME".to_owned());
        match self {
            Self::Systemd { unit } => systemd(unit, ended),
            Self::Pm2 { name } => always(
                "pm2",
                "pm2 starts its applications again, however they end",
                format!("pm2 stop {}", named(name.as_ref().map(quoted))),
            ),
            Self::Runit { directory } => always(
                "runit",
                "runsv starts its service again, however it ends",
                format!("sv down {}", named(directory.as_ref().map(quoted))),
            ),
            Self::S6 { directory } => always(
                "s6",
                "s6-supervise starts its service again, however it ends",
                format!("s6-svc -d {}", named(directory.as_ref().map(quoted))),
            ),
            Self::Supervisord { name } => Some(StartsAgain {
                by: "supervisord".to_owned(),
                is_certain: false,
                because: match ended {
                    Ended::Well => "supervisord does with autorestart=true".to_owned(),
                    Ended::Somehow => {
                        "supervisord does, unless it expects that exit code".to_owned()
                    }
                },
                stop_with: format!("supervisorctl stop {}", named(name.as_ref().map(quoted))),
            }),
        }
    }
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
    let user = match setting {
        Some((Manager::User, _)) => "--user ",
        Some((Manager::System, _)) | None => "",
    };
    let starts = |is_certain: bool, because: String| StartsAgain {
        by: format!("systemd:{unit}"),
        is_certain,
        because,
        stop_with: format!("systemctl {user}stop {}", quoted(unit)),
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
        assert_eq!(of(Restarter::Pm2 { name: None }).stop_with, "pm2 stop NAME");
        let odd = Restarter::Supervisord { name: Some("a b".to_owned()) };
        assert_eq!(of(odd).stop_with, "supervisorctl stop 'a b'");
    }
}
