//! Unix sockets that listen.
//!
//! A socket is bound under a private name in the folder of its path, is given its mode, listens, and only then takes its
//! path, if nothing stands there. So nobody ever finds a socket at the path that does not listen yet, which would pass for
//! one that a process left behind, and nothing that others put at the path is given a mode. What stands at the path is
//! removed only if it is a socket that nobody listens on; at the end it is removed only if it is still ours.
//!
//! A path where this process listens already waits for [`SocketFile::take_over`], which a reload does once nothing can
//! fail any more.

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

/// Random characters of a private name, where the longest path of a socket leaves room for so many.
const RANDOM: usize = 12;

/// The sockets of this process that have a file.
static OURS: LazyLock<Mutex<HashSet<Identity>>> = LazyLock::new(Mutex::default);

fn ours() -> MutexGuard<'static, HashSet<Identity>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who may connect to a socket: who may write to its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// The user of the process alone.
    Owner,
    /// Every user who can reach the file.
    Everybody,
}

/// A non-blocking socket that listens at `path`, and its file.
///
/// # Errors
/// What the system said; `AddrInUse` if another process listens there, `AlreadyExists` if there is another file.
pub(crate) fn bind(
    path: &Path,
    access: Access,
    backlog: i32,
) -> io::Result<(UnixListener, SocketFile)> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let room = MAX_SOCKET_PATH.saturating_sub(path.as_os_str().len() - name.len());
    // So that those who list the system's sockets see which one it is.
    let telling = format!(".{}.", name.display());
    let prefix = match room >= telling.len() + RANDOM {
        true => telling.as_str(),
        false => "",
    };
    let (socket, private) = Builder::new()
        .prefix(prefix)
        .rand_bytes(RANDOM.min(room))
        .make_in(folder(path), |private| listen(private, access, backlog))?
        .into_parts();
    let file = SocketFile::new(path, &private)?;
    *file.waiting() = settle(private, path)?;
    Ok((socket.into(), file))
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// A socket that listens under a name that nobody else knows.
fn listen(private: &Path, access: Access, backlog: i32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    let own = Mode::RUSR | Mode::WUSR;
    let mode = match access {
        Access::Owner => own,
        Access::Everybody => own | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH,
    };
    // Linux gives the name the mode of the unbound socket, less the umask.
    fchmod(&socket, mode)?;
    socket.bind(&SockAddr::unix(private)?)?;
    if access == Access::Everybody {
        fs::set_permissions(private, Permissions::from_mode(mode.bits()))?;
    }
    socket.listen(backlog)?;
    Ok(socket)
}

/// A socket whose path another one of this process has.
#[derive(Debug)]
struct Waiting {
    private: TempPath,
    holder: Identity,
}

/// Gives the socket that listens at `private` its path, unless it must wait.
fn settle(mut private: TempPath, path: &Path) -> io::Result<Option<Waiting>> {
    // Once more after a stale one is gone.
    for _ in 0..2 {
        match private.persist_noclobber(path) {
            Ok(()) => return Ok(None),
            Err(refused) if refused.error.kind() == ErrorKind::AlreadyExists => {
                private = refused.path;
            }
            Err(refused) => return Err(refused.error),
        }
        match holder(path)? {
            Holder::Nobody => {}
            Holder::Ours(holder) => return Ok(Some(Waiting { private, holder })),
            Holder::Stale(stale) => take_away(path, stale),
        }
    }
    Err(ErrorKind::AddrInUse.into())
}

/// Who may be moved out of a path.
enum Holder {
    Nobody,
    Ours(Identity),
    Stale(Identity),
}

fn holder(path: &Path) -> io::Result<Holder> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Holder::Nobody),
        found => found?,
    };
    if !found.file_type().is_socket() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let identity = Identity::of(&found);
    if ours().contains(&identity) {
        return Ok(Holder::Ours(identity));
    }
    match knock(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Holder::Stale(identity)),
        // Taken, or so full that it does not even refuse: somebody is there.
        _ => Err(ErrorKind::AddrInUse.into()),
    }
}

/// Removes a stale socket. Another that has come to its path in the meantime goes back there.
fn take_away(path: &Path, stale: Identity) {
    let aside = Builder::new()
        .prefix(".")
        .rand_bytes(RANDOM)
        .make_in(folder(path), |aside| fs::rename(path, aside));
    // What cannot be removed is in use.
    if let Ok(aside) = aside.map(|aside| aside.into_temp_path())
        && Identity::at(&aside) != Some(stale)
    {
        let _ = aside.persist_noclobber(path);
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
    waiting: Mutex<Option<Waiting>>,
}

impl SocketFile {
    fn new(path: &Path, private: &Path) -> io::Result<Self> {
        let identity = Identity::of(&fs::symlink_metadata(private)?);
        ours().insert(identity);
        Ok(Self {
            path: path.to_owned(),
            identity,
            waiting: Mutex::default(),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the path from the socket of this process that it waits for, in one step: no client finds nobody there.
    ///
    /// # Errors
    /// As [`bind`]; the socket has no name any more.
    pub fn take_over(&self) -> io::Result<()> {
        let Some(waiting) = self.waiting().take() else {
            return Ok(());
        };
        match settle(waiting.private, &self.path)? {
            Some(still) => Ok(still.private.persist(&self.path)?),
            None => Ok(()),
        }
    }

    /// Whether the path is not this socket's any more: nobody can connect.
    pub fn is_lost(&self) -> bool {
        self.waiting().is_none() && Identity::at(&self.path) != Some(self.identity)
    }

    /// Whether it has the same file as one of `others`, or will have: a path may have several spellings.
    pub fn collides(&self, others: &[Arc<Self>]) -> bool {
        let file = self.file();
        others.iter().any(|other| other.file() == file)
    }

    /// The file at its path, which it will replace if it waits.
    fn file(&self) -> Identity {
        let waiting = self.waiting();
        waiting.as_ref().map_or(self.identity, |w| w.holder)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        ours().remove(&self.identity);
        remove(&self.path, self.identity);
    }
}

/// Which file it is. Numbers of files are used again, so the time of birth counts too where it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

    fn at(path: &Path) -> Option<Self> {
        fs::symlink_metadata(path).ok().as_ref().map(Self::of)
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
    fn a_socket_has_its_mode_and_goes_with_us() {
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
    fn a_stale_socket_is_replaced_and_nothing_else() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        let socket = bind(&path, Access::Owner, 1).unwrap();
        assert_eq!(names(&folder), ["a.sock"]);

        // Somebody put something else in its place: not ours to remove.
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
    fn what_came_in_the_place_of_a_stale_socket_goes_back() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        let stale = Identity::at(&path).unwrap();
        fs::rename(&path, folder.path().join("kept")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        take_away(&path, stale);
        UnixStream::connect(&path).unwrap();
        assert_eq!(names(&folder).len(), 2);
    }

    #[test]
    fn one_of_many_has_the_path() {
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
    fn a_path_of_ours_is_taken_over_by_any_name() {
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
