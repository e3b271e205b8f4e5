//! What a thread of an owner does.

use std::fs::File;
use std::io::Read;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fastrand::Rng;
use incumbent::lock::{AcquireOptions, Stopped};
use incumbent::marker::{MarkerName, MarkerRequest};
use incumbent::stop::Replace;
use incumbent::{Acquire, InstanceId, ScopedLock, Standing, StatusUpdate, Store, Tenure};

use super::owner::{Owner, library_wait, request};
use super::{TICK, name_of_note, new_word};
use crate::log::{Answer, Call, Hurt, Op, Thing, Wait};
use crate::support::forked;
use crate::support::second_sqlite::SecondSqlite;
use crate::workload::answers::{self, is_of_soak};
use crate::workload::draw::{chance, millis};
use crate::workload::nemesis::faults::hurting;
use crate::workload::operations::any_wait;
use crate::workload::witness::Witness;
use crate::workload::world::{LOCKS, LockKind, MAIN};

/// How long a forked child stays that is in nobody's way.
const FORKED_FOR_S: u32 = 1;

pub fn one(owner: &Owner, store: &Store, tenure: &Tenure, rng: &mut Rng) {
    match rng.u32(..20) {
        0..6 => verify(owner, tenure),
        6..8 => say(owner, tenure, rng),
        8 => look_for_marker(owner, tenure, rng),
        9 => leave_marker(owner, store, rng),
        10..17 => lock_for_a_while(owner, store, Some(tenure), rng),
        17 => ask(owner, store),
        18 => stray_open(owner),
        _ => fork(owner),
    }
}

fn verify(owner: &Owner, tenure: &Tenure) {
    let incarnation = tenure.instance().as_i64();
    let op = owner.begin(Call::Verify { thing: owner.office.clone(), incarnation });
    let standing = tenure.verify();
    owner.end(op, answers::of_standing(&standing));
    if matches!(standing, Ok(Standing::Lost(_))) {
        owner.lost.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

fn say(owner: &Owner, tenure: &Tenure, rng: &mut Rng) {
    let (word, incarnation) = (new_word(rng), tenure.instance().as_i64());
    let thing = owner.office.clone();
    let op = owner.begin(Call::Say { thing, incarnation, word: word.clone() });
    let said = tenure.update_status(&StatusUpdate::new().state(word.as_str()));
    owner.end(op, said.map_or_else(|error| answers::of_error(&error), |()| Answer::Done));
}

/// Looks which marker is open, and as a rule takes it.
fn look_for_marker(owner: &Owner, tenure: &Tenure, rng: &mut Rng) {
    let me = tenure.instance().as_i64();
    let op = owner.begin(Call::MarkerPeek { name: None, me });
    let peeked = tenure.peek_marker(None);
    let name = peeked.as_ref().ok().and_then(|it| Some(it.as_ref()?.name.clone()));
    let answer = match peeked {
        Ok(Some(marker)) => answers::of_marker(marker, true),
        Ok(None) => Answer::NoMarker,
        Err(error) => answers::of_error(&error),
    };
    owner.end(op, answer);
    let Some(name) = name.filter(|name| is_of_soak(name.as_str())) else { return };
    if chance(rng, 4) {
        return;
    }
    let op = owner.begin(Call::MarkerConsume { name: Some(name.as_str().to_owned()), me });
    let answer = match tenure.consume_marker(Some(&name)) {
        Ok(Some(consumed)) => answers::of_marker(consumed.marker, consumed.recorded),
        Ok(None) => Answer::NoMarker,
        Err(error) => answers::of_error(&error),
    };
    owner.end(op, answer);
}

/// For whoever has the office by now: as a rule ourselves, or another one who may be running.
fn leave_marker(owner: &Owner, store: &Store, rng: &mut Rng) {
    let offices = crate::workload::world::OFFICES;
    let (profile, kind) = offices[rng.usize(..offices.len())];
    let kind = incumbent::Kind::new(kind).expect("a name of ours");
    let running = store.profile(profile).and_then(|profile| profile.status_of(&kind));
    let Some(to) = running.ok().filter(|it| it.running).and_then(|it| it.instance) else { return };
    leave(owner, store, to, rng);
}

fn leave(owner: &Owner, store: &Store, to: InstanceId, rng: &mut Rng) {
    const LIVES_FOR: Duration = Duration::from_mins(1);
    let token = new_word(rng);
    let name = name_of_note(&token);
    let marker = MarkerName::new(name.as_str()).expect("a name of ours");
    let marker = MarkerRequest::new(marker).reason(token.as_str()).ttl(LIVES_FOR);
    let marker = marker.expect("less than 30 days");
    let op = owner.begin(Call::MarkerWrite { name, to: to.as_i64(), token, ttl_ms: Some(60_000) });
    let written = store.write_marker(to, &marker);
    owner.end(op, written.map_or_else(|error| answers::of_error(&error), |_| Answer::Done));
}

/// A lock, of the office or of the process alone: taken, held, renewed, given back.
pub fn lock_for_a_while(owner: &Owner, store: &Store, tenure: Option<&Tenure>, rng: &mut Rng) {
    let at = rng.usize(..LOCKS.len());
    let kind = LOCKS[at];
    if !kind.exclusive && !owner.busy.lock().insert(at) {
        return;
    }
    if let Some((lock, op)) = acquire(owner, store, tenure, kind, rng) {
        hold(owner, store, lock, op, kind, rng);
    }
    if !kind.exclusive {
        owner.busy.lock().remove(&at);
    }
}

fn acquire(
    owner: &Owner,
    store: &Store,
    tenure: Option<&Tenure>,
    kind: LockKind,
    rng: &mut Rng,
) -> Option<(ScopedLock, Op)> {
    let ttl_ms = chance(rng, 3).then(|| rng.u64(200..1_500));
    let evict_stopped = chance(rng, 15);
    let replace = tenure.is_some() && kind.slots == 1 && chance(rng, 20);
    // A takeover takes its own time.
    let wait = if replace { Wait::Once } else { any_wait(rng).0 };
    let mut asked = request(kind);
    if let Some(ms) = ttl_ms {
        asked = asked.ttl(Duration::from_millis(ms)).expect("a short time");
    }
    let stopped = if evict_stopped { Stopped::Evict } else { Stopped::Respect };
    let options = AcquireOptions::new().wait(library_wait(wait)).stopped(stopped);
    let op = owner.begin(Call::Acquire {
        thing: kind.thing(),
        wait,
        ttl_ms,
        evict_stopped,
        replace,
        pid: None,
    });
    let acquired = match tenure {
        Some(tenure) if replace => only_one(tenure.take_over(&[asked], &options, &Replace::new())),
        Some(tenure) => tenure.acquire(&asked, &options),
        None => store.acquire(&asked, &options),
    };
    match acquired {
        Ok(Acquire::Granted(lock)) => {
            let (incarnation, fence) = (lock.instance().as_i64(), lock.fence());
            let reacquired = lock.reacquired();
            let (heir_of, locks) = (None, Vec::new());
            owner.end(op, Answer::Granted { incarnation, fence, reacquired, heir_of, locks });
            Some((lock, op))
        }
        Ok(Acquire::Held(holder)) => {
            owner.end(op, answers::held(&holder));
            None
        }
        Err(error) => {
            owner.end(op, answers::of_error(&error));
            None
        }
    }
}

/// Of as many locks as were asked for.
fn only_one(
    acquired: incumbent::Result<Acquire<Vec<ScopedLock>>>,
) -> incumbent::Result<Acquire<ScopedLock>> {
    Ok(match acquired? {
        Acquire::Granted(mut locks) => Acquire::Granted(locks.pop().expect("one was asked for")),
        Acquire::Held(holder) => Acquire::Held(holder),
    })
}

fn hold(owner: &Owner, store: &Store, lock: ScopedLock, op: Op, kind: LockKind, rng: &mut Rng) {
    let (thing, incarnation) = (kind.thing(), lock.instance().as_i64());
    let mut witness = Witness::take(&owner.world, &thing, Some(incarnation), Some(op));
    let until = Instant::now() + millis(rng, 5, 400);
    while Instant::now() < until && !owner.is_over() && !owner.is_lost() {
        witness.try_on(&owner.world);
        if chance(rng, 4) {
            let renews = chance(rng, 2);
            let op = owner.begin(if renews {
                Call::Renew { thing: thing.clone(), incarnation }
            } else {
                Call::Verify { thing: thing.clone(), incarnation }
            });
            let standing = if renews { lock.renew() } else { lock.verify() };
            owner.end(op, answers::of_standing(&standing));
            if matches!(standing, Ok(Standing::Lost(_))) {
                break;
            }
            if renews {
                ask_for_lease(owner, store, &thing, &lock);
            }
        }
        std::thread::sleep(TICK);
    }
    witness.out(&owner.world);
    let op = owner.begin(Call::Release { thing, incarnation });
    let released = lock.release();
    owner.end(op, answers::of_release(&released));
}

/// What others see of it. Of several holders the store shows one, which is not always us.
fn ask_for_lease(owner: &Owner, store: &Store, thing: &Thing, lock: &ScopedLock) {
    let op = owner.begin(Call::Lease { thing: thing.clone() });
    let answer = match store.lock(lock.name()) {
        Ok(Some(report)) => Answer::Leased {
            incarnation: report.instance.as_i64(),
            fence: report.fence,
            remaining_ms: report
                .lease_remaining
                .map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        },
        Ok(None) => Answer::No,
        Err(error) => answers::of_error(&error),
    };
    owner.end(op, answer);
}

fn ask(owner: &Owner, store: &Store) {
    let (profile, kind) = owner.names();
    let op = owner.begin(Call::Status { thing: owner.office.clone() });
    let kind = incumbent::Kind::new(kind).expect("a name of ours");
    let report = store.profile(profile).and_then(|profile| profile.status_of(&kind));
    let answer = match report {
        Ok(report) => {
            let reason = report.reason.as_str().to_owned();
            match report.verdict {
                incumbent::Verdict::Alive => Answer::Running {
                    incarnation: report.instance.map(InstanceId::as_i64),
                    reason,
                    word: report.state,
                },
                incumbent::Verdict::Dead => Answer::NotRunning { reason },
                incumbent::Verdict::Unknown => Answer::Unknown { reason },
            }
        }
        Err(error) => answers::of_error(&error),
    };
    owner.end(op, answer);
}

/// Opens the database behind the library's back, and closes it: that cancels SQLite's own locks.
fn stray_open(owner: &Owner) {
    static SECOND: OnceLock<Option<SecondSqlite>> = OnceLock::new();
    let database = owner.world.db(MAIN);
    let pid = owner.world.sees_pids().then(std::process::id);
    let hurt = Hurt::Mischief { pid, how: "opens and closes the database".to_owned() };
    hurting(&owner.world, hurt, |_| {
        let mut first = [0_u8; 100];
        if let Ok(mut file) = File::open(&database) {
            let _ = file.read_exact(&mut first);
        }
        if let Some(second) = SECOND.get_or_init(SecondSqlite::load) {
            let _ = second.once(&database, "SELECT count(*) FROM instances");
        }
    });
}

/// A child that only stays for a moment: it has a copy of every descriptor of ours.
fn fork(owner: &Owner) {
    let pid = owner.world.sees_pids().then(std::process::id);
    let hurt = Hurt::Mischief { pid, how: "forks".to_owned() };
    hurting(&owner.world, hurt, |_| {
        match forked::fork() {
            0 => {
                // Nothing else may be done here: other threads of the parent are in the middle of
                // something.
                forked::alarm(FORKED_FOR_S);
                forked::stay();
            }
            -1 => {}
            child => drop(forked::wait_for(child)),
        }
    });
}
