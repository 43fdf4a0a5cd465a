//! What every member of the gossip peer set is configured with, whether proxy or agent.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::address::BackendAddress;

/// Addresses, seeds, label and keys of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSetSettings {
    /// UDP and TCP address to bind.
    pub address: SocketAddr,
    /// Where others reach the member; its name among them.
    pub advertise: SocketAddr,
    /// Members to ask first; may be empty, since others may name this one.
    pub seeds: Vec<BackendAddress>,
    /// Label of the set. Sets with different labels never mix.
    pub label: String,
    /// Key files: the first key seals, all of them open. Without any, nothing is sealed.
    pub key_files: Vec<PathBuf>,
    /// Accept packets that are not sealed too.
    pub insecure_plaintext: bool,
}

impl PeerSetSettings {
    /// A member at `address`, with the defaults of everything else.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            advertise: address,
            seeds: Vec::new(),
            label: String::new(),
            key_files: Vec::new(),
            insecure_plaintext: false,
        }
    }
}
