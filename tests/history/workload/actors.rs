//! Somebody who does one thing after the other, until the soak is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fastrand::Rng;

use super::caller::Caller;
use super::draw::pause;
use super::operations::{asks, containers, kept, owners, runs, stores, verbs};
use super::reaper::Reaper;
use super::weather::Weather;
use super::world::World;

/// What all actors share.
#[derive(Debug)]
pub struct Stage {
    pub world: Arc<World>,
    pub reaper: Arc<Reaper>,
    pub weather: Weather,
    is_over: AtomicBool,
}

impl Stage {
    pub fn new(world: Arc<World>, reaper: Arc<Reaper>) -> Self {
        Self { world, reaper, weather: Weather::default(), is_over: AtomicBool::new(false) }
    }

    pub fn caller(&self) -> Caller<'_> {
        Caller { world: &self.world, reaper: &self.reaper }
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// What an actor does.
#[derive(Clone, Copy, Debug)]
pub enum Trade {
    /// `run`s, one after the other.
    Runs,
    /// Programs that link the library.
    Owners,
    /// Processes that `claim --pid` records.
    Kept,
    /// Stop, restart, evict, unlock.
    Verbs,
    /// Questions.
    Asks,
    /// Import, export, backup, doctor, a foreign program.
    Stores,
    /// All of it in a pid namespace.
    Containers,
}

/// Who is there at once. Those who hold something are the most.
pub const CAST: [Trade; 10] = [
    Trade::Runs,
    Trade::Runs,
    Trade::Owners,
    Trade::Owners,
    Trade::Kept,
    Trade::Verbs,
    Trade::Asks,
    Trade::Stores,
    Trade::Containers,
    Trade::Containers,
];

/// How long an actor pauses at most after each of its acts.
fn longest_pause_ms(trade: Trade) -> u64 {
    match trade {
        Trade::Runs | Trade::Owners | Trade::Kept => 50,
        Trade::Asks | Trade::Containers => 200,
        Trade::Verbs => 500,
        Trade::Stores => 600,
    }
}

pub fn act(stage: &Stage, trade: Trade, rng: &mut Rng) {
    while !stage.is_over() {
        match trade {
            Trade::Runs => runs::one(stage.caller(), rng),
            Trade::Owners => owners::one(stage.caller(), rng),
            Trade::Kept => kept::one(stage.caller(), rng),
            Trade::Verbs => verbs::one(stage.caller(), rng),
            Trade::Asks => asks::one(stage.caller(), rng),
            Trade::Stores => stores::one(stage.caller(), rng),
            Trade::Containers => containers::one(stage, rng),
        }
        pause(rng, longest_pause_ms(trade));
    }
}
