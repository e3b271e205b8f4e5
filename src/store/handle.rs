//! The one handle of a file in this process: connections, the anchor, and what is held.

mod opening;
mod room;
mod settle;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

pub(super) use self::settle::Patience;
use self::settle::{Orphaned, Written};
use super::files::{By, Files, Found};
use super::ground;
use super::location::{Location, me};
use super::migrate::{self, Contents, SCHEMA_VERSION};
use super::overwritten::{Damage, Mended, SetAside};
use super::pool::{self, Readers};
use super::pragmas::{self, Access};
use super::transaction::{self, BootTime, Tx};
use super::{Settings, busy, location, overwritten, registry};
use crate::anchor::{self, Anchor, Dropped};
use crate::clock::{Clock, Deadline};
use crate::command_line::CommandLineMatcher;
use crate::command_lock;
use crate::error::{Error, ErrorKind, RECOVER, Result, with_clear_sight};
use crate::instance::{self, End, Subject};
use crate::lock_table;
use crate::names::{IdentityHash, InstanceId, LockName, Nonce, Office, Wanted};
use crate::observe::{Observer, SeenFree, View};
use crate::shutdown_table::{NewShutdown, Survival, What};
use crate::standing::Released;
use crate::sys::{self, FileId, Looks, Trust};

/// The one handle of a file in this process.
pub(crate) struct Inner {
    pub(crate) location: Location,
    file_id: FileId,
    pub(super) files: Files,
    /// How they were lost, if they were when they were looked at last.
    lost: Mutex<Option<String>>,
    creator_pid: u32,
    settings: Settings,
    store_uuid: OnceLock<String>,
    observer: OnceLock<Observer>,
    is_local: OnceLock<bool>,
    seen_free: SeenFree,
    orphaned: Orphaned,
    myself: OnceLock<Subject>,
    description: OnceLock<String>,
    pub(super) readers: Readers,
    writer: Mutex<Option<Connection>>,
    /// The writing connection was to be closed while it was in use.
    writer_is_stale: AtomicBool,
    anchor: Mutex<Option<Arc<Anchor>>>,
    /// The anchor of a handle of ours whose store was replaced: ours with the first row that names
    /// it, and gone with that handle if none ever does.
    adopted: Mutex<Weak<Anchor>>,
    /// What was held through the handle of the store that this one replaced.
    held_before: Mutex<HashSet<Wanted>>,
    /// What this process holds, so that a second claim shares the first.
    pub(crate) held: Mutex<Held>,
    pub(crate) pending: Mutex<Vec<Arc<Pending>>>,
    /// Whether this process has left a last word: a signal that it received, or a panic.
    has_said_something: AtomicBool,
    /// When a process that is still there has survived its last words of each kind.
    survivals: Mutex<HashMap<(InstanceId, What), Survival>>,
    /// Until when a panic of this process counts as the cause of its end.
    panic_counts: Mutex<Option<Deadline>>,
    /// Transactions of this handle, for what is done after some of them.
    writes: AtomicU32,
    trust: Trust,
}

/// Whether what a connection has read before is still what is in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    AsRead,
    Changed,
}

/// How often a transaction begins because something has written past SQLite; the last time it goes on with what
/// it has just read: who touches the file all the time changes nothing.
const ATTEMPTS_CHANGED: usize = 3;

/// Prepared statements that a connection keeps: more than a claim uses. With fewer, each claim would
/// prepare all of them again, which takes as long as running them.
const STATEMENTS_PREPARED: usize = 96;

/// What this process holds through one store.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) offices: HashMap<Office, HeldOffice>,
    /// The row that locks are taken from without an office. It lasts as long as they do.
    pub(crate) without_office: Option<OwnRow>,
    pub(crate) locks: HashMap<LockName, HeldLock>,
}

/// A row of this process.
#[derive(Clone, Debug)]
pub(crate) struct OwnRow {
    pub(crate) instance: InstanceId,
    pub(crate) nonce: Nonce,
}

/// An office held by this process, shared by its claims.
#[derive(Clone, Debug)]
pub(crate) struct HeldOffice {
    pub(crate) row: OwnRow,
    pub(crate) claims: usize,
}

/// A lock held by this process, shared by its claims.
#[derive(Clone, Debug)]
pub(crate) struct HeldLock {
    /// The row it was taken from.
    pub(crate) instance: InstanceId,
    pub(crate) fence: i64,
    pub(crate) claims: usize,
}

impl Held {
    pub(crate) fn is_nothing(&self) -> bool {
        self.offices.is_empty() && self.without_office.is_none()
    }

    /// All rows of this process.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &OwnRow> {
        self.offices.values().map(|office| &office.row).chain(&self.without_office)
    }

    /// Notes a granted lock; what is left of one of the same name that was lost does not count.
    pub(crate) fn hold(&mut self, name: &LockName, instance: InstanceId, fence: i64) {
        let held =
            self.locks.entry(name.clone()).or_insert(HeldLock { instance, fence, claims: 0 });
        if held.fence != fence {
            *held = HeldLock { instance, fence, claims: 0 };
        }
        held.claims += 1;
    }

    /// Forgets a row that has ended, and with it the locks that were taken from it.
    pub(crate) fn forget(&mut self, instance: InstanceId) {
        self.offices.retain(|_, office| office.row.instance != instance);
        self.without_office.take_if(|row| row.instance == instance);
        self.locks.retain(|_, lock| lock.instance != instance);
    }
}

/// What could not be written, and is written with the next change that succeeds.
#[derive(Clone, Debug)]
pub(crate) enum Pending {
    /// The release of a row.
    Row { instance: InstanceId, nonce_hash: String, end: End },
    /// The release of a lock.
    Lock { name: LockName, fence: i64 },
    /// The last word of this process.
    Shutdown(Box<NewShutdown>),
}

impl Pending {
    pub(super) fn is_release(&self) -> bool {
        !matches!(self, Self::Shutdown(_))
    }
}

/// A poisoned lock is still good here: what it guards changes in single steps, and a transaction
/// that panicked was rolled back.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The handle of `file` was made by another process, before a fork.
pub(super) fn forked(file: &Path) -> Error {
    Error::new(
        ErrorKind::Forked,
        format!(
            "{} was opened before this process was forked from its parent",
            file.display()
        ),
    )
    .at(file)
    .with_hint(
        "fork before the store is opened, or execute a program in the child: this process cannot open it",
    )
}

impl Inner {
    pub(super) fn new(
        location: Location,
        file_id: FileId,
        settings: Settings,
        readers: pool::Strategy,
    ) -> Self {
        let owner = |path: &Path| sys::file_facts(path).ok().and_then(|facts| facts.owner);
        Self {
            trust: Trust::of_owners([owner(&location.directory), owner(&location.file)]),
            readers: Readers::new(readers),
            files: Files::new(&location.file, file_id.clone()),
            lost: Mutex::new(None),
            location,
            file_id,
            creator_pid: std::process::id(),
            settings,
            store_uuid: OnceLock::new(),
            observer: OnceLock::new(),
            is_local: OnceLock::new(),
            seen_free: SeenFree::default(),
            orphaned: Orphaned::default(),
            myself: OnceLock::new(),
            description: OnceLock::new(),
            writer: Mutex::new(None),
            writer_is_stale: AtomicBool::new(false),
            anchor: Mutex::new(None),
            adopted: Mutex::new(Weak::new()),
            held_before: Mutex::new(HashSet::new()),
            held: Mutex::new(Held::default()),
            pending: Mutex::new(Vec::new()),
            has_said_something: AtomicBool::new(false),
            survivals: Mutex::new(HashMap::new()),
            panic_counts: Mutex::new(None),
            writes: AtomicU32::new(0),
        }
    }

    /// How far the rows are believed about whom to signal.
    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Nothing crosses a fork: SQLite's locks and connections belong to the process that made them.
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.creator_pid == std::process::id() {
            return Ok(());
        }
        Err(forked(&self.location.file))
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.settings.clock
    }

    /// Now, on the clock that decides.
    pub(crate) fn boot_time(&self) -> BootTime<'_> {
        BootTime {
            ms: self.clock().boot_ms(),
            wall_ms: self.clock().wall_ms(),
            boot_id: self.observer().boot_id.as_deref(),
        }
    }

    /// From where and when records are looked at.
    pub(crate) fn view(&self) -> View<'_> {
        View {
            observer: self.observer(),
            wall_ms: self.clock().wall_ms(),
            boot_ms: self.clock().boot_ms(),
            anchors: &self.location.anchors,
            seen_free: &self.seen_free,
            is_local: *self.is_local.get_or_init(|| location::is_local(&self.location)),
        }
    }

    /// What this process knows of itself is learned once, so not while it runs short of something.
    fn know_ourselves(&self) -> Result<()> {
        if self.observer.get().is_some() {
            return Ok(());
        }
        let looks = Looks::begin();
        let observer = Observer::new();
        let is_local = location::is_local(&self.location);
        if let Some(shortage) = looks.shortage() {
            return Err(Error::shortage(shortage, "find out about this process"));
        }
        let _ = self.is_local.set(is_local);
        let _ = self.observer.set(observer);
        Ok(())
    }

    /// What was decided while this process ran short of something was decided blindly.
    pub(crate) fn with_clear_sight<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let what = || format!("look at the owners in {}", self.location.file.display());
        with_clear_sight(what, || self.know_ourselves().and_then(|()| work()))
    }

    /// Which file the anchor `name` is; our own is asked for on its descriptor.
    pub(crate) fn anchor_key(&self, tx: &Tx<'_>, name: &str) -> Result<Option<sys::FileKey>> {
        let own = tx.new_anchor().or_else(|| self.own_anchor());
        if let Some(own) = own.filter(|own| own.name() == name) {
            return own.key();
        }
        let path = self.location.anchors.join(name);
        sys::file_key(&path).map_err(|error| Error::io("look at", &path, error))
    }

    pub(crate) fn matcher(&self) -> &dyn CommandLineMatcher {
        &*self.settings.matcher
    }

    pub(crate) fn observer(&self) -> &Observer {
        self.observer.get_or_init(Observer::new)
    }

    /// This process as its records describe it: as it was when it first asked.
    pub(crate) fn myself(&self) -> &Subject {
        self.myself.get_or_init(|| Subject::myself(self.observer()))
    }

    /// How this process is called by what it writes; made once.
    pub(crate) fn description(&self, make: impl FnOnce() -> String) -> &str {
        self.description.get_or_init(make)
    }

    pub(super) fn connect(&self, access: Access) -> Result<Connection> {
        let connection = pragmas::open(&self.location.file, access)?;
        pragmas::apply(&connection, access)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_PREPARED);
        self.files.look_soon();
        Ok(connection)
    }

    /// Learns which files the connections made since `before` have open; `again` makes another one, which
    /// reads. Nothing is known of a file that is no store yet.
    fn learn_files(
        &self,
        mut before: [Option<FileId>; 3],
        mut again: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        /// The first connection of a new store makes two of the files.
        const ATTEMPTS: usize = 4;
        for _ in 0..ATTEMPTS {
            if self.files.learn(&before)? {
                return Ok(());
            }
            before = self.files.named();
            again()?;
        }
        Ok(())
    }

    /// Lets go of all connections: to files that others do not see, or with pages that were read before
    /// somebody wrote to them. One that another thread writes with goes before the next change.
    pub(super) fn close_connections(&self) {
        match self.writer.try_lock() {
            Ok(mut writer) => *writer = None,
            Err(_) => self.writer_is_stale.store(true, Ordering::Release),
        }
        self.close_readers();
    }

    fn close_readers(&self) {
        self.readers.clear();
        self.files.look_anew();
    }

    /// What the file holds, without expecting anything of it.
    pub(super) fn inspect(&self) -> Result<Contents> {
        self.check_process()?;
        self.know_ourselves()?;
        busy::with_budget(self.settings.busy_budget, || {
            self.refuse_to_be_opened_again()?;
            let before = self.files.named();
            let contents = self.readers.with(self, migrate::inspect)?;
            if contents != Contents::Empty {
                self.learn_files(before, || {
                    self.readers.clear();
                    self.readers.with(self, migrate::inspect).map(drop)
                })?;
            }
            if overwritten::is_index_of_another_wal(&self.location) {
                self.close_connections();
                return Err(overwritten::refusal(&self.location, &Damage::WalLost));
            }
            Ok(contents)
        })
        .map_err(|error: Error| match Damage::behind_opening(&error, &self.location) {
            Some(damage) => {
                self.close_connections();
                overwritten::refusal(&self.location, &damage)
            }
            None => error,
        })
        .map_err(|error: Error| match error.sqlite_code() {
            // As when it is opened for owning; but questions change nothing.
            Some(rusqlite::ErrorCode::ReadOnly) => Error::new(
                ErrorKind::CannotRead,
                format!(
                    "{} was left in the middle of a change, by a process that was killed",
                    self.location.file.display()
                ),
            )
            .at(&self.location.file)
            .with_hint("the next start takes that change back; ask again then")
            .caused_by(error),
            _ => self.explain(error),
        })
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

    pub(super) fn prepare_for_owning(&self) -> Result<()> {
        self.check_process()?;
        self.know_ourselves()?;
        let mut writer = lock(&self.writer);
        let mut closed = None;
        let prepared = busy::with_budget(self.settings.busy_budget, || {
            self.refuse_to_be_opened_again()?;
            let (before, contents, mended) = self.look_and_mend(&mut writer)?;
            // SQLite has read in this very file that it is ours.
            if contents != Contents::Empty {
                closed = ground::close_to_others(&self.location, &self.file_id)?;
            }
            let connection = self.connected(&mut writer)?;
            self.switch_to_wal(connection)?;
            if contents != (Contents::Store { schema_version: SCHEMA_VERSION }) {
                let clock = self.clock();
                migrate::migrate(connection, clock.wall_ms(), || {
                    anchor::find_lost(self.location.as_site(clock))
                })?;
                // A store whose -wal is deleted is still the same store.
                pragmas::checkpoint(connection, "PASSIVE");
            }
            if contents == Contents::Empty {
                closed = ground::close_to_others(&self.location, &self.file_id)?;
            }
            self.record_opening(connection, &mended, closed.as_ref())?;
            let state = transaction::read_state(connection)?;
            check_min_writer(state.min_writer)?;
            self.check_uuid(&state.store_uuid)?;
            self.learn_files(before, || {
                *writer = None;
                transaction::read_state(self.connected(&mut writer)?).map(drop)
            })?;
            if self.files.are_known() {
                return Ok(());
            }
            let unreadable = location::unreadable(&self.location);
            Err(unreadable.unwrap_or_else(|| self.changes_under_us()))
        });
        drop(writer);
        // Nothing is open now that a slow terminal could hold up.
        if let Some(closed) = closed {
            tracing::warn!("{}", closed.text);
            (self.settings.tell)(&closed.text);
        }
        prepared.map_err(|error| self.explain(error))?;
        ground::prepare_anchors(&self.location)
    }

    /// What the file holds, and which files there were before it was opened. What does not belong to it, or to its
    /// `-wal`, is taken away first.
    fn look_and_mend(
        &self,
        writer: &mut Option<Connection>,
    ) -> Result<([Option<FileId>; 3], Contents, Vec<SetAside>)> {
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        /// `cp` empties what it copies over, and writes at once.
        const COPY_BEGINS_WITHIN: Duration = Duration::from_millis(100);
        let deadline = busy::deadline().unwrap_or_else(|| Deadline::after(Duration::ZERO));
        let mut mended = Vec::new();
        let mut is_seen_empty = false;
        loop {
            let before = self.files.named();
            // Whose file it is comes first, through a connection that leaves no trace: a writer
            // would checkpoint another program's database when it closes.
            let looked = self.connect(Access::Read).and_then(|reader| migrate::inspect(&reader));
            let damage = match looked {
                Ok(contents) if !overwritten::is_index_of_another_wal(&self.location) => {
                    return Ok((before, contents, mended));
                }
                Ok(_) => Damage::WalLost,
                // A change is to be rolled back, that of a first start that was killed, before anybody
                // can read the file: whoever opens it for writing does that first of all.
                Err(error) if error.sqlite_code() == Some(rusqlite::ErrorCode::ReadOnly) => {
                    let contents = migrate::inspect(self.connected(writer)?)?;
                    return Ok((before, contents, mended));
                }
                Err(error) => Damage::behind_opening(&error, &self.location).ok_or(error)?,
            };
            if damage == Damage::Shortened(0) && !std::mem::replace(&mut is_seen_empty, true) {
                std::thread::sleep(COPY_BEGINS_WITHIN);
                continue;
            }
            match overwritten::mend(&self.location, &damage, self.clock().wall_ms())? {
                Mended::Yes(set_aside) => mended.push(set_aside),
                Mended::NotNeeded | Mended::InUse if deadline.has_passed() => {
                    return Err(overwritten::still_open(&self.location, &damage));
                }
                Mended::NotNeeded | Mended::InUse => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    fn connected<'a>(&self, writer: &'a mut Option<Connection>) -> Result<&'a mut Connection> {
        match writer {
            Some(connection) => Ok(connection),
            none => Ok(none.insert(self.connect(self.write_access())?)),
        }
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
        // What was seen first: since then others may have made the file anew.
        let how = lock(&self.lost)
            .get_or_insert_with(|| {
                tracing::warn!(store = %self.location.file.display(), how, "the store is lost");
                how.to_owned()
            })
            .clone();
        Error::new(
            ErrorKind::StoreReplaced,
            format!("the store {} was replaced: {how}", self.location.file.display()),
        )
        .at(&self.location.file)
        .with_hint("open the store again, and claim again what you held")
    }

    /// Whether the files that this handle has open are those that others find: open descriptors tell, and
    /// once a second the paths. Not being able to look is no sign that they are not.
    pub(crate) fn is_in_place(&self) -> bool {
        match self.check_files(By::Descriptor) {
            Ok(Content::AsRead) => true,
            Ok(Content::Changed) => {
                self.close_connections();
                true
            }
            Err(error) => error.kind() != ErrorKind::StoreReplaced,
        }
    }

    /// What became of the files, for people, where that was seen.
    pub(crate) fn how_lost(&self) -> Option<String> {
        lock(&self.lost).clone()
    }

    /// Whoever opens the store anew gets a handle without a past.
    fn refuse_to_be_opened_again(&self) -> Result<()> {
        match self.how_lost() {
            Some(how) => Err(self.replaced(&how)),
            None => self.refuse_lost(),
        }
    }

    fn refuse_lost(&self) -> Result<()> {
        match self.files.how_lost(By::Path)? {
            Some(how) => Err(self.replaced(&how)),
            None => Ok(()),
        }
    }

    /// Before anything is opened by a path that may lead nowhere: SQLite would try that for a while.
    fn refuse_if_still_lost(&self) -> Result<()> {
        if lock(&self.lost).is_some() {
            if let Found::Lost(how) = self.files.check(By::Path)? {
                return Err(self.replaced(&how));
            }
            *lock(&self.lost) = None;
            // No connection is open yet.
            self.files.look_anew();
        }
        Ok(())
    }

    /// Whether what was read before still counts.
    fn check_files(&self, by: By) -> Result<Content> {
        match self.files.check(by)? {
            Found::InPlace => Ok(Content::AsRead),
            Found::Changed => Ok(Content::Changed),
            Found::Lost(how) => Err(self.replaced(&how)),
        }
    }

    /// One consistent look at the store.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.check_process()?;
        self.refuse_if_still_lost()?;
        self.retry_pending();
        let mut work = Some(work);
        let mut look = |attempt: usize| {
            self.readers.with(self, |connection| {
                let snapshot = connection.unchecked_transaction()?;
                let state = transaction::read_state(&snapshot)?;
                // After the first read: by then SQLite has all files open.
                if self.check_files(By::Descriptor)? == Content::Changed
                    && attempt < ATTEMPTS_CHANGED
                {
                    return Ok(None);
                }
                self.check_uuid(&state.store_uuid)?;
                let Some(work) = work.take() else { return Ok(None) };
                self.with_clear_sight(|| work(&snapshot)).map(Some)
            })
        };
        let read = busy::with_budget(self.settings.busy_budget, || {
            let mut attempt = 1;
            loop {
                if let Some(read) = look(attempt)? {
                    return Ok(read);
                }
                self.close_connections();
                attempt += 1;
            }
        });
        read.map_err(|error| self.explain_and_let_go(error))
    }

    /// One transaction of [`Inner::write`].
    fn write_with<T>(
        &self,
        patience: Patience,
        work: &impl Fn(&Tx<'_>) -> Result<T>,
    ) -> Result<Written<T>> {
        self.check_process()?;
        self.refuse_if_still_lost()?;
        let mut writer = self.lock_writer()?;
        if self.writer_is_stale.swap(false, Ordering::Acquire) {
            *writer = None;
        }
        let written = busy::with_budget(self.settings.busy_budget, || {
            self.making_room(&mut writer, |writer| self.write_as_it_is(writer, patience, work))
        });
        match written {
            Ok(written) => Ok(written),
            Err(error) => {
                // It would stay one that cannot write.
                if error.sqlite_code() == Some(rusqlite::ErrorCode::ReadOnly) {
                    *writer = None;
                }
                drop(writer);
                Err(self.explain_and_let_go(error))
            }
        }
    }

    /// Deletes the locks of rows that have ended with many of them, a short transaction at a time, so that
    /// others can claim meanwhile, and not for long, because our caller waits. They hold nothing any more:
    /// whoever wants one of them takes it, and `unlock --stale` and the pruning of the row delete the rest.
    fn end_left_locks(&self, owners: Vec<InstanceId>) {
        const WITHIN: Duration = Duration::from_millis(50);
        let until = Deadline::after(WITHIN);
        for owner in owners {
            loop {
                // No longer than that for somebody else's change either: ours is written.
                let end = || self.write(|tx| lock_table::end_left_of(tx, owner));
                match busy::with_budget(until.remaining(), end) {
                    Ok(_) if until.has_passed() => return,
                    Ok(true) => std::thread::yield_now(),
                    Ok(false) => break,
                    Err(error) => {
                        tracing::debug!(%error, "the locks of a row that has ended are left");
                        return;
                    }
                }
            }
        }
    }

    fn write_as_it_is<T>(
        &self,
        writer: &mut Option<Connection>,
        patience: Patience,
        work: &impl Fn(&Tx<'_>) -> Result<T>,
    ) -> Result<Written<T>> {
        let mut attempt = 1;
        loop {
            if let Some(written) = self.write_once(writer, patience, work, attempt)? {
                return Ok(written);
            }
            *writer = None;
            self.close_readers();
            attempt += 1;
        }
    }

    /// `None`, without `work` being done, where what was read before does not count any more.
    fn write_once<T>(
        &self,
        writer: &mut Option<Connection>,
        patience: Patience,
        work: &impl Fn(&Tx<'_>) -> Result<T>,
        attempt: usize,
    ) -> Result<Option<Written<T>>> {
        let transaction =
            self.connected(writer)?.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // SQLite opens for reading what it could not open for writing. There even an immediate transaction only
        // reads until something is written, and `work` acts on the world before: nobody else is kept out.
        if transaction.is_readonly(rusqlite::MAIN_DB)? {
            let read_only = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY);
            return Err(rusqlite::Error::SqliteFailure(read_only, None).into());
        }
        if self.check_files(By::Path)? == Content::Changed && attempt < ATTEMPTS_CHANGED {
            return Ok(None);
        }
        let state = transaction::read_state(&transaction)?;
        self.check_uuid(&state.store_uuid)?;
        check_min_writer(state.min_writer)?;
        let tx = Tx::new(&transaction, self, &state, patience);
        let settled = tx.settle_pending()?;
        let value = match self.with_clear_sight(|| work(&tx)) {
            Err(_) if tx.meets_suspects() => return Ok(Some(Written::NotYet(tx.suspects()))),
            done => done?,
        };
        let left_locks = tx.left_locks();
        tx.save_last_id()?;
        let dropped = if tx.lets_go() { self.unneeded_anchor(&tx)? } else { None };
        // No row, no anchor: one that is held without any would refuse everybody.
        let new_anchor = match tx.new_anchor() {
            Some(anchor) if instance::live_on_anchor(&tx, anchor.name())? > 0 => Some(anchor),
            Some(_) | None => None,
        };
        // It has the other one, which is released while nobody else can look.
        drop(tx);
        transaction.commit()?;
        // What was committed to files that nobody else finds is not acknowledged. Whoever moves a store away
        // keeps writers out, if he can. A look that fails takes nothing back: it is committed.
        if let Ok(Some(how)) = self.files.how_lost(By::Path) {
            return Err(self.replaced(&how));
        }
        // Not before the commit: until then the rows name the anchor that we had.
        if let Some(dropped) = &dropped {
            lock(&self.anchor).take_if(|anchor| dropped.is(anchor));
        }
        if let Some(anchor) = new_anchor {
            *lock(&self.anchor) = Some(anchor);
        }
        if !settled.is_empty() {
            lock(&self.pending).retain(|it| !settled.iter().any(|done| Arc::ptr_eq(it, done)));
        }
        // Neither unlocked nor unlinked before the commit either: whoever reads meanwhile would
        // take a row with a free anchor for one of the dead, and judge one whose file is gone by
        // its process alone. Nobody names this one any more, and no name comes twice.
        if let Some(anchor) = dropped {
            anchor.remove();
        }
        if let Some(connection) = &*writer {
            self.restart_long_wal(connection);
        }
        Ok(Some(Written::Done { value, left_locks }))
    }

    fn changes_under_us(&self) -> Error {
        let file = &self.location.file;
        Error::new(
            ErrorKind::Busy,
            format!("{} or its -wal or -shm keeps being replaced", file.display()),
        )
        .at(file)
        .with_hint("stop the program that copies over or deletes them, then try again")
        .retry_after(1_000)
    }

    /// As [`Inner::explain`]; and connections to files that others do not find would stand in their way.
    fn explain_and_let_go(&self, error: Error) -> Error {
        let error = self.explain(error);
        if error.kind() == ErrorKind::StoreReplaced {
            self.close_connections();
        }
        error
    }

    /// The connection that writes, for this thread alone. A caller with a budget of its own, such as
    /// a signal handler, does not wait longer for another thread than for another process.
    fn lock_writer(&self) -> Result<MutexGuard<'_, Option<Connection>>> {
        const LOOK_EVERY: Duration = Duration::from_micros(200);
        let deadline = busy::deadline().filter(|deadline| deadline.remaining() < Duration::MAX);
        let Some(deadline) = deadline else { return Ok(lock(&self.writer)) };
        loop {
            match self.writer.try_lock() {
                Ok(writer) => return Ok(writer),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if deadline.has_passed() => {
                    return Err(Error::new(
                        ErrorKind::Busy,
                        "another thread of this process is writing to the store",
                    )
                    .with_hint("try again")
                    .retry_after(100));
                }
                Err(TryLockError::WouldBlock) => {
                    std::thread::sleep(LOOK_EVERY.min(deadline.remaining()));
                }
            }
        }
    }

    /// Writes the releases that could not be written before, if that takes no time.
    fn retry_pending(&self) {
        const BUDGET: Duration = Duration::from_millis(10);
        // A last word can wait for the next write; nobody reads slower for it.
        if !lock(&self.pending).iter().any(|it| it.is_release()) {
            return;
        }
        if let Err(error) = busy::with_budget(BUDGET, || self.write(|_| Ok(()))) {
            tracing::debug!(%error, "releases are still pending");
        }
    }

    /// Adds what only this level knows: the path, and who keeps the store busy.
    pub(super) fn explain(&self, error: Error) -> Error {
        let file = &self.location.file;
        // It says only that it cannot open a file, or read one (FIELD-BUGS row 110).
        if matches!(
            error.sqlite_code(),
            Some(
                rusqlite::ErrorCode::CannotOpen
                    | rusqlite::ErrorCode::SystemIoFailure
                    | rusqlite::ErrorCode::OutOfMemory
            )
        ) && let Some(shortage) = sys::lack_of_descriptors()
        {
            let what = format!("open {}", file.display());
            return Error::shortage(shortage, &what).at(file).caused_by(error);
        }
        // Whatever SQLite says of a file that is gone: it is gone.
        if (error.sqlite_code().is_some() || error.kind() == ErrorKind::Corrupt)
            && let Ok(Found::Lost(how)) = self.files.check(By::Path)
        {
            return self.replaced(&how).caused_by(error);
        }
        if let Some(damage) = Damage::behind_opening(&error, &self.location) {
            return self.replaced(&damage.to_string()).caused_by(error);
        }
        if error.kind() == ErrorKind::Corrupt && self.files.were_changed() {
            return Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{} is damaged: something else than SQLite has written to it while it was in use (a copy that \
                     was put over it?)",
                    file.display()
                ),
            )
            .at(file)
            .with_hint(RECOVER)
            .caused_by(error);
        }
        // After ten seconds in which SQLite could not even begin to read.
        if error.sqlite_code() == Some(rusqlite::ErrorCode::FileLockingProtocolFailed) {
            return match error.into_sqlite() {
                Ok(cause) => busy::error(file, cause),
                Err(error) => error,
            };
        }
        let is_there = || std::fs::symlink_metadata(file).is_ok();
        match error.kind() {
            ErrorKind::Busy if error.is_of_a_lock() => match error.into_sqlite() {
                Ok(cause) => busy::error(file, cause),
                Err(error) => error,
            },
            ErrorKind::CannotWrite
                if error.sqlite_code() == Some(rusqlite::ErrorCode::ReadOnly) =>
            {
                match location::unwritable(&self.location) {
                    Some(culprit) => culprit.caused_by(error),
                    // SQLite opens for reading what it could not open for writing, and does not say why.
                    None => Error::new(
                        ErrorKind::Busy,
                        format!("{} could not be opened for writing just now", file.display()),
                    )
                    .at(file)
                    .with_hint("try again; nothing was changed")
                    .retry_after(1_000)
                    .caused_by(error),
                }
            }
            ErrorKind::CannotRead if is_there() => {
                let cannot_open = || {
                    let what = format!("{} is there, but {} cannot open it", file.display(), me());
                    Error::new(ErrorKind::CannotRead, format!("{what}: {error}"))
                        .at(file)
                        .with_hint(
                            "ask as its owner, or look at the modes of the file and its directory",
                        )
                };
                location::unreadable(&self.location).unwrap_or_else(cannot_open).caused_by(error)
            }
            // What lies beside it says that it was one of ours.
            ErrorKind::NotOurs
                if error.sqlite_code().is_some() && self.location.anchors.is_dir() =>
            {
                Error::new(
                    ErrorKind::Corrupt,
                    format!("{} is no SQLite database any more", file.display()),
                )
                .at(file)
                .with_hint(RECOVER)
                .caused_by(error)
            }
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
    /// a write transaction; it becomes the process' anchor with the commit.
    pub(crate) fn anchor(&self, tx: &Tx<'_>) -> Result<Arc<Anchor>> {
        if let Some(anchor) = tx.new_anchor() {
            return Ok(anchor);
        }
        let current = self.own_anchor();
        if let Some(anchor) = &current
            && anchor.is_in_place()
        {
            // An adopted one becomes ours for good, with the row that will name it.
            if lock(&self.anchor).is_none() {
                tx.set_new_anchor(Arc::clone(anchor));
            }
            return Ok(Arc::clone(anchor));
        }
        let Location { file, anchors, .. } = &self.location;
        let anchor = Arc::new(Anchor::create(file, anchors, self.store_uuid()?)?);
        if let Some(previous) = current {
            tx.rename_anchor(previous.name(), anchor.name())?;
            // The command that lives holds its lock on that very file.
            let of_command = |name| command_lock::path_of(&self.location.anchors, name);
            match sys::link_beside(&of_command(previous.name()), &of_command(anchor.name())) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::debug!(%error, "the lock of the command is not found any more");
                }
                Ok(()) | Err(_) => {}
            }
        }
        tx.set_new_anchor(Arc::clone(&anchor));
        Ok(anchor)
    }

    /// The anchor that this process holds in this store, or goes on with from the one before it.
    pub(crate) fn own_anchor(&self) -> Option<Arc<Anchor>> {
        let own = lock(&self.anchor).clone();
        own.or_else(|| lock(&self.adopted).upgrade())
    }

    /// Goes on with an anchor that another process of ours held before, and that rows name.
    #[cfg(feature = "cli")]
    pub(crate) fn inherit(&self, anchor: Anchor) {
        *lock(&self.anchor) = Some(Arc::new(anchor));
    }

    /// A process holds an anchor only while a live row relies on it: one that is held without any
    /// row means that the store has lost rows. One that was only adopted is still another handle's.
    fn unneeded_anchor(&self, tx: &Tx<'_>) -> Result<Option<Dropped>> {
        let ours = lock(&self.anchor).clone();
        match ours {
            Some(anchor) if instance::live_on_anchor(tx, anchor.name())? == 0 => {
                Ok(Some(Dropped::new(anchor)))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Writes a release, by `end`; one that cannot be written is kept. `held` is what this process
    /// holds without it.
    pub(crate) fn let_go(
        &self,
        held: &Held,
        end: impl Fn(&Tx<'_>) -> Result<bool>,
        kept: impl FnOnce() -> Pending,
    ) -> Released {
        let released = match self.write(end) {
            Ok(true) => return Released::Free,
            Ok(false) => return Released::WasLost,
            Err(error) if error.kind() == ErrorKind::StoreReplaced => Released::WasLost,
            Err(error) => {
                let pending = kept();
                tracing::warn!(?pending, %error, "release kept for later");
                lock(&self.pending).push(Arc::new(pending));
                Released::Pending(error)
            }
        };
        // Nobody shall be kept out because we cannot write.
        if held.is_nothing() {
            self.abandon_anchor();
        }
        released
    }

    /// After something was lost with its store: an anchor that nothing else relies on would stand in
    /// everybody's way in the next one.
    pub(crate) fn let_go_of_lost_store(&self) {
        if lock(&self.held).is_nothing() {
            self.abandon_anchor();
        }
    }

    /// Whether this process has released that row, and could not write it down yet.
    pub(crate) fn has_pending_release(&self, id: InstanceId) -> bool {
        let is_it =
            |it: &Arc<Pending>| matches!(&**it, Pending::Row { instance, .. } if *instance == id);
        lock(&self.pending).iter().any(is_it)
    }

    /// The identities that this process has locked, by their hashes; none while another thread claims.
    pub(crate) fn held_identities(&self) -> HashSet<u64> {
        let Ok(held) = self.held.try_lock() else { return HashSet::new() };
        let hashes = held.locks.keys().map(|name| name.identity_hash.as_str());
        hashes.filter_map(IdentityHash::number_of).collect()
    }

    /// Whether this process has left a last word in this store.
    pub(crate) fn has_said_something(&self) -> bool {
        self.has_said_something.load(Ordering::Relaxed)
    }

    /// Expects that a last word is survived; whether nobody expected one until now.
    pub(crate) fn expect_survival(
        &self,
        instance: InstanceId,
        what: What,
        mut survival: Survival,
    ) -> bool {
        let mut survivals = lock(&self.survivals);
        let known = survivals.get(&(instance, what));
        if let Some(known) = known {
            survival.until_boot_ms = survival.until_boot_ms.max(known.until_boot_ms);
        }
        survivals.insert((instance, what), survival).is_none()
    }

    pub(crate) fn survival(&self, instance: InstanceId, what: What) -> Option<Survival> {
        lock(&self.survivals).get(&(instance, what)).copied()
    }

    /// Expects it no more, unless there was a later word meanwhile; whether that is so.
    pub(crate) fn forget_survival(
        &self,
        instance: InstanceId,
        what: What,
        until_boot_ms: i64,
    ) -> bool {
        let mut survivals = lock(&self.survivals);
        let is_later =
            |known: &Survival| known.until_boot_ms > until_boot_ms || !known.at.has_passed();
        let later = survivals.get(&(instance, what)).is_some_and(is_later);
        if !later {
            survivals.remove(&(instance, what));
        }
        !later
    }

    /// Nobody waits for it: the next word has to find somebody who does.
    pub(crate) fn cancel_survival(&self, instance: InstanceId, what: What) {
        lock(&self.survivals).remove(&(instance, what));
    }

    /// Whether a thread of this process has panicked just now.
    pub(crate) fn has_just_panicked(&self) -> bool {
        lock(&self.panic_counts).is_some_and(|until| !until.has_passed())
    }

    /// One that was survived for longer than this (a task whose panic was caught) ends nobody.
    pub(crate) fn note_panic(&self) {
        const COUNTS_FOR: Duration = Duration::from_secs(10);
        *lock(&self.panic_counts) = Some(Deadline::after(COUNTS_FOR));
    }

    /// Writes the last word of this process; its row's id. One that cannot be written within `budget` is
    /// kept, and written with the next change.
    pub(crate) fn say(&self, word: NewShutdown, budget: Duration) -> Result<Option<i64>> {
        self.check_process()?;
        self.has_said_something.store(true, Ordering::Relaxed);
        let said = busy::with_budget(budget, || self.write(|tx| word.insert(tx)));
        if said.as_ref().is_err_and(Self::may_be_said_later) {
            self.keep_word(word);
        }
        said
    }

    /// What does not pass by itself is not tried again.
    pub(crate) fn may_be_said_later(error: &Error) -> bool {
        matches!(error.kind(), ErrorKind::Busy | ErrorKind::CannotWrite | ErrorKind::CannotRead)
    }

    /// Keeps a last word that could not be written; of many only the newest.
    fn keep_word(&self, word: NewShutdown) {
        const WORDS_MAX: usize = 20;
        let mut pending = lock(&self.pending);
        if pending.iter().filter(|it| !it.is_release()).count() >= WORDS_MAX
            && let Some(oldest) = pending.iter().position(|it| !it.is_release())
        {
            pending.remove(oldest);
        }
        pending.push(Arc::new(Pending::Shutdown(Box::new(word))));
    }

    /// Lets the anchor go although a row still names it: the release could not be written, and
    /// nobody shall be kept out by that.
    fn abandon_anchor(&self) {
        lock(&self.anchor).take();
    }

    fn is_wal_longer_than(&self, length: u64) -> bool {
        let wal = location::beside(&self.location.file, location::WAL);
        std::fs::metadata(wal).is_ok_and(|facts| facts.len() >= length)
    }

    /// SQLite starts a WAL over when it happens to find nobody in the middle of something. On a machine
    /// with more to do than it can, somebody always is, and the WAL grows (FIELD-BUGS row 77): then it
    /// is waited for, for a moment. Whoever waits keeps all writers out, so only where nothing but that
    /// moment is missing, not for a reader that stays, and by nobody who writes once and ends.
    fn restart_long_wal(&self, connection: &Connection) {
        /// Twice what SQLite means it to be.
        const LENGTH_MIN: u64 = 8 << 20;
        const BUDGET: Duration = Duration::from_millis(2);
        const LOOK_EVERY: u32 = 64;
        let writes = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        if writes.is_multiple_of(LOOK_EVERY) && self.is_wal_longer_than(LENGTH_MIN) {
            busy::with_budget(BUDGET, || {
                if pragmas::checkpoint(connection, "PASSIVE") {
                    pragmas::checkpoint(connection, "RESTART");
                }
            });
        }
    }

    /// Moves all of the WAL into the database and empties it, if nobody is in the way for longer than
    /// `budget`; whether that was so.
    pub(crate) fn empty_wal(&self, budget: Duration) -> Result<bool> {
        self.check_process()?;
        let mut writer = lock(&self.writer);
        busy::with_budget(budget, || {
            self.refuse_lost()?;
            Ok(pragmas::checkpoint(self.connected(&mut writer)?, "TRUNCATE"))
        })
        .map_err(|error| self.explain(error))
    }

    /// A long WAL makes the first question after us slow; a short one is not worth the syncs.
    fn trim_large_wal(&mut self) {
        const LENGTH_MIN: u64 = 256 * 1024;
        const BUDGET: Duration = Duration::from_millis(5);
        // Not into a file that is gone or belongs to another store by now.
        let is_long = self.is_wal_longer_than(LENGTH_MIN) && self.refuse_lost().is_ok();
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = writer
            && is_long
        {
            busy::with_budget(BUDGET, || pragmas::checkpoint(connection, "TRUNCATE"));
        }
    }

    /// Goes on with the anchor of a handle whose store was replaced, so that its lock never lapses.
    pub(super) fn adopt_anchor(&self, from: &Self) {
        *lock(&self.adopted) = from.own_anchor().map_or_else(Weak::new, |it| Arc::downgrade(&it));
        let held = lock(&from.held);
        *lock(&self.held_before) = held
            .offices
            .keys()
            .cloned()
            .map(Wanted::Office)
            .chain(held.locks.keys().cloned().map(Wanted::Lock))
            // Replaced twice, before anything was claimed again.
            .chain(lock(&from.held_before).iter().cloned())
            .collect();
    }

    /// Notes what was held by the row `lost`, which the store has lost.
    pub(crate) fn note_lost(&self, held: &Held, lost: InstanceId) {
        let offices = held.offices.iter().filter(|(_, it)| it.row.instance == lost);
        let locks = held.locks.iter().filter(|(_, it)| it.instance == lost);
        lock(&self.held_before).extend(
            offices
                .map(|(office, _)| Wanted::Office(office.clone()))
                .chain(locks.map(|(name, _)| Wanted::Lock(name.clone()))),
        );
    }

    /// Whether this process held something in the store that this one replaced.
    pub(crate) fn comes_from_a_lost_store(&self) -> bool {
        !lock(&self.held_before).is_empty()
    }

    /// Whether this process held all of `wanted` in the store that this one replaced.
    pub(crate) fn held_before(&self, wanted: impl IntoIterator<Item = Wanted>) -> bool {
        let held = lock(&self.held_before);
        !held.is_empty() && wanted.into_iter().all(|wanted| held.contains(&wanted))
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
            registry::forget(&self.file_id, self);
            self.trim_large_wal();
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
    if !migrate::is_a_version(min_writer) {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "the store says that it is closed to writers before version {min_writer}, which no \
                 program has"
            ),
        )
        .with_hint(RECOVER));
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
