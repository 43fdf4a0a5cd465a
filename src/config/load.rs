//! Text to [`Config`], all errors at once.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::Diagnostic;
use super::diagnostics::findings::{Finding, Findings};
use super::diagnostics::suggest::Suggester;
use super::reader::{self, Reader};
use super::schema::{AgentConfig, Config};
use super::secrets::SecretFile;
use super::{relations, suspicions, syntax};

/// Largest file that is read, in bytes.
pub const MAX_FILE: usize = 16 << 20;

/// What became of a text: a proxy's configuration, or an agent's.
#[derive(Debug)]
pub struct Loaded<T = Config> {
    /// The configuration; `None` if any diagnostic is an error.
    pub config: Option<T>,
    /// Errors and warnings in the order of their places; of each at most 1000, and one that counts the rest.
    pub diagnostics: Vec<Diagnostic>,
    /// Files with secrets that the text names, in its order; none if it is no TOML.
    pub secrets: Vec<SecretFile>,
}

/// Reads `text`. Touches no file and no socket. Costs about the time of parsing it as TOML.
pub fn load(text: &str) -> Loaded {
    read(text, |reader, root| {
        let draft = reader::file(reader, root);
        if reader.whole {
            let known = relations::check(reader, &draft);
            suspicions::look(reader, &draft, known);
        }
        draft.config
    })
}

/// As [`load`], for the bytes of a file: those that are not UTF-8, or more than [`MAX_FILE`], are refused. To show
/// the diagnostics, decode the bytes with [`String::from_utf8_lossy`].
pub fn load_bytes(bytes: &[u8]) -> Loaded {
    decode(bytes).map_or_else(refuse, load)
}

/// As [`load_bytes`], for the file of an agent.
pub fn load_agent(bytes: &[u8]) -> Loaded<AgentConfig> {
    decode(bytes).map_or_else(refuse, |text| read(text, reader::agent))
}

/// Whether the bytes are meant as the file of an agent: it has no listener, and names its one cluster or backend.
pub fn is_agent(bytes: &[u8]) -> bool {
    let Ok(text) = decode(bytes) else {
        return false;
    };
    let parsed = syntax::parse(text);
    let root = parsed.root.get_ref();
    let cluster = root.get("cluster").map(|value| value.get_ref());
    let names_one = matches!(cluster, Some(DeValue::String(_))) || root.get("backend").is_some();
    names_one && root.get("listener").is_none()
}

fn read<T>(
    text: &str,
    make: impl FnOnce(&mut Reader<'_>, &Spanned<DeTable<'_>>) -> T,
) -> Loaded<T> {
    if text.len() > MAX_FILE {
        return refuse(alone("", too_large(text.len())));
    }
    let parsed = syntax::parse(text);
    let mut reader = Reader {
        text,
        findings: Findings::default(),
        suggester: Suggester::default(),
        whole: parsed.errors.is_empty(),
        secrets: Vec::new(),
    };
    let config = make(&mut reader, &parsed.root);
    let (findings, secrets) = match reader.whole {
        true => (reader.findings, reader.secrets),
        false => (
            syntax::merge(text, &parsed.errors, reader.findings),
            Vec::new(),
        ),
    };
    Loaded {
        config: (findings.errors() == 0).then_some(config),
        diagnostics: findings.into_diagnostics(text),
        secrets,
    }
}

/// The text of a file, or what it is instead.
fn decode(bytes: &[u8]) -> Result<&str, Vec<Diagnostic>> {
    if bytes.len() > MAX_FILE {
        return Err(alone("", too_large(bytes.len())));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let good = error.valid_up_to();
        let text = std::str::from_utf8(&bytes[..good]).unwrap_or_default();
        let byte = bytes.get(good).copied().unwrap_or_default();
        let finding = Finding::error(good..good + 1, "the file is not UTF-8 text")
            .label(format!("expected UTF-8, found the byte 0x{byte:02X}"));
        alone(text, finding)
    })
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

fn alone(text: &str, finding: Finding) -> Vec<Diagnostic> {
    let mut findings = Findings::default();
    findings.add(finding);
    findings.into_diagnostics(text)
}

fn refuse<T>(diagnostics: Vec<Diagnostic>) -> Loaded<T> {
    Loaded {
        config: None,
        diagnostics,
        secrets: Vec::new(),
    }
}
