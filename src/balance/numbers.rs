//! A worker's random numbers, passed down to whatever draws: fastrand's wyrand (64 bits of state, one multiplication a
//! number) in a cell, since pickers share it. Not for secrets: its state can be worked out from its numbers.

use std::cell::Cell;

/// A worker's random numbers (wyrand); not for secrets.
#[derive(Debug)]
pub struct Random(Cell<u64>);

impl Random {
    /// Any seed is a good one, and neighbouring seeds give unrelated numbers.
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// 64 random bits.
    pub fn next_u64(&self) -> u64 {
        // The whole state of a fastrand generator is its seed.
        let mut generator = fastrand::Rng::with_seed(self.0.get());
        let number = generator.u64(..);
        self.0.set(generator.get_seed());
        number
    }

    /// A number from 0 to `n - 1`; 0 if `n` is 0.
    ///
    /// Multiplies and shifts (Lemire, "Fast random integer generation in an interval", 2019) without the rejection
    /// step that fastrand adds: the bias is below `n / 2^64`.
    pub fn below(&self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_and_cover_the_interval() {
        let random = Random::new(7);
        let mut seen = [0u32; 10];
        for _ in 0..10_000 {
            seen[random.below(10) as usize] += 1;
        }
        for (number, count) in seen.into_iter().enumerate() {
            // Expected 1000, standard deviation 30; the seed is fixed.
            assert!((850..1150).contains(&count), "{number}: {count}");
        }
        assert_eq!(random.below(1), 0);
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn the_seed_decides_the_sequence() {
        let sequence = |seed| {
            let random = Random::new(seed);
            [random.next_u64(), random.next_u64(), random.next_u64()]
        };
        assert_eq!(sequence(1), sequence(1));
        assert_ne!(sequence(1), sequence(2));
        assert_ne!(sequence(0)[0], sequence(0)[1]);
    }
}
