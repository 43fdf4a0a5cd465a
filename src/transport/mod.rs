//! L2: sockets. Listening ([`listen`], [`ours`], [`unix`]), dialling ([`dial`]), what comes of both ([`conn`]), reading
//! and writing ([`stream`]), options of a connection ([`socket`]) and what the process has of the system: descriptors ([`descriptors`]) and memory ([`memory`]).

pub(crate) mod conn;
pub(crate) mod descriptors;
pub(crate) mod dial;
pub(crate) mod listen;
pub(crate) mod memory;
pub(crate) mod ours;
pub(crate) mod room;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod unix;
