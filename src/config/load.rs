//! Text to [`Config`], all errors at once.

use super::diagnostics::Diagnostic;
use super::diagnostics::findings::{Finding, Findings};
use super::diagnostics::suggest::Suggester;
use super::reader::{self, Reader};
use super::schema::Config;
use super::{relations, suspicions, syntax};

/// Largest file that is read, in bytes.
pub const MAX_FILE: usize = 16 << 20;

/// What became of a text.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration; `None` if any diagnostic is an error.
    pub config: Option<Config>,
    /// Errors and warnings in the order of their places; of each at most 1000, and one that counts the rest.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads `text`. Touches no file and no socket. Costs about the time of parsing it as TOML.
pub fn load(text: &str) -> Loaded {
    if text.len() > MAX_FILE {
        return refuse("", too_large(text.len()));
    }
    let parsed = syntax::parse(text);
    let mut reader = Reader {
        text,
        findings: Findings::default(),
        suggester: Suggester::default(),
        whole: parsed.errors.is_empty(),
    };
    let draft = reader::file(&mut reader, &parsed.root);
    if reader.whole {
        let known = relations::check(&mut reader, &draft);
        suspicions::look(&mut reader, &draft, known);
    }
    let findings = match reader.whole {
        true => reader.findings,
        false => syntax::merge(text, &parsed.errors, reader.findings),
    };
    Loaded {
        config: (findings.errors() == 0).then_some(draft.config),
        diagnostics: findings.into_diagnostics(text),
    }
}

/// As [`load`], for the bytes of a file: those that are not UTF-8, or more than [`MAX_FILE`], are refused. To show
/// the diagnostics, decode the bytes with [`String::from_utf8_lossy`].
pub fn load_bytes(bytes: &[u8]) -> Loaded {
    if bytes.len() > MAX_FILE {
        return refuse("", too_large(bytes.len()));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => load(text),
        Err(error) => {
            let good = error.valid_up_to();
            let text = std::str::from_utf8(&bytes[..good]).unwrap_or_default();
            let byte = bytes.get(good).copied().unwrap_or_default();
            let finding = Finding::error(good..good + 1, "the file is not UTF-8 text")
                .label(format!("expected UTF-8, found the byte 0x{byte:02X}"));
            refuse(text, finding)
        }
    }
}

fn too_large(bytes: usize) -> Finding {
    Finding::error(0..0, "the file is too large").label(format!(
        "expected at most {MAX_FILE} bytes, found {}{bytes}",
        // A reader that stops behind the limit cannot know how much more there is.
        if bytes == MAX_FILE + 1 {
            "at least "
        } else {
            ""
        }
    ))
}

fn refuse(text: &str, finding: Finding) -> Loaded {
    let mut findings = Findings::default();
    findings.add(finding);
    Loaded {
        config: None,
        diagnostics: findings.into_diagnostics(text),
    }
}
