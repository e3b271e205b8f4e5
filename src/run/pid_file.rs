//! The pid of a run in a file, for as long as it has a command.
//!
//! It is the run's own: that stays while commands come and go, and what is sent to it reaches the
//! command. The file is for whoever reads such files (monit, logrotate); nothing here reads it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::sys::Shortage;
use crate::{Error, ErrorKind, Result};

/// Removed when it is dropped, unless somebody else has put his own in its place.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Whoever reads the path finds the old one or this one, and never half of it.
    pub(super) fn write(path: &Path) -> Result<Self> {
        // The directory of a process may change.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        write(&path).map_err(|error| explain(&path, error))?;
        Ok(Self { path })
    }
}

fn content() -> String {
    format!("{}\n", std::process::id())
}

fn write(path: &Path) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_string_lossy();
    let new = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut file = create(&new)?;
    file.write_all(content().as_bytes())
        .and_then(|()| std::fs::rename(&new, path))
        .inspect_err(|_| drop(std::fs::remove_file(&new)))
}

/// Never through a link, or into a file that somebody else has put there.
fn create(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().write(true).create_new(true).open(path);
    open().or_else(|error| {
        if error.kind() != io::ErrorKind::AlreadyExists {
            return Err(error);
        }
        // Of one that was killed, and had our pid.
        std::fs::remove_file(path)?;
        open()
    })
}

fn explain(path: &Path, error: io::Error) -> Error {
    let message = format!("cannot write the pid file {}: {error}", path.display());
    let kind = match error.kind() {
        _ if Shortage::of(&error).is_some() => ErrorKind::Busy,
        io::ErrorKind::NotFound | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
            ErrorKind::InvalidInput
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::Permission
        }
        _ => ErrorKind::CannotWrite,
    };
    let hint = "name a file in a directory that this user may write to";
    Error::new(kind, message).at(path).with_hint(hint).caused_by(error)
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let is_ours = std::fs::read_to_string(&self.path).is_ok_and(|found| found == content());
        if is_ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the pid file stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_until_the_end_and_only_ours_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.pid");
        std::fs::write(&path, "of one that was killed").unwrap();
        let file = PidFile::write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content());
        drop(file);
        assert!(!path.exists());
        let file = PidFile::write(&path).unwrap();
        std::fs::write(&path, "1\n").unwrap();
        drop(file);
        assert!(path.exists(), "that of somebody else");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
        for path in [directory.path().join("no/such/file"), path.join("below")] {
            let error = PidFile::write(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains("pid file"), "{error}");
        }
    }
}
