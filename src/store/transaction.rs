//! What a write transaction can do, and the bookkeeping that every one of them shares.
//!
//! Ids are max(last + 1, Unix time in microseconds), so they rise in a new or restored store, too,
//! and do not repeat after a power loss. A clock beyond 2100 is not believed (`Tx::draw_id`): its
//! numbers would stay for good, and those of any other store would be lower. Ids end at 2^53 - 1,
//! with an error.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use crate::environment::{Fault, planted};
use crate::process::anchor::accounted::{EventMark, Lineage};
use crate::process::anchor::lost;
use crate::process::anchor::lost::LostOwner;
use crate::process::anchor::sweep::Sweep;
use crate::process::{Anchor, Orphan, View};
use crate::store::handle::Inner;
use crate::store::handle::settle::Patience;
use crate::store::migrate::SCHEMA_VERSION;
use crate::{Error, ErrorKind, Result, error};

/// The row of `meta` that every transaction starts from.
pub(super) struct State {
    pub(super) store_uuid: String,
    pub(super) min_writer: i64,
    pub(super) last_id: i64,
    pub(super) lost_owners: Option<String>,
    rows_lost: i64,
}

pub(super) fn read_state(connection: &Connection) -> Result<State> {
    // One walk along the key, past a handful of rows.
    const SQL: &str = "SELECT key, value FROM meta WHERE key BETWEEN 'last_id' AND 'store_uuid'";
    let (mut store_uuid, mut min_writer) = (None, None);
    let (mut last_id, mut lost_owners, mut rows_lost) = (None, None, None);
    let mut statement = connection.prepare_cached(SQL)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match row.get_ref(0)?.as_bytes().unwrap_or_default() {
            b"store_uuid" => store_uuid = row.get::<_, String>(1).ok(),
            b"min_writer" => min_writer = row.get(1).ok(),
            b"last_id" => last_id = row.get(1).ok().filter(|id| (0..ID_MAX).contains(id)),
            b"lost_owners" => lost_owners = row.get(1).unwrap_or(None),
            b"rows_lost" => rows_lost = row.get(1).ok(),
            _ => {}
        }
    }
    match (store_uuid, min_writer) {
        (Some(store_uuid), Some(min_writer)) if is_store_id(&store_uuid) => Ok(State {
            store_uuid,
            min_writer,
            // A damaged counter is no obstacle: ids also rise with the clock.
            last_id: last_id.unwrap_or(0),
            lost_owners,
            rows_lost: rows_lost.unwrap_or(0),
        }),
        (None | Some(_), None | Some(_)) => Err(Error::new(
            ErrorKind::Corrupt,
            "the table meta has lost its rows, or what is in them",
        )
        .with_hint(error::RECOVER)),
    }
}

/// Ids are Unix times in microseconds, or a little above, and below this: the year 2255, and still
/// a whole number for every reader of JSON.
pub(super) const ID_MAX: i64 = 1 << 53;

/// The year 2100. A clock beyond it is broken, and an id of its time would stay for good: ids never
/// fall, and those of another store would be lower (FIELD-BUGS row 134).
const BELIEVED_US_MAX: i64 = 4_102_444_800_000_000;

/// It is part of file names.
pub(super) fn is_store_id(text: &str) -> bool {
    const LENGTH: usize = 32;
    text.len() == LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The anchors that rows on record as live rely on. Of any pid: that names the index of the live
/// rows. By that of the anchors SQLite would go through the ended ones, too.
pub(crate) fn named_anchors(connection: &Connection) -> Result<HashSet<String>> {
    let names = connection
        .prepare_cached(
            "SELECT anchor FROM instances
             WHERE ended_at_ms IS NULL AND pid >= -9223372036854775808 AND anchor IS NOT NULL",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(names)
}

/// The owners of the store that was there before which have not let go, as far as can be seen.
pub(crate) fn lost_owners(connection: &Connection, view: View<'_>) -> Result<Vec<LostOwner>> {
    const SQL: &str = "SELECT value FROM meta WHERE key = 'lost_owners'";
    let lost: Option<String> =
        connection.prepare_cached(SQL)?.query_row([], |row| row.get(0)).optional()?;
    let mut left = lost.as_deref().map(lost::lost_owners_of).unwrap_or_default();
    // One that is out of date is left for the next claim to delete.
    left.retain(|owner| !owner.has_let_go(view));
    Ok(left)
}

/// What is left of a change: does some of it in a transaction of its own; whether there may be
/// more.
pub(crate) type Rest = Box<dyn Fn(&Tx<'_>) -> Result<bool>>;

/// A write transaction in progress. Holding one means holding the store's write lock.
pub(crate) struct Tx<'a> {
    connection: &'a Connection,
    pub(super) store: &'a Inner,
    last_id: Cell<i64>,
    stored_last_id: i64,
    rows_lost: i64,
    has_newest_schema: Cell<bool>,
    now_us: i64,
    new_anchor: RefCell<Option<Arc<Anchor>>>,
    lets_go: Cell<bool>,
    rests: RefCell<Vec<Rest>>,
    lost_owners: Option<String>,
    patience: Patience,
    suspects: RefCell<Vec<String>>,
    garbage: RefCell<Vec<Sweep>>,
}

impl std::ops::Deref for Tx<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

/// A moment of the boot clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BootTime<'a> {
    pub(crate) ms: i64,
    /// What the wall clock shows at that moment.
    pub(crate) wall_ms: i64,
    pub(crate) boot_id: Option<&'a str>,
}

impl BootTime<'_> {
    /// How far the two clocks are apart; a restart of the machine changes it.
    pub(crate) fn wall_less_boot_ms(&self) -> i64 {
        self.wall_ms.saturating_sub(self.ms)
    }
}

impl<'a> Tx<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        store: &'a Inner,
        state: &State,
        patience: Patience,
    ) -> Self {
        Self {
            connection,
            store,
            last_id: Cell::new(state.last_id),
            stored_last_id: state.last_id,
            rows_lost: state.rows_lost,
            has_newest_schema: Cell::new(false),
            now_us: store.clock().wall_us(),
            new_anchor: RefCell::new(None),
            lets_go: Cell::new(false),
            rests: RefCell::default(),
            lost_owners: state.lost_owners.clone(),
            patience,
            suspects: RefCell::default(),
            garbage: RefCell::default(),
        }
    }

    /// Refuses to register anything in a store whose schema is older than this program's. What is
    /// on record there can still be asked about, released and evicted.
    pub(crate) fn check_schema(&self) -> Result<()> {
        // It does not change while this goes on.
        if self.has_newest_schema.get() {
            return Ok(());
        }
        let schema_version: i64 =
            self.prepare_cached("PRAGMA user_version")?.query_row([], |row| row.get(0))?;
        if schema_version >= SCHEMA_VERSION {
            self.has_newest_schema.set(true);
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TooOld,
            format!(
                "the store is too old for this: it has schema version {schema_version}, and this \
                 program writes version {SCHEMA_VERSION}"
            ),
        )
        .with_hint(
            "the next `incumbent run -- CMD` or `incumbent claim` (in a program, `Store::open`) \
             brings it up to date",
        ))
    }

    /// The time of this transaction: everything it writes bears the same.
    pub(crate) fn now_ms(&self) -> i64 {
        self.now_us / 1_000
    }

    /// The handle that it belongs to.
    pub(crate) fn store(&self) -> &Inner {
        self.store
    }

    /// The same on the clock that decides.
    pub(crate) fn boot_time(&self) -> BootTime<'_> {
        self.store.boot_time()
    }

    /// Whether this transaction, one of eight by chance, prunes what is kept of the past. By the
    /// clock, because ids may rise in even steps.
    pub(crate) fn prunes(&self) -> bool {
        self.now_us % 8 == 0
    }

    /// The same of what takes more than most changes do: one of 64.
    pub(crate) fn prunes_rarely(&self) -> bool {
        self.now_us % 64 == 0
    }

    /// The row without an office that a claim looked at last, to see whether it is of the dead.
    pub(crate) fn swept_to(&self) -> Result<i64> {
        const SQL: &str = "SELECT value FROM meta WHERE key = 'swept_to'";
        let id = self.prepare_cached(SQL)?.query_row([], |row| Ok(row.get(0).unwrap_or(0)));
        Ok(id.optional()?.unwrap_or(0))
    }

    pub(crate) fn note_swept_to(&self, id: i64) -> Result<()> {
        self.prepare_cached(
            "INSERT INTO meta (key, value) VALUES ('swept_to', ?1)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        )?
        .execute([id])?;
        Ok(())
    }

    /// A number above every one drawn before, also in a store that was restored from an older
    /// copy or made anew: max(last + 1, Unix µs), as far as that clock can be believed.
    ///
    /// # Errors
    /// Where all numbers are used up.
    pub(crate) fn draw_id(&self) -> Result<i64> {
        let next = self.last_id.get().saturating_add(1);
        let next = if planted(Fault::FenceByClockAlone) { 0 } else { next };
        let is_believed = self.now_us <= BELIEVED_US_MAX && !planted(Fault::FenceByCountAlone);
        let id = if is_believed { self.now_us.max(next) } else { next };
        if id >= ID_MAX {
            return Err(Error::new(
                ErrorKind::CannotWrite,
                format!("the store has used up its fences: the last one is {}", self.last_id.get()),
            )
            .with_hint(
                "stop every gateway that uses the store, and move its files away; the next start \
                 makes a new one, whose fences are lower",
            ));
        }
        self.last_id.set(id);
        Ok(id)
    }

    pub(super) fn save_last_id(&self) -> Result<()> {
        if self.last_id.get() != self.stored_last_id {
            self.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'last_id'")?
                .execute([self.last_id.get()])?;
        }
        Ok(())
    }

    /// The anchor made in this transaction.
    pub(super) fn new_anchor(&self) -> Option<Arc<Anchor>> {
        self.new_anchor.borrow().clone()
    }

    pub(super) fn set_new_anchor(&self, anchor: Arc<Anchor>) {
        *self.new_anchor.borrow_mut() = Some(anchor);
    }

    /// Something of ours ended: drop our anchor if nothing relies on it any more.
    pub(crate) fn let_go_of_anchor(&self) {
        self.lets_go.set(true);
    }

    pub(super) fn lets_go(&self) -> bool {
        self.lets_go.get()
    }

    /// More is to be done than fits into one transaction, and nobody relies on it.
    pub(crate) fn leave(&self, rest: Rest) {
        self.rests.borrow_mut().push(rest);
    }

    /// Free anchors that nobody needs are removed after the commit: others wait for this one.
    pub(crate) fn remove_later(&self, sweep: Sweep) {
        self.garbage.borrow_mut().push(sweep);
    }

    pub(super) fn garbage(&self) -> Vec<Sweep> {
        self.garbage.take()
    }

    /// What changes if the store has gone back to what it was before; `event` is its newest.
    pub(crate) fn lineage(&self, event: Option<EventMark>) -> Result<Lineage> {
        let schema =
            self.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))?;
        Ok(Lineage {
            files: self.store.files.generation(),
            schema,
            rows_lost: self.rows_lost,
            last_id: self.stored_last_id,
            event,
        })
    }

    pub(super) fn rests(&self) -> Vec<Rest> {
        self.rests.take()
    }

    /// The anchors that owners of the store before this one still hold, although it was deleted or
    /// moved away together with them: nobody else can see those.
    pub(crate) fn lost_anchors(&self) -> Result<Vec<Orphan>> {
        let Some(lost) = &self.lost_owners else { return Ok(Vec::new()) };
        let (view, observer) = (self.store.view(), self.store.observer());
        let mut left = lost::lost_owners_of(lost);
        left.retain(|owner| !owner.has_let_go(view));
        if left.is_empty() {
            self.forget_lost_owners()?;
        }
        let others = left.into_iter().filter(|owner| !owner.is_us(observer));
        Ok(others.map(|owner| owner.anchor).collect())
    }

    /// Anchors that are held and that no row names.
    ///
    /// # Errors
    /// Where they may be about to be released. Then all is rolled back, and done again once that is
    /// known.
    pub(crate) fn check_settled(&self, found: &[Orphan]) -> Result<()> {
        if found.is_empty() || self.patience == Patience::Over {
            return Ok(());
        }
        let suspects = self.store.not_waited_for(found);
        if suspects.is_empty() {
            return Ok(());
        }
        *self.suspects.borrow_mut() = suspects;
        Err(Error::internal("an anchor without a record has to be looked at again"))
    }

    pub(super) fn meets_suspects(&self) -> bool {
        !self.suspects.borrow().is_empty()
    }

    pub(super) fn suspects(&self) -> Vec<String> {
        self.suspects.take()
    }

    /// They have let go, or a person does not care.
    pub(crate) fn forget_lost_owners(&self) -> Result<()> {
        self.execute("DELETE FROM meta WHERE key = 'lost_owners'", [])?;
        Ok(())
    }
}
