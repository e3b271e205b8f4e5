//! Opening a store.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::path_text::quoted;
use crate::process::anchor::lost;
use crate::process::anchor::recovery_lock::RecoveryLock;
use crate::process::command_line::matcher::{CommandLineMatcher, DefaultMatcher};
use crate::process::{Observer, Orphan, anchor};
use crate::store::busy::BUSY_BUDGET_DEFAULT;
use crate::store::handle::Inner;
use crate::store::location::{AllowedFilesystems, IfMissing, Location, SelfTest, me};
use crate::store::migrate::Contents;
use crate::store::pragmas::Durability;
use crate::store::recovery::Recovered;
use crate::store::settings::Settings;
use crate::store::{Store, gate, ground, location, pool, recovery, registry};
use crate::sys::Looks;
use crate::{Error, ErrorKind, Result, environment, sys};

impl Store {
    /// Opens the store at `path` for owning, and makes it if there is none; see
    /// [`OpenOptions::open`].
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::Store;
    ///
    /// let path = directory.path().join("state/incumbent.db");
    /// assert!(Store::open_existing(&path)?.is_none());
    /// let store = Store::open(&path)?;
    /// assert!(store.path().is_file());
    /// // Another handle in this process is the same store.
    /// assert_eq!(Store::open(&path)?.uuid()?, store.uuid()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        OpenOptions::new().path(path).open()
    }

    /// Opens the user's own store for owning: `INCUMBENT_DB`, else `incumbent/state.db` below the
    /// user's state directory.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open_default() -> Result<Self> {
        OpenOptions::new().open()
    }

    /// Opens the store at `path` for asking, `None` where there is none; see
    /// [`OpenOptions::open_existing`].
    ///
    /// # Errors
    /// As [`OpenOptions::open_existing`].
    pub fn open_existing(path: impl Into<PathBuf>) -> Result<Option<Self>> {
        OpenOptions::new().path(path).open_existing()
    }
}

/// What there is to be asked, see [`OpenOptions::find`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Existing {
    /// The store.
    Store(Store),
    /// None, and an owner of one that was there before, who may be at work.
    #[non_exhaustive]
    LostOwner {
        /// Its pid, where that can be seen.
        pid: Option<sys::Pid>,
    },
    /// Neither.
    Nothing,
}

/// How to open a [`Store`], for callers that need more than [`Store::open`].
///
/// A process has one handle of a file: as long as it lives, further openings share it, with the
/// options of the first.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// use incumbent::{Existing, OpenOptions};
/// use std::time::Duration;
///
/// let path = directory.path().join("state.db");
/// let options = OpenOptions::new().path(&path).busy_budget(Duration::from_secs(1));
/// // A question makes nothing.
/// assert!(options.open_existing()?.is_none());
/// assert!(matches!(options.find()?, Existing::Nothing));
/// let store = options.open()?;
/// assert_eq!(store.path(), options.resolved_path()?);
/// assert!(matches!(options.find()?, Existing::Store(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct OpenOptions {
    path: Option<PathBuf>,
    settings: Settings,
    readers: pool::Strategy,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// The defaults: the user's own store, pooled readers, 5 s of patience.
    #[must_use]
    pub fn new() -> Self {
        Self {
            path: None,
            settings: Settings {
                busy_budget: BUSY_BUDGET_DEFAULT,
                durability: Durability::default(),
                clock: Arc::new(SystemClock),
                matcher: Arc::new(DefaultMatcher),
                allowed_filesystems: AllowedFilesystems::default(),
                tell: |_| (),
            },
            readers: pool::Strategy::Pooled,
        }
    }

    /// The SQLite file; a relative one is meant from the current directory. Default:
    /// `INCUMBENT_DB`, else `incumbent/state.db` below the user's state directory
    /// (`$XDG_STATE_HOME` or `~/.local/state`, `%LOCALAPPDATA%`).
    #[must_use]
    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Accepts a filesystem type (as the kernel names it) that would be refused. At your own risk:
    /// where locks do not reach every user, two owners can meet.
    #[must_use]
    pub fn allow_filesystem(mut self, kind: impl Into<String>) -> Self {
        self.settings.allowed_filesystems.0.push(kind.into());
        self
    }

    /// How long one operation may wait for the store's locks, and for a reading connection, in all:
    /// 5 s by default. Zero does not wait: whatever is in use just then is
    /// [`Busy`](ErrorKind::Busy).
    #[must_use]
    pub fn busy_budget(mut self, budget: Duration) -> Self {
        self.settings.busy_budget = budget;
        self
    }

    /// What survives a power loss.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// Another source of time, for tests.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Decides whether a live command line is of the recorded kind, where the start time cannot.
    #[must_use]
    pub fn matcher(mut self, matcher: Arc<dyn CommandLineMatcher>) -> Self {
        self.settings.matcher = matcher;
        self
    }

    /// One reading connection instead of a pool: for programs that ask one question and end.
    #[must_use]
    pub fn single_reader(mut self) -> Self {
        self.readers = pool::Strategy::Single;
        self
    }

    /// Who is told, in lines for people, what an opening has changed in the place of the store (its
    /// directory was open to others, and was closed), beside the log and the events; and what of
    /// the environment is ignored, because a `run` that is over has left it.
    #[must_use]
    pub fn tell(mut self, tell: fn(&str)) -> Self {
        self.settings.tell = tell;
        self
    }

    /// Opens for owning: makes the store (0600, missing directories 0700) if there is none, and
    /// brings its schema up to date. Other processes find it when this returns.
    ///
    /// # Errors
    /// * [`InvalidInput`](ErrorKind::InvalidInput): the path cannot name a file.
    /// * [`Permission`](ErrorKind::Permission), [`Filesystem`](ErrorKind::Filesystem),
    ///   [`NotOurs`](ErrorKind::NotOurs): the place cannot be trusted, locks cannot be trusted
    ///   there, or the file is another program's.
    /// * [`TooNew`](ErrorKind::TooNew), [`Corrupt`](ErrorKind::Corrupt),
    ///   [`CannotRead`](ErrorKind::CannotRead), [`CannotWrite`](ErrorKind::CannotWrite).
    /// * [`Busy`](ErrorKind::Busy): others keep it locked, it is being recovered, or this process
    ///   is short of descriptors or memory.
    /// * [`StoreReplaced`](ErrorKind::StoreReplaced): it vanishes while it is opened.
    /// * [`Forked`](ErrorKind::Forked): this process inherited a handle of it through a fork.
    /// * [`Internal`](ErrorKind::Internal): what else the system says.
    pub fn open(&self) -> Result<Store> {
        self.open_for_owning().map_err(|error| self.of_path(error))
    }

    fn open_for_owning(&self) -> Result<Store> {
        let location = self.locate(IfMissing::Create, SelfTest::Run)?.ok_or_else(|| {
            Error::internal("the store's directory vanished while it was being opened")
        })?;
        create_file(&location)?;
        match self.prepared(&location, Inner::prepare_for_owning)? {
            Some((inner, ())) => Ok(Store { inner }),
            None => Err(Error::new(
                ErrorKind::StoreReplaced,
                format!("{} vanished while it was being opened", location.file.display()),
            )
            .at(&location.file)
            .with_hint("somebody deletes or replaces it: open it again when that is done")
            .with_retry_after(Duration::from_secs(1))),
        }
    }

    /// Opens for asking: makes nothing and migrates nothing. `None` when there is no store, or an
    /// empty file. What the handle claims or acquires in a store of an older schema is
    /// [`TooOld`](ErrorKind::TooOld).
    ///
    /// # Errors
    /// [`CannotRead`](ErrorKind::CannotRead) for a store that is there and cannot be read, also
    /// one that a killed process left in the middle of a change; and those of [`OpenOptions::open`]
    /// but [`TooNew`](ErrorKind::TooNew): a newer store can be asked.
    pub fn open_existing(&self) -> Result<Option<Store>> {
        self.open_for_asking().map_err(|error| self.of_path(error))
    }

    /// Where the path comes from, in an error about it.
    pub(crate) fn of_path(&self, error: Error) -> Error {
        use crate::error::ErrorKind::CannotRead;
        use crate::error::ErrorKind::Filesystem;
        use crate::error::ErrorKind::Internal;
        use crate::error::ErrorKind::InvalidInput;
        use crate::error::ErrorKind::NotOurs;
        use crate::error::ErrorKind::Permission;
        let is_about_place = match error.kind() {
            InvalidInput | NotOurs | Permission | Filesystem | CannotRead => true,
            Internal => error.path().is_some(),
            _ => false,
        };
        if self.names_path() || !is_about_place || environment::value(environment::DB).is_none() {
            return error;
        }
        error.of_variable(environment::DB, "name another store", Some("--db PATH"))
    }

    /// Opens for asking, as [`OpenOptions::open_existing`] does; where there is no store, says
    /// whether an owner of the one before is left. A claim would be refused for that one.
    ///
    /// # Errors
    /// As [`OpenOptions::open_existing`].
    pub fn find(&self) -> Result<Existing> {
        if let Some(store) = self.open_existing()? {
            return Ok(Existing::Store(store));
        }
        let Some(orphan) = self.orphan()? else { return Ok(Existing::Nothing) };
        // It may be an owner that has begun a new store since we looked.
        let lost = Existing::LostOwner { pid: orphan.pid };
        Ok(self.open_existing()?.map_or(lost, Existing::Store))
    }

    fn open_for_asking(&self) -> Result<Option<Store>> {
        let Some(location) = self.locate(IfMissing::Leave, SelfTest::Skip)? else {
            return Ok(None);
        };
        Ok(match self.prepared(&location, Inner::inspect)? {
            Some((_, Contents::Empty)) | None => None,
            // An older one too: every question that its version knew can be answered.
            Some((inner, Contents::Store { .. })) => Some(Store { inner }),
        })
    }

    /// The one handle of the file, after `prepare`; `None` when there is no file.
    fn prepared<T>(
        &self,
        location: &Location,
        prepare: impl Fn(&Inner) -> Result<T>,
    ) -> Result<Option<(Arc<Inner>, T)>> {
        registry::begin_process()?;
        let _inside = gate::enter()?;
        let Some(inner) = self.shared(location)? else { return Ok(None) };
        match prepare(&inner) {
            // The handle that this process has is about files that are not there any more.
            Err(error) if error.kind() == ErrorKind::StoreReplaced => {
                registry::retire(&inner);
                inner.close_connections();
            }
            prepared => return prepared.map(|done| Some((inner, done))),
        }
        drop(inner);
        let Some(inner) = self.shared(location)? else { return Ok(None) };
        let done = prepare(&inner)?;
        Ok(Some((inner, done)))
    }

    /// The real path of the store's file, whether or not there is one.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a path that cannot name a store;
    /// [`Filesystem`](ErrorKind::Filesystem) for one that is too long;
    /// [`Permission`](ErrorKind::Permission) for one that leads through another user's symbolic
    /// link; [`CannotRead`](ErrorKind::CannotRead) where the place cannot be looked at;
    /// [`Busy`](ErrorKind::Busy) while the store is being recovered.
    pub fn resolved_path(&self) -> Result<PathBuf> {
        let path = self.requested_path()?;
        let resolved = match location::resolve(&path, IfMissing::Leave) {
            Ok(Some(location)) => Ok(location.file),
            Ok(None) => {
                std::path::absolute(&path).map_err(|error| Error::io("resolve", &path, error))
            }
            Err(error) => Err(error),
        };
        resolved.map_err(|error| self.of_path(error))
    }

    /// Whether the caller named the path.
    pub(crate) fn names_path(&self) -> bool {
        self.path.is_some()
    }

    /// The real paths of the store, looked up without judging them; `None` where there is no such
    /// place.
    pub(crate) fn location(&self) -> Result<Option<Location>> {
        location::resolve(&self.requested_path()?, IfMissing::Leave)
    }

    /// Where there is no store, or an empty file: somebody who was on record in the one before, and
    /// has not let go. A claim would be refused by the same look.
    pub(crate) fn orphan(&self) -> Result<Option<Orphan>> {
        let Some(location) = self.location()? else { return Ok(None) };
        let looks = Looks::begin();
        let mut held = anchor::held_in(&location.anchors, &HashSet::new())?;
        if held.is_empty() && sys::file_facts(&location.directory).is_ok() {
            let observer = Observer::new();
            let lost = lost::find_lost(location.as_site(&*self.settings.clock))?;
            let lost = lost.as_deref().map(lost::lost_owners_of).unwrap_or_default();
            let others = lost.into_iter().filter(|owner| !owner.is_us(&observer));
            held.extend(others.map(|owner| owner.anchor));
        }
        match looks.shortage() {
            Some(shortage) => {
                Err(Error::shortage(shortage, "look for owners of the store that was there before"))
            }
            None => Ok(held.into_iter().next()),
        }
    }

    /// Whether a recovery of the store did not come to its end, or is still going on.
    pub(crate) fn is_being_recovered(&self) -> bool {
        self.requested_path().is_ok_and(|path| location::is_being_recovered(&path))
    }

    /// Moves a damaged store aside and begins a new one with what can be read of it. `None` when
    /// the store is sound, or when there is none.
    ///
    /// Whoever lives in the store keeps its anchor, and so keeps others out: a `run` claims again
    /// in the new store, an owner that links the library is told of the loss.
    ///
    /// # Errors
    /// [`NotOurs`](ErrorKind::NotOurs) for a file that was never a store,
    /// [`TooNew`](ErrorKind::TooNew), [`Busy`](ErrorKind::Busy) while somebody else recovers it;
    /// otherwise what keeps files from being moved or made. The damaged store is then where it was.
    pub(crate) fn recover(&self, by: &str) -> Result<Option<Recovered>> {
        recovery::recover(&self.requested_path()?, &*self.settings.clock, by)
    }

    /// Whether the caller vouches for filesystems of this type.
    pub(crate) fn allows(&self, filesystem: &str) -> bool {
        self.settings.allowed_filesystems.0.iter().any(|kind| kind == filesystem)
    }

    pub(crate) fn requested_path(&self) -> Result<PathBuf> {
        match &self.path {
            Some(path) if path.as_os_str().is_empty() => Err(Error::invalid(
                "the store's path is empty",
            )
            .with_flag_hint("name a file", "--db PATH", ", or set INCUMBENT_DB")),
            Some(path) if path.as_os_str().as_encoded_bytes().contains(&0) => {
                Err(Error::invalid(format!("the store's path {} has a NUL byte", quoted(path)))
                    .with_hint("name a file without it"))
            }
            Some(path) => Ok(path.clone()),
            None => location::default_path(),
        }
    }

    fn locate(&self, if_missing: IfMissing, self_test: SelfTest) -> Result<Option<Location>> {
        let path = self.requested_path()?;
        let looks = Looks::begin();
        let located = self.locate_at(&path, if_missing, self_test);
        match looks.shortage() {
            // A filesystem that could not be seen was not judged.
            Some(shortage) if located.is_ok() => {
                Err(Error::shortage(shortage, &format!("look at {}", path.display())).at(path))
            }
            Some(_) | None => located,
        }
    }

    fn locate_at(
        &self,
        path: &Path,
        if_missing: IfMissing,
        self_test: SelfTest,
    ) -> Result<Option<Location>> {
        let Some(location) = location::resolve(path, if_missing)? else { return Ok(None) };
        ground::check(&location)?;
        location::check_filesystem(
            &location.directory,
            &self.settings.allowed_filesystems,
            self_test,
        )?;
        location::check_file(&location)?;
        ground::check_sidecars(&location)?;
        Ok(Some(location))
    }

    fn shared(&self, location: &Location) -> Result<Option<Arc<Inner>>> {
        let id = match sys::file_facts(&location.file) {
            Ok(facts) => facts.id,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(location::cannot_look(&location.file, error)),
        };
        let make = |others: &[Arc<Inner>]| {
            let new = Inner::new(location.clone(), id.clone(), self.settings.clone(), self.readers);
            // A store was replaced under a handle of ours: its anchor goes on, so that its lock
            // never lapses and is not taken for somebody else's.
            if let Some(before) = others.iter().rfind(|it| it.location.file == location.file) {
                new.adopt_anchor(before);
            }
            new
        };
        registry::share(&id, &location.file, make).map(Some)
    }
}

/// Makes the empty database file with its mode and owner, unless there is one. The file appears
/// under its name complete and closed: SQLite alone opens it by that name (invariant 10).
fn create_file(location: &Location) -> Result<()> {
    match std::fs::symlink_metadata(&location.file) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(location::cannot_look(&location.file, error)),
    }
    // Where two names cannot be swapped at once, there is nothing for a moment.
    if RecoveryLock::is_taken(&location.anchors) {
        return Err(location::being_recovered(&location.file));
    }
    let fail = |error| {
        Error::io("create the store in", &location.directory, error).with_flag_hint(
            &format!("let {} write there, or name another place", me()),
            "--db",
            "",
        )
    };
    // In the very directory that was opened, whatever its path leads to when the file gets its
    // name.
    let (_directory, place) = ground::pinned(&location.directory).map_err(fail)?;
    let file = ground::new_file(&place, ".incumbent-new-").map_err(fail)?;
    match file.persist_noclobber(place.join(ground::name_of(location))) {
        Ok(()) => Ok(()),
        // Another first start was faster; its file is as good as ours.
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(fail(error.error)),
    }
}
