//! Settings of members on loopback for the unit tests.

use std::net::{SocketAddr, UdpSocket};

use super::settings::MemberSettings;
use crate::gossip::identity::Role;
use crate::model::address::BackendAddress;
use crate::model::peer_set::PeerSetSettings;

/// A member without keys at a free port of this IP address.
pub(super) fn settings(ip: &str, role: Role, seeds: &[SocketAddr]) -> MemberSettings {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    MemberSettings {
        peer_set: PeerSetSettings {
            address,
            advertise: address,
            seeds: seeds.iter().copied().map(BackendAddress::Ip).collect(),
            label: String::new(),
            key_files: Vec::new(),
            insecure_plaintext: false,
        },
        token_keys: Vec::new(),
        revoked: Vec::new(),
        token_file: None,
        role,
    }
}
