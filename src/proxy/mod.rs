//! L3 data: the life of a connection, on the worker that accepted it.
//!
//! accept ([`accept`]) → classify → route → pick → connect ([`connect`]) → relay ([`relay`]) → record ([`record`]).
//! [`tcp`] walks these steps for a TCP session, [`http`] for an exchange. A [`worker::Worker`] owns everything that
//! its connections use and shares nothing with the others but atomics that belong to backends and listeners.
//!
//! Nothing here imports the control plane.

pub mod accept;
pub mod connect;
mod crowd;
pub mod flow;
pub mod http;
pub mod load;
pub mod passages;
pub mod pool;
pub mod record;
pub mod relay;
pub mod sessions;
pub mod tcp;
pub mod worker;
