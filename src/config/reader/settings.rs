//! Settings as their keys are declared: type, range and default are those of the declaration.
//!
//! A key that is absent or wrong reads as its default, or as `None` if it has none; a wrong one with an error. The
//! methods named `optional_…` are for keys that may have no default.

use std::time::Duration;

use toml::de::DeValue;

use super::{NamedValue, Reader, Setting};
use crate::config::diagnostics::findings::Finding;
use crate::config::diagnostics::suggest::one_of;
use crate::config::sections::words::{self, ConfigWord};
use crate::config::sections::{Otherwise, ValueKind};
use crate::model::settings::CountOrShare;

impl Setting<'_> {
    /// Stands for a value of a key that is declared as another kind than it is read, which the tests find.
    pub(super) fn misread<T: Default>(&self) -> T {
        debug_assert!(
            false,
            "`{}` is declared as another kind than it is read",
            self.key.name
        );
        T::default()
    }
}

impl<T: Copy> Otherwise<T> {
    fn value(&self) -> Option<T> {
        match self {
            Self::Is(value) => Some(*value),
            Self::Absent(_) | Self::Required => None,
        }
    }
}

impl Reader<'_> {
    pub(super) fn boolean(&mut self, setting: Setting<'_>) -> bool {
        let ValueKind::Boolean(default) = setting.key.kind else {
            return setting.misread();
        };
        self.boolean_value(setting.value).unwrap_or(default)
    }

    /// A whole number or a number of bytes.
    pub(super) fn number<N: TryFrom<u64> + Default>(&mut self, setting: Setting<'_>) -> N {
        self.optional_number(setting)
            .unwrap_or_else(|| setting.misread())
    }

    /// A number of bytes that is at most `most` besides what its declaration says.
    pub(super) fn size_up_to<N: TryFrom<u64> + Default>(
        &mut self,
        setting: Setting<'_>,
        most: u64,
    ) -> N {
        let ValueKind::Size(range, otherwise) = &setting.key.kind else {
            return setting.misread();
        };
        let range = *range.start()..=most.min(*range.end());
        let read = self.size_in(setting.value, &range).or(otherwise.value());
        read.and_then(|size| N::try_from(size.min(most)).ok())
            .unwrap_or_else(|| setting.misread())
    }

    pub(super) fn optional_number<N: TryFrom<u64>>(&mut self, setting: Setting<'_>) -> Option<N> {
        let value = setting.value;
        let (read, default) = match &setting.key.kind {
            ValueKind::Integer(range, otherwise) => {
                (self.integer_in(value, range), otherwise.value())
            }
            ValueKind::Size(range, otherwise) => (self.size_in(value, range), otherwise.value()),
            ValueKind::OneOf(numbers, default) => (self.one_number(value, numbers), Some(*default)),
            _ => setting.misread(),
        };
        N::try_from(read.or(default)?).ok()
    }

    pub(super) fn duration(&mut self, setting: Setting<'_>) -> Duration {
        self.optional_duration(setting)
            .unwrap_or_else(|| setting.misread())
    }

    pub(super) fn optional_duration(&mut self, setting: Setting<'_>) -> Option<Duration> {
        let ValueKind::Duration(range, otherwise) = &setting.key.kind else {
            return setting.misread();
        };
        let read = self.duration_in(setting.value, range);
        read.or(otherwise.value())
    }

    /// A whole number, or a share such as `"50%"`.
    pub(super) fn count_or_share(&mut self, setting: Setting<'_>) -> Option<CountOrShare> {
        let ValueKind::CountOrShare(range, _) = &setting.key.kind else {
            return setting.misread();
        };
        self.count_or_share_in(setting.value, range)
    }

    /// A word of the set of `W`.
    pub(super) fn word<W: ConfigWord>(&mut self, setting: Setting<'_>) -> W {
        if !matches!(setting.key.kind, ValueKind::Word { .. }) {
            return setting.misread();
        }
        let read = setting.value.and_then(|value| self.word_value(value));
        read.unwrap_or_default()
    }

    /// Words of the set of `W`.
    pub(super) fn words<W: ConfigWord>(&mut self, setting: Setting<'_>) -> Vec<W> {
        let ValueKind::Words { default, .. } = setting.key.kind else {
            return setting.misread();
        };
        let read = self.list(setting, |r, value| r.word_value(value));
        read.unwrap_or_else(|| {
            default
                .iter()
                .filter_map(|word| words::value(word))
                .collect()
        })
    }

    /// Every entry of an array that `read` takes; `None` if the key is absent or not an array.
    pub(super) fn list<'a, T>(
        &mut self,
        setting: Setting<'a>,
        mut read: impl FnMut(&mut Self, NamedValue<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let (entry, most) = match setting.key.kind {
            ValueKind::List { entry, most, .. } => (entry, most),
            ValueKind::Words { .. } => ("", usize::MAX),
            _ => return setting.misread(),
        };
        let value = setting.value?;
        let DeValue::Array(entries) = value.get() else {
            let expected = match setting.key.kind {
                ValueKind::Words { words, .. } => format!("an array of {}", one_of(words(), '"')),
                _ => value.shape.to_owned(),
            };
            self.not_an_array(&value, &expected);
            return None;
        };
        if entries.len() > most {
            let message = format!("{value} has {} entries", entries.len());
            self.error(value.span(), message, format!("expected at most {most}"));
        }
        let entries = entries.iter().map(|entry_value| NamedValue {
            is_entry: true,
            shape: entry,
            value: entry_value,
            ..value
        });
        Some(entries.filter_map(|entry| read(self, entry)).collect())
    }

    /// Like [`list`](Self::list), for arrays that must not be empty, since an empty one would match nothing.
    pub(super) fn filled_list<'a, T>(
        &mut self,
        setting: Setting<'a>,
        read: impl FnMut(&mut Self, NamedValue<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let list = self.list(setting, read)?;
        let value = setting.value?;
        if matches!(value.get(), DeValue::Array(entries) if entries.is_empty()) {
            let label = format!(
                "expected at least one entry; leave `{}` out otherwise",
                value.name
            );
            self.error(value.span(), format!("{value} is an empty array"), label);
            return None;
        }
        Some(list)
    }

    /// One value, or an array of at least one.
    pub(super) fn one_or_more<'a, T>(
        &mut self,
        setting: Setting<'a>,
        mut read: impl FnMut(&mut Self, NamedValue<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = setting.value?;
        match value.get() {
            DeValue::Array(_) => self.filled_list(setting, read),
            _ => read(self, value).map(|value| vec![value]),
        }
    }

    pub(super) fn not_an_array(&mut self, value: &NamedValue<'_>, expected: &str) {
        let help = matches!(value.get(), DeValue::String(_) | DeValue::Integer(_))
            .then(|| format!("write [{}]", self.written(value)));
        self.findings.add(
            Finding::error(
                value.span(),
                format!("{value} is {}", super::type_name(value.get())),
            )
            .label(format!("expected {expected}"))
            .help(help),
        );
    }
}
