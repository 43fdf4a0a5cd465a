//! Typed readers over the parsed file: one small function a table. A reader never stops at an error; it notes a
//! [`Finding`] and goes on with a default, so that one run tells all. Since a file with an error is not applied,
//! a default that stands in for a wrong value is never used.
//!
//! [`Table`] and [`Slot`] are the cursor, [`values`] reads single values, the other files one table each. What the
//! readers return is a [`Draft`](super::draft::Draft): the configuration, and the places that the relations between its
//! parts are reported at.

mod agent;
mod answers;
mod check;
mod cluster;
mod gossip;
mod listener;
mod route;
mod short;
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
use super::sections::{self, Section};
use super::tree::Marks;
use crate::config::span::TextSpan;

pub(super) use agent::agent;
pub(super) use top::file;

type Value<'a> = Spanned<DeValue<'a>>;

/// What all readers share.
pub(super) struct Reader<'t> {
    /// The text of the file; of several, all texts joined.
    pub text: &'t str,
    /// Where each text begins.
    pub texts: &'t Texts<'t>,
    /// The directory of each text, absolute; empty if they have none.
    pub directories: &'t [PathBuf],
    /// Where what is not in the texts is asked for.
    pub world: &'t dyn Environment,
    /// What is known of the values.
    pub marks: Marks,
    /// What was found so far.
    pub findings: Findings,
    /// Finds near words.
    pub suggester: Suggester,
    /// Whether the text was TOML; if not, what seems to be missing may only be hidden.
    pub whole: bool,
    /// Files with secrets that were named so far.
    pub secrets: Vec<SecretFile>,
    /// What the files that were named so far hold.
    pub contents: Contents,
}

/// A value and the name under which messages speak of it.
#[derive(Clone, Copy)]
struct Slot<'a> {
    name: &'a str,
    /// One of an array's entries.
    entry: bool,
    value: &'a Value<'a>,
}

impl Slot<'_> {
    fn place(&self) -> TextSpan {
        self.value.span()
    }
}

impl fmt::Display for Slot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.entry {
            f.write_str("an entry of ")?;
        }
        write!(f, "`{}`", self.name)
    }
}

/// A table whose unknown keys have been reported.
struct Table<'a> {
    entries: &'a DeTable<'a>,
    place: TextSpan,
    section: &'static Section,
}

impl<'a> Table<'a> {
    /// The value of one of the section's keys.
    fn get(&self, key: &'static str) -> Option<Slot<'a>> {
        debug_assert!(
            self.section.keys.contains(&key),
            "{key} is read but not listed in {}",
            self.section.name
        );
        let value = self.entries.get(key)?;
        #[cfg(test)]
        sections::seen::note(self.section.name, key);
        Some(Slot {
            name: key,
            entry: false,
            value,
        })
    }
}

impl Reader<'_> {
    fn error(&mut self, place: TextSpan, message: impl Into<String>, label: impl Into<String>) {
        self.findings
            .add(Finding::error(place, message).label(label));
    }

    /// `path` as those who use it take it: relative to the directory of the configuration, whose first text may be
    /// another than the one that names it.
    fn beside(&self, place: &TextSpan, path: PathBuf) -> PathBuf {
        let (file, _) = self.texts.locate(place.start);
        match (self.directories.get(file), self.directories.first()) {
            (Some(own), first) if Some(own) != first => own.join(path),
            _ => path,
        }
    }

    /// Whether the value there could not be filled in, which was said.
    fn is_unknown(&self, place: &TextSpan) -> bool {
        self.marks.unknown.contains(&place.start)
    }

    pub(super) fn warning(
        &mut self,
        place: TextSpan,
        message: impl Into<String>,
        label: impl Into<String>,
    ) {
        self.findings
            .add(Finding::warning(place, message).label(label));
    }

    /// Of a key that nothing looks at, unless it is a default that others have a use for.
    pub(super) fn warn_of_no_effect(&mut self, key: &str, place: &TextSpan, on: &str) {
        if !self.marks.inherited.contains(&place.start) {
            let message = format!("`{key}` on {on}");
            self.warning(place.clone(), message, "it has no effect there");
        }
    }

    /// A table with the keys of `section`.
    fn table<'a>(
        &mut self,
        slot: Option<Slot<'a>>,
        section: &'static Section,
    ) -> Option<Table<'a>> {
        let slot = slot?;
        let DeValue::Table(entries) = slot.value.get_ref() else {
            self.not_a_table(&slot, section);
            return None;
        };
        Some(self.known(entries, slot.place(), section))
    }

    /// Reports what is not a key of `section`.
    fn known<'a>(
        &mut self,
        entries: &'a DeTable<'a>,
        place: TextSpan,
        section: &'static Section,
    ) -> Table<'a> {
        for key in entries.keys() {
            if !section.keys.contains(&key.get_ref().as_ref()) {
                self.unknown_key(key.get_ref(), key.span(), section);
            }
        }
        Table {
            entries,
            place,
            section,
        }
    }

    fn unknown_key(&mut self, key: &str, place: TextSpan, section: &'static Section) {
        let near = self.suggester.nearest(key, section.keys.iter().copied());
        let help = match (near, sections::only_home(key, section)) {
            (Some(near), _) => Some(format!("did you mean `{near}`?")),
            (None, Some(home)) if home.name == sections::TOP.name => Some(format!(
                "`{key}` belongs at the top of the file, before the first section"
            )),
            (None, Some(home)) => Some(format!("`{key}` is a key of {}", home.name)),
            (None, None) => None,
        };
        let label = format!("expected {}", one_of(section.keys.iter().copied(), '`'));
        let key = quoted(key);
        let message = format!(
            "unknown key `{}` in {}",
            key.trim_matches('"'),
            section.name
        );
        self.findings
            .add(Finding::error(place, message).label(label).help(help));
    }

    /// A key without which the table means nothing.
    fn required<'a>(
        &mut self,
        table: &Table<'a>,
        key: &'static str,
        expected: &str,
    ) -> Option<Slot<'a>> {
        let slot = table.get(key);
        if slot.is_none() && self.whole {
            self.error(
                table.place.clone(),
                format!("{} has no `{key}`", table.section.name),
                format!("expected `{key} = …` in it, {expected}"),
            );
        }
        slot
    }

    fn wrong_type(&mut self, slot: &Slot<'_>, expected: &str) {
        self.error(
            slot.place(),
            format!("{slot} is {}", kind(slot.value.get_ref())),
            format!("expected {expected}"),
        );
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
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
