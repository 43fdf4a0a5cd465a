//! Backends of equal rank (all primaries, or all backups) and the algorithm that chooses among them: an enum, so that a
//! pick is a branch and not a call through a vtable.

use super::consistent_hash::Ring;
use super::least_connections::LeastConnections;
use super::power_of_two;
use super::round_robin::RoundRobin;
use super::tier_view::TierView;
use super::weighted_draw::WeightedDraw;
use super::{PickRequest, WeightedBackend};
use crate::model::settings::Policy;

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
