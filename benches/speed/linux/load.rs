//! What else a machine has to do, and snapshots beside it.
//!
//! Each snapshot is taken by a thread that has slept before, as the one that waits for signals
//! does; so what the scheduler makes it wait is in the figures.

use std::hint::black_box;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use incumbent::{Tenure, forensics};

use super::library::{claim_as, store};
use super::measure::{Spread, micros, now};
use super::stores::Places;
use super::table::{Row, Table, Target, spread};

const PROCESSES: usize = 2_000;

const BUSY_LOOPS_PER_CORE: usize = 2;

const SIGTERM: i32 = 15;

const ALONE: &str = "snapshot";

const WHOLE: &str = "snapshot with its row and the markers";

/// Processes that do nothing; ended when dropped.
pub struct Sleepers(Vec<Child>);

impl Sleepers {
    pub fn start(count: usize) -> Self {
        Self((0..count).map(|_| start("exec sleep 100000")).collect())
    }

    fn busy(mut self) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let loops = (0..cores * BUSY_LOOPS_PER_CORE).map(|_| start("while :; do :; done"));
        self.0.extend(loops);
        self
    }
}

fn start(script: &str) -> Child {
    Command::new("/bin/sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("a process")
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

pub fn rows(table: &mut Table, places: &Places, rounds: usize) {
    let busy = ", two busy loops per core and 2000 processes";
    let wants =
        |beside: &str| [ALONE, WHOLE].iter().any(|name| table.wants(&format!("{name}{beside}")));
    let (wants_idle, wants_busy) = (wants(""), wants(busy));
    let tenure = claim_as(&store(&places.store("snapshots")), "bench");
    if wants_idle {
        snapshots(table, &tenure, rounds, "", Duration::from_millis(1));
    }
    if wants_busy {
        let load = Sleepers::start(PROCESSES).busy();
        snapshots(table, &tenure, rounds, busy, Duration::from_millis(10));
        drop(load);
    }
}

fn snapshots(table: &mut Table, tenure: &Tenure, rounds: usize, beside: &str, bound: Duration) {
    let bound_ms = bound.as_secs_f64() * 1_000.0;
    let mut push = |name: &str, took: &dyn Fn() -> Spread, promised: bool| {
        let name = format!("{name}{beside}");
        if !table.wants(&name) {
            return;
        }
        let took = took();
        let p99 = Some(took.p99() / 1_000.0);
        let targets =
            promised.then(|| Target::at_most("at p99", bound_ms, p99, " ms")).into_iter().collect();
        table.push(Row { name, ours: spread(&took), targets, ..Row::default() });
    };
    let alone = || measure(rounds, || drop(black_box(forensics::snapshot(Some(SIGTERM)))));
    push(ALONE, &alone, true);
    let whole = || {
        measure(rounds, || {
            black_box(tenure.snapshot(Some(SIGTERM)).recorded).ok();
        })
    };
    push(WHOLE, &whole, false);
}

fn measure(rounds: usize, take: impl Fn()) -> Spread {
    const PAUSE: Duration = Duration::from_millis(2);
    take();
    let took = (0..rounds).map(|_| {
        std::thread::sleep(PAUSE);
        let started = now();
        take();
        micros(started.elapsed())
    });
    Spread::of(took.collect())
}
