//! Text to [`Config`], all errors at once.

use super::diagnostics::Diagnostic;
use super::schema::Config;

/// What became of a text.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration; `None` if any diagnostic is an error.
    pub config: Option<Config>,
    /// Errors and warnings in the order of their places.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads `text`. Touches no file and no socket.
pub fn load(text: &str) -> Loaded {
    let _ = text;
    Loaded {
        config: None,
        diagnostics: Vec::new(),
    }
}
