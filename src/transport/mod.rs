//! L2: sockets. Listening ([`listen`], [`ours`], [`unix`]), dialling ([`dial`]), what comes of both ([`conn`]), reading
//! and writing ([`stream`]), options of a connection ([`socket`]) and what the process has of the system: descriptors ([`descriptors`]) and memory ([`memory`]).

pub mod conn;
pub mod descriptors;
pub mod dial;
pub mod listen;
pub mod memory;
pub mod ours;
pub mod room;
pub mod socket;
pub mod stream;
pub mod unix;
