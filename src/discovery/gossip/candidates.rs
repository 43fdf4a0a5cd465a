//! Pure: from the peer set to the candidates of each cluster. The whole set comes in each time, with the rules of the
//! file, the proxy's own opinions and the time; so a lost update costs nothing.
//!
//! What the set says of a record, and what follows:
//! - `ready`: it comes in, unless it is refused, held down ([`super::flaps`]) or the cluster is full. Weight and zone
//!   apply at once. `suspect` changes nothing.
//! - `draining`, `left`: out at once, by the agent's own order.
//! - `starting`, `failing`: does not come in. One that is in is doubted; it goes when our own check fails, or at once
//!   if the cluster has none. So an agent that restarts beside a healthy service takes nothing away.
//! - down, or missing: lost. It is doubted and goes when our own check fails; in a cluster without one, when it refuses
//!   connections or after [`LOST`]. The guard may hold it back ([`super::guard`]).
//! - refused (the file no longer allows it): out at once.
//!
//! Of several members that announce one address, one that lives comes before one that does not, then the newest record
//! (epoch, version), then the higher member address. The last good set ([`Candidates::with_last_good`]) stays as it is
//! until the set has had another member for [`SETTLED`], in which a joiner learns all the others; what it does not know
//! by then is lost like any other.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::admission::{Refusal, Rules, Wish, admit};
use super::event::{Event, Kind};
use super::flaps::{Entry, Flaps};
use super::guard::{Guard, Verdict};
use super::{Candidate, MAX_CANDIDATES, Opinion};
use crate::gossip::record::{MAX_WEIGHT, Record, ServiceState};
use crate::gossip::view::{Announced, Liveness, Member, PeerSet};

/// How long a lost candidate stays where no check could tell.
const LOST: Duration = Duration::from_secs(30);
/// How long after the first other member the set is thought whole.
const SETTLED: Duration = Duration::from_secs(5);
/// Refused addresses of a cluster that are remembered, so that each is said once; more are refused in silence.
const MOST_REFUSED: usize = 10_000;

/// Candidates by the name under which they are announced.
pub type LastGood = BTreeMap<String, Vec<Candidate>>;

/// See the module.
#[derive(Debug, Default)]
pub struct Candidates {
    clusters: BTreeMap<String, Cluster>,
    /// Until the set is whole.
    last_good: Option<LastGood>,
    /// When the set had another member first.
    met: Option<Duration>,
    refusals: [u64; Refusal::ALL.len()],
    deadline: Option<Duration>,
}

/// What an update did.
#[derive(Debug, Default)]
pub struct Update {
    /// Whether some cluster has other candidates, weights or zones now.
    pub changed: bool,
    /// For the log.
    pub events: Vec<Event>,
}

impl Candidates {
    /// Starts with what was known last.
    pub fn with_last_good(last_good: LastGood) -> Self {
        Self {
            last_good: (!last_good.is_empty()).then_some(last_good),
            ..Self::default()
        }
    }

    /// Takes in the set as it is now; `opinion` is asked only for lost and failing candidates. O(members + candidates).
    pub fn update(
        &mut self,
        now: Duration,
        set: &PeerSet,
        rules: &Rules<'_>,
        opinion: &dyn Fn(&str, SocketAddr) -> Opinion,
    ) -> Update {
        let mut update = Update::default();
        self.deadline = None;
        self.meet(now, set);
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
    fn meet(&mut self, now: Duration, set: &PeerSet) {
        if self.last_good.is_none() {
            return;
        }
        let lives = |member: &&Member| is_alive(member.liveness);
        // This member is one of them.
        if set.members.iter().filter(lives).count() < 2 {
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
    pub fn next_deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Whether the last good set still stands in for the real one.
    pub fn is_stale(&self) -> bool {
        self.last_good.is_some()
    }

    /// Candidates of a cluster, sorted by address.
    pub fn of(&self, cluster: &str) -> impl Iterator<Item = &Candidate> {
        let members = self.clusters.get(cluster).map(|cluster| &cluster.members);
        members
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|known| &known.candidate)
    }

    /// The clusters that discover, and their candidates.
    pub fn clusters(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &Candidate>)> {
        self.clusters
            .keys()
            .map(|name| (name.as_str(), self.of(name)))
    }

    /// What is worth keeping for a start without peers.
    pub fn to_last_good(&self) -> LastGood {
        let mut by_name: BTreeMap<String, BTreeMap<SocketAddr, Candidate>> = BTreeMap::new();
        for cluster in self.clusters.values() {
            let all = by_name.entry(cluster.gossip.clone()).or_default();
            for (address, known) in &cluster.members {
                all.insert(*address, known.candidate.clone());
            }
        }
        by_name
            .into_iter()
            .map(|(name, all)| (name, all.into_values().collect()))
            .collect()
    }

    /// Records that were refused, by [`Refusal::index`]; each counts once while it is.
    pub fn refusals(&self) -> &[u64; Refusal::ALL.len()] {
        &self.refusals
    }
}

fn is_alive(liveness: Liveness) -> bool {
    match liveness {
        Liveness::Alive | Liveness::Suspect => true,
        Liveness::Down | Liveness::Left => false,
    }
}

/// What the set says of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Ready,
    Unfit,
    Draining,
    Left,
    Down,
}

impl Word {
    fn of(member: Liveness, state: ServiceState) -> Self {
        match (member, state) {
            (Liveness::Left, _) | (_, ServiceState::Left) => Self::Left,
            (_, ServiceState::Draining) => Self::Draining,
            (Liveness::Down, _) => Self::Down,
            (_, ServiceState::Ready) => Self::Ready,
            (_, ServiceState::Starting | ServiceState::Failing) => Self::Unfit,
        }
    }
}

/// The record that counts for an address.
struct Proposal<'a> {
    record: &'a Record,
    word: Word,
    /// Higher wins: lives, epoch, version, member.
    rank: (bool, u64, u64, SocketAddr),
}

type Proposals<'a> = BTreeMap<SocketAddr, Proposal<'a>>;

/// The records that somebody wants, by the name under which they are announced.
fn proposals<'a>(set: &'a PeerSet, rules: &Rules<'a>) -> HashMap<&'a str, Proposals<'a>> {
    let mut wanted: HashMap<&str, Proposals<'_>> = rules
        .wishes
        .iter()
        .map(|wish| (wish.gossip, BTreeMap::new()))
        .collect();
    for member in &set.members {
        for Announced {
            record,
            epoch,
            version,
            ..
        } in &member.records
        {
            let Some(all) = wanted.get_mut(record.cluster.as_str()) else {
                continue;
            };
            let backend = record.backend;
            let address = SocketAddr::new(backend.ip().to_canonical(), backend.port());
            let rank = (is_alive(member.liveness), *epoch, *version, member.address);
            if all.get(&address).is_none_or(|known| known.rank < rank) {
                let word = Word::of(member.liveness, record.state);
                let record: &Arc<Record> = record;
                all.insert(address, Proposal { record, word, rank });
            }
        }
    }
    wanted
}

/// What the update of one cluster sees and tells.
struct Turn<'a> {
    now: Duration,
    wish: &'a Wish<'a>,
    rules: &'a Rules<'a>,
    opinion: &'a dyn Fn(&str, SocketAddr) -> Opinion,
    stale: bool,
    refusals: &'a mut [u64; Refusal::ALL.len()],
    update: &'a mut Update,
}

impl Turn<'_> {
    fn say(&mut self, backend: SocketAddr, kind: Kind) {
        self.update.events.push(Event {
            cluster: self.wish.cluster.to_owned(),
            backend,
            kind,
        });
    }
}

/// A cluster that discovers.
#[derive(Debug, Default)]
struct Cluster {
    gossip: String,
    members: BTreeMap<SocketAddr, Known>,
    flaps: Flaps,
    guard: Guard,
    refused: BTreeMap<SocketAddr, Refusal>,
}

/// A candidate that is in.
#[derive(Debug)]
struct Known {
    candidate: Candidate,
    lost: Option<Duration>,
    /// It was said that its check passes though it is lost.
    vouched: bool,
}

/// What becomes of a candidate that is in.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Stays,
    /// It is lost, and nothing but the guard holds it.
    Due,
    Goes(Kind),
}

impl Cluster {
    fn new(gossip: &str, last_good: Option<&Vec<Candidate>>) -> Self {
        let known = |candidate: &Candidate| Known {
            candidate: candidate.clone(),
            lost: None,
            vouched: false,
        };
        Self {
            gossip: gossip.to_owned(),
            members: last_good
                .into_iter()
                .flatten()
                .map(|candidate| (candidate.address, known(candidate)))
                .collect(),
            ..Self::default()
        }
    }

    fn update(&mut self, proposals: &Proposals<'_>, turn: &mut Turn<'_>) {
        let refused = self.refuse(proposals, turn);
        self.judge_members(proposals, turn);
        self.let_in(proposals, refused, turn);
        self.flaps.forget_quiet(turn.now);
    }

    /// Finds whom the file does not allow; those of them that were in go.
    fn refuse(
        &mut self,
        proposals: &Proposals<'_>,
        turn: &mut Turn<'_>,
    ) -> BTreeMap<SocketAddr, Refusal> {
        let mut refused = BTreeMap::new();
        for (&address, proposal) in proposals {
            if let (Word::Ready | Word::Unfit, Err(reason)) =
                (proposal.word, admit(address, turn.rules))
                && refused.len() < MOST_REFUSED
            {
                refused.insert(address, reason);
            }
        }
        self.members
            .retain(|&address, _| match admit(address, turn.rules) {
                Ok(()) => true,
                Err(reason) => {
                    refused.insert(address, reason);
                    turn.update.changed = true;
                    false
                }
            });
        refused
    }

    fn judge_members(&mut self, proposals: &Proposals<'_>, turn: &mut Turn<'_>) {
        let (mut due, mut gone, mut lost) = (Vec::new(), Vec::new(), 0);
        for (&address, known) in &mut self.members {
            let proposal = proposals.get(&address);
            match known.judge(proposal, turn) {
                Fate::Stays => {}
                Fate::Due => due.push(address),
                Fate::Goes(kind) => gone.push((address, kind)),
            }
            lost += usize::from(known.lost.is_some());
        }
        let members = self.members.len() - gone.len();
        match self.guard.judge(turn.now, members, lost, due.len()) {
            Verdict::Go => gone.extend(due.iter().map(|&address| (address, Kind::Removed))),
            Verdict::HoldBegins => {
                let held = Kind::MassRemovalHeld {
                    due: due.len(),
                    of: members,
                };
                turn.say(due[0], held);
            }
            Verdict::HoldEnds => {
                if let Some(&first) = self.members.keys().next() {
                    turn.say(first, Kind::MassRemovalOver);
                }
            }
            Verdict::Held => {}
        }
        for (address, kind) in gone {
            self.members.remove(&address);
            self.flaps.left(address, turn.now);
            turn.update.changed = true;
            turn.say(address, kind);
        }
    }

    /// Lets in those that are ready, as far as there is room.
    fn let_in(
        &mut self,
        proposals: &Proposals<'_>,
        mut refused: BTreeMap<SocketAddr, Refusal>,
        turn: &mut Turn<'_>,
    ) {
        for (&address, proposal) in proposals {
            let wants_in = proposal.word == Word::Ready && !self.members.contains_key(&address);
            if !wants_in || admit(address, turn.rules).is_err() {
                continue;
            }
            if self.members.len() >= MAX_CANDIDATES {
                if refused.len() < MOST_REFUSED {
                    refused.insert(address, Refusal::ClusterFull);
                }
                continue;
            }
            match self.flaps.enter(address, turn.now) {
                Entry::Held => {}
                Entry::HoldBegins(time) => turn.say(address, Kind::HeldDown(time)),
                Entry::Join => {
                    let known = Known {
                        candidate: proposal.candidate(address),
                        lost: None,
                        vouched: false,
                    };
                    self.members.insert(address, known);
                    turn.update.changed = true;
                    turn.say(address, Kind::Joined);
                }
            }
        }
        self.say_refused(&refused, turn);
        self.refused = refused;
    }

    /// Counts and says those that were not refused before, together by reason.
    fn say_refused(&self, refused: &BTreeMap<SocketAddr, Refusal>, turn: &mut Turn<'_>) {
        let mut fresh: BTreeMap<Refusal, (usize, SocketAddr)> = BTreeMap::new();
        for (address, reason) in refused {
            if self.refused.get(address) != Some(reason) {
                fresh.entry(*reason).or_insert((0, *address)).0 += 1;
            }
        }
        for (reason, (count, first)) in fresh {
            turn.refusals[reason.index()] += count as u64;
            turn.say(first, Kind::Refused { reason, count });
        }
    }

    fn next_deadline(&self, now: Duration, checked: bool) -> Option<Duration> {
        let hold = self.guard.held_until();
        let lost = self.members.values().filter_map(|known| known.lost);
        let ends = lost
            .map(|since| since + LOST)
            .filter(|_| !checked && hold.is_none());
        hold.into_iter()
            .chain(ends)
            .chain(self.flaps.next_end(now))
            .min()
    }
}

impl Known {
    fn judge(&mut self, proposal: Option<&Proposal<'_>>, turn: &mut Turn<'_>) -> Fate {
        let address = self.candidate.address;
        match proposal.map(|proposal| (proposal.word, proposal)) {
            Some((Word::Draining, _)) => Fate::Goes(Kind::Draining),
            Some((Word::Left, _)) => Fate::Goes(Kind::Left),
            Some((Word::Ready, proposal)) => {
                if self.lost.is_some() {
                    turn.say(address, Kind::Back);
                }
                self.found(proposal, false, turn);
                Fate::Stays
            }
            Some((Word::Unfit, proposal)) => {
                self.found(proposal, true, turn);
                let opinion = (turn.opinion)(turn.wish.cluster, address);
                if !turn.wish.checked || opinion == Opinion::Failing {
                    Fate::Goes(Kind::Failing)
                } else {
                    Fate::Stays
                }
            }
            Some((Word::Down, _)) | None if turn.stale => Fate::Stays,
            Some((Word::Down, _)) | None => self.is_lost(turn),
        }
    }

    /// The set has it; takes over what its record says.
    fn found(&mut self, proposal: &Proposal<'_>, doubted: bool, turn: &mut Turn<'_>) {
        (self.lost, self.vouched) = (None, false);
        let next = proposal.candidate(self.candidate.address);
        turn.update.changed |=
            (next.weight, &next.zone) != (self.candidate.weight, &self.candidate.zone);
        self.candidate = Candidate { doubted, ..next };
    }

    fn is_lost(&mut self, turn: &mut Turn<'_>) -> Fate {
        let address = self.candidate.address;
        let opinion = (turn.opinion)(turn.wish.cluster, address);
        let newly = self.lost.is_none();
        let since = *self.lost.get_or_insert(turn.now);
        self.candidate.doubted = true;
        if opinion == Opinion::Failing || (!turn.wish.checked && since + LOST <= turn.now) {
            return Fate::Due;
        }
        if newly {
            turn.say(address, Kind::Down);
        } else if opinion == Opinion::Healthy && !self.vouched {
            self.vouched = true;
            turn.say(address, Kind::DownButPasses);
        }
        Fate::Stays
    }
}

impl Proposal<'_> {
    fn candidate(&self, address: SocketAddr) -> Candidate {
        Candidate {
            address,
            weight: self.record.weight.min(MAX_WEIGHT),
            zone: self.record.zone.clone(),
            member: Some(self.rank.3),
            doubted: false,
        }
    }
}
