//! Times things in turn, so that what disturbs one disturbs the others as well.

use std::time::{Duration, Instant};

/// Does something so many times; how long all of them took.
pub type Batch = Box<dyn FnMut(u32) -> Duration>;

/// One thing that is done again and again, with all that it holds.
pub type Once = Box<dyn FnMut()>;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Of each side.
    pub rounds: usize,
    /// How long one batch should take: long enough for the clock, short enough that a disturbance
    /// spoils one round and not all.
    pub batch: Duration,
}

pub const THOROUGH: Effort = Effort { rounds: 61, batch: Duration::from_millis(6) };

pub const QUICK: Effort = Effort { rounds: 9, batch: Duration::from_millis(3) };

/// What was measured of each side, in the order of the sides.
#[derive(Debug)]
pub struct Compared {
    /// The median time of one, in microseconds.
    pub us: Vec<f64>,
    /// The median ratio of the first side to this one, each taken within one round.
    pub ratio: Vec<f64>,
}

impl Compared {
    /// How the first side compares with the side `at`, turned round: the second to the first.
    pub fn times_the_first(&self, at: usize) -> f64 {
        1.0 / self.ratio[at]
    }
}

pub fn batch_of(mut once: Once) -> Batch {
    Box::new(move |repeats| {
        let start = now();
        for _ in 0..repeats {
            once();
        }
        start.elapsed()
    })
}

/// One thing that takes milliseconds and says itself how long it took; for what has to be prepared
/// each time.
pub fn batch_of_timed(mut once: impl FnMut() -> Duration + 'static) -> Batch {
    Box::new(move |repeats| (0..repeats).map(|_| once()).sum())
}

#[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Each round does one batch of each side, and each round begins with another side.
pub fn in_turn(sides: &mut [Batch], effort: Effort) -> Compared {
    let repeats: Vec<u32> = sides.iter_mut().map(|side| repeats_for(side, effort.batch)).collect();
    let mut rounds = vec![vec![0.0; sides.len()]; effort.rounds];
    for (number, round) in rounds.iter_mut().enumerate() {
        for offset in 0..sides.len() {
            let at = (number + offset) % sides.len();
            let took = sides[at](repeats[at]);
            round[at] = micros(took) / f64::from(repeats[at]);
        }
    }
    let of = |value: &dyn Fn(&Vec<f64>) -> f64| median(rounds.iter().map(value).collect());
    Compared {
        us: (0..sides.len()).map(|at| of(&|round| round[at])).collect(),
        ratio: (0..sides.len()).map(|at| of(&|round| round[0] / round[at])).collect(),
    }
}

/// As many as fill a batch. What is tried out here also warms it up.
fn repeats_for(side: &mut Batch, batch: Duration) -> u32 {
    const REPEATS_MAX: u32 = 20_000;
    let mut repeats = 1;
    loop {
        let took = side(repeats);
        if took >= batch || repeats >= REPEATS_MAX {
            return repeats;
        }
        // No more than eight times as many: the first ones are slower than the others.
        let wanted = batch.as_secs_f64() / took.as_secs_f64().max(1e-7) * f64::from(repeats);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let wanted = wanted.clamp(1.0, f64::from(REPEATS_MAX)) as u32;
        if wanted <= repeats + repeats / 4 {
            return repeats;
        }
        repeats = wanted.min(repeats * 8);
    }
}

pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A distribution that was measured, sorted.
#[derive(Clone, Debug)]
pub struct Spread(Vec<f64>);

impl Spread {
    pub fn of(mut us: Vec<f64>) -> Self {
        us.sort_by(f64::total_cmp);
        Self(us)
    }

    /// In the unit of what was measured.
    pub fn at(&self, per_mille: usize) -> f64 {
        match self.0.len() {
            0 => f64::NAN,
            len => self.0[(len - 1) * per_mille / 1_000],
        }
    }

    pub fn p50(&self) -> f64 {
        self.at(500)
    }

    pub fn p99(&self) -> f64 {
        self.at(990)
    }

    pub fn worst(&self) -> f64 {
        self.at(1_000)
    }
}
