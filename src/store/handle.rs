//! The one handle of a file in this process: connections, the anchor, and what is held.
//!
//! Order of locks in a process: the registry, then `held`, then the writer, then `accounted`, then
//! `anchor` or `pending`. The registry's lock is never held while a handle is dropped.
//!
//! `held` is locked around a whole claim. Without that, a thread would meet another thread's fresh
//! row as a stranger's.

pub(crate) mod lost;
mod opening;
mod room;
pub(super) mod settle;
pub(crate) mod write;

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;

use crate::clock::Clock;
use crate::clock::Deadline;
use crate::environment::{Fault, planted};
use crate::error::with_clear_sight;
use crate::process::anchor::accounted::Accounted;
use crate::process::anchor::{Anchor, lost as anchor_lost};
use crate::process::command_line::matcher::CommandLineMatcher;
use crate::process::observer::SeenFree;
use crate::process::{Observer, Subject, View};
use crate::store::deferred::{Abandoned, Pending};
use crate::store::files::Files;
use crate::store::ground::close;
use crate::store::handle::settle::Orphaned;
use crate::store::held::{Held, HeldBefore};
use crate::store::last_words::LastWords;
use crate::store::location::Location;
use crate::store::migrate::{Contents, SCHEMA_VERSION};
use crate::store::overwritten::Damage;
use crate::store::pool::Readers;
use crate::store::pragmas::{Access, Durability};
use crate::store::settings::Settings;
use crate::store::transaction::{BootTime, Tx};
use crate::store::witnessed::Witnessed;
use crate::store::{
    deferred, gate, ground, location, migrate, overwritten, pool, pragmas, registry, transaction,
};
use crate::sys::{FileId, Looks, Trust};
use crate::{Error, ErrorKind, Result, patience, sys};

/// The one handle of a file in this process.
pub(crate) struct Inner {
    pub(crate) location: Location,
    file_id: FileId,
    pub(super) files: Files,
    /// How they were lost, if they were when they were looked at last.
    pub(super) lost: Mutex<Option<String>>,
    creator_pid: u32,
    settings: Settings,
    store_uuid: OnceLock<String>,
    observer: OnceLock<Observer>,
    is_local: OnceLock<bool>,
    seen_free: SeenFree,
    orphaned: Orphaned,
    pub(crate) accounted: Mutex<Accounted>,
    myself: OnceLock<Subject>,
    description: OnceLock<String>,
    pub(super) readers: Readers,
    /// Connections of watchers, which make another one where it was closed.
    pub(super) watchers: Mutex<Vec<Weak<Mutex<Option<Connection>>>>>,
    pub(super) writer: Mutex<Option<Connection>>,
    /// The writing connection was to be closed while it was in use.
    writer_is_stale: AtomicBool,
    pub(super) anchor: Mutex<Option<Arc<Anchor>>>,
    /// The anchor of a handle of ours whose store was replaced: ours with the first row that names
    /// it, and gone with that handle if none ever does.
    pub(super) adopted: Mutex<Weak<Anchor>>,
    pub(crate) held_before: HeldBefore,
    /// What this process holds, so that a second claim shares the first.
    pub(crate) held: Mutex<Held>,
    pub(super) handing_over: AtomicBool,
    /// This process was the command of a `run` when it began to hand over.
    pub(super) was_command: AtomicBool,
    pub(crate) pending: Arc<Pending>,
    pub(super) abandoned: Arc<Abandoned>,
    pub(crate) last_words: LastWords,
    pub(crate) witnessed: Witnessed,
    /// Transactions of this handle, for what is done after some of them.
    pub(super) writes: AtomicU32,
    trust: Trust,
}

/// Prepared statements that a connection keeps: more than a claim uses. With fewer, each claim
/// would prepare all of them again, which takes as long as running them.
const STATEMENTS_PREPARED: usize = 96;

impl Inner {
    /// The filesystems that whoever opened the store has vouched for.
    pub(crate) fn allowed_filesystems(&self) -> &[String] {
        &self.settings.allowed_filesystems.0
    }

    /// While the registry is locked.
    pub(super) fn new(
        location: Location,
        file_id: FileId,
        settings: Settings,
        readers: pool::Strategy,
    ) -> Self {
        let owner = |path: &Path| sys::file_facts(path).ok().and_then(|facts| facts.owner);
        let (pending, abandoned) = deferred::kept_for(&location.file);
        Self {
            trust: Trust::of_owners([owner(&location.directory), owner(&location.file)]),
            readers: Readers::new(readers),
            watchers: Mutex::new(Vec::new()),
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
            accounted: Mutex::default(),
            myself: OnceLock::new(),
            description: OnceLock::new(),
            writer: Mutex::new(None),
            writer_is_stale: AtomicBool::new(false),
            anchor: Mutex::new(None),
            adopted: Mutex::new(Weak::new()),
            held_before: HeldBefore::default(),
            held: Mutex::new(Held::default()),
            handing_over: AtomicBool::new(false),
            was_command: AtomicBool::new(false),
            pending,
            abandoned,
            last_words: LastWords::default(),
            witnessed: Witnessed::default(),
            writes: AtomicU32::new(0),
        }
    }

    /// How far the rows are believed about whom to signal.
    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Nothing crosses a fork: SQLite's locks and connections belong to the process that made them.
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.creator_pid == std::process::id() || planted(Fault::ForkUnchecked) {
            return Ok(());
        }
        Err(registry::forked(&self.location.file))
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

    /// What survives a power loss of what this handle writes.
    pub(crate) fn durability(&self) -> Durability {
        self.settings.durability
    }

    /// How long one operation waits for the store's locks, at most.
    pub(crate) fn busy_budget(&self) -> Duration {
        self.settings.busy_budget
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

    /// Tells whoever opened it a line for people.
    pub(crate) fn tell(&self, line: &str) {
        (self.settings.tell)(line);
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

    /// Runs `work` on one of the reading connections.
    fn with_reader<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.readers.with(|| self.connect(Access::Read), work)
    }

    /// Lets go of all connections: to files that others do not see, or with pages that were read
    /// before somebody wrote to them. One that another thread writes with goes before the next
    /// change.
    pub(super) fn close_connections(&self) {
        let _inside = gate::enter_anyway();
        match self.writer.try_lock() {
            Some(mut writer) => *writer = None,
            None => self.writer_is_stale.store(true, Ordering::Release),
        }
        self.close_readers();
    }

    fn close_readers(&self) {
        self.readers.clear();
        self.files.leave();
        self.files.look_anew();
    }

    /// What this process holds, for this thread alone: locked around a whole claim. A caller with a
    /// budget of its own does not wait longer for another thread's claim.
    pub(crate) fn lock_held(&self) -> Result<MutexGuard<'_, Held>> {
        match patience::remaining().filter(|remaining| *remaining < Duration::MAX) {
            None => Ok(self.held.lock()),
            Some(remaining) => self.held.try_lock_for(remaining).ok_or_else(|| {
                Error::new(ErrorKind::Busy, "another thread of this process is claiming something")
                    .with_hint("try again")
                    .with_retry_after(Duration::from_millis(100))
            }),
        }
    }

    /// What the file holds, without expecting anything of it.
    pub(super) fn inspect(&self) -> Result<Contents> {
        self.check_process()?;
        let _inside = gate::enter()?;
        self.know_ourselves()?;
        patience::with_budget(self.settings.busy_budget, || {
            self.refuse_to_be_opened_again()?;
            let before = self.files.named();
            let contents = self.with_reader(migrate::inspect)?;
            if contents != Contents::Empty {
                self.learn_files(before, || {
                    self.readers.clear();
                    self.with_reader(migrate::inspect).map(drop)
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
            .with_hint("the next start undoes that change; try again after it")
            .caused_by(error),
            _ => self.explain(error),
        })
    }

    /// A read-only connection of the caller's own. It must not outlive a stay inside the gate: what
    /// is kept longer is a [`Watcher`](crate::store::watcher::Watcher).
    pub(crate) fn watcher(&self) -> Result<Connection> {
        self.check_process()?;
        patience::with_budget(self.settings.busy_budget, || self.connect(Access::Read))
            .map_err(|error| self.explain(error))
    }

    fn write_access(&self) -> Access {
        Access::Write(self.settings.durability)
    }

    pub(super) fn prepare_for_owning(&self) -> Result<()> {
        self.check_process()?;
        let _inside = gate::enter()?;
        self.know_ourselves()?;
        let mut writer = self.writer.lock();
        let mut closed = None;
        let prepared = patience::with_budget(self.settings.busy_budget, || {
            self.refuse_to_be_opened_again()?;
            let (before, contents, mended) = self.look_and_mend(&mut writer)?;
            // SQLite has read in this very file that it is ours.
            if contents != Contents::Empty {
                closed = close::close_to_others(&self.location, &self.file_id)?;
            }
            let connection = self.connected(&mut writer)?;
            self.switch_to_wal(connection)?;
            if contents != (Contents::Store { schema_version: SCHEMA_VERSION }) {
                let clock = self.clock();
                migrate::migrate(connection, clock.wall_ms(), || {
                    anchor_lost::find_lost(self.location.as_site(clock))
                })?;
                // A store whose -wal is deleted is still the same store.
                pragmas::checkpoint(connection, "PASSIVE");
            }
            if contents == Contents::Empty {
                closed = close::close_to_others(&self.location, &self.file_id)?;
            }
            self.record_opening(connection, &mended, closed.as_ref())?;
            let state = transaction::read_state(connection)?;
            migrate::check_min_writer(state.min_writer)?;
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

    pub(super) fn connected<'a>(
        &self,
        writer: &'a mut Option<Connection>,
    ) -> Result<&'a mut Connection> {
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

    /// The identities that this process has locked, by their hashes; none while another thread
    /// claims.
    pub(crate) fn held_identities(&self) -> HashSet<u64> {
        self.held.try_lock().map(|held| held.identities()).unwrap_or_default()
    }

    /// Unlocks the anchor although rows name it: whom it was held for has ended.
    pub(crate) fn unlock_anchor(&self) {
        drop(self.anchor.lock().take());
    }

    /// Goes on with an anchor that another process of ours held before, and that rows name.
    pub(crate) fn inherit(&self, anchor: Anchor) {
        *self.anchor.lock() = Some(Arc::new(anchor));
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
            // As long as its connections are closed, which are fields.
            let _inside = gate::enter_anyway();
            registry::forget(&self.file_id, self);
            self.trim_large_wal();
            return;
        }
        // In a forked child, closing a connection would touch the parent's database.
        let writer = self.writer.get_mut();
        std::mem::forget(writer.take());
        self.readers.forget();
    }
}
