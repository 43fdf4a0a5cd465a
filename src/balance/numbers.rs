//! A worker's random numbers: wyrand (Wang Yi, wyhash final version 4.2), 64 bits of state, one multiplication a
//! number. It belongs to one worker and is passed down to whoever draws. Not for secrets.

use std::cell::Cell;

/// A worker's random numbers (wyrand); not for secrets.
#[derive(Debug)]
pub struct Random(Cell<u64>);

impl Random {
    /// From a seed; any seed is a good one, and neighbouring seeds give unrelated numbers.
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// 64 random bits.
    pub fn next_u64(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x2d35_8dcc_aa6c_78a5);
        self.0.set(state);
        let product = u128::from(state) * u128::from(state ^ 0x8bb8_4b93_962e_acc9);
        (product >> 64) as u64 ^ product as u64
    }

    /// A number from 0 to `n - 1`; 0 if `n` is 0.
    ///
    /// By multiplication and shift (Lemire, "Fast random integer generation in an interval", 2019) without the
    /// rejection step: the bias is below `n / 2^64`.
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
