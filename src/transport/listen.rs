//! Listening sockets: one for each worker on every address, joined by `SO_REUSEPORT`.
//!
//! `SO_REUSEPORT` would let a second process of the same user share the port in silence, so an address is bound
//! once without it first: that fails if anybody listens there. Options that accepted sockets inherit on Linux (no
//! Nagle delay, keep-alive, user timeout) are set here, once, instead of once for each connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::socket;
use crate::model::address::ListenAddress;

/// Connections that the kernel keeps ready to be accepted, for each worker; the system may lower it.
const BACKLOG: i32 = 4096;

/// An address could not be bound.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {}", explain(.source))]
pub struct BindError {
    /// The address of the file.
    pub address: ListenAddress,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the address is in use by another program".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have the address".to_owned(),
        _ => error.to_string(),
    }
}

/// The listening sockets of one address, one for each worker.
#[derive(Debug)]
pub struct BoundSockets {
    id: u64,
    local_addr: SocketAddr,
    sockets: Box<[Mutex<Option<TcpListener>>]>,
}

impl BoundSockets {
    /// Binds `address` for `workers` workers and begins to listen. Connections queue from now on.
    ///
    /// # Errors
    /// The address and what the system said.
    pub fn bind(address: ListenAddress, workers: usize) -> Result<Self, BindError> {
        bind_all(address, workers).map_err(|source| BindError { address, source })
    }

    /// Stands in for sockets bound to `local_addr`, of which there are none.
    #[cfg(test)]
    pub(crate) fn at(local_addr: SocketAddr) -> Self {
        Self {
            id: 0,
            local_addr,
            sockets: Box::default(),
        }
    }

    /// Unique in the life of the process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The bound address, with the port that the system chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The socket of `worker`, which takes it once.
    pub fn take(&self, worker: usize) -> Option<TcpListener> {
        self.sockets[worker]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

fn bind_all(address: ListenAddress, workers: usize) -> io::Result<BoundSockets> {
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);
    let wanted = address.socket_addr();
    let both_families = address.ip().is_none();
    let (probe, wanted) = match open(wanted, both_families, false) {
        // ":8080" on a machine without IPv6 means all addresses of IPv4.
        Err(error) if both_families && error.kind() != io::ErrorKind::AddrInUse => {
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            (open(v4, false, false)?, v4)
        }
        probe => (probe?, wanted),
    };
    let local_addr = local_addr(&probe)?;
    drop(probe);
    let exact = SocketAddr::new(wanted.ip(), local_addr.port());
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = open(exact, both_families, true)?;
        socket.listen(BACKLOG)?;
        sockets.push(Mutex::new(Some(TcpListener::from(socket))));
    }
    Ok(BoundSockets {
        id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        local_addr,
        sockets: sockets.into(),
    })
}

fn open(address: SocketAddr, both_families: bool, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // ":8080" means both families; "[::]:8080" is what it says, so that "0.0.0.0:8080" can stand beside it.
        socket.set_only_v6(!both_families)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket::set_options(&socket)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn local_addr(socket: &Socket) -> io::Result<SocketAddr> {
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("not an internet address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_has_a_socket_on_one_port() {
        let bound = BoundSockets::bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        for worker in 0..3 {
            assert_eq!(
                bound.take(worker).unwrap().local_addr().unwrap(),
                bound.local_addr()
            );
            assert!(bound.take(worker).is_none());
        }
    }

    #[test]
    fn a_port_in_use_is_refused_though_its_owner_would_share() {
        let first = BoundSockets::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let error = BoundSockets::bind(first.local_addr().into(), 1).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert!(
            error.to_string().contains(&first.local_addr().to_string()),
            "{error}"
        );
    }
}
