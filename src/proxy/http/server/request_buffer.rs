//! What is kept of a client's bytes before they are requests, and when it is worth parsing. Pure: the caller reads and
//! parses.
//!
//! Complete requests are parsed where they were read and are not kept. A partial head is kept, at most `header_bytes` and
//! what one read brings; it is parsed again when [`HeadEnd`] says so.

use crate::http1::head::{HeadEnd, empty_lines};
use crate::proxy::buffer::append;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RequestBuffer {
    /// A partial head, or requests after the one at hand.
    pub kept: Vec<u8>,
    scan: HeadEnd,
}

impl RequestBuffer {
    /// Whether no request has begun: empty lines before one are no part of it (RFC 9112 2.2).
    pub(crate) fn is_idle(&self) -> bool {
        empty_lines(&self.kept) == self.kept.len()
    }

    /// The request at hand is over: what is kept is the beginning of the next one.
    pub(crate) fn begin(&mut self) {
        self.scan = HeadEnd::default();
    }

    /// What is kept, if it is worth parsing. The caller says with [`Self::consume`] how much of it was a request.
    pub(crate) fn ready(&mut self, header_bytes: usize) -> Option<&mut [u8]> {
        let is_due = !self.kept.is_empty() && self.scan.is_due(&self.kept, header_bytes);
        is_due.then_some(&mut self.kept)
    }

    /// Drops the first bytes of what is kept.
    pub(crate) fn consume(&mut self, bytes: usize) {
        if bytes == self.kept.len() {
            // A connection holds no memory that it does not need.
            self.kept = Vec::new();
        } else {
            self.kept.drain(..bytes);
        }
    }

    /// Whether bytes that are read now are parsed where they are, because nothing is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Keeps bytes that were read after those that are kept.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        append(&mut self.kept, bytes);
    }

    /// Keeps what is left of bytes that were parsed where they are: of a request, or the beginning of one.
    pub(crate) fn keep_rest(&mut self, rest: &[u8], is_partial: bool) {
        self.kept.extend_from_slice(rest);
        if is_partial {
            self.scan = HeadEnd::after(&self.kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_head_is_parsed_twice_more() {
        let mut buffer = RequestBuffer::default();
        buffer.keep_rest(b"b", false);
        assert_eq!(buffer.kept, b"b");
        buffer.begin();
        let mut looks = Vec::new();
        for (at, byte) in b" c\r\nd: e\r\n\r\n".iter().enumerate() {
            assert!(!buffer.is_empty());
            buffer.append(&[*byte]);
            if let Some(bytes) = buffer.ready(100) {
                looks.push((at, bytes.len()));
            }
        }
        assert_eq!(
            looks,
            [(3, 5), (11, 13)],
            "after its first line, and at its end"
        );
        buffer.consume(13);
        assert_eq!(buffer.kept.capacity(), 0, "at rest it holds nothing");
    }

    #[test]
    fn empty_lines_are_idle() {
        let mut buffer = RequestBuffer::default();
        for (bytes, idle) in [("", true), ("\r\n", true), ("\r", false), ("\nG", false)] {
            buffer.append(bytes.as_bytes());
            assert_eq!(buffer.is_idle(), idle, "{bytes:?}");
        }
    }
}
