//! Windows has no detached diagnostic: there is nothing like `ps` and `dmesg` to ask, and the Event
//! Log keeps what they would say. [`open_log`] refuses before anything is done.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command};

use super::ProcessRow;

pub(crate) const IS_SUPPORTED: bool = false;

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn open_log(_path: &Path) -> io::Result<File> {
    unsupported()
}

pub(crate) fn try_lock_log(_log: &File) -> io::Result<bool> {
    unsupported()
}

pub(crate) fn spawn(_helper: Command, _arguments: &[OsString], _log: File) -> io::Result<Child> {
    unsupported()
}

pub(crate) fn standard_output() -> io::Result<File> {
    unsupported()
}

pub(crate) fn expect_children() {}

pub(crate) fn lead_group(_command: &mut Command) {}

pub(crate) fn kill_group(child: &mut Child) {
    let _ = child.kill();
}

#[allow(clippy::disallowed_methods, reason = "a process that has nothing to clean up")]
pub(crate) fn end_at_once(code: i32) -> ! {
    std::process::exit(code)
}

pub(crate) fn load_average() -> Result<String, String> {
    Err("Windows has no load average".to_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "the contract of all platforms")]
pub(crate) fn process_rows() -> Result<Vec<ProcessRow>, String> {
    Ok(super::process_rows_by_parents())
}

pub(crate) fn why_hidden() -> Option<String> {
    None
}
