//! What was kept of a name lately, so that a good set is not written away in steps.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::super::Candidate;

/// How long a set of which more than half is gone is not kept so.
const EMPTIED: Duration = Duration::from_secs(300);
/// Sets are remembered by the part of that in which they were kept.
const PART: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The largest set that was kept in each part, the newest last: at most six.
    largest: VecDeque<(u64, Vec<SocketAddr>)>,
    /// Since when more than half of the largest of them is gone.
    emptied: Option<Duration>,
}

impl Memory {
    /// Whether `all` may be kept in place of `kept`: at least half of the largest set of the last five minutes is there,
    /// or was not there for as long.
    pub(super) fn may_keep(
        &mut self,
        now: Duration,
        kept: &[Candidate],
        all: &BTreeMap<SocketAddr, Candidate>,
    ) -> bool {
        self.note(now, kept);
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

    /// Something may be kept: what more than half was gone of for so long counts no more.
    pub(super) fn settle(&mut self) {
        if self.emptied.take().is_some() {
            self.largest.clear();
        }
    }

    /// When a set that is kept back may be kept.
    pub(super) fn settles_at(&self) -> Option<Duration> {
        self.emptied.map(|since| since + EMPTIED)
    }

    fn note(&mut self, now: Duration, kept: &[Candidate]) {
        let part = |at: Duration| at.as_secs() / PART.as_secs();
        let oldest = part(now.saturating_sub(EMPTIED));
        self.largest.retain(|(of, _)| *of >= oldest);
        let before = self.largest.pop_back_if(|(of, _)| *of == part(now));
        let set = match before {
            Some((_, set)) if set.len() >= kept.len() => set,
            _ => kept.iter().map(|kept| kept.address).collect(),
        };
        self.largest.push_back((part(now), set));
    }
}
