//! `power_of_two`: of two distinct members, drawn by weight, the one with less in flight per unit of weight
//! (M. Mitzenmacher, "The power of two choices in randomized load balancing", 2001). The first of two equals wins.

use std::cmp::Ordering;

use super::Random;
use super::group::Candidates;
use super::weighted_draw::WeightedDraw;

/// The less loaded of two; the only one if there is but one. O(1), and O(n) while most draws are refused.
pub(super) fn pick(
    members: &WeightedDraw,
    candidates: &Candidates<'_>,
    random: &Random,
) -> Option<u32> {
    let first = members.pick(candidates, random)?;
    if members.ids().len() == 1 {
        return Some(first);
    }
    match members.pick_but(Some(first), candidates, random) {
        Some(second) if candidates.load(second).cmp(candidates.load(first)) == Ordering::Less => {
            Some(second)
        }
        _ => Some(first),
    }
}

#[cfg(test)]
mod tests {
    use crate::balance::fixture::{Bench, assert_shares};
    use crate::model::health::Health;
    use crate::model::settings::Policy;

    #[test]
    fn idle_equals_share_alike() {
        let counts = Bench::new(Policy::PowerOfTwo, &[1; 5]).counts(50_000, 11);
        assert_shares(&counts, &[1; 5]);
    }

    #[test]
    fn the_most_loaded_is_never_taken_while_another_is_accepted() {
        let bench = Bench::new(Policy::PowerOfTwo, &[1, 1, 1]);
        for _ in 0..3 {
            bench.backend(1).start();
        }
        let counts = bench.counts(30_000, 5);
        assert_eq!(counts[1], 0);
        // Of three pairs, each idle one wins the one with the loaded member and half of the third.
        assert_shares(&[counts[0], counts[2]], &[1, 1]);
        for index in [0, 2] {
            bench.backend(index).set_health(Health::CHECK_DOWN);
        }
        assert_eq!(bench.counts(100, 6), [0, 100, 0]);
    }

    #[test]
    fn load_is_counted_per_unit_of_weight() {
        let bench = Bench::new(Policy::PowerOfTwo, &[1, 4]);
        for _ in 0..2 {
            bench.backend(1).start();
        }
        // 1/1 against 3/4: the heavier one, though it has more in flight.
        assert_eq!(bench.counts(1000, 7), [0, 1000]);
        for _ in 0..2 {
            bench.backend(1).start();
        }
        assert_eq!(bench.counts(1000, 8), [1000, 0]);
    }

    #[test]
    fn sessions_that_stay_spread_by_weight() {
        let weights = [1, 2, 3, 4];
        let bench = Bench::new(Policy::PowerOfTwo, &weights);
        for _ in 0..10_000 {
            let taken = bench.pick().unwrap();
            bench.backend(taken).start();
        }
        for (index, weight) in weights.into_iter().enumerate() {
            let held = bench.backend(index).in_flight();
            assert!(held.abs_diff(weight * 1000) < 30, "{index}: {held}");
        }
    }
}
