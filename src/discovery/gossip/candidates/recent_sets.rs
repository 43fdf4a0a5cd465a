//! What was stored for a cluster lately, so that a good set is not emptied in steps.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::discovery::gossip::Candidate;

/// How long a set of which more than half is gone is not stored.
const EMPTIED: Duration = Duration::from_secs(300);
/// Sets are remembered per period of this length.
const PERIOD: Duration = Duration::from_secs(60);

/// The largest sets that were stored in the last minutes; see the module.
#[derive(Debug, Default)]
pub(super) struct RecentSets {
    /// The largest set of each period, the newest last: at most six.
    largest: VecDeque<(u64, Vec<SocketAddr>)>,
    /// Since when more than half of the largest of them has been gone.
    emptied: Option<Duration>,
}

impl RecentSets {
    /// Whether `all` may replace what is `stored`: at least half of the largest set of the last five minutes is there,
    /// or has been gone for as long.
    pub(super) fn may_replace(
        &mut self,
        now: Duration,
        stored: &[Candidate],
        all: &BTreeMap<SocketAddr, Candidate>,
    ) -> bool {
        self.note(now, stored);
        let largest = self.largest.iter().map(|(_, set)| set);
        let is_emptied = largest.max_by_key(|set| set.len()).is_some_and(|set| {
            let there = set.iter().filter(|address| all.contains_key(address));
            2 * there.count() < set.len()
        });
        if !is_emptied {
            self.emptied = None;
            return true;
        }
        *self.emptied.get_or_insert(now) + EMPTIED <= now
    }

    /// Notes that a set may be stored: one of which more than half has been gone for long no longer counts.
    pub(super) fn settle(&mut self) {
        if self.emptied.take().is_some() {
            self.largest.clear();
        }
    }

    /// When a set that is not stored yet may be stored.
    pub(super) fn settles_at(&self) -> Option<Duration> {
        self.emptied.map(|since| since + EMPTIED)
    }

    fn note(&mut self, now: Duration, stored: &[Candidate]) {
        let period = |at: Duration| at.as_secs() / PERIOD.as_secs();
        let oldest = period(now.saturating_sub(EMPTIED));
        self.largest.retain(|(of, _)| *of >= oldest);
        let before = self.largest.pop_back_if(|(of, _)| *of == period(now));
        let set = match before {
            Some((_, set)) if set.len() >= stored.len() => set,
            _ => stored.iter().map(|candidate| candidate.address).collect(),
        };
        self.largest.push_back((period(now), set));
    }
}
