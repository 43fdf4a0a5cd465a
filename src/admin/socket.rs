//! The socket that the admin server listens on.
//!
//! A unix socket has mode 0600 from the moment it has a name: Linux gives the name the mode that the unbound socket
//! was given, so no umask (which is the whole process's) is touched. What stands at its path is removed only if it
//! is a socket that nobody listens on, that is, one that a process left behind; at the end it is removed only if it
//! is still ours.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use crate::model::address::ListenAddress;
use crate::model::settings::AdminAddress;
use crate::transport::listen::{Listening, bind_sockets};

const BACKLOG: i32 = 128;

/// The admin server has no socket.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The address cannot be bound.
    #[error("cannot bind the admin server to {address}: {cause}")]
    Bind {
        /// As the file has it.
        address: String,
        /// Why.
        cause: io::Error,
    },
    /// Another process listens there.
    #[error("cannot bind the admin server to unix:{}: another process listens there", .0.display())]
    InUse(PathBuf),
    /// Something else has that name, and it is not ours to remove.
    #[error("cannot bind the admin server to unix:{}: there is a file of that name", .0.display())]
    NotASocket(PathBuf),
}

/// A bound socket; [`super::serve`] takes it.
#[derive(Debug)]
pub struct AdminSocket(pub(super) Bound);

#[derive(Debug)]
pub(super) enum Bound {
    Tcp(Listening),
    Unix(UnixListener, SocketFile),
}

impl AdminSocket {
    /// Where it is bound, with the port that the system chose; `None` for a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.0 {
            Bound::Tcp(listener) => listener.local_addr().ok(),
            Bound::Unix(..) => None,
        }
    }

    /// Where it is bound, as the file would have it.
    pub fn address(&self) -> String {
        match &self.0 {
            Bound::Tcp(_) => self.local_addr().map(|a| a.to_string()).unwrap_or_default(),
            Bound::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }
}

/// Binds. Needs no runtime; the socket is non-blocking.
pub fn bind(address: &AdminAddress) -> Result<AdminSocket, AdminError> {
    match address {
        AdminAddress::Tcp(address) => bind_tcp(*address)
            .map(|listener| AdminSocket(Bound::Tcp(listener)))
            .map_err(|cause| AdminError::Bind {
                address: address.to_string(),
                cause,
            }),
        AdminAddress::Unix(path) => bind_unix(path),
    }
}

fn bind_tcp(address: ListenAddress) -> io::Result<Listening> {
    let both_families = address.ip().is_none();
    let bound = match listen(address.socket_addr(), both_families) {
        // All addresses, on a machine without IPv6.
        Err(error)
            if both_families
                && matches!(
                    error.raw_os_error(),
                    Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
                ) =>
        {
            listen((Ipv4Addr::UNSPECIFIED, address.port()).into(), false)
        }
        bound => bound,
    };
    bound?
        .pop()
        .ok_or_else(|| ErrorKind::AddrNotAvailable.into())
}

fn listen(address: SocketAddr, both_families: bool) -> io::Result<Vec<Listening>> {
    bind_sockets(address, both_families, 1, BACKLOG).map(|(_, sockets)| sockets)
}

fn bind_unix(path: &Path) -> Result<AdminSocket, AdminError> {
    remove_stale(path)?;
    let failed = |cause| AdminError::Bind {
        address: format!("unix:{}", path.display()),
        cause,
    };
    let listener = listen_unix(path).map_err(failed)?;
    let file = SocketFile::new(path).map_err(failed)?;
    Ok(AdminSocket(Bound::Unix(listener, file)))
}

fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> Result<(), AdminError> {
    // Whatever cannot be looked at, binding will report.
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(AdminError::NotASocket(path.to_owned()));
    }
    match knock(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            remove(path, Identity::of(&found));
            Ok(())
        }
        // Taken, or so full that it does not even refuse: somebody is there.
        _ => Err(AdminError::InUse(path.to_owned())),
    }
}

/// Connects to see whether somebody listens. Does not wait for a listener whose queue is full.
fn knock(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)
}

/// The name of a unix socket, which is removed when this is dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            identity: Identity::of(&fs::symlink_metadata(path)?),
            path: path.to_owned(),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        remove(&self.path, self.identity);
    }
}

/// Which file it is. Numbers of files are used again, so the time of birth counts too where it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    number: u64,
    born: Option<SystemTime>,
}

impl Identity {
    fn of(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            number: found.ino(),
            born: found.created().ok(),
        }
    }
}

/// Removes a name if it is still that of the same socket.
fn remove(path: &Path, identity: Identity) {
    let same = |m: fs::Metadata| m.file_type().is_socket() && Identity::of(&m) == identity;
    if fs::symlink_metadata(path).is_ok_and(same) {
        // What cannot be removed is found stale by the next who binds.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    fn tcp(address: &str) -> AdminAddress {
        AdminAddress::Tcp(address.parse().unwrap())
    }

    #[test]
    fn a_port_in_use_is_an_error_with_the_address() {
        let ours = bind(&tcp("127.0.0.1:0")).unwrap();
        assert_eq!(ours.address(), ours.local_addr().unwrap().to_string());
        let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = stranger.local_addr().unwrap().to_string();
        let error = bind(&tcp(&taken)).unwrap_err().to_string();
        assert!(error.contains(&taken), "{error}");
    }

    #[test]
    fn all_addresses_means_both_families() {
        let socket = bind(&tcp(":0")).unwrap();
        let port = socket.local_addr().unwrap().port();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn a_unix_socket_is_ours_alone_and_goes_with_us() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("admin.sock");
        let address = AdminAddress::Unix(path.clone());
        let socket = bind(&address).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{mode:o}");
        assert_eq!(socket.address(), format!("unix:{}", path.display()));
        assert!(matches!(bind(&address), Err(AdminError::InUse(_))));
        assert!(path.exists(), "the live one stays");
        drop(socket);
        assert!(!path.exists());
        bind(&address).unwrap();
    }

    #[test]
    fn a_stale_socket_is_replaced_and_nothing_else() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("admin.sock");
        let address = AdminAddress::Unix(path.clone());
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        let socket = bind(&address).unwrap();

        // Somebody put something else in its place: not ours to remove.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        drop(socket);
        assert!(matches!(bind(&address), Err(AdminError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");

        let missing = AdminAddress::Unix(folder.path().join("no/admin.sock"));
        assert!(matches!(bind(&missing), Err(AdminError::Bind { .. })));
        let long = AdminAddress::Unix(folder.path().join("x".repeat(200)));
        assert!(matches!(bind(&long), Err(AdminError::Bind { .. })));
    }
}
