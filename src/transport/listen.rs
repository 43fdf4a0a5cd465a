//! Listening sockets.

/// The listening sockets of one address, one for each worker.
#[derive(Debug)]
pub struct BoundSockets;
