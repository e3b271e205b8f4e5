//! Programs that start another one and end with it: nobody's gateway, and nobody's deploy script.

use std::path::Path;

use crate::sys;

/// By what they call themselves.
const LAUNCHERS: [&str; 24] = [
    "chronic",
    "chrt",
    "doas",
    "env",
    "find",
    "flock",
    "ionice",
    "ltrace",
    "nice",
    "nohup",
    "nsenter",
    "parallel",
    "runuser",
    "script",
    "setpriv",
    "setsid",
    "strace",
    "su",
    "sudo",
    "systemd-run",
    "time",
    "timeout",
    "unshare",
    "xargs",
];

/// Whether one of `names`, which a process has, is one of `known`; Linux may have cut it.
pub(crate) fn is_one_of(names: &[&str], known: &[&str]) -> bool {
    /// As much as Linux keeps of a name.
    const KEPT: usize = 15;
    let is_it = |known: &&str| {
        let cut = known.get(..KEPT).unwrap_or(known);
        names.iter().any(|name| name == known || *name == cut)
    };
    known.iter().any(is_it)
}

/// Whether a process with these names is a launcher.
pub(crate) fn is_launcher(names: &[&str]) -> bool {
    is_one_of(names, &LAUNCHERS)
}

/// The name that a program was called by; a login shell has a dash before it.
pub(crate) fn file_name(title: &str) -> Option<&str> {
    Path::new(title.strip_prefix('-').unwrap_or(title)).file_name()?.to_str()
}

/// The same of a process that lives.
pub(super) fn launches(pid: sys::Pid) -> bool {
    let program = sys::program_name(pid);
    let title = sys::command_line(pid).and_then(|words| words.into_iter().next());
    let names: Vec<&str> =
        [program.as_deref(), title.as_deref().and_then(file_name)].into_iter().flatten().collect();
    is_launcher(&names)
}
