//! Many processes want the same few locks while they are killed, stopped and continued.
//!
//! The witness is made of notes that the contenders take themselves, each into a file of its own,
//! with the times of the system's monotonic clock from before and after a call. A call that
//! succeeded did so at some moment between its two times. So two holders at once are proven
//! whenever a call about a fence *began* after a call about a higher fence of the same lock had
//! *ended*, and both succeeded. Calls that overlap prove nothing and are never blamed, whoever was
//! stopped or killed in the middle of one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use incumbent::{
    Acquire, AcquireOptions, ErrorKind, LockRequest, Released, ScopedLock, Standing, Stopped,
    Store, Wait,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    BINARY, Barrier, LIMIT, Process, Random, Sandbox, assert_within, eventually, order, role,
    role_db, rounds, tagged, test_name,
};

const SCOPE: &str = "bot-token";

const CONTENDERS: usize = 40;

const LOCKS: usize = 5;

/// Contenders that evict stopped owners keep away from the locks before this one: there, nobody may
/// ever lose anything.
const FIRST_EVICTABLE: usize = 2;

/// Far beyond any wait that is fair, on an idle machine: eight contenders share a lock, each holds it for some
/// 10 ms, and a stopped one for at most half a second.
const LONG_WAIT: Duration = Duration::from_secs(20);

/// When a contender gives up: far beyond that, because a busy machine is no unfair one.
const STARVED: Duration = Duration::from_mins(2);

/// A contender that is stopped is continued before that: twice as long as an eviction needs.
const STOPPED_FOR_MAX_MS: u64 = 500;

/// The full name of the test that plays the parts of this module.
const ROLE: &str = test_name!(role_of_a_contender);

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
        ["race", seat] => race_in_rounds(seat),
        _ => panic!("no such role: {role}"),
    }
}

/// The system's monotonic clock in nanoseconds: the same for all processes.
fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

/// What a contender saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saw {
    /// The lock was granted.
    Granted,
    /// The same, and its owner before was evicted because it was stopped.
    GrantedByEviction,
    /// A `verify` or `renew` that said: held.
    Held,
    /// One that said: lost.
    Lost,
    /// A release that found it held.
    Released,
    /// A release that came too late.
    ReleasedTooLate,
    /// No lock within the longest wait.
    Starved,
}

impl Saw {
    const ALL: [Self; 7] = [
        Self::Granted,
        Self::GrantedByEviction,
        Self::Held,
        Self::Lost,
        Self::Released,
        Self::ReleasedTooLate,
        Self::Starved,
    ];

    fn is_grant(self) -> bool {
        matches!(self, Self::Granted | Self::GrantedByEviction)
    }

    /// Whether the lock was this contender's at some moment of the call.
    fn proves_holding(self) -> bool {
        self.is_grant() || matches!(self, Self::Held | Self::Released)
    }

    fn is_loss(self) -> bool {
        matches!(self, Self::Lost | Self::ReleasedTooLate)
    }
}

/// One note.
#[derive(Clone, Debug)]
struct Note {
    seat: usize,
    saw: Saw,
    lock: usize,
    fence: i64,
    began_ns: u64,
    ended_ns: u64,
}

/// The notes of one contender. Each is written at once: a killed contender loses none but the last.
struct Notes {
    file: File,
}

impl Notes {
    fn path(directory: &Path, seat: impl std::fmt::Display) -> std::path::PathBuf {
        directory.join(format!("notes-{seat}"))
    }

    /// In the working directory, which is the sandbox'.
    fn of(seat: &str) -> Self {
        let path = Self::path(Path::new("."), seat);
        Self { file: File::options().append(true).create(true).open(path).unwrap() }
    }

    fn take(&self, saw: Saw, lock: usize, fence: i64, began_ns: u64) {
        let line = format!("{saw:?} {lock} {fence} {began_ns} {}\n", now_ns());
        (&self.file).write_all(line.as_bytes()).unwrap();
    }

    fn read(directory: &Path, seat: usize) -> Vec<Note> {
        let text = std::fs::read_to_string(Self::path(directory, seat)).unwrap_or_default();
        // The last one may be cut short by a kill.
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let [saw, lock, fence, began_ns, ended_ns] = words[..] else { panic!("{line}") };
                Note {
                    seat,
                    saw: Saw::ALL.into_iter().find(|one| format!("{one:?}") == saw).unwrap(),
                    lock: lock.parse().unwrap(),
                    fence: fence.parse().unwrap(),
                    began_ns: began_ns.parse().unwrap(),
                    ended_ns: ended_ns.parse().unwrap(),
                }
            })
            .collect()
    }
}

/// Two holders at once, each as one line.
fn contradictions(notes: &[Note]) -> Vec<String> {
    let mut found = Vec::new();
    for lock in 0..LOCKS {
        let of_lock = || notes.iter().filter(|note| note.lock == lock);
        let mut proofs: Vec<&Note> = of_lock().filter(|note| note.saw.proves_holding()).collect();
        proofs.sort_by_key(|note| note.ended_ns);
        // The highest fence of all that ended up to each of them.
        let mut highest: Vec<&Note> = Vec::with_capacity(proofs.len());
        for &note in &proofs {
            let before = highest.last().copied();
            highest.push(before.filter(|before| before.fence > note.fence).unwrap_or(note));
        }
        for note in &proofs {
            let before = proofs.partition_point(|proof| proof.ended_ns < note.began_ns);
            if let Some(higher) = before.checked_sub(1).map(|at| highest[at])
                && higher.fence > note.fence
            {
                found.push(format!("two holders: after {higher:?} had ended, {note:?} began"));
            }
        }
        // Lost is lost.
        let losses: HashMap<i64, &Note> =
            of_lock().filter(|note| note.saw == Saw::Lost).map(|note| (note.fence, note)).collect();
        for note in &proofs {
            if let Some(loss) = losses.get(&note.fence)
                && loss.ended_ns < note.began_ns
            {
                found.push(format!("held again: after {loss:?} had ended, {note:?} began"));
            }
        }
    }
    found
}

/// The witness itself: it sees what must not be, and nothing in what may be.
#[test]
fn the_witness_blames_only_what_is_proven() {
    let note = |seat, saw, fence, began_ns, ended_ns| Note {
        seat,
        saw,
        lock: 0,
        fence,
        began_ns,
        ended_ns,
    };
    let first = note(1, Saw::Granted, 10, 0, 5);
    let second = note(2, Saw::Granted, 20, 1, 30);
    for (later, expected) in [
        (note(1, Saw::Held, 10, 31, 32), 1),
        (note(1, Saw::Released, 10, 31, 32), 1),
        // It asked before the other's grant was known: that proves nothing.
        (note(1, Saw::Held, 10, 29, 900), 0),
        (note(1, Saw::Lost, 10, 31, 32), 0),
        (note(1, Saw::ReleasedTooLate, 10, 31, 32), 0),
        (note(2, Saw::Held, 20, 31, 32), 0),
        (note(3, Saw::Granted, 15, 31, 32), 1),
        (note(3, Saw::Granted, 30, 31, 32), 0),
    ] {
        let found = contradictions(&[first.clone(), second.clone(), later.clone()]);
        assert_eq!(found.len(), expected, "{later:?}: {found:#?}");
    }
    let lost = note(1, Saw::Lost, 10, 6, 7);
    let held = note(1, Saw::Held, 10, 8, 9);
    assert_eq!(contradictions(&[first, lost, held]).len(), 1);
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

/// A way to lock: through the library, or by the verbs of the program.
trait Locker {
    type Lock;
    /// The first of the locks that it wants.
    fn first(&self) -> usize;
    /// All of `wanted`, or none.
    fn acquire(&mut self, wanted: &[usize], wait: Wait) -> Option<Vec<Self::Lock>>;
    fn fence(&self, lock: &Self::Lock) -> i64;
    fn evicted(&self, lock: &Self::Lock) -> bool;
    fn is_held(&mut self, lock: &Self::Lock, renew: bool) -> bool;
    /// Whether it was still held.
    fn release(&mut self, lock: Self::Lock) -> bool;
}

struct Library {
    store: Store,
    stopped: Stopped,
}

impl Locker for Library {
    type Lock = ScopedLock;

    fn first(&self) -> usize {
        if self.stopped == Stopped::Evict { FIRST_EVICTABLE } else { 0 }
    }

    fn acquire(&mut self, wanted: &[usize], wait: Wait) -> Option<Vec<ScopedLock>> {
        let requests: Vec<LockRequest> =
            wanted.iter().map(|lock| LockRequest::new(SCOPE, identity(*lock)).unwrap()).collect();
        let options = AcquireOptions::new().wait(wait).stopped(self.stopped);
        let mut answer = self.store.acquire_all(&requests, &options);
        for _ in 0..BUSY_MAX {
            // On a machine that is overloaded the write lock may be out of reach for longer than one
            // call waits; a gateway would ask again.
            if !is_busy(&answer) || wait != LONG {
                break;
            }
            answer = self.store.acquire_all(&requests, &options);
        }
        match answer {
            Ok(Acquire::Granted(locks)) => {
                assert!(locks.iter().all(|lock| !lock.reacquired()), "it held nothing: {locks:#?}");
                Some(locks)
            }
            Ok(Acquire::Held(_)) => None,
            // A short wait may end while a stopped process has the store's write lock.
            Err(error) if error.kind() == ErrorKind::Busy && wait != LONG => None,
            Err(error) => panic!("acquire: {error}"),
        }
    }

    fn fence(&self, lock: &ScopedLock) -> i64 {
        lock.fence()
    }

    fn evicted(&self, lock: &ScopedLock) -> bool {
        lock.evicted().is_some_and(|evicted| evicted.reason == "evicted")
    }

    fn is_held(&mut self, lock: &ScopedLock, renew: bool) -> bool {
        let mut answer = if renew { lock.renew() } else { lock.verify() };
        for _ in 0..BUSY_MAX {
            if !is_busy(&answer) {
                break;
            }
            answer = lock.verify();
        }
        match answer {
            Ok(standing) => standing == Standing::Held,
            Err(error) => panic!("verify: {error}"),
        }
    }

    fn release(&mut self, lock: ScopedLock) -> bool {
        match lock.release().unwrap() {
            Released::Free => true,
            Released::WasLost => false,
            // Every later call tries again.
            Released::Pending(error) if error.kind() == ErrorKind::Busy => {
                eventually("a release that is kept", LONG_ENOUGH, || {
                    let _ = self.store.locks();
                    (self.store.pending_releases() == 0).then_some(())
                });
                true
            }
            other => panic!("release: {other:?}"),
        }
    }
}

/// How often a busy store is asked again; each time takes five seconds.
const BUSY_MAX: usize = 8;

/// The same as a length of time.
const LONG_ENOUGH: Duration = Duration::from_secs(40);

fn is_busy<T>(answer: &incumbent::Result<T>) -> bool {
    answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy)
}

/// `lock ... --pid` for this very process, which then does not link the library as far as the store
/// knows. A lock is its number, its fence, and whether its owner before was evicted.
struct Verbs;

impl Verbs {
    fn verb(words: &[&str], lock: usize, options: &[String]) -> (i32, Value) {
        let pid = std::process::id().to_string();
        let output = Command::new(BINARY)
            .args(["--json", "lock"])
            .args(words)
            .args([SCOPE, &identity(lock), "--pid", &pid])
            .args(options)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let document = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("lock {words:?} {options:?}: {error}: {output:?}"));
        (output.status.code().unwrap(), document)
    }

    fn held(words: &[&str], lock: &(usize, i64, bool)) -> bool {
        for _ in 0..BUSY_MAX {
            let (code, document) = Self::verb(words, lock.0, &[format!("--fence={}", lock.1)]);
            if document["error"]["kind"] == "busy" {
                continue;
            }
            assert!(code == 0 || code == 1, "lock {words:?}: {code}: {document:#}");
            return code == 0;
        }
        panic!("lock {words:?}: busy {BUSY_MAX} times")
    }
}

impl Locker for Verbs {
    type Lock = (usize, i64, bool);

    fn first(&self) -> usize {
        FIRST_EVICTABLE
    }

    fn acquire(&mut self, wanted: &[usize], wait: Wait) -> Option<Vec<Self::Lock>> {
        // One at a time is what the verb can.
        let lock = wanted[0];
        let mut options = vec!["--evict-stopped".to_owned()];
        if let Wait::UpTo(limit) = wait {
            options.push(format!("--wait={}ms", limit.as_millis()));
        }
        let (mut code, mut document) = Self::verb(&["acquire"], lock, &options);
        for _ in 0..BUSY_MAX {
            if document["error"]["kind"] != "busy" || wait != LONG {
                break;
            }
            (code, document) = Self::verb(&["acquire"], lock, &options);
        }
        if code == 75 && (wait != LONG || document["error"].is_null()) {
            return None;
        }
        assert_eq!(code, 0, "lock acquire: {document:#}");
        assert_eq!(document["reacquired"], false, "it held nothing: {document:#}");
        let evicted = document["evicted"]["reason"] == "evicted";
        Some(vec![(lock, document["fence"].as_i64().unwrap(), evicted)])
    }

    fn fence(&self, lock: &Self::Lock) -> i64 {
        lock.1
    }

    fn evicted(&self, lock: &Self::Lock) -> bool {
        lock.2
    }

    fn is_held(&mut self, lock: &Self::Lock, renew: bool) -> bool {
        Self::held(if renew { &["renew"] } else { &["verify"] }, lock)
    }

    fn release(&mut self, lock: Self::Lock) -> bool {
        Self::held(&["release"], &lock)
    }
}

const LONG: Wait = Wait::UpTo(STARVED);

fn identity(lock: usize) -> String {
    format!("bot{lock}:secret")
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
    stopped: Option<(u64, Instant)>,
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
        elapsed >= length && (elapsed > length * 6 || has_happened(&sandbox, killed, seats))
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
    assert_one_holder_at_a_time(&notes, &stops);
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
        "{} grants ({} by eviction), {} verified, {} released, {} lost, {killed} killed; waits: p50 \
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

fn assert_one_holder_at_a_time(notes: &[Note], stops: &HashMap<usize, Vec<(u64, u64)>>) {
    let found = contradictions(notes);
    assert!(found.is_empty(), "{found:#?}");

    let mut fences = HashSet::new();
    for note in notes.iter().filter(|note| note.saw.is_grant()) {
        assert!(fences.insert(note.fence), "granted twice: {note:?}");
    }
    let was_stopped = |note: &Note, since_ns: u64| {
        stops[&note.seat].iter().any(|(from, to)| *from <= note.ended_ns && since_ns <= *to)
    };
    for lock in 0..LOCKS {
        let mut grants: Vec<&Note> =
            notes.iter().filter(|note| note.lock == lock && note.saw.is_grant()).collect();
        grants.sort_by_key(|note| note.ended_ns);
        let mut highest: Option<&Note> = None;
        for note in grants {
            // One that was stopped before it could look at the clock was evicted meanwhile.
            if let Some(highest) = highest
                && highest.fence > note.fence
                && !was_stopped(note, note.began_ns)
            {
                panic!("a fence fell: {highest:?}, then {note:?}");
            }
            highest = highest.filter(|highest| highest.fence > note.fence).or(Some(note));
        }
    }
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
    for lock in 0..LOCKS {
        let request = LockRequest::new(SCOPE, identity(lock)).unwrap();
        match store.try_acquire(&request).unwrap() {
            Acquire::Granted(guard) => assert!(matches!(guard.release(), Ok(Released::Free))),
            Acquire::Held(holder) => panic!("{holder}"),
        }
    }
    assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE ended_at_ms IS NULL"), 0);
    let anchors = sandbox.anchor_names();
    assert!(anchors.len() <= 2, "{anchors:#?}");
}

/// Rounds of the race between threads and processes, and who takes part.
const RACE_THREADS: usize = 16;
const RACE_PROCESSES: usize = 4;

/// One lock, taken and let go; the answer is its fence.
fn take_turn(store: &Store, notes: &Notes) -> i64 {
    let request = LockRequest::new(SCOPE, identity(0)).unwrap();
    let asked_ns = now_ns();
    let answer = store.acquire(&request, &AcquireOptions::new().wait(LONG)).unwrap();
    let Acquire::Granted(lock) = answer else { panic!("not within {STARVED:?}") };
    let fence = lock.fence();
    notes.take(Saw::Granted, 0, fence, asked_ns);
    let began_ns = now_ns();
    assert_eq!(lock.verify().unwrap(), Standing::Held);
    notes.take(Saw::Held, 0, fence, began_ns);
    match lock.release().unwrap() {
        Released::Free | Released::StillShared => fence,
        other => panic!("{other:?}"),
    }
}

fn race_in_rounds(seat: &str) {
    let notes = Notes::of(seat);
    let store = Store::open(role_db()).unwrap();
    eprintln!("ready");
    while order().is_some() {
        let fence = take_turn(&store, &notes);
        eprintln!("had {fence}");
    }
}

/// Threads of one process share a lock, and share it with nobody else: a fence is never seen by two
/// processes, also where one thread lets go in the moment in which another one asks.
#[test]
fn threads_of_a_process_share_a_lock_that_other_processes_wait_for() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let mut processes: Vec<Process> =
        (0..RACE_PROCESSES).map(|seat| sandbox.role(ROLE, &format!("race {seat}"))).collect();
    for process in &mut processes {
        process.err_line_with("ready");
    }
    let notes: Vec<Notes> = (0..RACE_THREADS)
        .map(|thread| {
            let path = Notes::path(sandbox.path(), RACE_PROCESSES + thread);
            Notes { file: File::options().append(true).create(true).open(path).unwrap() }
        })
        .collect();
    let mut owners: HashMap<i64, usize> = HashMap::new();
    for round in 1..=rounds(200, 2_000) {
        let barrier = std::sync::Barrier::new(RACE_THREADS + 1);
        let of_threads: Vec<i64> = std::thread::scope(|scope| {
            let threads: Vec<_> = notes
                .iter()
                .map(|notes| {
                    scope.spawn(|| {
                        barrier.wait();
                        take_turn(&store, notes)
                    })
                })
                .collect();
            for process in &mut processes {
                process.say("go");
            }
            barrier.wait();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut had: Vec<(usize, i64)> =
            of_threads.iter().map(|fence| (usize::MAX, *fence)).collect();
        for (seat, process) in processes.iter_mut().enumerate() {
            let line = process.err_line_with("had ");
            had.push((seat, line.trim().strip_prefix("had ").unwrap().parse().unwrap()));
        }
        for (owner, fence) in had {
            let first = *owners.entry(fence).or_insert(owner);
            assert_eq!(first, owner, "round {round}: fence {fence} was granted to two processes");
        }
        assert!(store.locks().unwrap().is_empty(), "round {round}: {:#?}", store.locks());
    }
    for process in processes {
        process.finish(LIMIT).assert_code(0);
    }
    let notes: Vec<Note> = (0..RACE_PROCESSES + RACE_THREADS)
        .flat_map(|seat| Notes::read(sandbox.path(), seat))
        .collect();
    let found = contradictions(&notes);
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE ended_at_ms IS NULL"), 0);
}

/// FIELD-BUGS row 41. Of scripts that ask at once, one gets the lock, and all others are told who.
#[test]
fn of_fifty_scripts_at_once_one_gets_the_lock() {
    const SCRIPTS: usize = 50;
    let sandbox = Sandbox::new();
    for round in 1..=rounds(4, 40) {
        let gate = Barrier::new();
        // The shell is whom the lock is for; it stays until its standard input is closed.
        let script = format!(
            "incumbent lock acquire {SCOPE} same > said 2>&1; echo \"code $? of $$\"; exec cat"
        )
        .replace("said", "said.$$");
        let mut scripts: Vec<Process> =
            (0..SCRIPTS).map(|_| gate.shell(&sandbox, &script)).collect();
        gate.open();
        let mut granted = Vec::new();
        for script in &mut scripts {
            let line = script.line_with("code ");
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["code", "0", "of", pid] => granted.push(pid.to_owned()),
                ["code", "75", "of", _] => {}
                _ => panic!("round {round}: {line}"),
            }
        }
        assert_eq!(granted.len(), 1, "round {round}: granted to {granted:?}");
        for script in &scripts {
            let said = sandbox.file(&format!("said.{}", script.pid()));
            let said = std::fs::read_to_string(said).unwrap();
            let names_it = format!("pid {}", granted[0]);
            // Fifty at once on a busy machine: one may not have got as far as the lock.
            let told = said.contains(&names_it) || said.contains("stayed busy");
            assert!(told, "round {round}: not {names_it}: {said}");
        }
        let (_, locks) = sandbox.json(["locks"]);
        assert_eq!(locks[0]["pid"].to_string(), granted[0], "round {round}: {locks:#}");
        assert_eq!(locks[0]["verdict"], "alive", "round {round}: {locks:#}");
        drop(scripts);
        eventually("the end of all keepers", LIMIT, || {
            tagged("IT_SANDBOX", sandbox.path()).is_empty().then_some(())
        });
    }
}

/// One process has one keeper, however many of its verbs ask at once, and whatever comes of those
/// that are refused: they must not take along what the others rely on.
#[test]
fn verbs_at_once_for_one_process_share_its_keeper() {
    const GRANTED: usize = 20;
    const REFUSED: usize = 10;
    let sandbox = Sandbox::new();
    let mut other = Process::start(sandbox.shell(&format!(
        "incumbent lock acquire {SCOPE} taken > /dev/null && echo has it; exec cat"
    )));
    other.line_with("has it");
    let mut owner = Process::start(sandbox.shell("echo $$; exec cat"));
    let pid = owner.line();
    for round in 1..=rounds(4, 40) {
        let gate = Barrier::new();
        let ask = |identity: &str| {
            let verb = format!("exec incumbent lock acquire {SCOPE} {identity} --pid {pid}");
            gate.shell(&sandbox, &verb)
        };
        let granted: Vec<Process> = (0..GRANTED).map(|lock| ask(&format!("own{lock}"))).collect();
        let refused: Vec<Process> = (0..REFUSED).map(|_| ask("taken")).collect();
        gate.open();
        for (lock, verb) in granted.into_iter().enumerate() {
            let mut answer = verb.finish(LIMIT);
            // On a busy machine the turn of some does not come in the time that a store may be busy.
            while answer.code() == 75 && (answer.out.clone() + &answer.err).contains("stayed busy")
            {
                let own = format!("own{lock}");
                answer = sandbox.cli(["lock", "acquire", SCOPE, &own, "--pid", &pid]);
            }
            assert_eq!(answer.code(), 0, "round {round}: {answer:#?}");
        }
        for verb in refused {
            let answer = verb.finish(LIMIT);
            assert_eq!(answer.code(), 75, "round {round}: {answer:#?}");
        }
        let own = format!(
            "FROM lock_holders JOIN instances ON id = instance WHERE instances.pid = {pid}"
        );
        assert_eq!(sandbox.number(&format!("SELECT count(*) {own}")), 20, "round {round}");
        let keepers = format!("SELECT count(DISTINCT keeper_pid) {own}");
        assert_eq!(sandbox.number(&keepers), 1, "round {round}");
        // Those that were started in vain go at once.
        eventually("two keepers", LIMIT, || {
            let is_keeper = |pid: &u32| {
                std::fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"__keeper"))
            };
            let tagged = tagged("IT_SANDBOX", sandbox.path());
            (tagged.iter().filter(|pid| is_keeper(pid)).count() == 2).then_some(())
        });
        let released = sandbox.cli(["lock", "release", "--all", "--pid", &pid]).assert_code(0);
        assert_eq!(released.out, "20\n", "round {round}");
    }
    owner.finish(LIMIT).assert_code(0);
    other.finish(LIMIT).assert_code(0);
}
