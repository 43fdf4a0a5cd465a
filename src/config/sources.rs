//! The texts of a configuration: the files and directories that are named at the start, and the files that those
//! include.
//!
//! A directory stands for its `*.toml` files in byte order of their names, except those that begin with a dot. The
//! files that a file includes come after it, in byte order of their paths. A file counts once, however many names lead
//! to it. What is wrong with an `include` is kept for the loader, which reports it at its place together with
//! everything else.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern, glob_with};
use toml::de::DeValue;

use super::diagnostics::findings::{Finding, quoted};
use super::environment::Environment;
use super::limits::{MAX_FILE, MAX_PATTERNS};
use super::span::TextSpan;
use super::syntax;
use super::tree::TreeBuilder;
use crate::files;

/// Files of one configuration.
const MAX_FILES: usize = 1000;
const MATCH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// One file of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// Its absolute directory.
    pub directory: PathBuf,
    /// Its content: at most [`MAX_FILE`] bytes and one more.
    pub bytes: Vec<u8>,
    /// Whether another file has included it.
    pub included: bool,
}

/// All files of a configuration in their order.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// The files; at least one.
    pub files: Vec<SourceFile>,
    /// The file whose directory is that of the configuration: the first one that was named, or one in the directory
    /// that was named.
    pub main: PathBuf,
    /// Directories in which files may appear, each with the last part of the pattern that their names must match.
    pub folders: Vec<(PathBuf, Pattern)>,
    problems: Vec<(usize, Finding)>,
}

/// A file that was named at the start cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot be read: {source}", .path.display())]
pub(crate) struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// The error of the system.
    #[source]
    pub source: io::Error,
}

impl Sources {
    /// Reads everything (blocking).
    ///
    /// # Errors
    /// Each of `named` that cannot be read.
    pub(crate) fn read(
        named: &[PathBuf],
        environment: &dyn Environment,
    ) -> Result<Self, Vec<Unreadable>> {
        let mut collector = SourceCollector {
            sources: Self {
                files: Vec::new(),
                main: named.first().cloned().unwrap_or_default(),
                folders: Vec::new(),
                problems: Vec::new(),
            },
            known: HashSet::new(),
            bytes: 0,
            environment,
        };
        let mut errors = Vec::new();
        for (at, path) in named.iter().enumerate() {
            if let Err(source) = collector.named(path, at == 0) {
                let path = path.clone();
                errors.push(Unreadable { path, source });
            }
        }
        match errors.is_empty() {
            true => Ok(collector.sources),
            false => Err(errors),
        }
    }

    /// A text that was read elsewhere, such as standard input. Relative paths in it start at the working directory. The
    /// files that it includes are read (blocking).
    pub(crate) fn of_text(name: &Path, bytes: Vec<u8>, environment: &dyn Environment) -> Self {
        let mut collector = SourceCollector {
            sources: Self {
                files: Vec::new(),
                main: name.to_owned(),
                folders: Vec::new(),
                problems: Vec::new(),
            },
            known: HashSet::new(),
            bytes: 0,
            environment,
        };
        collector.add(name.to_owned(), bytes, false);
        collector.include(0);
        collector.sources
    }

    /// The name of each file and its text, as they are shown.
    pub(crate) fn shown(&self) -> Vec<(String, String)> {
        let files = self.files.iter().map(|file| {
            let name = file.path.display().to_string();
            (name, String::from_utf8_lossy(&file.bytes).into_owned())
        });
        files.collect()
    }

    /// Whether both have the same files in the same order.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.files == other.files && self.problems.len() == other.problems.len()
    }

    pub(super) fn findings(&self) -> Vec<(usize, Finding)> {
        self.problems.clone()
    }
}

struct SourceCollector<'w> {
    sources: Sources,
    /// Real paths of the files that have been read.
    known: HashSet<PathBuf>,
    bytes: usize,
    environment: &'w dyn Environment,
}

impl SourceCollector<'_> {
    fn named(&mut self, path: &Path, is_first: bool) -> io::Result<()> {
        if !path.is_dir() {
            if self.known.insert(real(path)) {
                self.read(path, false)?;
            }
            return Ok(());
        }
        if is_first {
            self.sources.main = path.join("lb.toml");
        }
        let files = files_in(path)?;
        self.sources.folders.push((path.to_owned(), toml_files()));
        if files.is_empty() {
            return Err(io::Error::other("the directory has no *.toml file"));
        }
        for file in files {
            if self.known.insert(real(&file)) {
                self.read(&file, false)?;
            }
        }
        Ok(())
    }

    /// Reads a file, and the files that it includes if it may include any.
    fn read(&mut self, path: &Path, included: bool) -> io::Result<()> {
        if self.sources.files.len() >= MAX_FILES {
            let message = format!("a configuration has at most {MAX_FILES} files");
            return Err(io::Error::other(message));
        }
        let bytes = files::read_beginning(path, MAX_FILE + 1)?;
        self.bytes += bytes.len();
        if self.bytes > MAX_FILE && !self.sources.files.is_empty() {
            let message = format!("all files together have more than {MAX_FILE} bytes");
            return Err(io::Error::other(message));
        }
        let at = self.sources.files.len();
        self.add(path.to_owned(), bytes, included);
        if !included {
            self.include(at);
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf, bytes: Vec<u8>, included: bool) {
        let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let directory = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        self.sources.files.push(SourceFile {
            path,
            directory,
            bytes,
            included,
        });
    }

    /// Reads the files that the file at `at` includes.
    fn include(&mut self, at: usize) {
        let source = &self.sources.files[at];
        let directory = source.path.parent().unwrap_or(Path::new("")).to_owned();
        let patterns = patterns_of(&source.bytes, self.environment);
        let mut files = Vec::new();
        for (pattern, span) in patterns {
            match self.matches(&directory, &pattern) {
                Ok(found) if found.is_empty() => {
                    let message = format!("no file matches {}", quoted(&pattern));
                    let finding = Finding::warning(span, message)
                        .label("expected at least one; files that appear later are read too");
                    self.sources.problems.push((at, finding));
                }
                Ok(found) => files.extend(found.into_iter().map(|file| (file, span.clone()))),
                Err(label) => {
                    let message = format!("{} cannot be included", quoted(&pattern));
                    let finding = Finding::error(span, message).label(label);
                    self.sources.problems.push((at, finding));
                }
            }
        }
        files.sort_by(|one, other| one.0.as_os_str().cmp(other.0.as_os_str()));
        for (file, span) in files {
            if !self.known.insert(real(&file)) {
                continue;
            }
            if let Err(error) = self.read(&file, true) {
                let name = quoted(&file.display().to_string());
                let finding =
                    Finding::error(span, format!("{name} cannot be read")).label(error.to_string());
                self.sources.problems.push((at, finding));
            }
        }
    }

    /// The files that a pattern of a file in `directory` matches.
    fn matches(&mut self, directory: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
        if pattern.is_empty() {
            return Err(
                "expected the path of a file, or a pattern such as \"sites/*.toml\"".into(),
            );
        }
        if !pattern.contains(['*', '?', '[']) {
            // It is read, and an error of that is reported.
            return Ok(vec![directory.join(pattern)]);
        }
        if pattern.contains("**") {
            return Err(
                "expected `*` within one part of the path; `**` is not supported".to_owned(),
            );
        }
        let whole = match (Path::new(pattern).is_absolute(), directory.to_str()) {
            (true, _) | (_, Some("")) => pattern.to_owned(),
            (_, Some(directory)) => format!("{}/{pattern}", Pattern::escape(directory)),
            (_, None) => return Err("the directory of this file is not UTF-8 text".to_owned()),
        };
        let paths = glob_with(&whole, MATCH).map_err(|error| error.msg.to_owned())?;
        let last = pattern.rsplit('/').next().unwrap_or(pattern);
        if let (Ok(last), Some(folder)) = (Pattern::new(last), literal_folder(directory, pattern)) {
            self.sources.folders.push((folder, last));
        }
        // A directory that cannot be read has no files.
        let files = paths.flatten().filter(|path| !path.is_dir());
        Ok(files.take(MAX_FILES + 1).collect())
    }
}

/// The directory of a pattern's files, if it is only one.
fn literal_folder(directory: &Path, pattern: &str) -> Option<PathBuf> {
    match pattern.rsplit_once('/') {
        None => Some(directory.to_owned()),
        Some((folder, _)) if folder.contains(['*', '?', '[']) => None,
        Some((folder, _)) => Some(directory.join(folder)),
    }
}

fn toml_files() -> Pattern {
    Pattern::new("*.toml").unwrap_or_default()
}

/// The `*.toml` files of a directory in byte order.
fn files_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let is_toml = path.extension() == Some(OsStr::new("toml"));
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_toml && !hidden && !path.is_dir() {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            let message = format!("a configuration has at most {MAX_FILES} files");
            return Err(io::Error::other(message));
        }
    }
    files.sort_by(|one, other| one.as_os_str().cmp(other.as_os_str()));
    Ok(files)
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The strings of a text's `include`, each with its place. Anything else in it is reported by the reader of the key.
fn patterns_of(bytes: &[u8], environment: &dyn Environment) -> Vec<(String, TextSpan)> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Vec::new();
    };
    // Most files include nothing and are parsed only once.
    if bytes.len() > MAX_FILE || !text.contains("include") {
        return Vec::new();
    }
    let parsed = syntax::parse(text);
    let mut builder = TreeBuilder::new(environment, text, false);
    let Some((key, value)) = parsed.root.into_inner().remove_entry("include") else {
        return Vec::new();
    };
    let mut alone = toml::de::DeTable::new();
    alone.insert(key, value);
    let alone = builder.build(alone, 0);
    let values = match alone.get("include").map(|value| value.get_ref()) {
        Some(DeValue::Array(values)) => values.iter().collect(),
        Some(DeValue::String(_)) => alone.get("include").into_iter().collect(),
        _ => Vec::new(),
    };
    let strings = values.into_iter().take(MAX_PATTERNS).filter_map(|value| {
        let known = !builder.marks.unknown.contains(&value.span().start);
        let text = value.get_ref().as_str().filter(|_| known)?;
        Some((text.to_owned(), value.span()))
    });
    strings.collect()
}
