//! L3 control: what the process writes: events of its own to stderr ([`events`]) and the access log ([`access`]).
//!
//! Both can be changed while the process runs. Workers make the access log's lines and never wait for it; events
//! are rare and written where they happen.

pub mod access;
pub mod events;
