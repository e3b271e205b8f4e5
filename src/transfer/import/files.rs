//! The files of the older program.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::claim::older_home;
use crate::process::older::{LOCK_FILE, MARKER_FILES, PID_FILE, STATUS_FILE};
use crate::sys::Shortage;
use crate::{Error, Kind, Office, Result, environment, sys};

/// Lock files that are read: more than any machine has bots.
const FILES_MAX: usize = 10_000;

/// The files of the older program in its directory and, where it has one, its directory of locks.
#[derive(Clone, Debug)]
pub struct OlderFiles {
    pub(super) home: PathBuf,
    pub(super) lock_dir: Option<PathBuf>,
    /// The directory of locks that was named, and why its files are left out.
    pub(super) left_out: Option<(PathBuf, Arc<io::Error>)>,
}

impl OlderFiles {
    /// Those in `directory`, with the locks of this user where the older program keeps them
    /// (`HERMES_GATEWAY_LOCK_DIR`, else `hermes/gateway-locks` below the user's state directory).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for what is not a directory;
    /// [`Permission`](crate::ErrorKind::Permission) for another user's, and for one that may not be
    /// looked at; [`Busy`](crate::ErrorKind::Busy) when this process is short of descriptors or
    /// memory.
    pub fn new(directory: impl AsRef<Path>) -> Result<Self> {
        let home = older_home::home(directory.as_ref(), &Kind::default())?;
        Ok(Self { home, lock_dir: default_lock_dir(), left_out: None })
    }

    /// Another directory of locks. One that cannot be listed is a row of the import.
    ///
    /// # Errors
    /// [`Busy`](crate::ErrorKind::Busy) when this process is short of descriptors or memory.
    pub fn lock_dir(mut self, directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        (self.lock_dir, self.left_out) = match lock_directory(&directory) {
            Ok(directory) => (Some(directory), None),
            Err(why) => match Shortage::of(&why) {
                Some(shortage) => return Err(Error::shortage(shortage, "look at the lock files")),
                None => (None, Some((directory, Arc::new(why)))),
            },
        };
        Ok(self)
    }

    /// Says whether they can be those of `office`, before a store is made for it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an office that is not of kind
    /// `gateway`.
    pub fn check(&self, office: &Office) -> Result<()> {
        older_home::check_kind(&office.kind)
    }

    /// The real path of the directory.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Whether there is anything to import.
    #[must_use]
    pub fn any(&self) -> bool {
        let names = [PID_FILE, LOCK_FILE, STATUS_FILE].into_iter();
        let mut names = names.chain(MARKER_FILES.iter().map(|(file, _)| *file));
        let lock_dir = self.lock_dir.as_deref();
        names.any(|name| std::fs::symlink_metadata(self.home.join(name)).is_ok())
            || lock_dir.is_some_and(|directory| !lock_files(directory).is_empty())
    }
}

/// A directory that can be listed.
fn lock_directory(directory: &Path) -> io::Result<PathBuf> {
    let found = std::fs::canonicalize(directory)?;
    std::fs::read_dir(&found)?;
    Ok(found)
}

/// Where the older program keeps the locks of a user; `None` where there is no such place.
fn default_lock_dir() -> Option<PathBuf> {
    const BELOW_STATE: &str = "hermes/gateway-locks";
    let named = environment::value("HERMES_GATEWAY_LOCK_DIR").map(PathBuf::from);
    let (variable, below_home) = sys::STATE_DIRECTORY;
    let directory = named.or_else(|| {
        let state = environment::absolute_path(variable);
        let state = state.or_else(|| Some(environment::absolute_path("HOME")?.join(below_home?)));
        Some(state?.join(BELOW_STATE))
    })?;
    lock_directory(&directory).ok()
}

/// The lock files in a directory, in the order of their names.
pub(super) fn lock_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let is_one = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "lock");
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<PathBuf> = paths.filter(is_one).take(FILES_MAX).collect();
    paths.sort();
    paths
}
