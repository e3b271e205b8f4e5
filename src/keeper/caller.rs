//! Whom a record is for where nobody was named: our parent, unless that is nobody's gateway.
//!
//! A line of a unit, of a crontab or of a terminal multiplexer has the manager itself as its parent
//! (FIELD-BUGS row 120): a record would hold for a whole login, and `stop` would end all that it
//! manages. A launcher (`timeout`, `sudo`) and a subshell end in a moment, and the record with
//! them. Both are named, with what to say instead. Who is named on purpose is recorded, whoever it
//! is.

use crate::keeper::release::parent;
use crate::process::launchers::{file_name, is_launcher, is_one_of};
use crate::{Error, Result, sys};

/// Session and service managers, by what they call themselves.
const MANAGERS: [&str; 44] = [
    "SCREEN",
    "abduco",
    "anacron",
    "atd",
    "catatonit",
    "conmon",
    "containerd-shim-runc-v2",
    "cron",
    "crond",
    "crun",
    "dinit",
    "docker-init",
    "dropbear",
    "dtach",
    "dumb-init",
    "fcron",
    "gdm-session-worker",
    "gnome-session-binary",
    "init",
    "launchd",
    "login",
    "lxc-start",
    "openrc-run",
    "perpd",
    "runc",
    "runsv",
    "runsvdir",
    "s6-supervise",
    "s6-svscan",
    "screen",
    "sddm-helper",
    "services.exe",
    "sshd",
    "sshd-session",
    "start-stop-daemon",
    "supervise",
    "supervise-daemon",
    "supervisord",
    "svscan",
    "systemd",
    "tini",
    "tmux",
    "tmux: server",
    "zellij",
];

const SHELLS: [&str; 11] =
    ["ash", "bash", "busybox", "dash", "ksh", "ksh93", "mksh", "posh", "sh", "yash", "zsh"];

/// Why a process is not recorded unless it is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Manages,
    Launches,
    IsSubshell,
}

/// The parent, which is meant where nobody is named.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) for one that is nobody's gateway.
pub(crate) fn parent_to_record() -> Result<sys::Pid> {
    let pid = parent()?;
    let program = sys::program_name(pid);
    let title = sys::command_line(pid).and_then(|words| words.into_iter().next());
    let names: Vec<&str> =
        [program.as_deref(), title.as_deref().and_then(file_name)].into_iter().flatten().collect();
    let Some(why) = why_not(&names, sys::is_forked_copy(pid)) else { return Ok(pid) };
    let name = names.first().copied().unwrap_or("?");
    let what = match why {
        Why::Manages => "a session or service manager, not a gateway",
        Why::Launches => "a launcher of other programs, which ends when this command ends",
        Why::IsSubshell => "a subshell, which ends at once",
    };
    Err(Error::invalid(format!(
        "no process was named, and the parent process, pid {pid} ({name}), is {what}"
    ))
    .with_hints(
        "name the process (`Whom::Process`)",
        "name the process with `--pid PID`; a script names itself with `--pid $$`",
    ))
}

/// Decides by what a process is called, and whether it has executed no program of its own since it
/// was forked.
fn why_not(names: &[&str], is_copy: bool) -> Option<Why> {
    // It changes its title: "PM2 v5.4.2: God Daemon (/root/.pm2)".
    let is_pm2 = names.iter().any(|name| name.starts_with("PM2 v"));
    if is_pm2 || is_one_of(names, &MANAGERS) {
        Some(Why::Manages)
    } else if is_launcher(names) {
        Some(Why::Launches)
    } else if is_copy && is_one_of(names, &SHELLS) {
        Some(Why::IsSubshell)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_recorded_only_by_name() {
        use Why::{IsSubshell, Launches, Manages};
        let cases: [(&[&str], bool, Option<Why>); 12] = [
            (&["systemd", "systemd"], false, Some(Manages)),
            (&["tmux: server", "tmux"], false, Some(Manages)),
            // Cut by the kernel.
            (&["containerd-shim"], false, Some(Manages)),
            (&["supervise-daemo"], false, Some(Manages)),
            (&["PM2 v5.4.2: God", "PM2 v5.4.2: God Daemon (x)"], true, Some(Manages)),
            (&["timeout"], false, Some(Launches)),
            (&["dash", "sh"], true, Some(IsSubshell)),
            // A script, an interactive shell.
            (&["bash", "bash"], false, None),
            // A worker that was forked.
            (&["gunicorn", "gunicorn: worker"], true, None),
            (&["systemd-gateway"], false, None),
            (&["supervise-da"], false, None),
            (&[], false, None),
        ];
        for (names, is_copy, expected) in cases {
            assert_eq!(why_not(names, is_copy), expected, "{names:?}");
        }
    }

    #[test]
    fn a_title_is_a_path_or_a_login_shell() {
        for (title, name) in
            [("/usr/bin/timeout", Some("timeout")), ("-bash", Some("bash")), ("sh", Some("sh"))]
        {
            assert_eq!(file_name(title), name);
        }
    }
}
