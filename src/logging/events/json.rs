//! A record as JSON: one object a line, `{"time":"…","level":"warn","message":"…","cluster":"web","of":3}`.
//!
//! Numbers and booleans are written as such, everything else as text. What comes from outside cannot forge a record or
//! break a reader: `"`, `\` and all control characters (C0, DEL, C1, the line and paragraph separators) are escaped, as
//! in the access log.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};

use super::with_causes;

/// Writes the fields of an event, after others of the same object.
pub(super) struct JsonFields<'w, W> {
    out: &'w mut W,
    result: fmt::Result,
}

impl<'w, W: Write> JsonFields<'w, W> {
    pub(super) fn new(out: &'w mut W) -> Self {
        Self {
            out,
            result: Ok(()),
        }
    }

    /// Whether all fields could be written.
    pub(super) fn result(self) -> fmt::Result {
        self.result
    }

    fn text(&mut self, field: &Field, value: &str) {
        self.put(field, |out| text(out, value));
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.put(field, |out| write!(out, "{value}"));
    }

    fn put(&mut self, field: &Field, value: impl FnOnce(&mut W) -> fmt::Result) {
        if self.result.is_ok() {
            let out = &mut *self.out;
            // Names of fields are identifiers.
            self.result = write!(out, ",\"{}\":", field.name()).and_then(|()| value(out));
        }
    }
}

impl<W: Write> Visit for JsonFields<'_, W> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.plain(field, value);
        } else {
            self.text(field, &value.to_string());
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, &with_causes(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let shown = format!("{value:?}");
        self.text(field, shown.trim_end());
    }
}

/// A JSON string.
pub(super) fn text(out: &mut impl Write, value: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in value.chars() {
        match c {
            '"' | '\\' => {
                out.write_char('\\')?;
                out.write_char(c)?;
            }
            '\n' => out.write_str("\\n")?,
            // None of them needs a surrogate pair.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                write!(out, "\\u{:04x}", u32::from(c))?;
            }
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}
