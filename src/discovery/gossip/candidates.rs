//! Pure: from the peer set to the candidates of each cluster. The whole set is passed in each time, with the policy of
//! the file, the proxy's own view of health and the time, so that a lost update does not matter.
//!
//! What the set says of a record decides:
//! - `ready`: the backend is added, unless it is refused, held down (`flaps`) or the cluster is full. Weight and zone
//!   apply at once. That a member is `suspect` changes nothing.
//! - `draining`, `left`: it is removed at once, as its own agent orders.
//! - `starting`, `failing`: it is not added. A candidate is doubted and stays. If our own check fails too, health
//!   checks take it down at once, and panic mode covers it as any other backend, so an agent that restarts beside a
//!   healthy service takes nothing away. In a cluster without a check it counts as lost and is removed at once.
//! - down, or missing: lost. It is doubted, and removed when our own check fails; in a cluster without a check when it
//!   refuses connections, or after 30 s. The guard against mass removals may keep it (`guard`). In a cluster without a
//!   check it is kept for as long as nobody else is in the set, or if nobody would be left: the set's word alone is not
//!   reason enough.
//! - not announced by a live member: withdrawn. It is removed at once if it was announced in the member's current run.
//!   In another run its record may only be late, so it counts as lost.
//! - expired, or without a token since tokens are required: lost, and removed whatever our own check says. No longer
//!   permitted, since a token key has changed: removed at once.
//! - refused, since the file no longer allows it: removed at once.
//!
//! If several members announce one address, the one that made it a candidate decides (its orders, its weight) while it
//! is alive and for a minute after. Another member's order counts only if all that announce the address order the same,
//! so a duplicate agent that ends drains nothing. For a new candidate a live and permitted member comes before others,
//! then the newest record (epoch, version), then the higher member address; but nobody adds it while its previous
//! member drains it.
//!
//! The last good set ([`Candidates::with_last_good`]) stands until the set has had another member for 5 s, in which a
//! joiner learns all the others. What the set does not know by then is lost like any other candidate.

mod cluster;
mod proposals;
mod recent_sets;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Candidate, CandidateEvent, CandidatePolicy, CandidateRefusal, LocalHealth};
use crate::gossip::view::{Member, PeerSet};
use cluster::{ClusterCandidates, ClusterUpdate};
use proposals::{is_alive, proposals};
use recent_sets::RecentSets;

/// Time from the first other member until the set counts as complete.
const SETTLED: Duration = Duration::from_secs(5);

/// Candidates by the name under which they are announced.
pub(crate) type LastGood = BTreeMap<String, Vec<Candidate>>;

/// The candidates of all clusters; see the module.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    clusters: BTreeMap<String, ClusterCandidates>,
    /// The last good set, until the real one is complete.
    last_good: Option<LastGood>,
    /// When the set first had another member.
    met: Option<Duration>,
    /// This proxy is alone in the set.
    alone: bool,
    /// Time of the last set, by the member's clock.
    seen_at: Duration,
    refusals: [u64; CandidateRefusal::ALL.len()],
    deadline: Option<Duration>,
    /// What was stored lately, by the name under which candidates are announced.
    recent: BTreeMap<String, RecentSets>,
    /// When the first set that is not to be stored yet may be stored.
    store_at: Option<Duration>,
}

/// What an update did.
#[derive(Debug, Default)]
pub(crate) struct Update {
    /// Some cluster has other candidates, weights or zones now.
    pub changed: bool,
    /// What is to be logged.
    pub events: Vec<CandidateEvent>,
}

impl Candidates {
    /// Starts with the last good set.
    pub(crate) fn with_last_good(last_good: LastGood) -> Self {
        Self {
            last_good: (!last_good.is_empty()).then_some(last_good),
            ..Self::default()
        }
    }

    /// Takes the set as it is now. `health` is called only for lost and failing candidates. O(members + candidates).
    pub(crate) fn update(
        &mut self,
        now: Duration,
        set: &PeerSet,
        policy: &CandidatePolicy<'_>,
        health: &dyn Fn(&str, SocketAddr) -> LocalHealth,
    ) -> Update {
        let mut update = Update::default();
        self.deadline = None;
        let lives = |member: &&Member| is_alive(member.liveness);
        // This proxy's own member is one of them.
        self.alone = set.members.iter().filter(lives).count() < 2;
        self.settle(now);
        // A member that was restarted has a new clock.
        let restarted = set.at < std::mem::replace(&mut self.seen_at, set.at);
        let before = self.clusters.len();
        let subscriptions = policy.subscriptions;
        self.clusters
            .retain(|name, _| subscriptions.iter().any(|wanted| wanted.cluster == name));
        update.changed |= self.clusters.len() != before;
        let proposals = proposals(set, policy);
        let none = BTreeMap::new();
        for subscription in subscriptions {
            let name = subscription.gossip;
            let cluster = self
                .clusters
                .entry(subscription.cluster.to_owned())
                .or_default();
            if cluster.gossip != name {
                update.changed |= !cluster.candidates.is_empty();
                let last_good = self.last_good.as_ref().and_then(|all| all.get(name));
                *cluster = ClusterCandidates::new(name, last_good);
            }
            let mut context = ClusterUpdate {
                now,
                set,
                restarted,
                alone: self.alone,
                subscription,
                policy,
                health,
                stale: self.last_good.is_some(),
                refusals: &mut self.refusals,
                update: &mut update,
            };
            cluster.update(proposals.get(name).unwrap_or(&none), &mut context);
            let deadline = cluster.next_deadline(now, subscription.checked);
            self.deadline = self.deadline.into_iter().chain(deadline).min();
        }
        update
    }

    /// Drops the last good set once the real one is complete.
    fn settle(&mut self, now: Duration) {
        if self.last_good.is_none() {
            return;
        }
        if self.alone {
            self.met = None;
            return;
        }
        let complete = *self.met.get_or_insert(now) + SETTLED;
        if complete <= now {
            self.last_good = None;
        } else {
            self.deadline = Some(complete);
        }
    }

    /// When time alone may change something: update again then.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.deadline.into_iter().chain(self.store_at).min()
    }

    /// Whether the last good set still stands in for the real one.
    pub(crate) fn is_stale(&self) -> bool {
        self.last_good.is_some()
    }

    /// Candidates of a cluster, sorted by address.
    pub(crate) fn of(&self, cluster: &str) -> impl Iterator<Item = &Candidate> {
        let candidates = self
            .clusters
            .get(cluster)
            .map(|cluster| &cluster.candidates);
        candidates
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|known| &known.candidate)
    }

    /// What to store for a start without peers, given what is `stored` already; `None` while the set cannot be trusted,
    /// because the last good one stands in for it or this proxy is alone.
    ///
    /// If a cluster is on hold, or became empty other than by orderly leaves, its stored set is kept. The same holds
    /// for five minutes if more than half is gone of the largest set that was stored in the last five, however that
    /// happened.
    pub(crate) fn next_last_good(&mut self, now: Duration, stored: &LastGood) -> Option<LastGood> {
        if self.is_stale() || self.alone {
            return None;
        }
        let mut by_name: BTreeMap<&str, (bool, BTreeMap<SocketAddr, Candidate>)> = BTreeMap::new();
        for cluster in self.clusters.values() {
            let (good, all) = by_name
                .entry(&cluster.gossip)
                .or_insert((true, BTreeMap::new()));
            *good &= cluster.is_good();
            for (address, known) in &cluster.candidates {
                let plain = Candidate {
                    member: None,
                    doubted: false,
                    ..known.candidate.clone()
                };
                all.insert(*address, plain);
            }
        }
        self.recent
            .retain(|name, _| by_name.contains_key(name.as_str()));
        let mut next = LastGood::new();
        for (name, (good, all)) in by_name {
            let stored = stored.get(name).map_or(&[][..], Vec::as_slice);
            let recent = self.recent.entry(name.to_owned()).or_default();
            let all = if recent.may_replace(now, stored, &all) && good || stored.is_empty() {
                recent.settle();
                all.into_values().collect()
            } else {
                stored.to_vec()
            };
            next.insert(name.to_owned(), all);
        }
        let settled = self.recent.values().filter_map(RecentSets::settles_at);
        self.store_at = settled.filter(|&at| at > now).min();
        Some(next)
    }

    /// Whether the stored set of some cluster differs from its candidates for a reason that may pass.
    pub(crate) fn is_troubled(&self) -> bool {
        self.store_at.is_some() || !self.clusters.values().all(ClusterCandidates::is_good)
    }

    /// Records that were refused, by [`CandidateRefusal::index`]. Each counts once while it is refused.
    pub(crate) fn refusals(&self) -> &[u64; CandidateRefusal::ALL.len()] {
        &self.refusals
    }
}
