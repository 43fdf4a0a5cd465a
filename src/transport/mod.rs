//! L2: sockets. Listening ([`listen`], [`ours`], [`unix`]), dialling ([`dial`]), what comes of both ([`conn`]), reading
//! and writing ([`stream`]), options of a connection ([`socket`]) and how many descriptors the process may use ([`descriptors`]).

pub mod conn;
pub mod descriptors;
pub mod dial;
pub mod listen;
pub mod ours;
pub mod room;
pub mod socket;
pub mod stream;
pub mod unix;
