//! The peer set over sockets, and what it announces as candidates for clusters. [`member`] starts a member, whose
//! thread `driver` runs. [`candidates`] decides which backends are candidates, and [`members_file`] stores the last
//! good set for a start without peers.
//!
//! Gossip proposes, health checks decide. An announcement adds a candidate, and drains or removes it if its own agent
//! says so. That a member does not answer is a reason to check its backend ([`Candidate::doubted`]); only our own check
//! takes such a backend out.

mod admission;
pub(crate) mod candidates;
mod commands;
mod driver;
mod events;
#[cfg(test)]
mod fixture;
mod flaps;
mod guard;
pub(crate) mod join_reporter;
pub(crate) mod member;
pub(crate) mod members_file;
pub(crate) mod publisher;
pub(crate) mod secrets;
pub(crate) mod settings;
mod shared;
mod sockets;
mod streams;

use std::net::SocketAddr;

pub(crate) use admission::{CandidatePolicy, CandidateRefusal, Subscription};
pub(crate) use events::{CandidateEvent, log};

/// Most candidates of one cluster.
pub(crate) const MAX_CANDIDATES: usize = 5_000;

/// A backend that the peer set proposes and that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Where it is reached.
    pub address: SocketAddr,
    /// 0 to [`crate::gossip::record::MAX_WEIGHT`].
    pub weight: u16,
    /// Its zone; empty for none.
    pub zone: String,
    /// Gossip address of the member that announces it; `None` while only the last good set knows it.
    pub member: Option<SocketAddr>,
    /// It is to be checked at once, and on every turn until it is trusted again.
    pub doubted: bool,
}

/// What the proxy itself knows of a candidate's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LocalHealth {
    /// Its check passes.
    Healthy,
    /// Its check fails, or live connections are refused.
    Failing,
    /// It has no check, or none that has answered yet.
    Unknown,
}
