//! L2: reads all files that the configuration or the command line names: configuration, keys, tokens, members,
//! certificates, pages.
//!
//! A path may lead to anything, and may change in the meantime: a pipe that nobody writes to, a device without an end,
//! a mount whose server is gone. So only regular files are read, up to a size that the caller gives, and they are
//! opened so that the call can neither wait for a pipe nor start a device. Everything happens on a thread of its own,
//! which is waited for at most [`BOUND`]. A thread that hangs in the kernel cannot be ended: until it returns, every
//! further access to its path fails at once, and there are at most `THREADS` such threads.
//!
//! [`read`] blocks for at most [`BOUND`]; [`read_async`] does not block. [`bounded`] and [`bounded_async`] do any other
//! work on a path in the same way.

use std::collections::HashMap;
use std::fs::{FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;

/// Most time for work on one path.
pub(crate) const BOUND: Duration = Duration::from_secs(5);
/// Most threads that work on paths at a time; only hanging threads ever reach this number.
const THREADS: usize = 64;

/// Why a file is not read although the system might read it. [`io::Error::get_ref`] finds it in the [`io::Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FileRefusal {
    /// It is not a regular file.
    #[error("it is {0}, not a regular file")]
    Kind(&'static str),
    /// It is too large.
    #[error("it is larger than {0} bytes")]
    Size(usize),
    /// The work took too long.
    #[error("timed out: it hangs, or its file system does")]
    TimedOut,
    /// Earlier work on the path took too long, and has not ended.
    #[error("an earlier access to it still hangs")]
    Hangs,
    /// Work on too many paths hangs.
    #[error("accesses to {THREADS} other files hang")]
    TooMany,
}

impl From<FileRefusal> for io::Error {
    fn from(refusal: FileRefusal) -> Self {
        let kind = match refusal {
            FileRefusal::Kind(_) => ErrorKind::InvalidInput,
            FileRefusal::Size(_) => ErrorKind::FileTooLarge,
            FileRefusal::TimedOut | FileRefusal::Hangs | FileRefusal::TooMany => {
                ErrorKind::TimedOut
            }
        };
        Self::new(kind, refusal)
    }
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// The error of the system, or a [`FileRefusal`].
pub(crate) fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let owned = path.to_owned();
    bounded(path, move || read_all(&owned, limit))
}

/// Like [`read`], without blocking the thread.
///
/// # Errors
/// Like [`read`].
pub(crate) async fn read_async(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let owned = path.to_owned();
    bounded_async(path, move || read_all(&owned, limit)).await
}

/// Reads the first `limit` bytes of a regular file, for callers with an error of their own for a file that is too
/// large.
///
/// # Errors
/// The error of the system, or a [`FileRefusal`].
pub(crate) fn read_beginning(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let owned = path.to_owned();
    bounded(path, move || beginning(&owned, limit))
}

/// Like [`read_beginning`], without blocking the thread.
///
/// # Errors
/// Like [`read_beginning`].
pub(crate) async fn read_beginning_async(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let owned = path.to_owned();
    bounded_async(path, move || beginning(&owned, limit)).await
}

/// Does `work`, which concerns `path`, on a thread of its own, and waits for it for at most [`BOUND`].
///
/// # Errors
/// The error of `work`, or a [`FileRefusal`] if it takes too long.
pub(crate) fn bounded<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, result) = mpsc::sync_channel(1);
    let ticket = start(path, work, move |result| drop(done.send(result)))?;
    match result.recv_timeout(BOUND) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(ticket.give_up()),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(thread_failed()),
    }
}

/// Like [`bounded`], without blocking the thread.
///
/// # Errors
/// Like [`bounded`].
pub(crate) async fn bounded_async<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    bounded_async_for(path, BOUND, work).await
}

/// Like [`bounded_async`], but waits for at most `bound`, for work on several files.
///
/// # Errors
/// Like [`bounded`].
pub(crate) async fn bounded_async_for<T: Send + 'static>(
    path: &Path,
    bound: Duration,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    let ticket = start(path, work, move |result| drop(done.send(result)))?;
    match tokio::time::timeout(bound, result).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(thread_failed()),
        Err(_) => Err(ticket.give_up()),
    }
}

fn thread_failed() -> io::Error {
    io::Error::other("the thread that accessed it failed")
}

fn read_all(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let bytes = beginning(path, limit.saturating_add(1))?;
    if bytes.len() > limit {
        return Err(FileRefusal::Size(limit).into());
    }
    Ok(bytes)
}

fn beginning(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    // Checked before it is opened, since opening alone may have an effect on a device, and afterwards, since it may be
    // a different file by then.
    check_regular(&std::fs::metadata(path)?)?;
    let file = OpenOptions::new()
        .read(true)
        // The standard library adds O_CLOEXEC.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    check_regular(&file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check_regular(found: &Metadata) -> Result<(), FileRefusal> {
    let kind = found.file_type();
    if kind.is_file() {
        return Ok(());
    }
    Err(FileRefusal::Kind(describe(kind)))
}

fn describe(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "something else"
    }
}

static RUNNING: LazyLock<Mutex<RunningWork>> = LazyLock::new(Mutex::default);

/// All work that has not ended.
#[derive(Debug, Default)]
struct RunningWork {
    next_id: u64,
    /// By id: the path, and whether nobody waits for the work any more.
    paths: HashMap<u64, (PathBuf, bool)>,
}

fn running_work() -> MutexGuard<'static, RunningWork> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Identifies work to the side that waits for it.
#[derive(Debug)]
struct Ticket(u64);

impl Ticket {
    /// Records that the work hangs.
    fn give_up(&self) -> io::Error {
        if let Some((_, hangs)) = running_work().paths.get_mut(&self.0) {
            *hangs = true;
        }
        FileRefusal::TimedOut.into()
    }
}

/// Removes work from the list when its thread ends, even by a panic.
struct RemoveOnDrop(u64);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        running_work().paths.remove(&self.0);
    }
}

fn start<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
    done: impl FnOnce(io::Result<T>) + Send + 'static,
) -> io::Result<Ticket> {
    let mut all = running_work();
    if all
        .paths
        .values()
        .any(|(other, hangs)| *hangs && other == path)
    {
        return Err(FileRefusal::Hangs.into());
    }
    if all.paths.len() >= THREADS {
        return Err(FileRefusal::TooMany.into());
    }
    let id = all.next_id;
    all.next_id += 1;
    all.paths.insert(id, (path.to_owned(), false));
    drop(all);
    let entry = RemoveOnDrop(id);
    std::thread::Builder::new()
        .name("file".to_owned())
        .spawn(move || {
            let result = work();
            drop(entry);
            done(result);
        })?;
    Ok(Ticket(id))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn refusal(result: io::Result<impl std::fmt::Debug>) -> FileRefusal {
        let error = result.unwrap_err();
        *error.get_ref().unwrap().downcast_ref().unwrap()
    }

    #[test]
    fn only_regular_files_are_read_and_only_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), 0o600.into()).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::fs::write(path("file"), "12345").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        for (path, kind) in [
            (path("pipe"), "a pipe"),
            (path("socket"), "a socket"),
            (folder.path().into(), "a directory"),
            ("/dev/zero".into(), "a device"),
        ] {
            assert_eq!(refusal(read(&path, 9)), FileRefusal::Kind(kind));
            assert_eq!(refusal(read_beginning(&path, 9)), FileRefusal::Kind(kind));
        }
        assert_eq!(read(&path("link"), 5).unwrap(), b"12345");
        assert_eq!(refusal(read(&path("file"), 4)), FileRefusal::Size(4));
        assert_eq!(read_beginning(&path("file"), 4).unwrap(), b"1234");
        let absent = read(&path("none"), 4).unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn reading_does_not_block_the_waiting_thread() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "12345").unwrap();
        assert_eq!(read_async(file.path(), 5).await.unwrap(), b"12345");
        assert_eq!(
            refusal(read_async(file.path(), 4).await),
            FileRefusal::Size(4)
        );
        assert_eq!(read_beginning_async(file.path(), 2).await.unwrap(), b"12");
        let panicked = bounded_async(file.path(), || -> io::Result<()> { panic!("on purpose") });
        assert!(panicked.await.is_err());
        assert_eq!(read(file.path(), 5).unwrap(), b"12345");
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_work_is_given_up_and_not_started_again_until_it_ends() {
        let path = Path::new("/hangs");
        let (release, hold) = mpsc::channel::<()>();
        let hanging = bounded_async(path, move || {
            let _ = hold.recv();
            Ok(())
        });
        assert_eq!(refusal(hanging.await), FileRefusal::TimedOut);
        let began = Instant::now();
        assert_eq!(refusal(bounded(path, || Ok(()))), FileRefusal::Hangs);
        assert!(began.elapsed() < BOUND);
        assert!(bounded(Path::new("/works"), || Ok(())).is_ok());
        drop(release);
        while bounded(path, || Ok(())).is_err() {
            std::thread::yield_now();
        }
    }
}
