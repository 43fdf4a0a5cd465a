//! L0: the words that every room uses, with checked constructors. No I/O, no runtime, no file format.
//!
//! What stands here is either a plain value from the file ([`settings`], [`page`], [`address`], [`units`]) or the
//! live state that belongs to an identity and outlives every generation of the configuration
//! ([`backend::Backend`], [`cluster::ClusterState`]).

pub mod address;
pub mod backend;
pub mod cluster;
pub mod page;
pub mod settings;
pub mod signal;
pub mod units;
