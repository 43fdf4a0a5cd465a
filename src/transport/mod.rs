//! L2: sockets. Listening ([`listen`], [`ours`], [`unix`]), connecting ([`connect`]), what both result in ([`conn`]) and how the
//! data plane reads and writes it ([`stream`]), options of a connection ([`socket`]), and what the process gets from the
//! system: descriptors ([`descriptors`]) and memory ([`memory`]).

pub(crate) mod conn;
pub(crate) mod connect;
pub(crate) mod descriptors;
pub(crate) mod listen;
pub(crate) mod memory;
pub(crate) mod ours;
pub(crate) mod room;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod unix;
