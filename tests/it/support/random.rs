//! Chance that can be repeated.

use std::time::Duration;

/// A small generator (xorshift): what matters is that a seed can be given again.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Seeds beside each other shall not begin alike.
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        random.next();
        random
    }

    /// From `INCUMBENT_TEST_SEED`, or a new one; says which.
    pub fn seeded() -> Self {
        let given = std::env::var("INCUMBENT_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| getrandom::u64().unwrap());
        eprintln!("INCUMBENT_TEST_SEED={seed}");
        Self::new(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap()
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_be_bytes()[0]).collect()
    }

    /// Not a synchronisation: the blind shot is the test.
    pub fn pause_up_to(&mut self, longest: Duration) {
        let longest_us = u64::try_from(longest.as_micros()).unwrap();
        std::thread::sleep(Duration::from_micros(self.below(longest_us + 1)));
    }
}
