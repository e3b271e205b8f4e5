//! Errors of SQLite, as what they mean here.

use crate::error::RECOVER;
use crate::store::files::{CompareBy, FilesState};
use crate::store::handle::Inner;
use crate::store::location::me;
use crate::store::overwritten::Damage;
use crate::store::{busy, location};
use crate::{Error, ErrorKind, sys};
use std::time::Duration;

impl Inner {
    pub(super) fn replaced(&self, how: &str) -> Error {
        // What was seen first: since then others may have made the file anew.
        let how = self
            .lost
            .lock()
            .get_or_insert_with(|| {
                tracing::warn!(store = %self.location.file.display(), how, "the store is lost");
                how.to_owned()
            })
            .clone();
        Error::new(
            ErrorKind::StoreReplaced,
            format!("the store {} was replaced: {how}", self.location.file.display()),
        )
        .at(&self.location.file)
        .with_hint("open the store again, and claim again what you held")
    }

    /// Adds what only this level knows: the path, and who keeps the store busy.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let file = &self.location.file;
        // It says only that it cannot open a file, or read one (FIELD-BUGS row 110).
        if matches!(
            error.sqlite_code(),
            Some(
                rusqlite::ErrorCode::CannotOpen
                    | rusqlite::ErrorCode::SystemIoFailure
                    | rusqlite::ErrorCode::OutOfMemory
            )
        ) && let Some(shortage) = sys::lack_of_descriptors()
        {
            let what = format!("open {}", file.display());
            return Error::shortage(shortage, &what).at(file).caused_by(error);
        }
        // Whatever SQLite says of a file that is gone: it is gone.
        if (error.sqlite_code().is_some() || error.kind() == ErrorKind::Corrupt)
            && let Ok(FilesState::Lost(how)) = self.files.check(CompareBy::Path)
        {
            return self.replaced(&how).caused_by(error);
        }
        if let Some(damage) = Damage::behind_opening(&error, &self.location) {
            return self.replaced(&damage.to_string()).caused_by(error);
        }
        if error.kind() == ErrorKind::Corrupt && self.files.were_changed() {
            return Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{} is damaged: a program other than SQLite wrote to it while it was in use \
                     (was a copy put over it?)",
                    file.display()
                ),
            )
            .at(file)
            .with_hint(RECOVER)
            .caused_by(error);
        }
        // After ten seconds in which SQLite could not even begin to read.
        if error.sqlite_code() == Some(rusqlite::ErrorCode::FileLockingProtocolFailed) {
            return match error.into_sqlite() {
                Ok(cause) => busy::error(file, cause),
                Err(error) => error,
            };
        }
        let is_there = || std::fs::symlink_metadata(file).is_ok();
        match error.kind() {
            ErrorKind::Busy if error.is_of_a_lock() => match error.into_sqlite() {
                Ok(cause) => busy::error(file, cause),
                Err(error) => error,
            },
            ErrorKind::CannotWrite
                if error.sqlite_code() == Some(rusqlite::ErrorCode::ReadOnly) =>
            {
                match location::unwritable(&self.location) {
                    Some(culprit) => culprit.caused_by(error),
                    // SQLite opens for reading what it could not open for writing, and does not say
                    // why.
                    None => Error::new(
                        ErrorKind::Busy,
                        format!("{} could not be opened for writing just now", file.display()),
                    )
                    .at(file)
                    .with_hint("try again; nothing was changed")
                    .with_retry_after(Duration::from_secs(1))
                    .caused_by(error),
                }
            }
            ErrorKind::CannotRead if is_there() => {
                let cannot_open = || {
                    let what = format!("{} is there, but {} cannot open it", file.display(), me());
                    Error::new(ErrorKind::CannotRead, format!("{what}: {error}"))
                        .at(file)
                        .with_hint(
                            "run this as its owner, or check the modes of the file and its \
                             directory",
                        )
                };
                location::unreadable(&self.location).unwrap_or_else(cannot_open).caused_by(error)
            }
            // What lies beside it says that it was one of ours.
            ErrorKind::NotOurs
                if error.sqlite_code().is_some() && self.location.anchors.is_dir() =>
            {
                Error::new(
                    ErrorKind::Corrupt,
                    format!("{} is no longer an SQLite database", file.display()),
                )
                .at(file)
                .with_hint(RECOVER)
                .caused_by(error)
            }
            ErrorKind::NotOurs if error.sqlite_code().is_some() => Error::new(
                ErrorKind::NotOurs,
                format!("{} is not an SQLite database", file.display()),
            )
            .at(file)
            .with_flag_hint("name another file", "--db PATH", "; this one was left as it is")
            .caused_by(error),
            _ => error.at(file),
        }
    }
}
