//! What a configuration takes from the machine besides its own texts: variables of the environment, and the contents of
//! files that it names. A loader asks for them through [`Environment`] and opens nothing itself.

use std::ffi::OsString;
use std::path::Path;

/// Provides what is not in the texts.
pub(crate) trait Environment {
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<OsString>;

    /// The content of a file, at most `most` bytes.
    ///
    /// # Errors
    /// Why the file cannot be read.
    fn content(&self, path: &Path, most: usize) -> Result<Vec<u8>, String>;
}

/// The variables of this process, and files of which each counts as empty.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct VariablesOnly;

impl Environment for VariablesOnly {
    fn variable(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn content(&self, _: &Path, _: usize) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }
}
