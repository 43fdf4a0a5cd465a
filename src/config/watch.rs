//! Notices that a file may have changed, or that one may have appeared.
//!
//! Editors rename, and Kubernetes swaps a `..data` symlink, so what is watched is every directory on the way: the
//! file's own, and that of each symlink hop; of a pattern the directory in which its files lie. An event is only a hint, several are one, and a slow poll is the net
//! under them; whether the text is another one is for the reader to see.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use glob::Pattern;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::debug;

use super::limits::MAX_FILE;
use crate::files;

/// Between two looks that no event asked for.
const POLL: Duration = Duration::from_secs(2);
/// Between two reads that must agree.
const MOMENT: Duration = Duration::from_millis(10);
/// How long a file may take to come to rest.
const REST: Duration = Duration::from_secs(10);
/// Files whose ways are watched; the look that comes now and then is for the rest.
const MOST_FILES: usize = 2000;
/// Symlinks that are followed.
const MOST_HOPS: usize = 16;

/// What is watched.
#[derive(Debug, Clone, Default)]
pub(crate) struct Targets {
    /// Files.
    pub files: Vec<PathBuf>,
    /// Directories in which files may appear, each with the pattern that their names match.
    pub folders: Vec<(PathBuf, Pattern)>,
}

/// Notifies `changed` whenever the file may have changed, for ever.
pub(crate) async fn watch(path: PathBuf, changed: Arc<Notify>) {
    let targets = Targets {
        files: vec![path],
        folders: Vec::new(),
    };
    let (_sender, targets) = tokio::sync::watch::channel(targets);
    watch_all(targets, changed).await;
}

/// Notifies `changed` whenever one of the targets may have changed, for ever. The targets may become others.
pub(crate) async fn watch_all(
    mut targets: tokio::sync::watch::Receiver<Targets>,
    changed: Arc<Notify>,
) {
    let mut watched = Hops::default();
    let mut watcher = None;
    let event = Arc::new(Notify::new());
    let mut followed = true;
    loop {
        // A path may lead over a mount that hangs: looked at on a thread that may hang with it.
        let now = targets.borrow_and_update().clone();
        let first = now.files.first().cloned().unwrap_or_default();
        let (known, signal) = (watched.clone(), Arc::clone(&event));
        let watches = watcher.is_some();
        let look = move || {
            let hops = Hops::of(&now);
            let changed = !watches || hops != known;
            Ok(changed.then(|| (follow(&hops, &signal), hops)))
        };
        if let Ok(Some(next)) = files::bounded_async(&first, look).await {
            (watcher, watched) = next;
        }
        tokio::select! {
            () = event.notified() => {}
            result = targets.changed(), if followed => {
                followed = result.is_ok();
                // What changed before it was watched shows in the look that comes next.
            }
            () = tokio::time::sleep(POLL) => {}
        }
        changed.notify_one();
    }
}

/// A watcher of the hops; `None` if the system gives none, and then the poll must do.
fn follow(hops: &Hops, event: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let event = Arc::clone(event);
    let (names, patterns) = (hops.names.clone(), hops.patterns.clone());
    let on_event = move |result: notify::Result<notify::Event>| {
        if result.map_or(true, |event| concerns(&event, &names, &patterns)) {
            event.notify_one();
        }
    };
    let mut watcher = notify::recommended_watcher(on_event)
        .inspect_err(|error| debug!(%error, "no file events; the configuration is polled"))
        .ok()?;
    for directory in &hops.directories {
        if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
            debug!(directory = %directory.display(), %error, "a directory is not watched");
        }
    }
    Some(watcher)
}

/// Whether an event may be one of the file. A read is an event too, and it is we who read; what else lies in the
/// directory (a log, say) is none of ours.
fn concerns(
    event: &notify::Event,
    names: &BTreeSet<OsString>,
    patterns: &BTreeSet<Pattern>,
) -> bool {
    let matches = |name: &OsStr| {
        let text = name.to_str();
        text.is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(name)))
    };
    let is_known = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| names.contains(name) || matches(name))
    };
    !event.kind.is_access() && (event.paths.is_empty() || event.paths.iter().any(is_known))
}

/// The ways to the files: the directories in which a change can change them, and the names that count there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Hops {
    directories: BTreeSet<PathBuf>,
    names: BTreeSet<OsString>,
    patterns: BTreeSet<Pattern>,
}

impl Hops {
    fn of(targets: &Targets) -> Self {
        let mut hops = Self::default();
        for path in targets.files.iter().take(MOST_FILES) {
            hops.add(path);
        }
        for (folder, pattern) in targets.folders.iter().take(MOST_FILES) {
            // The folder may be reached through links itself.
            hops.add(folder);
            let real = folder.canonicalize().unwrap_or_else(|_| folder.clone());
            hops.directories.insert(real);
            hops.patterns.insert(pattern.clone());
        }
        hops
    }

    fn add(&mut self, path: &Path) {
        let hops = self;
        let mut waiting = vec![std::path::absolute(path).unwrap_or_else(|_| path.to_owned())];
        for _ in 0..MOST_HOPS {
            let Some(path) = waiting.pop() else { break };
            for ancestor in path.ancestors() {
                let Some(parent) = ancestor.parent() else {
                    break;
                };
                let is_link = ancestor.is_symlink();
                if is_link && let Ok(target) = std::fs::read_link(ancestor) {
                    waiting.push(parent.join(target));
                }
                if is_link || ancestor == path {
                    // By its real name, so that a swapped link shows as another set of directories.
                    hops.directories
                        .insert(parent.canonicalize().unwrap_or_else(|_| parent.to_owned()));
                    hops.names
                        .extend(ancestor.file_name().map(ToOwned::to_owned));
                }
            }
        }
    }
}

/// Reads the file until two reads a moment apart agree.
///
/// # Errors
/// What the system said, or that the file does not come to rest or is too large.
pub(crate) async fn read_settled(path: &Path) -> io::Result<Vec<u8>> {
    settled(|| read(path), Vec::eq).await
}

/// Reads until two reads a moment apart agree.
///
/// # Errors
/// What the system said, or that what is read does not come to rest.
pub(crate) async fn settled<T, R: Future<Output = io::Result<T>>>(
    read: impl Fn() -> R,
    agree: impl Fn(&T, &T) -> bool,
) -> io::Result<T> {
    let until = Instant::now() + REST;
    let mut before = read().await?;
    while Instant::now() < until {
        tokio::time::sleep(MOMENT).await;
        let now = read().await?;
        if agree(&now, &before) {
            return Ok(now);
        }
        before = now;
    }
    Err(io::Error::other("the file goes on changing"))
}

async fn read(path: &Path) -> io::Result<Vec<u8>> {
    files::read_beginning_async(path, MAX_FILE + 1).await
}

/// Reads the file once, at most [`MAX_FILE`] and one more, so that the loader can say that it is too large. Blocks, but
/// not for long ([`files`]).
///
/// # Errors
/// What the system said, or that it is not a regular file or hangs.
pub(crate) fn read_now(path: &Path) -> io::Result<Vec<u8>> {
    files::read_beginning(path, MAX_FILE + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hops_to(path: PathBuf) -> Hops {
        Hops::of(&Targets {
            files: vec![path],
            folders: Vec::new(),
        })
    }

    #[test]
    fn every_hop_is_watched() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("v1")).unwrap();
        std::fs::write(root.join("v1/lb.toml"), "").unwrap();
        std::os::unix::fs::symlink("v1", root.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/lb.toml", root.join("lb.toml")).unwrap();
        let Hops {
            directories, names, ..
        } = hops_to(root.join("lb.toml"));
        assert!(
            names.contains(OsStr::new("..data")) && names.contains(OsStr::new("lb.toml")),
            "{names:?}"
        );
        assert!(
            directories.contains(&root) && directories.contains(&root.join("v1")),
            "{directories:?}"
        );
    }

    #[tokio::test]
    async fn a_rename_over_the_file_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("lb.toml");
        std::fs::write(&path, "a").unwrap();
        let changed = Arc::new(Notify::new());
        let watching = tokio::spawn(watch(path.clone(), Arc::clone(&changed)));
        std::fs::write(root.path().join("new"), "b").unwrap();
        std::fs::rename(root.path().join("new"), &path).unwrap();
        changed.notified().await;
        assert_eq!(read_settled(&path).await.unwrap(), b"b");
        watching.abort();
    }
}
