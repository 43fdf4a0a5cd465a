//! Single values: strings, numbers in a range, durations, sizes, words of a closed set, lists. All take an optional
//! slot, so that an absent key reads as `None` in silence and a wrong one as `None` with an error.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeValue;

use super::{Reader, Slot};
use crate::config::diagnostics::findings::{Finding, quoted};
use crate::config::diagnostics::suggest::one_of;
use crate::config::grammar::{self, DURATION, duration_in, share};
use crate::config::limits::MAX_KEYS;
use crate::config::secrets::{SecretFile, SecretKind};
use crate::model::settings::CountOrShare;
use crate::model::units::{parse_size, show_size};

/// Files with secrets that are noted: more than this are refused as too many keys.
const MAX_SECRETS: usize = MAX_KEYS + 1;

impl Reader<'_> {
    pub(super) fn string<'a>(&mut self, slot: Option<Slot<'a>>, expected: &str) -> Option<&'a str> {
        let slot = slot?;
        match slot.value.get_ref() {
            DeValue::String(text) => Some(text),
            _ => {
                self.wrong_type(&slot, expected);
                None
            }
        }
    }

    /// A string that `parse` understands; its error is what was expected, and stands at the caret.
    pub(super) fn parsed<'a, T>(
        &mut self,
        slot: Option<Slot<'a>>,
        expected: &str,
        parse: impl FnOnce(&'a str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.string(slot, expected)?;
        let slot = slot?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(label) => {
                let message = format!("{slot} is {}", quoted(text));
                self.error(slot.place(), message, label);
                None
            }
        }
    }

    /// Of a file, which need not exist.
    pub(super) fn path(&mut self, slot: Option<Slot<'_>>) -> Option<PathBuf> {
        let path = self.parsed(slot, "the path of a file", grammar::file_path)?;
        let place = slot?.place();
        (!self.is_unknown(&place)).then(|| self.beside(&place, path))
    }

    /// Of a directory, absolute.
    pub(super) fn directory(&mut self, slot: Option<Slot<'_>>) -> Option<PathBuf> {
        let expected = "an absolute path such as \"/var/lib/lbproxy\"";
        self.parsed(slot, expected, |text| {
            let legal = text.starts_with('/') && !text.contains('\0');
            legal
                .then(|| PathBuf::from(text))
                .ok_or_else(|| format!("expected {expected}"))
        })
    }

    /// What a file holds that the configuration names, at most `most` bytes.
    pub(super) fn content(&mut self, slot: Option<Slot<'_>>, most: usize) -> Option<Arc<[u8]>> {
        let path = self.path(slot)?;
        let slot = slot?;
        let beside = self.directories.first();
        let file = beside.map_or_else(|| path.clone(), |directory| directory.join(&path));
        match self.contents.read(self.world, &file, most) {
            Ok(content) => Some(content),
            Err(why) => {
                let path = quoted(&path.display().to_string());
                let message = format!("{slot} cannot be read: {path}: {why}");
                self.error(slot.place(), message, "expected the path of a file");
                None
            }
        }
    }

    /// Of a file with a secret, which is noted to be looked at.
    pub(super) fn secret(&mut self, slot: Option<Slot<'_>>, kind: SecretKind) -> Option<PathBuf> {
        let path = self.path(slot)?;
        let place = slot?.place();
        if self.secrets.len() < MAX_SECRETS {
            let path = path.clone();
            self.secrets.push(SecretFile { kind, path, place });
        }
        Some(path)
    }

    /// A word of a closed set.
    pub(super) fn word<T: Clone>(
        &mut self,
        slot: Option<Slot<'_>>,
        words: &[(&str, T)],
    ) -> Option<T> {
        let known = || words.iter().map(|(word, _)| *word);
        let expected = one_of(known(), '"');
        let text = self.string(slot, &expected)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(value.clone());
        }
        let slot = slot?;
        let near = self.suggester.nearest(text, known());
        self.findings.add(
            Finding::error(slot.place(), format!("{slot} is {}", quoted(text)))
                .label(format!("expected {expected}"))
                .help(near.map(|near| format!("did you mean \"{near}\"?"))),
        );
        None
    }

    pub(super) fn boolean(&mut self, slot: Option<Slot<'_>>) -> Option<bool> {
        let slot = slot?;
        match slot.value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => {
                self.wrong_type(&slot, "true or false, without quotes");
                None
            }
        }
    }

    pub(super) fn integer(
        &mut self,
        slot: Option<Slot<'_>>,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.number(slot, &expected, |value| range.contains(&value))
    }

    /// A whole number that is `legal`.
    pub(super) fn number(
        &mut self,
        slot: Option<Slot<'_>>,
        expected: &str,
        legal: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        let slot = slot?;
        let DeValue::Integer(integer) = slot.value.get_ref() else {
            self.wrong_type(&slot, expected);
            return None;
        };
        let value = i128::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .and_then(|value| u64::try_from(value).ok())
            .filter(|value| legal(*value));
        if value.is_none() {
            let written = self.written(&slot);
            self.error(
                slot.place(),
                format!("{slot} is {written}"),
                format!("expected {expected}"),
            );
        }
        value
    }

    /// A share from 0 to 1, or from `"0%"` to `"100%"`; whole numbers are taken too.
    pub(super) fn ratio(&mut self, slot: Option<Slot<'_>>) -> Option<f64> {
        let slot = slot?;
        let expected = "a ratio from 0.0 to 1.0, or a share such as \"50%\"";
        let number = match slot.value.get_ref() {
            DeValue::String(text) => share(text),
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().parse().ok(),
            _ => {
                self.wrong_type(&slot, expected);
                return None;
            }
        };
        let value = number.filter(|value| (0.0..=1.0).contains(value));
        if value.is_none() {
            let written = self.written(&slot);
            self.error(
                slot.place(),
                format!("{slot} is {written}"),
                format!("expected {expected}"),
            );
        }
        value
    }

    /// A whole number in `range`, or a share such as `"50%"`.
    pub(super) fn count_or_share(
        &mut self,
        slot: Option<Slot<'_>>,
        range: RangeInclusive<u64>,
    ) -> Option<CountOrShare> {
        let expected = format!(
            "a whole number from {} to {}, or a share such as \"50%\"",
            range.start(),
            range.end()
        );
        if let DeValue::String(_) = slot.as_ref()?.value.get_ref() {
            return self.parsed(slot, &expected, |text| match share(text) {
                Some(share) if share > 0.0 && share <= 1.0 => Ok(CountOrShare::Share(share)),
                Some(_) => Err("expected more than 0% and at most 100%".to_owned()),
                None => Err(format!("expected {expected}")),
            });
        }
        let count = self.number(slot, &expected, |value| range.contains(&value))?;
        u32::try_from(count).ok().map(CountOrShare::Count)
    }

    pub(super) fn duration(
        &mut self,
        slot: Option<Slot<'_>>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        self.refuse_bare(&slot, "a duration", ["s", "ms"])?;
        self.parsed(slot, DURATION, |text| duration_in(text, &range))
    }

    /// In bytes.
    pub(super) fn size(
        &mut self,
        slot: Option<Slot<'_>>,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let shape = "a size such as \"512B\", \"64KiB\", \"10MiB\", \"1GiB\" or \"1TiB\"";
        self.refuse_bare(&slot, "a size", ["B", "KiB"])?;
        self.parsed(slot, shape, |text| {
            let value = parse_size(text).map_err(|why| format!("{why}; expected {shape}"))?;
            if range.contains(&value) {
                return Ok(value);
            }
            let (least, most) = (show_size(*range.start()), show_size(*range.end()));
            Err(format!("expected a size from \"{least}\" to \"{most}\""))
        })
    }

    /// Every entry of an array that `read` takes; `None` if it is no array.
    pub(super) fn list<'a, T>(
        &mut self,
        slot: Option<Slot<'a>>,
        expected: &str,
        mut read: impl FnMut(&mut Self, Slot<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let slot = slot?;
        let DeValue::Array(entries) = slot.value.get_ref() else {
            self.not_an_array(&slot, expected);
            return None;
        };
        let entries = entries.iter().map(|value| Slot {
            entry: true,
            value,
            ..slot
        });
        Some(entries.filter_map(|entry| read(self, entry)).collect())
    }

    /// As [`Self::list`], for lists where an empty one would match nothing.
    pub(super) fn filled_list<'a, T>(
        &mut self,
        slot: Option<Slot<'a>>,
        expected: &str,
        read: impl FnMut(&mut Self, Slot<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let list = self.list(slot, expected, read)?;
        let slot = slot?;
        if matches!(slot.value.get_ref(), DeValue::Array(entries) if entries.is_empty()) {
            let label = format!(
                "expected at least one entry; leave `{}` out otherwise",
                slot.name
            );
            self.error(slot.place(), format!("{slot} is an empty array"), label);
            return None;
        }
        Some(list)
    }

    /// One value, or an array of at least one: a list of what `read` takes.
    pub(super) fn one_or_more<'a, T>(
        &mut self,
        slot: Option<Slot<'a>>,
        mut read: impl FnMut(&mut Self, Slot<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let slot = slot?;
        match slot.value.get_ref() {
            DeValue::Array(_) => self.filled_list(Some(slot), "", read),
            _ => read(self, slot).map(|value| vec![value]),
        }
    }

    fn not_an_array(&mut self, slot: &Slot<'_>, expected: &str) {
        let help = matches!(
            slot.value.get_ref(),
            DeValue::String(_) | DeValue::Integer(_)
        )
        .then(|| format!("write [{}]", self.written(slot)));
        self.findings.add(
            Finding::error(
                slot.place(),
                format!("{slot} is {}", super::kind(slot.value.get_ref())),
            )
            .label(format!("expected {expected}"))
            .help(help),
        );
    }

    /// A number without a unit is the most usual mistake, so its message shows the right form.
    fn refuse_bare(&mut self, slot: &Option<Slot<'_>>, what: &str, units: [&str; 2]) -> Option<()> {
        let slot = slot.as_ref()?;
        let DeValue::Integer(_) = slot.value.get_ref() else {
            return Some(());
        };
        let number = self.written(slot);
        let [first, second] = units;
        self.error(
            slot.place(),
            format!("{slot} is a bare number"),
            format!(
                "expected {what} with its unit, such as \"{number}{first}\" or \"{number}{second}\""
            ),
        );
        None
    }

    /// The value as it stands in the file, cut when it is long.
    pub(super) fn written(&self, slot: &Slot<'_>) -> String {
        let text = self.text.get(slot.place()).unwrap_or_default();
        if text.starts_with(['"', '\'']) && text.len() <= 60 {
            return text.to_owned();
        }
        quoted(text).trim_matches('"').to_owned()
    }
}
