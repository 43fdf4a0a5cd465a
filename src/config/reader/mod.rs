//! Typed readers over the parsed file: one small function for each table. A reader never stops at an error. It adds a
//! [`Finding`] and continues with a default, so that one run reports everything; a file with an error is never applied,
//! so that default is never used.
//!
//! [`CheckedTable`] and [`Setting`] are the cursor. [`settings`] reads what the declaration of a key says (type, range,
//! default), [`values`] reads single values, and the other files read one table each. Together they make a
//! [`Draft`](super::draft::Draft): the configuration, and the places at which contradictions between its parts are
//! reported.

mod agent;
mod answers;
mod check;
mod cluster;
mod defaults;
mod for_requests;
mod gossip;
mod http_version;
mod listener;
mod not_a_table;
mod route;
mod settings;
mod top;
mod values;

use std::fmt;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::contents::Contents;
use super::diagnostics::findings::{Finding, Findings, Texts, quoted};
use super::diagnostics::suggest::{Suggester, one_of};
use super::environment::Environment;
use super::secrets::SecretFile;
use super::sections::top::TOP;
use super::sections::{self, KeySpec, Section, ValueKind};
use super::span::TextSpan;
use super::tree::Marks;

pub(super) use agent::agent;
pub(super) use top::file;

/// What all readers share.
pub(super) struct Reader<'t> {
    /// The text of the file, or all texts joined.
    pub text: &'t str,
    /// Where each text begins.
    pub texts: &'t Texts<'t>,
    /// The absolute directory of each text; empty if they have none.
    pub directories: &'t [PathBuf],
    /// Provides what is not in the texts.
    pub environment: &'t dyn Environment,
    /// What is known of the values.
    pub marks: Marks,
    /// Everything that has been found so far.
    pub findings: Findings,
    /// Finds similar words.
    pub suggester: Suggester,
    /// Whether the text was valid TOML. If not, what seems to be missing may only be hidden.
    pub whole: bool,
    /// Files with secrets that have been named so far.
    pub secrets: Vec<SecretFile>,
    /// Contents of the files that have been named so far.
    pub contents: Contents,
}

/// A value and what messages say of it.
#[derive(Clone, Copy)]
struct NamedValue<'a> {
    name: &'a str,
    /// Whether it is an entry of the array of that name.
    is_entry: bool,
    /// What should be there, as a noun phrase that can follow "expected".
    shape: &'a str,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> NamedValue<'a> {
    /// An entry of a table whose keys are not declared, such as the fields of `headers`.
    fn of_entry(name: &'a str, shape: &'a str, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self {
            name,
            is_entry: false,
            shape,
            value,
        }
    }

    fn get(&self) -> &'a DeValue<'a> {
        self.value.get_ref()
    }

    fn span(&self) -> TextSpan {
        self.value.span()
    }
}

impl fmt::Display for NamedValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_entry {
            f.write_str("an entry of ")?;
        }
        write!(f, "`{}`", self.name)
    }
}

/// A declared key with the value that a table has for it, if it has one.
#[derive(Clone, Copy)]
struct Setting<'a> {
    key: &'static KeySpec,
    value: Option<NamedValue<'a>>,
}

/// A table whose unknown keys have been reported.
struct CheckedTable<'a> {
    /// `None`: the table is not there, and neither is any key.
    entries: Option<&'a DeTable<'a>>,
    span: TextSpan,
    section: &'static Section,
}

impl<'a> CheckedTable<'a> {
    /// A table in which nothing is written.
    fn empty(section: &'static Section, span: TextSpan) -> Self {
        Self {
            entries: None,
            span,
            section,
        }
    }

    /// One of the section's keys.
    fn get(&self, name: &'static str) -> Setting<'a> {
        let Some(key) = self.section.key(name) else {
            debug_assert!(
                false,
                "`{name}` is read but not declared in {}",
                self.section.name
            );
            return Setting {
                key: &sections::UNDECLARED,
                value: None,
            };
        };
        let value = self.entries.and_then(|entries| entries.get(name));
        #[cfg(test)]
        if value.is_some() {
            sections::seen::note(self.section.name, key.name);
        }
        let value = value.map(|value| NamedValue::of_entry(key.name, key.shape(), value));
        Setting { key, value }
    }

    /// The value of one of the section's keys.
    fn value(&self, name: &'static str) -> Option<NamedValue<'a>> {
        self.get(name).value
    }

    /// Where the value of a key is, or else the table.
    fn span_of(&self, name: &'static str) -> TextSpan {
        self.value(name)
            .map_or_else(|| self.span.clone(), |value| value.span())
    }
}

impl Reader<'_> {
    fn error(&mut self, span: TextSpan, message: impl Into<String>, label: impl Into<String>) {
        self.findings
            .add(Finding::error(span, message).label(label));
    }

    pub(super) fn warning(
        &mut self,
        span: TextSpan,
        message: impl Into<String>,
        label: impl Into<String>,
    ) {
        self.findings
            .add(Finding::warning(span, message).label(label));
    }

    /// Warns of a key that has no effect, unless it is a default that has an effect elsewhere.
    pub(super) fn warn_of_no_effect(&mut self, key: &str, span: &TextSpan, on: &str) {
        if !self.marks.inherited.contains(&span.start) {
            let message = format!("`{key}` on {on}");
            self.warning(span.clone(), message, "it has no effect there");
        }
    }

    fn wrong_type(&mut self, value: &NamedValue<'_>, expected: &str) {
        self.error(
            value.span(),
            format!("{value} is {}", type_name(value.get())),
            format!("expected {expected}"),
        );
    }

    /// `path` relative to the directory of the configuration, which is that of its first text and may differ from that
    /// of the text that names the path.
    fn beside(&self, span: &TextSpan, path: PathBuf) -> PathBuf {
        let (file, _) = self.texts.locate(span.start);
        match (self.directories.get(file), self.directories.first()) {
            (Some(own), first) if Some(own) != first => own.join(path),
            _ => path,
        }
    }

    /// Whether the value at `span` could not be filled in, which has been reported.
    fn is_unknown(&self, span: &TextSpan) -> bool {
        self.marks.unknown.contains(&span.start)
    }

    /// The table of a key that is declared as one.
    fn table<'a>(&mut self, setting: Setting<'a>) -> Option<CheckedTable<'a>> {
        let section = setting.section()?;
        self.table_of(setting.value?, section)
    }

    /// The table of a key that is declared as one, or an empty table if the key is absent or wrong. Only for tables
    /// without required keys.
    fn table_or_empty<'a>(&mut self, setting: Setting<'a>) -> CheckedTable<'a> {
        let section = setting.section().unwrap_or(&TOP);
        let span = setting.value.map_or(0..0, |value| value.span());
        let table = self.table(setting);
        table.unwrap_or_else(|| CheckedTable::empty(section, span))
    }

    /// A value as a table of `section`.
    fn table_of<'a>(
        &mut self,
        value: NamedValue<'a>,
        section: &'static Section,
    ) -> Option<CheckedTable<'a>> {
        let DeValue::Table(entries) = value.get() else {
            self.not_a_table(&value, section);
            return None;
        };
        Some(self.checked(entries, value.span(), section))
    }

    /// Reports the keys that are not keys of `section`.
    fn checked<'a>(
        &mut self,
        entries: &'a DeTable<'a>,
        span: TextSpan,
        section: &'static Section,
    ) -> CheckedTable<'a> {
        for key in entries.keys() {
            if section.key(key.get_ref()).is_none() {
                self.unknown_key(key.get_ref(), key.span(), section);
            }
        }
        CheckedTable {
            entries: Some(entries),
            span,
            section,
        }
    }

    fn unknown_key(&mut self, key: &str, span: TextSpan, section: &'static Section) {
        let near = self.suggester.nearest(key, section.names());
        let help = match (near, sections::only_home(key, section)) {
            (Some(near), _) => Some(format!("did you mean `{near}`?")),
            (None, Some(home)) if home.name == TOP.name => Some(format!(
                "`{key}` belongs at the top of the file, before the first section"
            )),
            (None, Some(home)) => Some(format!("`{key}` is a key of {}", home.name)),
            (None, None) => None,
        };
        let label = format!("expected {}", one_of(section.names(), '`'));
        let key = quoted(key);
        let message = format!(
            "unknown key `{}` in {}",
            key.trim_matches('"'),
            section.name
        );
        self.findings
            .add(Finding::error(span, message).label(label).help(help));
    }

    /// A key that the table means nothing without.
    fn required<'a>(
        &mut self,
        table: &CheckedTable<'a>,
        name: &'static str,
    ) -> Option<NamedValue<'a>> {
        let setting = table.get(name);
        if setting.value.is_none() && self.whole {
            self.error(
                table.span.clone(),
                format!("{} has no `{name}`", table.section.name),
                format!("expected `{name} = …` in it, {}", setting.key.shape()),
            );
        }
        setting.value
    }
}

impl Setting<'_> {
    /// The section of a key that is declared as a table.
    fn section(&self) -> Option<&'static Section> {
        match self.key.kind {
            ValueKind::Table(section) | ValueKind::Tables(section) => Some(section),
            _ => self.misread(),
        }
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
