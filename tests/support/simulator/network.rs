//! What a simulated network does to what is sent.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::NodeId;

/// Loss, delay and who reaches whom.
#[derive(Debug, Clone)]
pub struct Network {
    /// Share of datagrams that are lost.
    pub loss: f64,
    /// Least and most time of a datagram on its way.
    pub latency: (Duration, Duration),
    /// Parts of the network; nodes of different ones do not reach each other. A node that is not named is in part 0.
    pub parts: HashMap<NodeId, u8>,
    /// Ways that carry nothing: from, to.
    pub blocked: HashSet<(NodeId, NodeId)>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            loss: 0.01,
            latency: (Duration::from_micros(300), Duration::from_millis(2)),
            parts: HashMap::new(),
            blocked: HashSet::new(),
        }
    }
}

impl Network {
    /// Whether anything gets from one to the other.
    pub fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        let part = |id: NodeId| self.parts.get(&id).copied().unwrap_or(0);
        (self.parts.is_empty() || part(from) == part(to))
            && (self.blocked.is_empty() || !self.blocked.contains(&(from, to)))
    }

    pub(super) fn latency(&self, rng: &mut StdRng) -> Duration {
        let (least, most) = self.latency;
        least + (most - least).mul_f64(rng.random::<f64>())
    }

    /// How long a datagram takes; `None` if it is lost.
    pub(super) fn carry(&self, from: NodeId, to: NodeId, rng: &mut StdRng) -> Option<Duration> {
        let lost = rng.random::<f64>() < self.loss;
        (!lost && self.reaches(from, to)).then(|| self.latency(rng))
    }
}

/// What a node has sent and received, bytes with the headers of IP, UDP and TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// Sent in all.
    pub sent: u64,
    /// Received.
    pub received: u64,
    /// Of what was sent, on streams.
    pub streamed: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Exchanges that others have begun with it.
    pub asked: u64,
}
