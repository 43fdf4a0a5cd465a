//! Keys that have an effect on requests only, as the declarations say.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::config::sections::{Section, ValueKind};

/// A key and its value.
pub(super) type WrittenKey<'a> = (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>);

/// The entries of a table of `section`, and of the tables in it, that have an effect on requests only.
pub(super) fn entries<'a>(section: &Section, table: &'a DeTable<'a>) -> Vec<WrittenKey<'a>> {
    let mut found = Vec::new();
    for key in section.keys {
        let Some((name, value)) = table.get_key_value(key.name) else {
            continue;
        };
        match (&key.kind, value.get_ref()) {
            _ if key.for_requests => found.push((name, value)),
            (ValueKind::Table(inner), DeValue::Table(table)) => found.extend(entries(inner, table)),
            _ => {}
        }
    }
    found
}
