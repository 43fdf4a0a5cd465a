//! L1 pure: which backend takes a request. The random source and the rotation come in as arguments.

use std::cell::Cell;
use std::sync::Arc;

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

/// A worker's random numbers (wyrand); not for secrets.
pub struct Random(Cell<u64>);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }
}

/// Chooses among the members of one generation of a cluster.
#[derive(Debug)]
pub struct Balancer {
    members: Vec<Member>,
}

impl Balancer {
    /// Builds what `policy` needs.
    pub fn new(policy: Policy, hash_seed: u64, members: Vec<Member>) -> Self {
        let _ = (policy, hash_seed);
        Self { members }
    }

    /// The members, in the order of the file.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The index of the member that takes the request; `None` if there is none to take it.
    pub fn pick(&self, pick: &Pick<'_>) -> Option<usize> {
        let _ = pick;
        None
    }
}

/// Hash of a request's key for [`Pick::key`]: the same on every proxy with the same `seed`.
pub fn hash_key(seed: u64, key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(key, seed)
}
