//! What an algorithm sees of the backends. It identifies them by their index in the cluster (`u32`) and sees them only
//! through [`TierView`], so it cannot choose a backend that its tier excludes.

use std::cmp::Ordering;

use super::WeightedBackend;
use crate::model::health::Health;

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
