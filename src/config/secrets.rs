//! Files with a key or a token that a configuration names: where its texts name them, and what was found in them.
//!
//! Checking them is part of `check`, of a start and of a reload. Only a missing file is a warning for `check`, which
//! may run on another machine, and an error for the others. No file is opened here: `control::files` does that, and
//! passes its finding to [`Loaded::look_at_secrets`](super::load::Loaded::look_at_secrets) in words without a byte of
//! the content.

use std::path::PathBuf;

use super::diagnostics::Diagnostic;
use super::diagnostics::findings::{Finding, Findings, Texts};
use super::span::TextSpan;

/// What a file should contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// A key of the peer set.
    Key,
    /// An operator's public key.
    Operator,
    /// An operator's token for an agent.
    Token,
}

impl SecretKind {
    /// What messages say was expected.
    pub fn expected(self) -> &'static str {
        match self {
            Self::Key => "expected the file of a key, as `lbproxy key generate` makes it",
            Self::Operator => {
                "expected the file of an operator's public key, as `lbproxy token operator` makes it"
            }
            Self::Token => "expected the file of a token, as `lbproxy token mint` makes it",
        }
    }
}

/// A file as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// What it should contain.
    pub kind: SecretKind,
    /// As written: relative to the directory of the configuration.
    pub path: PathBuf,
    /// Where the configuration names it.
    pub(super) span: TextSpan,
}

/// A file, and an empty diagnostic at its place for what may be found in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedSecret {
    /// The file.
    pub file: SecretFile,
    pub(super) at: Diagnostic,
}

/// The files with a diagnostic for each.
pub(super) fn placed(files: Vec<SecretFile>, texts: &Texts<'_>) -> Vec<NamedSecret> {
    let at = files.iter().map(|file| {
        let mut findings = Findings::default();
        findings.add(Finding::error(file.span.clone(), ""));
        findings.into_diagnostics(texts).into_iter().next()
    });
    let at: Vec<_> = at.collect();
    let files = files.into_iter().zip(at);
    files
        .filter_map(|(file, at)| Some(NamedSecret { file, at: at? }))
        .collect()
}

/// A warning about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// What is doubtful.
    pub message: String,
    /// What was expected, or what follows.
    pub label: &'static str,
    /// How to put it right.
    pub help: String,
}
