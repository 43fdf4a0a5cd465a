//! When the set and the report of the member are published.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use super::SurvivingState;
use crate::discovery::gossip::shared::SharedNode;
use crate::gossip::Time;
use crate::gossip::node::Node;
use crate::gossip::view::Report;

/// Least time between two publications of the set.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// Time between two reports, unless the set changes.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long a member that took another's place may take to join before its view is published.
const JOIN_WITHIN: Duration = Duration::from_secs(5);

/// What was published, and when.
pub(super) struct Publication {
    /// When the set was published; `None` if it never was, and then it is at once.
    published: Option<Time>,
    report_at: Time,
    /// Until then a member that took another's place publishes no set unless it has joined. What was published before
    /// stands.
    hidden_until: Time,
    /// Whether the last report said that another process uses the address.
    conflict: bool,
}

impl Publication {
    /// A member that was restarted first waits until it has joined.
    pub(super) fn new(restarted: bool) -> Self {
        Self {
            published: None,
            report_at: Time::ZERO,
            hidden_until: if restarted { JOIN_WITHIN } else { Time::ZERO },
            conflict: false,
        }
    }

    /// Another member has taken this one's place.
    pub(super) fn wait_for_join(&mut self, now: Time) {
        self.hidden_until = now + JOIN_WITHIN;
    }

    /// Publishes what is due.
    pub(super) fn publish(&mut self, state: &SurvivingState, shared: &SharedNode) {
        let now = shared.now();
        let publisher = &state.publisher;
        if !publisher.is_owned_by(state.claim) {
            self.report_at = now + REPORT_EVERY;
            return;
        }
        let mut node = shared.node.borrow_mut();
        let shows = node.has_joined() || now >= self.hidden_until;
        let rested = self.published.is_none_or(|at| now - at >= PUBLISH_EVERY);
        if shows && node.is_dirty() && rested {
            self.published = Some(now);
            publisher.set.send_replace(Arc::new(node.view(now)));
            // The report shows the members that traffic goes to.
            self.report_at = now;
        }
        if now < self.report_at {
            return;
        }
        self.report_at = now + REPORT_EVERY;
        self.log_conflict(state, &node);
        let report = Report {
            set: Arc::clone(&publisher.set.borrow()),
            at: now,
            address: state.settings.peer_set.advertise,
            label: state.settings.peer_set.label.clone(),
            key_ids: node.key_ids(),
            counters: node.counters().clone(),
            lag: node.take_lag(),
            health_multiplier: node.health_multiplier(),
            joined: node.has_joined(),
            conflict: self.conflict,
            refused: node.refused(),
        };
        publisher.publish_report(state.claim, Some(report));
    }

    fn log_conflict(&mut self, state: &SurvivingState, node: &Node) {
        if node.in_conflict() == self.conflict {
            return;
        }
        self.conflict = node.in_conflict();
        if self.conflict {
            error!(
                address = %state.settings.peer_set.advertise,
                "gossip: another process uses this address; this member stays silent for five minutes, but listens"
            );
        } else {
            warn!("gossip: this member is no longer silent");
        }
    }

    /// When something is due.
    pub(super) fn next_deadline(&self, node: &Node, now: Time) -> Time {
        if !node.is_dirty() {
            return self.report_at;
        }
        let due = self.published.map_or(now, |at| at + PUBLISH_EVERY);
        self.report_at.min(due.max(now + PUBLISH_EVERY / 10))
    }
}
