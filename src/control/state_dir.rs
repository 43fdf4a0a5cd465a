//! Where state that outlives the process is kept: its directory, and the file of the last known members in it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::config::schema::{Config, GossipConfig};
use crate::files;

/// The directory if nothing says otherwise; used only if it exists and can be written.
const USUAL: &str = "/var/lib/lbproxy";

/// The directory for state, if there is one: what `state_dir` says, otherwise `usual` ([`usual_state_dir`]). Without
/// one, state lies beside the configuration. It need not exist: it is made when something is written into it.
fn state_dir(config: &Config, usual: Option<&Path>) -> Option<PathBuf> {
    let configured = config.state_dir.clone();
    configured.or_else(|| usual.map(Path::to_owned))
}

/// Where state lies if the configuration does not say: systemd's `$STATE_DIRECTORY`, otherwise `/var/lib/lbproxy` if it
/// can be written. Blocks for at most [`files::BOUND`].
pub(super) fn usual_state_dir() -> Option<PathBuf> {
    let given = std::env::var_os("STATE_DIRECTORY");
    first_of_systemd(given.as_deref()).or_else(|| usable(Path::new(USUAL)))
}

/// Where the last good set of members is kept, and then where an earlier version or configuration may have left it:
/// where `members_file` says, relative to the directory of the configuration; otherwise in the directory for state
/// (`usual` if the configuration does not say), otherwise beside the configuration at `path`. Looks at no file: control
/// calls it, and a file system that hangs would end all reloads.
pub(super) fn members_paths(
    path: &Path,
    config: &Config,
    gossip: &GossipConfig,
    usual: Option<&Path>,
) -> Vec<PathBuf> {
    if let Some(file) = &gossip.members_file {
        return vec![path.parent().unwrap_or(Path::new("")).join(file)];
    }
    let beside = path.with_extension("members.json");
    let kept = state_dir(config, usual).zip(beside.file_name());
    let kept = kept.map(|(directory, name)| directory.join(name));
    kept.into_iter().chain([beside]).collect()
}

/// The first directory of the list that systemd gives (systemd.exec(5)).
fn first_of_systemd(given: Option<&OsStr>) -> Option<PathBuf> {
    let first = given?.as_bytes().split(|byte| *byte == b':').next()?;
    let first = Path::new(OsStr::from_bytes(first));
    first.is_absolute().then(|| first.to_owned())
}

/// The directory, if files can be made in it.
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
    fn the_first_first_of_systemd() {
        for (given, first) in [
            (None, None),
            (Some(""), None),
            (Some("/var/lib/a"), Some("/var/lib/a")),
            (Some("/var/lib/a:/var/lib/b"), Some("/var/lib/a")),
            (Some("a:/b"), None),
        ] {
            assert_eq!(
                first_of_systemd(given.map(OsStr::new)),
                first.map(PathBuf::from)
            );
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

    #[test]
    fn the_last_good_set_lies_in_the_directory_for_state_or_beside_the_configuration() {
        let text = "gossip = { address = '127.0.0.1:7946', key_file = 'k', allow_cidrs = ['10.0.0.0/8'] }\n\
                    [[listener]]\naddress = ':0'\n";
        let mut config = crate::config::load::load(text).config.unwrap();
        let mut paths = |state_dir: Option<&str>, members_file: Option<&str>| {
            config.state_dir = state_dir.map(PathBuf::from);
            let mut gossip = config.gossip.clone().unwrap();
            gossip.members_file = members_file.map(PathBuf::from);
            let usual = Some(Path::new("/usual"));
            members_paths(Path::new("/etc/lb/lb.toml"), &config, &gossip, usual)
        };
        let beside = PathBuf::from("/etc/lb/lb.members.json");
        let state = PathBuf::from("/state/lb.members.json");
        assert_eq!(paths(Some("/state"), None), [state, beside.clone()]);
        let usual = PathBuf::from("/usual/lb.members.json");
        assert_eq!(paths(None, None), [usual, beside]);
        let given = PathBuf::from("/etc/lb/m.json");
        assert_eq!(paths(Some("/state"), Some("m.json")), [given]);
    }
}
