//! What keepers need of Windows: a process without a console, and that inherits nothing.

#![allow(unsafe_code, reason = "none of this has a safe wrapper")]

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::windows::io::{AsRawHandle, FromRawHandle, IntoRawHandle, OwnedHandle};
use std::os::windows::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, HANDLE_FLAG_INHERIT, INVALID_HANDLE_VALUE, SetHandleInformation,
};
use windows_sys::Win32::System::Console::{FreeConsole, STD_OUTPUT_HANDLE, SetStdHandle};
use windows_sys::Win32::System::Threading::{
    CREATE_BREAKAWAY_FROM_JOB, CREATE_NEW_PROCESS_GROUP, DETACHED_PROCESS, PROCESS_CREATION_FLAGS,
};

use super::Pid;
use super::signals::Catcher;
use super::supervise::check;

/// Starts a keeper: nothing of ours but a pipe for its report. Not
/// for a process with other threads that start children.
pub(crate) fn spawn_keeper(mut helper: Command, arguments: &[OsString]) -> io::Result<Child> {
    inherit_nothing();
    let program = PathBuf::from(helper.get_program());
    helper
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // A current directory cannot be removed; that drive our own file is on anyway.
        .current_dir(program.ancestors().last().unwrap_or(Path::new("\\")));
    let mut start = |flags: PROCESS_CREATION_FLAGS| {
        helper.creation_flags(DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP | flags).spawn()
    };
    // The keeper is not part of a command, even if one asked for it. A job that is not ours may
    // forbid to leave it; then it ends the recorded process together with the keeper.
    start(CREATE_BREAKAWAY_FROM_JOB).or_else(|error| {
        let is_denied = error.raw_os_error() == Some(ERROR_ACCESS_DENIED.cast_signed());
        if is_denied { start(0) } else { Err(error) }
    })
}

/// A process cannot go on as another one.
pub(crate) fn leave_starter() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What was inherited is inheritable again, and a keeper lives for days: `$(incumbent claim)` would
/// wait for it, because it would hold the pipe open. std passes its own three on explicitly.
fn inherit_nothing() {
    /// Handles are multiples of four and keep their numbers when inherited; few processes have more
    /// than 10,000.
    const HANDLE_MAX: usize = 65_536;

    for handle in (4..=HANDLE_MAX).step_by(4) {
        let handle = std::ptr::without_provenance_mut(handle);
        // SAFETY: changes nothing about a handle but whether later children inherit it; a number
        // that is none is refused.
        unsafe { SetHandleInformation(handle, HANDLE_FLAG_INHERIT, 0) };
    }
}

/// Makes this process nobody's: no console, and so no event of one. It still ends when its user
/// logs off, as does the process that it keeps a record for.
#[expect(clippy::unnecessary_wraps, reason = "the same shape everywhere")]
pub(crate) fn detach() -> io::Result<()> {
    // SAFETY: takes nothing. It fails when there is no console, which is what is wanted.
    unsafe { FreeConsole() };
    Ok(())
}

/// A lock belongs to one process there: a keeper stays alone.
pub(crate) fn spawn_second_keeper(
    _helper: Command,
    _arguments: &[OsString],
    _anchor: &File,
) -> io::Result<Child> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There is no second keeper.
pub(crate) fn detach_with(_anchor: i32) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Nobody asks a process without a console to end.
pub(crate) fn catch_request_to_end(
    _on_request: impl FnMut() + Send + 'static,
) -> io::Result<Catcher> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There are no cgroups.
pub(crate) fn follow_to_cgroup(_pid: Pid) -> bool {
    true
}

/// Lets go of the pipe on standard output, so that whoever reads it sees its end.
pub(crate) fn close_standard_output() -> io::Result<()> {
    let null = OpenOptions::new().write(true).open("NUL")?;
    // Nobody writes while the handles change places, and what was written goes to the old one.
    let mut stdout = io::stdout().lock();
    stdout.flush()?;
    let pipe = stdout.as_raw_handle();
    // SAFETY: the new handle is open and from now on belongs to standard output.
    check(unsafe { SetStdHandle(STD_OUTPUT_HANDLE, null.into_raw_handle()) })?;
    if !pipe.is_null() && pipe != INVALID_HANDLE_VALUE {
        // SAFETY: standard output owned it, and is something else now.
        drop(unsafe { OwnedHandle::from_raw_handle(pipe) });
    }
    Ok(())
}
