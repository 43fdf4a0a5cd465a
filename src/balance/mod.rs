//! L1 pure: chooses the backend for a request. The random source and the rotation are arguments.
//!
//! A [`Balancer`] is built once for each generation of a cluster, never changes, and is read by all workers. State that
//! changes (health, load, rotation) lives in [`crate::model`] and is only read here, with two exceptions: a pick may
//! claim a trial, and it advances the rotation. Each algorithm has its own file; `group` selects one. On a healthy
//! cluster a pick allocates nothing and costs O(1), except that `consistent_hash` searches a bucket of its ring and
//! `least_connections` reads up to 32 backends. It is O(n) in the number of backends only while some are excluded.

mod consistent_hash;
#[cfg(test)]
mod fixture;
mod group;
mod least_connections;
mod numbers;
mod power_of_two;
mod round_robin;
mod tier_view;
mod tiers;
mod weighted_draw;

use std::sync::Arc;

pub use self::numbers::Random;

use self::group::Group;
use self::tier_view::TierView;
use crate::model::backend::Backend;
use crate::model::cluster::ClusterState;
use crate::model::settings::Policy;

/// A backend with the weight and role that one generation of its cluster gives it.
#[derive(Debug, Clone)]
pub struct WeightedBackend {
    /// Identity and live state.
    pub backend: Arc<Backend>,
    /// Share of the traffic, relative to the other weights; a backend of weight 0 gets no new traffic.
    pub weight: u32,
    /// Whether it is used only while no primary is healthy.
    pub backup: bool,
}

/// The input of a pick.
pub struct PickRequest<'a> {
    /// Hash of the request's key ([`hash_key`]); only `consistent_hash` reads it.
    pub key: u64,
    /// The cluster's live state.
    pub state: &'a ClusterState,
    /// Index of the worker that picks.
    pub worker: usize,
    /// The worker's random source.
    pub random: &'a Random,
    /// Indices of the backends that have already failed this request.
    pub tried: &'a [u32],
}

/// Chooses among the backends of one generation of a cluster.
#[derive(Debug)]
pub struct Balancer {
    backends: Vec<WeightedBackend>,
    primaries: Group,
    backups: Group,
    strict: bool,
}

impl Balancer {
    /// Prepares `policy`, separately for primaries and backups; a backend of weight 0 is in neither group.
    ///
    /// O(n log n); `consistent_hash` sorts 256 points per unit of weight, at most 4,194,304.
    pub fn new(policy: Policy, hash_seed: u64, backends: Vec<WeightedBackend>) -> Self {
        let group = |backup: bool| {
            let indices = (0u32..)
                .zip(&backends)
                .filter(|(_, entry)| entry.weight > 0 && entry.backup == backup)
                .map(|(index, _)| index)
                .collect();
            Group::new(policy, hash_seed, &backends, indices)
        };
        let (primaries, backups) = (group(false), group(true));
        Self {
            backends,
            primaries,
            backups,
            strict: false,
        }
    }

    /// Sets whether picks never choose a backend that is not healthy, even if none is (`panic_threshold = false`).
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    fn has_healthy_backup(&self) -> bool {
        let mut backends = self.backends.iter();
        backends.any(|entry| entry.backup && entry.weight > 0 && entry.backend.is_healthy())
    }

    /// The backends, in the order of the configuration.
    pub fn backends(&self) -> &[WeightedBackend] {
        &self.backends
    }

    /// Returns the index of the backend for the request; `None` if there is none.
    ///
    /// While the backups retain all new traffic (`on_standby`), only they are picked. Otherwise a granted trial comes
    /// first, then the groups in the order of `tiers`. Backends in `tried`, of weight 0, or whose name never resolved
    /// are not picked.
    pub fn pick(&self, pick: &PickRequest<'_>) -> Option<usize> {
        let on_standby = pick.state.on_standby() && self.has_healthy_backup();
        if pick.state.has_trials()
            && let Some(index) = self.claim_trial(pick, on_standby)
        {
            return Some(index);
        }
        if on_standby {
            let view = TierView::new(&self.backends, pick.tried, tiers::HEALTHY);
            return self.backups.pick(&view, pick).map(|index| index as usize);
        }
        let tiers = tiers::order(pick.state.in_panic(), self.strict);
        tiers.iter().find_map(|tier| {
            let group = match tier.backups {
                false => &self.primaries,
                true => &self.backups,
            };
            let view = TierView::new(&self.backends, pick.tried, tier.excluded);
            group.pick(&view, pick).map(|index| index as usize)
        })
    }

    /// Claims the trial of the first backend, primaries before backups, that offers one. While `on_standby`, primaries
    /// have to wait.
    ///
    /// The flag is cleared before the search and set again if there may be more trials, so that a trial granted in the
    /// meantime is not lost.
    fn claim_trial(&self, pick: &PickRequest<'_>, on_standby: bool) -> Option<usize> {
        pick.state.set_trials(false);
        let mut more = on_standby;
        let groups = if on_standby {
            &[true][..]
        } else {
            &[false, true]
        };
        let claimed = groups.iter().find_map(|&backups| {
            (0u32..)
                .zip(&self.backends)
                .filter(|(_, entry)| entry.weight > 0 && entry.backup == backups)
                .find(|(index, entry)| {
                    if !entry.backend.health().offers_trial() {
                        return false;
                    }
                    if pick.tried.contains(index) {
                        more = true;
                        return false;
                    }
                    entry.backend.claim_trial()
                })
        });
        if more || claimed.is_some() {
            pick.state.set_trials(true);
        }
        claimed.map(|(index, _)| index as usize)
    }
}

/// Hashes a request's key for [`PickRequest::key`]; every proxy with the same `seed` gets the same hash.
pub(crate) fn hash_key(seed: u64, key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(key, seed)
}
