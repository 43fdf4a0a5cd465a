//! Errors and warnings of a file, and how people ([`render()`]) and programs ([`to_json`]) see them.
//!
//! A [`Diagnostic`] is plain text with a place. Whatever the file contains, no byte that could control a terminal is
//! left in it, and no text is longer than a few lines. Written by the loader (`findings` collects, sorts and places
//! them), read by the `check` command and by the log of a reload.

pub(super) mod findings;
mod render;
pub(super) mod suggest;

use std::ops::Range;

use serde_json::{Value, json};

pub use render::render;
pub(crate) use render::render_set;

/// How serious a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is not applied.
    Error,
    /// Legal, but surely a mistake.
    Warning,
}

/// One error or warning, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How serious it is.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// The index of its text in the configuration.
    pub file: usize,
    /// Byte range in that text.
    pub span: Range<usize>,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// The text at the caret: what was expected. May be empty.
    pub label: String,
    /// "did you mean …" if a known word is similar, or how to put it right.
    pub help: Option<String>,
    /// Another place that is part of the problem.
    pub related: Option<Related>,
}

/// Where the other half of a contradiction is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// The index of its text in the configuration.
    pub file: usize,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// What is there.
    pub message: String,
}

/// Whether none of `diagnostics` is an error.
pub(crate) fn is_valid(diagnostics: &[Diagnostic]) -> bool {
    count(diagnostics, Severity::Error) == 0
}

/// Number of diagnostics of one severity.
pub(crate) fn count(diagnostics: &[Diagnostic], severity: Severity) -> usize {
    diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == severity)
        .count()
}

/// `1 error`, `2 errors`.
pub(crate) fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// `{"file", "valid", "errors": […], "warnings": […]}`. Each entry has `line`, `column` and `message`, and may have
/// `expected`, `help` and `related`.
pub fn to_json(file_name: &str, diagnostics: &[Diagnostic]) -> Value {
    set_to_json(&[file_name], diagnostics)
}

/// Like [`to_json`]. If the configuration has several texts, `files` has their names, and each entry has its `file`.
pub(crate) fn set_to_json(names: &[&str], diagnostics: &[Diagnostic]) -> Value {
    let of = |severity| -> Vec<Value> {
        diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == severity)
            .map(|diagnostic| one_to_json(names, diagnostic))
            .collect()
    };
    let mut report = json!({
        "file": names.first(),
        "valid": is_valid(diagnostics),
        "errors": of(Severity::Error),
        "warnings": of(Severity::Warning),
    });
    if names.len() > 1 {
        report["files"] = json!(names);
    }
    report
}

fn one_to_json(names: &[&str], diagnostic: &Diagnostic) -> Value {
    let several = names.len() > 1;
    let mut entry = json!({
        "line": diagnostic.line,
        "column": diagnostic.column,
        "message": diagnostic.message,
    });
    if several {
        entry["file"] = json!(names.get(diagnostic.file));
    }
    if !diagnostic.label.is_empty() {
        entry["expected"] = json!(diagnostic.label);
    }
    if let Some(help) = &diagnostic.help {
        entry["help"] = json!(help);
    }
    if let Some(related) = &diagnostic.related {
        entry["related"] = json!({
            "line": related.line,
            "column": related.column,
            "message": related.message,
        });
        if several {
            entry["related"]["file"] = json!(names.get(related.file));
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_leaves_out_what_is_empty() {
        let error = Diagnostic {
            severity: Severity::Error,
            message: "unknown key".to_owned(),
            file: 0,
            span: 0..1,
            line: 1,
            column: 2,
            label: String::new(),
            help: Some("did you mean `b`?".to_owned()),
            related: None,
        };
        let warning = Diagnostic {
            severity: Severity::Warning,
            label: "expected b".to_owned(),
            help: None,
            related: Some(Related {
                file: 0,
                line: 3,
                column: 4,
                message: "first here".to_owned(),
            }),
            ..error.clone()
        };
        assert_eq!(
            to_json("lb.toml", &[error, warning]),
            json!({
                "file": "lb.toml",
                "valid": false,
                "errors": [{
                    "line": 1, "column": 2, "message": "unknown key", "help": "did you mean `b`?",
                }],
                "warnings": [{
                    "line": 1, "column": 2, "message": "unknown key", "expected": "expected b",
                    "related": { "line": 3, "column": 4, "message": "first here" },
                }],
            })
        );
    }
}
