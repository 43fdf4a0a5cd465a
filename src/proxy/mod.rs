//! L3 data: the life of a connection, on the worker that accepted it.
//!
//! accept ([`accept`]) → classify → route → pick → connect ([`connect`]) → relay ([`relay`]) → record ([`record`]).
//! [`tcp`] walks these steps for a TCP session, [`http`] for an exchange. A [`worker::Worker`] owns everything that
//! its connections use and shares nothing with the others but atomics that belong to backends and listeners.
//!
//! Nothing here imports the control plane.

pub(crate) mod accept;
pub(crate) mod connect;
mod crowd;
pub(crate) mod flow;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod passages;
pub(crate) mod pool;
pub(crate) mod record;
pub(crate) mod relay;
pub(crate) mod sessions;
pub(crate) mod tcp;
pub(crate) mod worker;
