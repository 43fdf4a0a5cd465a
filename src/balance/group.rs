//! Backends of equal rank (all primaries, or all backups) and the algorithm that chooses among them: an enum, so that a
//! pick is a branch and not a call through a vtable.
//!
//! Algorithms identify backends by their index in the cluster (`u32`) and see them only through [`TierView`], so none
//! can choose a backend that its tier excludes.

use std::cmp::Ordering;

use super::consistent_hash::Ring;
use super::least_connections::LeastConnections;
use super::power_of_two;
use super::round_robin::RoundRobin;
use super::weighted_draw::WeightedDraw;
use super::{PickRequest, WeightedBackend};
use crate::model::health::Health;
use crate::model::settings::Policy;

/// The backends that one tier lets a request use.
pub(super) struct TierView<'a> {
    backends: &'a [WeightedBackend],
    tried: &'a [u32],
    excluded: Health,
}

impl<'a> TierView<'a> {
    /// A view of the backends that have none of the `excluded` health bits and are not in `tried`.
    pub(super) fn new(backends: &'a [WeightedBackend], tried: &'a [u32], excluded: Health) -> Self {
        Self {
            backends,
            tried,
            excluded,
        }
    }

    /// Whether the backend may be chosen.
    pub(super) fn accepts(&self, index: u32) -> bool {
        let health = self.backends[index as usize].backend.health();
        !health.intersects(self.excluded) && !self.tried.contains(&index)
    }

    /// The weight of a backend.
    pub(super) fn weight(&self, index: u32) -> u32 {
        self.backends[index as usize].weight
    }

    /// The label of a backend, which places it on the ring.
    pub(super) fn label(&self, index: u32) -> &'a str {
        self.backends[index as usize].backend.label()
    }

    /// The load that a backend would have with one more request.
    pub(super) fn load(&self, index: u32) -> RelativeLoad {
        let entry = &self.backends[index as usize];
        RelativeLoad {
            requests: u64::from(entry.backend.in_flight()) + 1,
            weight: u64::from(entry.weight),
        }
    }
}

/// Requests per unit of weight, as a fraction. It includes the request to be sent, so that of two idle backends the
/// heavier one is less loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct RelativeLoad {
    requests: u64,
    weight: u64,
}

impl RelativeLoad {
    /// Compares without division: requests are at most 2^32 and weights less, so the products fit.
    pub(super) fn cmp(self, other: Self) -> Ordering {
        (self.requests * other.weight).cmp(&(other.requests * self.weight))
    }
}

/// A group of backends, prepared for its policy. Every variant but `Empty` has at least one backend.
#[derive(Debug)]
pub(super) enum Group {
    Empty,
    RoundRobin(RoundRobin),
    LeastConnections(LeastConnections),
    ConsistentHash(Ring),
    Random(WeightedDraw),
    PowerOfTwo(WeightedDraw),
}

impl Group {
    /// Prepares the backends at `indices` (ascending, of weight at least 1) for `policy`.
    pub(super) fn new(
        policy: Policy,
        hash_seed: u64,
        backends: &[WeightedBackend],
        indices: Vec<u32>,
    ) -> Self {
        if indices.is_empty() {
            return Self::Empty;
        }
        let weights: Vec<u32> = indices
            .iter()
            .map(|&index| backends[index as usize].weight)
            .collect();
        match policy {
            Policy::RoundRobin => Self::RoundRobin(RoundRobin::new(indices, &weights)),
            Policy::LeastConnections => {
                Self::LeastConnections(LeastConnections::new(indices, &weights))
            }
            Policy::ConsistentHash => Self::ConsistentHash(Ring::new(hash_seed, backends, indices)),
            Policy::Random => Self::Random(WeightedDraw::new(indices, &weights)),
            Policy::PowerOfTwo => Self::PowerOfTwo(WeightedDraw::new(indices, &weights)),
        }
    }

    /// Picks a backend that `view` accepts; `None` if there is none.
    pub(super) fn pick(&self, view: &TierView<'_>, pick: &PickRequest<'_>) -> Option<u32> {
        match self {
            Self::Empty => None,
            Self::RoundRobin(cycle) => cycle.pick(view, pick.state.rotation(pick.worker)),
            Self::LeastConnections(draw) => draw.pick(view, pick.random),
            Self::ConsistentHash(ring) => ring.pick(view, pick.key),
            Self::Random(draw) => draw.pick(view, pick.random),
            Self::PowerOfTwo(draw) => power_of_two::pick(draw, view, pick.random),
        }
    }
}
