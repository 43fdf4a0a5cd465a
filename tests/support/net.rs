//! TCP connections of this machine as the kernel lists them in `/proc/net/tcp` (IPv4).

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// State of a connection that was closed actively and waits for stray segments.
pub const TIME_WAIT: u8 = 6;

/// A line of the list.
#[derive(Debug)]
pub struct Connection {
    /// This side.
    pub local: SocketAddr,
    /// The other side.
    pub remote: SocketAddr,
    /// State, as the kernel numbers them.
    pub state: u8,
    /// Bytes that the other side's kernel has not acknowledged.
    pub unacknowledged: u64,
}

/// All connections.
pub fn connections() -> Vec<Connection> {
    let list = std::fs::read_to_string("/proc/net/tcp").unwrap();
    list.lines().skip(1).filter_map(parse).collect()
}

fn parse(line: &str) -> Option<Connection> {
    let mut columns = line.split_whitespace().skip(1);
    let (local, remote, state) = (columns.next()?, columns.next()?, columns.next()?);
    let (unacknowledged, _) = columns.next()?.split_once(':')?;
    Some(Connection {
        local: address(local)?,
        remote: address(remote)?,
        state: u8::from_str_radix(state, 16).ok()?,
        unacknowledged: u64::from_str_radix(unacknowledged, 16).ok()?,
    })
}

fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
    Some(SocketAddrV4::new(ip, u16::from_str_radix(port, 16).ok()?).into())
}
