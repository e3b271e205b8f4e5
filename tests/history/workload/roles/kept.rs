//! A process that does not link the library: verbs record it, and it is the witness of what they
//! were granted for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fastrand::Rng;

use super::{TICK, heed_signals, in_ms, name_of_note, new_word};
use crate::log::{Answer, Call, Thing, Wait};
use crate::workload::caller::{Asked, Caller, How};
use crate::workload::draw::{chance, pause};
use crate::workload::operations::{another_date, any_wait};
use crate::workload::reaper::Reaper;
use crate::workload::witness::Witness;
use crate::workload::world::{Part, World};

struct Kept<'a> {
    caller: Caller<'a>,
    me: String,
    rng: Rng,
    /// The names of markers that we left for ourselves.
    notes: Vec<String>,
    asked: Arc<AtomicBool>,
}

/// What we hold, and as whom.
struct Held {
    witness: Witness,
    incarnation: i64,
}

pub fn play() -> i32 {
    let (part, world) = (Part::inherited(), Arc::new(World::inherited()));
    let asked = heed_signals();
    let reaper = Reaper::start(Arc::clone(&world));
    world.i_live("kept", None);
    let mut kept = Kept {
        caller: Caller { world: &world, reaper: &reaper },
        me: std::process::id().to_string(),
        notes: Vec::new(),
        rng: Rng::with_seed(part.seed),
        asked,
    };
    let mut held: Vec<Held> = part.things.iter().filter_map(|thing| kept.acquire(thing)).collect();
    let until = in_ms(part.life_ms);
    while Instant::now() < until && !kept.is_over() && !held.is_empty() {
        for held in &mut held {
            held.witness.try_on(&world);
        }
        let at = kept.rng.usize(..held.len());
        if kept.one_act(&held[at]) {
            held.swap_remove(at).witness.out(&world);
        }
        std::thread::sleep(TICK);
        pause(&mut kept.rng, 100);
    }
    // A process that ends without a word releases as well.
    let releases = kept.rng.u32(..3) > 0;
    for held in held {
        let (thing, incarnation) = (held.witness.thing().clone(), held.incarnation);
        held.witness.out(&world);
        if releases {
            kept.release(&thing, incarnation);
        }
    }
    0
}

impl Kept<'_> {
    fn is_over(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    fn acquire(&mut self, thing: &Thing) -> Option<Held> {
        let asked = match thing {
            Thing::Office { .. } => self.claim(thing),
            Thing::Lock { scope, identity, .. } => self.lock(thing, scope, identity),
        };
        let incarnation = asked.granted()?;
        let world = self.caller.world;
        world.i_live("kept", Some(incarnation));
        let witness = Witness::take(world, thing, Some(incarnation), Some(asked.op));
        Some(Held { witness, incarnation })
    }

    /// Numbers and fences rise whatever the date is, and nothing else depends on it.
    fn at_some_date(&mut self) -> How {
        if !chance(&mut self.rng, 3) {
            return How::default();
        }
        another_date(self.caller.world, &mut self.rng)
    }

    fn claim(&mut self, thing: &Thing) -> Asked {
        let call = Call::Claim {
            thing: thing.clone(),
            locks: Vec::new(),
            wait: Wait::Once,
            replace: false,
            pid: self.pid(),
        };
        let how = self.at_some_date();
        self.caller.ask_as(&how, call, thing, &["claim", "--pid", &self.me])
    }

    /// As others know it.
    fn pid(&self) -> Option<u32> {
        self.caller.world.sees_pids().then(std::process::id)
    }

    fn lock(&mut self, thing: &Thing, scope: &str, identity: &str) -> Asked {
        let how = self.at_some_date();
        let (wait, wait_option) = any_wait(&mut self.rng);
        let ttl_ms = chance(&mut self.rng, 3).then(|| self.rng.u64(300..2_000));
        let evict_stopped = chance(&mut self.rng, 10);
        let ttl = ttl_ms.map(|ms| format!("--ttl={ms}ms"));
        let mut verb = vec!["lock", "acquire", scope, identity, "--pid", &self.me];
        verb.extend(wait_option.as_deref());
        verb.extend(ttl.as_deref());
        if evict_stopped {
            verb.push("--evict-stopped");
        }
        let call = Call::Acquire {
            thing: thing.clone(),
            wait,
            ttl_ms,
            evict_stopped,
            replace: false,
            pid: self.pid(),
        };
        self.caller.ask_as(&how, call, thing, &verb)
    }

    /// Does something as the holder; whether that is lost.
    fn one_act(&mut self, held: &Held) -> bool {
        let (thing, incarnation) = (held.witness.thing(), held.incarnation);
        let caller = self.caller;
        let me = self.me.clone();
        match thing {
            Thing::Lock { scope, identity, .. } => {
                let (call, verb) = if chance(&mut self.rng, 2) {
                    (Call::Verify { thing: thing.clone(), incarnation }, "verify")
                } else {
                    (Call::Renew { thing: thing.clone(), incarnation }, "renew")
                };
                let verb = ["lock", verb, scope, identity, "--pid", &me];
                let asked = caller.ask(call, thing, &verb);
                matches!(asked.answer, Some(Answer::Lost { .. }))
            }
            Thing::Office { .. } => {
                self.act_in_office(thing, incarnation);
                false
            }
        }
    }

    fn act_in_office(&mut self, office: &Thing, incarnation: i64) {
        let (caller, me) = (self.caller, self.me.clone());
        match self.rng.u32(..4) {
            0 => {
                let word = new_word(&mut self.rng);
                let call = Call::Say { thing: office.clone(), incarnation, word: word.clone() };
                caller.ask(call, office, &["status-set", "--state", &word, "--pid", &me]);
            }
            1 => {
                let token = new_word(&mut self.rng);
                let name = name_of_note(&token);
                let call = Call::MarkerWrite {
                    name: name.clone(),
                    to: incarnation,
                    token: token.clone(),
                    ttl_ms: Some(60_000),
                };
                let verb = ["marker", "write", &name, "--pid", &me, "--reason", &token];
                let asked = caller.ask(call, office, &[&verb[..], &["--ttl", "60s"]].concat());
                if asked.answer == Some(Answer::Done) {
                    self.notes.push(name);
                }
            }
            2 => {
                let call = Call::MarkerPeek { name: None, me: incarnation };
                caller.ask(call, office, &["marker", "peek", "--pid", &me]);
            }
            _ => {
                let Some(name) = self.notes.pop() else { return };
                let call = Call::MarkerConsume { name: Some(name.clone()), me: incarnation };
                caller.ask(call, office, &["marker", "consume", &name, "--pid", &me]);
            }
        }
    }

    fn release(&self, thing: &Thing, incarnation: i64) {
        let call = Call::Release { thing: thing.clone(), incarnation };
        match thing {
            Thing::Office { .. } => {
                self.caller.ask(call, thing, &["release", "--pid", &self.me]);
            }
            Thing::Lock { scope, identity, .. } => {
                let verb = ["lock", "release", scope, identity, "--pid", &self.me];
                self.caller.ask(call, thing, &verb);
            }
        }
    }
}
