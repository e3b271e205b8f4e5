//! A database that something other than SQLite has written to while it was in use: a backup that
//! was copied over it, a file that was cut off.
//!
//! The first 100 bytes tell most of it (<https://sqlite.org/fileformat.html>). Only a descriptor
//! whose close cancels no locks may be used for that.
//!
//! If the header says rollback-journal mode, the file is a copy of something else, and the `-wal`
//! is not its own. SQLite would put that `-wal` over the copy, so the next start moves it aside
//! (`mend`). Our methods find that out while SQLite opens the WAL, under its shared lock, and say
//! it with an error code of their own (`wal_index::IN_ROLLBACK_MODE`, `EMPTIED`). A `-shm` that
//! tells of frames that are not in the `-wal` belongs to a lost one: the next start removes it, and
//! a process that has it open is told.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::store::location::{Location, free_name, me, paths_of};
use crate::store::migrate::APPLICATION_ID;
use crate::sys::wal_index;
use crate::{Error, ErrorKind, Result, sys};
use std::time::Duration;

const HEADER_LENGTH: usize = 100;

const MAGIC: &[u8] = b"SQLite format 3\0";

/// What the file says of itself that cannot be true of a store in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// There are so many bytes of it left.
    Shortened(u64),
    /// It is no SQLite database.
    NotSqlite,
    /// It belongs to another program.
    Foreign,
    /// It is in rollback-journal mode, as what `VACUUM INTO` writes.
    Rollback,
    /// What the `-shm` tells of is not in the `-wal`.
    WalLost,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shortened(0) => {
                f.write_str("the file was emptied, or deleted and made again, while it was in use")
            }
            Self::Shortened(length) => {
                write!(f, "the file was cut off to {length} bytes while it was in use")
            }
            Self::WalLost => f.write_str(
                "its -wal was deleted, replaced or cut off while it was in use, and what was \
                 written since the last checkpoint is lost",
            ),
            Self::NotSqlite => f.write_str(
                "something that is not a database was copied over the file while it was in use",
            ),
            Self::Foreign => f.write_str(
                "a database of another program was copied over the file while it was in use",
            ),
            Self::Rollback => f.write_str(
                "a copy in rollback-journal mode (a backup made by VACUUM INTO?) was copied over \
                 the file while it was in use",
            ),
        }
    }
}

/// Looks at the beginning of a database in WAL mode that has `length` bytes.
pub(crate) fn look(file: &File, length: u64) -> io::Result<Option<Damage>> {
    let mut header = [0; HEADER_LENGTH];
    let read = read_at(file, 0, &mut header)?;
    Ok(judge(&header[..read], length))
}

/// Whether an open file is a database that says that it is ours.
pub(super) fn says_ours(file: &File) -> bool {
    let mut header = [0; HEADER_LENGTH];
    read_at(file, 0, &mut header).is_ok_and(|read| {
        read == HEADER_LENGTH
            && header.starts_with(MAGIC)
            && number(&header, 68) == APPLICATION_ID.cast_unsigned()
    })
}

fn judge(header: &[u8], length: u64) -> Option<Damage> {
    if header.len() < HEADER_LENGTH {
        return Some(Damage::Shortened(length));
    }
    if !header.starts_with(MAGIC) {
        return Some(Damage::NotSqlite);
    }
    // It gets its mark with the first checkpoint.
    if ![0, APPLICATION_ID.cast_unsigned()].contains(&number(header, 68)) {
        return Some(Damage::Foreign);
    }
    // The versions of its format for writing and reading: 1 is the rollback journal, 2 is WAL.
    (header[18..20] != [2, 2]).then_some(Damage::Rollback)
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(number)
}

/// Up to the end of the file. Another thread may read by the same descriptor: nobody moves its
/// place.
fn read_at(file: &File, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match sys::read_at(file, &mut bytes[read..], at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// How much of the WAL has been moved into the database, by the wal-index
/// (<https://sqlite.org/walformat.html>): its salts, `nBackfill` and `nBackfillAttempted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backfill {
    salts: [u8; 8],
    moved: [u8; 4],
    attempted: [u8; 4],
}

impl Backfill {
    /// From a `-shm`.
    pub(super) fn read(index: &File) -> Option<Self> {
        const LENGTH: usize = 132;
        let mut bytes = [0; LENGTH];
        if read_at(index, 0, &mut bytes).ok()? < LENGTH {
            return None;
        }
        Some(Self {
            salts: bytes[32..40].try_into().ok()?,
            moved: bytes[96..100].try_into().ok()?,
            attempted: bytes[128..132].try_into().ok()?,
        })
    }
}

impl Damage {
    /// What SQLite ran into when it opened a database, if that is it: what our methods found, or
    /// what SQLite did not understand, with a `-shm` that is in use and tells of another `-wal`.
    pub(super) fn behind_opening(error: &Error, location: &Location) -> Option<Self> {
        use rusqlite::ErrorCode as Code;
        match error.sqlite_extended_code()? {
            wal_index::EMPTIED => return Some(Self::Shortened(0)),
            wal_index::IN_ROLLBACK_MODE => return Some(Self::Rollback),
            _ => {}
        }
        let may_be = matches!(
            error.sqlite_code()?,
            Code::SystemIoFailure | Code::DatabaseCorrupt | Code::NotADatabase
        );
        (may_be && is_index_of_another_wal(location)).then_some(Self::WalLost)
    }
}

/// What everybody is told who may not set it right.
pub(super) fn refusal(location: &Location, damage: &Damage) -> Error {
    let file = &location.file;
    if let Err(error) = check_ours(location, damage) {
        return error;
    }
    let Some(users) = users(location) else {
        return Error::new(
            ErrorKind::StoreReplaced,
            format!("{}: {damage}, or it was put next to another store's -wal", file.display()),
        )
        .at(file)
        .with_hint(
            "no visible process has it open: the next start (`incumbent run -- CMD`) continues \
             with what is there, and moves the -wal aside",
        );
    };
    Error::new(
        ErrorKind::StoreReplaced,
        format!("{}: {damage}; it is open in {users}", file.display()),
    )
    .at(file)
    .with_hint(
        "a gateway notices that, usually within a second; the next start then continues with what \
         is there, and moves aside a -wal that does not belong to it",
    )
    .with_retry_after(Duration::from_secs(1))
}

/// The `-wal` of a database that was copied over, moved aside.
#[derive(Clone, Debug)]
pub(super) struct SetAside {
    pub(super) damage: Damage,
    /// `None`: it was the `-shm` that did not belong to it, which holds nothing.
    pub(super) wal: Option<PathBuf>,
}

/// What came of an attempt to set it right.
pub(super) enum Mended {
    Yes(SetAside),
    /// Somebody else has done it.
    NotNeeded,
    /// Not while others have it open.
    InUse,
}

/// Takes away what does not belong to the database, or to its `-wal`.
///
/// # Errors
/// What keeps files from being moved.
pub(super) fn mend(location: &Location, damage: &Damage, now_ms: i64) -> Result<Mended> {
    check_ours(location, damage)?;
    match damage {
        Damage::WalLost => renew_index(location),
        damage => set_wal_aside(location, damage.clone(), now_ms),
    }
}

/// Another program's database may lie beside a `-wal`, too.
fn check_ours(location: &Location, damage: &Damage) -> Result<()> {
    let file = &location.file;
    let is_ours = match damage {
        Damage::Rollback => {
            let kept = wal_index::keep(file, file).ok().flatten();
            let mut header = [0; HEADER_LENGTH];
            kept.is_some_and(|kept| {
                read_at(&kept, 0, &mut header).is_ok_and(|read| read == HEADER_LENGTH)
                    && number(&header, 68) == APPLICATION_ID.cast_unsigned()
            })
        }
        _ => location.anchors.is_dir(),
    };
    if is_ours {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotOurs,
        format!("{} and the -wal next to it belong to another program", file.display()),
    )
    .at(file)
    .with_flag_hint("name another file", "--db PATH", "; these were left as they are"))
}

fn cannot<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |error| Error::io(what, path, error).with_hint(format!("let {} write there", me()))
}

/// Of a database that was copied over or emptied. SQLite would put what is in the `-wal` over the
/// copy. Only alone with the file: whoever has it open goes by that `-wal`.
fn set_wal_aside(location: &Location, damage: Damage, now_ms: i64) -> Result<Mended> {
    let [file, wal, shm] = &paths_of(&location.file);
    let alone = wal_index::lock_alone(file).map_err(cannot("lock", file))?;
    let Some(_alone) = alone else { return Ok(Mended::InUse) };
    if !has_content(wal) || look_at(file).map_err(cannot("read", file))?.is_none() {
        return Ok(Mended::NotNeeded);
    }
    let aside = free_name(wal, "old", now_ms);
    sys::rename_beside(wal, &aside).map_err(cannot("move aside", wal))?;
    remove(shm)?;
    tracing::warn!(%damage, aside = %aside.display(), "the -wal was moved aside");
    Ok(Mended::Yes(SetAside { damage, wal: Some(aside) }))
}

/// Of a `-wal` that was deleted or cut off while its `-shm` is in use. Whoever has that open has
/// lost the store; all others begin another one. Not while one of ours writes.
fn renew_index(location: &Location) -> Result<Mended> {
    let [file, _, shm] = &paths_of(&location.file);
    let writer = wal_index::lock_writer(file).map_err(cannot("lock", file))?;
    let Some(_writer) = writer else { return Ok(Mended::InUse) };
    if !is_index_of_another_wal(location) {
        return Ok(Mended::NotNeeded);
    }
    if has_foreign_users(location) {
        return Ok(Mended::InUse);
    }
    remove(shm)?;
    tracing::warn!(shm = %shm.display(), "an index of a lost -wal was removed");
    Ok(Mended::Yes(SetAside { damage: Damage::WalLost, wal: None }))
}

/// Whether somebody with SQLite's own locks (a shell, a program of before) uses that `-shm` and
/// this very `-wal`: he looks at no path, and would go on to write into a `-wal` that others use by
/// another index.
fn has_foreign_users(location: &Location) -> bool {
    /// `UNIX_SHM_DMS`.
    const IN_USE: u64 = 128;
    let [_, wal, shm] = &paths_of(&location.file);
    let Some(holders) = sys::record_lock_holders(shm, IN_USE) else { return false };
    let users = sys::processes_with_open_file(wal);
    holders.iter().any(|holder| users.contains(holder))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn has_content(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|facts| facts.len() > 0)
}

fn look_at(file: &Path) -> io::Result<Option<Damage>> {
    let length = sys::file_facts(file)?.length;
    match wal_index::keep(file, file)? {
        Some(kept) => look(&kept, length),
        None => Ok(None),
    }
}

/// Whether the `-shm` at its path tells of frames that are not in the `-wal` at its path. If nobody
/// uses it, that says nothing: whoever opens it first begins it anew.
pub(super) fn is_index_of_another_wal(location: &Location) -> bool {
    let [file, wal, shm] = &paths_of(&location.file);
    let keep = |path| wal_index::keep(path, file).ok().flatten();
    match (keep(shm), keep(wal)) {
        (Some(index), Some(wal)) => wal_index::is_in_use(&index) && is_of_another_wal(&index, &wal),
        // It is made when the database is opened.
        (Some(_) | None, None) | (None, Some(_)) => false,
    }
}

/// Whether an index tells of frames that are not in the `-wal`. Whoever writes puts them there
/// first, and who starts the `-wal` over says so in the index first: so it is looked at before and
/// after.
pub(super) fn is_of_another_wal(index: &File, wal: &File) -> bool {
    const HEADER_LENGTH: usize = 32;
    let Some(before) = Index::read(index).filter(|index| index.has_frames()) else { return false };
    let mut header = [0; HEADER_LENGTH];
    let (Ok(read), Ok(facts)) = (read_at(wal, 0, &mut header), wal.metadata()) else {
        return false;
    };
    let is_whole = read == HEADER_LENGTH
        && header[16..24] == before.salts
        && facts.len() >= before.wal_length();
    !is_whole && Index::read(index) == Some(before)
}

/// What a wal-index says of its `-wal` (<https://sqlite.org/walformat.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Index {
    page_size: u64,
    frames: u64,
    salts: [u8; 8],
}

impl Index {
    fn read(index: &File) -> Option<Self> {
        const LENGTH: usize = 48;
        let mut bytes = [0; LENGTH];
        if read_at(index, 0, &mut bytes).ok()? < LENGTH || bytes[12] == 0 {
            return None;
        }
        let page_size = match u16::from_ne_bytes(bytes[14..16].try_into().ok()?) {
            1 => 65_536,
            size => u64::from(size),
        };
        let frames = u64::from(u32::from_ne_bytes(bytes[16..20].try_into().ok()?));
        Some(Self { page_size, frames, salts: bytes[32..40].try_into().ok()? })
    }

    fn has_frames(self) -> bool {
        self.frames > 0
    }

    /// At least.
    fn wal_length(self) -> u64 {
        32 + self.frames * (24 + self.page_size)
    }
}

/// Who has the database open, for people; `None`: nobody that can be seen from here.
fn users(location: &Location) -> Option<String> {
    let users = sys::processes_with_open_file(&location.file);
    let pids: Vec<_> = users.iter().map(ToString::to_string).collect();
    (!pids.is_empty()).then(|| format!("pid {}", pids.join(", ")))
}

/// What a start is told that cannot set it right.
pub(super) fn still_open(location: &Location, damage: &Damage) -> Error {
    let file = &location.file;
    Error::new(
        ErrorKind::Busy,
        format!(
            "{}: {damage}, and it is still open in {}",
            file.display(),
            users(location).as_deref().unwrap_or("a process that cannot be seen from here")
        ),
    )
    .at(file)
    .with_hint(
        "stop those processes, or wait a second until they notice, then start again; the start \
         keeps what is in the file now",
    )
    .with_retry_after(Duration::from_secs(1))
}
