//! The socket that the admin server listens on. A Unix socket has mode 0600.

use crate::model::address::{BindAddress, SocketAddress};
use crate::transport::listen::{BindError, Listening, bind_one};
use crate::transport::unix::Access;

const BACKLOG: i32 = 128;

/// Why the admin server has no socket.
#[derive(Debug, thiserror::Error)]
#[error("the admin server {0}")]
pub(crate) struct AdminError(pub(super) BindError);

/// A bound socket for [`super::server::serve`].
#[derive(Debug)]
pub(crate) struct AdminSocket {
    pub(super) listening: Listening,
    address: SocketAddress,
}

impl AdminSocket {
    /// Where it is bound, with the port that the system chose; `None` for a Unix socket.
    #[cfg(test)]
    pub(crate) fn local_addr(&self) -> Option<std::net::SocketAddr> {
        self.address.ip()
    }

    /// Where it is bound, as the file would write it.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }
}

/// Binds an address. Needs no runtime; the socket is non-blocking.
///
/// # Errors
/// The address and what the system said.
pub(crate) fn bind(address: &BindAddress) -> Result<AdminSocket, AdminError> {
    let bound = bind_one(address, Access::Owner, BACKLOG);
    bound
        .map(|(address, listening)| AdminSocket { listening, address })
        .map_err(AdminError)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;
    use crate::model::address::UnixAddress;

    fn at(address: &str) -> BindAddress {
        address.parse().unwrap()
    }

    #[test]
    fn a_port_in_use_is_an_error_with_the_address() {
        let ours = bind(&at("127.0.0.1:0")).unwrap();
        assert_eq!(ours.address(), ours.local_addr().unwrap().to_string());
        let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = stranger.local_addr().unwrap().to_string();
        let error = bind(&at(&taken)).unwrap_err().to_string();
        assert!(error.contains(&taken), "{error}");
    }

    #[test]
    fn all_addresses_means_both_families() {
        let socket = bind(&at(":0")).unwrap();
        let port = socket.local_addr().unwrap().port();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn a_unix_socket_is_ours_alone() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("admin.sock");
        let address = BindAddress::Unix(UnixAddress::new(&path).unwrap());
        let socket = bind(&address).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{mode:o}");
        assert_eq!(socket.address(), format!("unix:{}", path.display()));
        drop(socket);
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = bind(&address).unwrap_err().to_string();
        let said = format!(
            "the admin server cannot listen on unix:{}: the address is in use by another program",
            path.display()
        );
        assert_eq!(error, said);
        drop(other);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        let error = bind(&address).unwrap_err().to_string();
        assert!(
            error.ends_with("there is another file of that name"),
            "{error}"
        );
    }
}
