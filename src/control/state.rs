//! The directory for what outlives the process.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::config::schema::Config;
use crate::files;

/// Where it is unless somebody says otherwise; only if it is there and can be written.
const USUAL: &str = "/var/lib/lbproxy";

/// The directory for state, if there is one: what `state_dir` says, else `usual` ([`usual_state_dir`]). Without one state
/// lies beside the configuration. It need not be there: whoever writes into it makes it.
pub(super) fn state_dir(config: &Config, usual: Option<&Path>) -> Option<PathBuf> {
    config
        .state_dir
        .clone()
        .or_else(|| usual.map(Path::to_owned))
}

/// Where state lies if the configuration does not say: systemd's `$STATE_DIRECTORY`, else `/var/lib/lbproxy` if it can be
/// written. Blocks, for at most [`files::BOUND`].
pub(super) fn usual_state_dir() -> Option<PathBuf> {
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
    let looked_at = directory.to_owned();
    let look = move || -> io::Result<bool> {
        access(&looked_at, Access::WRITE_OK | Access::EXEC_OK)?;
        Ok(looked_at.is_dir())
    };
    let usable = files::bounded(directory, look).unwrap_or(false);
    usable.then(|| directory.to_owned())
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
    fn the_file_wins_and_nothing_is_made() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a");
        let text = format!("state_dir = {directory:?}\n[[listener]]\naddress = ':0'\n");
        let mut config = crate::config::load::load(&text).config.unwrap();
        let usual = Path::new("/usual");
        assert_eq!(state_dir(&config, Some(usual)), Some(directory.clone()));
        assert!(!directory.exists());
        config.state_dir = None;
        assert_eq!(state_dir(&config, Some(usual)).as_deref(), Some(usual));
        assert_eq!(state_dir(&config, None), None);
    }
}
