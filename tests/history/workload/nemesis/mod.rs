//! The nemesis: one that hurts, in every way that processes, files and clocks are hurt.
//!
//! Some of it is done elsewhere, by whom it concerns: clocks and foreign programs in `operations`,
//! forks and stray opens in the owners themselves.

pub mod faults;
pub mod freezer;
pub mod signals;
mod stores;

use fastrand::Rng;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};

use self::faults::hurting;
use self::freezer::Freezer;
use self::signals::{Victim, send};
use super::Order;
use super::actors::Stage;
use super::draw::{chance, millis, one_of, pause};
use super::places::{Fill, has_own_disk};
use super::world::{MAIN, World};
use crate::log::Hurt;
use crate::support::tagged;

/// How long it pauses at most between two faults.
const LONGEST_PAUSE_MS: u64 = 500;

/// What cannot be done here.
pub fn missing(world: &World, order: &Order) -> Vec<&'static str> {
    let mut missing = Vec::new();
    if order.freezer.is_none() {
        missing.push("the freezer: needs root and cgroup2");
    }
    if !has_own_disk(world) {
        missing.push("disks that are full: needs root and mounts");
    }
    missing
}

/// Hurts until the soak is over. Then nobody is hurt any more.
pub fn haunt(stage: &Stage, order: &Order, mut rng: Rng) {
    let freezer = order.freezer.as_deref().map(Freezer::new);
    while !stage.is_over() {
        pause(&mut rng, LONGEST_PAUSE_MS);
        let rng = &mut rng;
        match rng.u32(..20) {
            0..7 => signals::kill(stage, rng),
            7 => signals::ask_to_end(stage, rng),
            8..11 => signals::stop(stage, rng),
            11..13 => {
                if let Some(freezer) = &freezer {
                    freezer.freeze(stage, rng);
                }
            }
            13..15 => stores::lose(stage, rng),
            15 => fill_the_disk(stage, rng),
            16..19 => run_short(stage, rng),
            _ => kill_keepers(stage, rng),
        }
    }
}

fn fill_the_disk(stage: &Stage, rng: &mut Rng) {
    if !has_own_disk(&stage.world) {
        return;
    }
    hurting(&stage.world, Hurt::DiskFull { store: MAIN.to_owned() }, |_| {
        let fill = Fill::up(&stage.world);
        std::thread::sleep(millis(rng, 100, 1_200));
        drop(fill);
    });
}

/// Somebody who lives can open no more files for a while.
fn run_short(stage: &Stage, rng: &mut Rng) {
    let Some(Victim { pid, .. }) = signals::any_victim(stage, rng) else { return };
    let Some(process) = signals::as_process(pid) else { return };
    let files = *one_of(rng, &[0, 3, 6, 10, 16]);
    let hurt = Hurt::Shortage { pid: Some(pid), of: format!("{files} open files") };
    hurting(&stage.world, hurt, |_| {
        // The hard limit stays as it is: not everybody may raise it again.
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: Some(files), maximum };
        // It may have ended since.
        let Ok(before) = prlimit(Some(process), Resource::Nofile, limit) else { return };
        std::thread::sleep(millis(rng, 50, 800));
        let _ = prlimit(Some(process), Resource::Nofile, before);
    });
}

/// One of a pair, which the other one replaces, or all.
fn kill_keepers(stage: &Stage, rng: &mut Rng) {
    let is_keeper = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            line.split(|byte| *byte == 0).any(|word| word.starts_with(b"__keeper"))
        })
    };
    let mut keepers = tagged("IT_SANDBOX", &stage.world.place);
    // Those in another namespace stand for processes of which the log has no pid.
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let ours = namespace("self");
    keepers.retain(|pid| is_keeper(pid) && namespace(&pid.to_string()) == ours);
    if keepers.is_empty() {
        return;
    }
    if !chance(rng, 4) {
        keepers = vec![*one_of(rng, &keepers)];
    }
    hurting(&stage.world, Hurt::Keepers { of: None }, |_| {
        for pid in keepers {
            let _ = send(pid, Signal::KILL);
        }
    });
}
