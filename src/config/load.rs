//! From text to [`Config`], with all errors at once.

use std::borrow::Cow;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::contents::Contents;
use super::diagnostics::findings::{Finding, Findings, Texts, clean};
use super::diagnostics::suggest::Suggester;
use super::diagnostics::{Diagnostic, Severity};
use super::environment::{Environment, VariablesOnly};
use super::limits::MAX_FILE;
use super::reader::{self, Reader};
use super::schema::{AgentConfig, Config};
use super::secrets::{self, NamedSecret, Remark, SecretFile};
use super::sources::Sources;
use super::tree::{self, TreeBuilder};
use super::{cross_checks, lints, syntax};

/// What a text was read as: the configuration of a proxy or of an agent.
#[derive(Debug)]
pub struct Loaded<T = Config> {
    /// The configuration; `None` if a diagnostic is an error.
    pub config: Option<T>,
    /// Errors and warnings in the order of their places: at most 1000 of each, and one that counts the rest.
    pub diagnostics: Vec<Diagnostic>,
    /// Files with secrets that the texts name, in their order; none if a text is not TOML.
    pub secrets: Vec<NamedSecret>,
    /// Contents of the other files that the texts name.
    pub contents: Contents,
}

impl<T> Loaded<T> {
    /// Adds what `check` finds in each of the files: an error, or warnings.
    pub fn look_at_secrets(
        mut self,
        check: impl Fn(&SecretFile) -> Result<Vec<Remark>, String>,
    ) -> Self {
        for NamedSecret { file, at } in &self.secrets {
            match check(file) {
                Ok(remarks) => self
                    .diagnostics
                    .extend(remarks.iter().map(|remark| Diagnostic {
                        severity: Severity::Warning,
                        message: clean(&remark.message),
                        label: remark.label.to_owned(),
                        help: Some(clean(&remark.help)),
                        ..at.clone()
                    })),
                Err(message) => {
                    self.config = None;
                    self.diagnostics.push(Diagnostic {
                        severity: Severity::Error,
                        message: clean(&message),
                        label: file.kind.expected().to_owned(),
                        help: None,
                        ..at.clone()
                    });
                }
            }
        }
        self.diagnostics.sort_by_key(|diagnostic| {
            (diagnostic.file, diagnostic.span.start, diagnostic.severity)
        });
        self
    }
}

/// One of the texts of a configuration.
#[derive(Debug, Clone, Copy)]
struct SourceText<'t> {
    bytes: &'t [u8],
    /// Whether another one has included it.
    included: bool,
}

/// Reads `text`, with the variables of this process. Opens no file and no socket: a file that it names counts as empty.
/// Costs about as much as parsing it as TOML.
pub fn load(text: &str) -> Loaded {
    load_bytes(text.as_bytes())
}

/// Like [`load`], for the bytes of a file. Bytes that are not UTF-8, or more than `MAX_FILE` of them, are refused. To
/// show the diagnostics, decode the bytes with [`String::from_utf8_lossy`].
pub fn load_bytes(bytes: &[u8]) -> Loaded {
    load_with(bytes, &VariablesOnly)
}

/// Like [`load_bytes`], in an `environment`.
pub(crate) fn load_with(bytes: &[u8], environment: &dyn Environment) -> Loaded {
    let text = SourceText {
        bytes,
        included: false,
    };
    read(&[text], &[], environment, Vec::new(), proxy)
}

/// Like [`load_bytes`], for a configuration of one or more files, with the other files that they name.
pub(crate) fn load_sources(sources: &Sources, environment: &dyn Environment) -> Loaded {
    let texts = sources.files.iter().map(|file| SourceText {
        bytes: &file.bytes,
        included: file.included,
    });
    let texts: Vec<_> = texts.collect();
    let directories: Vec<_> = sources.files.iter().map(|f| f.directory.clone()).collect();
    read(&texts, &directories, environment, sources.findings(), proxy)
}

/// Like [`load_bytes`], for the file of an agent.
pub fn load_agent(bytes: &[u8]) -> Loaded<AgentConfig> {
    let text = SourceText {
        bytes,
        included: false,
    };
    read(&[text], &[], &VariablesOnly, Vec::new(), reader::agent)
}

fn proxy(reader: &mut Reader<'_>, root: &Spanned<DeTable<'_>>) -> Config {
    let draft = reader::file(reader, root);
    if reader.whole {
        let known = cross_checks::check(reader, &draft);
        // A value that could not be filled in may be what seems to be missing.
        if reader.marks.unknown.is_empty() {
            lints::check(reader, &draft, known);
        }
    }
    draft.config
}

/// Whether the bytes are meant as the file of an agent: it has no listener, and names its cluster or its backend.
pub(crate) fn is_agent(bytes: &[u8]) -> bool {
    let (text, None) = decode(bytes) else {
        return false;
    };
    let parsed = syntax::parse(text);
    let root = parsed.root.get_ref();
    let cluster = root.get("cluster").map(|value| value.get_ref());
    let names_one = matches!(cluster, Some(DeValue::String(_))) || root.get("backend").is_some();
    names_one && root.get("listener").is_none()
}

/// Reads all texts with `make`. `found` is what was found before, with the index of its text.
fn read<T>(
    sources: &[SourceText<'_>],
    directories: &[PathBuf],
    environment: &dyn Environment,
    found: Vec<(usize, Finding)>,
    make: impl FnOnce(&mut Reader<'_>, &Spanned<DeTable<'_>>) -> T,
) -> Loaded<T> {
    let decoded: Vec<_> = sources.iter().map(|source| decode(source.bytes)).collect();
    let texts = Texts::of(decoded.iter().map(|(text, _)| *text));
    let joined = match &decoded[..] {
        [(text, _)] => Cow::Borrowed(*text),
        all => Cow::Owned(
            all.iter()
                .map(|(text, _)| *text)
                .collect::<Vec<_>>()
                .join("\n"),
        ),
    };
    let (parsed, broken) = parse_all(decoded);
    let whole = broken.is_empty();
    let mut builder = TreeBuilder::new(environment, &joined, whole);
    let span = parsed.first().map_or(0..0, Spanned::span);
    let trees = parsed.into_iter().zip(sources).enumerate();
    let trees = trees.map(|(file, (root, source))| {
        let tree = builder.build(root.into_inner(), texts.start(file));
        (tree, source.included)
    });
    let trees: Vec<_> = trees.collect();
    let (mut findings, mut marks) = (builder.findings, builder.marks);
    for (file, finding) in found {
        findings.add(finding.moved(texts.start(file)));
    }
    let mut root = tree::join(trees, &mut findings);
    tree::inherit(&mut root, &mut marks, &mut findings);
    findings.silence(&marks.unknown);
    let mut reader = Reader {
        text: &joined,
        texts: &texts,
        directories,
        environment,
        marks,
        findings,
        suggester: Suggester::default(),
        whole,
        secrets: Vec::new(),
        contents: Contents::default(),
    };
    let config = make(&mut reader, &Spanned::new(span, root));
    let (findings, secrets, contents) = (reader.findings, reader.secrets, reader.contents);
    let (findings, secrets) = match whole {
        true => (findings, secrets::placed(secrets, &texts)),
        false => (merge(findings, broken, &texts), Vec::new()),
    };
    Loaded {
        config: (findings.errors() == 0).then_some(config),
        diagnostics: findings.into_diagnostics(&texts),
        secrets,
        contents,
    }
}

/// A text that is not TOML.
enum NotToml<'t> {
    Refused(Finding),
    Syntax(&'t str, Vec<Error>),
}

/// Parses each text. The second list has those that are not TOML, with their indices.
fn parse_all<'t>(
    decoded: Vec<(&'t str, Option<Finding>)>,
) -> (Vec<Spanned<DeTable<'t>>>, Vec<(usize, NotToml<'t>)>) {
    let mut broken = Vec::new();
    let mut roots = Vec::with_capacity(decoded.len());
    for (file, (text, refused)) in decoded.into_iter().enumerate() {
        let parsed = match refused {
            None => syntax::parse(text),
            Some(finding) => {
                broken.push((file, NotToml::Refused(finding)));
                syntax::Parsed::nothing()
            }
        };
        if !parsed.errors.is_empty() {
            broken.push((file, NotToml::Syntax(text, parsed.errors)));
        }
        roots.push(parsed.root);
    }
    (roots, broken)
}

/// What is wrong with the texts that are not TOML, and those errors of `findings` that do not merely follow from it.
fn merge(findings: Findings, broken: Vec<(usize, NotToml<'_>)>, texts: &Texts<'_>) -> Findings {
    let mut others = findings.into_kept();
    let mut merged = Findings::default();
    for (file, broken) in broken {
        let start = texts.start(file);
        match broken {
            NotToml::Refused(finding) => merged.add(finding.moved(start)),
            NotToml::Syntax(text, errors) => {
                let within = others.extract_if(.., |f| texts.locate(f.span.start).0 == file);
                let within = within.map(|finding| finding.moved_back(start)).collect();
                for finding in syntax::merge(text, &errors, within).into_kept() {
                    merged.add(finding.moved(start));
                }
            }
        }
    }
    let errors = others.into_iter();
    errors
        .filter(|finding| finding.severity == Severity::Error)
        .for_each(|finding| merged.add(finding));
    merged
}

/// The text of a file as far as it is text, and what is wrong with the rest.
fn decode(bytes: &[u8]) -> (&str, Option<Finding>) {
    if bytes.len() > MAX_FILE {
        return ("", Some(too_large(bytes.len())));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let good = error.valid_up_to();
            let text = std::str::from_utf8(&bytes[..good]).unwrap_or_default();
            let byte = bytes.get(good).copied().unwrap_or_default();
            let finding = Finding::error(good..good + 1, "the file is not UTF-8 text")
                .label(format!("expected UTF-8, found the byte 0x{byte:02X}"));
            (text, Some(finding))
        }
    }
}

fn too_large(bytes: usize) -> Finding {
    Finding::error(0..0, "the file is too large").label(format!(
        "expected at most {MAX_FILE} bytes, found {}{bytes}",
        // A reader that stops after the limit cannot know how much more there is.
        if bytes == MAX_FILE + 1 {
            "at least "
        } else {
            ""
        }
    ))
}
