//! Listening sockets: one for each worker on every address, joined by `SO_REUSEPORT`.
//!
//! With `SO_REUSEPORT` a second process of the same user would share the port silently, so an address is first bound
//! once without it, which fails if anything listens there. If only sockets of this process do ([`super::ours`]), as
//! when a listener moves from `127.0.0.1:80` to `:80`, the address is shared nevertheless. Options that accepted
//! sockets inherit on Linux (no Nagle delay, keep-alive, user timeout) are set here once, instead of for each
//! connection.
//!
//! A Unix socket has one queue ([`super::unix`]), which all workers share.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};

use super::conn::{Conn, Unwatched};
use super::ours::{self, Ours};
use super::socket;
use super::unix::{self, Access, SocketFile};
use crate::model::address::{BindAddress, ListenAddress, SocketAddress, UnixAddress};

/// Most connections that wait in the kernel to be accepted, for each worker; the system may lower it.
pub(crate) const BACKLOG: i32 = 4096;

/// An address could not be bound.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {}", explain(.source))]
pub struct BindError {
    /// The address as configured.
    pub address: BindAddress,
    /// The error of the system.
    #[source]
    pub source: io::Error,
}

impl BindError {
    /// The error for an address that is in use.
    pub fn in_use(address: &BindAddress) -> Self {
        Self {
            address: address.clone(),
            source: io::ErrorKind::AddrInUse.into(),
        }
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the address is in use by another program".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)".to_owned()
        }
        io::ErrorKind::AlreadyExists => "there is another file of that name".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have the address".to_owned(),
        _ => error.to_string(),
    }
}

/// The listening sockets of one address, one for each worker.
#[derive(Debug)]
pub struct BoundSockets {
    id: u64,
    address: SocketAddress,
    /// The file of a Unix socket, as long as one of the sockets is open.
    file: Weak<SocketFile>,
    sockets: Box<[Mutex<Option<Listening>>]>,
}

impl BoundSockets {
    /// Binds `address` for `workers` workers and listens; connections are queued from now on. Every user who can reach
    /// the file of a Unix socket may connect to it.
    ///
    /// # Errors
    /// The address, and the error of the system.
    pub fn bind(address: &BindAddress, workers: usize) -> Result<Self, BindError> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let (address, sockets) = bind(address, Access::Everybody, workers, BACKLOG)?;
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            address,
            file: sockets.first().map(Listening::file).unwrap_or_default(),
            sockets: sockets
                .into_iter()
                .map(|socket| Mutex::new(Some(socket)))
                .collect(),
        })
    }

    /// For tests: claims to be bound to `address`, but has no sockets.
    #[cfg(test)]
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self {
            id: 0,
            address: address.into(),
            file: Weak::new(),
            sockets: Box::default(),
        }
    }

    /// Identity, unique within the life of the process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The bound address, with the port that the system chose for port 0.
    pub fn address(&self) -> &SocketAddress {
        &self.address
    }

    /// The file of a Unix socket, if one of the sockets is open.
    pub fn file(&self) -> Option<Arc<SocketFile>> {
        self.file.upgrade()
    }

    /// Takes the socket of `worker`; `None` if it was taken before.
    pub fn take(&self, worker: usize) -> Option<Listening> {
        self.sockets[worker]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Binds one listening socket to `address`; returns the bound address too.
///
/// # Errors
/// The address, and the error of the system.
pub(crate) fn bind_one(
    address: &BindAddress,
    access: Access,
    backlog: i32,
) -> Result<(SocketAddress, Listening), BindError> {
    let (bound, mut sockets) = bind(address, access, 1, backlog)?;
    let socket = sockets.pop().ok_or_else(|| BindError {
        address: address.clone(),
        source: io::ErrorKind::AddrNotAvailable.into(),
    })?;
    Ok((bound, socket))
}

fn bind(
    address: &BindAddress,
    access: Access,
    count: usize,
    backlog: i32,
) -> Result<(SocketAddress, Vec<Listening>), BindError> {
    let bound = match address {
        BindAddress::Tcp(address) => bind_tcp(*address, count, backlog),
        BindAddress::Unix(address) => bind_unix(address, access, count, backlog),
    };
    bound.map_err(|source| BindError {
        address: address.clone(),
        source,
    })
}

fn bind_tcp(
    address: ListenAddress,
    count: usize,
    backlog: i32,
) -> io::Result<(SocketAddress, Vec<Listening>)> {
    let wanted = address.socket_addr();
    let both_families = address.ip().is_none();
    let (bound, sockets) = match bind_sockets(wanted, both_families, count, backlog) {
        // On a machine without IPv6, ":8080" means all IPv4 addresses.
        Err(error) if both_families && error.kind() != io::ErrorKind::AddrInUse => {
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            bind_sockets(v4, false, count, backlog)?
        }
        bound => bound?,
    };
    Ok((bound.into(), sockets))
}

fn bind_unix(
    address: &UnixAddress,
    access: Access,
    count: usize,
    backlog: i32,
) -> io::Result<(SocketAddress, Vec<Listening>)> {
    let (socket, file) = unix::bind(address.path(), access, backlog)?;
    let file = Arc::new(file);
    let sockets = (0..count).map(|_| {
        Ok(Listening {
            socket: StdListener::Unix(socket.try_clone()?),
            guard: ListenGuard {
                _ours: Ours::count(),
                file: Some(Arc::clone(&file)),
            },
        })
    });
    let sockets = sockets.collect::<io::Result<_>>()?;
    Ok((SocketAddress::Unix(address.clone()), sockets))
}

/// A listening socket, registered as one of this process until it is dropped.
#[derive(Debug)]
pub struct Listening {
    socket: StdListener,
    guard: ListenGuard,
}

#[derive(Debug)]
enum StdListener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// What is dropped after the socket is closed.
#[derive(Debug)]
struct ListenGuard {
    _ours: Ours,
    file: Option<Arc<SocketFile>>,
}

impl Listening {
    /// The file of a Unix socket, as long as it is open.
    pub fn file(&self) -> Weak<SocketFile> {
        let file = self.guard.file.as_ref();
        file.map(Arc::downgrade).unwrap_or_default()
    }

    /// Registers the socket with the current runtime.
    ///
    /// # Errors
    /// The runtime cannot register it.
    pub fn watch(self) -> io::Result<Acceptor> {
        let socket = match self.socket {
            StdListener::Tcp(socket) => Watched::Tcp(TcpListener::from_std(socket)?),
            StdListener::Unix(socket) => Watched::Unix(UnixListener::from_std(socket)?),
        };
        Ok(Acceptor {
            socket,
            guard: self.guard,
        })
    }
}

/// A listening socket that is registered with a runtime.
#[derive(Debug)]
pub struct Acceptor {
    socket: Watched,
    guard: ListenGuard,
}

#[derive(Debug)]
enum Watched {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection, and the address of its peer, which a Unix socket does not have.
pub(crate) type Incoming = (Conn, Option<SocketAddr>);

impl Acceptor {
    /// Accepts the next connection. Cancel-safe.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Incoming>> {
        Poll::Ready(Ok(match &self.socket {
            Watched::Tcp(socket) => {
                let (stream, peer) = ready!(socket.poll_accept(cx))?;
                (stream.into(), Some(peer))
            }
            Watched::Unix(socket) => (ready!(socket.poll_accept(cx))?.0.into(), None),
        }))
    }

    /// Whether a connection is waiting to be accepted.
    pub fn has_pending(&self) -> bool {
        let mut ready = [match &self.socket {
            Watched::Tcp(socket) => PollFd::new(socket, PollFlags::IN),
            Watched::Unix(socket) => PollFd::new(socket, PollFlags::IN),
        }];
        poll(&mut ready, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Removes the socket from the runtime, to accept what is already in its queue.
    ///
    /// # Errors
    /// The runtime cannot remove it.
    pub fn close(self) -> io::Result<Closing> {
        let socket = match self.socket {
            Watched::Tcp(socket) => StdListener::Tcp(socket.into_std()?),
            Watched::Unix(socket) => StdListener::Unix(socket.into_std()?),
        };
        Ok(Closing {
            socket,
            _guard: self.guard,
        })
    }
}

/// A listening socket that is closed when this is dropped.
#[derive(Debug)]
pub struct Closing {
    socket: StdListener,
    _guard: ListenGuard,
}

impl Closing {
    /// Accepts a connection from the queue.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; otherwise the error of the system.
    pub fn accept(&self) -> io::Result<Incoming> {
        match &self.socket {
            StdListener::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                stream.set_nonblocking(true)?;
                Ok((Conn::watch(Unwatched::Tcp(stream))?, Some(peer)))
            }
            StdListener::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                stream.set_nonblocking(true)?;
                Ok((Conn::watch(Unwatched::Unix(stream))?, None))
            }
        }
    }
}

/// Binds `count` sockets that share `address`; returns the bound address too. No other program may listen there.
/// Sockets of this process may listen on overlapping addresses, since a reload moves from one to the other.
///
/// # Errors
/// The error of the system.
fn bind_sockets(
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
            socket: StdListener::Tcp(socket.into()),
            guard: ListenGuard {
                _ours: ours,
                file: None,
            },
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
        // ":8080" means both families; "[::]:8080" means IPv6 only, so that "0.0.0.0:8080" can be used next to it.
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
    use crate::transport::connect::{Connector, SystemConnector};

    fn bound(address: &str, workers: usize) -> BoundSockets {
        BoundSockets::bind(&address.parse().unwrap(), workers).unwrap()
    }

    fn port(sockets: &BoundSockets) -> u16 {
        sockets.address().ip().unwrap().port()
    }

    #[tokio::test]
    async fn every_worker_has_a_socket_on_one_address() {
        let folder = tempfile::tempdir().unwrap();
        let unix = format!("unix:{}", folder.path().join("a.sock").display());
        for address in ["127.0.0.1:0", &unix] {
            let bound = bound(address, 3);
            let mut acceptors = Vec::new();
            for worker in 0..3 {
                acceptors.push(bound.take(worker).unwrap().watch().unwrap());
                assert!(bound.take(worker).is_none());
            }
            let mut clients = Vec::new();
            for _ in 0..8 {
                clients.push(SystemConnector.connect(bound.address()).await.unwrap());
            }
            // Each connection is in the queue of one of the workers.
            let mut accepted = 0;
            for acceptor in acceptors {
                let closing = acceptor.close().unwrap();
                while let Ok((_, peer)) = closing.accept() {
                    assert_eq!(peer.is_some(), address != unix);
                    accepted += 1;
                }
            }
            assert_eq!(accepted, clients.len());
        }
        assert!(!folder.path().join("a.sock").exists());
    }

    #[test]
    fn a_port_in_use_is_refused_even_if_its_owner_would_share_it() {
        let sharing = open("127.0.0.1:0".parse().unwrap(), false, true).unwrap();
        sharing.listen(1).unwrap();
        let address = local_addr(&sharing).unwrap();
        let bind = BindAddress::Tcp(address.into());
        let error = BoundSockets::bind(&bind, 1).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[test]
    fn an_address_may_overlap_with_one_of_ours_but_not_with_one_of_another_program() {
        let first = bound("127.0.0.1:0", 2);
        let port = port(&first);
        let all = format!("0.0.0.0:{port}");
        let second = bound(&all, 2);
        drop(first);
        let third = bound(&format!(":{port}"), 2);
        drop(second);
        let fourth = bound(&format!("127.0.0.1:{port}"), 2);
        drop(third);
        let stranger = std::net::TcpListener::bind(("127.0.0.2", port)).unwrap();
        let error = BoundSockets::bind(&all.parse().unwrap(), 2).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        drop((stranger, fourth));
    }
}
