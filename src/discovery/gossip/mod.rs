//! The peer set over sockets ([`member`]: a thread that drives a member), and what it announces as candidates for
//! clusters: [`candidates`] decides who is one, [`members_file`] keeps the last good set for a start without peers.
//!
//! Gossip proposes, health checks dispose: a word of the set adds a candidate, and drains or removes it when the agent
//! itself says so; that somebody does not answer is a reason to look ([`Candidate::doubted`]), and only our own check
//! takes such a one out.

mod admission;
pub(crate) mod candidates;
pub(crate) mod company;
mod driver;
mod event;
mod flaps;
mod guard;
pub(crate) mod member;
pub(crate) mod members_file;
pub(crate) mod secrets;
mod streams;

use std::net::SocketAddr;

pub(crate) use admission::{Refusal, Rules, Wish};
pub(crate) use event::{Event, log};

/// Candidates of one cluster at the most.
pub(crate) const MAX_CANDIDATES: usize = 5_000;

/// A backend that the peer set proposes and that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Where it is reached.
    pub address: SocketAddr,
    /// 0 to [`crate::gossip::record::MAX_WEIGHT`].
    pub weight: u16,
    /// Empty: none.
    pub zone: String,
    /// Gossip address of the member that announces it; `None` while only the last good set knows it.
    pub member: Option<SocketAddr>,
    /// To be checked at once, and at every turn until it is trusted again.
    pub doubted: bool,
}

/// What the proxy itself thinks of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opinion {
    /// Its check passes.
    Healthy,
    /// Its check fails, or live connections are refused.
    Failing,
    /// No check, or none that has answered yet.
    Unknown,
}
