use std::time::Duration;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// Chance by a seed: the same seed throws the same on every machine.
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// Each stream of a seed is independent of its others.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        Self(generator)
    }

    /// A number from 0, less than `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        // The remainder favours low numbers by less than one in 2^32 here.
        (self.0.next_u64() % limit as u64) as usize
    }

    /// A number of the range, its ends included.
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    /// A time of whole milliseconds, from `least` to `most`.
    pub fn time(&mut self, least: Duration, most: Duration) -> Duration {
        Duration::from_millis(self.between(least.as_millis() as usize, most.as_millis() as usize) as u64)
    }

    /// Whether something happens that does so `times` in a hundred times.
    pub fn percent(&mut self, times: usize) -> bool {
        self.below(100) < times
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// Puts them in an order by chance.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
