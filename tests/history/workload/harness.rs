//! The parent of all: a process of its own, in mounts of its own. It starts the actors and the
//! nemesis, ends them, and has the last look.

use std::path::Path;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;

use super::actors::{CAST, Stage, act};
use super::reaper::Reaper;
use super::world::{LOCKS, LockKind, OFFICES, World, complaints, log_of, office};
use super::{ORDER, Order, deaths, last_look, nemesis, operations, places, witness};
use crate::log::What;
use crate::support::{LIMIT, eventually, set_mode};

/// How often it is told that the soak goes on: whoever waits for us takes silence for a hang.
const TELL_EVERY: Duration = Duration::from_secs(10);

pub fn play() -> i32 {
    // A run that has a terminal shares its session with its command, one without makes a new one:
    // here none has one, wherever the tests were started.
    let _ = rustix::process::setsid();
    let order = std::env::var(ORDER).expect("the test says what is to be done");
    let order: Order = serde_json::from_str(&order).expect("an order of ours");
    prepare();
    let world = Arc::new(World::inherited());
    witness::prepare(
        &world,
        (0..OFFICES.len()).map(office).chain(LOCKS.into_iter().map(LockKind::thing)),
    );
    let missing = operations::missing().into_iter().chain(nemesis::missing(&world, &order));
    for missing in missing {
        eprintln!("SKIPPED: {missing}");
    }
    let text = format!("{} ms, {} actors", order.length_ms, CAST.len());
    world.log.say(What::Start { seed: order.seed, text });
    let reaper = Reaper::start(Arc::clone(&world));
    deaths::watch(Arc::clone(&world), Arc::clone(&reaper));
    let stage = Stage::new(world, reaper);

    let failures = perform(&stage, &order);
    eprintln!("the soak is over: ending everything");
    end_all(&stage);
    places::put_back(&stage.world);
    let refused = last_look::look(&stage);
    assert!(failures == 0, "{failures} threads of the workload failed: see above");
    assert!(refused.is_empty(), "when all was over, this was not granted: {refused:?}");
    0
}

/// Everybody at once, until the time is over or one of them failed. How many did.
fn perform(stage: &Stage, order: &Order) -> usize {
    let mut seeds = Rng::with_seed(order.seed);
    let until = Instant::now() + Duration::from_millis(order.length_ms);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for trade in CAST {
            let mut rng = seeds.fork();
            threads.push(scope.spawn(move || act(stage, trade, &mut rng)));
        }
        let rng = seeds.fork();
        threads.push(scope.spawn(move || nemesis::haunt(stage, order, rng)));
        let mut told = Instant::now();
        while Instant::now() < until && !threads.iter().any(ScopedJoinHandle::is_finished) {
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
                let left = until.saturating_duration_since(told);
                eprintln!("the soak goes on for {left:.0?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        stage.end();
        threads.into_iter().filter_map(|thread| thread.join().err()).count()
    })
}

/// What the parts need to find, of whatever user they are.
fn prepare() {
    let place = std::env::var_os(super::world::PLACE).expect("started by a soak");
    let place = Path::new(&place);
    for (name, mode) in [("disk", 0o755), ("other", 0o700), ("said", 0o700), ("alive", 0o777)] {
        let directory = place.join(name);
        // The disk is mounted there already, if there is one.
        std::fs::create_dir_all(&directory).unwrap();
        set_mode(&directory, mode);
    }
    for file in [log_of(place), complaints(place)] {
        std::fs::write(&file, "").unwrap();
        set_mode(&file, 0o666);
    }
}

/// Asks all who hold something to end, heirs included, until there are none.
fn end_all(stage: &Stage) {
    let text = "everybody is asked to end".to_owned();
    stage.world.log.say(What::Note { text });
    let mut asked = Vec::new();
    eventually("the end of everybody", LIMIT, || {
        let alive = stage.world.all_alive();
        for (pid, _, _) in &alive {
            if !asked.contains(pid) {
                asked.push(*pid);
                let _ = nemesis::signals::send(*pid, Signal::TERM);
            }
        }
        (alive.is_empty() && stage.reaper.running().is_empty()).then_some(())
    });
}
