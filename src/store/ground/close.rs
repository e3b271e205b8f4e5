//! Closes a store's own files and directory to others, by descriptors of what is proven ours.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::store::ground;
use crate::store::ground::modes::{BY_OTHERS, Kind, wanted};
use crate::store::location::{Location, with_sidecars};
use crate::store::{overwritten, registry};
use crate::sys::wal_index::{Kept, keep};
use crate::sys::{FileFacts, FileId};
use crate::{Error, Result, sys};

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

/// A directory that was closed. Others may have worked in it, and have to learn why they cannot any
/// more.
pub(crate) struct ClosedPlace {
    /// Its mode before.
    pub(crate) mode: u32,
    pub(crate) text: String,
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
pub(crate) fn close_to_others(location: &Location, id: &FileId) -> Result<Option<ClosedPlace>> {
    let is_closed = |path: PathBuf| {
        sys::file_facts(&path).is_ok_and(|facts| wanted(&facts, Kind::File).is_none())
    };
    let directory = sys::file_facts(&location.directory);
    if directory.is_ok_and(|facts| !ground::is_to_be_closed(&facts, &location.file))
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
    let is_safe = ground::check_directory(location, &location.directory, |_| false);
    is_safe.map_err(|error| failed.unwrap_or(error))?;
    Ok(closed)
}

/// Calls `act` with everything of the store that is open to others. Nothing of what is not ours:
/// nor of a store in a directory of another user, unless we are root.
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
        && ground::is_to_be_closed(&facts, &location.file)
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

fn open(path: PathBuf, kind: Kind, facts: &FileFacts, pinned: Pinned) -> Option<Open> {
    let closed = wanted(facts, kind)?;
    Some(Open { path, mode: facts.mode?, closed, pinned })
}

impl<'a> Ground<'a> {
    /// `None` where there is no store of ours.
    fn of(location: &'a Location, proof: Proof<'_>) -> io::Result<Option<Self>> {
        let directory = sys::open_directory(&location.directory)?;
        let facts = sys::open_file_facts(&directory)?;
        let owner = ground::user_of(&facts, &location.file);
        let is_ours = ground::is_ours_to_close(&facts) || facts.owner == Some(0);
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
            // The close of any descriptor would cancel the locks of our connections, so it is for
            // when there are none.
            Ok(None) => registry::unless_open(&database.id, look).flatten().unwrap_or(false),
            Err(_) => false,
        }
    }

    /// One that its owner may not read is made readable to him for as long as it takes, if it has
    /// anchors beside it as a store has.
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
