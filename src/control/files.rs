//! A file's text to a configuration, or to the words that say why not.

use std::io::{self, IsTerminal};
use std::path::Path;

use crate::config::diagnostics::render;
use crate::config::load::load_bytes;
use crate::config::schema::Config;
use crate::config::watch::read_now;

/// All errors and warnings of a file, as they are shown.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FileError(pub String);

/// The configuration of `text`, and its warnings as they are shown (empty if there are none).
///
/// # Errors
/// All errors.
pub fn parse(path: &Path, text: &[u8]) -> Result<(Config, String), FileError> {
    let loaded = load_bytes(text);
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

/// Reads and parses the file at `path`: the configuration, its text and its warnings.
///
/// # Errors
/// Why it cannot be read, or all its errors.
pub fn read_config(path: &Path) -> Result<(Config, Vec<u8>, String), FileError> {
    let text = read_now(path).map_err(|error| {
        FileError(format!(
            "error: {}: cannot be read: {error}\n",
            path.display()
        ))
    })?;
    let (config, warnings) = parse(path, &text)?;
    Ok((config, text, warnings))
}
