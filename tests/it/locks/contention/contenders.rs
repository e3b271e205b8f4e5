//! Forty contenders for five locks, which are killed, stopped and continued.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use incumbent::lock::Stopped;
use incumbent::{Acquire, LockRequest, Released, Store, Wait};
use rustix::process::Signal;
use serde_json::Value;

use super::lockers::{LONG, LONG_WAIT, Library, Locker, Verbs};
use super::notes::{Note, Notes, Saw, now_ns};
use super::races::race_in_rounds;
use super::{LOCKS, SCOPE, identity};
use crate::support::{
    LIMIT, Process, Random, Sandbox, assert_within, eventually, order, role, role_db, rounds,
    tagged, test_name,
};

const CONTENDERS: usize = 40;

/// Contenders that evict stopped owners keep away from the locks before this one: there, nobody may
/// ever lose anything.
pub const FIRST_EVICTABLE: usize = 2;

/// When a contender gives up: far beyond that, because a busy machine is no unfair one.
pub const STARVED: Duration = Duration::from_mins(2);

/// A contender that is stopped is continued before that: twice as long as an eviction needs.
const STOPPED_FOR_MAX_MS: u64 = 500;

/// The full name of the test that plays the parts of this module.
pub const ROLE: &str = test_name!(role_of_a_contender);

#[test]
fn role_of_a_contender() {
    let Some(role) = role() else { return };
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["contend", "verbs", seat, seed] => {
            contend(Verbs, &Part::new(seat, seed));
        }
        ["contend", stopped, seat, seed] => {
            let stopped = if stopped == "evict" { Stopped::Evict } else { Stopped::Respect };
            contend(
                Library { store: Store::open(role_db()).unwrap(), stopped },
                &Part::new(seat, seed),
            );
        }
        ["race"] => race_in_rounds(),
        _ => panic!("no such role: {role}"),
    }
}

/// What a contender was told.
struct Part {
    seat: String,
    seed: u64,
    done: Arc<AtomicBool>,
}

impl Part {
    fn new(seat: &str, seed: &str) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&done);
        std::thread::spawn(move || {
            while order().is_some() {}
            is_over.store(true, Ordering::Relaxed);
        });
        Self { seat: seat.to_owned(), seed: seed.parse().unwrap(), done }
    }
}

/// Acquires, verifies, holds and releases, until the test says that it is over; then until it had a
/// lock at least once.
fn contend<L: Locker>(mut locker: L, part: &Part) {
    let notes = Notes::of(&part.seat);
    let mut random = Random::new(part.seed);
    let mut grants = 0;
    while grants == 0 || !part.done.load(Ordering::Relaxed) {
        let locks = LOCKS - locker.first();
        let mut wanted = vec![locker.first() + random.index(locks)];
        if random.chance(8) {
            let another = locker.first() + random.index(locks);
            if another != wanted[0] {
                wanted.push(another);
            }
        }
        let wait = match random.below(8) {
            0 => Wait::No,
            1 => Wait::UpTo(Duration::from_millis(1 + random.below(30))),
            // Two that are free in the same moment may never come: nobody keeps one for another.
            _ if wanted.len() > 1 => Wait::UpTo(Duration::from_millis(500)),
            _ => LONG,
        };
        let asked_ns = now_ns();
        let Some(held) = locker.acquire(&wanted, wait) else {
            if wait == LONG {
                notes.take(Saw::Starved, wanted[0], 0, asked_ns);
            }
            random.pause_up_to(Duration::from_millis(4));
            continue;
        };
        grants += 1;
        let held: Vec<(usize, L::Lock)> = wanted.into_iter().zip(held).collect();
        for (lock, guard) in &held {
            let evicted = locker.evicted(guard);
            let saw = if evicted { Saw::GrantedByEviction } else { Saw::Granted };
            notes.take(saw, *lock, locker.fence(guard), asked_ns);
        }
        for _ in 0..=random.below(4) {
            for (lock, guard) in &held {
                let began_ns = now_ns();
                let is_held = locker.is_held(guard, random.chance(4));
                let saw = if is_held { Saw::Held } else { Saw::Lost };
                notes.take(saw, *lock, locker.fence(guard), began_ns);
            }
            random.pause_up_to(Duration::from_millis(8));
        }
        for (lock, guard) in held {
            let (fence, began_ns) = (locker.fence(&guard), now_ns());
            let was_held = locker.release(guard);
            let saw = if was_held { Saw::Released } else { Saw::ReleasedTooLate };
            notes.take(saw, lock, fence, began_ns);
        }
        random.pause_up_to(Duration::from_millis(4));
    }
}

/// A contender as the test knows it.
struct Contender {
    seat: usize,
    process: Process,
    /// When it was stopped, and when it was continued.
    stops: Vec<(u64, u64)>,
    /// Since when it is stopped, and when it is to be continued.
    pub stopped: Option<(u64, Instant)>,
}

impl Contender {
    fn start(sandbox: &Sandbox, seat: usize, seed: u64) -> Self {
        let style = match seat % 10 {
            0 => "verbs",
            1..=4 => "evict",
            _ => "respect",
        };
        let seed = seed.wrapping_add(seat as u64);
        let process = sandbox.role(ROLE, &format!("contend {style} {seat} {seed}"));
        Self { seat, process, stops: Vec::new(), stopped: None }
    }

    fn stop(&mut self, length: Duration) {
        if self.stopped.is_none() {
            self.stopped = Some((now_ns(), Instant::now() + length));
            self.process.signal(Signal::STOP);
        }
    }

    fn go_on(&mut self) {
        if let Some((since_ns, _)) = self.stopped.take() {
            self.process.signal(Signal::CONT);
            self.stops.push((since_ns, now_ns()));
        }
    }

    fn assert_runs(&mut self) {
        let has_ended = self.process.has_ended();
        let why = has_ended.then(|| self.process.err_line_with("panicked"));
        assert!(!has_ended, "contender {} ended by itself: {why:?}", self.seat);
    }
}

/// FIELD-BUGS rows 9, 42 and 46.
///
/// Symptom: two gateways polled with one bot token, because a lock looked stale, or its owner was
/// stopped and came back, or a release removed the successor's lock. It holds because a lock is a
/// row that is taken in the transaction that looks at its owner's anchor, and verified, renewed and
/// released by its fence: whoever lost it can do none of that.
///
/// That there are never two holders is proven from a history, by witnesses outside of the product
/// (`tests/history`). Here it is the store's own account, and that so many contenders all get on.
///
/// `INCUMBENT_TEST_SEED` repeats the choices of a run, though not its races.
#[test]
fn forty_contenders_for_five_locks() {
    let seed = std::env::var("INCUMBENT_TEST_SEED")
        .map_or_else(|_| getrandom::u64().unwrap(), |seed| seed.parse().unwrap());
    eprintln!("INCUMBENT_TEST_SEED={seed}");
    let length = Duration::from_secs(rounds(8, 60) as u64);
    let mut random = Random::new(seed);
    let sandbox = Sandbox::new();
    drop(Store::open(sandbox.db()).unwrap());

    let mut seats = 0;
    let mut seat = || {
        seats += 1;
        Contender::start(&sandbox, seats - 1, seed)
    };
    let mut contenders: Vec<Contender> = (0..CONTENDERS).map(|_| seat()).collect();
    let mut killed: Vec<Contender> = Vec::new();
    let started = Instant::now();
    // On a busy machine it takes longer until everything has happened that is to be judged.
    let is_over = |killed: usize, seats: usize| {
        let elapsed = started.elapsed();
        elapsed >= length && (elapsed > LIMIT || has_happened(&sandbox, killed, seats))
    };
    while !is_over(killed.len(), killed.len() + CONTENDERS) {
        for contender in &mut contenders {
            contender.assert_runs();
            if contender.stopped.is_some_and(|(_, until)| Instant::now() >= until) {
                contender.go_on();
            }
        }
        // Whoever holds something is worth more attention than whoever waits.
        let at = match random_holder(&sandbox, &mut random) {
            Some(pid) if !random.chance(4) => {
                contenders.iter().position(|contender| contender.process.pid() == pid)
            }
            _ => None,
        };
        let at = at.unwrap_or_else(|| random.index(CONTENDERS));
        match random.below(10) {
            0..=1 => {
                let mut dead = std::mem::replace(&mut contenders[at], seat());
                dead.process.kill();
                killed.push(dead);
            }
            2..=4 => {
                let length = Duration::from_millis(random.below(STOPPED_FOR_MAX_MS));
                contenders[at].stop(length);
            }
            _ => {}
        }
        random.pause_up_to(Duration::from_millis(40));
    }

    // One half ends by itself, and every one of it got something; the other half is killed.
    let mut left = contenders.split_off(CONTENDERS / 2);
    for contender in &mut contenders {
        contender.go_on();
    }
    let ended: Vec<Contender> = contenders
        .into_iter()
        .map(|mut contender| {
            contender.assert_runs();
            contender.process.close_stdin();
            contender
        })
        .collect();
    let mut all: Vec<(usize, Vec<(u64, u64)>)> = Vec::new();
    for Contender { seat, process, stops, .. } in ended {
        // The other half may be stopped with a lock in its hands.
        left.iter_mut().for_each(Contender::go_on);
        process.finish(LIMIT).assert_code(0);
        let had_some = Notes::read(sandbox.path(), seat).iter().any(|note| note.saw.is_grant());
        assert!(had_some, "contender {seat} got nothing");
        all.push((seat, stops));
    }
    for mut contender in left.into_iter().chain(killed) {
        contender.process.kill();
        if let Some((since_ns, _)) = contender.stopped {
            contender.stops.push((since_ns, u64::MAX));
        }
        all.push((contender.seat, contender.stops));
    }
    // Verbs of the killed wait for nobody, and keepers go with whom they keep.
    eventually("the end of all verbs and keepers", STARVED + LIMIT, || {
        tagged("IT_SANDBOX", sandbox.path()).is_empty().then_some(())
    });

    let notes: Vec<Note> =
        all.iter().flat_map(|(seat, _)| Notes::read(sandbox.path(), *seat)).collect();
    assert_enough_happened(&notes, seats - CONTENDERS / 2);
    let stops: HashMap<usize, Vec<(u64, u64)>> = all.into_iter().collect();
    assert_only_the_stopped_lost(&notes, &stops);
    assert_events_agree(&sandbox, &notes);
    assert_all_is_released(&sandbox);
}

/// Whether enough has happened to be worth a judgement.
fn has_happened(sandbox: &Sandbox, killed: usize, seats: usize) -> bool {
    let notes: Vec<Note> = (0..seats).flat_map(|seat| Notes::read(sandbox.path(), seat)).collect();
    let count = |is: &dyn Fn(&Note) -> bool| notes.iter().filter(|note| is(note)).count();
    killed > 0
        && count(&|note| note.saw.is_grant()) > 100
        && count(&|note| note.saw == Saw::GrantedByEviction) > 0
        && count(&|note| note.saw == Saw::Lost) > 0
}

/// The pid of one of those who are on record as holding a lock.
fn random_holder(sandbox: &Sandbox, random: &mut Random) -> Option<u32> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(sandbox.db(), flags).unwrap();
    connection.busy_timeout(LIMIT).unwrap();
    let mut query = connection.prepare("SELECT pid FROM lock_holders").unwrap();
    let pids: Vec<u32> =
        query.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap();
    (!pids.is_empty()).then(|| pids[random.index(pids.len())])
}

/// Prints what happened, and asserts that enough of it did.
fn assert_enough_happened(notes: &[Note], killed: usize) {
    let count = |is: &dyn Fn(&Note) -> bool| notes.iter().filter(|note| is(note)).count();
    let mut waits_us: Vec<u64> = notes
        .iter()
        .filter(|note| note.saw.is_grant())
        .map(|note| (note.ended_ns - note.began_ns) / 1_000)
        .collect();
    waits_us.sort_unstable();
    let at = |per_cent: usize| waits_us.get((waits_us.len() - 1) * per_cent / 100).unwrap();
    eprintln!(
        "{} grants ({} by eviction), {} verified, {} released, {} lost, {killed} killed; \
         waits: p50 \
         {} us, p99 {} us, worst {} us",
        waits_us.len(),
        count(&|note| note.saw == Saw::GrantedByEviction),
        count(&|note| note.saw == Saw::Held),
        count(&|note| note.saw == Saw::Released),
        count(&|note| note.saw.is_loss()),
        at(50),
        at(99),
        at(100),
    );
    assert!(waits_us.len() > 100, "too little happened");
    assert!(killed > CONTENDERS / 2, "too few were killed");
    assert!(count(&|note| note.saw == Saw::GrantedByEviction) > 0, "nobody was evicted");
    assert!(count(&|note| note.saw == Saw::Lost) > 0, "nobody learnt of it");
    let starved: Vec<&Note> = notes.iter().filter(|note| note.saw == Saw::Starved).collect();
    assert!(starved.is_empty(), "not within {STARVED:?}: {starved:#?}");
    // On a busy machine a few are late, and nobody for ever: see above.
    assert_within(LONG_WAIT, Duration::from_micros(*at(98)), "a long wait");
}

/// Nobody loses a lock but by being stopped, where somebody evicts.
fn assert_only_the_stopped_lost(notes: &[Note], stops: &HashMap<usize, Vec<(u64, u64)>>) {
    let was_stopped = |note: &Note, since_ns: u64| {
        stops[&note.seat].iter().any(|(from, to)| *from <= note.ended_ns && since_ns <= *to)
    };
    let asked: HashMap<i64, u64> = notes
        .iter()
        .filter(|note| note.saw.is_grant())
        .map(|note| (note.fence, note.began_ns))
        .collect();
    for note in notes.iter().filter(|note| note.saw.is_loss()) {
        assert!(note.lock >= FIRST_EVICTABLE, "nobody evicts here: {note:?}");
        assert!(was_stopped(note, asked[&note.fence]), "it was never stopped: {note:?}");
    }
}

/// The store's own account, in the order of its commits: a lock is granted, ends, is granted again,
/// and its fence rises each time.
fn assert_events_agree(sandbox: &Sandbox, notes: &[Note]) {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(sandbox.db(), flags).unwrap();
    let events: Vec<(String, String, i64)> = connection
        .prepare(
            "SELECT event, detail ->> 'identity_hash', detail ->> 'fence' FROM events
             WHERE event IN ('lock_acquired', 'lock_ended') ORDER BY id",
        )
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .collect::<rusqlite::Result<_>>()
        .unwrap();
    let is_whole = connection
        .query_row("SELECT min(id) = 1 FROM events", [], |row| row.get::<_, bool>(0))
        .unwrap();
    let mut last: BTreeMap<String, (bool, i64)> = BTreeMap::new();
    let mut granted = HashSet::new();
    for (event, identity_hash, fence) in events {
        let is_grant = event == "lock_acquired";
        if is_grant {
            granted.insert(fence);
        }
        if let Some((was_grant, previous)) = last.insert(identity_hash.clone(), (is_grant, fence)) {
            assert_ne!(is_grant, was_grant, "{event} twice for {identity_hash}, fence {fence}");
            let fits = if is_grant { fence > previous } else { fence == previous };
            assert!(fits, "{event} for {identity_hash}: fence {fence} after {previous}");
        }
    }
    // The oldest events of a long run are gone.
    if is_whole {
        for note in notes.iter().filter(|note| note.saw.is_grant()) {
            assert!(granted.contains(&note.fence), "no event tells of {note:?}");
        }
    }
}

/// Of contenders that have all ended.
fn assert_all_is_released(sandbox: &Sandbox) {
    let (code, locks) = sandbox.json(["locks"]);
    assert_eq!(code, 0, "{locks:#}");
    let is_dead =
        |lock: &Value| lock["verdict"] == "dead" && lock["waiters"] == Value::Array(vec![]);
    assert!(locks.as_array().unwrap().iter().all(is_dead), "{locks:#}");
    sandbox.cli(["unlock", "--stale"]).assert_code(0);
    assert_eq!(sandbox.json(["locks"]), (0, Value::Array(vec![])));
    let store = Store::open(sandbox.db()).unwrap();
    let take = |lock| {
        let request = LockRequest::new(SCOPE, identity(lock)).unwrap();
        match store.try_acquire(&request).unwrap() {
            Acquire::Granted(guard) => assert!(matches!(guard.release(), Ok(Released::Free))),
            Acquire::Held(holder) => panic!("{holder}"),
        }
    };
    (0..LOCKS).for_each(take);
    assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0);
    // A grant ends the dead for some milliseconds, and collects the anchors of those that were
    // ended before it: how many grants that takes depends on the machine.
    eventually("nothing is left of the dead", LIMIT, || {
        take(0);
        let live = sandbox.number("SELECT count(*) FROM instances WHERE ended_at_ms IS NULL");
        (live == 0 && sandbox.anchor_names().len() <= 2).then_some(())
    });
}
