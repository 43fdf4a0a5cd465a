//! The directory for what outlives the process.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::config::schema::Config;

/// Where it is unless somebody says otherwise; only if it is there and can be written.
const USUAL: &str = "/var/lib/lbproxy";
const MODE: u32 = 0o750;

/// The directory for state, if there is one: what `state_dir` says (it is made if it is not there), else systemd's
/// `$STATE_DIRECTORY`, else `/var/lib/lbproxy` if it can be written. Without one state lies beside the configuration.
pub fn state_dir(config: &Config) -> Option<PathBuf> {
    if let Some(directory) = &config.state_dir {
        // If that fails, so does the write, which says so.
        let _ = DirBuilder::new()
            .recursive(true)
            .mode(MODE)
            .create(directory);
        return Some(directory.clone());
    }
    let given = std::env::var_os("STATE_DIRECTORY");
    of_systemd(given.as_deref()).or_else(|| usable(Path::new(USUAL)))
}

/// The first of its list (systemd.exec(5)).
fn of_systemd(given: Option<&OsStr>) -> Option<PathBuf> {
    let first = given?.as_bytes().split(|byte| *byte == b':').next()?;
    let first = Path::new(OsStr::from_bytes(first));
    first.is_absolute().then(|| first.to_owned())
}

fn usable(directory: &Path) -> Option<PathBuf> {
    let writable = access(directory, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    (writable && directory.is_dir()).then(|| directory.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_systemd() {
        for (given, first) in [
            (None, None),
            (Some(""), None),
            (Some("/var/lib/a"), Some("/var/lib/a")),
            (Some("/var/lib/a:/var/lib/b"), Some("/var/lib/a")),
            (Some("a:/b"), None),
        ] {
            assert_eq!(of_systemd(given.map(OsStr::new)), first.map(PathBuf::from));
        }
    }

    #[test]
    fn only_a_directory_is_usable() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(usable(root.path()), Some(root.path().to_owned()));
        assert_eq!(
            (usable(&file), usable(&root.path().join("none"))),
            (None, None)
        );
    }

    #[test]
    fn what_the_file_says_is_made() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a/b");
        let text = format!("state_dir = {directory:?}\n[[listener]]\naddress = ':0'\n");
        let config = crate::config::load::load(&text).config.unwrap();
        assert_eq!(state_dir(&config), Some(directory.clone()));
        assert!(directory.is_dir());
    }
}
