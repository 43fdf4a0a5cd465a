//! Unix sockets that listen.
//!
//! A socket that is for its owner alone is so from the moment it has a name: Linux gives the name the mode that the
//! unbound socket was given, less the umask, which is the whole process's and is not touched. What stands at its path is
//! removed only if it is a socket that nobody listens on, that is, one that a process left behind; at the end it is
//! removed only if it is still ours.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};

/// Who may connect to a socket: who may write to its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The user of the process alone.
    Owner,
    /// Every user who can reach the file.
    Everybody,
}

/// A non-blocking socket that listens at `path`, and its file.
///
/// # Errors
/// What the system said; `AddrInUse` if another process listens there, `AlreadyExists` if there is another file.
pub fn bind(path: &Path, access: Access, backlog: i32) -> io::Result<(UnixListener, SocketFile)> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    let own = Mode::RUSR | Mode::WUSR;
    let mode = match access {
        Access::Owner => own,
        Access::Everybody => own | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH,
    };
    fchmod(&socket, mode)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::new(path)?;
    if access == Access::Everybody {
        // The umask has its part in the mode of a new file.
        fs::set_permissions(path, Permissions::from_mode(mode.bits()))?;
    }
    socket.listen(backlog)?;
    Ok((socket.into(), file))
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    // Whatever cannot be looked at, binding will report.
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    match knock(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            remove(path, Identity::of(&found));
            Ok(())
        }
        // Taken, or so full that it does not even refuse: somebody is there.
        _ => Err(ErrorKind::AddrInUse.into()),
    }
}

/// Connects to see whether somebody listens. Does not wait for a listener whose queue is full.
fn knock(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)
}

/// The name of a unix socket, which is removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
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
    use tempfile::TempDir;

    use super::*;

    fn kind(path: &Path) -> ErrorKind {
        bind(path, Access::Owner, 1).unwrap_err().kind()
    }

    #[test]
    fn a_socket_has_its_mode_and_goes_with_us() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.sock");
        for (access, mode) in [(Access::Owner, 0o600), (Access::Everybody, 0o666)] {
            let socket = bind(&path, access, 1).unwrap();
            let found = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode, "{found:o}");
            assert_eq!(kind(&path), ErrorKind::AddrInUse);
            assert!(path.exists(), "the live one stays");
            drop(socket);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_stale_socket_is_replaced_and_nothing_else() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        let socket = bind(&path, Access::Owner, 1).unwrap();

        // Somebody put something else in its place: not ours to remove.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        drop(socket);
        assert_eq!(kind(&path), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(kind(&folder.path().join("no/a.sock")), ErrorKind::NotFound);
    }
}
