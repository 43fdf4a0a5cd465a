//! Errors and warnings of a file.

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The file is not applied.
    Error,
    /// Legal, but surely a mistake.
    Warning,
}

/// One error or warning, with its place.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// Byte range in the text.
    pub span: std::ops::Range<usize>,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// What stands at the caret: what was expected.
    pub label: String,
    /// "did you mean …", if a known word is near.
    pub help: Option<String>,
}
