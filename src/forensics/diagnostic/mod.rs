//! A slow look at the whole machine, by a process of its own.
//!
//! The one who starts it opens the log, so that whatever is wrong with that is told at once, and
//! hands it over as the output of the new process. That is a helper of ours, which redacts, cuts
//! and times what it writes; see [`report`].

pub(crate) mod ask;
pub(crate) mod report;
mod shown;
pub(crate) mod table;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Deadline;
use crate::forensics::diagnostic::report::Task;
use crate::process::helper;
use crate::process::helper::{HelperProgram, exit};
use crate::sys::supervise;
use crate::sys::{Pid, Shortage, diagnostic as os};
use crate::{Error, ErrorKind, OpenOptions, Result, sys};

/// The hidden verb of the process that looks.
pub(crate) const VERB: &str = "__diagnostic";

/// A busy machine answers within this; a supervisor waits longer for a gateway to end.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// What takes longer never ends: the process would outlive the stop that it is about.
const TIMEOUT_MAX: Duration = Duration::from_mins(1);

/// A log of this length is renamed before the next diagnostic is begun. About 50 diagnostics of an
/// ordinary machine fit: what happened last night is still there.
const LOG_LENGTH_MAX: u64 = 1024 * 1024;

/// How long another one may take to rename the log, which is one system call.
const RENAMING_MAX: Duration = Duration::from_millis(100);

/// A look at the whole machine while a process ends: what runs and how hard, whose child that
/// process is, what the kernel said last. It is left to a detached [helper](crate::helper), because
/// it may take seconds, and appended to a log file.
///
/// Each diagnostic begins with `=== shutdown diagnostic @ SIGTERM ===` and ends with `=== end ===`.
/// Every line that begins or ends something carries `#PID`, the pid of the process that wrote it:
/// those of several diagnostics may take turns. What cannot be found out says why.
///
/// * Only the user can read the log (0600, also if it had another mode); missing directories are
///   made (0700). Command lines are redacted, also of the identities that are locked in the store;
///   while that cannot be read, only the names of programs are shown. Environments are never read.
/// * One diagnostic writes at most 256 KiB. A log of 1 MiB or more is renamed to `FILE.1` first, in
///   place of the one before.
/// * It has a session of its own, nothing of ours open, and does not heed SIGTERM, SIGHUP, SIGINT
///   or SIGQUIT; it ends after its timeout, whatever hangs. systemd counts it to the unit it was
///   started from (`KillMode=control-group`), so a stop may last until it has ended.
///
/// ```standalone_crate
/// // The program begins with this, or `incumbent` is installed.
/// let arguments: Vec<_> = std::env::args_os().collect();
/// if let Some(exit_code) = incumbent::helper::serve(&arguments) {
///     std::process::exit(exit_code);
/// }
/// # #[cfg(unix)] {
/// # let directory = tempfile::tempdir()?;
/// # let (log, store) = (directory.path().join("log"), directory.path().join("state.db"));
/// use incumbent::forensics::Diagnostic;
/// use std::time::Duration;
///
/// let diagnostic = Diagnostic::new(&log).store(&store).signal(15);
/// let pid = diagnostic.timeout(Duration::from_secs(3)).start()?;
/// assert!(pid != std::process::id() && log.is_file());
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Platform
/// Unix. On Windows [`Diagnostic::start`] is always [`ErrorKind::Unsupported`].
#[derive(Clone, Debug)]
#[must_use = "nothing is done before `start`"]
pub struct Diagnostic {
    log: PathBuf,
    timeout: Duration,
    signal: Option<i32>,
    subject: Pid,
    program: Option<PathBuf>,
    store: Option<PathBuf>,
}

impl Diagnostic {
    /// A diagnostic of this process, to be appended to the file `log` within 5 s.
    pub fn new(log: impl Into<PathBuf>) -> Self {
        Self {
            log: log.into(),
            timeout: TIMEOUT_DEFAULT,
            signal: None,
            subject: std::process::id(),
            program: None,
            store: None,
        }
    }

    /// How long it may take: more than nothing, and at most one minute; 5 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The signal that it is written for, as the platform counts them. By default none is named.
    pub fn signal(mut self, signal: i32) -> Self {
        self.signal = Some(signal);
        self
    }

    /// The process that is ending, in place of this one.
    pub fn subject(mut self, pid: u32) -> Self {
        self.subject = pid;
        self
    }

    /// The store whose locked identities are taken out of what is written, in place of the usual
    /// one (`$INCUMBENT_DB`, else that of this user).
    pub fn store(mut self, file: impl Into<PathBuf>) -> Self {
        self.store = Some(file.into());
        self
    }

    /// The program of the process that looks, in place of the one that all
    /// [helpers](HelperProgram::find) execute. It should be of the version of this library.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Starts it, and returns the pid of the process at once (a few ms). Nobody has to wait for
    /// that process: a thread of ours does.
    ///
    /// # Errors
    /// Nothing is started then, and nothing written.
    /// * [`ErrorKind::InvalidInput`]: the timeout is 0 or too long, the log is no regular file of
    ///   its own (a symbolic link, a named pipe), or there is no
    ///   [program for helpers](HelperProgram::find).
    /// * [`ErrorKind::Permission`]: the log or its directory may not be written, or is another
    ///   user's.
    /// * [`ErrorKind::CannotWrite`]: the disk is full or read-only.
    /// * [`ErrorKind::Unsupported`]: on Windows.
    /// * [`ErrorKind::Busy`]: there may be no more processes just now, or open files.
    /// * [`ErrorKind::Internal`]: what else the system says.
    pub fn start(&self) -> Result<u32> {
        if !os::IS_SUPPORTED {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a detached diagnostic asks `ps` and `dmesg`, and Windows has none",
            ));
        }
        self.check_timeout()?;
        let program = self.find_program()?;
        let log = open_log(&self.log)?;
        let (path, command) = (program.path(), program.command());
        let mut child = os::spawn(command, &self.arguments(), log).map_err(|error| {
            if let Some(shortage) = Shortage::of(&error) {
                let what = format!("start {}", path.display());
                return Error::shortage(shortage, &what).at(path).caused_by(error);
            }
            let what = format!("cannot start {}: {error}", path.display());
            let kind = match error.kind() {
                io::ErrorKind::NotFound => ErrorKind::InvalidInput,
                io::ErrorKind::PermissionDenied => ErrorKind::Permission,
                _ => ErrorKind::Internal,
            };
            let hint = format!("name another one with `Diagnostic::program`, or {}", helper::HINT);
            Error::new(kind, what).at(path).with_hint(hint).caused_by(error)
        })?;
        let pid = child.id();
        let wait = move || drop(child.wait());
        let waiting =
            std::thread::Builder::new().name("incumbent-diagnostic".to_owned()).spawn(wait);
        if let Err(error) = waiting {
            tracing::debug!(%error, pid, "the diagnostic stays a zombie until this process ends");
        }
        Ok(pid)
    }

    fn check_timeout(&self) -> Result<()> {
        if self.timeout.is_zero() || self.timeout > TIMEOUT_MAX {
            return Err(Error::invalid(format!(
                "a diagnostic cannot take {} ms",
                self.timeout.as_millis()
            ))
            .with_hint("a timeout is more than 0, and at most 1 min"));
        }
        Ok(())
    }

    fn arguments(&self) -> Vec<OsString> {
        // Below a millisecond is not nothing.
        let timeout_ms = self.timeout.as_millis().max(1);
        let signal = self.signal.map_or_else(|| "-".to_owned(), |signal| signal.to_string());
        let numbers = [timeout_ms.to_string(), self.subject.to_string(), signal];
        // The process starts in another directory.
        let store = match &self.store {
            Some(store) => std::path::absolute(store).ok(),
            None => OpenOptions::new().resolved_path().ok(),
        };
        std::iter::once(VERB.to_owned())
            .chain(numbers)
            .map(Into::into)
            .chain(store.map(Into::into))
            .collect()
    }

    fn find_program(&self) -> Result<HelperProgram> {
        self.program.as_ref().map_or_else(HelperProgram::find, |it| Ok(HelperProgram::new(it)))
    }
}

/// The whole life of the process that looks: `TIMEOUT_MS SUBJECT SIGNAL|- [STORE]`, and the log as
/// its output.
pub(crate) fn life(arguments: &[OsString]) -> i32 {
    if supervise::detach().is_err() {
        return exit::FAILED;
    }
    let number = |at: usize| arguments.get(at)?.to_str()?.parse::<u32>().ok();
    let (Some(timeout_ms), Some(subject)) = (number(0), number(1)) else { return exit::USAGE };
    let signal = number(2).and_then(|signal| i32::try_from(signal).ok());
    let store = arguments.get(3).map(PathBuf::from);
    let timeout = Duration::from_millis(timeout_ms.into());
    // Nobody is left to be told.
    match report::write(&Task { timeout, subject, signal, store }) {
        Ok(()) => exit::OK,
        Err(_) => exit::FAILED,
    }
}

/// Opens the log, with its directories; a long one is renamed first.
fn open_log(path: &Path) -> Result<File> {
    let failed = |what: &str, error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => "name a file that this user may write",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some disk space",
            _ => "name a file for the log, in a directory of this user's",
        };
        let is_wrong_path = matches!(
            error.kind(),
            io::ErrorKind::InvalidInput
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::InvalidFilename
        );
        if is_wrong_path {
            let what = format!("cannot {what} {}: {error}", path.display());
            return Error::invalid(what).at(path).with_hint(hint).caused_by(error);
        }
        Error::io(what, path, error).with_hint(hint)
    };
    if path.as_os_str().is_empty() {
        return Err(Error::invalid("the log has no name").with_hint("name a file"));
    }
    if let Some(directory) = path.parent() {
        sys::create_private_dirs(directory)
            .map_err(|error| failed("make the directory of the log", error))?;
    }
    let deadline = Deadline::after(RENAMING_MAX);
    loop {
        let log = os::open_log(path).map_err(|error| failed("open the log", error))?;
        let length = log.metadata().map_err(|error| failed("look at the log", error))?.len();
        // Somebody keeps it locked who is none of us. Better a longer log than none.
        if length < LOG_LENGTH_MAX || deadline.has_passed() {
            return Ok(log);
        }
        if os::try_lock_log(&log).map_err(|error| failed("lock the log", error))? {
            rename_log(path, &log).map_err(|error| failed("rename to FILE.1 the log", error))?;
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Renames the open and locked log, unless another one has: the loser finds another file under the
/// name.
fn rename_log(path: &Path, log: &File) -> io::Result<()> {
    let named = match sys::file_facts(path) {
        Ok(named) => named,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if named.id != sys::open_file_facts(log)?.id {
        return Ok(());
    }
    let mut older = path.as_os_str().to_owned();
    older.push(".1");
    // Who has it open goes on writing to what is FILE.1 now: nobody's text is lost.
    sys::rename_beside(path, Path::new(&older))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As every log does.
    const BEGIN: &str = "=== shutdown diagnostic";

    /// Two saw a long log; the second one would rename what the first one has begun.
    #[test]
    fn what_another_has_renamed_is_not_renamed_again() {
        if !os::IS_SUPPORTED {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (path, older) = (directory.path().join("log"), directory.path().join("log.1"));
        std::fs::write(&path, format!("{BEGIN} long")).unwrap();
        let (first, second) = (os::open_log(&path).unwrap(), os::open_log(&path).unwrap());
        rename_log(&path, &first).unwrap();
        // Nobody has begun a new one yet.
        rename_log(&path, &second).unwrap();
        std::fs::write(&path, format!("{BEGIN} new")).unwrap();
        rename_log(&path, &second).unwrap();
        let texts = [&path, &older].map(|path| std::fs::read_to_string(path).unwrap());
        assert_eq!(texts, ["new", "long"].map(|text| format!("{BEGIN} {text}")));
    }

    #[test]
    fn a_long_log_that_somebody_keeps_locked_grows() {
        if !os::IS_SUPPORTED {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let length = usize::try_from(LOG_LENGTH_MAX).unwrap();
        std::fs::write(&path, [BEGIN, &"x".repeat(length - BEGIN.len())].concat()).unwrap();
        let locked = os::open_log(&path).unwrap();
        assert!(os::try_lock_log(&locked).unwrap());
        let log = open_log(&path).unwrap();
        assert_eq!(log.metadata().unwrap().len(), LOG_LENGTH_MAX);
        drop(locked);
        let log = open_log(&path).unwrap();
        assert_eq!(log.metadata().unwrap().len(), 0);
    }
}
