//! A record as text: `TIME LEVEL message key=value …`, one line, further lines of the message indented.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use super::with_causes;

/// Writes the message, then ` key=value` for each field.
pub(super) struct TextFields;

impl<'w> FormatFields<'w> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = TextVisitor {
            writer,
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct TextVisitor<'w> {
    writer: Writer<'w>,
    result: fmt::Result,
}

impl TextVisitor<'_> {
    fn put(&mut self, field: &Field, value: &str) {
        if self.result.is_err() {
            return;
        }
        self.result = if field.name() == "message" {
            self.writer
                .write_char(' ')
                .and_then(|()| message(&mut self.writer, value))
        } else {
            write!(self.writer, " {}=", field.name()).and_then(|()| quoted(&mut self.writer, value))
        };
    }
}

impl Visit for TextVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, &with_causes(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
}

/// Writes a message, which may have several lines, but only the first begins at the start of a line.
fn message(out: &mut impl Write, text: &str) -> fmt::Result {
    for (i, line) in text.trim_end().split('\n').enumerate() {
        if i > 0 {
            out.write_str("\n    ")?;
        }
        escaped(out, line)?;
    }
    Ok(())
}

/// Writes a value: one word as it is, anything else in quotes.
fn quoted(out: &mut impl Write, value: &str) -> fmt::Result {
    let word = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\');
    if is_quoted(value) || (!value.is_empty() && value.chars().all(word)) {
        return escaped(out, value);
    }
    out.write_char('"')?;
    for part in value.split_inclusive(['"', '\\']) {
        let plain = part.trim_end_matches(['"', '\\']);
        escaped(out, plain)?;
        if let Some(special) = part[plain.len()..].chars().next() {
            write!(out, "\\{special}")?;
        }
    }
    out.write_char('"')
}

/// Whether a value is one text in quotes already, as the Debug form of a string is.
fn is_quoted(value: &str) -> bool {
    let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    let Some(inner) = inner else { return false };
    let mut escape = false;
    for c in inner.chars() {
        match c {
            _ if escape => escape = false,
            '\\' => escape = true,
            '"' => return false,
            _ => {}
        }
    }
    !escape
}

/// Writes a text with its control characters, C1 included, escaped as Rust does.
fn escaped(out: &mut impl Write, text: &str) -> fmt::Result {
    for c in text.chars() {
        if c.is_control() {
            write!(out, "{}", c.escape_debug())?;
        } else {
            out.write_char(c)?;
        }
    }
    Ok(())
}
