//! The sockets of a member: UDP for datagrams and TCP for push-pulls, at one address.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::settings::MemberError;

/// Bytes of datagrams that the kernel should buffer while the thread is busy; it may grant less.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Streams that wait to be accepted.
const BACKLOG: i32 = 128;

/// The bound sockets of a member.
#[derive(Debug)]
pub(crate) struct Sockets {
    datagrams: UdpSocket,
    streams: TcpListener,
}

impl Sockets {
    /// Binds UDP and TCP at `address`.
    pub(super) fn bind(address: SocketAddr) -> Result<Self, MemberError> {
        let failed = |protocol| {
            move |error| MemberError::Bind {
                address,
                protocol,
                error,
            }
        };
        let datagrams = bind_datagrams(address).map_err(failed("UDP"))?;
        let streams = bind_streams(address).map_err(failed("TCP"))?;
        Ok(Self { datagrams, streams })
    }

    /// Registers the sockets with the current runtime.
    pub(super) fn register(self) -> io::Result<(tokio::net::UdpSocket, tokio::net::TcpListener)> {
        let datagrams = tokio::net::UdpSocket::from_std(self.datagrams)?;
        let listener = tokio::net::TcpListener::from_std(self.streams)?;
        Ok((datagrams, listener))
    }
}

fn bind_datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // The kernel grants what its limit allows.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn bind_streams(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restart need not wait for the connections of the previous process.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
