//! The files of the older program.

use std::path::{Path, PathBuf};

use crate::process::older::{LOCK_FILE, MARKER_FILES, PID_FILE, STATUS_FILE};

/// Lock files that are read: more than any machine has bots.
const FILES_MAX: usize = 10_000;

/// The files of the older program in its directory `home` and, where it has one, its directory of
/// locks.
#[derive(Debug)]
pub(crate) struct OlderFiles<'a> {
    pub(super) home: &'a Path,
    pub(super) lock_dir: Option<&'a Path>,
}

impl<'a> OlderFiles<'a> {
    pub(crate) fn new(home: &'a Path, lock_dir: Option<&'a Path>) -> Self {
        Self { home, lock_dir }
    }

    /// Whether there is anything to import.
    pub(crate) fn any(&self) -> bool {
        let names = [PID_FILE, LOCK_FILE, STATUS_FILE].into_iter();
        let mut names = names.chain(MARKER_FILES.iter().map(|(file, _)| *file));
        names.any(|name| std::fs::symlink_metadata(self.home.join(name)).is_ok())
            || self.lock_dir.is_some_and(|directory| !lock_files(directory).is_empty())
    }
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
