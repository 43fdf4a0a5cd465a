//! Request heads (RFC 9112 3): request line, Host, framing, connection options.

use super::connection_options::{ConnectionOptions, UpgradeOffers, mark_hop_by_hop};
use super::field::{FieldName, TARGET, TOKEN, trim};
use super::head::{
    EMPTY_LINES, Field, HeadLimits, SpaceBeforeColon, empty_lines, invalid_byte, line, parse_fields,
};
use super::{Framing, Refusal, Version};

/// Longest method.
pub const METHOD_BYTES: usize = 32;

/// A request head, understood. Slices point into the buffer that it was parsed from.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'b> {
    /// Bytes of the buffer that the head took, empty lines before it included.
    pub len: usize,
    /// Method.
    pub method: &'b [u8],
    /// Path and query as they are forwarded: origin-form, or `*`.
    pub target: &'b [u8],
    /// Version.
    pub version: Version,
    /// Host as it is forwarded: of an absolute-form target, else of the field; `None` only in HTTP/1.0.
    pub host: Option<&'b [u8]>,
    /// Body framing; never [`Framing::UntilClose`].
    pub framing: Framing,
    /// Trailers of its body may go on: Connection names no field that could be among them.
    pub forwards_trailers: bool,
    /// Whether the client wants the connection kept.
    pub keep_alive: bool,
    /// `Expect: 100-continue` that means something: HTTP/1.1 with a body.
    pub expects_continue: bool,
    /// `Connection: upgrade` with an offer that may be taken, in HTTP/1.1. What body there is comes first.
    pub wants_upgrade: bool,
    /// How many more proxies may forward it, if it is OPTIONS and says so (RFC 9110 7.6.2).
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

    /// Whether sending it twice does what sending it once does (RFC 9110 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(
            self.method,
            b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE"
        )
    }
}

/// Parses the request head at the beginning of `buffer`; `fields` is filled anew. `None` while it is not whole.
///
/// # Errors
/// Why it is refused. Beside a refusal nothing of the buffer may be forwarded.
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

/// Whether a request that may be half, or not understood, asks for a head alone: an answer to it has no body.
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

/// A higher minor version than ours is spoken as ours (RFC 9110 2.5); what goes on is HTTP/1.1.
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

/// What the fields say, gathered in one pass.
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
    // Methods have a case (RFC 9110 9.1), but not all that read them know, and on HEAD the framing depends.
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

/// Whether it is Max-Forwards.
pub fn is_max_forwards(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"max-forwards")
}

/// Max-Forwards: digits, once. A number that we cannot hold is the largest that we can (RFC 9110 7.6.2).
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

/// What a request's Transfer-Encoding asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    /// One `chunked`.
    Chunked,
    /// Codings that we do not have, then `chunked`.
    Other,
}

/// Reads a request's Transfer-Encoding; the names of codings have no case (RFC 9112 7). Only what no parser could take
/// for something else is worth a 501; the rest is an attempt to be understood in two ways.
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
    // Without it nobody knows where the body ends (RFC 9112 6.3).
    let ends_in_chunked = codings.next().is_some_and(is_chunked);
    if ends_in_chunked && codings.all(is_registered) {
        Ok(Coding::Other)
    } else {
        Err(Refusal::BadTransferEncoding)
    }
}

/// Digits only, at most 19 of them, so that it fits whatever reads it next.
pub(super) fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::BadContentLength);
    }
    Ok(value
        .iter()
        .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Authority of an absolute-form target, and the target as it is forwarded.
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

/// Whether `%00` stands in the path, where what reads it behind us might see its end.
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

/// `host [":" port]` without userinfo (RFC 9110 4.2.4, 7.2).
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

/// Whether a label is empty but for the one behind a trailing dot. Such a name stands in no zone, and what removes one
/// dot at the end, or several, would compare it with another.
fn has_empty_label(name: &[u8]) -> bool {
    name.starts_with(b".") || name.windows(2).any(|pair| pair == b"..")
}

/// Host and port of `host[:port]`; no port is an empty one.
pub fn split_host(value: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memrchr(b':', value) {
        // The last colon of "[::1]" belongs to the address.
        Some(colon) if !value.ends_with(b"]") => (&value[..colon], &value[colon + 1..]),
        _ => (value, b""),
    }
}

#[cfg(test)]
mod tests;
