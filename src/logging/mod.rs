//! L3 control: what the process writes: events of its own to stderr ([`events`]) and the access log ([`access`]).
//!
//! Both can be changed while the process runs. Nobody who has a line to write waits for
//! a file or a pipe: each has a bounded queue and a thread of its own.

pub(crate) mod access;
pub(crate) mod events;
