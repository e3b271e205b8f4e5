//! Handovers one after the other, while a contender claims all the time: never free, never two,
//! fences rise, locks move along.
//!
//! `INCUMBENT_TEST_ROUNDS=long` makes 200 of them; `INCUMBENT_TEST_SEED` repeats the choices, not
//! the races.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use incumbent::{Claim, Store};
use serde_json::json;

use crate::handover::Owns;
use crate::support::{LIMIT, Process, Random, Sandbox, ask, rounds, told, wait_ended};

/// Longer than a successor takes to adopt, from its start: in microseconds.
pub const DIES_WITHIN_US: u64 = 12_000;

/// What the contender has met.
#[derive(Default)]
pub struct Contender {
    is_over: AtomicBool,
    polls: AtomicUsize,
    /// How often the office was to be had.
    granted: AtomicUsize,
}

impl Contender {
    /// Ends it when that is dropped.
    pub fn end_with(&self) -> Over<'_> {
        Over(&self.is_over)
    }

    pub fn contend(&self, store: &Store) {
        let profile = store.profile("default").unwrap();
        while !self.is_over.load(Ordering::Relaxed) {
            match profile.claim().unwrap() {
                Claim::Granted(tenure) => {
                    self.granted.fetch_add(1, Ordering::SeqCst);
                    tenure.release().unwrap();
                }
                Claim::Held(_) => {}
            }
            self.polls.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub fn granted(&self) -> usize {
        self.granted.load(Ordering::SeqCst)
    }

    /// Returns once it has looked from beginning to end.
    pub fn looks(&self) {
        let before = self.polls.load(Ordering::SeqCst);
        crate::support::eventually("a look of the contender", LIMIT, || {
            (self.polls.load(Ordering::SeqCst) > before + 1).then_some(())
        });
    }
}

/// The owner of now, and what it had last.
struct Chain {
    gateway: Process,
    owns: Owns,
    fence: i64,
}

impl Chain {
    fn begin(sandbox: &Sandbox) -> Self {
        let mut gateway = sandbox.predecessor();
        let owns = Owns::parse(&told(&mut gateway));
        let mut chain = Self { gateway, owns, fence: 0 };
        chain.lock(false);
        chain
    }

    /// Asks for the lock, which it has if it was moved along.
    fn lock(&mut self, is_moved: bool) {
        let said = ask(&mut self.gateway, "lock chat");
        let fence = said.strip_prefix("fence ").and_then(|it| it.split_once(' '));
        let (fence, reacquired) = fence.unwrap_or_else(|| panic!("{said}"));
        assert_eq!(reacquired, is_moved.to_string(), "{said}");
        let fence: i64 = fence.parse().unwrap();
        assert!(fence > self.fence, "{fence} after {}", self.fence);
        self.fence = fence;
    }

    /// It goes on as a later generation.
    fn goes_on_as(&mut self, next: Owns) {
        assert_eq!(next.how, "predecessor");
        assert!(next.instance > self.owns.instance, "{next:?} after {:?}", self.owns);
        self.owns = next;
        assert_eq!(ask(&mut self.gateway, "verify"), "Held");
        self.lock(true);
    }

    fn exec(&mut self) {
        let next = Owns::parse(&ask(&mut self.gateway, "exec adopts"));
        assert_eq!(next.pid, self.owns.pid);
        self.goes_on_as(next);
    }

    fn hand_over(&mut self) {
        self.gateway.say("hand over 60000 adopts");
        let (one, other) = (told(&mut self.gateway), told(&mut self.gateway));
        let (owns, handed) = if one.starts_with("owns ") { (one, other) } else { (other, one) };
        let next = Owns::parse(&owns);
        assert_eq!(handed, format!("handed over {} {}", next.instance, next.pid));
        assert_ne!(next.pid, self.owns.pid);
        assert!(wait_ended(self.owns.pid, LIMIT), "its work is done");
        self.goes_on_as(next);
    }

    /// The successor is killed at some moment. Whether the owner has the office as before; if not,
    /// the successor had it, and died.
    fn hand_over_to_the_dying(&mut self, after_us: u64) -> bool {
        self.gateway.say(&format!("hand over 60000 dies {after_us}"));
        let mut said = told(&mut self.gateway);
        while said.starts_with("owns ") || said.starts_with("nothing ") {
            said = told(&mut self.gateway);
        }
        if said.starts_with("kept: ") {
            assert_eq!(ask(&mut self.gateway, "verify"), "Held");
            assert_eq!(ask(&mut self.gateway, "verify locks").matches("Held").count(), 1);
            return true;
        }
        assert!(said.starts_with("handed over "), "{said}");
        assert!(wait_ended(self.owns.pid, LIMIT));
        false
    }

    /// The same by an exec, after which there is nobody to go back to.
    fn exec_the_dying(&mut self, after_us: u64) {
        self.gateway.say(&format!("exec dies {after_us}"));
        assert!(wait_ended(self.owns.pid, LIMIT));
    }
}

#[test]
fn an_office_that_is_handed_on_is_never_free_and_never_of_two() {
    let sandbox = Sandbox::new();
    let mut random = Random::seeded();
    let mut chain = Chain::begin(&sandbox);
    let contender = Contender::default();
    let store = Store::open(sandbox.db()).unwrap();
    let (mut kept, mut died) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| contender.contend(&store));
        // Also where the chain fails.
        let _over = contender.end_with();
        for round in 0..rounds(24, 200) {
            let before = contender.granted();
            let after_us = random.below(DIES_WITHIN_US);
            let lives = match round % 4 {
                0 => {
                    chain.exec();
                    true
                }
                1 => {
                    chain.hand_over();
                    true
                }
                2 => chain.hand_over_to_the_dying(after_us),
                _ if random.chance(4) => {
                    chain.exec_the_dying(after_us);
                    false
                }
                _ => chain.hand_over_to_the_dying(after_us),
            };
            contender.looks();
            if lives {
                assert_eq!(contender.granted(), before, "it was free in round {round}");
                kept += 1;
                continue;
            }
            // Its owner is dead: then it is free, and nobody is kept out.
            died += 1;
            crate::support::eventually("a grant", LIMIT, || {
                (contender.granted() > before).then_some(())
            });
            chain = Chain { fence: chain.fence, ..Chain::begin(&sandbox) };
        }
    });
    assert!(contender.polls.load(Ordering::SeqCst) > 0);
    eprintln!("{kept} handovers with a living owner, {died} owners that died");
    assert!(kept > 0);
    let owner = chain.owns.clone();
    let status = sandbox.assert_held_by(&owner);
    assert_eq!(status["locks"].as_array().map(Vec::len), Some(1), "{status:#}");
    let two = "SELECT count(*) FROM instances WHERE ended_at_ms IS NULL AND kind IS NOT NULL";
    assert_eq!(json!(sandbox.number(two)), json!(1));
}

/// Ends the contender with the test.
pub struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
