//! A single value where a table belongs: `retry = 3`, `check = "/healthz"`, `admin = "127.0.0.1:9900"`. What was meant
//! is mostly plain, so the message shows the table.

use toml::de::DeValue;

use super::{Reader, Slot, kind};
use crate::config::diagnostics::findings::Finding;
use crate::config::sections::{self, Section};

impl Reader<'_> {
    /// Reports a value that is not a table with the keys of `section`.
    pub(super) fn not_a_table(&mut self, slot: &Slot<'_>, section: &Section) {
        let written = self.written(slot);
        let help = meant(section, slot.value.get_ref(), &written)
            .map(|table| format!("write {} = {{ {table} }}", slot.name));
        let message = format!("{slot} is {}", kind(slot.value.get_ref()));
        self.findings.add(
            Finding::error(slot.place(), message)
                .label(format!("expected {}", expected(section)))
                .help(help.filter(|_| !slot.entry)),
        );
    }
}

/// What a table of this kind looks like.
fn expected(section: &Section) -> &'static str {
    const SHAPES: [(&Section, &str); 11] = [
        (
            &sections::RETRY,
            "a table such as { attempts = 2 }, the first attempt included",
        ),
        (
            &sections::CHECK,
            "a table such as { http = \"/healthz\" } or { tcp = true }",
        ),
        (
            &sections::ADMIN,
            "a table such as { address = \"127.0.0.1:9900\" }",
        ),
        (&sections::LOG, "a table such as { level = \"info\" }"),
        (
            &sections::LISTENER_TIMEOUTS,
            "a table such as { header = \"10s\", idle = \"75s\" }",
        ),
        (
            &sections::LISTENER_LIMITS,
            "a table such as { connections = 10000 }",
        ),
        (
            &sections::CLUSTER_TIMEOUTS,
            "a table such as { connect = \"1s\", response = \"30s\" }",
        ),
        (
            &sections::CLUSTER_LIMITS,
            "a table such as { idle_connections = 256 }",
        ),
        (
            &sections::REDIRECT,
            "a table such as { to = \"https://{host}{uri}\", status = 308 }",
        ),
        (
            &sections::RESPOND,
            "a table such as { status = 200, body = \"ok\" }",
        ),
        (&sections::DISCOVER, "a table such as { gossip = \"web\" }"),
    ];
    let shape = SHAPES.iter().find(|(known, _)| known.name == section.name);
    shape.map_or("a table", |(_, shape)| shape)
}

/// The entry that holds the value which is `written` so, if it is plain.
fn meant(section: &Section, value: &DeValue<'_>, written: &str) -> Option<String> {
    const STRINGS: [(&Section, &str); 4] = [
        (&sections::CHECK, "http"),
        (&sections::ADMIN, "address"),
        (&sections::LOG, "level"),
        (&sections::DISCOVER, "gossip"),
    ];
    const NUMBERS: [(&Section, &str); 4] = [
        (&sections::RETRY, "attempts"),
        (&sections::LISTENER_LIMITS, "connections"),
        (&sections::CLUSTER_LIMITS, "idle_connections"),
        (&sections::RESPOND, "status"),
    ];
    let entries = match value {
        DeValue::String(_) => &STRINGS[..],
        DeValue::Integer(_) => &NUMBERS[..],
        DeValue::Boolean(true) if section.name == sections::CHECK.name => {
            return Some("tcp = true".to_owned());
        }
        DeValue::Boolean(false) if section.name == sections::RETRY.name => {
            return Some("attempts = 1".to_owned());
        }
        _ => return None,
    };
    let (_, key) = entries
        .iter()
        .find(|(known, _)| known.name == section.name)?;
    Some(format!("{key} = {written}"))
}
