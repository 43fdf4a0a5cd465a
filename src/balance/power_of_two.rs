//! `power_of_two`: of two distinct backends, drawn by weight, the one with less in flight per unit of weight (M.
//! Mitzenmacher, "The power of two choices in randomized load balancing", 2001). Of two equals, the first wins.

use std::cmp::Ordering;

use super::Random;
use super::tier_view::TierView;
use super::weighted_draw::WeightedDraw;

/// Picks the less loaded of two backends, or the only one. O(1), or O(n) while most draws hit excluded backends.
pub(super) fn pick(draw: &WeightedDraw, view: &TierView<'_>, random: &Random) -> Option<u32> {
    let first = draw.pick(view, random)?;
    if draw.indices().len() == 1 {
        return Some(first);
    }
    match draw.pick_except(Some(first), view, random) {
        Some(second) if view.load(second).cmp(view.load(first)) == Ordering::Less => Some(second),
        _ => Some(first),
    }
}

#[cfg(test)]
mod tests {
    use crate::balance::fixture::{TestCluster, assert_shares};
    use crate::model::health::Health;
    use crate::model::settings::Policy;

    #[test]
    fn idle_backends_of_equal_weight_share_equally() {
        let counts = TestCluster::new(Policy::PowerOfTwo, &[1; 5]).counts(50_000, 11);
        assert_shares(&counts, &[1; 5]);
    }

    #[test]
    fn the_most_loaded_is_never_picked_while_another_is_accepted() {
        let cluster = TestCluster::new(Policy::PowerOfTwo, &[1, 1, 1]);
        for _ in 0..3 {
            cluster.backend(1).start();
        }
        let counts = cluster.counts(30_000, 5);
        assert_eq!(counts[1], 0);
        // There are three pairs: each idle backend wins its pair with the loaded one, and half of the third.
        assert_shares(&[counts[0], counts[2]], &[1, 1]);
        for index in [0, 2] {
            cluster.backend(index).set_health(Health::CHECK_DOWN);
        }
        assert_eq!(cluster.counts(100, 6), [0, 100, 0]);
    }

    #[test]
    fn load_is_counted_per_unit_of_weight() {
        let cluster = TestCluster::new(Policy::PowerOfTwo, &[1, 4]);
        for _ in 0..2 {
            cluster.backend(1).start();
        }
        // 1/1 against 3/4: the heavier one is picked although it has more in flight.
        assert_eq!(cluster.counts(1000, 7), [0, 1000]);
        for _ in 0..2 {
            cluster.backend(1).start();
        }
        assert_eq!(cluster.counts(1000, 8), [1000, 0]);
    }

    #[test]
    fn long_sessions_are_spread_by_weight() {
        let weights = [1, 2, 3, 4];
        let cluster = TestCluster::new(Policy::PowerOfTwo, &weights);
        for _ in 0..10_000 {
            let picked = cluster.pick().unwrap();
            cluster.backend(picked).start();
        }
        for (index, weight) in weights.into_iter().enumerate() {
            let open = cluster.backend(index).in_flight();
            assert!(open.abs_diff(weight * 1000) < 30, "{index}: {open}");
        }
    }
}
