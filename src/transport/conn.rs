//! A connection over TCP or a Unix socket, which the rest of the program does not have to distinguish.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::{SockAddr, SockRef};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connection registered with a runtime.
#[derive(Debug)]
pub enum Conn {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// Identifies one end of an open connection among all on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndName {
    /// A TCP address.
    Ip(SocketAddr),
    /// A name in the abstract namespace (unix(7)), without the leading zero.
    Unix(Box<[u8]>),
}

impl EndName {
    /// The abstract name of a Unix socket; `None` if it has none.
    pub(super) fn of_unix(address: &SockAddr) -> Option<Self> {
        let name = address.as_abstract_namespace()?;
        Some(Self::Unix(name.into()))
    }
}

/// A connection that moves from one runtime to another.
#[derive(Debug)]
pub enum Unwatched {
    /// Over TCP.
    Tcp(std::net::TcpStream),
    /// Over a Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

/// Does the same with either kind of stream.
macro_rules! either {
    ($conn:expr, $stream:ident => $done:expr) => {
        match $conn {
            Conn::Tcp($stream) => $done,
            Conn::Unix($stream) => $done,
        }
    };
}

impl Conn {
    /// Registers a non-blocking connection with the current runtime.
    ///
    /// # Errors
    /// The runtime cannot register it.
    pub fn watch(stream: Unwatched) -> io::Result<Self> {
        match stream {
            Unwatched::Tcp(stream) => TcpStream::from_std(stream).map(Self::Tcp),
            Unwatched::Unix(stream) => UnixStream::from_std(stream).map(Self::Unix),
        }
    }

    /// Removes the connection from its runtime.
    ///
    /// # Errors
    /// The runtime cannot remove it.
    pub fn unwatch(self) -> io::Result<Unwatched> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(Unwatched::Tcp),
            Self::Unix(stream) => stream.into_std().map(Unwatched::Unix),
        }
    }

    /// The local address of a TCP connection; `None` for a Unix socket.
    pub fn local_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok().map(|address| address.ip()),
            Self::Unix(_) => None,
        }
    }

    /// The abstract name of the peer of a Unix socket, if it has one.
    pub fn unix_peer(&self) -> Option<EndName> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(stream) => EndName::of_unix(&SockRef::from(stream).peer_addr().ok()?),
        }
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read_ready(cx))
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_write_ready(cx))
    }

    /// Calls `call` if the runtime considers the socket ready; clears readiness if `call` returns `WouldBlock`.
    pub(super) fn try_io<T>(
        &self,
        interest: Interest,
        call: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        either!(self, stream => stream.try_io(interest, call))
    }

    /// Reads what is available, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` if the socket is not ready; otherwise the error of the system.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.try_read(buffer))
    }
}

impl From<TcpStream> for Conn {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Conn {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        either!(self, stream => stream.as_fd())
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}
