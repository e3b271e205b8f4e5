//! The store is lost, in one of the ways in which people lose it.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::faults::hurting;
use crate::log::Hurt;
use crate::workload::actors::Stage;
use crate::workload::draw::one_of;
use crate::workload::places::Loss;
use crate::workload::sqlite::backup_of;
use crate::workload::weather::Weather;
use crate::workload::world::MAIN;

/// How long we wait for those in namespaces of their own to end; if they do not, another time.
const CLEAR_WITHIN: Duration = Duration::from_secs(15);

pub fn lose(stage: &Stage, rng: &mut Rng) {
    let loss = *one_of(rng, &Loss::ALL);
    let needs_copy = matches!(loss, Loss::Restored | Loss::CopiedOver);
    if needs_copy && !backup_of(&stage.world).exists() {
        return;
    }
    if !loss.hides_owners() {
        return happens(stage, loss);
    }
    let until = Instant::now() + CLEAR_WITHIN;
    while !stage.weather.close() && Instant::now() < until && !stage.is_over() {
        std::thread::sleep(Duration::from_millis(10));
    }
    // Asked again: it is open again when this is dropped.
    let closed = Closed(&stage.weather, stage);
    if stage.weather.close() {
        happens(stage, loss);
    }
    drop(closed);
}

/// New namespaces may be made again, once those who live now have ended.
struct Closed<'a>(&'a Weather, &'a Stage);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        let alive = self.1.world.all_alive();
        self.0.open(alive.into_iter().map(|(pid, _, _)| pid).collect());
    }
}

fn happens(stage: &Stage, loss: Loss) {
    let store = MAIN.to_owned();
    let hurt = match loss {
        Loss::Wal => Hurt::WalLost { store },
        _ => Hurt::StoreLost { store, how: loss.name().to_owned() },
    };
    // What is not there just now cannot be lost.
    let _ = hurting(&stage.world, hurt, |_| loss.happens(&stage.world));
}
