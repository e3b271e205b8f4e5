//! The rounds over all that is asked: each is observed once, and then tried a few faults at a time,
//! so that all come far equally where the time is over before the end.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::coverage::Coverage;
use super::extent::{Wanted, shuffle};
use super::fault::{Fault, Site, possible};
use crate::support::Random;

/// Faults of one turn.
const TURN: usize = 20;

/// Something that is asked in several ways, with and without a fault.
pub trait Walk: Sync {
    /// What is asked.
    type Key: Send;
    /// What a thread keeps from one turn to the next.
    type Kept: Default;

    /// Its row in the table.
    fn label(&self, key: &Self::Key) -> String;

    /// Asks without a fault: the calls that it makes. An error says what is wrong already.
    fn observe(&self, key: &Self::Key, kept: &mut Self::Kept) -> Result<Vec<Site>, String>;

    /// Asks with this fault.
    fn meet(&self, key: &Self::Key, fault: &Fault, kept: &mut Self::Kept);
}

struct Job<K> {
    key: K,
    /// Each has a seed of its own: which thread takes it does not matter.
    seed: u64,
    /// `None` before it was observed.
    left: Option<Vec<Fault>>,
}

/// Tries all `keys`, by so many threads, until all is done or the time is over.
pub fn take_turns<W: Walk>(
    walk: &W,
    keys: Vec<W::Key>,
    threads: usize,
    wanted: &Wanted,
    coverage: &Mutex<Coverage>,
) {
    let mut jobs: Vec<_> = (0..)
        .zip(keys)
        .map(|(nth, key)| Job { key, seed: wanted.seed.wrapping_add(nth), left: None })
        .collect();
    shuffle(&mut jobs, &mut Random::new(wanted.seed));
    let queue = Mutex::new(VecDeque::from(jobs));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut kept = W::Kept::default();
                while !wanted.is_over() {
                    let Some(mut job) = queue.lock().unwrap().pop_front() else { return };
                    let is_known = observe(walk, &mut job, wanted, coverage, &mut kept);
                    if is_known && turn(walk, &mut job, wanted, &mut kept) {
                        queue.lock().unwrap().push_back(job);
                    }
                }
            });
        }
    });
}

const BUSY_TRIES: usize = 5;

/// Whether its faults are known; they are looked for once.
fn observe<W: Walk>(
    walk: &W,
    job: &mut Job<W::Key>,
    wanted: &Wanted,
    coverage: &Mutex<Coverage>,
    kept: &mut W::Kept,
) -> bool {
    if job.left.is_some() {
        return true;
    }
    let label = walk.label(&job.key);
    let mut observed = walk.observe(&job.key, kept);
    // On a loaded machine a verb that waits 50 ms may have no time left to write.
    for _ in 0..BUSY_TRIES {
        if !observed.as_ref().is_err_and(|why| why.contains("\"kind\": \"busy\"")) {
            break;
        }
        observed = walk.observe(&job.key, kept);
    }
    match observed {
        Ok(sites) => {
            let mut random = Random::new(job.seed);
            let (faults, unlisted) = possible(&sites, &mut random);
            coverage.lock().unwrap().possible(&label, &faults, unlisted);
            job.left = Some(wanted.chosen(faults, &mut random));
            true
        }
        Err(why) => {
            coverage.lock().unwrap().complain(format!("{label}: without a fault"), why);
            false
        }
    }
}

/// Tries some of its faults; whether there are more.
fn turn<W: Walk>(walk: &W, job: &mut Job<W::Key>, wanted: &Wanted, kept: &mut W::Kept) -> bool {
    let Some(left) = &mut job.left else { return false };
    for fault in left.split_off(left.len().saturating_sub(TURN)) {
        if wanted.is_over() {
            return false;
        }
        walk.meet(&job.key, &fault, kept);
    }
    !left.is_empty()
}
