//! The peer set as this member sees it, for those who use it: the control plane, status, metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Time;
use super::identity::Role;
use super::node::Counters;
use super::record::{Record, ServiceState};
use super::records::RecordRefusal;

/// Whether a member lives, by the set's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// It answers.
    Alive,
    /// Somebody found that it does not answer, and it has not contradicted yet.
    Suspect,
    /// It has not contradicted in time.
    Down,
    /// It has said that it leaves.
    Left,
}

impl Liveness {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Alive, Self::Suspect, Self::Down, Self::Left];

    /// Word of status, log and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Left => "left",
        }
    }
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where it gossips: its name.
    pub address: SocketAddr,
    /// Its run.
    pub epoch: u64,
    /// What it does.
    pub role: Role,
    /// Whether it lives.
    pub liveness: Liveness,
    /// When its liveness, epoch or record last changed here.
    pub changed: Time,
    /// What it announces: the newest record of each cluster that it speaks for, mostly one or none.
    pub records: Vec<Announced>,
}

/// A record that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// The record.
    pub record: Arc<Record>,
    /// The run that announced it.
    pub epoch: u64,
    /// Grows with each change in a run.
    pub version: u64,
    /// When it was accepted here.
    pub accepted: Time,
    /// When its token expires, unix seconds; `None` where none is asked for.
    pub expires: Option<u64>,
    /// Why it does not count any more; `None` while it does.
    pub revoked: Option<Revocation>,
}

/// Why a record that was accepted may not be announced any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Revocation {
    /// Its token has expired.
    Expired,
    /// Tokens are asked for now, and it has none.
    NoToken,
    /// The token key is another one now, and does not permit it; or the token is revoked, or for fewer backends.
    NotPermitted,
}

impl Revocation {
    /// Word of status and log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NoToken => "no_token",
            Self::NotPermitted => "not_permitted",
        }
    }
}

impl Announced {
    /// How the service is.
    pub fn state(&self) -> ServiceState {
        self.record.state
    }
}

/// The whole set at one moment, this member included; sorted by address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerSet {
    /// Grows with each change.
    pub version: u64,
    /// The moment.
    pub at: Time,
    /// The members.
    pub members: Vec<Member>,
}

/// How a member and its set are, for status and metrics; published about once a second.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// The set.
    pub set: Arc<PeerSet>,
    /// The moment of the report.
    pub at: Time,
    /// Where this member is reached by the others: its name among them.
    pub address: SocketAddr,
    /// Of the set.
    pub label: String,
    /// Ids of the keys, the one that seals first; empty: nothing is sealed.
    pub key_ids: Vec<String>,
    /// What was counted since the start.
    pub counters: Counters,
    /// The greatest lateness of a timer in the last second.
    pub lag: Time,
    /// By how much suspicions last longer than usual, since this member does not keep up: 1 to 8.
    pub patience: u32,
    /// Whether it has compared its state with another member at least once.
    pub joined: bool,
    /// Whether it says nothing for now, since somebody else uses its address.
    pub conflict: bool,
    /// Members whose last announcement was refused here, and why; sorted by address.
    pub refused: Vec<(SocketAddr, RecordRefusal)>,
}
