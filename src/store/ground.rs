//! The ground that a store stands on: whether its directory can be trusted, and closing what somebody has
//! opened to others (Kubernetes makes a volume group-writable at each mount, FIELD-BUGS row 131).
//!
//! Only what is ours is changed, and only by the descriptor by which that was seen (row 106): a database that
//! says so itself, and beside it, by the same directory, what belongs to the same user and has one name.
//! Where root looks after the store of a user, this user could do the same himself.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::path_text::quoted;
use crate::process::anchor;
use crate::store::location::{Location, cannot_look, is_absence, sidecars_of, with_sidecars};
use crate::store::{overwritten, registry};
use crate::sys;
use crate::sys::wal_index::{Kept, keep};
use crate::sys::{FileFacts, FileId, Membership};

const FILE_MODE: u32 = 0o600;

const DIRECTORY_MODE: u32 = 0o700;

const BY_OTHERS: u32 = 0o002;

const BY_GROUP: u32 = 0o020;

/// A directory that is shared on purpose: nobody shall close /tmp because of us.
const STICKY: u32 = 0o1000;

/// What is made in a directory gets its group.
const SETGID: u32 = 0o2000;

/// Refuses a directory that others can write to, or that belongs to somebody we need not trust: whoever can
/// replace the file can make two owners. One of our own with our store in it, which its group may write to, is
/// closed again by the next start, and a question believes it as that start would.
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
                .with_hint("name a file in a directory of its own with `--db PATH`"));
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
    let separate = format!(
        "put the store in a directory of its own, which is made if it is missing: `--db {}`",
        quoted(directory.join("incumbent").join("state.db"))
    );
    let user = user_of(facts, &location.file);
    let hint = if mode & STICKY != 0 || !is_ours_to_close(facts) {
        separate
    } else if let Some(user) = user.filter(|user| Some(*user) != facts.owner) {
        // It may be by the group that he can write there.
        format!("ask as uid {user}, whose store it is; or {separate}")
    } else {
        format!("run `chmod go-w {}`, or {separate}", quoted(directory))
    };
    let who = if mode & BY_OTHERS == 0 { "its group" } else { "others" };
    let group = facts.group.filter(|_| mode & BY_OTHERS == 0);
    let group = group.map_or_else(String::new, |gid| format!(", group {gid}"));
    Error::new(
        ErrorKind::Permission,
        format!("{} can be written by {who} (mode {mode:04o}{group})", directory.display()),
    )
    .at(directory)
    .with_hint(hint)
}

/// Whether somebody else than its owner can write to a directory, in which the database `file` may be. A group in
/// which nobody else is, is nobody else.
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

/// For whom a directory is: its owner. One of root's was made for somebody (a volume): for us, or where root looks
/// himself for the user whose database is in it.
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

/// Whom everything of a store is to belong to: the owner of its directory, and in one of root's that of the database.
pub(crate) fn expected_owner(location: &Location) -> Option<u32> {
    match sys::file_facts(&location.directory).ok()?.owner {
        Some(0) => owner_of(&location.file).or(Some(0)),
        owner => owner,
    }
}

/// Whether a start, or a repair, closes the store's own directory: one that others can write to; of those that only
/// its owner's group can write to, what is made to be shared (`chmod g+s`; Kubernetes does that at each mount), but
/// not what is so by a umask.
pub(crate) fn is_to_be_closed(facts: &FileFacts, file: &Path) -> bool {
    let mode = facts.mode.unwrap_or_default();
    is_ours_to_close(facts)
        && user_of(facts, file) == facts.owner
        && mode & STICKY == 0
        && (is_open_to_others(facts, file) || mode & (BY_GROUP | SETGID) == BY_GROUP | SETGID)
}

/// Whether the next start, or a repair, may change the mode: our own, or a user's for whom root works.
pub(crate) fn is_ours_to_close(facts: &FileFacts) -> bool {
    facts.owner.zip(sys::effective_uid()).is_some_and(|(owner, me)| owner == me || me == 0)
}

/// Whether a start closes the directory, because only its group can write to it, and there is a store of the same
/// user in it.
fn holds_a_store(location: &Location, directory: &FileFacts) -> bool {
    let is_file = std::fs::symlink_metadata(&location.file).is_ok_and(|facts| facts.is_file());
    let is_of_same = sys::file_facts(&location.file)
        .is_ok_and(|file| file.owner == directory.owner && file.links == 1);
    directory.mode.is_some_and(|mode| mode & (BY_OTHERS | STICKY) == 0)
        && is_ours_to_close(directory)
        && is_file
        && is_of_same
}

/// Whether the file is known to be no store: it can be read, says something else, and has no anchors beside it.
pub(crate) fn is_something_else(location: &Location) -> bool {
    std::fs::symlink_metadata(&location.anchors).is_err()
        && matches!(keep(&location.file, &location.file), Ok(Some(file)) if !overwritten::says_ours(&file))
}

/// How it is known that a database is ours.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proof<'a> {
    /// It says so at its beginning.
    Header,
    /// SQLite has read it in this very file: one that is young has it in its `-wal` only.
    Read(&'a FileId),
}

/// How much of a store is gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Its directory and its three files.
    Files,
    /// The anchors, too.
    Anchors,
}

/// Something of a store that others can get at, or that its owner cannot write.
pub(crate) struct Open {
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    /// What it ought to have.
    pub(crate) closed: u32,
    pinned: Pinned,
}

/// The very file that was looked at.
enum Pinned {
    Opened(File),
    /// A file of SQLite's.
    Kept(Kept),
    /// The same, where any descriptor would cancel its locks.
    Named(File, OsString, FileFacts),
}

impl Pinned {
    fn set_mode(&self, mode: u32) -> io::Result<()> {
        match self {
            Self::Opened(file) => sys::set_mode(file, mode),
            Self::Kept(file) => sys::set_mode(file, mode),
            Self::Named(directory, name, facts) => sys::set_mode_in(directory, name, facts, mode),
        }
    }
}

impl Open {
    /// Closes it.
    ///
    /// # Errors
    /// As `fchmod(2)`.
    pub(crate) fn close(&self) -> io::Result<()> {
        self.pinned.set_mode(self.closed)
    }
}

/// A directory with a store in it, and whose they are.
struct Ground<'a> {
    location: &'a Location,
    directory: File,
    owner: u32,
}

/// A directory that was closed. Others may have worked in it, and have to learn why they cannot any more.
pub(super) struct ClosedPlace {
    /// Its mode before.
    pub(super) mode: u32,
    pub(super) text: String,
}

impl ClosedPlace {
    fn of(place: &Open) -> Self {
        let who = if place.mode & BY_OTHERS == 0 { "its group" } else { "others" };
        let directory = place.path.display();
        let text = format!(
            "{directory} was writable by {who} (mode {:04o}); now only its owner can write there",
            place.mode
        );
        Self { mode: place.mode, text }
    }
}

/// Closes the store that is open in this process, and the directory that it is in.
pub(super) fn close_to_others(location: &Location, id: &FileId) -> Result<Option<ClosedPlace>> {
    let is_closed = |path: PathBuf| {
        sys::file_facts(&path).is_ok_and(|facts| wanted(&facts, Kind::File).is_none())
    };
    let directory = sys::file_facts(&location.directory);
    if directory.is_ok_and(|facts| !is_to_be_closed(&facts, &location.file))
        && with_sidecars(&location.file).all(is_closed)
    {
        return Ok(None);
    }
    let (mut failed, mut closed) = (None, None);
    let looked = each_open(location, Proof::Read(id), Depth::Files, |it| match it.close() {
        Ok(()) if it.path == location.directory => closed = Some(ClosedPlace::of(it)),
        Ok(()) => {}
        Err(error) => {
            failed.get_or_insert(Error::io("set the mode of", &it.path, error));
        }
    });
    if let Err(error) = looked {
        tracing::debug!(%error, "whether others can get at the store was not found out");
    }
    // What it could do about its files before it will do now; but nobody may replace them.
    let is_safe = check_directory(location, &location.directory, |_| false);
    is_safe.map_err(|error| failed.unwrap_or(error))?;
    Ok(closed)
}

/// Calls `act` with everything of the store that is open to others. Nothing of what is not ours: nor of a store
/// in a directory of another user, unless we are root.
///
/// # Errors
/// What kept us from looking.
pub(crate) fn each_open(
    location: &Location,
    proof: Proof<'_>,
    depth: Depth,
    mut act: impl FnMut(&Open),
) -> io::Result<()> {
    let Some(ground) = Ground::of(location, proof)? else { return Ok(()) };
    let place = ground.directory.try_clone()?;
    let facts = sys::open_file_facts(&place)?;
    if facts.owner == Some(ground.owner)
        && is_to_be_closed(&facts, &location.file)
        && let Some(open) =
            open(location.directory.clone(), Kind::Place, &facts, Pinned::Opened(place))
    {
        act(&open);
    }
    for path in with_sidecars(&location.file) {
        if let Some((facts, pinned)) = ground.pin_database(&path)?
            && let Some(open) = open(path, Kind::File, &facts, pinned)
        {
            act(&open);
        }
    }
    if depth == Depth::Files {
        return Ok(());
    }
    let Some(anchors) = ground.pin(&ground.directory, &location.anchors) else { return Ok(()) };
    let entries = std::fs::read_dir(&location.anchors)?;
    for entry in entries.flatten() {
        // By the directory that is open, whatever the path says by now.
        if let Some(file) = ground.pin(&anchors, &entry.path()) {
            let facts = sys::open_file_facts(&file)?;
            if let Some(open) = open(entry.path(), Kind::File, &facts, Pinned::Opened(file)) {
                act(&open);
            }
        }
    }
    let facts = sys::open_file_facts(&anchors)?;
    if let Some(open) =
        open(location.anchors.clone(), Kind::Anchors, &facts, Pinned::Opened(anchors))
    {
        act(&open);
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The directory, which may be there for other things, too.
    Place,
    Anchors,
    File,
}

/// The mode that it ought to have, if it has another one.
fn wanted(facts: &FileFacts, kind: Kind) -> Option<u32> {
    let mode = facts.mode?;
    match kind {
        Kind::Place => Some(mode & !(BY_GROUP | BY_OTHERS)),
        Kind::Anchors if mode & 0o777 != DIRECTORY_MODE => Some(DIRECTORY_MODE),
        Kind::File if mode & 0o677 != FILE_MODE => Some(FILE_MODE),
        Kind::Anchors | Kind::File => None,
    }
}

fn open(path: PathBuf, kind: Kind, facts: &FileFacts, pinned: Pinned) -> Option<Open> {
    let closed = wanted(facts, kind)?;
    Some(Open { path, mode: facts.mode?, closed, pinned })
}

impl<'a> Ground<'a> {
    /// `None` where there is no store of ours.
    fn of(location: &'a Location, proof: Proof<'_>) -> io::Result<Option<Self>> {
        let directory = sys::open_directory(&location.directory)?;
        let facts = sys::open_file_facts(&directory)?;
        let owner = user_of(&facts, &location.file);
        let is_ours = is_ours_to_close(&facts) || facts.owner == Some(0);
        let Some(owner) = owner.filter(|_| is_ours) else { return Ok(None) };
        let ground = Self { location, directory, owner };
        let Some((facts, pinned)) = ground.pin_database(&location.file)? else { return Ok(None) };
        let is_ours = match (proof, &pinned) {
            (Proof::Read(id), _) => facts.id == *id,
            (Proof::Header, Pinned::Kept(file)) => overwritten::says_ours(file),
            (Proof::Header, Pinned::Opened(_) | Pinned::Named(..)) => {
                ground.says_ours(&facts) || ground.says_ours_once_readable(&facts, &pinned)?
            }
        };
        Ok(is_ours.then_some(ground))
    }

    /// One of SQLite's files; `None` where there is none, or one that is not this user's alone.
    fn pin_database(&self, path: &Path) -> io::Result<Option<(FileFacts, Pinned)>> {
        let Some(name) = path.file_name() else { return Ok(None) };
        let facts = match sys::facts_in(&self.directory, name) {
            Ok(facts) if self.owns(&facts) => facts,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let named = || -> io::Result<Pinned> {
            Ok(Pinned::Named(self.directory.try_clone()?, name.to_owned(), facts.clone()))
        };
        let pinned = match keep(path, &self.location.file) {
            Ok(Some(kept)) => {
                let is_it = sys::open_file_facts(&kept)?.id == facts.id;
                if !is_it || !kept.metadata()?.is_file() {
                    return Ok(None);
                }
                Pinned::Kept(kept)
            }
            Ok(None) => named()?,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => named()?,
            // A link, or gone by now.
            Err(_) => return Ok(None),
        };
        Ok(Some((facts, pinned)))
    }

    /// What a directory calls the last part of `path`, if it is this user's alone.
    fn pin(&self, directory: &File, path: &Path) -> Option<File> {
        let file = sys::open_in(directory, path.file_name()?).ok()?;
        let (facts, kind) = (sys::open_file_facts(&file).ok()?, file.metadata().ok()?);
        (Some(self.owner) == facts.owner && (kind.is_dir() || (kind.is_file() && facts.links == 1)))
            .then_some(file)
    }

    fn owns(&self, file: &FileFacts) -> bool {
        file.owner == Some(self.owner) && file.links == 1
    }

    fn says_ours(&self, database: &FileFacts) -> bool {
        let file = &self.location.file;
        let look = || {
            let opened = sys::open_in(&self.directory, file.file_name()?).ok()?;
            let is_it = sys::open_file_facts(&opened).is_ok_and(|facts| facts.id == database.id);
            Some(is_it && overwritten::says_ours(&opened))
        };
        match keep(file, file) {
            Ok(Some(kept)) => overwritten::says_ours(&kept),
            // The close of any descriptor would cancel the locks of our connections, so it is for when there are none.
            Ok(None) => registry::unless_open(&database.id, look).flatten().unwrap_or(false),
            Err(_) => false,
        }
    }

    /// One that its owner may not read is made readable to him for as long as it takes, if it has anchors beside
    /// it as a store has.
    fn says_ours_once_readable(&self, facts: &FileFacts, pinned: &Pinned) -> io::Result<bool> {
        const READ: u32 = 0o400;
        let mode = facts.mode.unwrap_or_default();
        let anchors = self.location.anchors.file_name().unwrap_or_default();
        if mode & READ != 0 || sys::facts_in(&self.directory, anchors).is_err() {
            return Ok(false);
        }
        pinned.set_mode(mode | READ)?;
        let is_ours = self.says_ours(facts);
        if !is_ours {
            pinned.set_mode(mode)?;
        }
        Ok(is_ours)
    }
}

/// Refuses a `-wal` or `-journal` in which root would write, and which SQLite would give to the owner of the
/// database, if it may be something else that a user has put in its place.
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
                "remove the other name (`find DIR -samefile {}` finds it in DIR); never move or delete this file \
                 while a gateway runs",
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
    /// A `-shm` is made of regions of this length; SQLite leaves 3 bytes of one that is to be filled anew.
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

/// Makes the anchors directory, or closes and checks the one that is there. What is called so beside a store is
/// the store's.
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
        && let Some(closed) = wanted(&facts, Kind::Anchors)
    {
        close_directory(anchors, user, closed)
            .map_err(|error| Error::io("set the mode of", anchors, error))?;
    }
    check_directory(location, anchors, |_| false)
}

fn close_directory(path: &Path, owner: Option<u32>, mode: u32) -> io::Result<()> {
    let directory = sys::open_directory(path)?;
    if sys::open_file_facts(&directory)?.owner == owner {
        sys::set_mode(&directory, mode)?;
    }
    Ok(())
}

/// A new file in the directory `place`: of its owner, and closed to others, whatever the umask says.
pub(super) fn new_file(place: &Path, prefix: &str) -> io::Result<tempfile::TempPath> {
    let made = tempfile::Builder::new().prefix(prefix).tempfile_in(place)?;
    let facts = sys::open_file_facts(made.as_file())?;
    if let Some(mode) = wanted(&facts, Kind::File) {
        sys::set_mode(made.as_file(), mode)?;
    }
    sys::give_to_owner_of_directory(made.as_file(), made.path())?;
    Ok(made.into_temp_path())
}

/// What `directory` is, when its path says something else by now; the path where that cannot be had.
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
