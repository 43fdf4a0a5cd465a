//! Pure: the record that counts for each address, and what the set says of it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use crate::discovery::gossip::{Candidate, Rules};
use crate::gossip::record::{MAX_WEIGHT, Record, ServiceState};
use crate::gossip::view::{Announced, Liveness, PeerSet, Revocation};

/// Whether a member is in the set.
pub(super) fn is_alive(liveness: Liveness) -> bool {
    match liveness {
        Liveness::Alive | Liveness::Suspect => true,
        Liveness::Down | Liveness::Left => false,
    }
}

/// What the set says of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Ready,
    Unfit,
    Draining,
    Left,
    Down,
    /// It may not be announced any more.
    Revoked(Revocation),
}

impl Word {
    /// An order is what the record itself says: that its member has left says no more of another record than that it is
    /// down.
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

/// The record that counts for an address.
pub(super) struct Proposal<'a> {
    record: &'a Record,
    pub(super) word: Word,
    /// Higher wins: lives and may be announced, epoch, version, member.
    rank: (bool, u64, u64, SocketAddr),
}

pub(super) type Proposals<'a> = BTreeMap<SocketAddr, Proposal<'a>>;

/// The records that somebody wants, by the name under which they are announced.
pub(super) fn proposals<'a>(
    set: &'a PeerSet,
    rules: &Rules<'a>,
) -> HashMap<&'a str, Proposals<'a>> {
    let mut wanted: HashMap<&str, Proposals<'_>> = rules
        .wishes
        .iter()
        .map(|wish| (wish.gossip, BTreeMap::new()))
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
            let rank = (stands, *epoch, *version, member.address);
            if all.get(&address).is_none_or(|known| known.rank < rank) {
                let word = Word::of(member.liveness, announced);
                all.insert(address, Proposal { record, word, rank });
            }
        }
    }
    wanted
}

impl Proposal<'_> {
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
            member: Some(self.rank.3),
            doubted: false,
        }
    }
}
