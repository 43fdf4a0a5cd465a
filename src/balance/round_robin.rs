//! `round_robin` (also `weighted`): a cycle of slots in which each backend has as many slots as weight, evenly spread.
//!
//! Weights are divided by their greatest common divisor. Of the m backends that share the weight w, the j-th gets the
//! phase (j + 1/2) / m; its k-th slot is at the fraction (k + phase) / w of the cycle, and the cycle is all slots in
//! order, ties in the order of the configuration. So 5, 1, 1 is A B A A A C A: each pass picks every backend exactly w
//! times, wherever it begins, and the slots of backends of equal weight do not cluster. Equal weights give plain
//! rotation. A worker's position in the cycle is its [`Rotation`], a fraction of the cycle that outlives the cycle. A
//! pick searches from there, skips excluded backends and stops after the one that it picks, so the remaining backends
//! keep their proportions in each pass.
//!
//! A cycle has at most about 262,144 slots (1 MiB, or twice that with the index of slots). Weights with a larger sum
//! are scaled down, each to at least 1, so a very light backend among very heavy ones gets a little more than its
//! share.

use super::tier_view::TierView;
use crate::model::cluster::Rotation;

/// Slots of a cycle above which weights are scaled down.
const MAX_SLOTS: u64 = 1 << 18;
/// A pick that scans one slot per backend and this many more without success uses the index instead.
const EXTRA_SCAN: usize = 64;

/// The precomputed cycle.
#[derive(Debug)]
pub(super) struct RoundRobin {
    /// The backend of each slot, by its index.
    cycle: Vec<u32>,
    /// The slots of each backend; empty if scanning the whole cycle is cheap enough.
    slots: Vec<BackendSlots>,
}

/// All slots of one backend, ascending.
#[derive(Debug)]
struct BackendSlots {
    index: u32,
    slots: Box<[u32]>,
}

impl RoundRobin {
    /// Builds the cycle of `indices` (at least one, ascending) with `weights` (each at least 1) in the same order. O(Σw
    /// log Σw) after division and scaling.
    pub(super) fn new(indices: Vec<u32>, weights: &[u32]) -> Self {
        let weights = reduce(weights);
        if weights.iter().all(|&weight| weight == weights[0]) {
            return Self {
                cycle: indices,
                slots: Vec::new(),
            };
        }
        let order = spread(&weights);
        let slots = if order.len() > indices.len() + EXTRA_SCAN {
            slots_by_backend(&order, &indices, &weights)
        } else {
            Vec::new()
        };
        Self {
            cycle: order.into_iter().map(|j| indices[j as usize]).collect(),
            slots,
        }
    }

    /// Picks the next backend that `view` accepts and advances the rotation past it. O(1) while all are accepted, O(n)
    /// while some are not, O(n log Σw) while few are.
    pub(super) fn pick(&self, view: &TierView<'_>, rotation: &Rotation) -> Option<u32> {
        let length = self.cycle.len() as u32;
        let start = rotation.index(length);
        let (before, after) = self.cycle.split_at(start as usize);
        let scan = match self.slots.len() {
            0 => self.cycle.len(),
            backends => backends + EXTRA_SCAN,
        };
        let near = after
            .iter()
            .chain(before)
            .take(scan)
            .position(|&index| view.accepts(index))
            .map(|steps| (u64::from(start) + steps as u64) % u64::from(length));
        let slot = match near {
            Some(slot) => slot as u32,
            None => self.search(view, start)?,
        };
        rotation.advance(length, slot);
        Some(self.cycle[slot as usize])
    }

    /// Finds the slot that a scan from `start` would find, without scanning: the nearest of the next slots of all
    /// accepted backends.
    fn search(&self, view: &TierView<'_>, start: u32) -> Option<u32> {
        let length = self.cycle.len() as u32;
        self.slots
            .iter()
            .filter(|backend| view.accepts(backend.index))
            .filter_map(|backend| {
                let next = backend.slots.partition_point(|&slot| slot < start);
                backend.slots.get(next).or(backend.slots.first()).copied()
            })
            .min_by_key(|&slot| match slot >= start {
                true => slot - start,
                false => slot + (length - start),
            })
    }
}

/// Reduces the weights to lowest terms, and scales them down if the cycle would be too long.
fn reduce(weights: &[u32]) -> Vec<u32> {
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, b)).max(1);
    let sum: u64 = weights.iter().map(|&w| u64::from(w / divisor)).sum();
    weights
        .iter()
        .map(|&weight| weight / divisor)
        .map(|weight| match sum > MAX_SLOTS {
            true => ((u64::from(weight) * MAX_SLOTS / sum) as u32).max(1),
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

/// Builds the cycle, with each slot as an index into `weights`.
///
/// The position (k + (j + 1/2) / m) / w is the fraction (2mk + 2j + 1) / 2mw, compared by its first 63 binary digits.
/// That is exact: the groups' products mw add up to at most Σw, so two different fractions are at least 1 / (Σw)²
/// apart, and Σw is below 2^31.
fn spread(weights: &[u32]) -> Vec<u32> {
    let mut by_weight: Vec<u32> = (0..weights.len() as u32).collect();
    by_weight.sort_by_key(|&j| weights[j as usize]);
    let mut slots: Vec<(u64, u32)> = Vec::new();
    for group in by_weight.chunk_by(|&a, &b| weights[a as usize] == weights[b as usize]) {
        let m = group.len() as u64;
        for (j, &entry) in (0u64..).zip(group) {
            let w = u64::from(weights[entry as usize]);
            slots.extend((0..w).map(|k| {
                let numerator = u128::from(2 * m * k + 2 * j + 1) << 63;
                ((numerator / u128::from(2 * m * w)) as u64, entry)
            }));
        }
    }
    slots.sort_unstable();
    slots.into_iter().map(|(_, entry)| entry).collect()
}

fn slots_by_backend(order: &[u32], indices: &[u32], weights: &[u32]) -> Vec<BackendSlots> {
    let mut by_backend: Vec<Vec<u32>> = weights
        .iter()
        .map(|&weight| Vec::with_capacity(weight as usize))
        .collect();
    for (slot, &j) in (0u32..).zip(order) {
        by_backend[j as usize].push(slot);
    }
    indices
        .iter()
        .zip(by_backend)
        .map(|(&index, slots)| BackendSlots {
            index,
            slots: slots.into(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::fixture::{TestCluster, backend_at, backends_of};
    use crate::balance::{Balancer, Random};
    use crate::model::health::Health;
    use crate::model::settings::Policy;

    fn cluster(weights: &[u32]) -> TestCluster {
        TestCluster::new(Policy::RoundRobin, weights)
    }

    fn sequence(cluster: &TestCluster, picks: usize) -> Vec<usize> {
        (0..picks).map(|_| cluster.pick().unwrap()).collect()
    }

    #[test]
    fn backends_come_in_the_order_of_the_cycle() {
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
            let cluster = cluster(weights);
            let twice: Vec<usize> = cycle.iter().chain(cycle).copied().collect();
            assert_eq!(sequence(&cluster, twice.len()), twice, "{weights:?}");
        }
    }

    #[test]
    fn the_light_backends_of_5_1_1_are_never_adjacent() {
        let picks = sequence(&cluster(&[5, 1, 1]), 7000);
        for window in picks.windows(7) {
            assert_eq!(
                [0, 1, 2].map(|i| window.iter().filter(|&&p| p == i).count()),
                [5, 1, 1]
            );
        }
        assert!(picks.windows(2).all(|pair| pair[0] == 0 || pair[1] == 0));
    }

    #[test]
    fn the_remaining_backends_keep_their_proportions() {
        let cluster = cluster(&[5, 1, 3, 2]);
        cluster.backend(0).set_health(Health::CHECK_DOWN);
        let picks = sequence(&cluster, 600);
        assert_eq!(
            [0, 1, 2, 3].map(|i| picks.iter().filter(|&&p| p == i).count()),
            [0, 100, 300, 200]
        );
        cluster.backend(0).clear_health(Health::CHECK_DOWN);
        let picks = sequence(&cluster, 11);
        assert_eq!(picks.iter().filter(|&&p| p == 0).count(), 5);
    }

    #[test]
    fn a_search_finds_what_a_scan_finds() {
        let weights: Vec<u32> = (0..40).map(|i| 1 + i * i).collect();
        let cluster = cluster(&weights);
        let indices: Vec<u32> = (0..40).collect();
        let cycle = RoundRobin::new(indices, &weights);
        assert_eq!(cycle.slots.len(), 40);
        for index in (0..40).filter(|index| ![0, 3, 17].contains(index)) {
            cluster.backend(index).set_health(Health::CHECK_DOWN);
        }
        let view = TierView::new(cluster.balancer.backends(), &[], Health::CHECK_DOWN);
        let length = cycle.cycle.len();
        for start in 0..length {
            let scanned = (start..start + length)
                .map(|slot| slot % length)
                .find(|&slot| view.accepts(cycle.cycle[slot]));
            let found = cycle.search(&view, start as u32);
            assert_eq!(found, scanned.map(|slot| slot as u32), "from {start}");
        }
        let picks = sequence(&cluster, 22 * (1 + 10 + 290));
        assert_eq!(
            [0, 3, 17].map(|i| picks.iter().filter(|&&p| p == i).count()),
            [22, 220, 22 * 290]
        );
    }

    #[test]
    fn long_cycles_are_scaled_down() {
        let indices: Vec<u32> = (0..3000).collect();
        let weights: Vec<u32> = indices
            .iter()
            .map(|&index| if index == 0 { 1 } else { 999 + index % 2 })
            .collect();
        let cycle = RoundRobin::new(indices, &weights);
        let slots = cycle.cycle.len() as u64;
        assert!(
            (MAX_SLOTS - 3000..=MAX_SLOTS + 3000).contains(&slots),
            "{slots}"
        );
        assert_eq!(cycle.slots[0].slots.len(), 1, "at least one slot");
        let huge = RoundRobin::new(vec![4, 7], &[u32::MAX, 1]);
        assert_eq!(huge.cycle.len() as u64, MAX_SLOTS);
        assert_eq!(huge.slots[1].slots.len(), 1);
    }

    #[test]
    fn workers_start_at_different_phases() {
        let balancer = Balancer::new(Policy::RoundRobin, 0, backends_of(&[(1, false); 8]));
        let cluster = TestCluster::with_balancer(balancer, 4);
        let random = Random::new(0);
        let picks = |count| -> Vec<Vec<usize>> {
            (0..4)
                .map(|worker| {
                    (0..count)
                        .map(|_| cluster.pick_as(0, worker, &random, &[]).unwrap())
                        .collect()
                })
                .collect()
        };
        assert_eq!(picks(2), [[0, 1], [2, 3], [4, 5], [6, 7]]);
    }

    #[test]
    fn a_new_generation_continues_where_the_previous_one_was() {
        let mut cluster = cluster(&[1, 1, 1, 1]);
        assert_eq!(sequence(&cluster, 2), [0, 1]);
        let six: Vec<_> = (0..6)
            .map(|i| backend_at(&format!("10.1.0.{i}:1"), 1, false))
            .collect();
        cluster.balancer = Balancer::new(Policy::RoundRobin, 0, six.clone());
        assert_eq!(sequence(&cluster, 1), [3], "halfway through the cycle");
        cluster.balancer = Balancer::new(Policy::Random, 0, six.clone());
        sequence(&cluster, 9);
        cluster.balancer = Balancer::new(Policy::RoundRobin, 0, six);
        assert_eq!(
            sequence(&cluster, 3),
            [4, 5, 0],
            "another policy does not advance the rotation"
        );
        cluster.balancer = Balancer::new(
            Policy::RoundRobin,
            0,
            backends_of(&[(5, false), (1, false)]),
        );
        assert_eq!(
            sequence(&cluster, 6),
            [0, 0, 1, 0, 0, 0],
            "1/6 of the cycle, with another length"
        );
    }

    proptest! {
        #[test]
        fn every_window_of_a_cycle_has_each_backend_by_its_weight(
            weights in prop::collection::vec(1u32..30, 1..12),
            skip in 0usize..100,
        ) {
            let cluster = cluster(&weights);
            let sum = weights.iter().sum::<u32>() as usize;
            sequence(&cluster, skip);
            let picks = sequence(&cluster, sum);
            for (index, &weight) in weights.iter().enumerate() {
                prop_assert_eq!(picks.iter().filter(|&&p| p == index).count(), weight as usize);
            }
        }

        /// With slots at (k + phase) / w, any fraction p of the cycle has between pw - 1 and pw + 1 of them.
        #[test]
        fn slots_are_spread_evenly(weights in prop::collection::vec(1u32..30, 2..12)) {
            let order = spread(&weights);
            for (j, &w) in (0u32..).zip(&weights) {
                let at: Vec<usize> = (0..order.len()).filter(|&slot| order[slot] == j).collect();
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
        fn accepted_backends_are_found_and_shares_stay_exact(
            backends in prop::collection::vec((1u32..200, any::<bool>()), 1..8),
        ) {
            let weights: Vec<u32> = backends.iter().map(|entry| entry.0).collect();
            let cluster = cluster(&weights);
            for (index, _) in backends.iter().enumerate().filter(|(_, entry)| !entry.1) {
                cluster.backend(index).set_health(Health::CHECK_DOWN);
            }
            if backends.iter().all(|entry| !entry.1) {
                return Ok(());
            }
            let expected: Vec<u32> = backends.iter().map(|&(w, up)| if up { w } else { 0 }).collect();
            let picks = sequence(&cluster, expected.iter().sum::<u32>() as usize);
            for (index, &count) in expected.iter().enumerate() {
                prop_assert_eq!(picks.iter().filter(|&&p| p == index).count(), count as usize);
            }
        }
    }
}
