//! L1 pure: which backend takes a request. The random source and the rotation come in as arguments.
//!
//! A [`Balancer`] is built once for each generation of a cluster, is never changed and is read by all workers;
//! what changes (health, load, the place in the rotation) lives in [`crate::model`] and is only looked at here,
//! but for two words: a trial is claimed, and a rotation moves on. One algorithm a file; `group` chooses among
//! them. A pick on a cluster that is well allocates nothing and costs O(1), with two exceptions: `consistent_hash`
//! looks into a bucket of its ring, and `least_connections` reads up to 32 members. It is O(n) in the number of
//! members only while some of them are refused.

mod consistent_hash;
#[cfg(test)]
mod fixture;
mod group;
mod least_connections;
mod numbers;
mod power_of_two;
mod round_robin;
mod tiers;
mod weighted_draw;

use std::sync::Arc;

pub use self::numbers::Random;

use self::group::{Candidates, Group};
use crate::model::backend::Backend;
use crate::model::cluster::ClusterState;
use crate::model::settings::Policy;

/// A backend as one generation of its cluster sees it.
#[derive(Debug, Clone)]
pub struct Member {
    /// Identity and live state.
    pub backend: Arc<Backend>,
    /// Share of the traffic; 0 takes nothing new.
    pub weight: u32,
    /// Used only while no other is healthy.
    pub backup: bool,
}

/// What a pick is made from.
pub struct Pick<'a> {
    /// Hash of the request's key ([`hash_key`]); only `consistent_hash` looks at it.
    pub key: u64,
    /// The cluster's live state.
    pub state: &'a ClusterState,
    /// The worker that picks.
    pub worker: usize,
    /// The worker's random source.
    pub random: &'a Random,
    /// Members (indices) that failed this request already.
    pub tried: &'a [u32],
}

/// Chooses among the members of one generation of a cluster.
#[derive(Debug)]
pub struct Balancer {
    members: Vec<Member>,
    primaries: Group,
    backups: Group,
    strict: bool,
}

impl Balancer {
    /// Builds what `policy` needs, separately for primaries and backups; a member of weight 0 is in neither.
    ///
    /// O(n log n); `consistent_hash` sorts 256 points a unit of weight, at most 4,194,304.
    pub fn new(policy: Policy, hash_seed: u64, members: Vec<Member>) -> Self {
        let group = |backup: bool| {
            let ids = (0u32..)
                .zip(&members)
                .filter(|(_, member)| member.weight > 0 && member.backup == backup)
                .map(|(id, _)| id)
                .collect();
            Group::new(policy, hash_seed, &members, ids)
        };
        let (primaries, backups) = (group(false), group(true));
        Self {
            members,
            primaries,
            backups,
            strict: false,
        }
    }

    /// Never takes a member that is not healthy, even when none is (`panic_threshold = false`).
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    fn has_healthy_backup(&self) -> bool {
        let mut members = self.members.iter();
        members.any(|m| m.backup && m.weight > 0 && m.backend.is_healthy())
    }

    /// The members, in the order of the file.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The index of the member that takes the request; `None` if there is none to take it.
    ///
    /// While the backups stand in and keep all (`on_standby`), only they take anything. Else a waiting trial goes first, then the groups in the order of `tiers`. A member in `tried`, one of weight 0 and
    /// one whose name never resolved are not picked.
    pub fn pick(&self, pick: &Pick<'_>) -> Option<usize> {
        let on_standby = pick.state.on_standby() && self.has_healthy_backup();
        if pick.state.has_trials()
            && let Some(index) = self.claim_trial(pick, on_standby)
        {
            return Some(index);
        }
        if on_standby {
            let candidates = Candidates::new(&self.members, pick.tried, tiers::HEALTHY);
            return self.backups.pick(&candidates, pick).map(|id| id as usize);
        }
        let tiers = tiers::order(pick.state.in_panic(), self.strict);
        tiers.iter().find_map(|tier| {
            let group = match tier.backups {
                false => &self.primaries,
                true => &self.backups,
            };
            let candidates = Candidates::new(&self.members, pick.tried, tier.refused);
            group.pick(&candidates, pick).map(|id| id as usize)
        })
    }

    /// The first member, primaries before backups, that waits for a live request to try it.
    ///
    /// The flag is lowered before the look and raised again if there may be more, so that a trial that is granted
    /// meanwhile is not forgotten.
    ///
    /// `on_standby`, primaries wait.
    fn claim_trial(&self, pick: &Pick<'_>, on_standby: bool) -> Option<usize> {
        pick.state.set_trials(false);
        let mut more = on_standby;
        let groups = if on_standby {
            &[true][..]
        } else {
            &[false, true]
        };
        let claimed = groups.iter().find_map(|&backups| {
            (0u32..)
                .zip(&self.members)
                .filter(|(_, member)| member.weight > 0 && member.backup == backups)
                .find(|(id, member)| {
                    if !member.backend.health().offers_trial() {
                        return false;
                    }
                    if pick.tried.contains(id) {
                        more = true;
                        return false;
                    }
                    member.backend.claim_trial()
                })
        });
        if more || claimed.is_some() {
            pick.state.set_trials(true);
        }
        claimed.map(|(id, _)| id as usize)
    }
}

/// Hash of a request's key for [`Pick::key`]: the same on every proxy with the same `seed`.
pub(crate) fn hash_key(seed: u64, key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(key, seed)
}
