//! `least_connections`: the member with the fewest requests in flight per unit of weight, ties at random.
//!
//! Up to [`EXACT`] members it looks at all of them. Above that an exact look at every request would cost more than
//! the proxy's own work, so it SAMPLES: the best of up to [`SAMPLES`] distinct members that are drawn by weight
//! (the d-choices of M. Mitzenmacher 2001, with d = 8, whose longest queue is within a hair of the exact one's).
//! Only if no sample is accepted it looks at all, so a member is found if there is one.

use std::cmp::Ordering;

use super::Random;
use super::group::{Candidates, Load};
use super::weighted_draw::WeightedDraw;

/// Most members that are all looked at.
const EXACT: usize = 32;
/// Distinct members that are compared when there are more.
const SAMPLES: usize = 8;
/// Draws at most, repeated and refused ones included.
const DRAWS: usize = 2 * SAMPLES;

/// Members, and their chances to be a sample.
#[derive(Debug)]
pub(super) struct LeastConnections {
    members: WeightedDraw,
}

impl LeastConnections {
    /// Members `ids` (at least one) with `weights` (each at least 1) in the same order.
    pub(super) fn new(ids: Vec<u32>, weights: &[u32]) -> Self {
        Self {
            members: WeightedDraw::new(ids, weights),
        }
    }

    /// The least loaded member that the candidates accept. O(min(n, 32)), and O(n) while most draws are refused.
    pub(super) fn pick(&self, candidates: &Candidates<'_>, random: &Random) -> Option<u32> {
        let all = self.members.ids();
        if all.len() > EXACT
            && let Some(id) = self.pick_sample(candidates, random)
        {
            return Some(id);
        }
        let mut least = Least::default();
        for &id in all.iter().filter(|&&id| candidates.accept(id)) {
            least.see(id, candidates.load(id), random);
        }
        least.id
    }

    fn pick_sample(&self, candidates: &Candidates<'_>, random: &Random) -> Option<u32> {
        let mut seen = [0; SAMPLES];
        let mut count = 0;
        let mut least = Least::default();
        for _ in 0..DRAWS {
            let id = self.members.draw(random);
            if seen[..count].contains(&id) || !candidates.accept(id) {
                continue;
            }
            least.see(id, candidates.load(id), random);
            seen[count] = id;
            count += 1;
            if count == SAMPLES {
                break;
            }
        }
        least.id
    }
}

/// The least loaded member so far; of k equals, each with the chance 1/k (reservoir of one).
#[derive(Default)]
struct Least {
    id: Option<u32>,
    load: Option<Load>,
    equals: u64,
}

impl Least {
    fn see(&mut self, id: u32, load: Load, random: &Random) {
        let order = self.load.map_or(Ordering::Less, |least| load.cmp(least));
        let takes = match order {
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
        if takes {
            (self.id, self.load) = (Some(id), Some(load));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::balance::fixture::{Bench, assert_shares};
    use crate::model::health::Health;
    use crate::model::settings::Policy;

    fn bench(weights: &[u32], in_flight: &[u32]) -> Bench {
        let bench = Bench::new(Policy::LeastConnections, weights);
        for (index, &count) in in_flight.iter().enumerate() {
            for _ in 0..count {
                bench.backend(index).start();
            }
        }
        bench
    }

    #[test]
    fn the_least_loaded_is_taken_and_ties_fall_at_random() {
        // Weights, in flight, the members that may be taken: all of them equally often.
        for (weights, in_flight, taken) in [
            (&[1, 1, 1][..], &[2, 0, 1][..], &[1][..]),
            (&[1, 1, 1], &[1, 1, 1], &[0, 1, 2]),
            (&[1, 1, 1], &[0, 3, 0], &[0, 2]),
            (&[5, 1, 1], &[0, 0, 0], &[0]),
            (&[5, 1, 1], &[4, 0, 0], &[0, 1, 2]),
            (&[5, 1, 1], &[5, 0, 0], &[1, 2]),
            (&[2, 4], &[1, 3], &[0, 1]),
            (&[1000, 999], &[999, 998], &[0, 1]),
        ] {
            let counts = bench(weights, in_flight).counts(20_000, 21);
            let chances: Vec<u32> = (0..weights.len())
                .map(|index| u32::from(taken.contains(&index)))
                .collect();
            assert_shares(&counts, &chances);
        }
    }

    #[test]
    fn sessions_that_stay_spread_by_weight() {
        let weights = [5, 1, 1, 3];
        let bench = bench(&weights, &[]);
        for _ in 0..1000 {
            bench.backend(bench.pick().unwrap()).start();
        }
        for (index, weight) in weights.into_iter().enumerate() {
            assert_eq!(bench.backend(index).in_flight(), weight * 100);
        }
    }

    #[test]
    fn many_members_are_sampled() {
        let bench = bench(&[1; 100], &[3; 100]);
        for index in 0..50 {
            bench.backend(index).finish();
        }
        let counts = bench.counts(20_000, 4);
        // All samples are among the loaded half with the chance 0.4 %.
        let loaded: u64 = counts[50..].iter().sum();
        assert!((20..200).contains(&loaded), "{loaded}");
        assert_shares(&counts[..50], &[1; 50]);
    }

    #[test]
    fn many_members_with_weights_fill_evenly() {
        let weights: Vec<u32> = (0..64)
            .map(|index| if index == 0 { 64 } else { 1 })
            .collect();
        let bench = bench(&weights, &[]);
        for _ in 0..12_700 {
            bench.backend(bench.pick().unwrap()).start();
        }
        let heavy = bench.backend(0).in_flight();
        assert!(
            (6100..6700).contains(&heavy),
            "expected about 6400, has {heavy}"
        );
        for index in 1..64 {
            let light = bench.backend(index).in_flight();
            assert!((90..=110).contains(&light), "{index} has {light}");
        }
    }

    #[test]
    fn the_last_one_of_many_is_found() {
        let bench = bench(&[1; 1000], &[]);
        for index in 0..999 {
            bench.backend(index).set_health(Health::CHECK_DOWN);
        }
        assert_eq!(bench.counts(50, 1)[999], 50);
    }

    proptest! {
        #[test]
        fn up_to_32_members_the_taken_one_is_a_least_one(
            loads in prop::collection::vec((1u32..20, 0u32..20), 1..=32),
        ) {
            let (weights, in_flight): (Vec<_>, Vec<_>) = loads.iter().copied().unzip();
            let bench = bench(&weights, &in_flight);
            let taken = bench.pick().unwrap();
            let load = |index: usize| f64::from(in_flight[index] + 1) / f64::from(weights[index]);
            for index in 0..loads.len() {
                prop_assert!(load(taken) <= load(index) + 1e-9);
            }
        }
    }
}
