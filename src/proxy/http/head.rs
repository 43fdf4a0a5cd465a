//! The head of a request as it is forwarded, kept once for all attempts and whatever its backend speaks.
//!
//! Fields of one hop stay behind, and so do those that Connection names; forwarding fields are believed only from trusted
//! proxies, X-Lbproxy-* from nobody, and what we know ourselves is written after everything that a client could have
//! sent.
//!
//! [`ForwardHead`] keeps the head as canonical text: `METHOD SP target`, the Host, then one `Name: value` line for each
//! field, with the places of these parts. An HTTP/1.1 connection sends that text as it is, between the parts that depend
//! on the connection and are written when there is one ([`super::h1::encode`]); [`ForwardHead::fields`] walks the lines
//! for whoever needs names and values. Noting the place of every field would cost all requests what few of them need.

use std::io::Write;
use std::net::IpAddr;
use std::ops::Range;

use super::forwarded::ForwardedRequest;
use super::hops::Passed;
use crate::http1::connection_options::UPGRADE_PROTOCOLS;
use crate::http1::field::{FieldName, list};
use crate::http1::head::{Field, FieldCopier};
use crate::http1::request::is_max_forwards;
use crate::http1::{Framing, Version};
use crate::proxy::loops::ProcessId;
use crate::proxy::read_size::SMALL_READ;

/// A request head on its way to backends, and the part of the body that came with it.
#[derive(Debug, Default)]
pub struct ForwardHead {
    /// The canonical text; what an HTTP/1.1 connection adds follows it.
    pub(super) text: Vec<u8>,
    /// End of the request line, which is followed by the Host, if there is one.
    pub(super) line_end: usize,
    /// Whether there is a Host. An HTTP/1.0 request without one gets the backend's.
    pub(super) has_host: bool,
    /// The field lines, without the Host.
    pub(super) fields: Range<usize>,
    /// How the body is framed.
    pub(super) framing: Framing,
    /// Whether the client waits for 100.
    pub(super) expects_continue: bool,
    /// Whether it offers the protocols of its Upgrade fields.
    pub(super) wants_upgrade: bool,
    /// Whether a request without a body says so: one that usually has one.
    pub(super) says_empty: bool,
    /// Payload that came with the head.
    pub(super) early: Vec<u8>,
    /// Whether that is the whole body, and what trailers follow it.
    pub(super) early_end: Option<Vec<u8>>,
}

/// What came of writing a request head.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WrittenRequest {
    /// The request has been here before: it must not be sent.
    pub loops: bool,
    /// The first of the fields that were removed because an untrusted peer must not send them.
    pub removed: Option<usize>,
}

/// What the proxy itself says in a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestEdits<'a> {
    /// The other side of the socket, if it has an address.
    pub peer: Option<IpAddr>,
    /// X-Request-Id: the one that a trusted proxy gave, else a new one.
    pub id: &'a [u8],
    /// The id of this process, for the proxies that the request passes after it.
    pub process: &'a ProcessId,
    /// Whether it gets a Via field.
    pub via: bool,
}

impl ForwardHead {
    /// Takes the head of `request`, in place of another one.
    pub fn write(
        &mut self,
        request: &ForwardedRequest<'_>,
        edits: &RequestEdits<'_>,
    ) -> WrittenRequest {
        let head = request.head;
        let out = &mut self.text;
        out.clear();
        extend(out, &[head.method, b" ", head.target, b" HTTP/1.1\r\n"]);
        self.line_end = out.len();
        self.has_host = head.host.is_some();
        if let Some(host) = head.host {
            extend(out, &[b"Host: ", host, b"\r\n"]);
        }
        let begin = out.len();
        let written = write_fields(out, request, edits);
        self.fields = begin..out.len();
        self.framing = head.framing;
        self.expects_continue = head.expects_continue;
        self.wants_upgrade = head.wants_upgrade;
        self.says_empty =
            head.framing == Framing::None && matches!(head.method, b"POST" | b"PUT" | b"PATCH");
        written
    }

    /// With room for so many bytes of head.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            text: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// The head as text, with what an HTTP/1.1 connection has added.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Takes the payload that came with the head; `end` is the trailers that follow it if it is the whole body.
    pub(super) fn keep_early(&mut self, payload: &[u8], end: Option<&[u8]>) {
        self.early.extend_from_slice(payload);
        self.early_end = end.map(<[u8]>::to_vec);
    }

    /// Names and values of the fields, without the Host, in order.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let lines = self.text[self.fields.clone()].split(|b| *b == b'\n');
        lines.filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            let value = line[colon + 1..].strip_prefix(b" ")?;
            Some((&line[..colon], value.strip_suffix(b"\r")?))
        })
    }

    /// Whether the Upgrade fields of a 101 name protocols, and only such as were offered (RFC 9110 7.8). `fields` are
    /// those of the response head in `response`.
    pub(super) fn offers(&self, response: &[u8], fields: &[Field]) -> bool {
        let is_offered = |protocol: &[u8]| {
            self.fields()
                .filter(|(name, _)| *name == b"Upgrade")
                .any(|(_, offers)| list(offers).any(|offer| offer.eq_ignore_ascii_case(protocol)))
        };
        let mut named = fields
            .iter()
            .filter(|field| field.name == FieldName::Upgrade)
            .flat_map(|field| list(field.value_in(response)));
        // Both sides are few, so that comparing each with each costs little.
        let first = named.by_ref().take(UPGRADE_PROTOCOLS);
        let all = first.map(is_offered).reduce(|all, one| all && one);
        self.wants_upgrade && all == Some(true) && named.next().is_none()
    }

    /// Forgets everything but memory worth keeping.
    pub(super) fn clear(&mut self) {
        let [mut text, mut early] = [&mut self.text, &mut self.early].map(std::mem::take);
        for buffer in [&mut text, &mut early] {
            buffer.clear();
            if buffer.capacity() > SMALL_READ {
                *buffer = Vec::new();
            }
        }
        *self = Self {
            text,
            early,
            ..Self::default()
        };
    }
}

/// Appends the field lines that a backend gets, whatever it speaks.
fn write_fields(
    out: &mut Vec<u8>,
    request: &ForwardedRequest<'_>,
    edits: &RequestEdits<'_>,
) -> WrittenRequest {
    let RequestEdits {
        peer,
        id,
        process,
        via,
    } = *edits;
    let ForwardedRequest {
        head,
        buffer,
        fields,
        trusted,
    } = *request;
    let mut written = WrittenRequest::default();
    let mut chain: &[u8] = b"";
    let mut proto: &[u8] = b"http";
    let mut host = head.host.unwrap_or(b"");
    let mut copying = FieldCopier::new(buffer);
    let mut passed = Passed::default();
    for (place, field) in fields.iter().enumerate() {
        let value = field.value_in(buffer);
        match field.name {
            FieldName::Other
                if head.max_forwards.is_some() && is_max_forwards(field.name_in(buffer)) => {}
            FieldName::Other if !field.hop_by_hop => copying.push(out, field),
            FieldName::Hop => written.loops |= passed.add(field, buffer, process).is_err(),
            FieldName::Upgrade if head.wants_upgrade => {
                copying.flush(out);
                extend(out, &[b"Upgrade: ", value, b"\r\n"]);
            }
            FieldName::ForwardedFor if trusted => {
                // Several fields are one list (RFC 9110 5.2); the first is kept for the end, the others go as they are.
                if chain.is_empty() {
                    chain = value;
                } else {
                    copying.flush(out);
                    extend(out, &[b"X-Forwarded-For: ", chain, b"\r\n"]);
                    chain = value;
                }
            }
            FieldName::ForwardedProto if trusted && is_scheme(value) => proto = value,
            FieldName::ForwardedHost if trusted && !value.is_empty() => host = value,
            FieldName::OtherForwarding if trusted => copying.push(out, field),
            FieldName::ForwardedProto | FieldName::ForwardedHost | FieldName::RequestId
                if trusted => {}
            FieldName::ForwardedFor
            | FieldName::ForwardedProto
            | FieldName::ForwardedHost
            | FieldName::RequestId
            | FieldName::OtherForwarding
            | FieldName::ForwardingLookalike => {
                written.removed.get_or_insert(place);
            }
            _ => {}
        }
    }
    copying.flush(out);
    if let Some(left) = head.max_forwards {
        write_number(out, b"Max-Forwards: ", u64::from(left.saturating_sub(1)));
    }
    if via {
        out.extend_from_slice(via_line(head.version));
    }
    write_chain(out, chain, peer);
    extend(out, &[b"X-Forwarded-Proto: ", proto]);
    if !host.is_empty() {
        extend(out, &[b"\r\nX-Forwarded-Host: ", host]);
    }
    extend(out, &[b"\r\nX-Request-Id: ", id, b"\r\n"]);
    passed.write(out, process);
    written
}

/// X-Forwarded-For: what trusted proxies say, and whom we have it from. Left out if there is neither.
fn write_chain(out: &mut Vec<u8>, chain: &[u8], peer: Option<IpAddr>) {
    if chain.is_empty() && peer.is_none() {
        return;
    }
    extend(out, &[b"X-Forwarded-For: ", chain]);
    if let Some(peer) = peer {
        if !chain.is_empty() {
            out.extend_from_slice(b", ");
        }
        write_address(out, peer);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends an address as text; formatting one by the library costs more than the rest of a small head.
fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    let IpAddr::V4(v4) = address else {
        // Writing to a vector cannot fail.
        let _ = write!(out, "{address}");
        return;
    };
    let (mut text, mut end) = ([b'.'; 16], 0);
    for octet in v4.octets() {
        let digits = [octet / 100, octet / 10 % 10, octet % 10].map(|digit| digit + b'0');
        let skipped = usize::from(octet < 100) + usize::from(octet < 10);
        for digit in &digits[skipped..] {
            text[end] = *digit;
            end += 1;
        }
        // The dot is there.
        end += 1;
    }
    out.extend_from_slice(&text[..end - 1]);
}

/// What a message that came in this version gets added to its Via (RFC 9110 7.6.3): a field of the same name behind
/// another is the same list.
pub(super) fn via_line(version: Version) -> &'static [u8] {
    match version {
        Version::V10 => b"Via: 1.0 lbproxy\r\n",
        Version::V11 => b"Via: 1.1 lbproxy\r\n",
    }
}

fn is_scheme(value: &[u8]) -> bool {
    value == b"http" || value == b"https"
}

/// Appends a line that ends in a number.
pub(super) fn write_number(out: &mut Vec<u8>, line: &[u8], number: u64) {
    let mut digits = itoa::Buffer::new();
    extend(out, &[line, digits.format(number).as_bytes(), b"\r\n"]);
}

pub(super) fn extend(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::super::client_address::given_id;
    use super::super::h1::encode::complete_request;
    use super::*;
    use crate::http1::head::HeadLimits;
    use crate::http1::{request, response};

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 4096,
        fields: 50,
        target: 1000,
    };

    fn write(text: &str, trusted: bool) -> (ForwardHead, WrittenRequest) {
        let mut fields = Vec::new();
        let head = request::parse(text.as_bytes(), &LIMITS, &mut fields)
            .unwrap()
            .unwrap();
        let request = ForwardedRequest {
            head: &head,
            buffer: text.as_bytes(),
            fields: &fields,
            trusted,
        };
        let id = given_id(text.as_bytes(), &fields).filter(|_| trusted);
        let edits = RequestEdits {
            peer: "10.0.0.9".parse().ok(),
            id: id.unwrap_or(b"new"),
            process: b"0123456789abcdef",
            via: trusted,
        };
        let mut head = ForwardHead::default();
        let written = head.write(&request, &edits);
        (head, written)
    }

    /// The head as an HTTP/1.1 connection sends it.
    fn rewrite(text: &str, trusted: bool) -> (String, WrittenRequest) {
        let (mut head, written) = write(text, trusted);
        complete_request(&mut head);
        (String::from_utf8(head.text).unwrap(), written)
    }

    #[test]
    fn the_fields_can_be_walked() {
        let text = "POST /a HTTP/1.1\r\nHost: a\r\nX-A:1\r\nX-B: \r\nContent-Length: 3\r\n\r\n";
        let (mut head, _) = write(text, false);
        let walk = |head: &ForwardHead| {
            head.fields()
                .map(|(name, value)| [name, value].map(|b| String::from_utf8(b.to_vec()).unwrap()))
                .collect::<Vec<_>>()
        };
        let fields = walk(&head);
        let names: Vec<&str> = fields.iter().map(|[name, _]| name.as_str()).collect();
        let ours = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"];
        assert_eq!(names[..2], ["X-A", "X-B"]);
        assert_eq!(names[2..5], ours);
        assert_eq!(names[5..], ["X-Request-Id", "X-Lbproxy-Hop"]);
        assert_eq!((fields[0][1].as_str(), fields[1][1].as_str()), ("1", ""));
        // What an HTTP/1.1 connection adds is its own.
        complete_request(&mut head);
        assert_eq!(walk(&head), fields);
    }

    #[test]
    fn a_second_attempt_sends_the_same() {
        let text = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (mut head, _) = write(text, false);
        head.keep_early(b"payload", Some(b"X-T: 1\r\n"));
        complete_request(&mut head);
        let first = head.text.clone();
        assert!(first.ends_with(b"\r\n\r\n7\r\npayload\r\n0\r\nX-T: 1\r\n\r\n"));
        complete_request(&mut head);
        assert_eq!(head.text, first);
    }

    #[test]
    fn a_request_from_a_stranger() {
        let (out, written) = rewrite(
            "GET /a HTTP/1.1\r\nHost: A.example\r\nX-Forwarded-For: 1.1.1.1\r\nX_Real_IP: 2\r\nForwarded: x\r\n\
             X-Lbproxy-A: 1\r\nX.Forwarded.For: 2\r\nConnection: x-secret, close\r\nX-Secret: 1\r\nTE: trailers\r\nAccept: */*\r\n\r\n",
            false,
        );
        assert_eq!(
            out,
            "GET /a HTTP/1.1\r\nHost: A.example\r\nAccept: */*\r\nX-Forwarded-For: 10.0.0.9\r\n\
             X-Forwarded-Proto: http\r\nX-Forwarded-Host: A.example\r\nX-Request-Id: new\r\nX-Lbproxy-Hop: 0123456789abcdef\r\n\r\n"
        );
        assert_eq!(written.removed, Some(1));
    }

    #[test]
    fn a_request_from_a_trusted_proxy() {
        let (out, written) = rewrite(
            "PUT /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Real-IP: 1\r\n\
             X-Forwarded-Host: www\r\nX-Request-Id: abc\r\nContent-Length: 3\r\n\r\n",
            true,
        );
        assert_eq!(
            out,
            "PUT /a HTTP/1.1\r\nHost: a\r\nX-Real-IP: 1\r\nVia: 1.1 lbproxy\r\nX-Forwarded-For: 1.1.1.1, 10.0.0.9\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: www\r\nX-Request-Id: abc\r\nX-Lbproxy-Hop: 0123456789abcdef\r\nContent-Length: 3\r\n\r\n"
        );
        assert_eq!(written.removed, None);
    }

    #[test]
    fn an_upgrade_and_a_gap_for_the_host() {
        let (out, _) = rewrite(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            false,
        );
        assert!(
            out.contains("Upgrade: websocket\r\n") && out.contains("Connection: upgrade\r\n"),
            "{out}"
        );
        let (out, _) = rewrite("GET / HTTP/1.0\r\n\r\n", false);
        assert!(!out.contains("\r\nHost:"), "{out}");
    }

    #[test]
    fn via_names_the_version_that_was_received_behind_what_is_there() {
        let (out, _) = rewrite(
            "GET / HTTP/1.0\r\nHost: a\r\nVia: 1.1 far\r\nX: y\r\n\r\n",
            true,
        );
        let lines = "Via: 1.1 far\r\nX: y\r\nVia: 1.0 lbproxy\r\nX-Forwarded-For:";
        assert!(out.contains(lines), "{out}");
        let (out, _) = rewrite("GET / HTTP/1.2\r\nHost: a\r\nVia: 1.1 far\r\n\r\n", false);
        assert_eq!(out.matches("Via").count(), 1, "{out}");
    }

    #[test]
    fn the_proxies_that_options_may_pass_are_counted_down() {
        for (method, value, left) in [
            ("OPTIONS", "5", "4"),
            ("OPTIONS", "1", "0"),
            ("OPTIONS", "99999999999999999999", "4294967294"),
            ("GET", "5", "5"),
            ("GET", "junk", "junk"),
        ] {
            let text = format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nConnection: x-a\r\nMAX-forwards: {value}\r\nX: y\r\n\r\n"
            );
            let (out, _) = rewrite(&text, false);
            let lower = out.to_ascii_lowercase();
            assert_eq!(lower.matches("max-forwards:").count(), 1, "{out}");
            assert!(
                lower.contains(&format!("max-forwards: {left}\r\n")),
                "{out}"
            );
        }
        // It bounds a loop, so no hop may take it away.
        let named =
            "OPTIONS / HTTP/1.1\r\nHost: a\r\nConnection: max-forwards\r\nMax-Forwards: 3\r\n\r\n";
        assert!(rewrite(named, false).0.contains("Max-Forwards: 2\r\n"));
    }

    #[test]
    fn addresses_are_written_as_the_library_does() {
        for text in [
            "0.0.0.0",
            "255.255.255.255",
            "10.0.200.9",
            "2001:db8::1",
            "::1",
        ] {
            let mut out = Vec::new();
            write_address(&mut out, text.parse().unwrap());
            assert_eq!(out, text.as_bytes());
        }
    }

    #[test]
    fn a_101_takes_what_was_offered_and_nothing_else() {
        let head = write(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat/2, websocket\r\nUpgrade: x\r\n\r\n",
            false,
        )
        .0;
        for (upgrade, taken) in [
            ("", false),
            ("Upgrade: \r\n", false),
            ("Upgrade: WebSocket\r\n", true),
            ("Upgrade: x, chat/2\r\n", true),
            ("Upgrade: x\r\nUpgrade: h2c\r\n", false),
            ("Upgrade: chat\r\n", false),
            ("Upgrade: x,x,x,x,x,x,x,x\r\n", true),
            ("Upgrade: x,x,x,x,x,x,x,x,x\r\n", false),
        ] {
            let text = format!("HTTP/1.1 101 x\r\nConnection: upgrade\r\n{upgrade}\r\n");
            let mut fields = Vec::new();
            response::parse(text.as_bytes(), false, &mut fields)
                .unwrap()
                .unwrap();
            assert_eq!(head.offers(text.as_bytes(), &fields), taken, "{upgrade}");
        }
    }
}
