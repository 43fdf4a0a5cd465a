//! Notices that a file may have changed or appeared.
//!
//! Editors rename, and Kubernetes swaps a `..data` symlink, so every directory on the path is watched: that of the file
//! and that of each symlink; for a pattern the directory of its files. An event is only a hint, several are merged into
//! one, and a slow poll catches what events miss. Whether the text has really changed is up to the reader.

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

/// Time between two polls.
const POLL: Duration = Duration::from_secs(2);
/// Time between two reads that must agree.
const SETTLE_PAUSE: Duration = Duration::from_millis(10);
/// How long a file may keep changing.
const SETTLE_BOUND: Duration = Duration::from_secs(10);
/// Files whose directories are watched. The others are polled only.
const MOST_FILES: usize = 2000;
/// Symlinks that are followed for one file.
const MOST_HOPS: usize = 16;

/// What is watched.
#[derive(Debug, Clone, Default)]
pub(crate) struct Targets {
    /// Files that may change.
    pub files: Vec<PathBuf>,
    /// Directories in which files may appear, each with the pattern that their names must match.
    pub folders: Vec<(PathBuf, Pattern)>,
}

/// Notifies `changed` whenever the file may have changed. Never returns.
pub(crate) async fn watch(path: PathBuf, changed: Arc<Notify>) {
    let targets = Targets {
        files: vec![path],
        folders: Vec::new(),
    };
    let (_sender, targets) = tokio::sync::watch::channel(targets);
    watch_all(targets, changed).await;
}

/// Notifies `changed` whenever one of the targets may have changed. The targets themselves may change. Never returns.
pub(crate) async fn watch_all(
    mut targets: tokio::sync::watch::Receiver<Targets>,
    changed: Arc<Notify>,
) {
    let mut watched = Hops::default();
    let mut watcher = None;
    let event = Arc::new(Notify::new());
    let mut followed = true;
    loop {
        // A path may cross a mount that hangs, so it is read on a thread that may hang with it.
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
                // What changed before it was watched is noticed in the next round.
            }
            () = tokio::time::sleep(POLL) => {}
        }
        changed.notify_one();
    }
}

/// A watcher of the hops; `None` if the system provides none, so that only the poll is left.
fn follow(hops: &Hops, event: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let event = Arc::clone(event);
    let (names, patterns) = (hops.names.clone(), hops.patterns.clone());
    let on_event = move |result: notify::Result<notify::Event>| {
        if result.map_or(true, |event| concerns(&event, &names, &patterns)) {
            event.notify_one();
        }
    };
    let mut watcher = notify::recommended_watcher(on_event)
        .inspect_err(|error| debug!(%error, "no file events; polling the configuration"))
        .ok()?;
    for directory in &hops.directories {
        if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
            debug!(directory = %directory.display(), %error, "cannot watch a directory");
        }
    }
    Some(watcher)
}

/// Whether an event may concern the files. Reads are events too, and are our own; other files of the directory, such as
/// a log, do not matter.
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

/// The paths to the files: the directories in which a change can affect them, and the names that matter there.
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
            // The directory itself may be reached through links.
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
                    // By its real name, so that a swapped link appears as another set of directories.
                    hops.directories
                        .insert(parent.canonicalize().unwrap_or_else(|_| parent.to_owned()));
                    hops.names
                        .extend(ancestor.file_name().map(ToOwned::to_owned));
                }
            }
        }
    }
}

/// Reads the file until two reads a moment apart agree: at most [`MAX_FILE`] bytes and one more, so that the loader can
/// report that it is too large.
///
/// # Errors
/// The error of the system, or that the file keeps changing or is too large.
pub(crate) async fn read_settled(path: &Path) -> io::Result<Vec<u8>> {
    let read = || files::read_beginning_async(path, MAX_FILE + 1);
    settled(read, Vec::eq).await
}

/// Reads until two reads a moment apart agree.
///
/// # Errors
/// The error of the system, or that the content keeps changing.
pub(crate) async fn settled<T, R: Future<Output = io::Result<T>>>(
    read: impl Fn() -> R,
    agree: impl Fn(&T, &T) -> bool,
) -> io::Result<T> {
    let until = Instant::now() + SETTLE_BOUND;
    let mut previous = read().await?;
    while Instant::now() < until {
        tokio::time::sleep(SETTLE_PAUSE).await;
        let now = read().await?;
        if agree(&now, &previous) {
            return Ok(now);
        }
        previous = now;
    }
    Err(io::Error::other("the file keeps changing"))
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
