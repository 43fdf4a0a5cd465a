//! L0: the words that every room uses, with checked constructors. No I/O, no runtime, no file format.
//!
//! What stands here is either a plain value from the file ([`settings`], [`page`], [`address`], [`units`]) or the
//! live state that belongs to an identity and outlives every generation of the configuration
//! ([`backend::Backend`], [`cluster::ClusterState`]). [`timer_queue`] is what every pure room with timers keeps them in.

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
