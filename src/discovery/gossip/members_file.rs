//! The last good set on disk, for a start while no peer answers.
//!
//! It is JSON, without keys or tokens:
//! `{"version":1,"written":"…","tokens":true,"members":{"web":[{"address":"10.0.0.1:80","weight":1,"zone":"a"}]}}`. It
//! is written whole beside the old file and renamed over it, so that a reader sees one or the other; mode 0640. A set
//! that is not good (`Candidates::next_last_good`) is never written. The file is only a hint: if it is absent, damaged,
//! too large or of another version, the proxy starts without it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{info, warn};

use super::candidates::LastGood;
use super::{Candidate, MAX_CANDIDATES};
use crate::files;
use crate::gossip::record::{MAX_NAME, MAX_WEIGHT, MAX_WORD};

const VERSION: u32 = 1;
/// Largest file, bytes.
const MAX_FILE: usize = 16 << 20;
const MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;
/// Least time between two writes.
const PAUSE: Duration = Duration::from_secs(1);
/// Time from a failed write to the next try, unless another set is to be written.
const TRY_AGAIN: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
struct MembersDocument {
    version: u32,
    written: String,
    /// Whether tokens were required; absent if an earlier version wrote the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens: Option<bool>,
    members: std::collections::BTreeMap<String, Vec<StoredCandidate>>,
}

/// What every version of the file has.
#[derive(Deserialize)]
struct AnyVersion {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct StoredCandidate {
    address: SocketAddr,
    weight: u16,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    zone: String,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it has version {0}, but this program reads version {VERSION}")]
    Version(u32),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

/// Reads the set in the file at `path`, if there is one. A file that cannot be used is logged and counts as empty.
/// Blocks.
pub(crate) fn read(path: &Path) -> Option<LastGood> {
    match try_read(path) {
        Ok(members) => {
            let count: usize = members.values().map(Vec::len).sum();
            info!(path = %path.display(), count, "read the last known members");
            Some(members)
        }
        Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            warn!(path = %path.display(), %error, "ignoring the file of the last known members");
            Some(LastGood::new())
        }
    }
}

/// Whether the file holds members that were announced while no tokens were required. Blocks.
pub(crate) fn were_free(path: &Path) -> bool {
    let document = document(path).ok();
    document.is_some_and(|document| {
        document.tokens == Some(false) && document.members.values().any(|all| !all.is_empty())
    })
}

fn try_read(path: &Path) -> Result<LastGood, Unusable> {
    let document = document(path)?;
    Ok(document
        .members
        .into_iter()
        .filter(|(name, _)| name.len() <= MAX_NAME)
        .map(|(name, entries)| (name, entries.into_iter().filter_map(candidate).collect()))
        .map(|(name, mut entries): (String, Vec<Candidate>)| {
            entries.truncate(MAX_CANDIDATES);
            (name, entries)
        })
        .collect())
}

fn document(path: &Path) -> Result<MembersDocument, Unusable> {
    let text = files::read(path, MAX_FILE)?;
    let AnyVersion { version } = serde_json::from_slice(&text)?;
    if version != VERSION {
        return Err(Unusable::Version(version));
    }
    Ok(serde_json::from_slice(&text)?)
}

/// The candidate, if the peer set could have announced it.
fn candidate(stored: StoredCandidate) -> Option<Candidate> {
    let StoredCandidate {
        address,
        weight,
        zone,
    } = stored;
    let possible =
        weight <= MAX_WEIGHT && zone.len() <= MAX_WORD && !zone.chars().any(char::is_control);
    possible.then(|| Candidate {
        address: SocketAddr::new(address.ip().to_canonical(), address.port()),
        weight,
        zone,
        member: None,
        doubted: false,
    })
}

/// Writes `members` to `path`, whole or not at all, and creates its directory if necessary. Blocks.
fn write(path: &Path, members: &LastGood, tokens: bool, now: SystemTime) -> io::Result<()> {
    let stored = |candidate: &Candidate| StoredCandidate {
        address: candidate.address,
        weight: candidate.weight,
        zone: candidate.zone.clone(),
    };
    let document = MembersDocument {
        version: VERSION,
        written: humantime::format_rfc3339_seconds(now).to_string(),
        tokens: Some(tokens),
        members: members
            .iter()
            .map(|(name, all)| (name.clone(), all.iter().map(stored).collect()))
            .collect(),
    };
    let text = serde_json::to_vec(&document).map_err(io::Error::other)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)?;
    let temporary = directory.join(temporary);
    // A crash may have left one behind. A new file does not follow a link that somebody has planted.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let put = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    };
    put().inspect_err(|_| {
        // Whatever remains is removed by the next write at the latest.
        let _ = fs::remove_file(&temporary);
    })
}

/// The path, the set to store there, and whether tokens are required.
pub(crate) type Wanted = Option<(PathBuf, LastGood, bool)>;

/// Writes the newest set of `wanted` to disk, at most once a second, until its sender is gone. A write that fails or
/// takes too long is logged once and tried again.
pub(crate) async fn keep(mut wanted: watch::Receiver<Wanted>) {
    let mut failing = false;
    while is_due(&mut wanted, failing).await {
        let next = wanted.borrow_and_update().clone();
        let Some((path, members, tokens)) = next else {
            continue;
        };
        let place = path.clone();
        let work = move || write(&place, &members, tokens, SystemTime::now());
        let written = files::bounded_async(&path, work).await;
        if let Err(error) = &written
            && !failing
        {
            warn!(path = %path.display(), %error, "cannot write the last known members; a start without peers will not know them");
        }
        failing = written.is_err();
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits for another set, or for the next try; false if there will not be any.
async fn is_due(wanted: &mut watch::Receiver<Wanted>, failing: bool) -> bool {
    match failing {
        true => {
            let changed = tokio::time::timeout(TRY_AGAIN, wanted.changed()).await;
            !matches!(changed, Ok(Err(_)))
        }
        false => wanted.changed().await.is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::telemetry::capture::LogCapture;

    fn member(address: &str, weight: u16, zone: &str) -> Candidate {
        Candidate {
            address: address.parse().unwrap(),
            weight,
            zone: zone.to_owned(),
            member: None,
            doubted: false,
        }
    }

    fn some() -> LastGood {
        LastGood::from([
            (
                "web".to_owned(),
                vec![
                    member("10.0.0.1:80", 3, "a"),
                    member("[2001:db8::1]:80", 0, ""),
                ],
            ),
            ("api".to_owned(), vec![]),
        ])
    }

    #[test]
    fn what_is_written_is_read() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("lb.members.json");
        assert_eq!(read(&path), None, "absent");
        write(&path, &LastGood::new(), true, SystemTime::UNIX_EPOCH).unwrap();
        let planted = root.path().join(".lb.members.json.new");
        std::os::unix::fs::symlink("/dev/full", planted).unwrap();
        write(&path, &some(), true, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(read(&path), Some(some()));
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.contains(r#""version":1,"written":"1970-01-01T00:00:00Z","tokens":true"#),
            "{text}"
        );
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & !MODE, 0, "{mode:o}");
        assert_eq!(mode & 0o600, 0o600, "{mode:o}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn whether_tokens_were_asked_for_is_known_of_a_file_with_members() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("m.json");
        assert!(!were_free(&path), "absent");
        for (members, tokens, free) in [
            (some(), false, true),
            (some(), true, false),
            (LastGood::new(), false, false),
        ] {
            write(&path, &members, tokens, SystemTime::UNIX_EPOCH).unwrap();
            assert_eq!(were_free(&path), free, "{tokens}");
        }
        let before = r#"{"version":1,"written":"","members":{"web":[{"address":"10.0.0.1:80","weight":1}]}}"#;
        fs::write(&path, before).unwrap();
        assert!(!were_free(&path), "nobody knows");
        assert_eq!(read(&path).unwrap()["web"].len(), 1);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_one() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("m.json");
        // A directory cannot be replaced by a file.
        fs::create_dir(&path).unwrap();
        assert!(write(&path, &some(), true, SystemTime::UNIX_EPOCH).is_err());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        assert!(write(Path::new("/"), &some(), true, SystemTime::UNIX_EPOCH).is_err());
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let under = file.join("m.json");
        assert!(write(&under, &some(), true, SystemTime::UNIX_EPOCH).is_err());
    }

    #[test]
    fn an_unusable_file_is_logged_and_ignored() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("m.json");
        let lines = LogCapture::begin();
        let texts: [(&[u8], &str); 7] = [
            (b"", "EOF"),
            (b"\x00\xff\xfe", "expected value"),
            (b"[]", "m.json"),
            (br#"{"version":2,"stuff":[]}"#, "version 2"),
            (
                br#"{"version":1,"written":"","members":{"web":[{"address":"nowhere","weight":1}]}}"#,
                "socket address",
            ),
            (
                br#"{"version":1,"written":"","members":{"web":[{"address":"10.0.0.1:80","weight":-1}]}}"#,
                "-1",
            ),
            (&[b'['; 100_000], "m.json"),
        ];
        for (i, (text, said)) in texts.into_iter().enumerate() {
            fs::write(&path, text).unwrap();
            assert_eq!(read(&path), Some(LastGood::new()), "{i}");
            assert_eq!(lines.count("ignoring the file"), i + 1);
            assert!(lines.count(said) > 0, "{i}: {said}");
        }
        File::create(&path)
            .unwrap()
            .set_len(MAX_FILE as u64 + 1)
            .unwrap();
        assert_eq!(read(&path), Some(LastGood::new()));
        assert_eq!(lines.count("larger than 16777216 bytes"), 1);
        assert_eq!(read(root.path()), Some(LastGood::new()));
        assert_eq!(lines.count("not a regular file"), 1);
    }

    #[test]
    fn what_no_peer_could_have_announced_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("m.json");
        let text = r#"{"version":1,"written":"x","more":1,"members":{"web":[
            {"address":"10.0.0.1:80","weight":1001},
            {"address":"10.0.0.2:80","weight":1,"zone":"a\u0000b"},
            {"address":"10.0.0.3:80","weight":1,"zone":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
            {"address":"[::ffff:10.0.0.4]:80","weight":1}]}}"#;
        fs::write(&path, text).unwrap();
        assert_eq!(read(&path).unwrap()["web"], [member("10.0.0.4:80", 1, "")]);
    }

    #[tokio::test]
    async fn the_newest_set_is_written_at_most_once_a_second() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("m.json");
        let (sender, receiver) = watch::channel(None);
        let task = tokio::spawn(keep(receiver));
        let began = std::time::Instant::now();
        for weight in 1..=50 {
            let set = LastGood::from([("web".to_owned(), vec![member("10.0.0.1:80", weight, "")])]);
            sender.send_replace(Some((path.clone(), set, true)));
            tokio::task::yield_now().await;
        }
        drop(sender);
        task.await.unwrap();
        assert_eq!(read(&path).unwrap()["web"][0].weight, 50);
        assert!(
            began.elapsed() >= PAUSE,
            "a pause after each write, and the last is written too"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_hangs_is_given_up_and_tried_again() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state/m.json");
        let (release, hold) = std::sync::mpsc::channel::<()>();
        let hanging = files::bounded_async(&path, move || {
            let _ = hold.recv();
            Ok(())
        });
        assert!(hanging.await.is_err());
        let (sender, receiver) = watch::channel(None);
        let task = tokio::spawn(keep(receiver));
        sender.send_replace(Some((path.clone(), some(), true)));
        tokio::time::sleep(TRY_AGAIN).await;
        assert!(!path.exists());
        drop(release);
        // Its directory is created too.
        while read(&path) != Some(some()) {
            tokio::time::sleep(TRY_AGAIN).await;
        }
        drop(sender);
        task.await.unwrap();
    }
}
