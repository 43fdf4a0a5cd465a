//! A file's text to a configuration, or to the words that say why not. A start, a reload and `check` take it this way.

use std::io::{self, IsTerminal};
use std::path::Path;

use crate::config::diagnostics::render;
use crate::config::load::{Loaded, load_bytes};
use crate::config::schema::Config;
use crate::config::secrets::{SecretFile, SecretKind};
use crate::config::watch::read_now;
use crate::discovery::gossip::secrets;

/// All errors and warnings of a file, as they are shown.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FileError(pub String);

/// What it means that a file with a secret is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Nothing can start.
    Error,
    /// Configurations are checked where secrets are not, too.
    Warning,
}

/// `loaded`, which the file at `path` with this text gave, and what is wrong with the files with secrets that it names:
/// reads them (blocking).
pub fn look_at_secrets<T>(
    path: &Path,
    text: &[u8],
    loaded: Loaded<T>,
    absent: Absent,
) -> Loaded<T> {
    let directory = path.parent().unwrap_or(Path::new(""));
    loaded.look_at_secrets(text, |SecretFile { kind, path, .. }| {
        let file = directory.join(path);
        let read = match kind {
            SecretKind::Key => secrets::key(&file).map(drop),
            SecretKind::Operator => secrets::authority(&file).map(drop),
            SecretKind::Token => secrets::credential(&file).map(drop),
        };
        match read {
            Err(error) if absent == Absent::Warning && matches!(file.try_exists(), Ok(false)) => {
                let remedy = "without it a start or a reload is an error".to_owned();
                return Ok(Some((error.to_string(), remedy)));
            }
            read => read.map_err(|error| error.to_string())?,
        }
        let exposed = secrets::exposed(&file, *kind == SecretKind::Operator);
        Ok(exposed.map(|exposed| (exposed.what, exposed.remedy)))
    })
}

/// The configuration of `text`, and its warnings as they are shown (empty if there are none). The files with secrets
/// that it names are read (blocking).
///
/// # Errors
/// All errors.
pub fn parse(path: &Path, text: &[u8]) -> Result<(Config, String), FileError> {
    let loaded = look_at_secrets(path, text, load_bytes(text), Absent::Error);
    told(path, text, loaded)
}

/// Reads and parses the file at `path`: the configuration, its text and its warnings.
///
/// # Errors
/// Why it cannot be read, or all its errors.
pub fn read_config(path: &Path) -> Result<(Config, Vec<u8>, String), FileError> {
    let text = read(path)?;
    let (config, warnings) = parse(path, &text)?;
    Ok((config, text, warnings))
}

/// As [`read_config`], whatever the files are that it names: for those who only ask the proxy that runs on it.
///
/// # Errors
/// Likewise.
pub fn read_alone(path: &Path) -> Result<Config, FileError> {
    let text = read(path)?;
    told(path, &text, load_bytes(&text)).map(|(config, _)| config)
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    read_now(path).map_err(|error| {
        FileError(format!(
            "error: {}: cannot be read: {error}\n",
            path.display()
        ))
    })
}

fn told(path: &Path, text: &[u8], loaded: Loaded) -> Result<(Config, String), FileError> {
    let shown = || {
        let colour = io::stderr().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        render(
            &path.display().to_string(),
            &String::from_utf8_lossy(text),
            &loaded.diagnostics,
            colour,
        )
    };
    match &loaded.config {
        Some(config) if loaded.diagnostics.is_empty() => Ok((config.clone(), String::new())),
        Some(config) => Ok((config.clone(), shown())),
        None => Err(FileError(shown())),
    }
}
