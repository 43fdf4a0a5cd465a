//! What the pages of the admin server are made from.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use crate::gossip::view::Report;
use crate::snapshot::publish::Publisher;
use crate::telemetry::metrics::ProcessMetrics;
use crate::telemetry::readiness::Readiness;

/// When the process started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Started {
    /// For people.
    pub time: SystemTime,
    /// For differences.
    pub clock: Instant,
}

impl Started {
    /// This moment.
    pub(crate) fn now() -> Self {
        Self {
            time: SystemTime::now(),
            clock: Instant::now(),
        }
    }
}

/// What the pages are made from.
#[derive(Debug, Clone)]
pub(crate) struct AdminState {
    /// Has the current snapshot.
    pub publisher: Arc<Publisher>,
    /// What the process counts.
    pub process: Arc<ProcessMetrics>,
    /// Whether the process wants traffic.
    pub readiness: Arc<Readiness>,
    /// When the process started.
    pub started: Started,
    /// Number of threads of the data plane.
    pub workers: usize,
    /// Connections of the admin server at a time, those for probes included.
    pub connections: usize,
    /// What this member of a peer set reports; `None` while it is not a member.
    pub gossip: watch::Receiver<Option<Arc<Report>>>,
}

impl AdminState {
    /// Whether the last good set of members still stands in for the real one.
    pub(super) fn is_stale(&self) -> bool {
        self.process.peer_set.stale.load(Ordering::Relaxed)
    }

    /// The newest report of the peer set, if this process is a member of one.
    pub(super) fn report(&self) -> Option<Arc<Report>> {
        self.gossip.borrow().clone()
    }
}
