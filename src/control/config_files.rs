//! The files of a configuration, read into what they mean or into the diagnostics that say why not. A start, a reload
//! and `check` all read them here.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::secret_files::{Absent, check_secrets};
use crate::config::diagnostics::{Diagnostic, render_set};
use crate::config::environment::Environment;
use crate::config::load::{Loaded, load_sources};
use crate::config::schema::Config;
use crate::config::sources::{Sources, Unreadable};
use crate::config::watch::{Targets, settled};
use crate::files;
use crate::gossip::text::redacted;

/// How long it may take to read all texts of a configuration once.
const READ: Duration = Duration::from_secs(10);
/// How long a reload may take to parse the texts and to read the files that they name.
const PARSE: Duration = Duration::from_secs(20);

/// All errors and warnings of a configuration, as they are shown.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct FileError(pub String);

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
        let content = files::read_beginning(path, most.saturating_add(1))
            .map_err(|error| error.to_string())?;
        match content.len() > most {
            true => Err(format!("it has more than {most} bytes")),
            false => Ok(content),
        }
    }
}

/// The metadata that changes when a file does: device, inode, size, and the times of the last changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint([i64; 7]);

impl Fingerprint {
    fn of(path: &Path) -> io::Result<Self> {
        let looked_at = path.to_owned();
        let file = files::bounded(path, move || std::fs::metadata(looked_at))?;
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

/// The files and directories that were named at the start, and what was read from them last, applied or not.
#[derive(Debug)]
pub(crate) struct ConfigFiles {
    named: Vec<PathBuf>,
    last: ReadFiles,
}

/// What a configuration was read from.
#[derive(Debug)]
struct ReadFiles {
    sources: Sources,
    /// The files that the texts name.
    contents: Vec<(PathBuf, Option<Fingerprint>)>,
}

/// A valid configuration, and its warnings as they are shown (empty if there are none).
#[derive(Debug)]
pub(crate) struct ValidConfig {
    /// The configuration.
    pub config: Config,
    /// Its warnings.
    pub warnings: String,
}

/// What a look at the files has found.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once for a reload, and taken apart at once"
)]
pub(super) enum Reread {
    /// The texts, and the files that they name, are those that were tried last.
    Unchanged,
    /// The files cannot be read, which may be so for a moment only, between two steps of an editor.
    Unreadable(io::Error),
    /// The texts can be read, but not the files that they name.
    NamedFilesUnreadable(io::Error),
    /// What the texts mean, or their errors.
    Parsed(Result<ValidConfig, FileError>),
}

impl ConfigFiles {
    /// Reads and parses a configuration (blocking).
    ///
    /// # Errors
    /// Why it cannot be read, or all its errors.
    pub(crate) fn load(named: &[PathBuf]) -> Result<(ValidConfig, Self), FileError> {
        let (parsed, last) = parse(read(named)?);
        let named = named.to_owned();
        Ok((parsed?, Self { named, last }))
    }

    /// The file that relative paths in the configuration are relative to.
    pub(crate) fn main(&self) -> &Path {
        &self.last.sources.main
    }

    /// The directory of that file.
    pub(crate) fn directory(&self) -> &Path {
        self.main().parent().unwrap_or(Path::new(""))
    }

    /// The files to be watched.
    pub(super) fn targets(&self) -> Targets {
        let ReadFiles { sources, contents } = &self.last;
        let texts = sources.files.iter().map(|file| file.path.clone());
        let contents = contents.iter().map(|(path, _)| path.clone());
        Targets {
            files: texts.chain(contents).collect(),
            folders: sources.folders.clone(),
        }
    }

    /// Reads the files again, and parses them unless they are unchanged and need not be parsed `always`.
    pub(super) async fn reread(&mut self, always: bool) -> Reread {
        let sources = match self.read_settled().await {
            Ok(sources) => sources,
            Err(error) => return Reread::Unreadable(error),
        };
        if !always && tokio::task::block_in_place(|| self.last.is_same(&sources)) {
            return Reread::Unchanged;
        }
        let main = self.main().to_owned();
        let parse = move || Ok(parse(sources));
        match files::bounded_async_for(&main, PARSE, parse).await {
            Ok((parsed, read)) => {
                self.last = read;
                Reread::Parsed(parsed)
            }
            Err(error) => Reread::NamedFilesUnreadable(error),
        }
    }

    /// Reads the texts until two reads a moment apart agree.
    async fn read_settled(&self) -> io::Result<Sources> {
        let read = || {
            let named = self.named.clone();
            async move {
                let about = named.first().cloned().unwrap_or_default();
                let read = move || Ok(Sources::read(&named, &Machine::default()));
                let read = files::bounded_async_for(&about, READ, read).await;
                let first = |errors: Vec<Unreadable>| {
                    let error = errors.into_iter().next();
                    error.map_or_else(|| io::Error::other("no file is named"), io::Error::other)
                };
                read?.map_err(first)
            }
        };
        settled(read, Sources::is_same).await
    }
}

impl ReadFiles {
    /// Whether `now` are the same texts, and the files that they name are the same (blocking).
    fn is_same(&self, now: &Sources) -> bool {
        let mut contents = self.contents.iter();
        self.sources.is_same(now)
            && contents.all(|(path, seen)| Fingerprint::of(path).ok() == *seen)
    }
}

/// Parses `sources` and reads the files that they name (blocking).
fn parse(sources: Sources) -> (Result<ValidConfig, FileError>, ReadFiles) {
    let machine = Machine::default();
    let loaded = load_sources(&sources, &machine);
    let loaded = check_secrets(&sources.main, loaded, Absent::Error);
    let parsed = verdict(&sources, loaded);
    let contents = machine.seen.into_inner();
    (parsed, ReadFiles { sources, contents })
}

/// Reads a configuration without the files with secrets that it names: for commands that only ask the proxy that runs
/// on it (blocking).
///
/// # Errors
/// Why it cannot be read, or all its errors.
pub(crate) fn read_alone(path: &Path) -> Result<Config, FileError> {
    let sources = read(&[path.to_owned()])?;
    let loaded = load_sources(&sources, &Machine::default());
    verdict(&sources, loaded).map(|valid| valid.config)
}

fn read(named: &[PathBuf]) -> Result<Sources, FileError> {
    Sources::read(named, &Machine::default()).map_err(|errors| {
        let lines = errors.iter().map(|error| format!("error: {error}\n"));
        FileError(redacted(&lines.collect::<String>()).into_owned())
    })
}

/// The configuration, or its diagnostics as they are shown.
fn verdict(sources: &Sources, loaded: Loaded) -> Result<ValidConfig, FileError> {
    let colour = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let shown = shown(sources, &loaded.diagnostics, colour);
    match loaded.config {
        Some(config) => Ok(ValidConfig {
            config,
            warnings: shown,
        }),
        None => Err(FileError(shown)),
    }
}

/// The diagnostics of `sources` as they are shown.
fn shown(sources: &Sources, diagnostics: &[Diagnostic], colour: bool) -> String {
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
