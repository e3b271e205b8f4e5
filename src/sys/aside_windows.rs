//! As on Unix, where a program belongs to nobody's terminal anyway.

#[cfg(feature = "cli")]
use std::ffi::{OsStr, OsString};
use std::io;
use std::process::{Child, Command, Stdio};

/// A line for a shell, as the program and its arguments.
#[cfg(feature = "cli")]
pub(crate) fn shell_words(line: &OsStr) -> [OsString; 3] {
    ["cmd".into(), "/C".into(), line.to_owned()]
}

/// Starts it, with the standard input that `command` has.
pub(crate) fn start(mut command: Command) -> io::Result<Child> {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// Nobody is taken for another's child here.
pub(crate) fn started() -> Vec<super::Pid> {
    Vec::new()
}
