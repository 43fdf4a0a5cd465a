//! `round_robin` (also `weighted`): a cycle in which each member stands as often as it has weight, spread evenly.
//!
//! Weights are divided by their greatest common divisor. Of the m members that share the weight w, the j-th gets the
//! phase (j + 1/2) / m; its k-th place in the cycle is at (k + phase) / w of the way round, and the cycle is all
//! places in order, ties in the order of the file. So 5, 1, 1 is A B A A A C A: each pass takes every member exactly
//! w times, wherever it begins, and neighbours in weight do not crowd together. Equal weights are plain rotation.
//! Where a worker stands in the cycle is its [`Rotation`], which outlives the cycle (a fraction of the way round).
//! A pick looks from there, steps over members that are refused and stops behind the one it takes, so those that are
//! left keep their proportions in each pass.
//!
//! A cycle has at most 262,144 places (1 MiB, twice that with the index of places); weights with a larger sum are
//! scaled down to about that, each at least to 1, so a very light member among very heavy ones gets a little more
//! than its share.

use super::group::Candidates;
use crate::model::cluster::Rotation;

/// Places of a cycle before weights are scaled down.
const MAX_PLACES: u64 = 1 << 18;
/// Places that a pick may look at beyond one for each member before it searches instead.
const EXTRA_LOOKS: usize = 64;

/// The precomputed cycle.
#[derive(Debug)]
pub(super) struct RoundRobin {
    cycle: Vec<u32>,
    /// Where each member stands; empty while a walk round the cycle is short enough.
    places: Vec<Places>,
}

/// All places of a member in the cycle, ascending.
#[derive(Debug)]
struct Places {
    id: u32,
    at: Box<[u32]>,
}

impl RoundRobin {
    /// Members `ids` (at least one, ascending) with `weights` (each at least 1) in the same order.
    /// O(Σw log Σw) after division and scaling.
    pub(super) fn new(ids: Vec<u32>, weights: &[u32]) -> Self {
        let weights = reduce(weights);
        if weights.iter().all(|&weight| weight == weights[0]) {
            return Self {
                cycle: ids,
                places: Vec::new(),
            };
        }
        let order = spread(&weights);
        let places = if order.len() > ids.len() + EXTRA_LOOKS {
            places(&order, &ids, &weights)
        } else {
            Vec::new()
        };
        Self {
            cycle: order.into_iter().map(|j| ids[j as usize]).collect(),
            places,
        }
    }

    /// The next member that the candidates accept, and moves the rotation behind it. O(1) while all are accepted,
    /// O(n) while some are not, O(n log Σw) while few are.
    pub(super) fn pick(&self, candidates: &Candidates<'_>, rotation: &Rotation) -> Option<u32> {
        let length = self.cycle.len() as u32;
        let start = rotation.index(length);
        let (before, after) = self.cycle.split_at(start as usize);
        let looks = match self.places.len() {
            0 => self.cycle.len(),
            members => members + EXTRA_LOOKS,
        };
        let near = after
            .iter()
            .chain(before)
            .take(looks)
            .position(|&id| candidates.accept(id))
            .map(|steps| (u64::from(start) + steps as u64) % u64::from(length));
        let place = match near {
            Some(place) => place as u32,
            None => self.search(candidates, start)?,
        };
        rotation.advance(length, place);
        Some(self.cycle[place as usize])
    }

    /// What a walk from `start` would find, without the walk: the nearest of the next places of all members that are
    /// accepted.
    fn search(&self, candidates: &Candidates<'_>, start: u32) -> Option<u32> {
        let length = self.cycle.len() as u32;
        self.places
            .iter()
            .filter(|places| candidates.accept(places.id))
            .filter_map(|places| {
                let next = places.at.partition_point(|&place| place < start);
                places.at.get(next).or(places.at.first()).copied()
            })
            .min_by_key(|&place| match place >= start {
                true => place - start,
                false => place + (length - start),
            })
    }
}

/// Weights in lowest terms, scaled down if the cycle would be too long.
fn reduce(weights: &[u32]) -> Vec<u32> {
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, b)).max(1);
    let sum: u64 = weights.iter().map(|&w| u64::from(w / divisor)).sum();
    weights
        .iter()
        .map(|&weight| weight / divisor)
        .map(|weight| match sum > MAX_PLACES {
            true => ((u64::from(weight) * MAX_PLACES / sum) as u32).max(1),
            false => weight,
        })
        .collect()
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The cycle as places in the list of `weights`.
///
/// The place (k + (j + 1/2) / m) / w is the fraction (2mk + 2j + 1) / 2mw, compared by its first 63 binary digits.
/// That is exact: the groups' products mw add up to at most Σw, so two different fractions are at least 1 / (Σw)²
/// apart, and Σw is below 2^31.
fn spread(weights: &[u32]) -> Vec<u32> {
    let mut by_weight: Vec<u32> = (0..weights.len() as u32).collect();
    by_weight.sort_by_key(|&j| weights[j as usize]);
    let mut places: Vec<(u64, u32)> = Vec::new();
    for group in by_weight.chunk_by(|&a, &b| weights[a as usize] == weights[b as usize]) {
        let m = group.len() as u64;
        for (j, &member) in (0u64..).zip(group) {
            let w = u64::from(weights[member as usize]);
            places.extend((0..w).map(|k| {
                let numerator = u128::from(2 * m * k + 2 * j + 1) << 63;
                ((numerator / u128::from(2 * m * w)) as u64, member)
            }));
        }
    }
    places.sort_unstable();
    places.into_iter().map(|(_, member)| member).collect()
}

fn places(order: &[u32], ids: &[u32], weights: &[u32]) -> Vec<Places> {
    let mut at: Vec<Vec<u32>> = weights
        .iter()
        .map(|&weight| Vec::with_capacity(weight as usize))
        .collect();
    for (place, &j) in (0u32..).zip(order) {
        at[j as usize].push(place);
    }
    ids.iter()
        .zip(at)
        .map(|(&id, at)| Places { id, at: at.into() })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::fixture::{Bench, member, members};
    use crate::balance::{Balancer, Random};
    use crate::model::health::Health;
    use crate::model::settings::Policy;

    fn bench(weights: &[u32]) -> Bench {
        Bench::new(Policy::RoundRobin, weights)
    }

    fn sequence(bench: &Bench, picks: usize) -> Vec<usize> {
        (0..picks).map(|_| bench.pick().unwrap()).collect()
    }

    #[test]
    fn cycles() {
        for (weights, cycle) in [
            (&[1, 1, 1][..], &[0, 1, 2][..]),
            (&[7, 7], &[0, 1]),
            (&[5, 1, 1], &[0, 1, 0, 0, 0, 2, 0]),
            (&[1, 5, 1], &[1, 0, 1, 1, 1, 2, 1]),
            (&[10, 2, 2], &[0, 1, 0, 0, 0, 2, 0]),
            (&[2, 1], &[0, 1, 0]),
            (&[3, 2], &[0, 1, 0, 1, 0]),
            (&[4, 2, 2, 0], &[0, 1, 0, 2]),
            (&[9], &[0]),
        ] {
            let bench = bench(weights);
            let twice: Vec<usize> = cycle.iter().chain(cycle).copied().collect();
            assert_eq!(sequence(&bench, twice.len()), twice, "{weights:?}");
        }
    }

    #[test]
    fn the_small_ones_of_5_1_1_never_follow_each_other() {
        let picks = sequence(&bench(&[5, 1, 1]), 7000);
        for window in picks.windows(7) {
            assert_eq!(
                [0, 1, 2].map(|i| window.iter().filter(|&&p| p == i).count()),
                [5, 1, 1]
            );
        }
        assert!(picks.windows(2).all(|pair| pair[0] == 0 || pair[1] == 0));
    }

    #[test]
    fn members_that_are_left_keep_their_proportions() {
        let bench = bench(&[5, 1, 3, 2]);
        bench.backend(0).set_health(Health::CHECK_DOWN);
        let picks = sequence(&bench, 600);
        assert_eq!(
            [0, 1, 2, 3].map(|i| picks.iter().filter(|&&p| p == i).count()),
            [0, 100, 300, 200]
        );
        bench.backend(0).clear_health(Health::CHECK_DOWN);
        let picks = sequence(&bench, 11);
        assert_eq!(picks.iter().filter(|&&p| p == 0).count(), 5);
    }

    #[test]
    fn a_search_finds_what_a_walk_finds() {
        let weights: Vec<u32> = (0..40).map(|i| 1 + i * i).collect();
        let bench = bench(&weights);
        let ids: Vec<u32> = (0..40).collect();
        let cycle = RoundRobin::new(ids, &weights);
        assert_eq!(cycle.places.len(), 40);
        for index in (0..40).filter(|index| ![0, 3, 17].contains(index)) {
            bench.backend(index).set_health(Health::CHECK_DOWN);
        }
        let candidates = Candidates::new(bench.balancer.members(), &[], Health::CHECK_DOWN);
        let length = cycle.cycle.len();
        for start in 0..length {
            let walked = (start..start + length)
                .map(|place| place % length)
                .find(|&place| candidates.accept(cycle.cycle[place]));
            let found = cycle.search(&candidates, start as u32);
            assert_eq!(found, walked.map(|place| place as u32), "from {start}");
        }
        let picks = sequence(&bench, 22 * (1 + 10 + 290));
        assert_eq!(
            [0, 3, 17].map(|i| picks.iter().filter(|&&p| p == i).count()),
            [22, 220, 22 * 290]
        );
    }

    #[test]
    fn long_cycles_are_scaled_down() {
        let ids: Vec<u32> = (0..3000).collect();
        let weights: Vec<u32> = ids
            .iter()
            .map(|&id| if id == 0 { 1 } else { 999 + id % 2 })
            .collect();
        let cycle = RoundRobin::new(ids, &weights);
        let places = cycle.cycle.len() as u64;
        assert!(
            (MAX_PLACES - 3000..=MAX_PLACES + 3000).contains(&places),
            "{places}"
        );
        assert_eq!(cycle.places[0].at.len(), 1, "at least one place");
        let huge = RoundRobin::new(vec![4, 7], &[u32::MAX, 1]);
        assert_eq!(huge.cycle.len() as u64, MAX_PLACES);
        assert_eq!(huge.places[1].at.len(), 1);
    }

    #[test]
    fn workers_start_at_different_phases() {
        let balancer = Balancer::new(Policy::RoundRobin, 0, members(&[(1, false); 8]));
        let bench = Bench::over(balancer, 4);
        let random = Random::new(0);
        let picks = |count| -> Vec<Vec<usize>> {
            (0..4)
                .map(|worker| {
                    (0..count)
                        .map(|_| bench.pick_as(0, worker, &random, &[]).unwrap())
                        .collect()
                })
                .collect()
        };
        assert_eq!(picks(2), [[0, 1], [2, 3], [4, 5], [6, 7]]);
    }

    #[test]
    fn a_new_generation_goes_on_where_the_old_one_stood() {
        let mut bench = bench(&[1, 1, 1, 1]);
        assert_eq!(sequence(&bench, 2), [0, 1]);
        let six: Vec<_> = (0..6)
            .map(|i| member(&format!("10.1.0.{i}:1"), 1, false))
            .collect();
        bench.balancer = Balancer::new(Policy::RoundRobin, 0, six.clone());
        assert_eq!(sequence(&bench, 1), [3], "half way round");
        bench.balancer = Balancer::new(Policy::Random, 0, six.clone());
        sequence(&bench, 9);
        bench.balancer = Balancer::new(Policy::RoundRobin, 0, six);
        assert_eq!(
            sequence(&bench, 3),
            [4, 5, 0],
            "another policy leaves the rotation alone"
        );
        bench.balancer = Balancer::new(Policy::RoundRobin, 0, members(&[(5, false), (1, false)]));
        assert_eq!(
            sequence(&bench, 6),
            [0, 0, 1, 0, 0, 0],
            "1/6 of the way, another length"
        );
    }

    proptest! {
        #[test]
        fn every_window_of_a_cycle_holds_each_member_by_its_weight(
            weights in prop::collection::vec(1u32..30, 1..12),
            skip in 0usize..100,
        ) {
            let bench = bench(&weights);
            let sum = weights.iter().sum::<u32>() as usize;
            sequence(&bench, skip);
            let picks = sequence(&bench, sum);
            for (index, &weight) in weights.iter().enumerate() {
                prop_assert_eq!(picks.iter().filter(|&&p| p == index).count(), weight as usize);
            }
        }

        /// With deadlines at (k + phase) / w, any part p of the way round holds between pw - 1 and pw + 1 places.
        #[test]
        fn places_are_spread_evenly(weights in prop::collection::vec(1u32..30, 2..12)) {
            let order = spread(&weights);
            for (j, &w) in (0u32..).zip(&weights) {
                let at: Vec<usize> = (0..order.len()).filter(|&place| order[place] == j).collect();
                prop_assert_eq!(at.len(), w as usize);
                let fair = order.len() / w as usize;
                let around = at.iter().skip(1).copied().chain([at[0] + order.len()]);
                for (here, next) in at.iter().zip(around) {
                    prop_assert!(next - here <= fair + 1 + weights.len(), "{order:?}");
                    prop_assert!(next - here + weights.len() + 1 >= fair, "{order:?}");
                }
            }
        }

        #[test]
        fn whoever_is_accepted_is_found_and_shares_stay_exact(
            members in prop::collection::vec((1u32..200, any::<bool>()), 1..8),
        ) {
            let weights: Vec<u32> = members.iter().map(|member| member.0).collect();
            let bench = bench(&weights);
            for (index, _) in members.iter().enumerate().filter(|(_, member)| !member.1) {
                bench.backend(index).set_health(Health::CHECK_DOWN);
            }
            if members.iter().all(|member| !member.1) {
                return Ok(());
            }
            let expected: Vec<u32> = members.iter().map(|&(w, up)| if up { w } else { 0 }).collect();
            let picks = sequence(&bench, expected.iter().sum::<u32>() as usize);
            for (index, &count) in expected.iter().enumerate() {
                prop_assert_eq!(picks.iter().filter(|&&p| p == index).count(), count as usize);
            }
        }
    }
}
