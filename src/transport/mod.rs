//! L2: sockets. Listening ([`listen`], [`ours`], [`unix`]), connecting ([`connect`]), the connections that result
//! ([`conn`]), how the data plane reads and writes them ([`stream`], [`socket_buffers`]), their options ([`socket`]),
//! and what the process gets from the system: descriptors ([`descriptors`]) and memory ([`memory`]).

pub(crate) mod conn;
pub(crate) mod connect;
pub(crate) mod descriptors;
pub(crate) mod listen;
pub(crate) mod memory;
pub(crate) mod ours;
pub(crate) mod socket;
pub(crate) mod socket_buffers;
pub(crate) mod stream;
pub(crate) mod unix;
