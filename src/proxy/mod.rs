//! L3 data: the life of a connection, on the worker that accepted it.
//!
//! [`accept`] → [`classify`] → route → pick ([`attempts`]) → [`connect`] → relay → [`record`], each step a type that the
//! one before has made: `Accepted`, `Classified`, `Routed`, `Pick`, `Connected`, `Outcome`. [`tcp`] walks the steps from
//! route on for a TCP session; for HTTP they are [`http`]. A [`context::WorkerContext`] has everything that connections of
//! a worker use, and shares nothing with the others but atomics that belong to backends and listeners.
//!
//! Nothing here imports the control plane.

mod accept;
mod admission;
mod attempts;
mod buffer;
pub(crate) mod classify;
pub(crate) mod client;
mod connect;
mod connected;
pub(crate) mod context;
pub(crate) mod deadlines;
mod handoff;
pub(crate) mod http;
pub(crate) mod listener;
mod loops;
pub(crate) mod passages;
pub(crate) mod pick;
pub(crate) mod pool;
pub(crate) mod read_size;
mod record;
mod relay;
mod tcp;
mod trim;
pub(crate) mod worker;
