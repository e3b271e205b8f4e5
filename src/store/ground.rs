//! The ground that a store stands on: whether its directory can be trusted, and closing what
//! somebody has opened to others (Kubernetes makes a volume group-writable at each mount,
//! FIELD-BUGS row 131).
//!
//! Modes are set by descriptor only, and only of what is ours (row 106): a database that says so
//! itself (or that SQLite has just read), and beside it, by the same directory, what belongs to the
//! same user and has one name. Others also lose the right to write to the directory, with a line
//! and the event `directory_closed` (`is_to_be_closed`: not where a private group has it without
//! setgid). Where root looks after the store of a user, this user could do the same himself.
//!
//! Owners change on the descriptor by which a file was made, in a directory that was opened without
//! following a link (`sys::create_anchor_file`), or if the directory has that very file in it
//! (`sys::give_to_owner_of_directory`). SQLite does the same, and follows no link to a `-wal`
//! (`sys/wal_index/system_calls.rs`). A `-wal` that may be another file of root's is refused
//! (`check_sidecars`).
//!
//! A private group has nobody else in it (`sys::is_private_group`: by `/etc/passwd` and
//! `/etc/group`, where no other source is asked). It may write to a directory of root's; there the
//! files belong to the owner of the database.

pub(crate) mod close;
mod modes;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::path_text::quoted;
use crate::process::anchor;
use crate::store::ground::modes::{BY_GROUP, BY_OTHERS, Kind};
use crate::store::location::{Location, cannot_look, is_absence, sidecars_of};
use crate::store::overwritten;
use crate::sys::wal_index::keep;
use crate::sys::{FileFacts, Membership};
use crate::{Error, ErrorKind, Result, sys};

/// A directory that is shared on purpose: nobody shall close /tmp because of us.
const STICKY: u32 = 0o1000;

/// What is made in a directory gets its group.
const SETGID: u32 = 0o2000;

/// Refuses a directory that others can write to, or that belongs to somebody we need not trust:
/// whoever can replace the file can make two owners. One of our own with our store in it, which its
/// group may write to, is closed again by the next start, and a question believes it as that start
/// would.
pub(crate) fn check(location: &Location) -> Result<()> {
    check_directory(location, &location.directory, |facts| holds_a_store(location, facts))
}

/// Of the store at `location`, its own directory or that of the anchors.
fn check_directory(
    location: &Location,
    directory: &Path,
    is_closed_soon: impl Fn(&FileFacts) -> bool,
) -> Result<()> {
    match std::fs::metadata(directory) {
        Ok(facts) if facts.is_dir() => {}
        Err(error) if !is_absence(&error) => return Err(cannot_look(directory, error)),
        Ok(_) | Err(_) => {
            return Err(Error::invalid(format!("{} is not a directory", directory.display()))
                .at(directory)
                .with_flag_hint("name a file in a directory of its own", "--db PATH", ""));
        }
    }
    let facts = sys::file_facts(directory).map_err(|error| cannot_look(directory, error))?;
    if let (Some(owner), Some(me)) = (facts.owner, sys::effective_uid())
        && owner != 0
        && !is_ours_to_close(&facts)
    {
        return Err(Error::new(
            ErrorKind::Permission,
            format!("{} belongs to uid {owner}, and this is uid {me}", directory.display()),
        )
        .at(directory)
        .with_hint("use a directory of your own, or run as its owner"));
    }
    if is_open_to_others(&facts, &location.file) && !is_closed_soon(&facts) {
        return Err(open_to_others(location, directory, &facts));
    }
    Ok(())
}

fn open_to_others(location: &Location, directory: &Path, facts: &FileFacts) -> Error {
    let mode = facts.mode.unwrap_or_default();
    let user = user_of(facts, &location.file);
    let instead = if mode & STICKY != 0 || !is_ours_to_close(facts) {
        String::new()
    } else if let Some(user) = user.filter(|user| Some(*user) != facts.owner) {
        // It may be by the group that he can write there.
        format!("ask as uid {user}, whose store it is; or ")
    } else {
        format!("run `chmod go-w {}`, or ", quoted(directory))
    };
    let place = directory.join("incumbent").join("state.db");
    let separate = |named: &str| {
        format!(
            "{instead}put the store in a directory of its own, which is made if it is missing: \
             {named}"
        )
    };
    let who = if mode & BY_OTHERS == 0 { "its group" } else { "others" };
    let group = facts.group.filter(|_| mode & BY_OTHERS == 0);
    let group = group.map_or_else(String::new, |gid| format!(", group {gid}"));
    Error::new(
        ErrorKind::Permission,
        format!("{} can be written by {who} (mode {mode:04o}{group})", directory.display()),
    )
    .at(directory)
    .with_hints(
        separate(&place.display().to_string()),
        separate(&format!("`--db {}`", quoted(&place))),
    )
}

/// Whether somebody else than its owner can write to a directory, in which the database `file` may
/// be. A group in which nobody else is, is nobody else.
pub(crate) fn is_open_to_others(facts: &FileFacts, file: &Path) -> bool {
    let mode = facts.mode.unwrap_or_default();
    mode & BY_OTHERS != 0 || (mode & BY_GROUP != 0 && !is_group_private(facts, file))
}

fn is_group_private(facts: &FileFacts, file: &Path) -> bool {
    let Some((gid, uid)) = facts.group.zip(user_of(facts, file)) else { return false };
    let is_of_another = facts.owner == Some(0) && Some(uid) != sys::effective_uid();
    let membership = if is_of_another { Membership::Shown } else { Membership::Ours };
    sys::is_private_group(gid, uid, membership)
}

/// For whom a directory is: its owner. One of root's was made for somebody (a volume): for us, or
/// where root looks himself for the user whose database is in it.
fn user_of(directory: &FileFacts, file: &Path) -> Option<u32> {
    let me = sys::effective_uid();
    match directory.owner {
        Some(0) if me == Some(0) => owner_of(file).or(me),
        Some(0) => me,
        owner => owner,
    }
}

fn owner_of(file: &Path) -> Option<u32> {
    let is_file = std::fs::symlink_metadata(file).is_ok_and(|facts| facts.is_file());
    if is_file { sys::file_facts(file).ok()?.owner } else { None }
}

/// Whom everything of a store is to belong to: the owner of its directory, and in one of root's
/// that of the database.
pub(crate) fn expected_owner(location: &Location) -> Option<u32> {
    match sys::file_facts(&location.directory).ok()?.owner {
        Some(0) => owner_of(&location.file).or(Some(0)),
        owner => owner,
    }
}

/// Whether a start, or a repair, closes the store's own directory: one that others can write to; of
/// those that only its owner's group can write to, what is made to be shared (`chmod g+s`;
/// Kubernetes does that at each mount), but not what is so by a umask.
pub(crate) fn is_to_be_closed(facts: &FileFacts, file: &Path) -> bool {
    let mode = facts.mode.unwrap_or_default();
    is_ours_to_close(facts)
        && user_of(facts, file) == facts.owner
        && mode & STICKY == 0
        && (is_open_to_others(facts, file) || mode & (BY_GROUP | SETGID) == BY_GROUP | SETGID)
}

/// Whether the next start, or a repair, may change the mode: our own, or a user's for whom root
/// works.
pub(crate) fn is_ours_to_close(facts: &FileFacts) -> bool {
    facts.owner.zip(sys::effective_uid()).is_some_and(|(owner, me)| owner == me || me == 0)
}

/// Whether a start closes the directory, because only its group can write to it, and there is a
/// store of the same user in it.
fn holds_a_store(location: &Location, directory: &FileFacts) -> bool {
    let is_file = std::fs::symlink_metadata(&location.file).is_ok_and(|facts| facts.is_file());
    let is_of_same = sys::file_facts(&location.file)
        .is_ok_and(|file| file.owner == directory.owner && file.links == 1);
    directory.mode.is_some_and(|mode| mode & (BY_OTHERS | STICKY) == 0)
        && is_ours_to_close(directory)
        && is_file
        && is_of_same
}

/// Whether the file is known to be no store: it can be read, says something else, and has no
/// anchors beside it.
pub(crate) fn is_something_else(location: &Location) -> bool {
    let says_otherwise = || {
        let file = keep(&location.file, &location.file).ok().flatten();
        file.is_some_and(|file| !overwritten::says_ours(&file))
    };
    std::fs::symlink_metadata(&location.anchors).is_err() && says_otherwise()
}

/// Refuses a `-wal` or `-journal` in which root would write, and which SQLite would give to the
/// owner of the database, if it may be something else that a user has put in its place.
pub(crate) fn check_sidecars(location: &Location) -> Result<()> {
    let refused = |path: &Path, why: &str, hint: String| {
        let message = format!("{} {why}", path.display());
        Error::new(ErrorKind::Filesystem, message).at(path).with_hint(hint)
    };
    let strange = || "find out who has put it there, and move it away".to_owned();
    // What is not there is nobody's; what cannot be looked at is not passed over.
    let look = |path: &Path, looked: io::Result<FileFacts>| match looked {
        Ok(facts) => Ok(Some(facts)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            Err(refused(path, "is not a regular file", strange()))
        }
        Err(error) => Err(cannot_look(path, error)),
    };
    let Some(database) = look(&location.file, sys::file_facts(&location.file))? else {
        return Ok(());
    };
    for path in sidecars_of(&location.file) {
        let Some(file) = look(&path, sys::facts_of_entry(&path))? else { continue };
        if file.links > 1 {
            // It has the latest commits: whoever moves it away loses them.
            let hint = format!(
                "remove the other name (`find DIR -samefile {}` finds it in DIR); never move or \
                 delete this file while a gateway runs",
                quoted(&path)
            );
            return Err(refused(&path, "has more than one name (hard links)", hint));
        }
        let is_foreign = sys::effective_uid() == Some(0) && file.owner != database.owner;
        if is_foreign && file.length > 0 && !is_made_by_sqlite(&path, &file)? {
            let uid = |owner: Option<u32>| owner.unwrap_or_default();
            let why = format!(
                "belongs to uid {}, the database to uid {}, and SQLite did not make it",
                uid(file.owner),
                uid(database.owner)
            );
            return Err(refused(&path, &why, strange()));
        }
    }
    Ok(())
}

/// Whether a file beside a database looks like SQLite's own; of a journal nobody can tell.
fn is_made_by_sqlite(path: &Path, file: &FileFacts) -> Result<bool> {
    const MAGIC: [[u8; 4]; 2] = [[0x37, 0x7f, 0x06, 0x82], [0x37, 0x7f, 0x06, 0x83]];
    /// A `-shm` is made of regions of this length; SQLite leaves 3 bytes of one that is to be
    /// filled anew.
    const REGION: u64 = 32_768;
    let name = path.as_os_str().as_encoded_bytes();
    // Never opened: its locks would go with the descriptor.
    if name.ends_with(b"-shm") {
        return Ok(file.length == 3 || file.length.is_multiple_of(REGION));
    }
    if !name.ends_with(b"-wal") {
        return Ok(false);
    }
    let mut begin = [0; 4];
    let mut wal = sys::open_anchor_file(path).map_err(|error| cannot_look(path, error))?;
    Ok(wal.read_exact(&mut begin).is_ok_and(|()| MAGIC.contains(&begin)))
}

/// Makes the anchors directory, or closes and checks the one that is there. What is called so
/// beside a store is the store's.
pub(crate) fn prepare_anchors(location: &Location) -> Result<()> {
    let anchors = &location.anchors;
    anchor::prepare_directory(anchors)?;
    let facts = std::fs::symlink_metadata(anchors).map_err(|error| cannot_look(anchors, error))?;
    if !facts.is_dir() {
        return Err(Error::new(
            ErrorKind::Permission,
            format!("{} is not a directory of its own", anchors.display()),
        )
        .at(anchors)
        .with_hint("remove what is in its place"));
    }
    let facts = sys::file_facts(anchors).map_err(|error| cannot_look(anchors, error))?;
    let place = sys::file_facts(&location.directory)
        .map_err(|error| cannot_look(&location.directory, error))?;
    let user = user_of(&place, &location.file);
    if is_ours_to_close(&facts)
        && facts.owner == user
        && let Some(closed) = modes::wanted(&facts, Kind::Anchors)
    {
        modes::close_directory(anchors, user, closed)
            .map_err(|error| Error::io("set the mode of", anchors, error))?;
    }
    check_directory(location, anchors, |_| false)
}

/// A new file in the directory `place`: of its owner, and closed to others, whatever the umask
/// says.
pub(super) fn new_file(place: &Path, prefix: &str) -> io::Result<tempfile::TempPath> {
    let made = tempfile::Builder::new().prefix(prefix).tempfile_in(place)?;
    let facts = sys::open_file_facts(made.as_file())?;
    if let Some(mode) = modes::wanted(&facts, Kind::File) {
        sys::set_mode(made.as_file(), mode)?;
    }
    sys::give_to_owner_of_directory(made.as_file(), made.path())?;
    Ok(made.into_temp_path())
}

/// What `directory` is, when its path says something else by now; the path where that cannot be
/// had.
///
/// # Errors
/// As `open(2)`: it was resolved before, so a link is one that somebody has put there since.
pub(super) fn pinned(directory: &Path) -> io::Result<(Option<File>, PathBuf)> {
    let opened = sys::pin_directory(directory)?;
    let path = opened.as_ref().and_then(sys::path_of_open);
    Ok((opened, path.unwrap_or_else(|| directory.to_owned())))
}

/// The name of the store's file.
pub(super) fn name_of(location: &Location) -> &OsStr {
    location.file.file_name().unwrap_or_default()
}
