//! Single values: strings, numbers, durations, sizes, words of a closed set, files. A value that is absent reads as
//! `None` without a word, and a wrong one as `None` with an error.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeValue;

use super::{NamedValue, Reader};
use crate::config::diagnostics::findings::{Finding, quoted};
use crate::config::diagnostics::suggest::one_of;
use crate::config::grammar::{self, DURATION, SIZE};
use crate::config::limits::MAX_KEYS;
use crate::config::secrets::{SecretFile, SecretKind};
use crate::config::sections::words::{self, ConfigWord};
use crate::model::settings::CountOrShare;

/// Files with secrets that are noted. A file that names more is refused, since it has too many keys.
const MAX_SECRETS: usize = MAX_KEYS + 1;

impl Reader<'_> {
    pub(super) fn string<'a>(&mut self, value: Option<NamedValue<'a>>) -> Option<&'a str> {
        let value = value?;
        match value.get() {
            DeValue::String(text) => Some(text),
            _ => {
                self.wrong_type(&value, value.shape);
                None
            }
        }
    }

    /// A string that `parse` takes. Its error is what was expected, and stands at the caret.
    pub(super) fn parsed<'a, T>(
        &mut self,
        value: Option<NamedValue<'a>>,
        parse: impl FnOnce(&'a str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.string(value)?;
        let value = value?;
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(label) => {
                let message = format!("{value} is {}", quoted(text));
                self.error(value.span(), message, label);
                None
            }
        }
    }

    /// The path of a file, which need not exist.
    pub(super) fn path(&mut self, value: Option<NamedValue<'_>>) -> Option<PathBuf> {
        let path = self.parsed(value, grammar::file_path)?;
        let span = value?.span();
        (!self.is_unknown(&span)).then(|| self.beside(&span, path))
    }

    /// The absolute path of a directory, which need not exist.
    pub(super) fn directory(&mut self, value: Option<NamedValue<'_>>) -> Option<PathBuf> {
        let shape = value?.shape;
        self.parsed(value, |text| {
            let legal = text.starts_with('/') && !text.contains('\0');
            legal
                .then(|| PathBuf::from(text))
                .ok_or_else(|| format!("expected {shape}"))
        })
    }

    /// The content of a file that the configuration names, at most `most` bytes.
    pub(super) fn content(
        &mut self,
        value: Option<NamedValue<'_>>,
        most: usize,
    ) -> Option<Arc<[u8]>> {
        let path = self.path(value)?;
        let value = value?;
        let beside = self.directories.first();
        let file = beside.map_or_else(|| path.clone(), |directory| directory.join(&path));
        match self.contents.read(self.environment, &file, most) {
            Ok(content) => Some(content),
            Err(why) => {
                let path = quoted(&path.display().to_string());
                let message = format!("{value} cannot be read: {path}: {why}");
                self.error(value.span(), message, "expected the path of a file");
                None
            }
        }
    }

    /// The path of a file with a secret, which is noted so that the file can be checked.
    pub(super) fn secret(
        &mut self,
        value: Option<NamedValue<'_>>,
        kind: SecretKind,
    ) -> Option<PathBuf> {
        let path = self.path(value)?;
        let span = value?.span();
        if self.secrets.len() < MAX_SECRETS {
            let path = path.clone();
            self.secrets.push(SecretFile { kind, path, span });
        }
        Some(path)
    }

    /// A word of the set of `W`.
    pub(super) fn word_value<W: ConfigWord>(&mut self, value: NamedValue<'_>) -> Option<W> {
        let text = value.get().as_str();
        let found = text.and_then(words::value);
        if found.is_some() {
            return found;
        }
        let known = words::all::<W>();
        let expected = one_of(known.iter().copied(), '"');
        match text {
            None => self.wrong_type(&value, &expected),
            Some(text) => {
                let near = self.suggester.nearest(text, known);
                self.findings.add(
                    Finding::error(value.span(), format!("{value} is {}", quoted(text)))
                        .label(format!("expected {expected}"))
                        .help(near.map(|near| format!("did you mean \"{near}\"?"))),
                );
            }
        }
        None
    }

    pub(super) fn boolean_value(&mut self, value: Option<NamedValue<'_>>) -> Option<bool> {
        let value = value?;
        match value.get() {
            DeValue::Boolean(value) => Some(*value),
            _ => {
                self.wrong_type(&value, "true or false, without quotes");
                None
            }
        }
    }

    pub(super) fn integer_in(
        &mut self,
        value: Option<NamedValue<'_>>,
        range: &RangeInclusive<u64>,
    ) -> Option<u64> {
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        self.whole_number(value?, expected, |number| range.contains(&number))
    }

    /// One of a few numbers.
    pub(super) fn one_number(
        &mut self,
        value: Option<NamedValue<'_>>,
        numbers: &[u64],
    ) -> Option<u64> {
        let expected = || {
            let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
            match words.split_last() {
                Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
                _ => words.concat(),
            }
        };
        self.whole_number(value?, expected, |number| numbers.contains(&number))
    }

    /// A whole number that is `legal`.
    fn whole_number(
        &mut self,
        value: NamedValue<'_>,
        expected: impl FnOnce() -> String,
        legal: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        let DeValue::Integer(integer) = value.get() else {
            self.wrong_type(&value, &expected());
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .and_then(|number| u64::try_from(number).ok())
            .filter(|number| legal(*number));
        if number.is_none() {
            self.out_of_range(&value, &expected());
        }
        number
    }

    /// A share from 0 to 1, or from `"0%"` to `"100%"`. Whole numbers are taken too.
    pub(super) fn ratio(&mut self, value: NamedValue<'_>) -> Option<f64> {
        let number = match value.get() {
            DeValue::String(text) => grammar::share(text),
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().parse().ok(),
            _ => {
                self.wrong_type(&value, value.shape);
                return None;
            }
        };
        let ratio = number.filter(|ratio| (0.0..=1.0).contains(ratio));
        if ratio.is_none() {
            self.out_of_range(&value, value.shape);
        }
        ratio
    }

    /// A whole number in `range`, or a share such as `"50%"`.
    pub(super) fn count_or_share_in(
        &mut self,
        value: Option<NamedValue<'_>>,
        range: &RangeInclusive<u64>,
    ) -> Option<CountOrShare> {
        let value = value?;
        let expected = || {
            format!(
                "a whole number from {} to {}, or a share such as \"50%\"",
                range.start(),
                range.end()
            )
        };
        if let DeValue::String(_) = value.get() {
            return self.parsed(Some(value), |text| match grammar::share(text) {
                Some(share) if share > 0.0 && share <= 1.0 => Ok(CountOrShare::Share(share)),
                Some(_) => Err("expected more than 0% and at most 100%".to_owned()),
                None => Err(format!("expected {}", expected())),
            });
        }
        let count = self.whole_number(value, expected, |count| range.contains(&count))?;
        u32::try_from(count).ok().map(CountOrShare::Count)
    }

    pub(super) fn duration_in(
        &mut self,
        value: Option<NamedValue<'_>>,
        range: &RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let text = self.with_unit(value?, "a duration", ["s", "ms"], DURATION)?;
        self.parsed(Some(text), |text| grammar::duration_in(text, range))
    }

    /// A number of bytes.
    pub(super) fn size_in(
        &mut self,
        value: Option<NamedValue<'_>>,
        range: &RangeInclusive<u64>,
    ) -> Option<u64> {
        let text = self.with_unit(value?, "a size", ["B", "KiB"], SIZE)?;
        self.parsed(Some(text), |text| grammar::size_in(text, range))
    }

    /// A value that is not a number without a unit. That is the most common mistake, so its message shows the right
    /// form.
    fn with_unit<'a>(
        &mut self,
        value: NamedValue<'a>,
        what: &str,
        units: [&str; 2],
        shape: &'a str,
    ) -> Option<NamedValue<'a>> {
        let DeValue::Integer(_) = value.get() else {
            return Some(NamedValue { shape, ..value });
        };
        let number = self.written(&value);
        let [first, second] = units;
        self.error(
            value.span(),
            format!("{value} is a bare number"),
            format!(
                "expected {what} with its unit, such as \"{number}{first}\" or \"{number}{second}\""
            ),
        );
        None
    }

    fn out_of_range(&mut self, value: &NamedValue<'_>, expected: &str) {
        let written = self.written(value);
        let message = format!("{value} is {written}");
        self.error(value.span(), message, format!("expected {expected}"));
    }

    /// The value as it is written in the file, cut if it is long.
    pub(super) fn written(&self, value: &NamedValue<'_>) -> String {
        let text = self.text.get(value.span()).unwrap_or_default();
        if text.starts_with(['"', '\'']) && text.len() <= 60 {
            return text.to_owned();
        }
        quoted(text).trim_matches('"').to_owned()
    }
}
