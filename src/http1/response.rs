//! Parses response heads (RFC 9112 4): status line, framing, connection options. Backends are not trusted either.

use super::connection_options::{ConnectionOptions, mark_hop_by_hop};
use super::field::{FieldName, VALUE, list, trim};
use super::head::{Field, HeadLimits, SpaceBeforeColon, line, parse_fields};
use super::request::{content_length, version};
use super::{Framing, Refusal, Version};

/// Size limits of a response head.
pub const LIMITS: HeadLimits = HeadLimits {
    bytes: 64 << 10,
    fields: 256,
    target: 0,
};

/// Most interim responses that are forwarded before one final response; any more are read and dropped.
pub const INTERIM_RESPONSES: u32 = 256;

/// Most bytes of interim response heads that are forwarded before one final response; any more are read and dropped.
pub const INTERIM_BYTES: usize = 128 << 10;

/// A parsed response head. Slices point into the buffer that it was parsed from.
#[derive(Debug, Clone, Copy)]
pub struct ResponseHead<'b> {
    /// Bytes of the buffer that the head takes up.
    pub len: usize,
    /// Status code, 100 to 599.
    pub status: u16,
    /// Reason phrase; may be empty.
    pub reason: &'b [u8],
    /// Version of the message, at most HTTP/1.1.
    pub version: Version,
    /// How the end of the body is found.
    pub framing: Framing,
    /// Whether trailers of the body may be forwarded: Connection names no field that could be among them.
    pub forwards_trailers: bool,
    /// Content-Length as the field gives it, which responses to HEAD and 304 have although no body follows.
    pub content_length: Option<u64>,
    /// Whether the connection may be reused after this response.
    pub keep_alive: bool,
    /// `Keep-Alive: timeout=N`, in seconds.
    pub keep_alive_timeout: Option<u32>,
}

/// Parses the response head at the start of `buffer`; `field_lines` is cleared first. `to_head` says that it answers a
/// HEAD request. `None` while the head is incomplete.
///
/// # Errors
/// Why the response is refused.
pub fn parse<'b>(
    buffer: &'b [u8],
    to_head: bool,
    field_lines: &mut Vec<Field>,
) -> Result<Option<ResponseHead<'b>>, Refusal> {
    let Some(status_line) = status_line(buffer)? else {
        return too_large(buffer);
    };
    let space = SpaceBeforeColon::Removed;
    let Some(len) = parse_fields(buffer, status_line.next, LIMITS.fields, space, field_lines)?
    else {
        return too_large(buffer);
    };
    if len > LIMITS.bytes {
        return Err(Refusal::HeadTooLarge);
    }
    interpret(buffer, &status_line, field_lines, len, to_head).map(Some)
}

fn too_large<'b>(buffer: &[u8]) -> Result<Option<ResponseHead<'b>>, Refusal> {
    if buffer.len() > LIMITS.bytes {
        Err(Refusal::HeadTooLarge)
    } else {
        Ok(None)
    }
}

struct StatusLine<'b> {
    version: Version,
    status: u16,
    reason: &'b [u8],
    /// Where the field lines begin.
    next: usize,
}

fn status_line(buffer: &[u8]) -> Result<Option<StatusLine<'_>>, Refusal> {
    let expected = b"HTTP/1.";
    let shown = buffer.len().min(expected.len());
    if buffer[..shown] != expected[..shown] {
        return Err(Refusal::Malformed);
    }
    let Some(end) = line(buffer, 0)? else {
        return Ok(None);
    };
    let text = &buffer[..end.end];
    if text.len() < 12 || text[8] != b' ' {
        return Err(Refusal::Malformed);
    }
    let version = version(&text[..8])?;
    let code = &text[9..12];
    if !code.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::Malformed);
    }
    let status = code
        .iter()
        .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    // Some servers omit the space before an empty reason phrase.
    let reason = match text.get(12) {
        None => &text[12..],
        Some(b' ') => &text[13..],
        Some(_) => return Err(Refusal::Malformed),
    };
    if !(100..=599).contains(&status) || !reason.iter().all(|b| VALUE[usize::from(*b)]) {
        return Err(Refusal::Malformed);
    }
    Ok(Some(StatusLine {
        version,
        status,
        reason,
        next: end.next,
    }))
}

/// What the fields of a head say, collected in one pass.
#[derive(Default)]
struct ResponseFields {
    content_length: Option<u64>,
    chunked: bool,
    connection: ConnectionOptions,
    keep_alive_timeout: Option<u32>,
}

impl ResponseFields {
    /// Whether the fields announce a body that is not empty.
    fn promises_body(&self) -> bool {
        self.chunked || self.content_length.is_some_and(|length| length > 0)
    }
}

fn interpret<'b>(
    buffer: &'b [u8],
    line: &StatusLine<'b>,
    field_lines: &mut [Field],
    len: usize,
    to_head: bool,
) -> Result<ResponseHead<'b>, Refusal> {
    let summary = collect_fields(buffer, field_lines)?;
    let v11 = line.version == Version::V11;
    if summary.chunked && (summary.content_length.is_some() || !v11) {
        return Err(Refusal::AmbiguousFraming);
    }
    if line.status < 200 && summary.promises_body() {
        return Err(Refusal::AmbiguousFraming);
    }
    let length = summary.content_length;
    let framing = if to_head || line.status < 200 || matches!(line.status, 204 | 304) {
        Framing::None
    } else if summary.chunked {
        Framing::Chunked
    } else {
        length.map_or(Framing::UntilClose, Framing::Length)
    };
    let connection = summary.connection;
    if connection.names_fields {
        mark_hop_by_hop(buffer, field_lines);
    }
    Ok(ResponseHead {
        len,
        status: line.status,
        reason: line.reason,
        version: line.version,
        framing,
        forwards_trailers: !connection.may_name_trailers,
        content_length: length,
        keep_alive: !connection.close
            && framing != Framing::UntilClose
            && !(framing == Framing::None && summary.promises_body())
            && (length == Some(0) || !(to_head || matches!(line.status, 204 | 304)))
            && (v11 || connection.keep_alive),
        keep_alive_timeout: summary.keep_alive_timeout,
    })
}

fn collect_fields(buffer: &[u8], field_lines: &[Field]) -> Result<ResponseFields, Refusal> {
    let mut summary = ResponseFields::default();
    for field in field_lines {
        let value = field.value_in(buffer);
        match field.name {
            FieldName::ContentLength => {
                let length = content_length(value)?;
                if summary.content_length.replace(length).is_some() {
                    return Err(Refusal::BadContentLength);
                }
            }
            FieldName::TransferEncoding => {
                if !value.eq_ignore_ascii_case(b"chunked") || summary.chunked {
                    return Err(Refusal::TransferCoding);
                }
                summary.chunked = true;
            }
            FieldName::FramingLookalike => return Err(Refusal::AmbiguousFraming),
            FieldName::Connection => summary.connection.add(value)?,
            FieldName::KeepAlive => {
                summary.keep_alive_timeout = timeout_of(value).or(summary.keep_alive_timeout);
            }
            _ => {}
        }
    }
    Ok(summary)
}

/// Returns the N of `timeout=N` in a Keep-Alive field.
fn timeout_of(value: &[u8]) -> Option<u32> {
    list(value).find_map(|parameter| {
        let equals = memchr::memchr(b'=', parameter)?;
        let (name, number) = (trim(&parameter[..equals]), trim(&parameter[equals + 1..]));
        if !name.eq_ignore_ascii_case(b"timeout") {
            return None;
        }
        std::str::from_utf8(number).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str, to_head: bool) -> Result<Option<ResponseHead<'_>>, Refusal> {
        parse(text.as_bytes(), to_head, &mut Vec::new())
    }

    fn head(text: &str) -> ResponseHead<'_> {
        parse_text(text, false).unwrap().unwrap()
    }

    #[test]
    fn a_plain_response() {
        let head = head(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: max=3, timeout=7\r\n\r\nhello",
        );
        assert_eq!(
            (head.status, head.reason, head.framing),
            (200, b"OK".as_slice(), Framing::Length(5))
        );
        assert!(head.keep_alive);
        assert_eq!(head.keep_alive_timeout, Some(7));
    }

    #[test]
    fn framing_follows_status_and_method() {
        for (text, framing) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Framing::UntilClose),
            (
                "HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n",
                Framing::Chunked,
            ),
            (
                "HTTP/1.1 200\r\nContent-Length : 5\r\n\r\n",
                Framing::Length(5),
            ),
            (
                "HTTP/1.9 200\r\nTransfer-Encoding\t: CHUNKED\r\n\r\n",
                Framing::Chunked,
            ),
            ("HTTP/1.1 204 \r\nContent-Length: 5\r\n\r\n", Framing::None),
            ("HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", Framing::None),
            ("HTTP/1.1 100 Continue\r\n\r\n", Framing::None),
        ] {
            assert_eq!(head(text).framing, framing, "{text:?}");
        }
        let to_head = parse_text("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true)
            .unwrap()
            .unwrap();
        assert_eq!(
            (to_head.framing, to_head.content_length),
            (Framing::None, Some(5))
        );
    }

    #[test]
    fn connections_are_reused_only_when_it_is_safe() {
        for (text, keep) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                false,
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
                true,
            ),
            ("HTTP/1.1 204 OK\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 204 OK\r\nContent-Length: 1\r\n\r\n", false),
            (
                "HTTP/1.1 204 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                false,
            ),
            ("HTTP/1.1 304 OK\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 304 OK\r\n\r\n", false),
            ("HTTP/1.1 304 OK\r\nContent-Length: 1\r\n\r\n", false),
        ] {
            assert_eq!(head(text).keep_alive, keep, "{text:?}");
        }
    }

    #[test]
    fn refusals() {
        for (text, refusal) in [
            ("HTTP/2 200 OK\r\n\r\n", Refusal::Malformed),
            ("HTTP/1.1 20 OK\r\n\r\n", Refusal::Malformed),
            ("HTTP/1.1 2000 OK\r\n\r\n", Refusal::Malformed),
            ("HTTP/1.1 600 OK\r\n\r\n", Refusal::Malformed),
            ("HTTP/1.1  200 OK\r\n\r\n", Refusal::Malformed),
            ("junk", Refusal::Malformed),
            ("HTTP/1.1 200 OK\n\n", Refusal::BareLineEnd),
            (
                "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
                Refusal::FieldSyntax,
            ),
            (
                "HTTP/1.2 200 OK\r\nContent-Length : 5\r\nContent-Length: 5\r\n\r\n",
                Refusal::BadContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                Refusal::BadContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                Refusal::AmbiguousFraming,
            ),
            (
                "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                Refusal::AmbiguousFraming,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
                Refusal::TransferCoding,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent_Length: 5\r\n\r\n",
                Refusal::AmbiguousFraming,
            ),
            (
                "HTTP/1.1 103 x\r\nContent-Length: 5\r\n\r\n",
                Refusal::AmbiguousFraming,
            ),
            (
                "HTTP/1.1 100 x\r\nTransfer-Encoding: chunked\r\n\r\n",
                Refusal::AmbiguousFraming,
            ),
        ] {
            assert_eq!(
                parse_text(text, false).map(|_| ()),
                Err(refusal),
                "{text:?}"
            );
        }
    }

    #[test]
    fn every_prefix_is_incomplete() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        for cut in 0..text.len() {
            assert!(matches!(parse_text(&text[..cut], false), Ok(None)), "{cut}");
        }
    }
}
