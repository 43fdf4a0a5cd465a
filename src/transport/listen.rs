//! Listening sockets: one for each worker on every address, joined by `SO_REUSEPORT`.
//!
//! `SO_REUSEPORT` would let a second process of the same user share the port in silence, so an address is bound
//! once without it first: that fails if anybody listens there. If those are sockets of our own alone ([`super::ours`]), as
//! when a listener moves from `127.0.0.1:80` to `:80`, it is shared all the same. Options that accepted sockets inherit on Linux (no
//! Nagle delay, keep-alive, user timeout) are set here, once, instead of once for each connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::ours::{self, Ours};
use super::socket;
use crate::model::address::ListenAddress;

/// Connections that the kernel keeps ready to be accepted, for each worker; the system may lower it.
pub const BACKLOG: i32 = 4096;

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
    sockets: Box<[Mutex<Option<Listening>>]>,
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
    pub fn take(&self, worker: usize) -> Option<Listening> {
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
    let bound = match bind_sockets(wanted, both_families, workers, BACKLOG) {
        // ":8080" on a machine without IPv6 means all addresses of IPv4.
        Err(error) if both_families && error.kind() != io::ErrorKind::AddrInUse => {
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            bind_sockets(v4, false, workers, BACKLOG)?
        }
        bound => bound?,
    };
    let (local_addr, sockets) = bound;
    Ok(BoundSockets {
        id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        local_addr,
        sockets: sockets
            .into_iter()
            .map(|socket| Mutex::new(Some(socket)))
            .collect(),
    })
}

/// A socket that listens, known as one of this process until it is dropped.
#[derive(Debug)]
pub struct Listening {
    socket: TcpListener,
    ours: Ours,
}

impl Listening {
    /// Where it is bound.
    ///
    /// # Errors
    /// What the system said.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The socket, and what must be dropped after it.
    pub fn into_parts(self) -> (TcpListener, Ours) {
        (self.socket, self.ours)
    }
}

/// `count` sockets that share `address`, and where that is. Nobody else may listen there; sockets of this process may,
/// on an address that overlaps with this one, since a reload moves from one to the other.
///
/// # Errors
/// What the system said.
pub fn bind_sockets(
    address: SocketAddr,
    both_families: bool,
    count: usize,
    backlog: i32,
) -> io::Result<(SocketAddr, Vec<Listening>)> {
    let probe = match open(address, both_families, false) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if !ours::shares_with_ours_alone(address, both_families).unwrap_or(false) {
                return Err(error);
            }
            open(address, both_families, true)?
        }
        probe => probe?,
    };
    let local_addr = local_addr(&probe)?;
    drop(probe);
    let exact = SocketAddr::new(address.ip(), local_addr.port());
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = open(exact, both_families, true)?;
        socket.listen(backlog)?;
        let ours = Ours::remember(&socket, exact, both_families)?;
        sockets.push(Listening {
            socket: socket.into(),
            ours,
        });
    }
    Ok((local_addr, sockets))
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
        let sharing = open("127.0.0.1:0".parse().unwrap(), false, true).unwrap();
        sharing.listen(1).unwrap();
        let address = local_addr(&sharing).unwrap();
        let error = BoundSockets::bind(address.into(), 1).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[test]
    fn an_address_may_overlap_with_one_of_ours_and_with_none_of_another_program() {
        let first = BoundSockets::bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let port = first.local_addr().port();
        let all: ListenAddress = format!("0.0.0.0:{port}").parse().unwrap();
        let second = BoundSockets::bind(all, 2).unwrap();
        drop(first);
        let both: ListenAddress = format!(":{port}").parse().unwrap();
        let third = BoundSockets::bind(both, 2).unwrap();
        drop(second);
        let fourth = BoundSockets::bind(format!("127.0.0.1:{port}").parse().unwrap(), 2).unwrap();
        drop(third);
        let stranger = TcpListener::bind(("127.0.0.2", port)).unwrap();
        let error = BoundSockets::bind(all, 2).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        drop((stranger, fourth));
    }
}
