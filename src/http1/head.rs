//! Lines and fields of a head, found in one pass over the buffer.
//!
//! A [`Field`] is a place in the buffer, not a copy; a worker keeps one vector of them and uses it for every head.
//! A head that arrives in pieces is kept by its connection, and [`HeadEnd`] says when parsing it (again) is worth
//! the while, so that the cost stays linear in the bytes however small the pieces are.

use super::Refusal;
use super::field::{FieldName, TOKEN, trim, value_run};

/// Empty lines that may stand before a request line (RFC 9112 2.2).
pub const EMPTY_LINES: usize = 4;

/// Bounds of a head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes, line ends included.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
    /// Bytes of a request target.
    pub target: usize,
}

/// One field line, as places in its buffer.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// What the name is.
    pub name: FieldName,
    start: u32,
    name_len: u32,
    value_start: u32,
    value_len: u32,
}

impl Field {
    /// The name as it was sent.
    pub fn name_in<'b>(&self, buffer: &'b [u8]) -> &'b [u8] {
        &buffer[self.start as usize..(self.start + self.name_len) as usize]
    }

    /// The value without white space at its ends.
    pub fn value_in<'b>(&self, buffer: &'b [u8]) -> &'b [u8] {
        &buffer[self.value_start as usize..(self.value_start + self.value_len) as usize]
    }
}

/// A line without its CRLF, and where the next one begins.
pub(super) struct Line {
    pub(super) end: usize,
    pub(super) next: usize,
}

/// The first line from `start`; `None` while it is not whole.
pub(super) fn line(buffer: &[u8], start: usize) -> Result<Option<Line>, Refusal> {
    let Some(found) = memchr::memchr2(b'\r', b'\n', &buffer[start..]) else {
        return Ok(None);
    };
    let end = start + found;
    match (buffer[end], buffer.get(end + 1)) {
        (b'\r', Some(b'\n')) => Ok(Some(Line { end, next: end + 2 })),
        (b'\r', None) => Ok(None),
        _ => Err(Refusal::BareLineEnd),
    }
}

/// Reads the field lines from `start` to the empty line; `fields` is filled anew. Returns the place behind the
/// empty line, or `None` while the section is not whole.
pub(super) fn fields(
    buffer: &[u8],
    start: usize,
    most: usize,
    fields: &mut Vec<Field>,
) -> Result<Option<usize>, Refusal> {
    fields.clear();
    let mut at = start;
    loop {
        match buffer.get(at..at + 2) {
            Some(b"\r\n") => return Ok(Some(at + 2)),
            Some(_) => {}
            None => match buffer.get(at) {
                Some(b'\n') => return Err(Refusal::BareLineEnd),
                _ => return Ok(None),
            },
        }
        let Some((field, next)) = field(buffer, at)? else {
            return Ok(None);
        };
        if fields.len() == most {
            return Err(Refusal::TooManyFields);
        }
        fields.push(field);
        at = next;
    }
}

/// Reads one field line; `None` while it is not whole.
fn field(buffer: &[u8], start: usize) -> Result<Option<(Field, usize)>, Refusal> {
    let mut at = start;
    while at < buffer.len() && TOKEN[usize::from(buffer[at])] {
        at += 1;
    }
    match buffer.get(at) {
        None => return Ok(None),
        Some(b':') if at > start => {}
        Some(b'\n') => return Err(Refusal::BareLineEnd),
        Some(_) => return Err(Refusal::FieldSyntax),
    }
    let name_len = at - start;
    at += 1;
    while at < buffer.len() && matches!(buffer[at], b' ' | b'\t') {
        at += 1;
    }
    let value_start = at;
    at += value_run(&buffer[at..]);
    match (buffer.get(at), buffer.get(at + 1)) {
        (None, _) | (Some(b'\r'), None) => return Ok(None),
        (Some(b'\r'), Some(b'\n')) => {}
        (Some(b'\r' | b'\n'), _) => return Err(Refusal::BareLineEnd),
        _ => return Err(Refusal::FieldSyntax),
    }
    let value = trim(&buffer[value_start..at]);
    let field = Field {
        name: FieldName::of(&buffer[start..start + name_len]),
        start: start as u32,
        name_len: name_len as u32,
        value_start: value_start as u32,
        value_len: value.len() as u32,
    };
    Ok(Some((field, at + 2)))
}

/// Length of the empty lines that `buffer` begins with, as far as more than [`EMPTY_LINES`] of them.
pub fn empty_lines(buffer: &[u8]) -> usize {
    let lines = buffer.chunks_exact(2).take(EMPTY_LINES + 1);
    2 * lines.take_while(|line| *line == b"\r\n").count()
}

/// Looks for the end of a head that arrives in pieces, each byte once.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadEnd {
    scanned: u32,
}

impl HeadEnd {
    /// Whether it is time to parse `buffer`: the empty line is there, or an LF that no CR precedes, or it is over
    /// `limit` bytes, or there are too many empty lines before it. `buffer` only ever grows between calls.
    pub fn is_due(&mut self, buffer: &[u8], limit: usize) -> bool {
        // The empty lines before a head do not end it, else it would be parsed anew with each byte that follows.
        let before = empty_lines(buffer);
        if before > 2 * EMPTY_LINES {
            return true;
        }
        let mut at = before.max(self.scanned as usize);
        while let Some(found) = memchr::memchr(b'\n', &buffer[at..]) {
            let lf = at + found;
            at = lf + 1;
            let bare = lf == 0 || buffer[lf - 1] != b'\r';
            let empty = lf >= 3 && buffer[lf - 3..lf] == *b"\r\n\r";
            if bare || empty {
                return true;
            }
        }
        self.scanned = buffer.len() as u32;
        buffer.len() > limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Vec<(String, String)>>, Refusal> {
        let mut found = Vec::new();
        let end = fields(text.as_bytes(), 0, 10, &mut found)?;
        Ok(end.map(|_| {
            let text_of = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
            found
                .iter()
                .map(|f| {
                    (
                        text_of(f.name_in(text.as_bytes())),
                        text_of(f.value_in(text.as_bytes())),
                    )
                })
                .collect()
        }))
    }

    #[test]
    fn field_lines() {
        let pairs = parse("A: b\r\nc-d:\t x  y \r\nempty:\r\n\r\n")
            .unwrap()
            .unwrap();
        let expected = [("A", "b"), ("c-d", "x  y"), ("empty", "")];
        assert_eq!(pairs, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(parse("\r\n").unwrap().unwrap(), []);
    }

    #[test]
    fn what_is_no_field_line_is_refused() {
        for (text, refusal) in [
            ("a : b\r\n\r\n", Refusal::FieldSyntax),
            (": b\r\n\r\n", Refusal::FieldSyntax),
            ("a\r\n\r\n", Refusal::FieldSyntax),
            ("a: b\r\n c\r\n\r\n", Refusal::FieldSyntax),
            ("a: b\0c\r\n\r\n", Refusal::FieldSyntax),
            ("a: b\x7f\r\n\r\n", Refusal::FieldSyntax),
            ("a: b\n\r\n", Refusal::BareLineEnd),
            ("a: b\rc\r\n\r\n", Refusal::BareLineEnd),
            ("a: b\r\n\n", Refusal::BareLineEnd),
            ("a\n", Refusal::BareLineEnd),
        ] {
            assert_eq!(parse(text), Err(refusal), "{text:?}");
        }
        let many = "a: b\r\n".repeat(11) + "\r\n";
        assert_eq!(parse(&many), Err(Refusal::TooManyFields));
        assert!(parse(&("a: b\r\n".repeat(10) + "\r\n")).unwrap().is_some());
    }

    #[test]
    fn every_prefix_is_incomplete() {
        let text = "Name: value\r\nOther: x\r\n\r\n";
        for cut in 0..text.len() {
            assert_eq!(parse(&text[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn the_end_of_a_head_is_found_in_any_cut() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut end = HeadEnd::default();
        for cut in 0..head.len() {
            assert!(!end.is_due(&head[..cut], 100), "{cut}");
        }
        assert!(end.is_due(head, 100));
        assert!(
            HeadEnd::default().is_due(b"GET / HTTP/1.1\nHost", 100),
            "a bare LF is worth parsing"
        );
        assert!(HeadEnd::default().is_due(&[b'a'; 101], 100));
    }

    #[test]
    fn empty_lines_before_a_head_do_not_end_it() {
        let head = b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut end = HeadEnd::default();
        for cut in 0..head.len() {
            assert!(!end.is_due(&head[..cut], 100), "{cut}");
        }
        assert!(end.is_due(head, 100));
        let many = b"\r\n".repeat(EMPTY_LINES + 1);
        assert!(HeadEnd::default().is_due(&many, 100));
        assert!(HeadEnd::default().is_due(b"\r\n\nG", 100), "a bare LF");
    }
}
