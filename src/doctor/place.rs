//! Where the store is, who can get at it, and what it stands on.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::doctor::check;
use crate::doctor::check::{Check, Observation, Scene, counted, listed};
use crate::path_text::quoted;
use crate::store::Location;
use crate::store::ground::{expected_owner, is_open_to_others, is_something_else, is_to_be_closed};
use crate::store::location::{me, with_sidecars};
use crate::sys::{FileFacts, FilesystemClass, FreeSpace};
use crate::{Result, sys};

pub(super) const CHECKS: &[Check<Scene>] = &[
    Check { id: "path", silent: "", look: path },
    Check { id: "filesystem", silent: "", look: filesystem },
    Check { id: "free_space", silent: "", look: free_space },
];

pub(super) const CHECKS_OF_FILES: &[Check<Scene>] = &[Check {
    id: "modes",
    silent: "only our user can read and write the store's files",
    look: modes,
}];

/// Of paths that have the same problem, so many are named.
const PATHS_SHOWN: usize = 3;

/// Where it is and why, and that nobody can put another store in its place.
fn path(scene: &Scene) -> Result<Vec<Observation>> {
    let location = match scene.options.location() {
        Ok(location) => location,
        Err(error) if error.is_of_shortage() => return Err(error),
        Err(error) => {
            let seen = Observation::error(error.to_string());
            return Ok(vec![Observation {
                remedy: error.command_line_hint().map(str::to_owned),
                ..seen
            }]);
        }
    };
    let why = scene.why_there();
    let Some(location) = location.filter(|_| scene.is_there()) else {
        let path = scene.options.resolved_path()?;
        // `open` says what to do about that.
        if let Err(error) = path.try_exists() {
            let text = format!("cannot look at {} ({why}): {error}", path.display());
            return Ok(vec![Observation::unknown(text)]);
        }
        let text = format!("there is no store at {} ({why})", path.display());
        // A mistyped path would pass every probe.
        if scene.options.names_path() {
            return Ok(vec![Observation::warning(text).remedy(
                "check the path; the first `incumbent run -- CMD` or `incumbent claim` makes one \
                 there",
            )]);
        }
        return Ok(vec![Observation::info(text).remedy(
            "no action needed: the first `incumbent run -- CMD` or `incumbent claim` makes one",
        )]);
    };
    let mut seen = untrusted(&location, &scene.command("doctor --fix"));
    if seen.is_empty() {
        seen.push(Observation::ok(format!("{} ({why})", location.file.display())));
    }
    Ok(seen)
}

/// What lets others replace `directory`: itself, or a directory above it.
fn untrusted(location: &Location, fix: &str) -> Vec<Observation> {
    let Location { directory, file, .. } = location;
    let owner = sys::file_facts(directory).ok().and_then(|facts| facts.owner);
    let me = sys::effective_uid();
    // For root the store of a user is that user's business.
    let keeper = if me == Some(0) { owner } else { me };
    // In a user namespace all users without a number there, root among them, look like one.
    let unmapped = sys::unmapped_uid();
    let is_trusted = |uid: u32| uid == 0 || Some(uid) == keeper || Some(uid) == unmapped;
    let mut seen = Vec::new();
    for ancestor in directory.ancestors() {
        let facts = match sys::file_facts(ancestor) {
            Ok(facts) => facts,
            Err(error) => {
                seen.push(Observation::unknown(format!(
                    "cannot look at {}: {error}",
                    ancestor.display()
                )));
                continue;
            }
        };
        if let Some(uid) = facts.owner.filter(|uid| !is_trusted(*uid)) {
            seen.push(
                Observation::error(format!(
                    "{} belongs to uid {uid}, so that user can replace this store",
                    ancestor.display()
                ))
                .remedy(format!(
                    "keep the store in a directory of your own (`--db PATH`), or give {} back to \
                     root",
                    ancestor.display()
                )),
            );
        }
        if is_replaceable(&facts, file, ancestor == directory) {
            let close = format!("`chmod go-w {}`", quoted(ancestor));
            let remedy = if ancestor != directory {
                format!("run {close} as its owner")
            } else if is_to_be_closed(&facts, file) {
                format!("{fix}, or {close}")
            } else {
                // What may write there by the group may be a gateway.
                "put the store in a directory of its own, in which only its user can write"
                    .to_owned()
            };
            seen.push(
                Observation::error(format!(
                    "{} can be written by others (mode {:04o}), so they can replace this store",
                    ancestor.display(),
                    facts.mode.unwrap_or_default()
                ))
                .remedy(remedy),
            );
        }
    }
    seen
}

/// Where a directory is sticky, only the owner of what is in it can take that away; but what is in
/// the store's own directory may be missing, and then is anybody's.
fn is_replaceable(facts: &FileFacts, file: &Path, is_the_stores_own: bool) -> bool {
    const STICKY: u32 = 0o1000;
    let is_sticky = facts.mode.unwrap_or_default() & STICKY != 0;
    if is_the_stores_own {
        return is_open_to_others(facts, file) || is_to_be_closed(facts, file);
    }
    is_open_to_others(facts, file) && !is_sticky
}

/// A file of the store that is not as it should be.
struct Flawed {
    path: PathBuf,
    mode: u32,
    owner: Option<u32>,
}

impl Flawed {
    fn show(&self) -> String {
        let owner = self.owner.map_or_else(String::new, |uid| format!(", uid {uid}"));
        format!("{} (mode {:04o}{owner})", self.path.display(), self.mode)
    }
}

/// Everything that a store consists of: the database, its `-wal` and `-shm`, the anchors and their
/// directory.
fn files_of(scene: &Scene) -> Vec<PathBuf> {
    let Some(location) = &scene.location else { return Vec::new() };
    let mut files: Vec<PathBuf> = with_sidecars(&location.file).collect();
    files.push(location.anchors.clone());
    let entries = std::fs::read_dir(&location.anchors).into_iter().flatten().flatten();
    files.extend(entries.map(|entry| entry.path()));
    files.retain(|path| {
        std::fs::symlink_metadata(path).is_ok_and(|facts| facts.is_file() || facts.is_dir())
    });
    files
}

/// What is wrong with the files of a store, by what it is.
#[derive(Default)]
struct Flaws {
    readable: Vec<Flawed>,
    foreign: Vec<Flawed>,
    unwritable: Vec<Flawed>,
}

impl Flaws {
    fn are_none(&self) -> bool {
        self.readable.is_empty() && self.foreign.is_empty() && self.unwritable.is_empty()
    }

    /// Those that were there `before`, too.
    fn since(self, before: &Self) -> Self {
        let both = |now: Vec<Flawed>, before: &[Flawed]| {
            let before: HashSet<&Path> = before.iter().map(|it| it.path.as_path()).collect();
            now.into_iter().filter(|it| before.contains(it.path.as_path())).collect()
        };
        Self {
            readable: both(self.readable, &before.readable),
            foreign: both(self.foreign, &before.foreign),
            unwritable: both(self.unwritable, &before.unwritable),
        }
    }
}

fn flaws_of(location: &Location, owner: Option<u32>, scene: &Scene) -> Flaws {
    let Flaws { mut readable, mut foreign, mut unwritable } = Flaws::default();
    for path in files_of(scene) {
        let Ok(facts) = sys::file_facts(&path) else { continue };
        let mode = facts.mode.unwrap_or_default();
        let flawed = || Flawed { path: path.clone(), mode, owner: facts.owner };
        if mode & 0o077 != 0 {
            readable.push(flawed());
        }
        if facts.owner != owner {
            foreign.push(flawed());
        }
        if !sys::may_write(&path) {
            unwritable.push(flawed());
        }
    }
    if !sys::may_write(&location.directory) {
        unwritable.extend(sys::file_facts(&location.directory).map(|facts| Flawed {
            path: location.directory.clone(),
            mode: facts.mode.unwrap_or_default(),
            owner: facts.owner,
        }));
    }
    Flaws { readable, foreign, unwritable }
}

/// A file that is just being made or removed is neither whose it will be nor there.
const SETTLES_WITHIN: Duration = Duration::from_millis(20);

/// No more than the owner can read them, the owner is that of the store, and we can write them.
fn modes(scene: &Scene) -> Result<Vec<Observation>> {
    let Some(location) = scene.location.as_ref().filter(|it| !is_something_else(it)) else {
        return Ok(Vec::new());
    };
    let owner = expected_owner(location);
    let mut flaws = flaws_of(location, owner, scene);
    if !flaws.are_none() {
        std::thread::sleep(SETTLES_WITHIN);
        flaws = flaws_of(location, owner, scene).since(&flaws);
    }
    let Flaws { readable, foreign, unwritable } = flaws;
    let words = |flawed: &[Flawed]| {
        flawed.iter().take(PATHS_SHOWN).map(|it| quoted(&it.path)).collect::<Vec<_>>().join(" ")
    };
    let show = |flawed: &[Flawed]| listed(flawed, PATHS_SHOWN, Flawed::show);
    let mut seen = Vec::new();
    if !readable.is_empty() {
        let remedy =
            format!("{}, or `chmod go= {}`", scene.command("doctor --fix"), words(&readable));
        seen.push(
            Observation::warning(format!("others can read or write {}", show(&readable)))
                .remedy(remedy),
        );
    }
    if !foreign.is_empty() {
        let uid = owner.map_or_else(|| "the owner".to_owned(), |uid| uid.to_string());
        seen.push(
            Observation::warning(format!(
                "another user than the store's owner (uid {uid}) owns {}: {}",
                counted(foreign.len(), "file", "files"),
                show(&foreign)
            ))
            .remedy(format!("run `chown {uid} {}` as root", words(&foreign))),
        );
    }
    if let Some(read_only) = read_only(scene, &location.directory) {
        seen.push(read_only);
    } else if !unwritable.is_empty() {
        seen.push(
            Observation::error(format!("{} cannot write {}", me(), show(&unwritable))).remedy(
                format!(
                    "run `chmod u+w {}` as its owner, or run the gateways as that user",
                    words(&unwritable)
                ),
            ),
        );
    }
    Ok(seen)
}

/// No mode helps there, and the kernel does it by itself when a disk fails.
fn read_only(scene: &Scene, directory: &Path) -> Option<Observation> {
    sys::is_mounted_read_only(directory).is_ok_and(|it| it).then(|| {
        Observation::error(format!(
            "{} is mounted read-only: nobody can claim, release or record anything there",
            directory.display()
        ))
        .remedy(format!(
            "mount it read-write again; if nobody mounted it read-only, a disk may have failed: \
             see the kernel's messages (`dmesg`); or put the store elsewhere than {} (`--db PATH`)",
            quoted(scene.file())
        ))
    })
}

/// The directory of the store, or the nearest one above it that there is.
fn ground(scene: &Scene) -> Result<PathBuf> {
    let path = scene.options.resolved_path()?;
    let there = path.ancestors().skip(1).find(|path| path.is_dir());
    Ok(there.unwrap_or(&path).to_owned())
}

/// On which locks and shared memory reach everybody who uses the store.
fn filesystem(scene: &Scene) -> Result<Vec<Observation>> {
    let directory = ground(scene)?;
    let at = directory.display();
    let Some(filesystem) = sys::filesystem_of(&directory) else {
        return Ok(vec![Observation::unknown(format!("the filesystem type of {at} is not known"))]);
    };
    // Where there is a store, `modes` says so.
    if let Some(seen) = read_only(scene, &directory).filter(|_| !scene.is_there()) {
        return Ok(vec![seen]);
    }
    let kind = &filesystem.kind;
    if scene.options.allows(kind) {
        let text = format!("{at} is on {kind}, which `--allow-filesystem` allows");
        return Ok(vec![Observation::info(text)]);
    }
    Ok(vec![match filesystem.class {
        FilesystemClass::Local => Observation::ok(format!(
            "{at} is on {kind}, a filesystem of this \
        machine"
        )),
        FilesystemClass::Remote => Observation::error(format!(
            "{at} is on {kind}: locks and shared memory do not reach across machines, so two \
             gateways could hold one office"
        ))
        .remedy("put the store on a local filesystem with `--db PATH`"),
        FilesystemClass::UserSpace => Observation::unknown(format!(
            "{at} is on {kind}, a FUSE filesystem: whether locks work there is tested when a \
             gateway starts, not by this check"
        )),
    }])
}

fn free_space(scene: &Scene) -> Result<Vec<Observation>> {
    let directory = ground(scene)?;
    let at = directory.display();
    let left = match sys::free_space(&directory) {
        Ok(left) => left,
        Err(error) => {
            return Ok(vec![Observation::unknown(format!(
                "the free space of {at} is not known: {error}"
            ))]);
        }
    };
    let files = left
        .files
        .map_or_else(String::new, |(free, total)| format!(", {free} of {total} inodes free"));
    let text = format!(
        "{} of {} free at {at}{files}",
        check::size(left.bytes),
        check::size(left.bytes_total)
    );
    Ok(vec![match shortage(left) {
        Shortage::None => Observation::ok(text),
        Shortage::Soon => {
            Observation::warning(text).remedy("free some disk space before it is full")
        }
        Shortage::Now => Observation::error(text)
            .remedy("free some disk space: nothing can be claimed until then"),
    }])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shortage {
    None,
    /// A log or an update fills the rest within the day.
    Soon,
    /// The next WAL may not fit.
    Now,
}

fn shortage(left: FreeSpace) -> Shortage {
    const MIB: u64 = 1 << 20;
    const NOW: u64 = 10 * MIB;
    const SOON: u64 = 100 * MIB;
    // The last hundredth of a large disk is a lot.
    const PLENTY: u64 = 1024 * MIB;
    /// An anchor for each process, and the sidecars.
    const FILES_NOW: u64 = 16;
    let files_left = left.files.map_or(u64::MAX, |(free, _)| free);
    let is_last_hundredth = |free: u64, total: u64| free < total / 100;
    if left.bytes < NOW || files_left < FILES_NOW {
        Shortage::Now
    } else if left.bytes < SOON
        || (left.bytes < PLENTY && is_last_hundredth(left.bytes, left.bytes_total))
        || left.files.is_some_and(|(free, total)| free < 10_000 && is_last_hundredth(free, total))
    {
        Shortage::Soon
    } else {
        Shortage::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::FileId;

    #[test]
    fn how_much_is_enough() {
        const MIB: u64 = 1 << 20;
        let space = |bytes, bytes_total, files| FreeSpace { bytes, bytes_total, files };
        for (left, expected) in [
            (space(500 * MIB, 1_000 * MIB, None), Shortage::None),
            (space(100 * MIB - 1, 150 * MIB, None), Shortage::Soon),
            (space(10 * MIB, 150 * MIB, None), Shortage::Soon),
            (space(10 * MIB - 1, 150 * MIB, None), Shortage::Now),
            (space(0, 0, None), Shortage::Now),
            // Less than a hundredth: of a small disk, and of a large one.
            (space(500 * MIB, 60_000 * MIB, None), Shortage::Soon),
            (space(2_000 * MIB, 4_000_000 * MIB, None), Shortage::None),
            (space(500 * MIB, 1_000 * MIB, Some((15, 1_000_000))), Shortage::Now),
            (space(500 * MIB, 1_000 * MIB, Some((9_999, 1_000_000))), Shortage::Soon),
            (space(500 * MIB, 1_000 * MIB, Some((500, 1_000))), Shortage::None),
        ] {
            assert_eq!(shortage(left), expected, "{left:?}");
        }
    }

    #[test]
    fn who_can_replace_what_is_in_a_directory() {
        let facts = |mode, owner, group| FileFacts {
            id: FileId::Inode { device: 1, inode: 2 },
            owner: Some(owner),
            group: Some(group),
            mode: Some(mode),
            links: 1,
            length: 0,
            modified: None,
        };
        // Elsewhere there are neither modes nor groups.
        let Some(me) = sys::effective_uid() else { return };
        let closes = [0, 1000].contains(&me);
        for (mode, owner, group, of_an_ancestor, of_the_store) in [
            (0o700, 1000, 1000, false, false),
            (0o755, 0, 0, false, false),
            (0o1777, 0, 0, false, true),
            (0o777, 0, 0, true, true),
            (0o772, 1000, 1000, true, true),
            // A user's own group: by a umask, and by Kubernetes; and one with others in it.
            (0o775, 1000, 1000, false, false),
            (0o2775, 1000, 1000, false, closes),
            (0o775, 1000, 100, true, true),
            (0o1775, 1000, 100, false, true),
        ] {
            let facts = facts(mode, owner, group);
            let is_seen = |is_own| is_replaceable(&facts, Path::new("/missing/state.db"), is_own);
            assert_eq!(
                (is_seen(false), is_seen(true)),
                (of_an_ancestor, of_the_store),
                "{facts:?}"
            );
        }
    }

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (2_047, "2047 bytes"),
            (2_048, "2 KiB"),
            (17 << 20, "17 MiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(check::size(bytes), text);
        }
    }
}
