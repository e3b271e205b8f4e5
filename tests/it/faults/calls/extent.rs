//! How much is tried, and which part of it: what the environment asks for.

use std::time::{Duration, Instant};

use super::fault::Fault;
use crate::support::Random;

/// Which sample a build tries.
const SEED: u64 = 14;

/// What is tried of each verb: all of it, or so many faults.
#[derive(Clone, Copy, Debug)]
enum Extent {
    All,
    Sample(usize),
}

/// What one run of these tests is to do.
#[derive(Debug)]
pub struct Wanted {
    extent: Extent,
    /// The first of so many parts, counted from 0.
    part: (usize, usize),
    /// Verbs with these words; empty: all.
    pub only: String,
    pub seed: u64,
    started: Instant,
    limit: Option<Duration>,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Wanted {
    /// From the environment, which may say nothing: then it is `sample`, so many faults of each
    /// row, and so long. A busy machine tries less of it instead of taking longer; "all" ends when
    /// it is done, unless it is told otherwise.
    pub fn from_environment(sample: (usize, Duration)) -> Self {
        let (sample, sample_limit) = sample;
        let extent = match variable("INCUMBENT_FAULTS").as_deref() {
            Some("all") => Extent::All,
            Some(number) => {
                Extent::Sample(number.parse().expect("INCUMBENT_FAULTS: all, or a number"))
            }
            None => Extent::Sample(sample),
        };
        let part = variable("INCUMBENT_FAULTS_PART").map_or((0, 1), |part| {
            let numbers = part.split_once('/').and_then(|(nth, of)| {
                let (nth, of) = (nth.parse::<usize>().ok()?, of.parse::<usize>().ok()?);
                (1..=of).contains(&nth).then(|| (nth - 1, of))
            });
            numbers.expect("INCUMBENT_FAULTS_PART: 3/8 is the third of eight")
        });
        let minutes = variable("INCUMBENT_FAULTS_MINUTES").map(|minutes| {
            let minutes: u64 = minutes.parse().expect("INCUMBENT_FAULTS_MINUTES: a number");
            Duration::from_mins(minutes)
        });
        let seed = variable("INCUMBENT_TEST_SEED");
        let seed = seed.map_or(SEED, |seed| seed.parse().expect("INCUMBENT_TEST_SEED: a number"));
        let limit = match extent {
            Extent::All => minutes,
            Extent::Sample(_) => Some(minutes.unwrap_or(sample_limit)),
        };
        let wanted = Self {
            extent,
            part,
            only: variable("INCUMBENT_FAULTS_ONLY").unwrap_or_default(),
            seed,
            started: Instant::now(),
            limit,
        };
        eprintln!("INCUMBENT_TEST_SEED={seed} {wanted:?}");
        wanted
    }

    pub fn took(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether no other fault is to be begun.
    pub fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.took() >= limit)
    }

    /// What is to be tried of all that is possible, in an order of chance: where the time is over
    /// before the end, what was tried is spread over all of it.
    pub fn chosen(&self, mut possible: Vec<Fault>, random: &mut Random) -> Vec<Fault> {
        let (part, parts) = self.part;
        let mut at = 0;
        possible.retain(|_| {
            at += 1;
            at % parts == (part + 1) % parts
        });
        shuffle(&mut possible, random);
        if let Extent::Sample(count) = self.extent {
            possible.truncate(count);
        }
        possible
    }
}

pub fn shuffle<T>(all: &mut [T], random: &mut Random) {
    for end in (1..all.len()).rev() {
        all.swap(end, random.index(end + 1));
    }
}
