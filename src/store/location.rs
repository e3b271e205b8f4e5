//! Where a store lies, and whether that place can be trusted.
//!
//! One file, one path: a store under a second name (a hard link, a file mounted over another) would
//! have a second WAL and a second directory of anchors, so such a file is refused. A symbolic link
//! of another user is not followed (`check_links`).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::clock::Clock;
use crate::path_text::quoted;
use crate::process::anchor::lost::Site;
use crate::sys::{FilesystemClass, Shortage};
use crate::{Error, ErrorKind, Result, clock, environment, sys};
use std::time::Duration;

/// The real paths of one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// The directory, symbolic links resolved.
    pub(crate) directory: PathBuf,
    /// The SQLite file in it.
    pub(crate) file: PathBuf,
    /// `<db>.anchors`.
    pub(crate) anchors: PathBuf,
}

impl Location {
    /// As the place of a store that is about to be made.
    pub(super) fn as_site(&self, clock: &dyn Clock) -> Site<'_> {
        Site {
            file: &self.file,
            directory: &self.directory,
            anchors: &self.anchors,
            wall_ms: clock.wall_ms(),
            boot_ms: clock.boot_ms(),
        }
    }
}

/// The anchors directory: `state.db.anchors`. SQLite's own suffixes are shorter.
const LONGEST_SUFFIX: &str = ".anchors";

/// The longest file name that common filesystems take, in bytes.
pub(super) const NAME_LENGTH_MAX: usize = 255;

/// The longest path of a database that SQLite opens, in bytes: 512 (its `MAX_PATHNAME` for Unix)
/// less the room for `-journal`. A shorter path to the same file would be another one to everybody
/// else.
const PATH_LENGTH_MAX: usize = 504;

/// Whether a missing place may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfMissing {
    Create,
    Leave,
}

/// The store's path when none was given: `INCUMBENT_DB`, else the user's state directory.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when there is no home directory to put it in.
pub(crate) fn default_path() -> Result<PathBuf> {
    if let Some(path) = environment::value(environment::DB) {
        return Ok(PathBuf::from(path));
    }
    state_path()
}

/// The path of the user's own store, whatever `INCUMBENT_DB` says.
///
/// # Errors
/// As [`default_path`].
pub(crate) fn state_path() -> Result<PathBuf> {
    let (variable, below_home) = sys::STATE_DIRECTORY;
    let state = environment::absolute_path(variable)
        .or_else(|| Some(std::env::home_dir()?.join(below_home?)));
    match state {
        Some(state) if state.is_absolute() => Ok(state.join("incumbent").join("state.db")),
        Some(_) | None => Err(Error::invalid("no home directory to keep the store in")
            .with_flag_hint("name the store", "--db PATH", ", or set INCUMBENT_DB")),
    }
}

/// Resolves `path` to real paths, once; `None` when there is no such place and it may not be made.
pub(crate) fn resolve(path: &Path, if_missing: IfMissing) -> Result<Option<Location>> {
    match std::fs::metadata(path) {
        Ok(facts) if facts.is_dir() && is_being_recovered(path) => Err(being_recovered(path)),
        Ok(facts) if facts.is_dir() => {
            Err(Error::invalid(format!("{} is a directory", path.display()))
                .at(path)
                .with_hint("name the store's file in it, e.g. `state.db`"))
        }
        Ok(_) | Err(_) => resolve_place(path, if_missing),
    }
}

/// In the directory that stands in for the database while that is recovered: the name of the file
/// that it stands in for now.
pub(super) const MOVED_TO: &str = "moved-to";

/// Whether a recovery has put its directory in the place of the store at `path`.
pub(super) fn is_being_recovered(path: &Path) -> bool {
    path.join(MOVED_TO).is_file()
}

/// What everybody else is told while a store is being recovered.
pub(super) fn being_recovered(path: &Path) -> Error {
    Error::new(ErrorKind::Busy, format!("the store {} is being recovered", path.display()))
        .at(path)
        .with_hint(
            "try again in a moment; if that does not help, the recovery was interrupted: \
             `incumbent doctor --fix` continues it",
        )
        .with_retry_after(Duration::from_secs(1))
}

/// The same, whatever lies there.
pub(crate) fn resolve_place(path: &Path, if_missing: IfMissing) -> Result<Option<Location>> {
    let absolute =
        std::path::absolute(path).map_err(|error| {
            Error::invalid(format!("invalid store path {}: {error}", path.display()))
                .with_flag_hint("name a file", "--db ~/.local/state/incumbent/state.db", "")
        })?;
    let asked = absolute.clone();
    // The file itself may be a symbolic link: what counts is the ground it leads to.
    let absolute = match std::fs::symlink_metadata(&absolute) {
        Ok(facts) if facts.is_symlink() => std::fs::canonicalize(&absolute).map_err(|error| {
            Error::io("follow the symbolic link", &absolute, error)
                .with_hint("remove the link, or make the store it points to")
        })?,
        // Taken for no link, it would be another store.
        Err(error) if Shortage::of(&error).is_some() => return Err(cannot_look(&absolute, error)),
        Ok(_) | Err(_) => absolute,
    };
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(Error::invalid(format!("{} does not name a file", path.display()))
            .with_flag_hint("name a file", "--db ~/.local/state/incumbent/state.db", ""));
    };
    let mut directory = std::fs::canonicalize(parent);
    let will_be = directory.as_deref().map_or_else(|_| real_place(parent), Path::to_owned);
    check_lengths(&will_be, name)?;
    if directory.is_err() && if_missing == IfMissing::Create {
        sys::create_private_dirs(parent).map_err(|error| {
            Error::io("create the directory", parent, error).with_flag_hint(
                &format!("let {} write there, or name another place", me()),
                "--db",
                "",
            )
        })?;
        directory = std::fs::canonicalize(parent);
    }
    let directory = match directory {
        Ok(directory) => directory,
        Err(error) if is_absence(&error) && if_missing == IfMissing::Leave => return Ok(None),
        Err(error) => return Err(cannot_look(parent, error)),
    };
    check_links(&asked, &directory.join(name))?;
    let mut anchors = name.to_owned();
    anchors.push(LONGEST_SUFFIX);
    Ok(Some(Location { file: directory.join(name), anchors: directory.join(anchors), directory }))
}

/// Where a directory will be that may not exist yet.
fn real_place(directory: &Path) -> PathBuf {
    let exists = |it: &Path| Some((std::fs::canonicalize(it).ok()?, it.to_owned()));
    match directory.ancestors().find_map(exists) {
        Some((real, existing)) => {
            directory.strip_prefix(existing).map_or(directory.to_owned(), |rest| real.join(rest))
        }
        None => directory.to_owned(),
    }
}

/// Refuses what is too long for the filesystem or for SQLite, before anything is made.
fn check_lengths(directory: &Path, name: &OsStr) -> Result<()> {
    let too_long = |what: &str, length: usize, limit: usize, why: &str| {
        let file = directory.join(name);
        let message =
            format!("{what} of {} is too long: {length} bytes; {why} {limit}", file.display());
        Err(Error::new(ErrorKind::Filesystem, message).at(file).with_flag_hint(
            "name a shorter path",
            "--db PATH",
            ", or set INCUMBENT_DB",
        ))
    };
    let with_suffix = name.len() + LONGEST_SUFFIX.len();
    if with_suffix > NAME_LENGTH_MAX {
        let why = format!("the limit, with {LONGEST_SUFFIX}, is");
        return too_long("the name", name.len(), NAME_LENGTH_MAX, &why);
    }
    if let Some(long) = directory.iter().find(|it| it.len() > NAME_LENGTH_MAX) {
        return too_long("a directory", long.len(), NAME_LENGTH_MAX, "the limit of a name is");
    }
    let length = directory.as_os_str().len() + 1 + name.len();
    if length > PATH_LENGTH_MAX {
        return too_long("the path", length, PATH_LENGTH_MAX, "the limit of SQLite is");
    }
    Ok(())
}

pub(super) fn is_absence(error: &std::io::Error) -> bool {
    // ENOTDIR: a file where a directory should be; there is no store below it either.
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// Refuses a way through a symbolic link that somebody else has put there: to root's own store, for
/// one who opens that of a user.
fn check_links(path: &Path, leads_to: &Path) -> Result<()> {
    let Some(directory) = leads_to.parent().filter(|_| path != leads_to) else { return Ok(()) };
    let owner = sys::file_facts(directory).ok().and_then(|facts| facts.owner);
    let trusted = [Some(0), sys::effective_uid(), owner, sys::unmapped_uid()];
    let foreign = sys::owners_of_links(path).into_iter().find(|uid| !trusted.contains(&Some(*uid)));
    let Some(uid) = foreign else { return Ok(()) };
    let owner = owner.map_or_else(String::new, |owner| format!(", which belongs to uid {owner}"));
    Err(Error::new(
        ErrorKind::Permission,
        format!(
            "{} leads through a symbolic link of uid {uid} to {}{owner}",
            path.display(),
            directory.display()
        ),
    )
    .at(path)
    .with_flag_hint(
        "if that is the store that you mean, name it without the link",
        &format!("--db {}", leads_to.display()),
        "",
    ))
}

/// "Cannot look" is not "not there".
pub(crate) fn cannot_look(path: &Path, error: std::io::Error) -> Error {
    if let Some(shortage) = Shortage::of(&error) {
        let what = format!("look at {}", path.display());
        return Error::shortage(shortage, &what).at(path).caused_by(error);
    }
    Error::new(ErrorKind::CannotRead, format!("cannot look at {}: {error}", path.display()))
        .at(path)
        .with_hint(format!("let {} read it, or run this as its owner", me()))
        .caused_by(error)
}

/// Who we are, for messages about permissions.
pub(crate) fn me() -> String {
    sys::effective_uid().map_or_else(|| "this user".to_owned(), |uid| format!("uid {uid}"))
}

/// Refuses a file that is reached by more than one path: each path would have a WAL and anchors of
/// its own, and two owners would not see each other.
pub(crate) fn check_file(location: &Location) -> Result<()> {
    let file = &location.file;
    let kind = match std::fs::symlink_metadata(file) {
        Ok(kind) => kind,
        Err(error) if is_absence(&error) => return Ok(()),
        Err(error) => return Err(cannot_look(file, error)),
    };
    if !kind.is_file() {
        return Err(Error::new(
            ErrorKind::NotOurs,
            format!("{} is not a regular file", file.display()),
        )
        .at(file)
        .with_flag_hint("name another file", "--db PATH", ""));
    }
    let facts = sys::file_facts(file).map_err(|error| cannot_look(file, error))?;
    let ambiguous = if facts.links > 1 {
        Some("has more than one name (hard links)")
    } else if sys::is_mount_point(file) {
        Some("is mounted as a single file")
    } else {
        None
    };
    match ambiguous {
        Some(how) => Err(Error::new(
            ErrorKind::Filesystem,
            format!("{} {how}: its users under another path could not be seen", file.display()),
        )
        .at(file)
        .with_hint("share the directory that holds the store, not the file")),
        None => Ok(()),
    }
}

/// The database and the two files that SQLite keeps beside it.
pub(crate) fn with_sidecars(file: &Path) -> impl Iterator<Item = PathBuf> {
    ["", WAL, SHM].into_iter().map(|suffix| beside(file, suffix))
}

/// The same, as an array.
pub(super) fn paths_of(database: &Path) -> [PathBuf; 3] {
    let mut paths = with_sidecars(database);
    std::array::from_fn(|_| paths.next().unwrap_or_default())
}

/// What SQLite may make beside the database; the journal only where it is not in WAL mode.
pub(super) fn sidecars_of(file: &Path) -> impl Iterator<Item = PathBuf> {
    [WAL, SHM, "-journal"].into_iter().map(|suffix| beside(file, suffix))
}

pub(super) const WAL: &str = "-wal";

pub(super) const SHM: &str = "-shm";

/// The file beside the database whose name has this at its end.
pub(super) fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(suffix);
    PathBuf::from(path)
}

/// `state.db.damaged-20261122T031140Z`, which names nothing yet: where a file goes, for a reason
/// that one word tells.
pub(super) fn free_name(file: &Path, why: &str, now_ms: i64) -> PathBuf {
    let now = clock::rfc3339(now_ms).unwrap_or_default();
    let now: String = now.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let stamp = now.split('.').next().unwrap_or_default();
    let candidates = (1..).map(|count| {
        let mut path = file.as_os_str().to_owned();
        path.push(format!(".{why}-{stamp}Z"));
        if count > 1 {
            path.push(format!("-{count}"));
        }
        PathBuf::from(path)
    });
    let is_free =
        |path: &PathBuf| with_sidecars(path).all(|it| std::fs::symlink_metadata(it).is_err());
    candidates.into_iter().find(is_free).unwrap_or_else(|| file.with_extension(why))
}

/// The first of the store's files that we may not write, as an error that says so.
pub(crate) fn unwritable(location: &Location) -> Option<Error> {
    let files = with_sidecars(&location.file).chain([location.directory.clone()]);
    let path = files.filter(|path| path.exists()).find(|path| !sys::may_write(path))?;
    let error = refused(&path, ErrorKind::Permission, "written")?;
    Some(if sys::is_mounted_read_only(&path).unwrap_or(false) {
        let what = "it is mounted read-only: mount it for writing, or name another place";
        error.with_flag_hint(what, "--db", "")
    } else {
        error.with_hint(format!("run this, or `chmod u+w {}`, as its owner", quoted(&path)))
    })
}

/// The first of them that we may not read.
pub(super) fn unreadable(location: &Location) -> Option<Error> {
    let mut files = with_sidecars(&location.file).filter(|path| path.exists());
    let path = files.find(|path| !sys::may_read(path))?;
    let hint = match sys::file_facts(&location.directory).ok()?.owner {
        // What somebody else made beside the store.
        Some(owner) if Some(owner) == sys::effective_uid() && owner != 0 => {
            format!(
                "run `chown {owner} {0}` as root, or `chmod u+r {0}` as its owner",
                quoted(&path)
            )
        }
        Some(_) | None => "run this as its owner, or check its mode and owner".to_owned(),
    };
    Some(refused(&path, ErrorKind::CannotRead, "read")?.with_hint(hint))
}

fn refused(path: &Path, kind: ErrorKind, what: &str) -> Option<Error> {
    let facts = sys::file_facts(path).ok()?;
    let owner = facts.owner.map_or_else(String::new, |uid| format!("owner uid {uid}, "));
    let mode = facts.mode.unwrap_or_default() & 0o7777;
    let message =
        format!("{} cannot be {what} by {} ({owner}mode {mode:04o})", path.display(), me());
    Some(Error::new(kind, message).at(path))
}

/// Which unusual filesystems the operator has vouched for.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowedFilesystems(pub(crate) Vec<String>);

/// Whether locks are to be tried out where the filesystem's type does not settle it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SelfTest {
    Run,
    /// Questions write nothing, not even a scratch file.
    Skip,
}

/// Refuses a filesystem on which SQLite's WAL or the anchors cannot be trusted.
pub(crate) fn check_filesystem(
    directory: &Path,
    allowed: &AllowedFilesystems,
    self_test: SelfTest,
) -> Result<()> {
    let Some(filesystem) = sys::filesystem_of(directory) else {
        tracing::debug!(directory = %directory.display(), "the filesystem type cannot be seen");
        return Ok(());
    };
    if allowed.0.contains(&filesystem.kind) {
        return Ok(());
    }
    let refuse = |why: &str| {
        Error::new(
            ErrorKind::Filesystem,
            format!("{} is on {}: {why}", directory.display(), filesystem.kind),
        )
        .at(directory)
        .with_hints(
            "put the store on a local filesystem; `OpenOptions::allow_filesystem` overrides this \
             at your own risk",
            format!(
                "put the store on a local filesystem with `--db PATH`; `--allow-filesystem {}` \
                 overrides this at your own risk",
                filesystem.kind
            ),
        )
    };
    match filesystem.class {
        FilesystemClass::Local => Ok(()),
        FilesystemClass::Remote => Err(refuse(
            "locks and shared memory do not reach across machines, so two gateways could hold one \
             office",
        )),
        FilesystemClass::UserSpace if self_test == SelfTest::Skip => Ok(()),
        FilesystemClass::UserSpace => match sys::lock_self_test(directory) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(refuse(&format!("file locks do not work there: {why}"))),
            Err(error) => Err(refuse(&format!("file locks could not be tried: {error}"))),
        },
    }
}

/// Whether the store lies on a filesystem of this kernel's own, so that a lock held there proves
/// this machine and this boot. One that cannot be seen counts as such: it was not refused.
pub(super) fn is_local(location: &Location) -> bool {
    sys::filesystem_of(&location.directory)
        .is_none_or(|filesystem| filesystem.class == FilesystemClass::Local)
}
