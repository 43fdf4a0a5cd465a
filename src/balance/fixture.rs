//! A cluster on the bench of the tests: members with given weights, their live state, one worker's random numbers.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Balancer, Member, Pick, Random};
use crate::model::backend::Backend;
use crate::model::cluster::ClusterState;
use crate::model::settings::Policy;

/// See the module.
pub(super) struct Bench {
    pub balancer: Balancer,
    pub state: ClusterState,
    /// Shared, so that picks can be made from several threads.
    seed: AtomicU64,
}

impl Bench {
    /// Primaries with these weights.
    pub(super) fn new(policy: Policy, weights: &[u32]) -> Self {
        let weights: Vec<_> = weights.iter().map(|&weight| (weight, false)).collect();
        Self::with_backups(policy, &weights)
    }

    /// Weight and whether it is a backup.
    pub(super) fn with_backups(policy: Policy, weights: &[(u32, bool)]) -> Self {
        Self::of(policy, members(weights))
    }

    /// These members.
    pub(super) fn of(policy: Policy, members: Vec<Member>) -> Self {
        Self::over(Balancer::new(policy, 0, members), 1)
    }

    /// This balancer, for so many workers.
    pub(super) fn over(balancer: Balancer, workers: usize) -> Self {
        Self {
            balancer,
            state: ClusterState::new(workers),
            seed: AtomicU64::new(42),
        }
    }

    /// Without a panic.
    pub(super) fn strict(mut self) -> Self {
        self.balancer = self.balancer.strict(true);
        self
    }

    pub(super) fn backend(&self, index: usize) -> &Backend {
        &self.balancer.members()[index].backend
    }

    pub(super) fn pick(&self) -> Option<usize> {
        self.pick_without(&[])
    }

    /// A pick with an arbitrary key.
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
        self.balancer.pick(&Pick {
            key,
            state: &self.state,
            worker,
            random,
            tried,
        })
    }

    /// How often each member is found by `picks` picks with the numbers of one seed.
    pub(super) fn counts(&self, picks: usize, seed: u64) -> Vec<u64> {
        let random = Random::new(seed);
        let mut counts = vec![0; self.balancer.members().len()];
        for _ in 0..picks {
            if let Some(index) = self.pick_as(random.next_u64(), 0, &random, &[]) {
                counts[index] += 1;
            }
        }
        counts
    }
}

/// Members at 10.x.y.z:80 in order.
pub(super) fn members(weights: &[(u32, bool)]) -> Vec<Member> {
    let next = Cell::new(0u32);
    weights
        .iter()
        .map(|&(weight, backup)| {
            let n = next.replace(next.get() + 1);
            let [_, b, c, d] = n.to_be_bytes();
            member(&format!("10.{b}.{c}.{d}:80"), weight, backup)
        })
        .collect()
}

/// One member.
pub(super) fn member(address: &str, weight: u32, backup: bool) -> Member {
    Member {
        backend: Arc::new(Backend::new("web".into(), address.parse().unwrap())),
        weight,
        backup,
    }
}

/// Asserts that every count is within 5 standard deviations of its share of the picks (binomial); with the
/// fixed seeds of the tests a pass is a pass for ever.
pub(super) fn assert_shares(counts: &[u64], weights: &[u32]) {
    let picks: u64 = counts.iter().sum();
    let total: u32 = weights.iter().sum();
    for (index, (&count, &weight)) in counts.iter().zip(weights).enumerate() {
        let share = f64::from(weight) / f64::from(total);
        let expected = picks as f64 * share;
        let tolerance = 5.0 * (expected * (1.0 - share)).sqrt();
        assert!(
            (count as f64 - expected).abs() <= tolerance,
            "member {index}: {count} picks, expected {expected:.0} within {tolerance:.0}"
        );
    }
}
