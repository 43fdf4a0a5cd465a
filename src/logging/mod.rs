//! L3 control: what the process writes: its own events to stderr ([`events`]) and the access log ([`access`]).
//!
//! Both can be changed while the process runs. No thread that has a line to write waits for a file or a pipe: each log
//! has a bounded queue and a thread of its own.

pub(crate) mod access;
pub(crate) mod events;
