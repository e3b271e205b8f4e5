//! A keeper at work: it holds the anchor while it is needed, and follows its records into a store
//! that takes the place of theirs.
//!
//! In a new store, as for a `run`, rows that are there go on with its anchor; others are recorded
//! again, with their locks and their masked command line. What somebody else has by now is given
//! up, and with the last of it the anchor.
//!
//! What a keeper has not seen: it looks with each commit of ours, and once or twice a second, and a
//! copy of the store may be put over the same file in between. So a verb that is granted something
//! by a record with a keeper leaves the fence as the modification time of the anchor
//! (`note_grant`), after the commit and before it answers. A fence that neither the keeper nor the
//! store knows means that the store was put back to a time before that grant. Then the keeper holds
//! an anchor that no row names, which refuses everybody, until its process has ended.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::claim::{ATTEMPTS, Lookups, changes_too_fast};
use crate::clock::Deadline;
use crate::keeper::arrival::Arrival;
use crate::keeper::kept::{KeptRow, StoreLook};
use crate::keeper::pair::{KeeperEvent, KeeperInbox, Pair};
use crate::keeper::target::Target;
use crate::keeper::tenant;
use crate::keeper::tenant::{Ending, Gone, Standing, Tenant};
use crate::keeper::unused::{UNUSED_FOR_MAX, end_unused};
use crate::process::Anchor;
use crate::records::{instances, locks};
use crate::store::held::{Held, HeldOffice};
use crate::store::listener::Listener;
use crate::store::watcher::{Version, Watcher};
use crate::store::{AnchoredBy, OwnRow, ourselves};
use crate::sys::supervise;
use crate::{ErrorKind, Nonce, OpenOptions, Result, Store};

/// How often a keeper looks whether its records have ended, where nothing tells of commits; the end
/// of the process wakes it.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The same where it is told of them (`store/listener.rs`): others than ours tell of none.
const LOOK_EVERY_TOLD: Duration = Duration::from_secs(1);

/// A keeper with its process.
pub(crate) struct Keeping {
    options: OpenOptions,
    store: Store,
    target: Target,
    watcher: Option<Arc<Watcher>>,
    /// Tells the inbox of commits.
    listener: Option<Listener>,
    /// What the watcher said when all was seen.
    seen: Option<Version>,
    /// The rows on our anchor as they were last seen: what is claimed again in another store.
    kept: Vec<KeptRow>,
    pair: Pair,
    /// The last grant on our anchor that we have seen.
    grant_seen: Option<i64>,
    /// The first of our rows.
    since: i64,
    /// An older copy of the store was restored, which lacks a grant that we have not seen either:
    /// we hold the anchor, which keeps everybody out, for as long as our process lives.
    is_orphan: bool,
    /// A further anchor for that, where rows of the copy name ours.
    nameless: Option<Anchor>,
    /// Where our process is not to act without its office.
    tenant: Option<Tenant>,
    /// It is being ended.
    ending: Option<Ending>,
}

impl Keeping {
    /// `words` are the arguments of this keeper, without its verb.
    pub(crate) fn new(
        options: OpenOptions,
        store: Store,
        target: Target,
        words: Vec<OsString>,
    ) -> Self {
        let mut pair = Pair::new(KeeperInbox::new(&target.handle), words);
        // Whoever stops the service that we were started in does not wait for us.
        pair.follow(target.pid);
        // Before anybody hears of the record: its store, or one of us, may be gone a moment later.
        let mut keeping = Self::with(options, store, target, pair);
        keeping.complete_pair();
        keeping
    }

    fn with(options: OpenOptions, store: Store, target: Target, pair: Pair) -> Self {
        let mut keeping = Self {
            options,
            store,
            target,
            watcher: None,
            listener: None,
            seen: None,
            kept: Vec::new(),
            pair,
            grant_seen: None,
            since: 0,
            is_orphan: false,
            nameless: None,
            tenant: None,
            ending: None,
        };
        keeping.watch();
        if let Ok(kept) = keeping.store.inner.read(|connection| keeping.rows(connection)) {
            keeping.since = kept.iter().map(|it| it.record.id.as_i64()).min().unwrap_or(0);
            keeping.kept = kept;
        }
        keeping
    }

    /// Goes on where the first keeper was killed, with the anchor `name`, which is open as `file`.
    /// `None` when its process ended before the store could be opened.
    pub(crate) fn take_over(
        options: OpenOptions,
        target: Target,
        mut pair: Pair,
        name: &str,
        file: File,
    ) -> Option<Self> {
        let store = loop {
            match options.open() {
                Ok(store) => break store,
                Err(error) => tracing::debug!(%error, "the store cannot be opened yet"),
            }
            let _ = pair.inbox.next(LOOK_EVERY);
            if target.handle.has_ended() {
                return None;
            }
            pair.complete_again();
        };
        let anchors = store.inner.location.anchors.clone();
        store.inner.inherit(Anchor::inherited(&anchors, name, file));
        let mut keeping = Self::with(options, store, target, pair);
        // What the first one knew is lost with it: without its rows we know nothing. A grant that
        // the store does not know any more may have ended long ago; one that it is not far enough
        // for was lost.
        keeping.is_orphan = keeping.kept.is_empty() && !keeping.has_ended_rows();
        let inner = &keeping.store.inner;
        if let Some(anchor) = inner.own_anchor()
            && let Some(grant) = anchor.last_grant()
            && inner.read(|connection| locks::is_drawn(connection, grant)).unwrap_or(false)
        {
            keeping.grant_seen = Some(grant);
        }
        keeping.complete_pair();
        Some(keeping)
    }

    /// Ends the process with its office, and says how it ended.
    pub(crate) fn of_tenant(mut self, tenant: Option<Tenant>) -> Self {
        self.tenant = tenant;
        self
    }

    /// Whether the store knows our anchor, and nobody needs it any more.
    fn has_ended_rows(&self) -> bool {
        let inner = &self.store.inner;
        let Some(anchor) = inner.own_anchor() else { return false };
        inner.read(|connection| ourselves::names_anchor(connection, anchor.name())).unwrap_or(false)
    }

    /// Sees to it that there are two of us, and that the rows say so.
    fn complete_pair(&mut self) {
        let Some(anchor) = self.store.inner.own_anchor() else { return };
        let has_changed = self.pair.complete(&anchor);
        let (first, second) = (Some(std::process::id()), self.pair.second_pid());
        let is_on_record = self.kept.iter().all(|KeptRow { record, .. }| {
            record.keeper_pid == first && record.identity.keeper2_pid == second
        });
        if (has_changed || !is_on_record) && !self.kept.is_empty() {
            let inner = &self.store.inner;
            if let Err(error) = inner.write(|tx| self.pair.record(inner, tx)) {
                tracing::debug!(%error, "the two keepers are not on record");
            }
        }
    }

    /// Our service manager ends us, and may not find us where it looks for our process: whoever
    /// cannot look that one up must not take our end for its. True when that is on record.
    fn ends_alone(&self) -> bool {
        if supervise::follow_to_cgroup(self.target.pid) {
            return false;
        }
        let inner = &self.store.inner;
        let Some(anchor) = inner.own_anchor() else { return true };
        let recorded = inner.write(|tx| instances::keepers_end(tx, anchor.name()));
        recorded.is_ok()
    }

    /// Holds the anchor until the process has ended, or its last record.
    pub(crate) fn keep(mut self) {
        let mut unused_until = Deadline::after(UNUSED_FOR_MAX);
        loop {
            let is_told = self.listener.as_ref().is_some_and(Listener::hears);
            let most = if is_told { LOOK_EVERY_TOLD } else { LOOK_EVERY };
            let wait = self.ending.as_ref().map_or(most, |it| it.look_after(most));
            let event = self.pair.inbox.next(wait);
            // One that is not needed for long does without.
            if let (None, None, Some(watcher)) = (event, &self.listener, &self.watcher) {
                self.listener =
                    Listener::start(watcher, || LOOK_EVERY, self.pair.inbox.on_commit());
            }
            if self.target.handle.has_ended() {
                // Nobody is kept out while the kernel is asked.
                let inner = &self.store.inner;
                inner.unlock_anchor();
                self.nameless = None;
                let gone = Gone { target: &self.target, seen_at_ms: inner.clock().wall_ms() };
                if self.tenant.is_some() {
                    gone.record_end(inner, &self.kept);
                } else {
                    gone.note_end(inner, &self.kept);
                }
                return;
            }
            // Nobody else would end it.
            let is_asked = event == Some(KeeperEvent::AskedToEnd) && self.ending.is_none();
            if is_asked && self.ends_alone() {
                return;
            }
            self.complete_pair();
            self.pair.follow(self.target.pid);
            if let Some(ending) = &self.ending {
                ending.go_on(&self.target);
                continue;
            }
            if self.is_orphan {
                continue;
            }
            // The files first: what of them is mapped may be no more.
            let is_in_place = self.store.inner.is_in_place();
            let version = self.watcher.as_ref().and_then(|watcher| watcher.version().ok());
            let is_quiet = is_in_place && version.is_some() && version == self.seen;
            if is_quiet && !unused_until.has_passed() {
                continue;
            }
            if unused_until.has_passed() {
                unused_until = Deadline::after(UNUSED_FOR_MAX);
                if let Err(error) = end_unused(&self.store.inner) {
                    tracing::debug!(%error, "cannot look for rows that nobody uses");
                }
            }
            self.seen = version;
            // A store that cannot be read, or is gone, ends no record: the process still lives.
            if let Err(error) = self.look().and_then(|()| self.look_at_tenant()) {
                tracing::debug!(%error, "cannot look at the records");
                self.seen = None;
            } else if self.kept.is_empty() && !self.is_orphan && self.ending.is_none() {
                if self.let_go() {
                    return;
                }
            } else {
                self.complete_pair();
            }
        }
    }

    /// Looks whether our process may go on, where it acts only while it has its office.
    fn look_at_tenant(&mut self) -> Result<()> {
        let Some(tenant) = &mut self.tenant else { return Ok(()) };
        let (inner, target) = (&self.store.inner, &self.target);
        let standing = inner.read(|file| tenant.standing(file, inner.observer(), target))?;
        self.heed(standing);
        Ok(())
    }

    fn heed(&mut self, standing: Standing) {
        match (standing, &self.tenant) {
            (Standing::NotOurs, _) => self.tenant = None,
            (Standing::Lost, Some(tenant)) if self.ending.is_none() => {
                self.ending = Some(Ending::begin(&self.target, tenant.budget));
            }
            (Standing::Held | Standing::NotOnRecord | Standing::Lost, _) => {}
        }
    }

    /// Opens a connection that goes on reading the file and its WAL when both are gone: SQLite
    /// opens them with the first question.
    fn watch(&mut self) {
        self.listener = None;
        self.watcher = Watcher::new(&self.store.inner).ok().map(Arc::new);
        if let Some(Err(error)) = self.watcher.as_ref().map(|watcher| watcher.version()) {
            tracing::debug!(%error, "cannot watch the store");
        }
    }

    /// Looks which rows rely on us, in whatever store is there now.
    fn look(&mut self) -> Result<()> {
        let inner = &self.store.inner;
        let last_grant = inner.own_anchor().and_then(|anchor| anchor.last_grant());
        // What was granted before is none of ours: a time that something else has set.
        let last_grant = last_grant.filter(|grant| *grant >= self.since);
        let is_new = |grant: &i64| {
            self.grant_seen != Some(*grant) && !self.kept.iter().any(|kept| kept.has_grant(*grant))
        };
        let unseen = last_grant.filter(is_new);
        let seen = inner.read(|connection| {
            if let Some(grant) = unseen
                && !locks::was_granted(connection, grant)?
            {
                return Ok(StoreLook::LacksAGrant);
            }
            for kept in &self.kept {
                if kept.is_missing(connection)? {
                    return Ok(StoreLook::IsOlder);
                }
            }
            Ok(StoreLook::Rows(self.rows(connection)?))
        });
        match seen {
            Ok(StoreLook::Rows(kept)) => {
                self.kept = kept;
                self.grant_seen = last_grant.or(self.grant_seen);
            }
            Ok(StoreLook::LacksAGrant) => return self.keep_everybody_out(),
            Ok(StoreLook::IsOlder) => return self.follow(None),
            Err(error) if error.kind() == ErrorKind::StoreReplaced || !inner.is_in_place() => {
                return self.follow(last_grant);
            }
            Err(error) => return Err(error),
        }
        match inner.own_anchor() {
            Some(anchor) if !self.kept.is_empty() && !anchor.is_in_place() => {
                inner.write(|tx| inner.anchor(tx).map(drop))?;
                self.kept = inner.read(|connection| self.rows(connection))?;
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// An anchor that no row names refuses every claim: ours, if the copy knows none of our rows.
    fn keep_everybody_out(&mut self) -> Result<()> {
        let inner = &self.store.inner;
        self.nameless = inner.write(|tx| {
            let is_named = match inner.own_anchor() {
                Some(anchor) => ourselves::live_on_anchor(tx, anchor.name())? > 0,
                None => true,
            };
            if !is_named {
                return Ok(None);
            }
            let place = &inner.location;
            Anchor::create(&place.file, &place.anchors, inner.store_uuid()?).map(Some)
        })?;
        self.is_orphan = true;
        Ok(())
    }

    /// The live rows on our anchor.
    fn rows(&self, connection: &Connection) -> Result<Vec<KeptRow>> {
        let inner = &self.store.inner;
        let Some(anchor) = inner.own_anchor() else { return Ok(Vec::new()) };
        let Target { pid, start_time, .. } = self.target;
        instances::live_of_pid(connection, pid, start_time, inner.observer())?
            .into_iter()
            .filter(|record| record.anchor.as_deref() == Some(anchor.name()))
            .map(|record| {
                let locks = locks::of_instance(connection, record.id)?;
                Ok(KeptRow { record, locks })
            })
            .collect()
    }

    /// Decided inside the transaction, where no verb can lean on the anchor any more.
    fn let_go(&self) -> bool {
        let inner = &self.store.inner;
        let let_go = inner.write(|tx| {
            tx.let_go_of_anchor();
            Ok(())
        });
        let_go.is_ok() && inner.own_anchor().is_none()
    }

    /// The store was deleted, replaced or restored: goes on in the one that is there now, with the
    /// same anchor. As a `run` does, it makes one where there is none: who cannot see us (of
    /// another user, in another namespace) would make it without knowing that our process lives.
    /// What somebody else has got there is theirs.
    ///
    /// `last_grant` is in the file that was lost, as far as that is another one than the one there
    /// now.
    fn follow(&mut self, last_grant: Option<i64>) -> Result<()> {
        if let (Some(watcher), Some(tenant)) = (&self.watcher, &mut self.tenant) {
            let observer = self.store.inner.observer();
            let told = watcher.with(|file| tenant.standing(file, observer, &self.target));
            if let Ok(standing) = told {
                self.heed(standing);
            }
        }
        if self.take_last_look() {
            self.grant_seen = last_grant.or(self.grant_seen);
            // It has told what it knows, and would stand in the way of the next store.
            self.listener = None;
            self.watcher = None;
        }
        self.note_what_is_held()?;
        let store = self.options.open()?;
        let mut aside = Lookups::default();
        for _ in 0..ATTEMPTS + self.kept.len() {
            let arrival = Arrival {
                target: &self.target,
                tenant: self.tenant.as_ref(),
                aside: &aside,
                errand: Cell::default(),
                is_refused: Cell::default(),
            };
            let arrived = store.inner.write(|tx| arrival.arrive(tx, &store.inner, &self.kept));
            if let Some(errand) = arrival.errand.take() {
                aside.run(errand, Deadline::never(), store.inner.trust())?;
                continue;
            }
            arrived?;
            let is_refused = arrival.is_refused.get();
            // The lock goes with the handle before, unless a row relies on it now.
            self.store = store;
            self.seen = None;
            self.watch();
            let now = self.store.inner.read(|connection| self.rows(connection))?;
            let before = std::mem::replace(&mut self.kept, now);
            self.settle_tenant(&before, is_refused);
            return Ok(());
        }
        Err(changes_too_fast(&self.store.path().display()))
    }

    /// Our process goes on in this store, or has to end: not all was granted that it needs.
    fn settle_tenant(&mut self, before: &[KeptRow], is_refused: bool) {
        let Some(tenant) = &mut self.tenant else { return };
        let before = before.iter().find(|it| it.record.id == tenant.instance);
        let Some(before) = before else { return };
        if is_refused {
            let (inner, target) = (&self.store.inner, &self.target);
            let goes_on = inner.read(|connection| {
                tenant::goes_on_by_itself(connection, inner.observer(), target, &before.record)
            });
            // Two owners are worse than one that is ended in doubt.
            let is_lost = !goes_on.unwrap_or(false);
            self.heed(if is_lost { Standing::Lost } else { Standing::NotOurs });
            return;
        }
        let is_it = |now: &&KeptRow| {
            now.record.is_in_place() && now.record.office() == before.record.office()
        };
        if let Some(now) = self.kept.iter().find(is_it) {
            tenant.go_on_as(before, now);
            self.pair.pass_on(tenant);
        }
    }

    /// What became of our rows before their store was gone, as far as its file still tells: we look
    /// at it now and then only. What it does not know, or cannot tell, is as it was. Whether it
    /// could tell.
    fn take_last_look(&mut self) -> bool {
        let Some(watcher) = &self.watcher else { return false };
        let rows = watcher.with(|connection| self.rows(connection));
        let could_tell = rows.is_ok();
        let rows = rows.unwrap_or_default();
        self.kept.retain(|kept| {
            let is_again = rows.iter().any(|row| row.record.id == kept.record.id);
            let find = || watcher.with(|connection| kept.find(connection));
            let has_ended = || matches!(find(), Ok(Some(it)) if !it.is_live());
            !is_again && !has_ended()
        });
        self.kept.extend(rows);
        could_tell
    }

    /// Those who lost the store together with us are in nobody's way for what each of them held.
    fn note_what_is_held(&self) -> Result<()> {
        let mut held = Held::default();
        for KeptRow { record, locks } in &self.kept {
            if let Some(office) = record.office() {
                let row = OwnRow {
                    instance: record.id,
                    nonce: Nonce::random()?,
                    anchored_by: AnchoredBy::Us,
                };
                held.offices.insert(office, HeldOffice { row, claims: 1, beside: None });
            }
            for row in locks {
                held.hold(&row.name, row.slot, row.instance, row.fence);
            }
        }
        *self.store.inner.held.lock() = held;
        Ok(())
    }
}
