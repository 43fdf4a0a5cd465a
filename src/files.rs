//! L2: the one reader of files that a path of ours names: configuration, keys, tokens, members, certificates, pages.
//!
//! What stands at a path may be anything, and may change while we look: a pipe that nobody writes to, a device without an
//! end, a mount whose server has gone. So only regular files are read, opened in a way that cannot wait for a pipe and
//! cannot start a device, up to a size that the caller names; and all of it happens on a thread of its own that is
//! waited for at most [`BOUND`]. A thread that hangs in the kernel cannot be ended: what it wanted fails at once from
//! then on, until it comes back, and there are at most `THREADS` of them.
//!
//! [`read`] blocks for at most [`BOUND`]; [`read_async`] does not. [`bounded`] and [`bounded_async`] do any other work on
//! a path likewise.

use std::collections::HashMap;
use std::fs::{FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;

/// How long work on one path may take.
pub(crate) const BOUND: Duration = Duration::from_secs(5);
/// Threads that work on paths at a time; only those that hang ever come to so many.
const THREADS: usize = 64;

/// Why a file is not read, though the system would. Found in the [`io::Error`] by [`io::Error::get_ref`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It is something else.
    #[error("it is {0}, not a regular file")]
    Kind(&'static str),
    /// It is too long.
    #[error("it is larger than {0} bytes")]
    Size(usize),
    /// It takes too long.
    #[error("it takes too long: it hangs, or its file system does")]
    Slow,
    /// It took too long before, and still does.
    #[error("an earlier look at it still hangs")]
    Hangs,
    /// Too much hangs.
    #[error("{THREADS} other files hang")]
    Crowded,
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal {
            Refusal::Kind(_) => ErrorKind::InvalidInput,
            Refusal::Size(_) => ErrorKind::FileTooLarge,
            Refusal::Slow | Refusal::Hangs | Refusal::Crowded => ErrorKind::TimedOut,
        };
        Self::new(kind, refusal)
    }
}

/// All of a regular file of at most `most` bytes.
///
/// # Errors
/// What the system said, or a [`Refusal`].
pub(crate) fn read(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let owned = path.to_owned();
    bounded(path, move || whole(&owned, most))
}

/// As [`read`], without blocking the thread.
///
/// # Errors
/// Likewise.
pub(crate) async fn read_async(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let owned = path.to_owned();
    bounded_async(path, move || whole(&owned, most)).await
}

/// The first `most` bytes of a regular file, for those who have words of their own for one that is too large.
///
/// # Errors
/// What the system said, or a [`Refusal`].
pub(crate) fn read_beginning(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let owned = path.to_owned();
    bounded(path, move || beginning(&owned, most))
}

/// As [`read_beginning`], without blocking the thread.
///
/// # Errors
/// Likewise.
pub(crate) async fn read_beginning_async(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let owned = path.to_owned();
    bounded_async(path, move || beginning(&owned, most)).await
}

/// Does `work`, which is about `path`, on a thread of its own, and waits for it at most [`BOUND`].
///
/// # Errors
/// Its own, or a [`Refusal`] if it takes too long.
pub(crate) fn bounded<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, result) = mpsc::sync_channel(1);
    let ticket = start(path, work, move |result| drop(done.send(result)))?;
    match result.recv_timeout(BOUND) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(ticket.hangs()),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(failed()),
    }
}

/// As [`bounded`], without blocking the thread.
///
/// # Errors
/// Likewise.
pub(crate) async fn bounded_async<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    bounded_async_for(path, BOUND, work).await
}

/// As [`bounded_async`], for work that may take so long: one on several files.
///
/// # Errors
/// Likewise.
pub(crate) async fn bounded_async_for<T: Send + 'static>(
    path: &Path,
    bound: Duration,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    let ticket = start(path, work, move |result| drop(done.send(result)))?;
    match tokio::time::timeout(bound, result).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(failed()),
        Err(_) => Err(ticket.hangs()),
    }
}

fn failed() -> io::Error {
    io::Error::other("the thread that looked at it failed")
}

fn whole(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let bytes = beginning(path, most.saturating_add(1))?;
    if bytes.len() > most {
        return Err(Refusal::Size(most).into());
    }
    Ok(bytes)
}

fn beginning(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    // Looked at before it is opened, since opening alone can do something to a device, and after it, since it may be
    // another one by then.
    regular(&std::fs::metadata(path)?)?;
    let file = OpenOptions::new()
        .read(true)
        // Close-on-exec is the standard library's own habit.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    regular(&file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn regular(found: &Metadata) -> Result<(), Refusal> {
    let kind = found.file_type();
    if kind.is_file() {
        return Ok(());
    }
    Err(Refusal::Kind(word(kind)))
}

fn word(kind: FileType) -> &'static str {
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

/// Work that is under way: its path, and whether it is given up.
static UNDER_WAY: LazyLock<Mutex<Work>> = LazyLock::new(Mutex::default);

#[derive(Debug, Default)]
struct Work {
    next: u64,
    paths: HashMap<u64, (PathBuf, bool)>,
}

fn under_way() -> MutexGuard<'static, Work> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The waiting side's hold on work.
#[derive(Debug)]
struct Ticket(u64);

impl Ticket {
    /// Remembers that the work hangs.
    fn hangs(&self) -> io::Error {
        if let Some((_, hangs)) = under_way().paths.get_mut(&self.0) {
            *hangs = true;
        }
        Refusal::Slow.into()
    }
}

/// Leaves the list when the thread ends, however it does.
struct Leave(u64);

impl Drop for Leave {
    fn drop(&mut self) {
        under_way().paths.remove(&self.0);
    }
}

fn start<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
    done: impl FnOnce(io::Result<T>) + Send + 'static,
) -> io::Result<Ticket> {
    let mut all = under_way();
    if all
        .paths
        .values()
        .any(|(other, hangs)| *hangs && other == path)
    {
        return Err(Refusal::Hangs.into());
    }
    if all.paths.len() >= THREADS {
        return Err(Refusal::Crowded.into());
    }
    let id = all.next;
    all.next += 1;
    all.paths.insert(id, (path.to_owned(), false));
    drop(all);
    let leave = Leave(id);
    std::thread::Builder::new()
        .name("file".to_owned())
        .spawn(move || {
            let result = work();
            drop(leave);
            done(result);
        })?;
    Ok(Ticket(id))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn refusal(result: io::Result<impl std::fmt::Debug>) -> Refusal {
        let error = result.unwrap_err();
        *error.get_ref().unwrap().downcast_ref().unwrap()
    }

    #[test]
    fn only_regular_files_are_read_and_only_as_far_as_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), 0o600.into()).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::fs::write(path("file"), "12345").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        for (path, said) in [
            (path("pipe"), "a pipe"),
            (path("socket"), "a socket"),
            (folder.path().into(), "a directory"),
            ("/dev/zero".into(), "a device"),
        ] {
            assert_eq!(refusal(read(&path, 9)), Refusal::Kind(said));
            assert_eq!(refusal(read_beginning(&path, 9)), Refusal::Kind(said));
        }
        assert_eq!(read(&path("link"), 5).unwrap(), b"12345");
        assert_eq!(refusal(read(&path("file"), 4)), Refusal::Size(4));
        assert_eq!(read_beginning(&path("file"), 4).unwrap(), b"1234");
        let absent = read(&path("none"), 4).unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn reading_does_not_need_the_thread_that_waits() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "12345").unwrap();
        assert_eq!(read_async(file.path(), 5).await.unwrap(), b"12345");
        assert_eq!(refusal(read_async(file.path(), 4).await), Refusal::Size(4));
        assert_eq!(read_beginning_async(file.path(), 2).await.unwrap(), b"12");
        let panicked = bounded_async(file.path(), || -> io::Result<()> { panic!("on purpose") });
        assert!(panicked.await.is_err());
        assert_eq!(read(file.path(), 5).unwrap(), b"12345");
    }

    #[tokio::test(start_paused = true)]
    async fn what_hangs_is_given_up_and_not_begun_again_while_it_does() {
        let path = Path::new("/hangs");
        let (release, hold) = mpsc::channel::<()>();
        let hanging = bounded_async(path, move || {
            let _ = hold.recv();
            Ok(())
        });
        assert_eq!(refusal(hanging.await), Refusal::Slow);
        let began = Instant::now();
        assert_eq!(refusal(bounded(path, || Ok(()))), Refusal::Hangs);
        assert!(began.elapsed() < BOUND);
        assert!(bounded(Path::new("/works"), || Ok(())).is_ok());
        drop(release);
        while bounded(path, || Ok(())).is_err() {
            std::thread::yield_now();
        }
    }
}
