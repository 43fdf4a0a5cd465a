//! What the verb connect results in, fresh or from the pool.

use super::passages::Passage;
use crate::model::address::SocketAddress;
use crate::transport::descriptors::Descriptor;

/// A connection to a backend, with what it takes up.
#[derive(Debug)]
pub(crate) struct Connected<S> {
    /// The connection.
    pub(crate) stream: S,
    /// Where it leads: a name may have moved on since.
    pub(crate) address: SocketAddress,
    /// Its place in the descriptor budget.
    pub(crate) _descriptor: Descriptor,
    /// That of a TCP session which may come back to this process.
    pub(crate) _passage: Option<Passage>,
}
