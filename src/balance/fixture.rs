//! A cluster for tests: backends with given weights, their live state, and a seeded random source for each pick.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Balancer, PickRequest, Random, WeightedBackend};
use crate::model::backend::Backend;
use crate::model::cluster::ClusterState;
use crate::model::settings::Policy;

/// A balancer with its backends and their live state.
pub(super) struct TestCluster {
    pub balancer: Balancer,
    pub state: ClusterState,
    /// Seed of the next pick; atomic, so that several threads can pick.
    seed: AtomicU64,
}

impl TestCluster {
    /// Primaries with these weights.
    pub(super) fn new(policy: Policy, weights: &[u32]) -> Self {
        let weights: Vec<_> = weights.iter().map(|&weight| (weight, false)).collect();
        Self::with_backups(policy, &weights)
    }

    /// Backends with these weights; `true` marks a backup.
    pub(super) fn with_backups(policy: Policy, weights: &[(u32, bool)]) -> Self {
        Self::from_backends(policy, backends_of(weights))
    }

    /// The given backends.
    pub(super) fn from_backends(policy: Policy, backends: Vec<WeightedBackend>) -> Self {
        Self::with_balancer(Balancer::new(policy, 0, backends), 1)
    }

    /// The given balancer, with state for `workers` workers.
    pub(super) fn with_balancer(balancer: Balancer, workers: usize) -> Self {
        Self {
            balancer,
            state: ClusterState::new(workers),
            seed: AtomicU64::new(42),
        }
    }

    /// Disables panic mode.
    pub(super) fn strict(mut self) -> Self {
        self.balancer = self.balancer.strict(true);
        self
    }

    pub(super) fn backend(&self, index: usize) -> &Backend {
        &self.balancer.backends()[index].backend
    }

    pub(super) fn pick(&self) -> Option<usize> {
        self.pick_without(&[])
    }

    /// Picks with an arbitrary key, excluding the backends `tried`.
    pub(super) fn pick_without(&self, tried: &[u32]) -> Option<usize> {
        let random = Random::new(self.seed.fetch_add(1, Ordering::Relaxed));
        self.pick_as(random.next_u64(), 0, &random, tried)
    }

    pub(super) fn pick_key(&self, key: u64) -> Option<usize> {
        self.pick_as(key, 0, &Random::new(1), &[])
    }

    pub(super) fn pick_as(
        &self,
        key: u64,
        worker: usize,
        random: &Random,
        tried: &[u32],
    ) -> Option<usize> {
        self.balancer.pick(&PickRequest {
            key,
            state: &self.state,
            worker,
            random,
            tried,
        })
    }

    /// How often each backend is picked in `picks` picks with the random numbers of one seed.
    pub(super) fn counts(&self, picks: usize, seed: u64) -> Vec<u64> {
        let random = Random::new(seed);
        let mut counts = vec![0; self.balancer.backends().len()];
        for _ in 0..picks {
            if let Some(index) = self.pick_as(random.next_u64(), 0, &random, &[]) {
                counts[index] += 1;
            }
        }
        counts
    }
}

/// Backends at 10.x.y.z:80 in ascending order; `true` marks a backup.
pub(super) fn backends_of(weights: &[(u32, bool)]) -> Vec<WeightedBackend> {
    let next = Cell::new(0u32);
    weights
        .iter()
        .map(|&(weight, backup)| {
            let n = next.replace(next.get() + 1);
            let [_, b, c, d] = n.to_be_bytes();
            backend_at(&format!("10.{b}.{c}.{d}:80"), weight, backup)
        })
        .collect()
}

/// A backend of the cluster `web`.
pub(super) fn backend_at(address: &str, weight: u32, backup: bool) -> WeightedBackend {
    WeightedBackend {
        backend: Arc::new(Backend::new("web".into(), address.parse().unwrap())),
        weight,
        backup,
    }
}

/// Asserts that every count is within 5 standard deviations (binomial) of its share of the picks; the tests have fixed
/// seeds, so a pass is final.
pub(super) fn assert_shares(counts: &[u64], weights: &[u32]) {
    let picks: u64 = counts.iter().sum();
    let total: u32 = weights.iter().sum();
    for (index, (&count, &weight)) in counts.iter().zip(weights).enumerate() {
        let share = f64::from(weight) / f64::from(total);
        let expected = picks as f64 * share;
        let tolerance = 5.0 * (expected * (1.0 - share)).sqrt();
        assert!(
            (count as f64 - expected).abs() <= tolerance,
            "backend {index}: {count} picks, expected {expected:.0} within {tolerance:.0}"
        );
    }
}
