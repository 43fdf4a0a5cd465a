//! A single value where a table belongs: `retry = 3`, `check = "/healthz"`, `admin = "127.0.0.1:9900"`. It is mostly
//! clear what was meant, so the message shows the table.

use toml::de::DeValue;

use super::{NamedValue, Reader, type_name};
use crate::config::diagnostics::findings::Finding;
use crate::config::sections::{Meant, Section};

impl Reader<'_> {
    /// Reports a value that is not a table with the keys of `section`.
    pub(super) fn not_a_table(&mut self, value: &NamedValue<'_>, section: &Section) {
        let written = self.written(value);
        let help = meant(section, value.get(), &written)
            .map(|entry| format!("write {} = {{ {entry} }}", value.name));
        let message = format!("{value} is {}", type_name(value.get()));
        self.findings.add(
            Finding::error(value.span(), message)
                .label(format!("expected {}", section.shape))
                .help(help.filter(|_| !value.is_entry)),
        );
    }
}

/// The entry of the table that the value, which is `written` like this, probably stands for.
fn meant(section: &Section, value: &DeValue<'_>, written: &str) -> Option<String> {
    section.meant.iter().find_map(|meant| match (meant, value) {
        (Meant::String(key), DeValue::String(_)) | (Meant::Integer(key), DeValue::Integer(_)) => {
            Some(format!("{key} = {written}"))
        }
        (Meant::Boolean(wanted, entry), DeValue::Boolean(value)) if wanted == value => {
            Some((*entry).to_owned())
        }
        _ => None,
    })
}
