//! Which bytes of a store's files are locked, and how the files beside a database are called.

use std::ffi::{CStr, CString};

/// From `PENDING_BYTE` to the last of those that readers lock.
pub(super) const DATABASE_FIRST: i64 = 0x4000_0000;
pub(super) const DATABASE_COUNT: i64 = 512;

/// The byte of the database that readers lock first (`SHARED_FIRST`): whoever wants all of it for
/// itself locks this one, too.
pub(super) const DATABASE_SHARED: i64 = 0x4000_0002;

/// The first byte after those that SQLite locks: whoever writes holds it, whatever `-shm` he has
/// open.
pub(super) const DATABASE_WRITER: i64 = 0x4000_0200;

/// Where the eight locks of a `-shm` begin.
pub(super) const LOCKS: i64 = 120;

/// The byte that says that the `-shm` is in use (`UNIX_SHM_DMS`): whoever finds it free begins the
/// file anew.
pub(super) const IN_USE: i64 = 128;

/// The header of a wal-index is there twice, at its beginning, in so many words of 32 bits.
pub(super) const HEADER_WORDS: usize = 12;

/// What every commit changes: the header, as SQLite has it in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header(pub(super) [u32; HEADER_WORDS]);

/// The first byte of this word is 0 until the header is there.
pub(super) const HEADER_IS_INIT: usize = 3;

pub(super) fn beside(database: &CStr, suffix: &str) -> CString {
    let mut path = database.to_bytes().to_vec();
    path.extend_from_slice(suffix.as_bytes());
    CString::new(path).unwrap_or_default()
}
