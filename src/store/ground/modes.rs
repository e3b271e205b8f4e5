//! The modes that a store's files and directories ought to have.

use std::io;
use std::path::Path;

use crate::sys;
use crate::sys::FileFacts;

pub(super) const FILE_MODE: u32 = 0o600;

pub(super) const DIRECTORY_MODE: u32 = 0o700;

pub(super) const BY_OTHERS: u32 = 0o002;

pub(super) const BY_GROUP: u32 = 0o020;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The directory, which may be there for other things, too.
    Place,
    Anchors,
    File,
}

/// The mode that it ought to have, if it has another one.
pub(super) fn wanted(facts: &FileFacts, kind: Kind) -> Option<u32> {
    let mode = facts.mode?;
    match kind {
        Kind::Place => Some(mode & !(BY_GROUP | BY_OTHERS)),
        Kind::Anchors if mode & 0o777 != DIRECTORY_MODE => Some(DIRECTORY_MODE),
        Kind::File if mode & 0o677 != FILE_MODE => Some(FILE_MODE),
        Kind::Anchors | Kind::File => None,
    }
}

pub(super) fn close_directory(path: &Path, owner: Option<u32>, mode: u32) -> io::Result<()> {
    let directory = sys::open_directory(path)?;
    if sys::open_file_facts(&directory)?.owner == owner {
        sys::set_mode(&directory, mode)?;
    }
    Ok(())
}
