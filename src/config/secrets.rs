//! Files with a key or a token that a configuration names: where its text names them, and how what was found in them
//! joins what is said of the text. A look at them is part of `check`, of a start and of a reload; only a file that is
//! not there is a warning for the first, which may run elsewhere, and an error for the others. No file is opened here. Who may look (`control::files`) hands its finding to
//! [`Loaded::look_at_secrets`], in words without a byte of what the file holds.

use std::path::PathBuf;

use super::diagnostics::findings::{Finding, Findings};
use super::load::Loaded;
use super::reader::Place;

/// What a file is meant to hold.
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
    fn expected(self) -> &'static str {
        match self {
            Self::Key => "expected the file of a key, as `lbproxy key generate` makes it",
            Self::Operator => {
                "expected the file of an operator's public key, as `lbproxy token operator` makes it"
            }
            Self::Token => "expected the file of a token, as `lbproxy token mint` makes it",
        }
    }
}

/// A file, as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// What it is meant to hold.
    pub kind: SecretKind,
    /// As it is written: relative to the directory of the configuration.
    pub path: PathBuf,
    /// Where.
    pub(super) place: Place,
}

impl<T> Loaded<T> {
    /// With what `look` has to say of each of the files: an error; or a warning, and how to put it right. `text` is the
    /// one that was loaded.
    pub fn look_at_secrets(
        mut self,
        text: &[u8],
        look: impl Fn(&SecretFile) -> Result<Option<(String, String)>, String>,
    ) -> Self {
        let mut findings = Findings::default();
        for file in &self.secrets {
            let place = file.place.clone();
            match look(file) {
                Ok(None) => {}
                Ok(Some((message, help))) => {
                    let finding = Finding::warning(place, message);
                    findings.add(finding.label(file.kind.expected()).help(help));
                }
                Err(message) => {
                    findings.add(Finding::error(place, message).label(file.kind.expected()));
                }
            }
        }
        if findings.errors() > 0 {
            self.config = None;
        }
        let found = findings.into_diagnostics(&String::from_utf8_lossy(text));
        self.diagnostics.extend(found);
        self.diagnostics
            .sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.severity));
        self
    }
}
