//! Finds the lines and fields of a head in one pass over the buffer, and copies fields into another head.
//!
//! A [`Field`] is a range of the buffer, not a copy; a worker has one vector of them and reuses it for every head. A
//! head that arrives in pieces is buffered by its connection, and [`HeadEnd`] says when it is worth parsing (again), so
//! that the cost stays linear in the bytes however small the pieces are.

use super::Refusal;
use super::field::{FieldName, TOKEN, trim, value_run};

/// Most empty lines before a request line (RFC 9112 2.2).
pub(crate) const EMPTY_LINES: usize = 4;

/// Size limits of a head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Most bytes, line ends included.
    pub bytes: usize,
    /// Most field lines.
    pub fields: usize,
    /// Most bytes of a request target.
    pub target: usize,
}

/// One field line, as ranges of its buffer.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The recognized name.
    pub name: FieldName,
    /// Whether a Connection field of the same message names it, so that it applies to one hop only.
    pub hop_by_hop: bool,
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

    /// The value without surrounding white space.
    pub fn value_in<'b>(&self, buffer: &'b [u8]) -> &'b [u8] {
        &buffer[self.value_start as usize..(self.value_start + self.value_len) as usize]
    }
}

/// Copies field lines to forward into a head. Adjacent lines that are in their buffer exactly as they would be written,
/// as most are, are copied in one piece.
pub(crate) struct FieldCopier<'b> {
    buffer: &'b [u8],
    /// Start of the piece that is still to be copied.
    start: usize,
    end: usize,
}

impl<'b> FieldCopier<'b> {
    /// Starts with nothing to copy from `buffer`.
    pub(crate) fn new(buffer: &'b [u8]) -> Self {
        Self {
            buffer,
            start: 0,
            end: 0,
        }
    }

    /// Adds the next field to forward. [`Self::flush`] must follow before anything else is written to `out`.
    pub(crate) fn push(&mut self, out: &mut Vec<u8>, field: &Field) {
        let (start, end) = (
            field.start as usize,
            (field.value_start + field.value_len) as usize,
        );
        if start != self.end {
            self.flush(out);
            self.start = start;
        }
        let colon = start + field.name_len as usize;
        let is_plain = self.buffer[colon..].starts_with(b": ")
            && field.value_start as usize == colon + 2
            && self.buffer[end..].starts_with(b"\r\n");
        if is_plain {
            self.end = end + 2;
            return;
        }
        self.end = start;
        self.flush(out);
        out.extend_from_slice(field.name_in(self.buffer));
        out.extend_from_slice(b": ");
        out.extend_from_slice(field.value_in(self.buffer));
        out.extend_from_slice(b"\r\n");
    }

    /// Copies the pending piece, if there is one.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.buffer[self.start..self.end]);
        self.start = self.end;
    }
}

/// Where a line ends, without its CRLF, and where the next one begins.
pub(super) struct LineBounds {
    pub(super) end: usize,
    pub(super) next: usize,
}

/// Finds the line that begins at `start`; `None` while it is incomplete.
pub(super) fn line(buffer: &[u8], start: usize) -> Result<Option<LineBounds>, Refusal> {
    let Some(found) = memchr::memchr2(b'\r', b'\n', &buffer[start..]) else {
        return Ok(None);
    };
    let end = start + found;
    match (buffer[end], buffer.get(end + 1)) {
        (b'\r', Some(b'\n')) => Ok(Some(LineBounds { end, next: end + 2 })),
        (b'\r', None) => Ok(None),
        _ => Err(Refusal::BareLineEnd),
    }
}

/// Refuses a byte at `at` that is not allowed there: with `refusal`, or as a bare line end if it is a lone CR or LF.
/// `None` while that cannot be decided.
pub(super) fn invalid_byte<T>(
    buffer: &[u8],
    at: usize,
    refusal: Refusal,
) -> Result<Option<T>, Refusal> {
    match (buffer.get(at), buffer.get(at + 1)) {
        (None, _) | (Some(b'\r'), None) => Ok(None),
        (Some(b'\r'), Some(b'\n')) => Err(refusal),
        (Some(b'\r' | b'\n'), _) => Err(Refusal::BareLineEnd),
        _ => Err(refusal),
    }
}

/// How white space between a field name and its colon is treated (RFC 9112 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SpaceBeforeColon {
    /// In a request, it is refused: two servers may read two different names.
    Refused,
    /// In a response, it is removed.
    Removed,
}

/// Parses the field lines from `start` to the empty line; `fields` is cleared first. Returns the position after the
/// empty line, or `None` while the section is incomplete.
pub(super) fn parse_fields(
    buffer: &[u8],
    start: usize,
    limit: usize,
    space: SpaceBeforeColon,
    fields: &mut Vec<Field>,
) -> Result<Option<usize>, Refusal> {
    fields.clear();
    let mut at = start;
    while !buffer[at..].starts_with(b"\r\n") {
        let Some((field, next)) = parse_field(buffer, at, space)? else {
            return Ok(None);
        };
        if fields.len() == limit {
            return Err(Refusal::TooManyFields);
        }
        fields.push(field);
        at = next;
    }
    Ok(Some(at + 2))
}

/// Parses one field line and returns the position after it; `None` while it is incomplete.
fn parse_field(
    buffer: &[u8],
    start: usize,
    space: SpaceBeforeColon,
) -> Result<Option<(Field, usize)>, Refusal> {
    let mut at = start;
    while at < buffer.len() && TOKEN[usize::from(buffer[at])] {
        at += 1;
    }
    let name_len = at - start;
    if buffer.get(at) != Some(&b':') && space == SpaceBeforeColon::Removed {
        at += blanks(&buffer[at..]);
    }
    if name_len == 0 || buffer.get(at) != Some(&b':') {
        return invalid_byte(buffer, at, Refusal::FieldSyntax);
    }
    at += 1;
    at += blanks(&buffer[at..]);
    let value_start = at;
    at += value_run(&buffer[at..]);
    if !buffer[at..].starts_with(b"\r\n") {
        return invalid_byte(buffer, at, Refusal::FieldSyntax);
    }
    let value = trim(&buffer[value_start..at]);
    let field = Field {
        name: FieldName::of(&buffer[start..start + name_len]),
        hop_by_hop: false,
        start: start as u32,
        name_len: name_len as u32,
        value_start: value_start as u32,
        value_len: value.len() as u32,
    };
    Ok(Some((field, at + 2)))
}

/// Counts the SP and HTAB bytes at the start of `buffer`.
fn blanks(buffer: &[u8]) -> usize {
    let is_blank = |b: &&u8| matches!(b, b' ' | b'\t');
    buffer.iter().take_while(is_blank).count()
}

/// Length in bytes of the empty lines at the start of `buffer`, up to one more than [`EMPTY_LINES`].
pub(crate) fn empty_lines(buffer: &[u8]) -> usize {
    let lines = buffer.chunks_exact(2).take(EMPTY_LINES + 1);
    2 * lines.take_while(|line| *line == b"\r\n").count()
}

/// Says when a head that arrives in pieces is worth parsing, looking at each byte once: after the start line, so that
/// anything that is not HTTP is refused without waiting for more, and at the end of the head.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadEnd {
    scanned: u32,
    /// Whether the start line is complete.
    started: bool,
}

impl HeadEnd {
    /// Continues with a head of which `beginning` has already been parsed.
    pub fn after(beginning: &[u8]) -> Self {
        let before = empty_lines(beginning);
        Self {
            scanned: beginning.len() as u32,
            started: memchr::memchr(b'\n', &beginning[before..]).is_some(),
        }
    }

    /// Whether it is time to parse `buffer`: the start line or the final empty line has arrived, or a lone CR or LF, or
    /// `buffer` is over `limit` bytes, or too many empty lines precede it. `buffer` may only grow between calls.
    pub fn is_due(&mut self, buffer: &[u8], limit: usize) -> bool {
        // The empty lines before a head do not end it; otherwise it would be parsed again with each byte that follows.
        let before = empty_lines(buffer);
        if before > 2 * EMPTY_LINES {
            return true;
        }
        let mut at = before.max(self.scanned as usize);
        if buffer[before..at].ends_with(b"\r") {
            // The previous call ended at a CR that waited for its LF.
            at -= 1;
        }
        while let Some(found) = memchr::memchr2(b'\r', b'\n', &buffer[at..]) {
            let end = at + found;
            at = end + 2;
            match buffer.get(end..at) {
                None if buffer[end] == b'\r' => break,
                Some(b"\r\n") if end >= 2 && buffer[end - 2..end] == *b"\r\n" => return true,
                Some(b"\r\n") if self.started => {}
                Some(b"\r\n") => {
                    self.started = true;
                    self.scanned = at as u32;
                    return true;
                }
                None | Some(_) => return true,
            }
        }
        self.scanned = buffer.len() as u32;
        buffer.len() > limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use SpaceBeforeColon::{Refused, Removed};

    fn parse(text: &str) -> Result<Option<Vec<(String, String)>>, Refusal> {
        parse_with(Refused, text)
    }

    fn parse_with(
        space: SpaceBeforeColon,
        text: &str,
    ) -> Result<Option<Vec<(String, String)>>, Refusal> {
        let mut found = Vec::new();
        let end = parse_fields(text.as_bytes(), 0, 10, space, &mut found)?;
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
    fn field_lines_are_parsed() {
        let pairs = parse("A: b\r\nc-d:\t x  y \r\nempty:\r\n\r\n")
            .unwrap()
            .unwrap();
        let expected = [("A", "b"), ("c-d", "x  y"), ("empty", "")];
        assert_eq!(pairs, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(parse("\r\n").unwrap().unwrap(), []);
    }

    #[test]
    fn copied_fields_are_written_in_canonical_form() {
        let text = b"A: b\r\nC: d\r\ne:f\r\nG:\th\r\nI:  j\r\nK: l \r\nM:\r\nN : o\r\nP: q\r\n\r\n";
        let lines = [
            "A: b", "C: d", "e: f", "G: h", "I: j", "K: l", "M: ", "N: o", "P: q",
        ];
        let mut found = Vec::new();
        parse_fields(text, 0, 10, Removed, &mut found)
            .unwrap()
            .unwrap();
        // Every subset of the fields.
        for chosen in 0_u32..1 << found.len() {
            let is_chosen = |index: usize| chosen & (1 << index) != 0;
            let (mut out, mut copying) = (Vec::new(), FieldCopier::new(text));
            for (index, field) in found.iter().enumerate() {
                if is_chosen(index) {
                    copying.push(&mut out, field);
                }
            }
            copying.flush(&mut out);
            let expected: String = (0..lines.len())
                .filter(|index| is_chosen(*index))
                .map(|index| format!("{}\r\n", lines[index]))
                .collect();
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{chosen:b}");
        }
    }

    #[test]
    fn malformed_field_lines_are_refused() {
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
    fn white_space_before_a_colon_is_removed_from_responses() {
        let text = "A : b\r\nc\t \t:d\r\ne  :\r\n\r\n";
        let pairs = parse_with(Removed, text).unwrap().unwrap();
        let expected = [("A", "b"), ("c", "d"), ("e", "")];
        assert_eq!(pairs, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        for cut in 0..text.len() {
            assert_eq!(parse_with(Removed, &text[..cut]), Ok(None), "{cut}");
        }
        for text in [
            " : b\r\n\r\n",
            ": b\r\n\r\n",
            " a: b\r\n\r\n",
            "a b: c\r\n\r\n",
            "a \r\n\r\n",
            "a \x0b: b\r\n\r\n",
            "a: b\r\n : c\r\n\r\n",
        ] {
            let refused = Err(Refusal::FieldSyntax);
            assert_eq!(parse_with(Removed, text), refused, "{text:?}");
        }
    }

    #[test]
    fn every_prefix_is_incomplete() {
        let text = "Name: value\r\nOther: x\r\n\r\n";
        for cut in 0..text.len() {
            assert_eq!(parse(&text[..cut]), Ok(None), "{cut}");
        }
    }

    /// The lengths at which parsing is due.
    fn due(head: &[u8]) -> Vec<usize> {
        let mut end = HeadEnd::default();
        (0..=head.len())
            .filter(|cut| end.is_due(&head[..*cut], 100))
            .collect()
    }

    #[test]
    fn a_head_is_due_after_its_first_line_and_at_its_end() {
        assert_eq!(due(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), [16, 27]);
        assert_eq!(due(b"\r\n\r\nGET /\r\nHost: a\r\n\r\n"), [11, 22]);
        assert_eq!(due(b"HTTP/1.1 200\r\n\r\n"), [14, 16]);
        let whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 0..whole.len() {
            let mut end = HeadEnd::after(&whole[..cut]);
            assert!(!end.is_due(&whole[..cut], 100), "{cut}");
            assert!(end.is_due(whole, 100), "{cut}");
        }
    }

    #[test]
    fn a_head_that_can_only_be_refused_is_due_at_once() {
        for (head, at) in [
            (b"GET / HTTP/1.1\nHost".as_slice(), 15),
            (b"\n", 1),
            (b"GET /\rHost: a", 7),
            (b"\r\r", 2),
            (b"\r\n\nG", 3),
        ] {
            assert_eq!(due(head).first(), Some(&at), "{}", head.escape_ascii());
        }
        let many = b"\r\n".repeat(EMPTY_LINES + 1);
        assert_eq!(due(&many), [many.len()]);
        assert!(HeadEnd::default().is_due(&[b'a'; 101], 100));
        assert!(!HeadEnd::default().is_due(&[b'a'; 100], 100));
    }
}
