//! The files with keys and tokens that a configuration names: read at a start, at a reload and by `check`, so that what
//! is wrong with them is reported at its place in the text.

use std::io;
use std::path::{Path, PathBuf};

use super::state_dir::{members_paths, usual_state_dir};
use crate::config::load::Loaded;
use crate::config::schema::{AgentConfig, Config};
use crate::config::secrets::{Remark, SecretFile, SecretKind};
use crate::discovery::gossip::members_file;
use crate::discovery::gossip::secrets::{self, SecretError};

/// What it means that a file with a secret does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// The proxy cannot start.
    Error,
    /// A configuration may be checked on a machine that does not have the secrets.
    Warning,
}

/// A configuration that may say where the last known members are kept.
pub(crate) trait NamesMembersFiles {
    /// Where they are kept, and where they may lie from before; `path` is that of the configuration. Looks at
    /// directories (blocking).
    fn members_files(&self, path: &Path) -> Vec<PathBuf>;
}

impl NamesMembersFiles for Config {
    fn members_files(&self, path: &Path) -> Vec<PathBuf> {
        let Some(gossip) = &self.gossip else {
            return Vec::new();
        };
        members_paths(path, self, gossip, usual_state_dir().as_deref())
    }
}

impl NamesMembersFiles for AgentConfig {
    fn members_files(&self, _: &Path) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// Reads the files with secrets that the configuration at `path` names (blocking), and adds what is wrong with them to
/// `loaded`.
pub(crate) fn check_secrets<T: NamesMembersFiles>(
    path: &Path,
    loaded: Loaded<T>,
    absent: Absent,
) -> Loaded<T> {
    let directory = path.parent().unwrap_or(Path::new(""));
    // For `check`, before a reload; the reload itself need not ask.
    let config = loaded.config.as_ref().filter(|_| absent == Absent::Warning);
    let members = config.map_or_else(Vec::new, |config| config.members_files(path));
    loaded.look_at_secrets(|SecretFile { kind, path, .. }| {
        let file = directory.join(path);
        let read = match kind {
            SecretKind::Key => secrets::key(&file).map(drop),
            SecretKind::Operator => secrets::operator(&file).map(drop),
            SecretKind::Token => secrets::credential(&file).map(drop),
        };
        match read {
            Err(error) if absent == Absent::Warning && is_absent(&error) => {
                return Ok(vec![Remark {
                    message: error.to_string(),
                    label: kind.expected(),
                    help: "startup and reload will fail without it".to_owned(),
                }]);
            }
            read => read.map_err(|error| error.to_string())?,
        }
        let exposed = secrets::exposed(&file, *kind == SecretKind::Operator);
        let exposed = exposed.map(|exposed| Remark {
            message: exposed.what,
            label: kind.expected(),
            help: exposed.remedy,
        });
        let asks_for_tokens = *kind == SecretKind::Operator;
        let mut members = members.iter().filter(|_| asks_for_tokens);
        let first = members.find_map(|file| asks_for_tokens_first(file));
        Ok(exposed.into_iter().chain(first).collect())
    })
}

/// Whether tokens are asked for now but were not when the last known members were written: a cluster may lose all of
/// its members.
fn asks_for_tokens_first(members: &Path) -> Option<Remark> {
    members_file::were_free(members).then(|| Remark {
        message: format!(
            "the members in {} were announced to a proxy that asked for no token",
            members.display()
        ),
        label: "after the reload, agents without a token are refused and their backends are removed",
        help: "give every agent its token first, then set `token_key` on one proxy and check \
               `lbproxy members`, then on the others"
            .to_owned(),
    })
}

fn is_absent(error: &SecretError) -> bool {
    matches!(error, SecretError::Read { error, .. } if error.kind() == io::ErrorKind::NotFound)
}
