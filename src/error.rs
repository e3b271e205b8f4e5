//! The one error type. Expected answers ("somebody else holds it") are values elsewhere; an
//! [`Error`] means that the answer could not be found out, or that the request cannot be served.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sys::{Looks, NoRoom, Shortage};
use crate::words::words;

/// `Result` with the crate's [`Error`], unless another one is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What to do about a damaged store.
pub(crate) const RECOVER: &str =
    "`incumbent doctor --fix` moves the file aside, and copies readable rows to a new one";

words! {
    /// What the caller can do about an [`Error`]. In JSON its word, as [`ErrorKind::as_str`] gives
    /// it. Later versions may have more: treat an unknown one as [`Internal`](Self::Internal).
    ///
    /// ```
    /// use incumbent::ErrorKind;
    ///
    /// assert_eq!(ErrorKind::CannotRead.as_str(), "cannot_read");
    /// assert_eq!(serde_json::to_value(ErrorKind::Busy)?, "busy");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[non_exhaustive]
    pub enum ErrorKind {
        /// The request itself is wrong. The message names the argument: correct it and ask again.
        InvalidInput = "invalid_input",
        /// Not now: somebody holds the store's locks for longer than the budget, another thread of
        /// this process is just forking or claiming, a request to the same holder is in progress,
        /// or this process has no descriptor, thread or memory left. Nothing was changed, and
        /// nothing was concluded: ask again after [`Error::retry_after`].
        Busy = "busy",
        /// The store is there and cannot be read. This is *not* "nothing runs".
        CannotRead = "cannot_read",
        /// The store cannot be written (disk full, read-only, I/O): nothing was recorded, so
        /// nothing is held. What was held before is held on.
        CannotWrite = "cannot_write",
        /// Modes or owners stand in the way, or are too open to be trusted: fix them.
        Permission = "permission",
        /// The store lies where its locks cannot be trusted, or where its path is too long: move
        /// it.
        Filesystem = "filesystem",
        /// The file is not an incumbent store: point to another path.
        NotOurs = "not_ours",
        /// A newer version has closed this store to writers as old as this one: upgrade.
        TooNew = "too_new",
        /// The store has an older schema and this call may not migrate it: open it for owning once.
        TooOld = "too_old",
        /// The database is damaged: `incumbent doctor --fix` moves it aside and begins a new one.
        Corrupt = "corrupt",
        /// The profile is bound to another home directory.
        ProfileBelongsTo = "profile_belongs_to",
        /// The store file was deleted or replaced since it was opened: open it again, and claim
        /// again what was held.
        StoreReplaced = "store_replaced",
        /// The caller does not hold (or no longer holds) what it tried to act on.
        NotOwner = "not_owner",
        /// The process that is meant does not run (any more): nothing was done.
        NotRunning = "not_running",
        /// This process was forked from one that had the store open. Handles opened before the fork
        /// do not work here. The same store can be opened again here if the parent has closed it
        /// for the fork ([`Store::close_for_fork`](crate::Store::close_for_fork)); otherwise not,
        /// also not when all of them are dropped: have the child execute a program (`exec`) that
        /// opens it.
        Forked = "forked",
        /// The operating system cannot do this here.
        Unsupported = "unsupported",
        /// Something failed that should not: a bug, or an operating system in distress.
        Internal = "internal",
    }
}

/// Why something could not be found out or done: what went wrong, where, and what to do about it.
/// "Somebody else holds it" is never an error, but an answer.
///
/// `Display` is one line without a full stop, with the path and the number that matter. It repeats
/// no identity of a lock and no nonce. `source` leads to the cause in the system or in SQLite.
///
/// ```
/// use incumbent::{ErrorKind, Store};
///
/// let error = Store::open("").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidInput);
/// assert_eq!(error.to_string(), "the store's path is empty");
/// assert_eq!(error.hint(), Some("name a file, or set INCUMBENT_DB"));
/// assert!(!error.is_temporary() && error.retry_after().is_none());
/// ```
#[derive(thiserror::Error)]
#[error("{}", .0.message)]
pub struct Error(#[source] Box<Details>);

#[derive(thiserror::Error)]
#[error("{message}")]
struct Details {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    hint: Option<String>,
    /// The same where a person at a command line reads it, if that is something else.
    command_line_hint: Option<String>,
    retry_after: Option<Duration>,
    no_room: Option<NoRoom>,
    is_of_shortage: bool,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// The process `pid`, which somebody named, has ended or never was.
    pub(crate) fn no_process(pid: crate::sys::Pid) -> Self {
        Self::new(ErrorKind::NotRunning, format!("there is no process with pid {pid}"))
    }

    /// A process does not hold the office that it wants to speak for.
    pub(crate) fn not_speaker(message: String) -> Self {
        let what = "call it inside a `run`, or claim the office for the process first";
        Self::new(ErrorKind::NotOwner, message).with_hints(
            format!("{what} (`KeptProcess::claim`)"),
            format!("{what} (in a script: `incumbent claim --pid $$`)"),
        )
    }

    /// An owner of a store that is gone has not claimed again in `path`.
    pub(crate) fn lost_owner(pid: Option<crate::sys::Pid>, path: &Path) -> Self {
        let who = pid.map_or_else(|| "a process".to_owned(), |pid| format!("pid {pid}"));
        let message = format!(
            "the record of {who} was in a store that was moved, deleted or replaced; {who} has \
             not claimed again in {}",
            path.display()
        );
        Self::new(ErrorKind::StoreReplaced, message)
            .at(path)
            .with_hint(
                "try again in a second: a gateway that is running claims again by itself; \
                 `incumbent status` shows whether it did",
            )
            .with_retry_after(Duration::from_secs(1))
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            kind,
            message: message.into(),
            path: None,
            hint: None,
            command_line_hint: None,
            retry_after: None,
            no_room: None,
            is_of_shortage: false,
            source: None,
        }))
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file or directory it is about; `None` where it is about none.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// An act that may help, for a person: one sentence without a full stop. `None` where there is
    /// none that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The same for a person at a command line, who has flags in place of methods.
    pub(crate) fn command_line_hint(&self) -> Option<&str> {
        self.0.command_line_hint.as_deref().or(self.hint())
    }

    /// Whether the same call may succeed soon, without anybody's help: the store was busy, or an
    /// owner that lost its store is about to claim again. A handle whose store was replaced stays
    /// useless: that is not temporary, but opening the store again helps.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self.kind() {
            ErrorKind::Busy => true,
            ErrorKind::StoreReplaced => self.0.retry_after.is_some(),
            _ => false,
        }
    }

    /// How long to wait before asking again, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    pub(crate) fn at(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path.get_or_insert(path.into());
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert(hint.into());
        self
    }

    /// A hint that names a method, and what does the same at a command line.
    pub(crate) fn with_hints(
        mut self,
        hint: impl Into<String>,
        at_command_line: impl Into<String>,
    ) -> Self {
        if self.0.hint.is_none() {
            self.0.command_line_hint = Some(at_command_line.into());
        }
        self.with_hint(hint)
    }

    /// A hint to do `what`, which at a command line is done with `flag`; and what else there is to
    /// say.
    pub(crate) fn with_flag_hint(self, what: &str, flag: &str, rest: &str) -> Self {
        self.with_hints(format!("{what}{rest}"), format!("{what} with `{flag}`{rest}"))
    }

    /// What is wrong came from the environment variable `name`, which whoever reads this may not
    /// know of; `instead` is what takes its place.
    pub(crate) fn of_variable(mut self, name: &str, instead: &str, flag: Option<&str>) -> Self {
        self.0.message += &format!(" (from {name})");
        let known = [self.hint(), self.command_line_hint()].map(|hint| hint.map(str::to_owned));
        let with_flag = flag.map_or_else(String::new, |flag| format!(" with `{flag}`"));
        let [hint, at_command_line] = known.map(|hint| match hint {
            Some(hint) => format!("{hint}; or `unset {name}`, or {instead}"),
            None => format!("`unset {name}`, or {instead}"),
        });
        self.0.hint = None;
        self.with_hints(hint, at_command_line + &with_flag)
    }

    pub(crate) fn with_retry_after(mut self, pause: Duration) -> Self {
        self.0.retry_after = Some(pause);
        self
    }

    pub(crate) fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// An I/O error met while doing `what` to `path`. Refusals by permission keep a kind of their
    /// own, because a person has to act on them; a full or read-only disk is `CannotWrite`.
    pub(crate) fn io(what: &str, path: &Path, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        if let Some(shortage) = Shortage::of(&error) {
            return Self::shortage(shortage, &format!("{what} {}", path.display()))
                .at(path)
                .caused_by(error);
        }
        let message = format!("cannot {what} {}: {error}", path.display());
        if let Some(no_room) = NoRoom::of(&error) {
            return Self::no_room(no_room, message).at(path).caused_by(error);
        }
        let kind = match error.kind() {
            Io::PermissionDenied => ErrorKind::Permission,
            Io::ReadOnlyFilesystem => ErrorKind::CannotWrite,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, message).at(path).caused_by(error)
    }

    /// A file could not grow: nothing was recorded.
    fn no_room(no_room: NoRoom, message: String) -> Self {
        let mut error = Self::new(ErrorKind::CannotWrite, message).with_hint(no_room.hint());
        error.0.no_room = Some(no_room);
        error
    }

    /// Whether a file could not grow.
    pub(crate) fn is_of_no_room(&self) -> bool {
        self.0.no_room.is_some()
    }

    /// This process, or the machine, ran short of something: nothing was found out, and nothing
    /// decided.
    pub(crate) fn shortage(shortage: Shortage, what: &str) -> Self {
        let mut error = Self::new(ErrorKind::Busy, format!("cannot {what}: {shortage}"))
            .with_hint(format!("{}, and try again; nothing was changed", shortage.hint()))
            .with_retry_after(Duration::from_secs(1));
        error.0.is_of_shortage = true;
        error
    }

    /// The SQLite error behind this one, or this one back.
    pub(crate) fn into_sqlite(mut self) -> std::result::Result<rusqlite::Error, Self> {
        match self
            .0
            .source
            .take()
            .map(<dyn std::error::Error + Send + Sync>::downcast::<rusqlite::Error>)
        {
            Some(Ok(cause)) => Ok(*cause),
            Some(Err(source)) => {
                self.0.source = Some(source);
                Err(self)
            }
            None => Err(self),
        }
    }

    /// Whether this process, or the machine, ran short of something.
    pub(crate) fn is_of_shortage(&self) -> bool {
        self.0.is_of_shortage
    }

    /// Whether somebody else's lock on the store was in the way.
    pub(crate) fn is_of_a_lock(&self) -> bool {
        use rusqlite::ErrorCode as Code;
        matches!(self.sqlite_code(), Some(Code::DatabaseBusy | Code::DatabaseLocked))
    }

    /// The extended code of the SQLite error behind it, if there is one.
    pub(crate) fn sqlite_extended_code(&self) -> Option<i32> {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<rusqlite::Error>() {
                return error.sqlite_error().map(|error| error.extended_code);
            }
            source = error.source();
        }
        None
    }

    /// The SQLite result code behind this error, if there is one.
    pub(crate) fn sqlite_code(&self) -> Option<rusqlite::ErrorCode> {
        let source = self.0.source.as_deref()?;
        source.downcast_ref::<rusqlite::Error>()?.sqlite_error_code()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("path", &self.0.path)
            .field("hint", &self.0.hint)
            .field("source", &self.0.source)
            .finish()
    }
}

impl fmt::Debug for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// For conversions that cannot fail, where others of the kind can.
impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// A failed statement on an open store. The path is added by the caller that knows it. Hidden,
/// because it is there for `?`: what is below is no promise of the crate.
#[doc(hidden)]
impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        if let Some(shortage) = Shortage::behind(&error) {
            return Self::shortage(shortage, "read the store").caused_by(error);
        }
        if let Some(no_room) = NoRoom::behind(&error) {
            let message = match no_room {
                NoRoom::Disk => format!("SQLite: {error}"),
                NoRoom::FileSizeLimit => {
                    format!("SQLite: {error}: the limit on the size of a file is reached")
                }
            };
            return Self::no_room(no_room, message).caused_by(error);
        }
        let code = match &error {
            // Which column or table is not there: the schema is not the one that we made.
            rusqlite::Error::SqlInputError { error, .. } => Some(error.code),
            // Of a type that no program of ours writes there.
            rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..) => Some(Code::DatabaseCorrupt),
            error => error.sqlite_error_code(),
        };
        let kind = match code {
            // SQLITE_PROTOCOL: the locks of the WAL could not be had again and again.
            Some(Code::DatabaseBusy | Code::DatabaseLocked | Code::FileLockingProtocolFailed) => {
                ErrorKind::Busy
            }
            Some(Code::ReadOnly | Code::SystemIoFailure) => ErrorKind::CannotWrite,
            Some(Code::CannotOpen | Code::PermissionDenied) => ErrorKind::CannotRead,
            // SQLITE_ERROR: every statement of ours was tried on a schema that was whole.
            Some(Code::DatabaseCorrupt | Code::Unknown) => ErrorKind::Corrupt,
            Some(Code::NotADatabase) => ErrorKind::NotOurs,
            _ => ErrorKind::Internal,
        };
        let hint = match kind {
            ErrorKind::Corrupt => Some(RECOVER),
            ErrorKind::Busy => Some("try again"),
            ErrorKind::CannotWrite => Some("check free space and that the disk is writable"),
            _ => None,
        };
        let built = Self::new(kind, format!("SQLite: {error}")).caused_by(error);
        match hint {
            Some(hint) => built.with_hint(hint),
            None => built,
        }
    }
}

/// Does `work`, which looks at `what`: what it came to while this process ran short of something
/// was seen blindly, and counts for nothing.
pub(crate) fn with_clear_sight<T, What: AsRef<str>>(
    what: impl FnOnce() -> What,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let looks = Looks::begin();
    let done = work();
    match looks.shortage() {
        Some(shortage) => Err(Error::shortage(shortage, what().as_ref())),
        None => done,
    }
}
