//! The store: one SQLite file in WAL mode, shared by every handle of a process.
//!
//! Reads never write; every change goes through [`Inner::write`], one `BEGIN IMMEDIATE` that first
//! checks that the file is still the store we opened.

mod busy;
mod control;
mod location;
mod migrate;
mod pool;
mod pragmas;
mod registry;
mod transaction;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

pub(crate) use location::me;
use location::{AllowedFilesystems, IfMissing, Location, SelfTest};
use migrate::{Contents, SCHEMA_VERSION};
use pool::Readers;
pub use pragmas::Durability;
use pragmas::Access;
pub(crate) use transaction::{EventRecord, Tx};

use crate::anchor::{self, Anchor};
use crate::clock::{Clock, Deadline, SystemClock};
use crate::command_line::{CommandLineMatcher, DefaultMatcher};
use crate::error::{Error, ErrorKind, Result};
use crate::names::{InstanceId, Nonce, Office};
use crate::observe::Observer;
use crate::sys::{self, FileId};

/// How long one operation waits for SQLite's locks in all. A transaction takes well under a
/// millisecond, so whoever waits this long is kept out by a stopped or stuck process.
const BUSY_BUDGET_DEFAULT: Duration = Duration::from_secs(5);

/// A store of this process. Clones and further opens of the same file share one handle inside;
/// the last one to go closes it and drops the process' anchor.
///
/// Blocking, `Send + Sync`. Under tokio call it from `spawn_blocking`.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("state/state.db");
/// use incumbent::{Claim, Store};
///
/// let store = Store::open(&path)?;
/// let Claim::Granted(tenure) = store.profile("default")?.claim()? else {
///     panic!("nobody else runs here");
/// };
/// assert!(store.profile("default")?.status()?.running);
/// tenure.release()?;
/// assert!(!store.profile("default")?.status()?.running);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// How to open a [`Store`], for callers that need more than [`Store::open`].
#[derive(Clone)]
pub struct OpenOptions {
    path: Option<PathBuf>,
    allowed_filesystems: AllowedFilesystems,
    settings: Settings,
    readers: pool::Strategy,
}

#[derive(Clone)]
struct Settings {
    busy_budget: Duration,
    durability: Durability,
    clock: Arc<dyn Clock>,
    matcher: Arc<dyn CommandLineMatcher>,
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
            allowed_filesystems: AllowedFilesystems::default(),
            settings: Settings {
                busy_budget: BUSY_BUDGET_DEFAULT,
                durability: Durability::default(),
                clock: Arc::new(SystemClock),
                matcher: Arc::new(DefaultMatcher),
            },
            readers: pool::Strategy::Pooled,
        }
    }

    /// The SQLite file. Default: `INCUMBENT_DB`, else `incumbent/state.db` below the user's state
    /// directory.
    #[must_use]
    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Accepts a filesystem type (as the kernel names it) that would be refused. At your own risk:
    /// where locks do not reach every user, two owners can meet.
    #[must_use]
    pub fn allow_filesystem(mut self, kind: impl Into<String>) -> Self {
        self.allowed_filesystems.0.push(kind.into());
        self
    }

    /// How long one operation may wait for the store's locks in all.
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

    /// Opens for owning: makes the store if there is none, and brings its schema up to date.
    ///
    /// # Errors
    /// [`Permission`](ErrorKind::Permission), [`Filesystem`](ErrorKind::Filesystem) or
    /// [`NotOurs`](ErrorKind::NotOurs) when the place cannot be trusted or is not ours,
    /// [`TooNew`](ErrorKind::TooNew), [`Corrupt`](ErrorKind::Corrupt),
    /// [`CannotWrite`](ErrorKind::CannotWrite), [`Busy`](ErrorKind::Busy).
    pub fn open(&self) -> Result<Store> {
        let location = self.locate(IfMissing::Create, SelfTest::Run)?.ok_or_else(|| {
            Error::internal("the store's directory vanished while it was being opened")
        })?;
        create_file(&location)?;
        let inner = self.shared(&location)?.ok_or_else(|| {
            Error::new(
                ErrorKind::StoreReplaced,
                format!("{} vanished while it was being opened", location.file.display()),
            )
            .at(&location.file)
        })?;
        inner.prepare_for_owning()?;
        Ok(Store { inner })
    }

    /// Opens for asking: makes nothing and migrates nothing. `None` when there is no store.
    ///
    /// # Errors
    /// [`CannotRead`](ErrorKind::CannotRead) for a store that is there and cannot be read, and
    /// those of [`OpenOptions::open`] that say whose file it is.
    pub fn open_existing(&self) -> Result<Option<Store>> {
        let Some(location) = self.locate(IfMissing::Leave, SelfTest::Skip)? else {
            return Ok(None);
        };
        let Some(inner) = self.shared(&location)? else { return Ok(None) };
        let contents = inner
            .connect_and(Access::Read, migrate::inspect)
            .map_err(|error| inner.explain(error))?;
        match contents {
            Contents::Empty => Ok(None),
            Contents::Store { schema_version } if schema_version < SCHEMA_VERSION => {
                Err(Error::new(
                    ErrorKind::TooOld,
                    format!(
                        "{} has schema version {schema_version}, this program asks in version \
                         {SCHEMA_VERSION}",
                        location.file.display()
                    ),
                )
                .at(&location.file)
                .with_hint("it is brought up to date by the next `incumbent run` or `claim`"))
            }
            Contents::Store { .. } => Ok(Some(Store { inner })),
        }
    }

    /// The real path of the store's file, whether or not there is one.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a path that cannot name a store.
    pub fn resolved_path(&self) -> Result<PathBuf> {
        let path = self.requested_path()?;
        match location::resolve(&path, IfMissing::Leave)? {
            Some(location) => Ok(location.file),
            None => std::path::absolute(&path).map_err(|error| Error::io("resolve", &path, error)),
        }
    }

    fn requested_path(&self) -> Result<PathBuf> {
        match &self.path {
            Some(path) if path.as_os_str().is_empty() => {
                Err(Error::invalid("the store's path is empty")
                    .with_hint("name a file with `--db PATH` or INCUMBENT_DB"))
            }
            Some(path) => Ok(path.clone()),
            None => location::default_path(),
        }
    }

    fn locate(&self, if_missing: IfMissing, self_test: SelfTest) -> Result<Option<Location>> {
        let path = self.requested_path()?;
        let Some(location) = location::resolve(&path, if_missing)? else { return Ok(None) };
        location::check_directory(&location.directory)?;
        location::check_filesystem(&location.directory, &self.allowed_filesystems, self_test)?;
        Ok(Some(location))
    }

    fn shared(&self, location: &Location) -> Result<Option<Arc<Inner>>> {
        let id = match sys::file_facts(&location.file) {
            Ok(facts) => facts.id,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(location::cannot_look(&location.file, error)),
        };
        registry::share(&id, || {
            Inner::new(location.clone(), id.clone(), self.settings.clone(), self.readers)
        })
        .map(Some)
    }
}

/// Makes the empty database file with its mode and owner, unless there is one. The file appears
/// under its name complete and closed: SQLite alone opens it by that name (invariant 10).
fn create_file(location: &Location) -> Result<()> {
    match std::fs::symlink_metadata(&location.file) {
        Ok(_) => return make_files_private(location),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(location::cannot_look(&location.file, error)),
    }
    let fail = |error| {
        Error::io("create the store in", &location.directory, error)
            .with_hint(format!("let {} write there, or name another place with `--db`", me()))
    };
    let file = tempfile::Builder::new()
        .prefix(".incumbent-new-")
        .tempfile_in(&location.directory)
        .map_err(fail)?
        .into_temp_path();
    sys::give_to_owner_of(&file, &location.directory).map_err(fail)?;
    match file.persist_noclobber(&location.file) {
        Ok(()) => Ok(()),
        // Another first start was faster; its file is as good as ours.
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(fail(error.error)),
    }
}

/// Closes an existing store's files to others, by path. A file that is not ours to change is left
/// to the checks that follow.
fn make_files_private(location: &Location) -> Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut path = location.file.clone().into_os_string();
        path.push(suffix);
        let path = PathBuf::from(path);
        let Ok(facts) = sys::file_facts(&path) else { continue };
        let ours = facts.owner == sys::effective_uid() || sys::effective_uid() == Some(0);
        if ours && facts.mode.is_some_and(|mode| mode & 0o077 != 0) {
            sys::make_private(&path).map_err(|error| Error::io("set the mode of", &path, error))?;
        }
    }
    Ok(())
}

impl Store {
    /// Opens the store at `path` for owning; see [`OpenOptions::open`].
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        OpenOptions::new().path(path).open()
    }

    /// Opens the user's own store for owning.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open_default() -> Result<Self> {
        OpenOptions::new().open()
    }

    /// Opens the store at `path` for asking; see [`OpenOptions::open_existing`].
    ///
    /// # Errors
    /// As [`OpenOptions::open_existing`].
    pub fn open_existing(path: impl Into<PathBuf>) -> Result<Option<Self>> {
        OpenOptions::new().path(path).open_existing()
    }

    /// The real path of the SQLite file. Never open it yourself while this handle lives, not even
    /// to read or copy it: closing it would cancel SQLite's locks.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.location.file
    }

    /// How many releases could not be written yet. They are written together with the next change
    /// that succeeds; ownership itself ends with the process in any case.
    #[must_use]
    pub fn pending_releases(&self) -> usize {
        lock(&self.inner.pending).len()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// The one handle of a file in this process.
pub(crate) struct Inner {
    pub(crate) location: Location,
    file_id: FileId,
    creator_pid: u32,
    settings: Settings,
    store_uuid: OnceLock<String>,
    observer: OnceLock<Observer>,
    writer: Mutex<Option<Connection>>,
    readers: Readers,
    anchor: Mutex<Option<Arc<Anchor>>>,
    /// The offices this process holds, so that a second claim shares the first.
    pub(crate) tenures: Mutex<HashMap<Office, HeldOffice>>,
    pub(crate) pending: Mutex<Vec<PendingEnd>>,
}

/// An office held by this process, shared by its claims.
#[derive(Clone, Debug)]
pub(crate) struct HeldOffice {
    pub(crate) instance: InstanceId,
    pub(crate) nonce: Nonce,
    pub(crate) claims: usize,
}

/// A release that could not be written.
#[derive(Clone, Debug)]
pub(crate) struct PendingEnd {
    pub(crate) instance: InstanceId,
    pub(crate) nonce_hash: String,
}

/// A poisoned lock is still good here: what it guards changes in single steps, and a transaction
/// that panicked was rolled back.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn new(
        location: Location,
        file_id: FileId,
        settings: Settings,
        readers: pool::Strategy,
    ) -> Self {
        Self {
            readers: Readers::new(readers),
            location,
            file_id,
            creator_pid: std::process::id(),
            settings,
            store_uuid: OnceLock::new(),
            observer: OnceLock::new(),
            writer: Mutex::new(None),
            anchor: Mutex::new(None),
            tenures: Mutex::new(HashMap::new()),
            pending: Mutex::new(Vec::new()),
        }
    }

    /// Nothing crosses a fork: SQLite's locks and connections belong to the process that made them.
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.creator_pid == std::process::id() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Forked,
            format!(
                "this handle of {} was made by pid {}, before a fork",
                self.location.file.display(),
                self.creator_pid
            ),
        )
        .at(&self.location.file)
        .with_hint("open the store after forking, in a process that did not have it open before"))
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.settings.clock
    }

    pub(crate) fn matcher(&self) -> &dyn CommandLineMatcher {
        &*self.settings.matcher
    }

    pub(crate) fn observer(&self) -> &Observer {
        self.observer.get_or_init(Observer::new)
    }

    fn connect(&self, access: Access) -> Result<Connection> {
        let connection =
            Connection::open_with_flags(&self.location.file, pragmas::flags(access))?;
        pragmas::apply(&connection, access)?;
        Ok(connection)
    }

    fn connect_and<T>(
        &self,
        access: Access,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        self.check_process()?;
        busy::with_budget(self.settings.busy_budget, || work(&self.connect(access)?))
    }

    /// A read-only connection of the caller's own, for watching `PRAGMA data_version`.
    pub(crate) fn watcher(&self) -> Result<Connection> {
        self.check_process()?;
        busy::with_budget(self.settings.busy_budget, || self.connect(Access::Read))
            .map_err(|error| self.explain(error))
    }

    fn write_access(&self) -> Access {
        Access::Write(self.settings.durability)
    }

    fn prepare_for_owning(&self) -> Result<()> {
        self.check_process()?;
        let mut writer = lock(&self.writer);
        busy::with_budget(self.settings.busy_budget, || {
            let connection = match &mut *writer {
                Some(connection) => connection,
                none => none.insert(self.connect(self.write_access())?),
            };
            let contents = migrate::inspect(connection)?;
            self.switch_to_wal(connection)?;
            if contents != (Contents::Store { schema_version: SCHEMA_VERSION }) {
                migrate::migrate(connection, self.clock().wall_ms())?;
            }
            let state = transaction::read_state(connection)?;
            check_min_writer(state.min_writer)?;
            self.check_uuid(&state.store_uuid)
        })
        .map_err(|error| self.explain(error))?;
        anchor::prepare_directory(&self.location.anchors)?;
        sys::give_to_owner_of(&self.location.anchors, &self.location.directory)
            .map_err(|error| Error::io("change the owner of", &self.location.anchors, error))
    }

    /// SQLite does not call the busy handler where waiting could deadlock, as between two first
    /// starts that both switch the mode: one of them has to step back and try again.
    fn switch_to_wal(&self, connection: &Connection) -> Result<()> {
        let deadline = Deadline::after(self.settings.busy_budget);
        loop {
            match pragmas::ensure_wal(connection) {
                Err(error) if error.kind() == ErrorKind::Busy && !deadline.has_passed() => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                result => return result,
            }
        }
    }

    /// The id in this store's anchor names. Known once the store was read or prepared.
    pub(crate) fn store_uuid(&self) -> Result<&str> {
        if let Some(uuid) = self.store_uuid.get() {
            return Ok(uuid);
        }
        self.read(|_| Ok(()))?;
        self.store_uuid
            .get()
            .map(String::as_str)
            .ok_or_else(|| Error::internal("the store has no id"))
    }

    fn check_uuid(&self, found: &str) -> Result<()> {
        if self.store_uuid.get_or_init(|| found.to_owned()) == found {
            return Ok(());
        }
        Err(self.replaced("another store was copied over it"))
    }

    fn replaced(&self, how: &str) -> Error {
        Error::new(
            ErrorKind::StoreReplaced,
            format!("the store {} was replaced: {how}", self.location.file.display()),
        )
        .at(&self.location.file)
        .with_hint("open it again; what was held in the old one has to be claimed anew")
    }

    fn check_not_moved(&self, connection: &Connection) -> Result<()> {
        if !control::has_moved(connection) {
            return Ok(());
        }
        Err(self.replaced("the file was deleted, renamed or replaced"))
    }

    /// Whether the path still names the file that this handle opened.
    pub(crate) fn is_at_its_path(&self) -> bool {
        sys::file_facts(&self.location.file).is_ok_and(|facts| facts.id == self.file_id)
    }

    /// One consistent look at the store.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.check_process()?;
        busy::with_budget(self.settings.busy_budget, || {
            self.readers.with(self, |connection| {
                let snapshot = connection.unchecked_transaction()?;
                self.check_not_moved(&snapshot)?;
                let state = transaction::read_state(&snapshot)?;
                self.check_uuid(&state.store_uuid)?;
                work(&snapshot)
            })
        })
        .map_err(|error| self.explain(error))
    }

    /// One change, all or nothing. What `work` returns as an error is rolled back.
    pub(crate) fn write<T>(&self, work: impl FnOnce(&Tx<'_>) -> Result<T>) -> Result<T> {
        self.check_process()?;
        let mut writer = lock(&self.writer);
        busy::with_budget(self.settings.busy_budget, || {
            let connection = match &mut *writer {
                Some(connection) => connection,
                none => none.insert(self.connect(self.write_access())?),
            };
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            self.check_not_moved(&transaction)?;
            let state = transaction::read_state(&transaction)?;
            self.check_uuid(&state.store_uuid)?;
            check_min_writer(state.min_writer)?;
            let tx = Tx::new(&transaction, self, state.last_id);
            let settled = tx.settle_pending()?;
            let value = work(&tx)?;
            tx.save_last_id()?;
            transaction.commit()?;
            lock(&self.pending).drain(..settled);
            Ok(value)
        })
        .map_err(|error| self.explain(error))
    }

    /// Adds what only this level knows: the path, and who keeps the store busy.
    fn explain(&self, error: Error) -> Error {
        let file = &self.location.file;
        let readable = || std::fs::symlink_metadata(file).is_ok();
        match error.kind() {
            ErrorKind::Busy => match error.into_sqlite() {
                Ok(cause) => busy::error(file, self.settings.busy_budget, cause),
                Err(error) => error,
            },
            ErrorKind::CannotRead if readable() => Error::new(
                ErrorKind::CannotRead,
                format!("{} is there, but {} cannot open it: {error}", file.display(), me()),
            )
            .at(file)
            .with_hint("ask as its owner, or look at the modes of the file and its directory")
            .caused_by(error),
            ErrorKind::NotOurs if error.sqlite_code().is_some() => Error::new(
                ErrorKind::NotOurs,
                format!("{} is not an SQLite database", file.display()),
            )
            .at(file)
            .with_hint("name another file with `--db PATH`; this one was left as it is")
            .caused_by(error),
            _ => error.at(file),
        }
    }

    /// This process' anchor in this store, made if there is none or if it was removed. Only inside
    /// a write transaction.
    pub(crate) fn anchor(&self, tx: &Tx<'_>) -> Result<Arc<Anchor>> {
        let mut slot = lock(&self.anchor);
        if let Some(anchor) = &*slot
            && anchor.is_in_place()
        {
            return Ok(Arc::clone(anchor));
        }
        let previous = slot.take();
        let anchor = Arc::new(Anchor::create(&self.location.anchors, self.store_uuid()?)?);
        if let Some(previous) = previous {
            tx.rename_anchor(previous.name(), anchor.name())?;
        }
        *slot = Some(Arc::clone(&anchor));
        Ok(anchor)
    }

    /// The anchor, if this process has made one.
    pub(crate) fn own_anchor(&self) -> Option<Arc<Anchor>> {
        lock(&self.anchor).clone()
    }

    /// Drops the anchor inside a write transaction: for a keeper whose last record has ended.
    pub(crate) fn drop_anchor(&self, _tx: &Tx<'_>) {
        lock(&self.anchor).take();
    }

    /// Goes on with the anchor of a handle whose store was replaced, so that its lock never lapses.
    pub(crate) fn adopt_anchor(&self, from: &Self) {
        let mut slot = lock(&self.anchor);
        if slot.is_none() {
            *slot = from.own_anchor();
        }
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("location", &self.location).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.creator_pid == std::process::id() {
            return;
        }
        // In a forked child, closing a connection would touch the parent's database.
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        std::mem::forget(writer.take());
        self.readers.forget();
    }
}

fn check_min_writer(min_writer: i64) -> Result<()> {
    if min_writer <= SCHEMA_VERSION {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::TooNew,
        format!(
            "a newer incumbent closed this store to writers older than schema version \
             {min_writer}; this program writes version {SCHEMA_VERSION}"
        ),
    )
    .with_hint("upgrade this program; it can still read the store"))
}

/// A row that may be absent.
pub(crate) fn optional<T>(result: rusqlite::Result<T>) -> Result<Option<T>> {
    Ok(result.optional()?)
}
