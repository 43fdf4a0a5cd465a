//! Those who wait until the newest announcement was sent.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::discovery::gossip::shared::SharedNode;
use crate::gossip::Time;

/// How long an announcement may wait for a proxy to send it to.
const SENT_WITHIN: Duration = Duration::from_secs(1);

/// Answers to give, and since when they are waited for.
#[derive(Default)]
pub(super) struct Waiters(Vec<(oneshot::Sender<()>, Time)>);

impl Waiters {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, answer: oneshot::Sender<()>, now: Time) {
        self.0.push((answer, now));
    }

    /// Answers if the announcement was sent to all proxies, or cannot be within a bound.
    pub(super) fn answer(&mut self, shared: &SharedNode) {
        if self.0.is_empty() {
            return;
        }
        let now = shared.now();
        let node = shared.node.borrow();
        let sent = node.announced_to_all();
        let (alone, joined) = (node.active() == 1, node.has_joined());
        let is_over = |since: Time| {
            let in_vain = now - since >= SENT_WITHIN && (alone || !joined);
            sent && (joined || !alone) || in_vain || now - since >= 3 * SENT_WITHIN
        };
        for (answer, _) in self.0.extract_if(.., |(_, since)| is_over(*since)) {
            let _ = answer.send(());
        }
    }
}
