//! Where a program that crashed leaves a picture of its memory: a core dump.

#[cfg(target_os = "linux")]
use std::path::Path;

/// Who gets it.
#[cfg_attr(windows, allow(dead_code, reason = "there are none"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CoreDumps {
    /// systemd, and `coredumpctl` shows them (coredumpctl(1)).
    Systemd,
    /// The directory of the program, where `ulimit -c` lets it (core(5)).
    Files,
    /// Another program, or nobody.
    Elsewhere,
}

/// Where they go on this machine.
#[cfg(target_os = "linux")]
pub(crate) fn core_dumps() -> CoreDumps {
    // The texts that are kept are the same on every machine.
    if cfg!(test) {
        return CoreDumps::Files;
    }
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let path = crate::environment::value("PATH").unwrap_or_default();
    let has_program = std::env::split_paths(&path).any(|place| place.join("coredumpctl").is_file());
    by_pattern(&pattern, has_program)
}

#[cfg(target_os = "linux")]
fn by_pattern(pattern: &str, has_coredumpctl: bool) -> CoreDumps {
    let Some(program) = pattern.trim().strip_prefix('|') else {
        let is_off = pattern.trim().is_empty();
        return if is_off { CoreDumps::Elsewhere } else { CoreDumps::Files };
    };
    let program = program.split_whitespace().next().map(Path::new).and_then(Path::file_name);
    let is_systemd = program.is_some_and(|name| name == "systemd-coredump");
    if is_systemd && has_coredumpctl { CoreDumps::Systemd } else { CoreDumps::Elsewhere }
}

/// Where they go on this machine.
#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) fn core_dumps() -> CoreDumps {
    CoreDumps::Files
}

/// Where they go on this machine.
#[cfg(windows)]
pub(crate) fn core_dumps() -> CoreDumps {
    // As above.
    if cfg!(test) { CoreDumps::Files } else { CoreDumps::Elsewhere }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn where_core_dumps_go() {
        for (pattern, has_coredumpctl, expected) in [
            ("core\n", false, CoreDumps::Files),
            ("/var/crash/core.%p", true, CoreDumps::Files),
            ("|/usr/lib/systemd/systemd-coredump %P %u\n", true, CoreDumps::Systemd),
            ("|/usr/lib/systemd/systemd-coredump %P %u\n", false, CoreDumps::Elsewhere),
            ("|/usr/share/apport/apport -p%p\n", true, CoreDumps::Elsewhere),
            ("|/bin/false", false, CoreDumps::Elsewhere),
            ("\n", true, CoreDumps::Elsewhere),
            ("", true, CoreDumps::Elsewhere),
        ] {
            assert_eq!(by_pattern(pattern, has_coredumpctl), expected, "{pattern}");
        }
    }
}
