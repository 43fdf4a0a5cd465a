//! L1: the peer set: who is there, what they announce, and how that is told to others. Sans-I/O: time, randomness and
//! bytes come in, packets to send and the next deadline come out, so that the driver over sockets and the simulator
//! run the same code.
//!
//! SWIM itself (probes, suspicion, dissemination) is the foca crate. Around it stand: an [`identity`] with epochs, so
//! that a restart replaces the run before it; a wire format of our own; sealing under a [`keyring`] that rotates; a
//! replay window; records of at most 512 bytes ([`record`]), carried to proxies alone, under an operator's [`token`]
//! where that is asked for; and the repair of both by push-pull. Gossip proposes: it adds candidates and carries drain
//! and leave. Whether a backend can serve is decided by health checks.
//!
//! Sources: Das, Gupta, Motivala, "SWIM" (DSN 2002); Dadgar, Phillips, Currey, "Lifeguard" (arXiv 1707.00788).

pub mod codec;
pub(crate) mod exchange;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod identity;
pub(crate) mod keyring;
pub(crate) mod node;
mod proofs;
pub(crate) mod quarantine;
pub(crate) mod record;
pub(crate) mod records;
pub(crate) mod refusals;
pub(crate) mod replay;
mod rumours;
pub(crate) mod text;
pub(crate) mod token;
pub(crate) mod tuning;
pub(crate) mod view;

use std::time::Duration;

/// A moment, as the time since some fixed one: a monotonic clock's, or a simulator's.
pub(crate) type Time = Duration;
