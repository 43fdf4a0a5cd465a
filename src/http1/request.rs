//! Parses request heads (RFC 9112 3): request line, Host, framing, connection options.

use super::connection_options::{ConnectionOptions, UpgradeOffers, mark_hop_by_hop};
use super::field::{FieldName, TARGET, TOKEN, trim};
use super::head::{
    EMPTY_LINES, Field, HeadLimits, SpaceBeforeColon, empty_lines, invalid_byte, line, parse_fields,
};
use super::{Framing, Refusal, Version};

/// Most bytes of a method.
pub const METHOD_BYTES: usize = 32;

/// A parsed request head. Slices point into the buffer that it was parsed from.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'b> {
    /// Bytes of the buffer that the head takes up, including empty lines before it.
    pub len: usize,
    /// Method, case-sensitive.
    pub method: &'b [u8],
    /// Path and query as they are forwarded: origin-form, or `*`.
    pub target: &'b [u8],
    /// Version of the message, at most HTTP/1.1.
    pub version: Version,
    /// Host as it is forwarded: from an absolute-form target, otherwise from the field; `None` only in HTTP/1.0.
    pub host: Option<&'b [u8]>,
    /// How the end of the body is found; never [`Framing::UntilClose`].
    pub framing: Framing,
    /// Whether trailers of the body may be forwarded: Connection names no field that could be among them.
    pub forwards_trailers: bool,
    /// Whether the client wants to reuse the connection.
    pub keep_alive: bool,
    /// Whether `Expect: 100-continue` applies: HTTP/1.1 with a body.
    pub expects_continue: bool,
    /// Whether there is a `Connection: upgrade` with acceptable offers, in HTTP/1.1. If there is a body, it comes
    /// first.
    pub wants_upgrade: bool,
    /// How many more proxies may forward an OPTIONS request, if it says so (RFC 9110 7.6.2).
    pub max_forwards: Option<u32>,
}

impl<'b> RequestHead<'b> {
    /// The path, without the query.
    pub fn path(&self) -> &'b [u8] {
        match memchr::memchr(b'?', self.target) {
            Some(mark) => &self.target[..mark],
            None => self.target,
        }
    }

    /// The query without its `?`.
    pub fn query(&self) -> Option<&'b [u8]> {
        memchr::memchr(b'?', self.target).map(|mark| &self.target[mark + 1..])
    }

    /// Whether sending the request twice has the effect of sending it once (RFC 9110 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(
            self.method,
            b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE"
        )
    }
}

/// Parses the request head at the start of `buffer`; `field_lines` is cleared first. `None` while the head is
/// incomplete.
///
/// # Errors
/// Why the request is refused. Nothing in the buffer may be forwarded then.
pub fn parse<'b>(
    buffer: &'b [u8],
    limits: &HeadLimits,
    field_lines: &mut Vec<Field>,
) -> Result<Option<RequestHead<'b>>, Refusal> {
    let start = skip_empty_lines(buffer)?;
    let Some(request_line) = request_line(buffer, start, limits)? else {
        return too_large(buffer, limits);
    };
    let space = SpaceBeforeColon::Refused;
    let Some(len) = parse_fields(buffer, request_line.next, limits.fields, space, field_lines)?
    else {
        return too_large(buffer, limits);
    };
    if len > limits.bytes {
        return Err(Refusal::HeadTooLarge);
    }
    interpret(buffer, &request_line, field_lines, len).map(Some)
}

/// Whether a request, which may be incomplete or refused, is a HEAD request: a response to it has no body.
pub fn begins_with_head(buffer: &[u8]) -> bool {
    buffer[empty_lines(buffer)..].starts_with(b"HEAD ")
}

fn too_large<'b>(buffer: &[u8], limits: &HeadLimits) -> Result<Option<RequestHead<'b>>, Refusal> {
    if buffer.len() > limits.bytes {
        Err(Refusal::HeadTooLarge)
    } else {
        Ok(None)
    }
}

fn skip_empty_lines(buffer: &[u8]) -> Result<usize, Refusal> {
    let length = empty_lines(buffer);
    if length > 2 * EMPTY_LINES {
        return Err(Refusal::Malformed);
    }
    Ok(length)
}

struct RequestLine<'b> {
    method: &'b [u8],
    target: &'b [u8],
    version: Version,
    next: usize,
}

fn request_line<'b>(
    buffer: &'b [u8],
    start: usize,
    limits: &HeadLimits,
) -> Result<Option<RequestLine<'b>>, Refusal> {
    let mut at = start;
    while at < buffer.len() && TOKEN[usize::from(buffer[at])] {
        at += 1;
    }
    let method = &buffer[start..at];
    match buffer.get(at) {
        _ if method.len() > METHOD_BYTES => return Err(Refusal::MethodTooLong),
        Some(b' ') if !method.is_empty() => {}
        _ => return invalid_byte(buffer, at, Refusal::Malformed),
    }
    let target_start = at + 1;
    at = target_start;
    while at < buffer.len() && TARGET[usize::from(buffer[at])] {
        at += 1;
    }
    let target = &buffer[target_start..at];
    if target.len() > limits.target {
        return Err(Refusal::UriTooLong);
    }
    match buffer.get(at) {
        Some(b' ') if !target.is_empty() => {}
        _ => return invalid_byte(buffer, at, Refusal::BadTarget),
    }
    let Some(end) = line(buffer, at + 1)? else {
        return if buffer.len() - at > 16 {
            Err(Refusal::Malformed)
        } else {
            Ok(None)
        };
    };
    let version = version(&buffer[at + 1..end.end])?;
    Ok(Some(RequestLine {
        method,
        target,
        version,
        next: end.next,
    }))
}

/// Parses the version. A higher minor version is treated as HTTP/1.1 (RFC 9110 2.5), which is also what is forwarded.
pub(super) fn version(text: &[u8]) -> Result<Version, Refusal> {
    match text {
        b"HTTP/1.0" => Ok(Version::V10),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Ok(Version::V11),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Refusal::Version)
        }
        _ => Err(Refusal::Malformed),
    }
}

/// What the fields of a head say, collected in one pass.
#[derive(Default)]
struct RequestFields<'b> {
    host: Option<&'b [u8]>,
    content_length: Option<u64>,
    transfer_encoding: Option<Coding>,
    connection: ConnectionOptions,
    upgrade: UpgradeOffers,
    expect: bool,
}

fn interpret<'b>(
    buffer: &'b [u8],
    line: &RequestLine<'b>,
    field_lines: &mut [Field],
    len: usize,
) -> Result<RequestHead<'b>, Refusal> {
    let summary = collect_fields(buffer, field_lines)?;
    let v11 = line.version == Version::V11;
    if summary.transfer_encoding.is_some() && (summary.content_length.is_some() || !v11) {
        return Err(Refusal::AmbiguousFraming);
    }
    if summary.transfer_encoding == Some(Coding::Other) {
        return Err(Refusal::TransferCoding);
    }
    // Methods are case-sensitive (RFC 9110 9.1), but not every server knows that, and framing depends on HEAD.
    let is = |method: &[u8]| line.method.eq_ignore_ascii_case(method);
    if is(b"CONNECT") || is(b"TRACE") || is(b"HEAD") && line.method != b"HEAD" {
        return Err(Refusal::Method);
    }
    let (authority, target) = target(line)?;
    if summary.host.is_none() && v11 {
        return Err(Refusal::BadHost);
    }
    if let Some(host) = summary.host {
        check_host(host)?;
    }
    let framing = match (summary.transfer_encoding, summary.content_length) {
        (Some(_), _) => Framing::Chunked,
        (None, Some(length)) if length > 0 => Framing::Length(length),
        _ => Framing::None,
    };
    let has_body = framing != Framing::None;
    let connection = summary.connection;
    if connection.names_fields {
        mark_hop_by_hop(buffer, field_lines);
    }
    Ok(RequestHead {
        len,
        method: line.method,
        target,
        version: line.version,
        host: authority.or(summary.host),
        framing,
        forwards_trailers: !connection.may_name_trailers,
        keep_alive: !connection.close && (v11 || connection.keep_alive),
        expects_continue: summary.expect && v11 && has_body,
        wants_upgrade: summary.upgrade.is_acceptable() && connection.upgrade && v11,
        max_forwards: match line.method {
            b"OPTIONS" => max_forwards(buffer, field_lines)?,
            _ => None,
        },
    })
}

fn collect_fields<'b>(
    buffer: &'b [u8],
    field_lines: &[Field],
) -> Result<RequestFields<'b>, Refusal> {
    let mut summary = RequestFields::default();
    for field in field_lines {
        let value = field.value_in(buffer);
        match field.name {
            FieldName::Host if summary.host.replace(value).is_some() => {
                return Err(Refusal::BadHost);
            }
            FieldName::ContentLength
                if summary
                    .content_length
                    .replace(content_length(value)?)
                    .is_some() =>
            {
                return Err(Refusal::BadContentLength);
            }
            FieldName::TransferEncoding
                if summary.transfer_encoding.replace(coding(value)?).is_some() =>
            {
                return Err(Refusal::BadTransferEncoding);
            }
            FieldName::FramingLookalike => return Err(Refusal::AmbiguousFraming),
            FieldName::Connection => summary.connection.add(value)?,
            FieldName::Expect => {
                if !value.eq_ignore_ascii_case(b"100-continue") || summary.expect {
                    return Err(Refusal::Expectation);
                }
                summary.expect = true;
            }
            FieldName::Upgrade => summary.upgrade.add(value),
            _ => {}
        }
    }
    Ok(summary)
}

/// Whether `name` is Max-Forwards.
pub fn is_max_forwards(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"max-forwards")
}

/// Reads Max-Forwards: digits, and only once. A number that does not fit becomes the largest that does (RFC 9110
/// 7.6.2).
fn max_forwards(buffer: &[u8], field_lines: &[Field]) -> Result<Option<u32>, Refusal> {
    let mut named = field_lines
        .iter()
        .filter(|field| is_max_forwards(field.name_in(buffer)));
    let Some(field) = named.next() else {
        return Ok(None);
    };
    let digits = field.value_in(buffer);
    if named.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::FieldSyntax);
    }
    Ok(Some(digits.iter().fold(0, |sum: u32, digit| {
        sum.saturating_mul(10)
            .saturating_add(u32::from(digit - b'0'))
    })))
}

/// The codings that a request's Transfer-Encoding names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    /// `chunked` alone.
    Chunked,
    /// Codings that the proxy does not support, then `chunked`.
    Other,
}

/// Reads a request's Transfer-Encoding; the names of codings are case-insensitive (RFC 9112 7). Only a value that every
/// parser reads alike is worth a 501; anything else may be an attempt to be read in two ways.
fn coding(value: &[u8]) -> Result<Coding, Refusal> {
    const REGISTERED: [&[u8]; 6] = [
        b"gzip",
        b"x-gzip",
        b"deflate",
        b"compress",
        b"x-compress",
        b"identity",
    ];
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    if is_chunked(value) {
        return Ok(Coding::Chunked);
    }
    let is_registered = |coding: &[u8]| {
        let mut all = REGISTERED.iter();
        all.any(|registered| coding.eq_ignore_ascii_case(registered))
    };
    let mut codings = value.rsplit(|b| *b == b',').map(trim);
    // Without a final `chunked`, nobody knows where the body ends (RFC 9112 6.3).
    let ends_in_chunked = codings.next().is_some_and(is_chunked);
    if ends_in_chunked && codings.all(is_registered) {
        Ok(Coding::Other)
    } else {
        Err(Refusal::BadTransferEncoding)
    }
}

/// Reads a Content-Length: only digits, at most 19 of them, so that it fits any integer type that reads it next.
pub(super) fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::BadContentLength);
    }
    Ok(value
        .iter()
        .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Splits the authority of an absolute-form target from the target as it is forwarded.
fn target<'b>(line: &RequestLine<'b>) -> Result<(Option<&'b [u8]>, &'b [u8]), Refusal> {
    let target = line.target;
    if has_nul(target) {
        return Err(Refusal::BadTarget);
    }
    if target[0] == b'/' {
        return Ok((None, target));
    }
    if target == b"*" {
        return if line.method == b"OPTIONS" {
            Ok((None, target))
        } else {
            Err(Refusal::BadTarget)
        };
    }
    let rest = strip_scheme(target).ok_or(Refusal::BadTarget)?;
    let end = rest
        .iter()
        .position(|b| matches!(b, b'/' | b'?'))
        .unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    check_host(authority).map_err(|_| Refusal::BadTarget)?;
    match path.first() {
        Some(b'/') => Ok((Some(authority), path)),
        // RFC 9112 3.2.1: an empty path is "/"; with OPTIONS it is "*" (3.2.4).
        None if line.method == b"OPTIONS" => Ok((Some(authority), b"*")),
        None => Ok((Some(authority), b"/")),
        // "http://host?query" would need a byte that is not in the buffer; no ordinary client sends it.
        Some(_) => Err(Refusal::BadTarget),
    }
}

/// Whether the path contains `%00`, which a backend might read as its end.
fn has_nul(target: &[u8]) -> bool {
    let path = target.split(|b| *b == b'?').next().unwrap_or(target);
    memchr::memmem::find(path, b"%00").is_some()
}

fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    [b"http://".as_slice(), b"https://"]
        .into_iter()
        .find(|scheme| {
            target.len() >= scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme)
        })
        .map(|scheme| &target[scheme.len()..])
}

/// Checks `host [":" port]` without userinfo (RFC 9110 4.2.4, 7.2).
fn check_host(value: &[u8]) -> Result<(), Refusal> {
    let (host, port) = split_host(value);
    let host_is_good = match host {
        [b'[', inner @ .., b']'] => {
            std::str::from_utf8(inner).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
        }
        _ => {
            !host.is_empty()
                && host.len() <= 255
                && !has_empty_label(host)
                && host
                    .iter()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
        }
    };
    let port_is_good = port.len() <= 5
        && port.iter().all(u8::is_ascii_digit)
        && port
            .iter()
            .fold(0u32, |sum, d| sum * 10 + u32::from(d - b'0'))
            <= 65535;
    if host_is_good && port_is_good {
        Ok(())
    } else {
        Err(Refusal::BadHost)
    }
}

/// Whether a label is empty, other than the one after a trailing dot. Such a name is in no zone, and software that
/// removes one or more final dots would compare it with a different name.
fn has_empty_label(name: &[u8]) -> bool {
    name.starts_with(b".") || name.windows(2).any(|pair| pair == b"..")
}

/// Splits `host[:port]` into host and port; the port is empty if there is none.
pub fn split_host(value: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memrchr(b':', value) {
        // The last colon of "[::1]" belongs to the address.
        Some(colon) if !value.ends_with(b"]") => (&value[..colon], &value[colon + 1..]),
        _ => (value, b""),
    }
}

#[cfg(test)]
mod tests;
