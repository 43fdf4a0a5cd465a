//! Connections to backends.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream};

use super::socket;

/// Why there is no connection, by whose fault it is.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The backend refused, or cannot be reached.
    #[error("{0}")]
    Backend(#[source] io::Error),
    /// We are out of descriptors, ports or memory: says nothing of the backend.
    #[error("{0}")]
    Local(#[source] io::Error),
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(
                libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EADDRNOTAVAIL
                | libc::EAGAIN,
            ) => Self::Local(error),
            _ => Self::Backend(error),
        }
    }
}

/// Connects to `address`. Cancel-safe; without a timeout of its own.
///
/// # Errors
/// What the system said, by whose fault it is.
pub async fn dial(address: SocketAddr) -> Result<TcpStream, DialError> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
    .map_err(DialError::Local)?;
    socket::set_options(&socket).map_err(DialError::Local)?;
    Ok(socket.connect(address).await?)
}
