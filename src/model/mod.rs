//! L0: the types that all modules share, with checked constructors. No I/O, no runtime, no file format.
//!
//! A type here is either a plain value from the configuration ([`settings`], [`page`], [`address`], [`units`]) or live
//! state that belongs to an identity and outlives every generation of the configuration ([`backend::Backend`],
//! [`cluster::ClusterState`]). [`timer_queue`] holds the timers of code that has no clock of its own.

pub(crate) mod address;
pub(crate) mod backend;
pub(crate) mod cluster;
pub(crate) mod health;
pub(crate) mod page;
pub(crate) mod peer_set;
pub(crate) mod route_action;
pub(crate) mod settings;
pub(crate) mod signal;
pub(crate) mod timer_queue;
pub(crate) mod units;
