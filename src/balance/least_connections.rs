//! `least_connections`: the backend with the fewest requests in flight per unit of weight; ties are broken at random.
//!
//! Up to [`EXACT`] backends are all compared. With more, an exact comparison for every request would cost more than the
//! rest of the proxy's work, so it samples: it picks the best of up to [`SAMPLES`] distinct backends drawn by weight
//! (the d choices of M. Mitzenmacher 2001, with d = 8, whose longest queue is hardly longer than that of the exact
//! algorithm). Only if no sample is accepted are all compared, so a backend is found if there is one.

use std::cmp::Ordering;

use super::Random;
use super::tier_view::{RelativeLoad, TierView};
use super::weighted_draw::WeightedDraw;

/// Most backends that are all compared.
const EXACT: usize = 32;
/// Distinct backends that are compared if there are more.
const SAMPLES: usize = 8;
/// Most draws for one pick, including repeated and excluded backends.
const DRAWS: usize = 2 * SAMPLES;

/// The backends, with their probabilities of being sampled.
#[derive(Debug)]
pub(super) struct LeastConnections {
    draw: WeightedDraw,
}

impl LeastConnections {
    /// Prepares picks from `indices` (at least one) with `weights` (each at least 1) in the same order.
    pub(super) fn new(indices: Vec<u32>, weights: &[u32]) -> Self {
        Self {
            draw: WeightedDraw::new(indices, weights),
        }
    }

    /// Picks the least loaded backend that `view` accepts. O(min(n, 32)), or O(n) while no sample is accepted.
    pub(super) fn pick(&self, view: &TierView<'_>, random: &Random) -> Option<u32> {
        let all = self.draw.indices();
        if all.len() > EXACT
            && let Some(index) = self.pick_sample(view, random)
        {
            return Some(index);
        }
        let mut least = LeastLoaded::default();
        for &index in all.iter().filter(|&&index| view.accepts(index)) {
            least.consider(index, view.load(index), random);
        }
        least.index
    }

    fn pick_sample(&self, view: &TierView<'_>, random: &Random) -> Option<u32> {
        let mut seen = [0; SAMPLES];
        let mut count = 0;
        let mut least = LeastLoaded::default();
        for _ in 0..DRAWS {
            let index = self.draw.draw(random);
            if seen[..count].contains(&index) || !view.accepts(index) {
                continue;
            }
            least.consider(index, view.load(index), random);
            seen[count] = index;
            count += 1;
            if count == SAMPLES {
                break;
            }
        }
        least.index
    }
}

/// The least loaded backend so far; of k equals, each has the probability 1/k (a reservoir of one).
#[derive(Default)]
struct LeastLoaded {
    index: Option<u32>,
    load: Option<RelativeLoad>,
    equals: u64,
}

impl LeastLoaded {
    fn consider(&mut self, index: u32, load: RelativeLoad, random: &Random) {
        let order = self.load.map_or(Ordering::Less, |least| load.cmp(least));
        let replaces = match order {
            Ordering::Greater => return,
            Ordering::Less => {
                self.equals = 1;
                true
            }
            Ordering::Equal => {
                self.equals += 1;
                random.below(self.equals) == 0
            }
        };
        if replaces {
            (self.index, self.load) = (Some(index), Some(load));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::balance::fixture::{TestCluster, assert_shares};
    use crate::model::health::Health;
    use crate::model::settings::Policy;

    fn cluster(weights: &[u32], in_flight: &[u32]) -> TestCluster {
        let cluster = TestCluster::new(Policy::LeastConnections, weights);
        for (index, &count) in in_flight.iter().enumerate() {
            for _ in 0..count {
                cluster.backend(index).start();
            }
        }
        cluster
    }

    #[test]
    fn the_least_loaded_is_picked_and_ties_are_broken_at_random() {
        // Weights, requests in flight, and the backends that may be picked: all of them equally often.
        for (weights, in_flight, least_loaded) in [
            (&[1, 1, 1][..], &[2, 0, 1][..], &[1][..]),
            (&[1, 1, 1], &[1, 1, 1], &[0, 1, 2]),
            (&[1, 1, 1], &[0, 3, 0], &[0, 2]),
            (&[5, 1, 1], &[0, 0, 0], &[0]),
            (&[5, 1, 1], &[4, 0, 0], &[0, 1, 2]),
            (&[5, 1, 1], &[5, 0, 0], &[1, 2]),
            (&[2, 4], &[1, 3], &[0, 1]),
            (&[1000, 999], &[999, 998], &[0, 1]),
        ] {
            let counts = cluster(weights, in_flight).counts(20_000, 21);
            let chances: Vec<u32> = (0..weights.len())
                .map(|index| u32::from(least_loaded.contains(&index)))
                .collect();
            assert_shares(&counts, &chances);
        }
    }

    #[test]
    fn long_sessions_are_spread_by_weight() {
        let weights = [5, 1, 1, 3];
        let cluster = cluster(&weights, &[]);
        for _ in 0..1000 {
            cluster.backend(cluster.pick().unwrap()).start();
        }
        for (index, weight) in weights.into_iter().enumerate() {
            assert_eq!(cluster.backend(index).in_flight(), weight * 100);
        }
    }

    #[test]
    fn many_backends_are_sampled() {
        let cluster = cluster(&[1; 100], &[3; 100]);
        for index in 0..50 {
            cluster.backend(index).finish();
        }
        let counts = cluster.counts(20_000, 4);
        // All samples are from the loaded half with a probability of 0.4 %.
        let loaded: u64 = counts[50..].iter().sum();
        assert!((20..200).contains(&loaded), "{loaded}");
        assert_shares(&counts[..50], &[1; 50]);
    }

    #[test]
    fn many_backends_fill_up_by_weight() {
        let weights: Vec<u32> = (0..64)
            .map(|index| if index == 0 { 64 } else { 1 })
            .collect();
        let cluster = cluster(&weights, &[]);
        for _ in 0..12_700 {
            cluster.backend(cluster.pick().unwrap()).start();
        }
        let heavy = cluster.backend(0).in_flight();
        assert!(
            (6100..6700).contains(&heavy),
            "expected about 6400, has {heavy}"
        );
        for index in 1..64 {
            let light = cluster.backend(index).in_flight();
            assert!((90..=110).contains(&light), "{index} has {light}");
        }
    }

    #[test]
    fn the_last_healthy_one_of_many_is_found() {
        let cluster = cluster(&[1; 1000], &[]);
        for index in 0..999 {
            cluster.backend(index).set_health(Health::CHECK_DOWN);
        }
        assert_eq!(cluster.counts(50, 1)[999], 50);
    }

    proptest! {
        #[test]
        fn of_up_to_32_backends_a_least_loaded_one_is_picked(
            loads in prop::collection::vec((1u32..20, 0u32..20), 1..=32),
        ) {
            let (weights, in_flight): (Vec<_>, Vec<_>) = loads.iter().copied().unzip();
            let cluster = cluster(&weights, &in_flight);
            let picked = cluster.pick().unwrap();
            let load = |index: usize| f64::from(in_flight[index] + 1) / f64::from(weights[index]);
            for index in 0..loads.len() {
                prop_assert!(load(picked) <= load(index) + 1e-9);
            }
        }
    }
}
