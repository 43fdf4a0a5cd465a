//! Members that stand beside each other (all primaries, or all backups) and the algorithm that chooses among
//! them: an enum, so that a pick is a jump and no call through a table.
//!
//! Algorithms name members by their index in the cluster (`u32`) and see them through [`Candidates`] only, so none
//! of them can look past what its tier refuses.

use std::cmp::Ordering;

use super::consistent_hash::Ring;
use super::least_connections::LeastConnections;
use super::power_of_two;
use super::round_robin::RoundRobin;
use super::weighted_draw::WeightedDraw;
use super::{Member, Pick};
use crate::model::health::Health;
use crate::model::settings::Policy;

/// The members as one tier sees them.
pub(super) struct Candidates<'a> {
    members: &'a [Member],
    tried: &'a [u32],
    refused: Health,
}

impl<'a> Candidates<'a> {
    /// Those that have none of the health bits `refused` and are not in `tried`.
    pub(super) fn new(members: &'a [Member], tried: &'a [u32], refused: Health) -> Self {
        Self {
            members,
            tried,
            refused,
        }
    }

    /// Whether the member may take the request.
    pub(super) fn accept(&self, id: u32) -> bool {
        let health = self.members[id as usize].backend.health();
        !health.intersects(self.refused) && !self.tried.contains(&id)
    }

    /// Its weight.
    pub(super) fn weight(&self, id: u32) -> u32 {
        self.members[id as usize].weight
    }

    /// Its name on the ring.
    pub(super) fn label(&self, id: u32) -> &'a str {
        self.members[id as usize].backend.label()
    }

    /// What it would carry with one request more.
    pub(super) fn load(&self, id: u32) -> Load {
        let member = &self.members[id as usize];
        Load {
            requests: u64::from(member.backend.in_flight()) + 1,
            weight: u64::from(member.weight),
        }
    }
}

/// Requests per unit of weight, as a fraction. The request to come is counted, so that of two idle members the
/// heavier one is the less loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    requests: u64,
    weight: u64,
}

impl Load {
    /// Compares without division: requests are at most 2^32 and weights less, so the products fit.
    pub(super) fn cmp(self, other: Self) -> Ordering {
        (self.requests * other.weight).cmp(&(other.requests * self.weight))
    }
}

/// One group under its policy. All but `Empty` hold at least one member.
#[derive(Debug)]
pub(super) enum Group {
    /// Nobody.
    Empty,
    /// `round_robin`.
    RoundRobin(RoundRobin),
    /// `least_connections`.
    LeastConnections(LeastConnections),
    /// `consistent_hash`.
    ConsistentHash(Ring),
    /// `random`.
    Random(WeightedDraw),
    /// `power_of_two`.
    PowerOfTwo(WeightedDraw),
}

impl Group {
    /// The members `ids` (ascending, weights at least 1) under `policy`.
    pub(super) fn new(policy: Policy, hash_seed: u64, members: &[Member], ids: Vec<u32>) -> Self {
        if ids.is_empty() {
            return Self::Empty;
        }
        let weights: Vec<u32> = ids.iter().map(|&id| members[id as usize].weight).collect();
        match policy {
            Policy::RoundRobin => Self::RoundRobin(RoundRobin::new(ids, &weights)),
            Policy::LeastConnections => {
                Self::LeastConnections(LeastConnections::new(ids, &weights))
            }
            Policy::ConsistentHash => Self::ConsistentHash(Ring::new(hash_seed, members, ids)),
            Policy::Random => Self::Random(WeightedDraw::new(ids, &weights)),
            Policy::PowerOfTwo => Self::PowerOfTwo(WeightedDraw::new(ids, &weights)),
        }
    }

    /// A member that the candidates accept; `None` if there is none.
    pub(super) fn pick(&self, candidates: &Candidates<'_>, pick: &Pick<'_>) -> Option<u32> {
        match self {
            Self::Empty => None,
            Self::RoundRobin(cycle) => cycle.pick(candidates, pick.state.rotation(pick.worker)),
            Self::LeastConnections(members) => members.pick(candidates, pick.random),
            Self::ConsistentHash(ring) => ring.pick(candidates, pick.key),
            Self::Random(members) => members.pick(candidates, pick.random),
            Self::PowerOfTwo(members) => power_of_two::pick(members, candidates, pick.random),
        }
    }
}
