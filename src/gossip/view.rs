//! The peer set as this member sees it, for its users: the control plane, status and metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Time;
use super::counters::GossipCounters;
use super::identity::Role;
use super::record::Announced;
use super::records::RecordRefusal;

/// Whether a member is alive, as the peer set sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// It answers.
    Alive,
    /// Somebody found that it does not answer, and it has not refuted that yet.
    Suspect,
    /// It did not refute in time.
    Down,
    /// It announced that it leaves.
    Left,
}

impl Liveness {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Alive, Self::Suspect, Self::Down, Self::Left];

    /// Name in status, log and metrics.
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
    /// Its gossip address, which names it.
    pub address: SocketAddr,
    /// Its run.
    pub epoch: u64,
    /// What it does.
    pub role: Role,
    /// Whether it is alive.
    pub liveness: Liveness,
    /// When its liveness, epoch or record last changed here.
    pub changed: Time,
    /// What it announces: the newest record of each cluster that it speaks for, mostly one or none.
    pub records: Vec<Announced>,
}

/// The whole set at one moment, this member included; sorted by address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerSet {
    /// Grows with each change.
    pub version: u64,
    /// When it was taken.
    pub at: Time,
    /// The members.
    pub members: Vec<Member>,
}

/// The state of a member and its set, for status and metrics; published about once a second.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// The set.
    pub set: Arc<PeerSet>,
    /// When the report was made.
    pub at: Time,
    /// Where the others reach this member: its name among them.
    pub address: SocketAddr,
    /// Label of the set.
    pub label: String,
    /// Ids of the keys, beginning with the one that seals; empty if nothing is sealed.
    pub key_ids: Vec<String>,
    /// Counts since the start.
    pub counters: GossipCounters,
    /// The greatest lateness of a timer in the last second.
    pub lag: Time,
    /// How many times longer than usual suspicions last because this member is slow: 1 to 8.
    pub health_multiplier: u32,
    /// Whether it has completed a push-pull with another member.
    pub joined: bool,
    /// Whether it is silent because another member uses its address.
    pub conflict: bool,
    /// Members whose last announcement was refused here, and why; sorted by address.
    pub refused: Vec<(SocketAddr, RecordRefusal)>,
}
