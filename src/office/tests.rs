//! What the operations that a gateway does all day cost, in steps of SQLite: nothing of it grows
//! with what else is in the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::clock::Clock;
use crate::marker::{MarkerName, MarkerRequest};
use crate::process::anchor::Anchor;
use crate::store::Inner;
use crate::store::tally;
use crate::store::tally::Tally;
use crate::sys;
use crate::{Acquire, Claim, Kind, LockRequest, OpenOptions, StatusUpdate, Store, Wait};

/// What is done now and then goes by the last digits of the clock (`Tx::prunes`). With this one
/// they come one after the other.
#[derive(Debug)]
struct Counting(AtomicI64);

impl Clock for Counting {
    fn wall_us(&self) -> i64 {
        1_795_305_600_000_000 + self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn boot_ms(&self) -> i64 {
        1_000_000
    }

    fn asleep_ms(&self) -> i64 {
        0
    }
}

/// Of so many operations each is done with other last digits.
const ROUND: u64 = 64;

fn store(directory: &tempfile::TempDir) -> Store {
    let options = OpenOptions::new().path(directory.path().join("state.db"));
    options.clock(Arc::new(Counting(AtomicI64::new(0)))).open().unwrap()
}

/// Makes a row that this process' parent leans on, and the anchor that is held for it.
fn live_row(inner: &Inner, profile: Option<&str>, number: i64) -> Anchor {
    let location = &inner.location;
    let store_id = inner.store_uuid().unwrap();
    let anchor = Anchor::create(&location.file, &location.anchors, store_id).unwrap();
    let key = anchor.key().unwrap().unwrap();
    let parent = std::os::unix::process::parent_id();
    let facts = sys::process_facts(parent);
    let observer = inner.observer();
    inner
        .write(|tx| {
            tx.prepare_cached(
                "INSERT INTO instances (id, nonce_hash, profile, kind, origin, pid, start_time,
                     start_time_unit, boot_id, pid_ns, host, uid, stop_budget_ms, anchor,
                     started_at_ms, anchor_inode, anchor_dev, process_inode, written_by)
                 VALUES (?1, hex(?1), ?2, ?3, 'library', ?4, ?5, 'ticks', ?6, ?7, ?8, ?9, 1000,
                     ?10, 1, ?11, ?12, ?13, 'a test')",
            )?
            .execute(rusqlite::params![
                number,
                profile,
                profile.map(|_| "gateway"),
                parent,
                facts.start_time.map(|time| time.value),
                observer.boot_id,
                observer.pid_ns,
                observer.host,
                observer.uid,
                anchor.name(),
                key.inode.cast_signed(),
                key.device.cast_signed(),
                facts.number.map(|number| number.0.cast_signed()),
            ])?;
            Ok(())
        })
        .unwrap();
    anchor
}

/// What is in a store beside those who work in it.
#[derive(Clone, Copy, Debug)]
struct Crowd {
    live: i64,
    without_office: i64,
    ended: i64,
    events: i64,
    locks: i64,
}

impl Crowd {
    fn fill(self, store: &Store) -> Vec<Anchor> {
        let inner = &store.inner;
        let offices = (1..=self.live).map(|number| (Some(format!("other-{number}")), number));
        let others = (1..=self.without_office).map(|number| (None, 10_000 + number));
        let anchors = offices
            .chain(others)
            .map(|(profile, number)| live_row(inner, profile.as_deref(), number))
            .collect();
        let rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)";
        let sqls = [
            (
                self.ended,
                "INSERT INTO instances (id, nonce_hash, profile, kind, origin, pid,
                     stop_budget_ms, started_at_ms, ended_at_ms, end_reason)
                 SELECT 20000 + i, hex(i), CASE i % 2 WHEN 0 THEN 'past-' || (i % 50) ELSE 'me' END,
                     'gateway', 'library', 1, 1, i, i, 'released' FROM n WHERE ?1 > 0",
            ),
            (
                self.events,
                "INSERT INTO events (at_ms, event, profile, kind)
                 SELECT i, CASE i % 2 WHEN 0 THEN 'office_claimed' ELSE 'status_changed' END, 'me',
                     'gateway' FROM n WHERE ?1 > 0",
            ),
            (
                self.locks,
                "INSERT INTO scoped_locks (scope, identity_hash, instance_id, fence, acquired_at_ms)
                 SELECT 'many', printf('%016x', i), 1 + i % 10, i, i FROM n WHERE ?1 > 0",
            ),
        ];
        for (count, sql) in sqls.into_iter().filter(|(count, _)| *count > 0) {
            let sql = format!("{rows} {sql}");
            inner.write(|tx| Ok(tx.execute(&sql, [count])?)).unwrap();
        }
        anchors
    }
}

type Operation<'a> = (&'static str, Box<dyn FnMut() + 'a>);

/// Does each operation until everything is prepared, known and pruned, and counts a round of it.
fn tallies(store: &Store) -> Vec<(&'static str, Tally)> {
    let held = live_row(&store.inner, Some("held"), 50_001);
    store
        .inner
        .write(|tx| {
            tx.execute(
                "INSERT INTO scoped_locks (scope, identity_hash, instance_id, fence, acquired_at_ms)
                 VALUES ('s', ?1, 50001, 50001, 1)",
                [LockRequest::new("s", "held").unwrap().name().identity_hash.as_str()],
            )?;
            Ok(())
        })
        .unwrap();
    let profile = store.profile("me").unwrap();
    let of_held = store.profile("held").unwrap();
    let kind = Kind::default();
    let claim = || match profile.claim().unwrap() {
        Claim::Granted(tenure) => tenure,
        Claim::Held(holder) => panic!("{holder}"),
    };
    let request = |identity| LockRequest::new("s", identity).unwrap();
    let acquire = |identity| match store.try_acquire(&request(identity)).unwrap() {
        Acquire::Granted(lock) => lock,
        Acquire::Held(holder) => panic!("{holder}"),
    };
    let mut counted = Vec::new();
    let mut count = |operations: Vec<Operation<'_>>| {
        for (name, mut operation) in operations {
            // As many rows as are ever kept: of offices, and without one.
            let rounds =
                if ["claim and release", "lock, nothing held"].contains(&name) { 4 } else { 1 };
            (0..rounds * ROUND).for_each(|_| operation());
            // Once in a thousand events those that are kept are gone through, which no two rounds
            // meet one after the other.
            let mut round = || tally::of(|| (0..ROUND).for_each(|_| operation())).1;
            let (one, other) = (round(), round());
            counted.push((name, if one.steps < other.steps { one } else { other }));
        }
    };
    count(vec![
        ("claim and release", Box::new(|| drop(claim().release().unwrap()))),
        ("lock, nothing held", Box::new(|| drop(acquire("a").release().unwrap()))),
        ("refused claim", Box::new(|| assert!(matches!(of_held.claim(), Ok(Claim::Held(_)))))),
        (
            "refused lock",
            Box::new(|| {
                assert!(matches!(store.try_acquire(&request("held")), Ok(Acquire::Held(_))));
            }),
        ),
    ]);
    let lock = acquire("b");
    count(vec![
        ("lock, another held", Box::new(|| drop(acquire("a").release().unwrap()))),
        ("verify a lock", Box::new(|| drop(lock.verify().unwrap()))),
        ("renew", Box::new(|| drop(lock.renew().unwrap()))),
    ]);
    drop(lock);
    let tenure = claim();
    let name = MarkerName::new("note").unwrap();
    let marker = MarkerRequest::new(name.clone());
    let agents = std::cell::Cell::new(0);
    let mut events = store.events().unwrap();
    while events.next_event(Wait::No).unwrap().is_some() {}
    count(vec![
        ("lock, an office held", Box::new(|| drop(acquire("a").release().unwrap()))),
        (
            "lock of a tenure",
            Box::new(|| match tenure.try_acquire(&request("a")).unwrap() {
                Acquire::Granted(lock) => drop(lock.release().unwrap()),
                Acquire::Held(holder) => panic!("{holder}"),
            }),
        ),
        ("verify", Box::new(|| drop(tenure.verify().unwrap()))),
        ("heartbeat", Box::new(|| drop(tenure.heartbeat(Duration::from_secs(9)).unwrap()))),
        (
            "update",
            Box::new(|| {
                agents.set(agents.get() + 1);
                tenure.update_status(&StatusUpdate::new().active_agents(agents.get())).unwrap();
            }),
        ),
        ("runtime", Box::new(|| assert!(profile.runtime(&kind).unwrap().is_some()))),
        ("find the running", Box::new(|| assert!(profile.running_pid(&kind).unwrap().is_some()))),
        ("status", Box::new(|| assert!(profile.status().unwrap().running))),
        ("look for a marker", Box::new(|| assert!(tenure.peek_marker(None).unwrap().is_none()))),
        (
            "marker",
            Box::new(|| {
                store.write_marker(std::process::id(), &marker).unwrap();
                drop(tenure.consume_marker(Some(&name)).unwrap().unwrap());
            }),
        ),
        ("events", Box::new(|| while events.next_event(Wait::No).unwrap().is_some() {})),
    ]);
    tenure.release().unwrap();
    drop(held);
    counted
}

/// Symptom: each claim, and each refused one, took six times as long beside 500 live gateways, all
/// of it with the write lock held. It holds because the steps of SQLite are counted, and the same
/// operation takes as many of them in a store that is full.
#[test]
fn nothing_that_is_done_all_day_grows_with_the_store() {
    let empty = Crowd { live: 0, without_office: 0, ended: 0, events: 0, locks: 0 };
    let full = Crowd { live: 150, without_office: 60, ended: 6_000, events: 30_000, locks: 1_000 };
    let [of_empty, of_full] = [empty, full].map(|crowd| {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory);
        let anchors = crowd.fill(&store);
        let counted = tallies(&store);
        drop(anchors);
        counted
    });
    let mut grown = Vec::new();
    for ((name, empty), (_, full)) in of_empty.iter().zip(&of_full) {
        println!(
            "{name:<20} {:>6} -> {:>6} steps, {:>3} -> {:>3} statements",
            empty.steps / ROUND,
            full.steps / ROUND,
            empty.runs() / ROUND,
            full.runs() / ROUND
        );
        if full.steps > empty.steps * 13 / 10 || full.runs() > empty.runs() * 13 / 10 {
            grown.push(*name);
        }
    }
    assert!(grown.is_empty(), "{grown:?}");
}

/// A process that has just begun has to look at all that live, once, and at none that ended.
#[test]
fn the_first_claim_of_a_process_does_not_grow_with_what_has_ended() {
    let few = Crowd { live: 50, without_office: 10, ended: 0, events: 0, locks: 0 };
    let many = Crowd { ended: 6_000, events: 30_000, locks: 1_000, ..few };
    let [of_few, of_many] = [few, many].map(|crowd| {
        let directory = tempfile::tempdir().unwrap();
        let first = store(&directory);
        let anchors = crowd.fill(&first);
        drop(first);
        let begun = store(&directory);
        let claim = || begun.profile("new").unwrap().claim();
        let (claimed, tally) = tally::of(claim);
        assert!(matches!(claimed, Ok(Claim::Granted(_))));
        drop(anchors);
        tally.steps
    });
    assert!(of_many <= of_few * 13 / 10, "{of_few} -> {of_many} steps");
}

/// Every statement that the operations above run is looked at, so that a new one cannot be
/// forgotten: SQLite goes by an index, and through no whole table.
#[test]
fn nothing_that_is_done_all_day_goes_through_a_whole_table() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
    let counted = tallies(&store);
    let connection = Connection::open(store.path()).unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRIGGER_EQP, true).unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).unwrap();
    let mut scans = Vec::new();
    let mut seen = 0;
    for (name, tally) in &counted {
        // Once in a thousand events those that are kept are gone through.
        for sql in tally.statements.keys().filter(|sql| !sql.starts_with("DELETE FROM events")) {
            let explained = format!("EXPLAIN QUERY PLAN {sql}");
            let Ok(mut statement) = connection.prepare(&explained) else { continue };
            seen += 1;
            let plan: Vec<String> = statement
                .raw_query()
                .mapped(|row| Ok(row.get(3).unwrap_or_default()))
                .collect::<rusqlite::Result<_>>()
                .unwrap();
            // Of the markers those are looked at that are open: as a rule none.
            let is_scan = |step: &&String| {
                step.starts_with("SCAN")
                    && !["CONSTANT ROW", "open_markers_by_pid"].iter().any(|it| step.contains(it))
            };
            scans.extend(plan.iter().filter(is_scan).map(|step| format!("{name}: {step}: {sql}")));
        }
    }
    assert!(seen > 50, "{seen} statements");
    assert!(scans.is_empty(), "{scans:#?}");
}
