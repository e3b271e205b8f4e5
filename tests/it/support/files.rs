//! Paths, modes and owners of files.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A user who owns nothing.
pub const NOBODY: u32 = 65534;

/// `database` with `-wal` or the like at its end.
pub fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Of a link, its own.
pub fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Owner, mode and content of a file that nobody may touch.
pub fn portrait(path: &Path) -> (u32, u32, Vec<u8>) {
    let facts = std::fs::symlink_metadata(path).unwrap();
    (facts.uid(), facts.mode(), std::fs::read(path).unwrap())
}
