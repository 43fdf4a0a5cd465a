//! What the rest of the program sees of the member: the peer set and reports, which stay while members come and go by
//! reloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::gossip::view::{PeerSet, Report};

/// Publishes the peer set and the reports of whichever member owns it: the one that was started last.
#[derive(Debug, Clone)]
pub(crate) struct MemberPublisher {
    /// The set, on each change.
    pub set: Arc<watch::Sender<Arc<PeerSet>>>,
    /// The report, each second; `None` without a member. Until the member's thread has started its set is empty,
    /// without even the member itself.
    pub report: Arc<watch::Sender<Option<Arc<Report>>>>,
    /// Number of the owner.
    owner: Arc<AtomicU64>,
}

impl MemberPublisher {
    /// Makes a new member the owner, and publishes its `first` report, so that it is seen at once. The owner changes
    /// while the report is locked, so the previous owner can neither overwrite nor clear the report. Returns the number
    /// of the new owner.
    pub(super) fn claim(&self, first: Report) -> u64 {
        let mut claim = 0;
        self.report.send_modify(|report| {
            claim = self.owner.fetch_add(1, Ordering::Relaxed) + 1;
            *report = Some(Arc::new(first));
        });
        claim
    }

    /// Publishes a report, or that there is no member, if this member is still the owner.
    pub(super) fn publish_report(&self, claim: u64, next: Option<Report>) {
        self.report.send_if_modified(|report| {
            let own = self.is_owned_by(claim);
            if own {
                *report = next.map(Arc::new);
            }
            own
        });
    }

    /// Whether this member is still the owner.
    pub(super) fn is_owned_by(&self, claim: u64) -> bool {
        self.owner.load(Ordering::Relaxed) == claim
    }
}

impl Default for MemberPublisher {
    fn default() -> Self {
        Self {
            set: Arc::new(watch::Sender::new(Arc::default())),
            report: Arc::new(watch::Sender::new(None)),
            owner: Arc::default(),
        }
    }
}
