//! Looking at the entries of a directory and setting their modes by descriptors only: a user who
//! renames something meanwhile does not lead us to something else.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::FileFacts;
use super::unix::{facts_of_stat, retry};

/// `O_NONBLOCK` so that a FIFO without writer opens at once.
const LOOK: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

pub fn open_directory(path: &Path) -> io::Result<File> {
    let flags = LOOK | OFlags::DIRECTORY;
    Ok(retry(|| rustix::fs::open(path, flags, Mode::empty()))?.into())
}

/// Needs no permission to read it, on Linux (open(2), `O_PATH`).
pub fn pin_directory(path: &Path) -> io::Result<Option<File>> {
    let flags = super::unix::ANCESTOR | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(Some(retry(|| rustix::fs::open(path, flags, Mode::empty()))?.into()))
}

pub fn open_in(directory: &File, name: &OsStr) -> io::Result<File> {
    Ok(retry(|| rustix::fs::openat(directory, name, LOOK, Mode::empty()))?.into())
}

pub fn facts_in(directory: &File, name: &OsStr) -> io::Result<FileFacts> {
    let found = retry(|| rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW))?;
    Ok(facts_of_stat(&found))
}

pub fn path_of_open(directory: &File) -> Option<PathBuf> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    (cfg!(target_os = "linux") && path.is_dir()).then_some(path)
}

pub fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(mode as _))?)
}

/// Of the very file that `expected` tells of, and never through a link.
pub fn set_mode_in(
    directory: &File,
    name: &OsStr,
    expected: &FileFacts,
    mode: u32,
) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode as _);
    let check = |found: FileFacts| {
        if found.id == expected.id { Ok(()) } else { Err(io::Error::from(io::ErrorKind::NotFound)) }
    };
    // Linux has no `fchmodat(2)` that follows no link before 6.6, and a descriptor with `O_PATH`
    // needs no right to read, and cancels no lock when it is closed.
    #[cfg(target_os = "linux")]
    {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pinned = retry(|| rustix::fs::openat(directory, name, flags, Mode::empty()))?;
        check(facts_of_stat(&rustix::fs::fstat(&pinned)?))?;
        Ok(rustix::fs::chmod(format!("/proc/self/fd/{}", pinned.as_raw_fd()), mode)?)
    }
    // As the entry is called now.
    #[cfg(not(target_os = "linux"))]
    {
        check(facts_in(directory, name)?)?;
        Ok(rustix::fs::chmodat(directory, name, mode, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

pub fn owners_of_links(path: &Path) -> Vec<u32> {
    /// The kernel follows no more (`path_resolution(7)`).
    const LINKS_MAX: usize = 40;
    let mut owners = Vec::new();
    let mut left: Vec<OsString> = path.components().rev().map(|it| it.as_os_str().into()).collect();
    let mut at = PathBuf::new();
    while let Some(component) = left.pop() {
        if component == ".." {
            at.pop();
            continue;
        }
        at.push(component);
        let Ok(found) = std::fs::symlink_metadata(&at) else { break };
        if !found.is_symlink() {
            continue;
        }
        let Ok(target) = std::fs::read_link(&at) else { break };
        owners.push(found.uid());
        if owners.len() > LINKS_MAX {
            break;
        }
        at.pop();
        left.extend(target.components().rev().map(|it| it.as_os_str().to_owned()));
    }
    owners
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_mode_is_set_of_what_was_looked_at_and_of_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        let mode =
            |name: &str| std::fs::metadata(path(name)).unwrap().permissions().mode() & 0o7777;
        for name in ["file", "other"] {
            std::fs::write(path(name), "").unwrap();
            std::fs::set_permissions(path(name), PermissionsExt::from_mode(0o644)).unwrap();
        }
        symlink("other", path("link")).unwrap();
        let directory = open_directory(place.path()).unwrap();
        let name = |name| OsStr::new(name);
        let facts = facts_in(&directory, name("file")).unwrap();
        set_mode_in(&directory, name("file"), &facts, 0o600).unwrap();
        assert_eq!(mode("file"), 0o600);
        set_mode(&open_in(&directory, name("file")).unwrap(), 0o640).unwrap();
        assert_eq!(mode("file"), 0o640);

        assert!(open_in(&directory, name("link")).is_err());
        set_mode_in(&directory, name("link"), &facts, 0o600).unwrap_err();
        set_mode_in(&directory, name("other"), &facts, 0o600).unwrap_err();
        assert_eq!(mode("other"), 0o644);
        symlink(place.path(), path("way")).unwrap();
        assert!(open_directory(&path("way")).is_err());
    }

    #[test]
    fn whose_links_lead_to_a_path() {
        let directory = tempfile::tempdir().unwrap();
        let real = std::fs::canonicalize(directory.path()).unwrap();
        let path = |name: &str| real.join(name);
        std::fs::create_dir_all(path("a/b")).unwrap();
        symlink("a", path("to-a")).unwrap();
        symlink("../to-a/b", path("a/to-b")).unwrap();
        symlink("circle", path("circle")).unwrap();
        let me = super::super::effective_uid().unwrap();
        for (way, links) in [("a/b", 0), ("to-a/b", 1), ("a/to-b/file", 2), ("gone/x", 0)] {
            assert_eq!(owners_of_links(&path(way)), vec![me; links], "{way}");
        }
        assert!(owners_of_links(&path("circle")).len() > 10);
    }
}
