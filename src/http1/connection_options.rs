//! What a message says about the connection that it arrived on: the options of Connection and the fields that they name
//! (RFC 9110 7.6.1), and offers of another protocol (RFC 9110 7.8).

use super::Refusal;
use super::field::{FieldName, TOKEN, list, trim};
use super::head::Field;

/// Most elements of all Connection fields of a message, empty ones included: each is compared with every field.
pub(crate) const CONNECTION_OPTIONS: usize = 64;

/// Most protocols that a request may offer, and that a 101 may name.
pub(crate) const UPGRADE_PROTOCOLS: usize = 8;

/// What the Upgrade fields of a request offer (RFC 9110 7.8).
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct UpgradeOffers {
    count: usize,
    /// Whether one of them is not a protocol, or is HTTP itself, which would bypass the proxy's parser (RFC 9113 3.1
    /// has withdrawn `h2c`). Then none is accepted.
    invalid: bool,
}

impl UpgradeOffers {
    /// Adds the protocols of one more Upgrade field.
    pub(super) fn add(&mut self, value: &[u8]) {
        for protocol in list(value) {
            self.count += 1;
            let starts = |text: &[u8]| {
                protocol.len() >= text.len() && protocol[..text.len()].eq_ignore_ascii_case(text)
            };
            self.invalid |= !is_protocol(protocol) || starts(b"h2") || starts(b"http");
        }
    }

    /// Whether there are offers and all of them may be forwarded.
    pub(super) fn is_acceptable(self) -> bool {
        (1..=UPGRADE_PROTOCOLS).contains(&self.count) && !self.invalid
    }
}

/// Whether `text` is `name ["/" version]`.
fn is_protocol(text: &[u8]) -> bool {
    let is_token = |part: &[u8]| !part.is_empty() && part.iter().all(|b| TOKEN[usize::from(*b)]);
    let mut parts = text.splitn(2, |b| *b == b'/');
    parts.all(is_token)
}

/// What the Connection fields of a message say (RFC 9110 7.6.1).
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// Whether any option is the name of a field.
    pub(super) names_fields: bool,
    /// Whether one of those names is not a field that is handled specially anyway, so that it may be that of a trailer.
    pub(super) may_name_trailers: bool,
    count: usize,
}

impl ConnectionOptions {
    /// Adds the options of one more Connection field.
    pub(super) fn add(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for option in value.split(|b| *b == b',').map(trim) {
            self.count += 1;
            if self.count > CONNECTION_OPTIONS {
                return Err(Refusal::TooManyFields);
            }
            if !option.iter().all(|b| TOKEN[usize::from(*b)]) {
                return Err(Refusal::FieldSyntax);
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else if !option.is_empty() {
                self.names_fields = true;
                self.may_name_trailers |= FieldName::of(option) == FieldName::Other;
            }
        }
        Ok(())
    }
}

/// Marks the fields that the Connection fields of the message name. Makes at most [`CONNECTION_OPTIONS`] comparisons
/// per field.
pub(super) fn mark_hop_by_hop(buffer: &[u8], field_lines: &mut [Field]) {
    for index in 0..field_lines.len() {
        if field_lines[index].name != FieldName::Connection {
            continue;
        }
        for option in list(field_lines[index].value_in(buffer)) {
            for field in &mut *field_lines {
                field.hop_by_hop |= field.name_in(buffer).eq_ignore_ascii_case(option);
            }
        }
    }
}
