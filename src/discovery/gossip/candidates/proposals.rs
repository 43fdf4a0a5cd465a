//! Pure: what members say of each address, and whose proposal counts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use crate::discovery::gossip::{Candidate, CandidatePolicy};
use crate::gossip::record::{Announced, MAX_WEIGHT, Record, Revocation, ServiceState};
use crate::gossip::view::{Liveness, PeerSet};

/// Whether a member is in the set.
pub(super) fn is_alive(liveness: Liveness) -> bool {
    match liveness {
        Liveness::Alive | Liveness::Suspect => true,
        Liveness::Down | Liveness::Left => false,
    }
}

/// What the set says of one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProposalState {
    Ready,
    Unfit,
    Draining,
    Left,
    Down,
    /// It may no longer be announced.
    Revoked(Revocation),
}

impl ProposalState {
    /// Whether an agent orders it itself.
    pub(super) fn is_order(self) -> bool {
        matches!(self, Self::Draining | Self::Left)
    }

    /// An order is what the record itself says. That a member has left says no more of its other records than that it
    /// is down.
    fn of(member: Liveness, announced: &Announced) -> Self {
        match (member, announced.state()) {
            (_, ServiceState::Left) => Self::Left,
            (_, ServiceState::Draining) => Self::Draining,
            _ if let Some(why) = announced.revoked => Self::Revoked(why),
            (Liveness::Down | Liveness::Left, _) => Self::Down,
            (_, ServiceState::Ready) => Self::Ready,
            (_, ServiceState::Starting | ServiceState::Failing) => Self::Unfit,
        }
    }
}

/// What one member says of an address.
pub(super) struct Proposal<'a> {
    record: &'a Record,
    pub(super) state: ProposalState,
    /// Its member is alive, or was a minute ago, so it is among those that announce the address.
    is_recent: bool,
    /// The highest rank wins: alive and permitted, epoch, version, member.
    rank: (bool, u64, u64, SocketAddr),
}

/// All proposals for one address, the highest rank first; at least one.
pub(super) struct AddressProposals<'a>(Vec<Proposal<'a>>);

pub(super) type Proposals<'a> = BTreeMap<SocketAddr, AddressProposals<'a>>;

/// How long a member that is gone still counts among those that announce an address.
const RECENT: Duration = Duration::from_secs(60);

/// The records that clusters subscribe to, by the name under which they are announced.
pub(super) fn proposals<'a>(
    set: &'a PeerSet,
    policy: &CandidatePolicy<'a>,
) -> HashMap<&'a str, Proposals<'a>> {
    let mut wanted: HashMap<&str, Proposals<'_>> = policy
        .subscriptions
        .iter()
        .map(|subscription| (subscription.gossip, BTreeMap::new()))
        .collect();
    for member in &set.members {
        for announced in &member.records {
            let Announced {
                record,
                epoch,
                version,
                ..
            } = announced;
            let Some(all) = wanted.get_mut(record.cluster.as_str()) else {
                continue;
            };
            let backend = record.backend;
            let address = SocketAddr::new(backend.ip().to_canonical(), backend.port());
            let stands = is_alive(member.liveness) && announced.revoked.is_none();
            let gone_for = set.at.saturating_sub(member.changed);
            let proposals = all
                .entry(address)
                .or_insert_with(|| AddressProposals(Vec::new()));
            proposals.0.push(Proposal {
                record,
                state: ProposalState::of(member.liveness, announced),
                is_recent: is_alive(member.liveness) || gone_for < RECENT,
                rank: (stands, *epoch, *version, member.address),
            });
        }
    }
    for proposals in wanted.values_mut().flat_map(BTreeMap::values_mut) {
        let by_rank = |proposal: &Proposal<'_>| Reverse(proposal.rank);
        proposals.0.sort_unstable_by_key(by_rank);
    }
    wanted
}

impl<'a> AddressProposals<'a> {
    /// The proposal that counts for a backend that is not a candidate: one member's order does not count against what
    /// another says.
    pub(super) fn for_newcomer(&self) -> &Proposal<'a> {
        let mut services = self.0.iter().filter(|proposal| !proposal.state.is_order());
        services.next().unwrap_or(&self.0[0])
    }

    /// The proposal that counts for a candidate that `owner` made one: the owner's own while it is alive or orders
    /// something; otherwise another member's that is not an order, or an order if all that announce the address order
    /// the same.
    pub(super) fn for_candidate(&self, owner: Option<SocketAddr>) -> &Proposal<'a> {
        let own = self.of(owner).filter(|own| own.is_authoritative());
        own.or_else(|| {
            let mut recent = self.0.iter().filter(|proposal| proposal.is_recent);
            let mut services = recent.clone().filter(|proposal| !proposal.state.is_order());
            services.next().or_else(|| recent.next())
        })
        .unwrap_or_else(|| self.for_newcomer())
    }

    /// What a member says.
    pub(super) fn of(&self, member: Option<SocketAddr>) -> Option<&Proposal<'a>> {
        self.0
            .iter()
            .find(|proposal| Some(proposal.member()) == member)
    }
}

impl Proposal<'_> {
    /// The member that makes it.
    pub(super) fn member(&self) -> SocketAddr {
        self.rank.3
    }

    /// Whether its member still counts among those that announce the address.
    pub(super) fn is_recent(&self) -> bool {
        self.is_recent
    }

    /// Whether its member is alive and may announce it, or orders something.
    fn is_authoritative(&self) -> bool {
        self.state.is_order() && self.is_recent || self.rank.0
    }

    /// The run in which it is announced.
    pub(super) fn run(&self) -> u64 {
        self.rank.1
    }

    /// The candidate that it makes at `address`.
    pub(super) fn candidate(&self, address: SocketAddr) -> Candidate {
        Candidate {
            address,
            weight: self.record.weight.min(MAX_WEIGHT),
            zone: self.record.zone.clone(),
            member: Some(self.member()),
            doubted: false,
        }
    }
}
