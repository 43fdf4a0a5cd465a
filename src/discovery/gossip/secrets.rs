//! Reads files that hold a key or a token, within bounds.
//!
//! A key may be given by mistake in place of the path of its file, and an error that repeated it would put it into a
//! log. So no error here shows a path that looks like a key, and none shows what a file holds.

use std::fmt;
use std::fs::metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::files;
use crate::gossip::keyring::{Keyring, SecretKey};
use crate::gossip::text::holds_secret;
use crate::gossip::token::{AgentCredential, OperatorPublic};

/// Largest file that is read, bytes; much larger than any key or token.
const MAX_FILE: usize = 4096;

/// Why a file with a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// It cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The path, as it may be shown.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// It holds something else.
    #[error("{path}: {error}")]
    Content {
        /// The path, as it may be shown.
        path: String,
        /// Why, without showing what it holds.
        error: String,
    },
}

/// Reads the text of a file. Blocks.
///
/// # Errors
/// It cannot be read, is not a regular file or not text, hangs, or is much too large.
pub(crate) fn read(path: &Path) -> Result<String, SecretError> {
    let bytes = files::read(path, MAX_FILE).map_err(|error| SecretError::Read {
        path: shown(path),
        error,
    })?;
    String::from_utf8(bytes).map_err(|_| SecretError::Content {
        path: shown(path),
        error: "it is not text".to_owned(),
    })
}

/// Reads the ring of these key files.
///
/// # Errors
/// The first file that does not hold a key.
pub(crate) fn keyring(
    files: &[PathBuf],
    label: &str,
    accept_plaintext: bool,
) -> Result<Keyring, SecretError> {
    let keys = files
        .iter()
        .map(|path| key(path))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Keyring::new(&keys, label, accept_plaintext))
}

/// Reads the key in a file.
///
/// # Errors
/// The file does not hold a key.
pub(crate) fn key(file: &Path) -> Result<SecretKey, SecretError> {
    parsed(file, SecretKey::parse)
}

/// Reads an operator's public key.
///
/// # Errors
/// The file does not hold one.
pub(crate) fn operator(file: &Path) -> Result<OperatorPublic, SecretError> {
    parsed(file, OperatorPublic::parse)
}

/// Reads the token that an agent signs with.
///
/// # Errors
/// The file does not hold one.
pub(crate) fn credential(file: &Path) -> Result<AgentCredential, SecretError> {
    parsed(file, AgentCredential::parse)
}

fn parsed<T, E: ToString>(
    path: &Path,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<T, SecretError> {
    parse(&read(path)?).map_err(|error| SecretError::Content {
        path: shown(path),
        error: error.to_string(),
    })
}

/// A file that users other than its intended ones can read or change. This is only worth a warning: systems that mount
/// secrets, such as Kubernetes, often give them mode 0644 where there are no other users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exposed {
    /// Who can do what.
    pub what: String,
    /// How to fix it.
    pub remedy: String,
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

/// Checks whether a file is exposed; anybody may read a `public` one.
pub(crate) fn exposed(path: &Path, public: bool) -> Option<Exposed> {
    let looked_at = path.to_owned();
    let found = files::bounded(path, move || metadata(looked_at)).ok()?;
    let mode = found.mode() & 0o7777;
    let what = exposes(mode, public)?;
    let path = shown(path);
    Some(Exposed {
        what: format!("{path} has mode {mode:04o}, so {what}"),
        remedy: match public {
            true => format!("chmod 644 {path}"),
            false => format!("chmod 600 {path}, or 640 with a group that may read it"),
        },
    })
}

/// What a mode lets other users do. A group that may read is assumed to be made for that.
fn exposes(mode: u32, public: bool) -> Option<&'static str> {
    match (mode & 0o004 != 0 && !public, mode & 0o022 != 0) {
        (false, false) => None,
        (true, false) => Some("everybody on this machine can read it"),
        (false, true) => Some("users other than its owner can change it"),
        (true, true) => Some(
            "everybody on this machine can read it, and users other than its owner can change it",
        ),
    }
}

/// The path, as an error may show it.
pub(crate) fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    if holds_secret(&text) {
        return "that file (a key or token was given, not the path of its file)".to_owned();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        const READ: Option<&str> = Some("everybody on this machine can read it");
        const CHANGE: Option<&str> = Some("users other than its owner can change it");
        for (mode, private, public) in [
            (0o600, None, None),
            (0o400, None, None),
            (0o640, None, None),
            (0o440, None, None),
            (0o750, None, None),
            (0o644, READ, None),
            (0o604, READ, None),
            (0o620, CHANGE, CHANGE),
            (0o660, CHANGE, CHANGE),
            (0o602, CHANGE, CHANGE),
        ] {
            assert_eq!(exposes(mode, false), private, "{mode:o}");
            assert_eq!(exposes(mode, true), public, "{mode:o}");
        }
        assert_eq!(exposes(0o664, true), CHANGE);
        let both = exposes(0o666, false).unwrap();
        assert!(both.contains(READ.unwrap()) && both.contains(CHANGE.unwrap()));
    }

    #[test]
    fn only_regular_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), 0o600.into()).unwrap();
        std::fs::write(path("large"), vec![b'x'; 5000]).unwrap();
        std::fs::write(path("key"), "text").unwrap();
        std::fs::write(path("binary"), [0xff]).unwrap();
        std::os::unix::fs::symlink(path("key"), path("link")).unwrap();
        assert_eq!(read(&path("link")).unwrap(), "text");
        for (path, said) in [
            (path("pipe"), "pipe: it is a pipe, not a regular file"),
            (
                "/dev/zero".into(),
                "/dev/zero: it is a device, not a regular file",
            ),
            (
                "/dev/null".into(),
                "/dev/null: it is a device, not a regular file",
            ),
            (
                folder.path().into(),
                ": it is a directory, not a regular file",
            ),
            (path("large"), "large: it is larger than 4096 bytes"),
            (path("binary"), "binary: it is not text"),
            (path("none"), "No such file"),
        ] {
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
