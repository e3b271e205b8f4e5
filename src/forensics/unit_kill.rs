//! What systemd does with the processes of the service that this one is in: whom it signals when it
//! stops that (`KillMode=`), and whom it listens to (`NotifyAccess=`).

use std::time::Duration;

use crate::clock::Deadline;
use crate::forensics::systemd;
use crate::sys::{self, details, signals, supervise};

/// How long the question may take, asked of both managers.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// Five lines are asked for.
const ANSWER_LENGTH_MAX: usize = 4 * 1024;

/// How a service is stopped (systemd.kill(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnitKill {
    /// Whether the first signal goes to all of its processes, or to the main one.
    to_all: bool,
    /// That signal, at a stop and at a restart.
    signals: [i32; 2],
    /// Whether SIGHUP comes right after it.
    hangs_up: bool,
}

impl UnitKill {
    /// Of the service that this process is in; `None` where that cannot be told. Starts
    /// `systemctl`, which may take seconds.
    pub(crate) fn of_own_unit() -> Option<Self> {
        read(&ask("KillMode,KillSignal,RestartKillSignal,SendSIGHUP")?)
    }

    /// Whether a signal that systemd sends was sent to every process of the service, if it is to
    /// stop it: the one that does, and those that come with it.
    pub(crate) fn signals_all(&self, signal: i32) -> bool {
        let comes_with_it =
            signal == supervise::CONTINUE || (self.hangs_up && signals::may_mean_reload(signal));
        self.to_all && (self.signals.contains(&signal) || comes_with_it)
    }
}

/// Whether systemd listens to every process of the service that this one is in, or to the main one
/// alone (`NotifyAccess=` of systemd.exec(5)); `None` where that cannot be told. Starts
/// `systemctl`, which may take seconds.
pub(crate) fn listens_to_all() -> Option<bool> {
    listens(&ask("NotifyAccess")?)
}

/// What the manager of our service says of it: lines `NAME=VALUE`, in whatever order.
fn ask(properties: &str) -> Option<String> {
    let unit = systemd::own_unit().ok()?;
    // Names of units are those of a manager: ours is the one that started us.
    let managers: [&[&str]; 2] =
        if details::own_parent() == Ok(1) { [&[], &["--user"]] } else { [&["--user"], &[]] };
    let until = Deadline::after(ASK_WITHIN);
    managers
        .into_iter()
        .filter_map(|options| ask_one(&unit, options, properties, until.remaining()))
        .find(|answer| is_of_its_own(answer))
}

fn ask_one(unit: &str, options: &[&str], properties: &str, within: Duration) -> Option<String> {
    let mut command = sys::program("systemctl");
    command
        .args(options)
        .args(["show", unit, &format!("--property=LoadState,{properties}")])
        .args(["--no-pager", "--no-ask-password"])
        .env("LC_ALL", "C")
        .env("SYSTEMD_COLORS", "0");
    match sys::capture(&mut command, within, ANSWER_LENGTH_MAX) {
        Ok(captured) => Some(String::from_utf8_lossy(&captured.bytes).into_owned()),
        Err(why) => {
            tracing::debug!(?why, "systemctl said nothing of the service");
            None
        }
    }
}

/// Of a unit that it does not know systemctl prints the defaults.
fn is_of_its_own(answer: &str) -> bool {
    value(answer, "LoadState") == Some("loaded")
}

fn value<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))
}

fn read(answer: &str) -> Option<UnitKill> {
    let mode = value(answer, "KillMode")?;
    let signal = |name: &str| value(answer, name).and_then(|number| number.parse::<i32>().ok());
    let stop = signal("KillSignal").unwrap_or(supervise::TERMINATE);
    Some(UnitKill {
        to_all: mode == "control-group",
        signals: [stop, signal("RestartKillSignal").filter(|it| *it > 0).unwrap_or(stop)],
        hangs_up: value(answer, "SendSIGHUP") == Some("yes"),
    })
}

/// One that listens to nobody is not the one that gave us a socket.
fn listens(answer: &str) -> Option<bool> {
    match value(answer, "NotifyAccess")? {
        "all" => Some(true),
        "main" | "exec" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_systemctl() {
        let kill = |to_all, signals, hangs_up| Some(UnitKill { to_all, signals, hangs_up });
        let term = supervise::TERMINATE;
        for (answer, expected) in [
            ("LoadState=loaded\nKillMode=control-group\n", kill(true, [term; 2], false)),
            ("KillSignal=15\nLoadState=loaded\nKillMode=none\n", kill(false, [15; 2], false)),
            (
                "SendSIGHUP=yes\nKillMode=mixed\nKillSignal=2\nRestartKillSignal=12\n\
                 LoadState=loaded\n",
                kill(false, [2, 12], true),
            ),
            (
                "LoadState=loaded\nKillMode=process\nKillSignal=15\nRestartKillSignal=0\n",
                kill(false, [15; 2], false),
            ),
            ("LoadState=loaded\n", None),
        ] {
            assert_eq!(read(answer), expected, "{answer}");
            assert!(is_of_its_own(answer), "{answer}");
        }
        for answer in ["LoadState=not-found\nKillMode=control-group\n", "KillMode=mixed\n", ""] {
            assert!(!is_of_its_own(answer), "{answer}");
        }
        for (word, expected) in [
            ("all", Some(true)),
            ("main", Some(false)),
            ("exec", Some(false)),
            ("none", None),
            ("", None),
        ] {
            let answer = format!("NotifyAccess={word}\nLoadState=loaded\n");
            assert_eq!(listens(&answer), expected, "{word}");
        }
        assert_eq!(listens("LoadState=loaded\n"), None);
    }

    #[test]
    fn who_gets_what() {
        const HANG_UP: i32 = 1;
        let all = UnitKill { to_all: true, signals: [supervise::TERMINATE; 2], hangs_up: false };
        let mixed = UnitKill { to_all: false, ..all };
        let with_hangup = UnitKill { hangs_up: true, ..all };
        let has_hangup = signals::may_mean_reload(HANG_UP);
        for (unit, reaches_all) in [
            (all, [true, false, false, true, false]),
            (mixed, [false; 5]),
            (with_hangup, [true, false, has_hangup, true, false]),
            (UnitKill { signals: [2, 10], ..all }, [false, true, false, true, true]),
        ] {
            let asked = [supervise::TERMINATE, 2, HANG_UP, supervise::CONTINUE, 10];
            assert_eq!(asked.map(|it| unit.signals_all(it)), reaches_all, "{unit:?}");
        }
    }
}
