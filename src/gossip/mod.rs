//! L1: the peer set: who its members are, what they announce, and how that spreads. Sans-I/O: time, randomness and
//! bytes come in, packets to send and the next deadline come out, so the driver over sockets and the simulator of the
//! tests run the same code.
//!
//! SWIM itself (probes, suspicion, dissemination) is the foca crate. Around it are: an [`identity`] with epochs, so
//! that a restart replaces the previous run; our own wire format ([`codec`]); sealing under a [`keyring`] that rotates;
//! a [`replay`] window; records of at most 512 bytes ([`record`]) that go to proxies alone, under an operator's
//! [`token`] if one is required; and the repair of all this by [`push_pull`]. [`node`] puts the parts together.
//!
//! Gossip proposes: it adds candidates and carries drains and leaves. Health checks decide whether a backend can serve.
//!
//! Sources: Das, Gupta, Motivala, "SWIM" (DSN 2002); Dadgar, Phillips, Currey, "Lifeguard" (arXiv 1707.00788).

mod broadcasts;
pub mod codec;
pub(crate) mod counters;
mod ed25519;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod identity;
pub(crate) mod keyring;
pub(crate) mod node;
mod proofs;
pub(crate) mod push_pull;
pub(crate) mod quarantine;
pub(crate) mod record;
pub(crate) mod records;
pub(crate) mod refusals;
pub(crate) mod replay;
pub(crate) mod text;
pub(crate) mod token;
pub(crate) mod tuning;
pub(crate) mod view;

use std::time::Duration;

/// A moment, as the time since a fixed start: that of a monotonic clock, or of a simulation.
pub(crate) type Time = Duration;
