//! Connections to backends: one way to make them, and one error, for traffic and for health checks.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpSocket, UnixStream};
use tokio::time::sleep;

use super::conn::{Conn, EndName};
use super::socket;
use super::stream::Stream;
use crate::model::address::{SocketAddress, UnixAddress};

/// Pause before the second attempt to connect to a Unix socket whose queue is full; it doubles with each attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Makes connections to backends.
pub trait Connector: 'static {
    /// The connections that it makes.
    type Stream: Stream;
    /// A socket that is not connected yet, but whose local end already has a name.
    type Named;

    /// Connects to `address`. Cancel-safe; has no timeout of its own.
    ///
    /// # Errors
    /// The error of the system, split by whether we or the backend caused it.
    fn connect(
        &self,
        address: &SocketAddress,
    ) -> impl Future<Output = Result<Self::Stream, DialError>>;

    /// Creates a socket for `address` whose local end has a name before it is connected, so that the process that
    /// accepts the connection can learn that name first. `None` if `address` does not belong to this machine or no name
    /// is available.
    fn bind(&self, address: &SocketAddress) -> Option<(Self::Named, EndName)>;

    /// Connects a socket of [`Self::bind`]; otherwise like [`Self::connect`].
    ///
    /// # Errors
    /// Like [`Self::connect`].
    fn connect_named(
        &self,
        named: Self::Named,
    ) -> impl Future<Output = Result<Self::Stream, DialError>>;
}

/// Connects with sockets of the system.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemConnector;

impl Connector for SystemConnector {
    type Stream = Conn;
    type Named = NamedSocket;

    async fn connect(&self, address: &SocketAddress) -> Result<Conn, DialError> {
        match address {
            SocketAddress::Ip(address) => connect_tcp(socket_for(*address)?, *address).await,
            SocketAddress::Unix(address) => connect_unix(unix_socket()?, address).await,
        }
    }

    fn bind(&self, address: &SocketAddress) -> Option<(NamedSocket, EndName)> {
        NamedSocket::bind(address)
    }

    async fn connect_named(&self, named: NamedSocket) -> Result<Conn, DialError> {
        match named {
            NamedSocket::Tcp(socket, address) => connect_tcp(socket, address).await,
            NamedSocket::Unix(socket, address) => connect_unix(socket, &address).await,
        }
    }
}

/// Why a connection attempt failed, split by whether we or the backend caused it.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The backend refused or cannot be reached.
    #[error("{0}")]
    Backend(#[source] io::Error),
    /// The proxy has no descriptors, ports or memory; this says nothing about the backend.
    #[error("{0}")]
    Local(#[source] io::Error),
}

impl DialError {
    /// Classifies an error of a Unix socket.
    fn of_unix(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Self::Local(error),
            _ => Self::Backend(error),
        }
    }

    /// Classifies an error of a TCP connection to `address`.
    fn of(error: io::Error, address: SocketAddr) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN) => {
                Self::Local(error)
            }
            // Either all ports are in use, which is a local and temporary lack, or this machine has no address from
            // which `address` can be reached (as without IPv6), which is permanent.
            Some(libc::EADDRNOTAVAIL) if has_source(address) => Self::Local(error),
            _ => Self::Backend(error),
        }
    }
}

/// Whether the machine has a source address for connections to `address`. Nothing is sent.
fn has_source(address: SocketAddr) -> bool {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // If there is no descriptor to find out, the lack is local.
    UdpSocket::bind(any).map_or_else(
        |error| error.raw_os_error() != Some(libc::EAFNOSUPPORT),
        |socket| socket.connect(address).is_ok(),
    )
}

fn unix_socket() -> Result<Socket, DialError> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(DialError::of_unix)
}

/// Connects a Unix socket. While the queue of the listener is full, it waits as TCP does; the system reports that with
/// `EAGAIN` instead of waiting itself (connect(2)).
async fn connect_unix(socket: Socket, address: &UnixAddress) -> Result<Conn, DialError> {
    let address = SockAddr::unix(address.path()).map_err(DialError::of_unix)?;
    let mut pause = FIRST_PAUSE;
    while let Err(error) = socket.connect(&address) {
        if error.raw_os_error() != Some(libc::EAGAIN) {
            return Err(DialError::of_unix(error));
        }
        sleep(pause).await;
        pause = LONGEST_PAUSE.min(2 * pause);
    }
    let connected = UnixStream::from_std(socket.into());
    connected.map(Conn::Unix).map_err(DialError::Local)
}

/// A socket that is not connected yet, but whose local end has a name, so that the process that accepts the connection
/// can know it before the connection is made.
#[derive(Debug)]
pub(crate) enum NamedSocket {
    /// A TCP socket for this address of this machine.
    Tcp(TcpSocket, SocketAddr),
    /// A Unix socket for this address.
    Unix(Socket, UnixAddress),
}

impl NamedSocket {
    /// Creates a socket for `address`, and returns the name of its local end. `None` if `address` does not belong to
    /// this machine or no name is available.
    fn bind(address: &SocketAddress) -> Option<(Self, EndName)> {
        match address {
            SocketAddress::Ip(address) => {
                let socket = socket_for(*address).ok()?;
                socket.bind(SocketAddr::new(address.ip(), 0)).ok()?;
                let end = EndName::Ip(socket.local_addr().ok()?);
                Some((Self::Tcp(socket, *address), end))
            }
            SocketAddress::Unix(address) => {
                let socket = unix_socket().ok()?;
                // The system chooses a name if none is given.
                socket.bind(&SockAddr::unix("").ok()?).ok()?;
                let end = EndName::of_unix(&socket.local_addr().ok()?)?;
                Some((Self::Unix(socket, address.clone()), end))
            }
        }
    }
}

async fn connect_tcp(socket: TcpSocket, address: SocketAddr) -> Result<Conn, DialError> {
    let connected = socket.connect(address).await;
    connected
        .map(Conn::Tcp)
        .map_err(|error| DialError::of(error, address))
}

fn socket_for(address: SocketAddr) -> Result<TcpSocket, DialError> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
    .map_err(|error| DialError::of(error, address))?;
    socket::set_options(&socket).map_err(DialError::Local)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use std::task::Poll;

    use super::super::unix::{self, Access};
    use super::*;

    #[test]
    fn a_local_lack_is_not_the_fault_of_the_backend() {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        for (code, local) in [
            (libc::EMFILE, true),
            (libc::ENFILE, true),
            (libc::ENOBUFS, true),
            (libc::ENOMEM, true),
            (libc::EAGAIN, true),
            // Loopback has a source address, so the ports are exhausted.
            (libc::EADDRNOTAVAIL, true),
            (libc::ECONNREFUSED, false),
            (libc::EHOSTUNREACH, false),
            (libc::ENETUNREACH, false),
            (libc::ETIMEDOUT, false),
        ] {
            let error = DialError::of(io::Error::from_raw_os_error(code), address);
            assert_eq!(matches!(error, DialError::Local(_)), local, "{error}");
        }
    }

    #[test]
    fn errors_of_a_unix_socket_are_classified() {
        for (code, local) in [
            (libc::EMFILE, true),
            (libc::ENOENT, false),
            (libc::EACCES, false),
            (libc::ECONNREFUSED, false),
        ] {
            let error = DialError::of_unix(io::Error::from_raw_os_error(code));
            assert_eq!(matches!(error, DialError::Local(_)), local, "{error}");
        }
    }

    #[tokio::test]
    async fn a_full_queue_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let (listener, _file) = unix::bind(&path, Access::Owner, 0).unwrap();
        let address = SocketAddress::Unix(UnixAddress::new(&path).unwrap());
        let _first = SystemConnector.connect(&address).await.unwrap();
        let mut second = pin!(SystemConnector.connect(&address));
        let waits = poll_fn(|cx| Poll::Ready(second.as_mut().poll(cx).is_pending())).await;
        assert!(waits, "the queue holds one");
        listener.accept().unwrap();
        second.await.unwrap();
        drop(listener);
        let refused = SystemConnector.connect(&address).await;
        assert!(matches!(refused, Err(DialError::Backend(_))), "{refused:?}");
    }

    #[tokio::test]
    async fn the_name_of_the_local_end_is_that_of_the_peer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let address = SocketAddress::Unix(UnixAddress::new(&path).unwrap());
        let (socket, end) = SystemConnector.bind(&address).unwrap();
        let _near = SystemConnector.connect_named(socket).await.unwrap();
        let far = Conn::from(listener.accept().await.unwrap().0);
        assert_eq!(far.unix_peer(), Some(end));
        let _near = SystemConnector.connect(&address).await.unwrap();
        let far = Conn::from(listener.accept().await.unwrap().0);
        assert_eq!(far.unix_peer(), None);
    }

    #[test]
    fn an_unreachable_address_has_no_source_address() {
        assert!(has_source("127.0.0.1:1".parse().unwrap()));
        // A link-local address of an interface that does not exist.
        assert!(!has_source("[fe80::1%4294967295]:1".parse().unwrap()));
    }
}
