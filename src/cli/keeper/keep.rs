//! A keeper at work: it holds the anchor while it is needed, and follows its records into a store that
//! takes the place of theirs.

use rusqlite::Connection;

use super::{LOOK_EVERY, Recorder, Target, UNUSED_FOR_MAX, attachment, end_unused};
use crate::claimant::{ATTEMPTS, Aside, Claimant, Count, Errand, changes_too_fast, is_held};
use crate::clock::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::holder::{Holder, ORPHANED_ANCHOR};
use crate::instance::{self, Origin, Record, Subject};
use crate::liveness::Lease;
use crate::lock_table::{self, LockRow};
use crate::names::{Nonce, Office, Secret};
use crate::office::{Candidate, Outcome, claim_once};
use crate::scoped::{Acquired, LockClaim, LockRequest, Owner, acquire_once};
use crate::store::{Held, HeldOffice, Inner, OpenOptions, OwnRow, Store, Tx, lock};
use crate::wait::{Stopped, data_version};

/// A keeper with its process.
pub(super) struct Keeping {
    options: OpenOptions,
    store: Store,
    target: Target,
    watcher: Option<Connection>,
    /// What the watcher said when all was seen.
    seen: Option<i64>,
    /// The rows on our anchor as they were last seen: what is claimed again in another store.
    kept: Vec<Kept>,
}

/// A row on our anchor, and the locks that were taken from it.
#[derive(Clone)]
struct Kept {
    record: Record,
    locks: Vec<LockRow>,
}

impl Keeping {
    pub(super) fn new(options: OpenOptions, store: Store, target: Target) -> Self {
        let mut keeping =
            Self { options, store, target, watcher: None, seen: None, kept: Vec::new() };
        // Before anybody hears of the record: its store may be gone a moment later.
        keeping.watch();
        if let Ok(kept) = keeping.store.inner.read(|connection| keeping.rows(connection)) {
            keeping.kept = kept;
        }
        keeping
    }

    /// Holds the anchor until the process has ended, or its last record.
    pub(super) fn keep(mut self) {
        let mut unused_until = Deadline::after(UNUSED_FOR_MAX);
        while !self.target.handle.wait_ended(LOOK_EVERY) {
            let version = self.watcher.as_ref().and_then(|watcher| data_version(watcher).ok());
            let is_quiet =
                version.is_some() && version == self.seen && self.store.inner.is_at_its_path();
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
            if let Err(error) = self.look() {
                tracing::debug!(%error, "cannot look at the records");
                self.seen = None;
            } else if self.kept.is_empty() && self.let_go() {
                return;
            }
        }
    }

    /// Opens a connection that goes on reading the file and its WAL when both are gone: SQLite opens
    /// them with the first question.
    fn watch(&mut self) {
        self.watcher = self.store.inner.watcher().ok();
        if let Some(Err(error)) = self.watcher.as_ref().map(data_version) {
            tracing::debug!(%error, "cannot watch the store");
        }
    }

    /// Looks which rows rely on us, in whatever store is there now.
    fn look(&mut self) -> Result<()> {
        let inner = &self.store.inner;
        let seen = inner.read(|connection| {
            let lost = self.kept.iter().map(|kept| Ok(kept.find(connection)?.is_none()));
            let has_lost = lost.collect::<Result<Vec<_>>>()?.contains(&true);
            Ok((!has_lost).then_some(self.rows(connection)?))
        });
        match seen {
            Ok(Some(kept)) => self.kept = kept,
            // Rows are not deleted while they live: it is an older copy of the store.
            Ok(None) => return self.follow(),
            Err(error) if error.kind() == ErrorKind::StoreReplaced || !inner.is_at_its_path() => {
                return self.follow();
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

    /// The live rows on our anchor.
    fn rows(&self, connection: &Connection) -> Result<Vec<Kept>> {
        let inner = &self.store.inner;
        let Some(anchor) = inner.own_anchor() else { return Ok(Vec::new()) };
        let Target { pid, start_time, .. } = self.target;
        instance::live_of_pid(connection, pid, start_time, inner.observer())?
            .into_iter()
            .filter(|record| record.anchor.as_deref() == Some(anchor.name()))
            .map(|record| {
                let locks = lock_table::of_instance(connection, record.id)?;
                Ok(Kept { record, locks })
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

    /// The store was deleted, replaced or restored: goes on in the one that is there now, with the same
    /// anchor. As a `run` does, it makes one where there is none: who cannot see us (of another user, in
    /// another namespace) would make it without knowing that our process lives. What somebody else has
    /// got there is theirs.
    fn follow(&mut self) -> Result<()> {
        self.take_last_look();
        self.note_what_is_held()?;
        let store = self.options.open()?;
        let mut aside = Aside::default();
        for _ in 0..ATTEMPTS + self.kept.len() {
            let mut arrival = Arrival { target: &self.target, aside: &aside, errand: None };
            let arrived = store.inner.write(|tx| arrival.arrive(tx, &store.inner, &self.kept));
            if let Some(errand) = arrival.errand {
                aside.run(errand, Deadline::never());
                continue;
            }
            arrived?;
            // The lock goes with the handle before, unless a row relies on it now.
            self.store = store;
            self.seen = None;
            self.watch();
            self.kept = self.store.inner.read(|connection| self.rows(connection))?;
            return Ok(());
        }
        Err(changes_too_fast(&self.store.path().display()))
    }

    /// What became of our rows before their store was gone, as far as its file still tells: we look at it
    /// twice a second only. What it does not know, or cannot tell, is as it was.
    fn take_last_look(&mut self) {
        let Some(watcher) = &self.watcher else { return };
        let rows = self.rows(watcher).unwrap_or_default();
        self.kept.retain(|kept| {
            let is_again = rows.iter().any(|row| row.record.id == kept.record.id);
            let has_ended =
                || matches!(kept.find(watcher), Ok(Some(it)) if it.ended_at_ms.is_some());
            !is_again && !has_ended()
        });
        self.kept.extend(rows);
    }

    /// Those who lost the store together with us are in nobody's way for what each of them held.
    fn note_what_is_held(&self) -> Result<()> {
        let mut held = Held::default();
        for Kept { record, locks } in &self.kept {
            if let Some(office) = record.office() {
                let row = OwnRow { instance: record.id, nonce: Nonce::random()? };
                held.offices.insert(office, HeldOffice { row, claims: 1 });
            }
            for row in locks {
                held.hold(&row.name, row.instance, row.fence);
            }
        }
        *lock(&self.store.inner.held) = held;
        Ok(())
    }
}

impl Kept {
    /// The row itself, live or ended; `None` in a store that does not have it.
    fn find(&self, connection: &Connection) -> Result<Option<Record>> {
        let found = instance::by_id(connection, self.record.id)?;
        Ok(found.filter(|record| record.nonce_hash == self.record.nonce_hash))
    }
}

/// One transaction in the new store: all that was kept, or nothing yet.
struct Arrival<'a> {
    target: &'a Target,
    aside: &'a Aside,
    /// What has to be done first, outside of it.
    errand: Option<Errand>,
}

impl Arrival<'_> {
    fn arrive(&mut self, tx: &Tx<'_>, inner: &Inner, kept: &[Kept]) -> Result<()> {
        for kept in kept {
            match kept.find(tx)? {
                Some(record) if record.ended_at_ms.is_some() => {}
                Some(record) => {
                    if !record.anchor.as_deref().is_some_and(|anchor| is_held(inner, anchor)) {
                        let anchor = inner.anchor(tx)?;
                        instance::set_anchor(tx, record.id, &record.nonce_hash, anchor.name())?;
                    }
                    self.acquire(tx, inner, kept, true)?;
                }
                None => match kept.record.office() {
                    Some(office) => self.claim(tx, inner, kept, &office)?,
                    None => self.acquire(tx, inner, kept, false)?,
                },
            }
        }
        // It was only lent by the handle of the other store.
        if let Some(anchor) = inner.own_anchor()
            && instance::live_on_anchor(tx, anchor.name())? > 0
        {
            inner.anchor(tx)?;
        }
        Ok(())
    }

    fn claim(&mut self, tx: &Tx<'_>, inner: &Inner, kept: &Kept, office: &Office) -> Result<()> {
        let mut subject =
            Subject::process(self.target.pid, self.target.start_time, inner.observer());
        // An identity may stand in it that was known when the row was made, and is not known to us.
        subject.argv.clone_from(&kept.record.argv);
        let candidate = Candidate::by_pid(office, None, &subject);
        let Some(attachment) = attachment(tx, inner, &subject, Recorder::Keeper)? else {
            return Ok(());
        };
        match claim_once(tx, inner, &candidate, &attachment, self.aside, Count::No)? {
            Outcome::Granted(_) | Outcome::AlreadyRecorded(_) => Ok(()),
            Outcome::Held(obstacle) => give_up(&obstacle.holder),
            Outcome::Errand(errand) => Err(self.interrupted(errand)),
        }
    }

    /// Acquires the locks again that were not let go since.
    fn acquire(&mut self, tx: &Tx<'_>, inner: &Inner, kept: &Kept, has_row: bool) -> Result<()> {
        let Record { id, uid, argv, party, supervisor, profile, .. } = &kept.record;
        // The command line as it was recorded, for the same reason.
        let Target { pid, start_time, .. } = *self.target;
        let mut subject = Subject::told(pid, start_time, *uid, argv.clone());
        subject.party.clone_from(party);
        subject.supervisor = supervisor.clone().unwrap_or(subject.supervisor);
        let mut owner = has_row.then_some(*id);
        for row in &kept.locks {
            if !is_to_be_acquired(tx, inner, row)? {
                continue;
            }
            let request = LockRequest {
                name: row.name.clone(),
                identity: Secret::of(b""),
                metadata: row.metadata.clone(),
                ttl_ms: row.ttl_ms,
            };
            let claim = LockClaim {
                requests: &[request],
                claimant: Claimant { origin: Origin::Pid, subject: &subject },
                profile: profile.as_ref(),
                ours: owner.as_slice(),
                stopped: Stopped::Respect,
                waiter: None,
            };
            let attachment = attachment(tx, inner, &subject, Recorder::Keeper)?;
            let from = match (owner, &attachment) {
                (Some(owner), _) => Owner::Row(owner),
                (None, Some(attachment)) => Owner::New(attachment),
                (None, None) => return Ok(()),
            };
            match acquire_once(tx, inner, &claim, from, None, self.aside, Count::No)? {
                Acquired::Granted(granted, _) => owner = granted.first().map(|it| it.instance),
                Acquired::Held(obstacle) => give_up(&obstacle.holder)?,
                Acquired::Errand(errand) => return Err(self.interrupted(errand)),
            }
        }
        Ok(())
    }

    fn interrupted(&mut self, errand: Errand) -> Error {
        self.errand = Some(errand);
        Error::internal("something has to be done before the records can be made again")
    }
}

/// Whether a lock of the store before is still wanted here, and not there already.
fn is_to_be_acquired(tx: &Tx<'_>, inner: &Inner, row: &LockRow) -> Result<bool> {
    let is_over = row.lease(inner.observer(), inner.clock().boot_ms()) == Lease::Expired;
    let is_there = lock_table::by_name(tx, &row.name)?.is_some_and(|it| it.fence == row.fence);
    // Let go in a store that was recovered, before we came.
    let was_let_go = lock_table::how_it_ended(tx, row.instance, row.fence)?.is_some();
    Ok(!is_over && !is_there && !was_let_go)
}

/// Whoever holds it was faster. One who lost its store as well may only be about to come.
fn give_up(holder: &Holder) -> Result<()> {
    if holder.reason == ORPHANED_ANCHOR {
        return Err(Error::new(ErrorKind::Busy, holder.to_string()));
    }
    tracing::debug!(%holder, "is given up: the store was replaced, and somebody else has it now");
    Ok(())
}
