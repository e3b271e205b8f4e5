//! Ends dead owners that nobody claims from, and looks for anchors that no row accounts for.

use std::collections::HashSet;

use crate::clock;
use crate::environment::{Fault, planted};
use crate::liveness::Ruling;
use crate::owner::{ending, judge, judgement};
use crate::process::anchor::accounted::EventMark;
use crate::process::anchor::sweep;
use crate::process::anchor::sweep::{OnRecord, Place, Sweep};
use crate::records::{EventRecord, Record, events, instances, locks};
use crate::store::held::Share;
use crate::store::{Inner, Tx, ourselves};
use crate::{Holder, Result, Wanted};

/// Which anchors are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Those that this handle does not know yet (`process/anchor/accounted.rs`).
    Unknown,
    /// All of them: a person asks.
    All,
}

/// Looks for anchors without a row: orphans stand in the way of what is `wanted`, garbage is
/// collected. What a row that is live when this is asked leans on is neither.
///
/// A process that goes on from a store that was replaced meets the anchors of those who were in it,
/// too. What it held there, none of them can hold; of anything else they may be the owners.
pub(crate) fn sweep(
    tx: &Tx<'_>,
    inner: &Inner,
    extent: Extent,
    wanted: impl IntoIterator<Item = Share>,
) -> Result<Sweep> {
    let own = inner.own_anchor();
    let lost_store = match &own {
        Some(own) => {
            let has_now = |what: &Wanted| slots_on(tx, own.name(), what);
            if inner.held_before.has_all(wanted, has_now)? { own.store_id() } else { None }
        }
        None => None,
    };
    let place = Place {
        directory: &inner.location.anchors,
        store_id: inner.store_uuid()?,
        own: own.as_ref().map(|anchor| anchor.name()),
        lost_store,
    };
    let mut accounted = inner.accounted.lock();
    if extent == Extent::All {
        accounted.forget_all();
    }
    if tx.prunes() {
        accounted.forget_some();
    }
    // Elsewhere the times of a directory may be what another kernel says.
    let now = inner.view().is_local.then(clock::unix_time);
    let has = |event: &EventMark| events::is_there(tx, event);
    let lineage = tx.lineage(events::newest_mark(tx)?)?;
    let names = accounted.unknown(place.directory, lineage, has, now)?;
    let rows = Rows::of(tx, names.len())?;
    let mut sweep = sweep::sweep(place, names, &rows, &mut accounted)?;
    drop(accounted);
    tx.check_settled(&sweep.orphans)?;
    if lost_store.is_none() {
        sweep.orphans.extend(tx.lost_anchors()?);
    }
    if planted(Fault::OrphansIgnored) {
        sweep.orphans.clear();
    }
    Ok(sweep)
}

/// What the rows say of anchors.
struct Rows<'a> {
    tx: &'a Tx<'a>,
    /// All that live rows lean on, where many are asked for.
    live: Option<HashSet<String>>,
}

impl<'a> Rows<'a> {
    /// A process that has just begun knows none; then one look at all takes less than one at each.
    fn of(tx: &'a Tx<'a>, count: usize) -> Result<Self> {
        const MANY: usize = 32;
        let live = if count > MANY { Some(tx.named_anchors()?) } else { None };
        Ok(Self { tx, live })
    }
}

impl OnRecord for Rows<'_> {
    fn is_live(&self, name: &str) -> Result<bool> {
        match &self.live {
            Some(live) => Ok(live.contains(name)),
            None => ourselves::is_live_anchor(self.tx, name),
        }
    }

    fn is_known(&self, name: &str) -> Result<bool> {
        ourselves::names_anchor(self.tx, name)
    }

    fn is_known_since(&self, name: &str, fence: i64) -> Result<bool> {
        instances::names_anchor_since(self.tx, name, fence)
    }
}

/// How many slots of a lock are held by rows that lean on this anchor.
fn slots_on(tx: &Tx<'_>, anchor: &str, what: &Wanted) -> Result<usize> {
    let mut count = 0;
    if let Wanted::Lock(name) = what {
        for row in locks::slots_of(tx, name)? {
            let owner = instances::by_id(tx, row.instance)?.filter(Record::is_live);
            count += usize::from(owner.is_some_and(|it| it.anchor.as_deref() == Some(anchor)));
        }
    }
    Ok(count)
}

/// What came of looking for anchors that stand in the way without a record.
#[derive(Debug)]
pub(crate) enum Orphans {
    None,
    Refused(Box<Holder>),
    Removed(usize),
}

/// Nobody is on record, yet an anchor without a record may refuse every claim: there is a way out
/// of that as well, if a person says so.
pub(crate) fn evict_orphans(
    tx: &Tx<'_>,
    inner: &Inner,
    wanted: &Wanted,
    force: Force,
    by: &str,
) -> Result<Orphans> {
    let sweep = sweep(tx, inner, Extent::All, [Share::whole(wanted.clone())])?;
    let Some(orphan) = sweep.orphans.first() else { return Ok(Orphans::None) };
    if force == Force::No {
        return Ok(Orphans::Refused(Box::new(Holder::orphan(wanted.clone(), orphan.pid))));
    }
    sweep.remove_orphans(&inner.location.anchors)?;
    tx.forget_lost_owners()?;
    let office = match wanted {
        Wanted::Office(office) => Some(office),
        Wanted::Lock(_) => None,
    };
    tx.record(&EventRecord {
        event: "orphans_evicted",
        office,
        detail: Some(serde_json::json!({
            "by": by,
            "anchors": sweep.orphans.iter().map(|orphan| &orphan.name).collect::<Vec<_>>(),
        })),
        ..EventRecord::default()
    })?;
    Ok(Orphans::Removed(sweep.orphans.len()))
}

/// After a grant: collects anchors that nobody uses, and ends the rows of processes without an
/// office that died. Nobody else would.
pub(crate) fn tidy(tx: &Tx<'_>, inner: &Inner, sweep: Sweep) -> Result<()> {
    tx.remove_later(sweep);
    let death = |record: &Record| match judgement(inner, record).ruling {
        Ruling::Dead(reason) => Some(reason),
        Ruling::Alive(_) | Ruling::Unknown(_) => None,
    };
    ending::sweep_without_office(tx, death, |anchor| judge::is_held(inner, anchor))?;
    if tx.prunes() {
        instances::prune_without_office(tx, |anchor| judge::is_held(inner, anchor))?;
    }
    Ok(())
}

/// Whether to end a record whose owner is not known to be dead. No process is signalled either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Only the dead.
    No,
    /// Whoever it is: a person has decided.
    Yes,
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::path::Path;

    use rusqlite::Connection;
    use rusqlite::backup::Backup;

    use super::*;
    use crate::process::Anchor;
    use crate::process::anchor;
    use crate::store::{Store, tally};
    use crate::{Claim, Reason};

    /// A process of another office, with the row that its anchor is on record by.
    fn other(store: &Store, number: i64) -> Anchor {
        let anchor = without_row(store);
        record(store, &anchor, number);
        anchor
    }

    fn without_row(store: &Store) -> Anchor {
        let inner = &store.inner;
        let place = &inner.location;
        Anchor::create(&place.file, &place.anchors, inner.store_uuid().unwrap()).unwrap()
    }

    fn record(store: &Store, anchor: &Anchor, number: i64) {
        let insert = |tx: &Tx<'_>| {
            tx.execute(
                "INSERT INTO instances (id, nonce_hash, profile, kind, origin, pid, stop_budget_ms,
                     anchor, started_at_ms)
                 VALUES (?1, hex(?1), 'other-' || ?1, 'gateway', 'library', 1, 1, ?2, 1)",
                (number, anchor.name()),
            )?;
            Ok(())
        };
        store.inner.write(insert).unwrap();
    }

    /// Who refuses a claim, `None` for nobody.
    fn refused(store: &Store) -> Option<Reason> {
        match store.profile("mine").unwrap().claim().unwrap() {
            Claim::Granted(tenure) => {
                tenure.release().unwrap();
                None
            }
            Claim::Held(holder) => Some(holder.reason),
        }
    }

    fn copy(from: &Path, to: &Path) {
        let from = Connection::open(from).unwrap();
        let mut to = Connection::open(to).unwrap();
        let backup = Backup::new(&from, &mut to).unwrap();
        backup.run_to_completion(1_000, std::time::Duration::ZERO, None).unwrap();
    }

    /// What this handle knows of an anchor is of the store as it was. Whatever takes the row of an
    /// owner away makes that an orphan, for a handle that knew it as for any other.
    #[test]
    fn an_owner_that_was_known_is_an_orphan_once_its_row_is_lost() {
        type Loss = fn(&Store, &Anchor, &Path);
        let losses: [(&str, Loss); 6] = [
            ("a copy of before is restored by SQLite", |store, _, before| {
                copy(before, store.path());
            }),
            (
                "a copy is written over it after a checkpoint, and an id is drawn",
                |store, _, before| {
                    let connection = Connection::open(store.path()).unwrap();
                    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
                    std::fs::write(store.path(), std::fs::read(before).unwrap()).unwrap();
                    let sql = "UPDATE meta SET value = 4000000000000000 WHERE key = 'last_id'";
                    assert_eq!(connection.execute(sql, []).unwrap(), 1);
                },
            ),
            ("its row is replaced by hand", |store, _, _| {
                let connection = Connection::open(store.path()).unwrap();
                let sql = "INSERT OR REPLACE INTO instances (id, nonce_hash, profile, kind, origin,
                        pid, stop_budget_ms, anchor, started_at_ms)
                    SELECT id, 'other', profile, kind, origin, pid, stop_budget_ms, 'other', 1
                    FROM instances WHERE profile = 'other-7'";
                assert_eq!(connection.execute(sql, []).unwrap(), 1);
            }),
            ("its row is deleted by hand", |store, anchor, _| {
                let connection = Connection::open(store.path()).unwrap();
                let sql = "DELETE FROM instances WHERE anchor = ?1";
                assert_eq!(connection.execute(sql, [anchor.name()]).unwrap(), 1);
            }),
            ("a copy of before the handover is restored", |store, anchor, before| {
                // On record in the copy, by its predecessor.
                copy(store.path(), before);
                record(store, anchor, 4_000_000_000_000_000);
                let anchors = &store.inner.location.anchors;
                anchor::note_handover(anchors, anchor.name(), 4_000_000_000_000_000);
                assert_eq!(refused(store), None, "on record");
                copy(before, store.path());
            }),
            ("its anchor is made without a row", |store, _, _| {
                std::mem::forget(without_row(store));
            }),
        ];
        for (how, lose) in losses {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(directory.path().join("state.db")).unwrap();
            let before = directory.path().join("before.db");
            copy(store.path(), &before);
            let anchor = other(&store, 7);
            for _ in 0..3 {
                // The directory is listed no more then.
                std::thread::sleep(std::time::Duration::from_millis(30));
                assert_eq!(refused(&store), None, "{how}");
            }
            lose(&store, &anchor, &before);
            assert_eq!(refused(&store), Some(Reason::OrphanedAnchor), "{how}");
            assert_eq!(refused(&store), Some(Reason::OrphanedAnchor), "{how}, again");
        }
    }

    /// Garbage is found although its owner was known, by whoever ended the row and by others.
    #[test]
    fn what_the_dead_leave_is_collected_although_it_was_known() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("state.db")).unwrap();
        let anchors: Vec<Anchor> = (1..=20).map(|number| other(&store, number)).collect();
        assert_eq!(refused(&store), None);
        drop(anchors);
        let end = "UPDATE instances SET ended_at_ms = 1, end_reason = 'killed'";
        store.inner.write(|tx| Ok(tx.execute(end, [])?)).unwrap();
        let left = || std::fs::read_dir(&store.inner.location.anchors).unwrap().count();
        assert_eq!(left(), 20);
        let grants = (1..2_000).find(|_| {
            assert_eq!(refused(&store), None);
            left() == 0
        });
        assert!(grants.is_some(), "{} are left", left());
    }

    /// Symptom: each claim read all live rows and looked at all files of the anchors. It holds
    /// because the second claim of a handle asks for nothing that the first one has seen.
    #[test]
    fn a_claim_asks_for_no_anchor_twice() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("state.db")).unwrap();
        let _anchors: Vec<Anchor> = (1..=50).map(|number| other(&store, number)).collect();
        let asked = |tally: &tally::Tally| {
            let of_anchors = tally.statements.iter().filter(|(sql, _)| sql.contains("anchor = ?1"));
            let all =
                tally.statements.keys().any(|sql| sql.starts_with("SELECT anchor FROM instances"));
            (all, of_anchors.map(|(_, count)| count).sum::<u64>())
        };
        let (_, first) = tally::of(|| refused(&store));
        assert!(asked(&first).0, "{first:?}");
        let (_, second) = tally::of(|| refused(&store));
        let (all, each) = asked(&second);
        // Some known ones, in turn, and our own.
        assert!(!all && each < 20, "{second:?}");
    }
}
