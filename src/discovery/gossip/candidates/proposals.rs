//! Pure: what members say of each address, and whose word counts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

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
    /// Whether it is what an agent orders itself.
    pub(super) fn is_order(self) -> bool {
        matches!(self, Self::Draining | Self::Left)
    }

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

/// What one member says of an address.
pub(super) struct Proposal<'a> {
    record: &'a Record,
    pub(super) word: Word,
    /// Its member lives, or did a minute ago: it is one of those that announce the address.
    is_recent: bool,
    /// Higher wins: lives and may be announced, epoch, version, member.
    rank: (bool, u64, u64, SocketAddr),
}

/// What all say of one address, the highest rank first; at least one.
pub(super) struct Voices<'a>(Vec<Proposal<'a>>);

pub(super) type Proposals<'a> = BTreeMap<SocketAddr, Voices<'a>>;

/// How long a member that is gone still counts among those that announce an address.
const RECENT: Duration = Duration::from_secs(60);

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
            let gone_for = set.at.saturating_sub(member.changed);
            let voices = all.entry(address).or_insert_with(|| Voices(Vec::new()));
            voices.0.push(Proposal {
                record,
                word: Word::of(member.liveness, announced),
                is_recent: is_alive(member.liveness) || gone_for < RECENT,
                rank: (stands, *epoch, *version, member.address),
            });
        }
    }
    for voices in wanted.values_mut().flat_map(BTreeMap::values_mut) {
        voices.0.sort_unstable_by_key(|voice| Reverse(voice.rank));
    }
    wanted
}

impl<'a> Voices<'a> {
    /// The one that counts for a backend that is not in: what was ordered does not speak against what another says.
    pub(super) fn newcomer(&self) -> &Proposal<'a> {
        let mut services = self.0.iter().filter(|voice| !voice.word.is_order());
        services.next().unwrap_or(&self.0[0])
    }

    /// The one that counts for a backend that is in by the word of `owner`: the owner's, while it is there or orders
    /// something; else that of another which is no order, and an order if all that announce it order it.
    pub(super) fn of_known(&self, owner: Option<SocketAddr>) -> &Proposal<'a> {
        let own = self.of(owner).filter(|own| own.is_word());
        own.or_else(|| {
            let mut recent = self.0.iter().filter(|voice| voice.is_recent);
            let mut services = recent.clone().filter(|voice| !voice.word.is_order());
            services.next().or_else(|| recent.next())
        })
        .unwrap_or_else(|| self.newcomer())
    }

    /// What a member says.
    pub(super) fn of(&self, member: Option<SocketAddr>) -> Option<&Proposal<'a>> {
        self.0.iter().find(|voice| Some(voice.member()) == member)
    }
}

impl Proposal<'_> {
    /// Who says it.
    pub(super) fn member(&self) -> SocketAddr {
        self.rank.3
    }

    /// Whether its member still counts among those that announce the address.
    pub(super) fn is_recent(&self) -> bool {
        self.is_recent
    }

    /// Whether it is the word of a member that is there and may say it, or an order.
    fn is_word(&self) -> bool {
        self.word.is_order() && self.is_recent || self.rank.0
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
