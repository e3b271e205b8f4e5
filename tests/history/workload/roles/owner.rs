//! A program that links the library: it holds an office and locks, from several threads, and is the
//! witness of what it was granted.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use incumbent::handover::Inherited;
use incumbent::lock::GrantedLock;
use incumbent::stop::Replace;
use incumbent::{Claim, ClaimOptions, LockName, LockRequest, Store, Tenure};
use parking_lot::Mutex;

use super::owner_ends::Next;
use super::{TICK, heed_signals, in_ms, owner_acts, owner_ends};
use crate::log::{Answer, Call, Incarnation, Op, Thing, Wait};
use crate::workload::answers;
use crate::workload::draw::{chance, millis, one_of, pause};
use crate::workload::operations::any_wait;
use crate::workload::witness::Witness;
use crate::workload::world::{LOCKS, LOCKS_OF_VERBS, LockKind, MAIN, Part, World};

/// The successor of an owner that executed it without a word claims, and adopts nothing.
pub const CLAIMS: &str = "claims";

/// How long it may take to stop.
const STOP_BUDGET: Duration = Duration::from_millis(1_500);

pub struct Owner {
    pub world: Arc<World>,
    pub office: Thing,
    /// Somebody asked us to end.
    pub asked: Arc<AtomicBool>,
    /// The office is not ours any more.
    pub lost: Arc<AtomicBool>,
    /// Locks that a thread of ours is about: a guard is shared within a process, so another one
    /// would only hold the same. Not so of an exclusive one.
    pub busy: Mutex<HashSet<usize>>,
    until: Instant,
}

/// An office that we were granted, and by which call.
pub struct Granted {
    pub tenure: Tenure,
    pub op: Op,
    /// Locks that came with it.
    pub locks: Vec<Thing>,
}

pub fn play() -> i32 {
    let (part, world) = (Part::inherited(), Arc::new(World::inherited()));
    let office = part.things.first().expect("an office").clone();
    let owner = Owner {
        world,
        office,
        asked: heed_signals(),
        lost: Arc::default(),
        busy: Mutex::default(),
        until: in_ms(part.life_ms),
    };
    owner.world.i_live("owner", None);
    let mut rng = Rng::with_seed(part.seed);
    let mut heir_of = part.heir_of;
    while !owner.is_over() {
        let Ok(store) = Store::open(owner.world.db(MAIN)) else {
            // Just now there may be none, or no room for one.
            pause(&mut rng, 20);
            continue;
        };
        let granted = match heir_of.take() {
            Some(before) if part.conduct != CLAIMS => owner.adopt(&store, before),
            before => owner.claim(&store, &mut rng, before),
        };
        let Some(granted) = granted else {
            owner_acts::lock_for_a_while(&owner, &store, None, &mut rng);
            pause(&mut rng, 50);
            continue;
        };
        owner.tend(&store, &granted, &mut rng);
        match owner_ends::end(&owner, granted, &mut rng) {
            Next::GoesOn => {}
            Next::Ends => break,
        }
    }
    0
}

/// The request that asks for it.
pub fn request(kind: LockKind) -> LockRequest {
    let request = LockRequest::new(kind.scope, kind.identity).expect("a name of ours");
    let request = if kind.exclusive { request.exclusive() } else { request };
    if kind.slots > 1 { request.slots(kind.slots).expect("a few") } else { request }
}

fn things_of(locks: &[GrantedLock]) -> Vec<(Thing, i64)> {
    let thing_of = |name: &LockName| {
        let is_it = |kind: &&LockKind| {
            LockName::new(kind.scope, kind.identity).is_ok_and(|other| other == *name)
        };
        LOCKS.iter().find(is_it).copied().map(LockKind::thing)
    };
    locks.iter().filter_map(|lock| Some((thing_of(&lock.name)?, lock.fence))).collect()
}

pub fn library_wait(wait: Wait) -> incumbent::Wait {
    match wait {
        Wait::Once => incumbent::Wait::No,
        Wait::AtMost { ms } => incumbent::Wait::UpTo(Duration::from_millis(ms)),
        Wait::Forever => incumbent::Wait::Forever,
    }
}

impl Owner {
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.until || self.asked.load(Ordering::Relaxed)
    }

    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    pub fn begin(&self, call: Call) -> Op {
        self.world.log.begin(&self.world.from, call)
    }

    pub fn end(&self, op: Op, answer: Answer) {
        self.world.log.end(op, answer);
    }

    pub fn names(&self) -> (&str, &str) {
        match &self.office {
            Thing::Office { profile, kind, .. } => (profile.as_str(), kind.as_str()),
            Thing::Lock { scope, identity, .. } => (scope.as_str(), identity.as_str()),
        }
    }

    /// `before`: this process was that incarnation, before it executed itself.
    fn claim(&self, store: &Store, rng: &mut Rng, before: Option<Incarnation>) -> Option<Granted> {
        let (profile, kind) = self.names();
        let replace = chance(rng, 5);
        // A takeover takes its own time.
        let wait = if replace { Wait::Once } else { any_wait(rng).0 };
        let lock = chance(rng, 3).then(|| *one_of(rng, &LOCKS[..LOCKS_OF_VERBS]));
        let kind = incumbent::Kind::new(kind).expect("a name of ours");
        let mut options =
            ClaimOptions::new().kind(kind).stop_budget(STOP_BUDGET).wait(library_wait(wait));
        if replace {
            options = options.replace(Replace::new());
        }
        options = options.locks(lock.map(request));
        let call = Call::Claim {
            thing: self.office.clone(),
            locks: lock.map(LockKind::thing).into_iter().collect(),
            wait,
            replace,
            pid: None,
        };
        let op = self.begin(call);
        let claimed = store.profile(profile).and_then(|profile| profile.claim_with(&options));
        match claimed {
            Ok(Claim::Granted(tenure)) => {
                let evicted = tenure.evicted().map(|evicted| evicted.instance.as_i64());
                let heir_of = before.filter(|before| evicted == Some(*before));
                Some(self.granted(op, tenure, heir_of))
            }
            Ok(Claim::Held(holder)) => {
                self.end(op, answers::held(&holder));
                None
            }
            Err(error) => {
                self.end(op, answers::of_error(&error));
                None
            }
        }
    }

    fn adopt(&self, store: &Store, before: Incarnation) -> Option<Granted> {
        let op = self.begin(Call::Adopt { thing: self.office.clone() });
        match Tenure::from_environment(store) {
            Ok(Inherited::FromPredecessor(tenure) | Inherited::FromRun(tenure)) => {
                Some(self.granted(op, tenure, Some(before)))
            }
            Ok(Inherited::Nothing(why)) => {
                self.end(op, Answer::Lost { reason: Some(why.as_str().to_owned()) });
                None
            }
            Ok(_) => unreachable!("a later version of the library"),
            Err(error) => {
                self.end(op, answers::of_error(&error));
                None
            }
        }
    }

    fn granted(&self, op: Op, tenure: Tenure, heir_of: Option<Incarnation>) -> Granted {
        let incarnation = tenure.instance().as_i64();
        let locks = things_of(&tenure.locks());
        let things = locks.iter().map(|(thing, _)| thing.clone()).collect();
        let reacquired = tenure.reacquired();
        let fence = incarnation;
        self.end(op, Answer::Granted { incarnation, fence, reacquired, heir_of, locks });
        Granted { tenure, op, locks: things }
    }

    /// Acts as the owner for a while, in several threads, and stops.
    fn tend(&self, store: &Store, granted: &Granted, rng: &mut Rng) {
        let tenure = &granted.tenure;
        let incarnation = tenure.instance().as_i64();
        self.lost.store(false, Ordering::Relaxed);
        let things = std::iter::once(&self.office).chain(&granted.locks);
        let mut witnesses: Vec<Witness> = things
            .map(|thing| Witness::take(&self.world, thing, Some(incarnation), Some(granted.op)))
            .collect();
        self.world.i_live("owner", Some(incarnation));
        self.hold_busy(&granted.locks);
        let lost = Arc::clone(&self.lost);
        // Where it cannot be watched, each verify tells.
        let _watch = tenure.watch(move |_| lost.store(true, Ordering::Relaxed));
        let until = Instant::now() + millis(rng, 50, 1_200);
        let is_at_work = || !self.is_over() && !self.is_lost() && Instant::now() < until;
        let threads: Vec<Rng> = (0..3).map(|_| rng.fork()).collect();
        std::thread::scope(|scope| {
            for mut rng in threads {
                scope.spawn(move || {
                    while is_at_work() {
                        owner_acts::one(self, store, tenure, &mut rng);
                        pause(&mut rng, 40);
                    }
                });
            }
            while is_at_work() {
                for witness in &mut witnesses {
                    witness.try_on(&self.world);
                }
                std::thread::sleep(TICK);
            }
            // At once where it is lost: others may have it by now.
            for witness in witnesses.drain(..) {
                witness.out(&self.world);
            }
        });
        self.busy.lock().clear();
    }

    /// What came with the office is not to be taken by a thread as well.
    fn hold_busy(&self, locks: &[Thing]) {
        let mut busy = self.busy.lock();
        busy.extend((0..LOCKS.len()).filter(|at| locks.contains(&LOCKS[*at].thing())));
    }
}
