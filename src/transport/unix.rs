//! Listening Unix sockets.
//!
//! A socket is bound under a private name in the folder of its path, gets its mode, listens, and only then is moved to
//! its path, if nothing is there. So nobody ever finds a socket at the path that does not listen yet, which would look
//! like one that a dead process left, and the mode of a foreign file is never changed. A file at the path is removed
//! only if it is a socket that nobody listens on; at the end the path is removed only if it is still this socket.
//!
//! If this process already listens at the path, the new socket waits for [`SocketFile::take_over`], which a reload
//! calls once nothing can fail any more.

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::{Builder, TempPath};

use crate::model::address::MAX_SOCKET_PATH;

/// Random characters of a private name, if the longest path of a socket has room for them.
const RANDOM: usize = 12;

/// The sockets of this process that have a file.
static OURS: LazyLock<Mutex<HashSet<FileIdentity>>> = LazyLock::new(Mutex::default);

fn ours() -> MutexGuard<'static, HashSet<FileIdentity>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who may connect to a socket, which is who may write to its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Only the user of the process.
    Owner,
    /// Every user who can reach the file.
    Everybody,
}

/// Creates a non-blocking socket that listens at `path`, and its file.
///
/// # Errors
/// The error of the system; `AddrInUse` if another process listens there, `AlreadyExists` if there is another file.
pub(crate) fn bind(
    path: &Path,
    access: Access,
    backlog: i32,
) -> io::Result<(UnixListener, SocketFile)> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let room = MAX_SOCKET_PATH.saturating_sub(path.as_os_str().len() - name.len());
    // The name says which socket it is, for a user who lists the system's sockets.
    let descriptive = format!(".{}.", name.display());
    let prefix = match room >= descriptive.len() + RANDOM {
        true => descriptive.as_str(),
        false => "",
    };
    let (socket, private) = Builder::new()
        .prefix(prefix)
        .rand_bytes(RANDOM.min(room))
        .make_in(folder(path), |private| listen(private, access, backlog))?
        .into_parts();
    let file = SocketFile::new(path, &private)?;
    *file.waiting() = move_to_path(private, path)?;
    Ok((socket.into(), file))
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Creates a socket that listens under a private name.
fn listen(private: &Path, access: Access, backlog: i32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    let own = Mode::RUSR | Mode::WUSR;
    let mode = match access {
        Access::Owner => own,
        Access::Everybody => own | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH,
    };
    // Linux gives the file the mode of the unbound socket, minus the umask.
    fchmod(&socket, mode)?;
    socket.bind(&SockAddr::unix(private)?)?;
    if access == Access::Everybody {
        fs::set_permissions(private, Permissions::from_mode(mode.bits()))?;
    }
    socket.listen(backlog)?;
    Ok(socket)
}

/// A socket whose path is used by another socket of this process.
#[derive(Debug)]
struct WaitingSocket {
    private: TempPath,
    current: FileIdentity,
}

/// Moves the socket that listens at `private` to its path, unless it must wait.
fn move_to_path(mut private: TempPath, path: &Path) -> io::Result<Option<WaitingSocket>> {
    // A second attempt follows the removal of a stale socket.
    for _ in 0..2 {
        match private.persist_noclobber(path) {
            Ok(()) => return Ok(None),
            Err(refused) if refused.error.kind() == ErrorKind::AlreadyExists => {
                private = refused.path;
            }
            Err(refused) => return Err(refused.error),
        }
        match occupant(path)? {
            Occupant::None => {}
            Occupant::Ours(current) => return Ok(Some(WaitingSocket { private, current })),
            Occupant::Stale(stale) => remove_stale(path, stale),
        }
    }
    Err(ErrorKind::AddrInUse.into())
}

/// What is at a path, if it may be replaced.
enum Occupant {
    None,
    Ours(FileIdentity),
    Stale(FileIdentity),
}

/// Finds what is at a path. Anything that must not be replaced is an error.
fn occupant(path: &Path) -> io::Result<Occupant> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Occupant::None),
        found => found?,
    };
    if !found.file_type().is_socket() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let identity = FileIdentity::of(&found);
    if ours().contains(&identity) {
        return Ok(Occupant::Ours(identity));
    }
    match try_connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Occupant::Stale(identity)),
        // Connected, or the queue is full: somebody listens.
        _ => Err(ErrorKind::AddrInUse.into()),
    }
}

/// Removes a stale socket. If its path has been taken by another file in the meantime, that one is put back.
fn remove_stale(path: &Path, stale: FileIdentity) {
    let aside = Builder::new()
        .prefix(".")
        .rand_bytes(RANDOM)
        .make_in(folder(path), |aside| fs::rename(path, aside));
    // If it cannot be moved, the next attempt reports the path as in use.
    if let Ok(aside) = aside.map(|aside| aside.into_temp_path())
        && FileIdentity::at(&aside) != Some(stale)
    {
        let _ = aside.persist_noclobber(path);
    }
}

/// Connects, to find out whether somebody listens. Does not wait for a listener whose queue is full.
fn try_connect(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)
}

/// The file of a Unix socket, which is removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: FileIdentity,
    waiting: Mutex<Option<WaitingSocket>>,
}

impl SocketFile {
    fn new(path: &Path, private: &Path) -> io::Result<Self> {
        let identity = FileIdentity::of(&fs::symlink_metadata(private)?);
        ours().insert(identity);
        Ok(Self {
            path: path.to_owned(),
            identity,
            waiting: Mutex::default(),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Option<WaitingSocket>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over the path from the socket of this process that it waits for, atomically, so that clients can always
    /// connect.
    ///
    /// # Errors
    /// Like [`bind`]; the socket has no file any more.
    pub fn take_over(&self) -> io::Result<()> {
        let Some(waiting) = self.waiting().take() else {
            return Ok(());
        };
        match move_to_path(waiting.private, &self.path)? {
            Some(still) => Ok(still.private.persist(&self.path)?),
            None => Ok(()),
        }
    }

    /// Whether the path no longer leads to this socket, so that nobody can connect.
    pub fn is_lost(&self) -> bool {
        self.waiting().is_none() && FileIdentity::at(&self.path) != Some(self.identity)
    }

    /// Whether it has, or will replace, the same file as one of `others`; a path may have several spellings.
    pub fn collides(&self, others: &[Arc<Self>]) -> bool {
        let file = self.file();
        others.iter().any(|other| other.file() == file)
    }

    /// The file at its path: its own, or the one that it will replace.
    fn file(&self) -> FileIdentity {
        let waiting = self.waiting();
        waiting.as_ref().map_or(self.identity, |w| w.current)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        ours().remove(&self.identity);
        remove(&self.path, self.identity);
    }
}

/// Identifies a file. Inode numbers are reused, so the creation time is included if it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FileIdentity {
    device: u64,
    inode: u64,
    created: Option<SystemTime>,
}

impl FileIdentity {
    fn of(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            created: found.created().ok(),
        }
    }

    fn at(path: &Path) -> Option<Self> {
        fs::symlink_metadata(path).ok().as_ref().map(Self::of)
    }
}

/// Removes the file at `path` if it is still the same socket.
fn remove(path: &Path, identity: FileIdentity) {
    let same = |m: fs::Metadata| m.file_type().is_socket() && FileIdentity::of(&m) == identity;
    if fs::symlink_metadata(path).is_ok_and(same) {
        // If it cannot be removed, the next process that binds the path finds it stale.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixStream;
    use std::sync::Barrier;
    use std::thread;

    use tempfile::TempDir;

    use super::*;

    fn kind(path: &Path) -> ErrorKind {
        bind(path, Access::Owner, 1).unwrap_err().kind()
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn a_socket_has_its_mode_and_is_removed_at_the_end() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.sock");
        for (access, mode) in [(Access::Owner, 0o600), (Access::Everybody, 0o666)] {
            let socket = bind(&path, access, 1).unwrap();
            let found = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode, "{found:o}");
            assert_eq!(names(&folder), ["a.sock"]);
            drop(socket);
            assert!(names(&folder).is_empty());
        }
    }

    #[test]
    fn a_live_socket_of_another_program_stays() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.sock");
        let _other = UnixListener::bind(&path).unwrap();
        assert_eq!(kind(&path), ErrorKind::AddrInUse);
        assert_eq!(names(&folder), ["a.sock"]);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn only_a_stale_socket_is_replaced() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        let socket = bind(&path, Access::Owner, 1).unwrap();
        assert_eq!(names(&folder), ["a.sock"]);

        // A foreign file in its place is not removed.
        assert!(!socket.1.is_lost());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(socket.1.is_lost());
        drop(socket);
        assert_eq!(kind(&path), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(kind(&folder.path().join("no/a.sock")), ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_replaced_a_stale_socket_is_put_back() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        let stale = FileIdentity::at(&path).unwrap();
        fs::rename(&path, folder.path().join("old")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        remove_stale(&path, stale);
        UnixStream::connect(&path).unwrap();
        assert_eq!(names(&folder).len(), 2);
    }

    #[test]
    fn one_of_many_gets_the_path() {
        const MANY: usize = 4;
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.sock");
        for _ in 0..50 {
            let barrier = Barrier::new(MANY);
            let bind = || {
                barrier.wait();
                bind(&path, Access::Everybody, 1)
            };
            let bound: Vec<_> = thread::scope(|scope| {
                let binders: Vec<_> = (0..MANY).map(|_| scope.spawn(bind)).collect();
                binders.into_iter().map(|b| b.join().unwrap()).collect()
            });
            let bound: Vec<_> = bound.into_iter().flatten().collect();
            let have = bound.iter().filter(|(_, file)| file.waiting().is_none());
            assert_eq!(have.count(), 1);
            UnixStream::connect(&path).unwrap();
        }
        assert!(names(&folder).is_empty());
    }

    #[test]
    fn a_path_of_this_process_is_taken_over_by_any_spelling() {
        let folder = TempDir::new().unwrap();
        symlink(folder.path(), folder.path().join("also")).unwrap();
        let path = folder.path().join("a.sock");
        let old = bind(&path, Access::Owner, 1).unwrap();
        let new = bind(&folder.path().join("also/a.sock"), Access::Owner, 1).unwrap();
        let (old_file, new_file) = (Arc::new(old.1), Arc::new(new.1));
        assert!(new_file.collides(&[Arc::clone(&old_file)]));
        UnixStream::connect(&path).unwrap();
        old.0.accept().unwrap();

        new_file.take_over().unwrap();
        assert!(!new_file.collides(&[Arc::clone(&old_file)]));
        assert!(old_file.is_lost() && !new_file.is_lost());
        drop(old_file);
        UnixStream::connect(&path).unwrap();
        new.0.accept().unwrap();
        drop(new_file);
        assert_eq!(names(&folder), ["also"]);
    }

    #[test]
    fn the_longest_path_has_room_for_a_private_name() {
        let folder = TempDir::new().unwrap();
        let rest = MAX_SOCKET_PATH - folder.path().as_os_str().len() - 1;
        let path = folder.path().join("a".repeat(rest));
        let _socket = bind(&path, Access::Owner, 1).unwrap();
        UnixStream::connect(&path).unwrap();
    }
}
