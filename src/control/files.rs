//! The texts of a configuration to what they mean, or to the words that say why not. A start, a reload and `check` take
//! them this way.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::peers::members_paths;
use super::state::usual_state_dir;
use crate::config::diagnostics::{Diagnostic, render_set};
use crate::config::environment::Environment;
use crate::config::load::{Loaded, load_sources};
use crate::config::schema::{AgentConfig, Config};
use crate::config::secrets::{Remark, SecretFile, SecretKind};
use crate::config::sources::{Sources, Unreadable};
use crate::config::watch::{Targets, settled};
use crate::discovery::gossip::members_file;
use crate::discovery::gossip::secrets::{self, SecretError};
use crate::files as paths;
use crate::gossip::text::redacted;

/// How long all texts of a configuration may take to be read once.
const READ: Duration = Duration::from_secs(10);

/// All errors and warnings of a file, as they are shown.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct FileError(pub String);

/// A configuration that may say where the last known members are kept.
pub(crate) trait KnowsMembers {
    /// Where, and where they may lie from before; `path` is that of the configuration. Looks at directories (blocking).
    fn members_files(&self, path: &Path) -> Vec<PathBuf>;
}

impl KnowsMembers for Config {
    fn members_files(&self, path: &Path) -> Vec<PathBuf> {
        let Some(gossip) = &self.gossip else {
            return Vec::new();
        };
        members_paths(path, self, gossip, usual_state_dir().as_deref())
    }
}

impl KnowsMembers for AgentConfig {
    fn members_files(&self, _: &Path) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// Whether tokens are asked for, and were not when the members were written: a cluster may lose all of them.
fn asks_for_tokens_first(members: &Path) -> Option<Remark> {
    members_file::were_free(members).then(|| Remark {
        message: format!(
            "the members in {} were announced to a proxy that asked for no token",
            members.display()
        ),
        label: "agents that have none yet are refused from the reload on, and their backends go",
        help: "give every agent its token first, then set `token_key` on one proxy and look at \
               `lbproxy members`, then on the others"
            .to_owned(),
    })
}

/// What it means that a file with a secret is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Nothing can start.
    Error,
    /// Configurations are checked where secrets are not, too.
    Warning,
}

/// `loaded`, which the configuration at `path` gave, and what is wrong with the files with secrets that it names: reads
/// them (blocking).
pub(crate) fn look_at_secrets<T: KnowsMembers>(
    path: &Path,
    loaded: Loaded<T>,
    absent: Absent,
) -> Loaded<T> {
    let directory = path.parent().unwrap_or(Path::new(""));
    // Asked where a reload may be near: not by the reload itself.
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
                let remedy = "without it a start or a reload is an error".to_owned();
                return Ok(vec![Remark {
                    message: error.to_string(),
                    label: kind.expected(),
                    help: remedy,
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
        let asks = *kind == SecretKind::Operator;
        let mut members = members.iter().filter(|_| asks);
        let first = members.find_map(|file| asks_for_tokens_first(file));
        Ok(exposed.into_iter().chain(first).collect())
    })
}

fn is_absent(error: &SecretError) -> bool {
    matches!(error, SecretError::Read { error, .. } if error.kind() == io::ErrorKind::NotFound)
}

/// This machine: the environment of the process, and its files.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    /// What the files were before they were read.
    seen: RefCell<Vec<(PathBuf, Option<Fingerprint>)>>,
}

impl Environment for Machine {
    fn variable(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn content(&self, path: &Path, most: usize) -> Result<Vec<u8>, String> {
        let seen = Fingerprint::of(path).ok();
        self.seen.borrow_mut().push((path.to_owned(), seen));
        let content = paths::read_beginning(path, most.saturating_add(1))
            .map_err(|error| error.to_string())?;
        match content.len() > most {
            true => Err(format!("it has more than {most} bytes")),
            false => Ok(content),
        }
    }
}

/// What tells whether a file is the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint([i64; 7]);

impl Fingerprint {
    fn of(path: &Path) -> io::Result<Self> {
        let looked_at = path.to_owned();
        let file = paths::bounded(path, move || std::fs::metadata(looked_at))?;
        Ok(Self([
            file.dev() as i64,
            file.ino() as i64,
            file.size() as i64,
            file.mtime(),
            file.mtime_nsec(),
            file.ctime(),
            file.ctime_nsec(),
        ]))
    }
}

/// What was tried last, so that an event without a change is none.
#[derive(Debug)]
pub(crate) struct Tried {
    sources: Sources,
    /// The files that the texts name.
    contents: Vec<(PathBuf, Option<Fingerprint>)>,
}

impl Tried {
    /// Whether `now` says the same, and the files that it names are the same (blocking).
    pub(crate) fn is_same(&self, now: &Sources) -> bool {
        let mut contents = self.contents.iter();
        self.sources.is_same(now)
            && contents.all(|(path, seen)| Fingerprint::of(path).ok() == *seen)
    }

    /// The file that what is beside the configuration is beside of.
    pub(crate) fn main(&self) -> &Path {
        &self.sources.main
    }

    /// What is to be watched.
    pub(crate) fn targets(&self) -> Targets {
        let texts = self.sources.files.iter().map(|file| file.path.clone());
        let contents = self.contents.iter().map(|(path, _)| path.clone());
        Targets {
            files: texts.chain(contents).collect(),
            folders: self.sources.folders.clone(),
        }
    }
}

/// The configuration that `sources` are, and its warnings as they are shown (empty if there are none), or all errors. The
/// files that it names are read (blocking).
pub(super) fn parse(sources: Sources) -> (Result<(Config, String), FileError>, Tried) {
    let machine = Machine::default();
    let loaded = load_sources(&sources, &machine);
    let loaded = look_at_secrets(&sources.main, loaded, Absent::Error);
    let told = told(&sources, loaded);
    let contents = machine.seen.into_inner();
    (told, Tried { sources, contents })
}

/// Reads and parses a configuration: what it says, its warnings, and what was read (blocking).
///
/// # Errors
/// Why it cannot be read, or all its errors.
pub(crate) fn read_config(named: &[PathBuf]) -> Result<(Config, String, Tried), FileError> {
    let (told, tried) = parse(read(named)?);
    let (config, warnings) = told?;
    Ok((config, warnings, tried))
}

/// As [`read_config`], whatever the files are that it names: for those who only ask the proxy that runs on it.
///
/// # Errors
/// Likewise.
pub(crate) fn read_alone(path: &Path) -> Result<Config, FileError> {
    let sources = read(&[path.to_owned()])?;
    let loaded = load_sources(&sources, &Machine::default());
    told(&sources, loaded).map(|(config, _)| config)
}

/// Reads the texts until two reads a moment apart agree.
///
/// # Errors
/// What the system said, or that they do not come to rest.
pub(super) async fn read_settled(named: &[PathBuf]) -> io::Result<Sources> {
    let read = || {
        let named = named.to_owned();
        async move {
            let about = named.first().cloned().unwrap_or_default();
            let read = move || Ok(Sources::read(&named, &Machine::default()));
            let read = paths::bounded_async_for(&about, READ, read).await;
            let first = |errors: Vec<Unreadable>| {
                let error = errors.into_iter().next();
                error.map_or_else(|| io::Error::other("nothing is named"), io::Error::other)
            };
            read?.map_err(first)
        }
    };
    settled(read, Sources::is_same).await
}

fn read(named: &[PathBuf]) -> Result<Sources, FileError> {
    Sources::read(named, &Machine::default()).map_err(|errors| {
        let lines = errors.iter().map(|error| format!("error: {error}\n"));
        FileError(redacted(&lines.collect::<String>()).into_owned())
    })
}

/// The diagnostics of `sources` as they are shown.
pub(crate) fn shown(sources: &Sources, diagnostics: &[Diagnostic], colour: bool) -> String {
    if diagnostics.is_empty() {
        return String::new();
    }
    let files = sources.shown();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    render_set(&files, diagnostics, colour)
}

fn told(sources: &Sources, loaded: Loaded) -> Result<(Config, String), FileError> {
    let colour = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let shown = shown(sources, &loaded.diagnostics, colour);
    match loaded.config {
        Some(config) => Ok((config, shown)),
        None => Err(FileError(shown)),
    }
}
