//! Addresses and announcements for the unit tests.

use std::net::{Ipv4Addr, SocketAddr};

use super::record::{Record, ServiceState};

/// The gossip address of the member with this number.
pub(crate) fn address_of(number: usize) -> SocketAddr {
    let ip = Ipv4Addr::from(0x0a00_0001 + number as u32);
    (ip, 7946).into()
}

/// What the agent at `address` announces.
pub(crate) fn record(address: SocketAddr, weight: u16, state: ServiceState) -> Record {
    Record {
        name: format!("agent-{}", address.ip()),
        cluster: "web".to_owned(),
        backend: SocketAddr::new(address.ip(), 8080),
        weight,
        zone: "zone-a".to_owned(),
        state,
        build: "2026.11.27-0123456789abcdef".to_owned(),
    }
}
