//! What the simulated network does to datagrams and streams.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::NodeId;

/// Loss, delay, and which nodes reach each other.
#[derive(Debug, Clone)]
pub struct Network {
    /// Fraction of datagrams that are lost, 0 to 1.
    pub loss: f64,
    /// Shortest and longest latency of a datagram.
    pub latency: (Duration, Duration),
    /// Parts of the network. Nodes in different parts do not reach each other; a node that is not listed is in part 0.
    pub parts: HashMap<NodeId, u8>,
    /// Links that carry nothing: from, to.
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
    /// Whether anything gets from one node to the other.
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
    pub(super) fn transmit(&self, from: NodeId, to: NodeId, rng: &mut StdRng) -> Option<Duration> {
        let lost = rng.random::<f64>() < self.loss;
        (!lost && self.reaches(from, to)).then(|| self.latency(rng))
    }
}

/// What a node has sent and received, in bytes with IP, UDP and TCP headers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent on streams.
    pub streamed: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Push-pulls that others have started with it.
    pub asked: u64,
}
