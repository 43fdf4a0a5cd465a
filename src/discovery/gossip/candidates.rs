//! Pure: from the peer set to the candidates of each cluster. The whole set comes in each time, with the rules of the
//! file, the proxy's own opinions and the time; so a lost update costs nothing.
//!
//! What the set says of a record, and what follows:
//! - `ready`: it comes in, unless it is refused, held down (`flaps`) or the cluster is full. Weight and zone
//!   apply at once. `suspect` changes nothing.
//! - `draining`, `left`: out at once, by the agent's own order.
//! - `starting`, `failing`: does not come in. One that is in is doubted and stays: if our own check fails too, the health
//!   checks hold it down at once, and a panic covers it as any other backend. So an agent that restarts beside a healthy
//!   service takes nothing away. In a cluster without a check it is lost, and goes at once.
//! - down, or missing: lost. It is doubted and goes when our own check fails; in a cluster without one, when it refuses
//!   connections or after 30 s. The guard against a mass removal may hold it back (`guard`): in a cluster without a check
//!   for as long as nobody else is in the set, or nobody would be left, since the set's word alone is no reason for that.
//! - not announced by a member that is there: withdrawn. Out at once, if it was announced in that run of the member; in
//!   another run, of which a record may only be late, it is lost.
//! - expired, or without a token since one is asked for: lost, and goes whatever our own check says. Not permitted any more, since the token key has changed: out at
//!   once.
//! - refused (the file no longer allows it): out at once.
//!
//! Of several members that announce one address, the one by whose word it came in counts, while it is there and for a minute
//! after: its order, its weight. An order of another counts only if all that announce the address order it, so that a duplicate
//! agent which ends drains nothing. Who else brings an address in: one that lives and may comes before one that does not, then
//! the newest record (epoch, version), then the higher member address; but nobody while the one before drains it. The last good set ([`Candidates::with_last_good`]) stays as it is
//! until the set has had another member for 5 s, in which a joiner learns all the others; what it does not know by
//! then is lost like any other.

mod cluster;
mod memory;
mod proposals;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Candidate, Event, Opinion, Refusal, Rules};
use crate::gossip::view::{Member, PeerSet};
use cluster::{Cluster, Turn};
use memory::Memory;
use proposals::{is_alive, proposals};

/// How long after the first other member the set is thought whole.
const SETTLED: Duration = Duration::from_secs(5);

/// Candidates by the name under which they are announced.
pub(crate) type LastGood = BTreeMap<String, Vec<Candidate>>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    clusters: BTreeMap<String, Cluster>,
    /// Until the set is whole.
    last_good: Option<LastGood>,
    /// When the set had another member first.
    met: Option<Duration>,
    /// Nobody else is in the set.
    alone: bool,
    /// The moment of the last set, by its own clock.
    seen_at: Duration,
    refusals: [u64; Refusal::ALL.len()],
    deadline: Option<Duration>,
    /// By name.
    memories: BTreeMap<String, Memory>,
    /// When the first of those that are kept back may be kept.
    keep_at: Option<Duration>,
}

/// What an update did.
#[derive(Debug, Default)]
pub(crate) struct Update {
    /// Whether some cluster has other candidates, weights or zones now.
    pub changed: bool,
    /// For the log.
    pub events: Vec<Event>,
}

impl Candidates {
    /// Starts with what was known last.
    pub(crate) fn with_last_good(last_good: LastGood) -> Self {
        Self {
            last_good: (!last_good.is_empty()).then_some(last_good),
            ..Self::default()
        }
    }

    /// Takes in the set as it is now; `opinion` is asked only for lost and failing candidates. O(members + candidates).
    pub(crate) fn update(
        &mut self,
        now: Duration,
        set: &PeerSet,
        rules: &Rules<'_>,
        opinion: &dyn Fn(&str, SocketAddr) -> Opinion,
    ) -> Update {
        let mut update = Update::default();
        self.deadline = None;
        let lives = |member: &&Member| is_alive(member.liveness);
        // This member is one of them.
        self.alone = set.members.iter().filter(lives).count() < 2;
        self.meet(now);
        // A member that begins anew has a new clock.
        let anew = set.at < std::mem::replace(&mut self.seen_at, set.at);
        let before = self.clusters.len();
        self.clusters
            .retain(|name, _| rules.wishes.iter().any(|wish| wish.cluster == name));
        update.changed |= self.clusters.len() != before;
        let proposals = proposals(set, rules);
        let none = BTreeMap::new();
        for wish in rules.wishes {
            let cluster = self.clusters.entry(wish.cluster.to_owned()).or_default();
            if cluster.gossip != wish.gossip {
                update.changed |= !cluster.members.is_empty();
                let last_good = self.last_good.as_ref().and_then(|all| all.get(wish.gossip));
                *cluster = Cluster::new(wish.gossip, last_good);
            }
            let mut turn = Turn {
                now,
                set,
                anew,
                alone: self.alone,
                wish,
                rules,
                opinion,
                stale: self.last_good.is_some(),
                refusals: &mut self.refusals,
                update: &mut update,
            };
            cluster.update(proposals.get(wish.gossip).unwrap_or(&none), &mut turn);
            let deadline = cluster.next_deadline(now, wish.checked);
            self.deadline = self.deadline.into_iter().chain(deadline).min();
        }
        update
    }

    /// Lets go of the last good set when the real one is whole.
    fn meet(&mut self, now: Duration) {
        if self.last_good.is_none() {
            return;
        }
        if self.alone {
            self.met = None;
            return;
        }
        let whole = *self.met.get_or_insert(now) + SETTLED;
        if whole <= now {
            self.last_good = None;
        } else {
            self.deadline = Some(whole);
        }
    }

    /// When time alone may change something: update again then.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.deadline.into_iter().chain(self.keep_at).min()
    }

    /// Whether the last good set still stands in for the real one.
    pub(crate) fn is_stale(&self) -> bool {
        self.last_good.is_some()
    }

    /// Candidates of a cluster, sorted by address.
    pub(crate) fn of(&self, cluster: &str) -> impl Iterator<Item = &Candidate> {
        let members = self.clusters.get(cluster).map(|cluster| &cluster.members);
        members
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|known| &known.candidate)
    }

    /// What is worth keeping for a start without peers, where `before` is kept already; `None` while the set is not to be
    /// trusted: the last good one stands in for it, or this proxy is alone. Of a cluster that is held, or empty otherwise
    /// than by its members' own order, what is kept stays; and for five minutes if more than half is gone of the largest
    /// set that was kept in the last five, however that came about.
    pub(crate) fn to_last_good(&mut self, now: Duration, before: &LastGood) -> Option<LastGood> {
        if self.is_stale() || self.alone {
            return None;
        }
        let mut by_name: BTreeMap<&str, (bool, BTreeMap<SocketAddr, Candidate>)> = BTreeMap::new();
        for cluster in self.clusters.values() {
            let (good, all) = by_name
                .entry(&cluster.gossip)
                .or_insert((true, BTreeMap::new()));
            *good &= cluster.is_good();
            for (address, known) in &cluster.members {
                let kept = Candidate {
                    member: None,
                    doubted: false,
                    ..known.candidate.clone()
                };
                all.insert(*address, kept);
            }
        }
        self.memories
            .retain(|name, _| by_name.contains_key(name.as_str()));
        let mut worth = LastGood::new();
        for (name, (good, all)) in by_name {
            let kept = before.get(name).map_or(&[][..], Vec::as_slice);
            let memory = self.memories.entry(name.to_owned()).or_default();
            let all = if memory.may_keep(now, kept, &all) && good || kept.is_empty() {
                memory.settle();
                all.into_values().collect()
            } else {
                kept.to_vec()
            };
            worth.insert(name.to_owned(), all);
        }
        let settled = self.memories.values().filter_map(Memory::settles_at);
        self.keep_at = settled.filter(|&at| at > now).min();
        Some(worth)
    }

    /// Whether some cluster is not as it would be kept.
    pub(crate) fn is_troubled(&self) -> bool {
        self.keep_at.is_some() || !self.clusters.values().all(Cluster::is_good)
    }

    /// Records that were refused, by [`Refusal::index`]; each counts once while it is.
    pub(crate) fn refusals(&self) -> &[u64; Refusal::ALL.len()] {
        &self.refusals
    }
}
