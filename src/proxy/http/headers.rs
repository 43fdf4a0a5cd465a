//! Heads written anew: what goes to a backend, and what goes to a client.
//!
//! Fields that speak for one hop stay behind, and so do those that Connection names; forwarding fields are believed
//! only from trusted proxies, X-Lbproxy-* from nobody, and what we know ourselves is written after everything a client
//! could have sent.

use std::io::Write;
use std::net::IpAddr;

use super::hops::{Passed, ProcessId};
use super::seen::Seen;
use crate::http1::connection_options::UPGRADE_PROTOCOLS;
use crate::http1::field::{FieldName, list};
use crate::http1::head::{Field, FieldCopier};
use crate::http1::request::is_max_forwards;
use crate::http1::response::ResponseHead;
use crate::http1::{Framing, Version};

/// What came of writing a request head.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WrittenRequest {
    /// Where `Host: …\r\n` must still be put in: an HTTP/1.0 request without one gets the backend's address.
    pub host_gap: Option<usize>,
    /// The request has been here before: it must not be sent.
    pub loops: bool,
    /// The first of the fields that were removed since a peer that is not trusted must not send them.
    pub removed: Option<usize>,
}

/// What the proxy itself says in a request.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// The other side of the socket, if it has an address.
    pub peer: Option<IpAddr>,
    /// X-Request-Id: the one that a trusted proxy gave, else a new one.
    pub id: &'a [u8],
    /// The id of this process, for the next ones that the request passes.
    pub process: &'a ProcessId,
    /// Whether it says that it was here.
    pub via: bool,
}

/// Appends the head that goes to a backend.
pub fn write_request(out: &mut Vec<u8>, seen: &Seen<'_>, said: &Said<'_>) -> WrittenRequest {
    let Said {
        peer,
        id,
        process,
        via,
    } = *said;
    let Seen {
        head,
        buffer,
        fields,
        trusted,
    } = *seen;
    let mut written = WrittenRequest::default();
    extend(out, &[head.method, b" ", head.target, b" HTTP/1.1\r\n"]);
    match head.host {
        Some(host) => extend(out, &[b"Host: ", host, b"\r\n"]),
        None => written.host_gap = Some(out.len()),
    }
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
    write_framing(out, head.framing, None);
    if head.expects_continue {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    if head.wants_upgrade {
        out.extend_from_slice(b"Connection: upgrade\r\n");
    }
    if head.framing == Framing::None && matches!(head.method, b"POST" | b"PUT" | b"PATCH") {
        out.extend_from_slice(b"Content-Length: 0\r\n");
    }
    out.extend_from_slice(b"\r\n");
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
fn via_line(version: Version) -> &'static [u8] {
    match version {
        Version::V10 => b"Via: 1.0 lbproxy\r\n",
        Version::V11 => b"Via: 1.1 lbproxy\r\n",
    }
}

/// Whether the Upgrade fields of a 101 name protocols, and only such as the forwarded `request` head offered
/// (RFC 9110 7.8). A body may stand behind the head.
pub(crate) fn takes_an_offer(request: &[u8], response: &[u8], fields: &[Field]) -> bool {
    let end = memchr::memmem::find(request, b"\r\n\r\n").unwrap_or(request.len());
    let request = &request[..end];
    let is_offered = |protocol: &[u8]| {
        request
            .split(|b| *b == b'\n')
            .filter_map(|line| line.strip_prefix(b"Upgrade: "))
            .any(|offers| {
                list(offers.trim_ascii_end()).any(|offer| offer.eq_ignore_ascii_case(protocol))
            })
    };
    let mut named = fields
        .iter()
        .filter(|field| field.name == FieldName::Upgrade)
        .flat_map(|field| list(field.value_in(response)));
    // Both sides are few, so that comparing each with each costs little.
    let first = named.by_ref().take(UPGRADE_PROTOCOLS);
    first.map(is_offered).reduce(|all, one| all && one) == Some(true) && named.next().is_none()
}

fn is_scheme(value: &[u8]) -> bool {
    value == b"http" || value == b"https"
}

/// What the client will learn of the connection's future.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// HTTP/1.1: kept, which need not be said.
    Keep,
    /// HTTP/1.0: kept, which must be said.
    SayKeep,
    /// Kept, for so many seconds at rest.
    KeepFor(u32),
    /// Closed after this response.
    Close,
    /// Another protocol from here on.
    Upgrade,
}

impl Persistence {
    /// Of a connection that is kept, where `seconds` is what is announced, if anything is.
    pub fn kept(seconds: Option<u32>, is_http10: bool) -> Self {
        match (seconds, is_http10) {
            (Some(seconds), _) => Self::KeepFor(seconds),
            (None, true) => Self::SayKeep,
            (None, false) => Self::Keep,
        }
    }

    /// Appends the fields that say so.
    pub fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Keep => {}
            Self::SayKeep => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            Self::KeepFor(seconds) => {
                // What speaks of the connection is named by Connection (RFC 9110 7.6.1).
                let line = b"Connection: keep-alive\r\nKeep-Alive: timeout=";
                write_number(out, line, u64::from(seconds));
            }
            Self::Close => out.extend_from_slice(b"Connection: close\r\n"),
            Self::Upgrade => out.extend_from_slice(b"Connection: upgrade\r\n"),
        }
    }
}

/// What the proxy itself says in a response.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// The framing that the body gets.
    pub framing: Framing,
    /// What becomes of the client's connection.
    pub persistence: Persistence,
    /// A Date line for a response that has none; may be empty.
    pub date: &'a [u8],
    /// X-Request-Id, in place of the backend's; empty: the backend's goes on.
    pub id: &'a [u8],
    /// Whether it says that it was here.
    pub via: bool,
}

impl Told<'_> {
    /// Of a response that gets nothing but its framing and what becomes of the connection.
    pub fn plain(framing: Framing, persistence: Persistence) -> Self {
        Self {
            framing,
            persistence,
            date: b"",
            id: b"",
            via: false,
        }
    }
}

/// Appends the head that goes to a client.
pub fn write_response(
    out: &mut Vec<u8>,
    head: &ResponseHead<'_>,
    buffer: &[u8],
    fields: &[Field],
    told: &Told<'_>,
) {
    let mut code = itoa::Buffer::new();
    extend(
        out,
        &[
            b"HTTP/1.1 ",
            code.format(head.status).as_bytes(),
            b" ",
            head.reason,
            b"\r\n",
        ],
    );
    let mut has_date = false;
    let mut copying = FieldCopier::new(buffer);
    for field in fields {
        let goes_on = match field.name {
            FieldName::Connection
            | FieldName::ContentLength
            | FieldName::KeepAlive
            | FieldName::HopByHop
            | FieldName::TransferEncoding => false,
            FieldName::Upgrade => told.persistence == Persistence::Upgrade,
            FieldName::RequestId if !told.id.is_empty() => false,
            _ => !field.hop_by_hop,
        };
        if goes_on {
            has_date |= is_date(field.name_in(buffer));
            copying.push(out, field);
        }
    }
    copying.flush(out);
    if !has_date {
        out.extend_from_slice(told.date);
    }
    if told.via {
        out.extend_from_slice(via_line(head.version));
    }
    if !told.id.is_empty() {
        extend(out, &[b"X-Request-Id: ", told.id, b"\r\n"]);
    }
    write_framing(out, told.framing, described_length(head));
    told.persistence.write(out);
    out.extend_from_slice(b"\r\n");
}

fn is_date(name: &[u8]) -> bool {
    name.len() == 4 && name.eq_ignore_ascii_case(b"date")
}

/// Content-Length of a response without a body: of HEAD and 304 it describes what GET would have got; 1xx and 204
/// must not have one (RFC 9110 8.6).
fn described_length(head: &ResponseHead<'_>) -> Option<u64> {
    head.content_length
        .filter(|_| head.status >= 200 && head.status != 204)
}

fn write_framing(out: &mut Vec<u8>, framing: Framing, described: Option<u64>) {
    let length = match framing {
        Framing::Length(length) => Some(length),
        Framing::None => described,
        Framing::Chunked => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            None
        }
        Framing::UntilClose => None,
    };
    if let Some(length) = length {
        write_number(out, b"Content-Length: ", length);
    }
}

/// Appends a line that ends in a number.
fn write_number(out: &mut Vec<u8>, line: &[u8], number: u64) {
    let mut digits = itoa::Buffer::new();
    extend(out, &[line, digits.format(number).as_bytes(), b"\r\n"]);
}

/// Framing of a response's body towards the client, whatever the backend's was.
pub fn client_framing(head: &ResponseHead<'_>, client: Version) -> Framing {
    match (head.framing, client) {
        (Framing::Chunked | Framing::UntilClose, Version::V11) => Framing::Chunked,
        (Framing::Chunked | Framing::UntilClose, Version::V10) => Framing::UntilClose,
        (framing, _) => framing,
    }
}

fn extend(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::super::forwarding::given_id;
    use super::*;
    use crate::http1::head::HeadLimits;
    use crate::http1::{request, response};

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 4096,
        fields: 50,
        target: 1000,
    };

    fn rewrite(text: &str, trusted: bool) -> (String, WrittenRequest) {
        let mut fields = Vec::new();
        let head = request::parse(text.as_bytes(), &LIMITS, &mut fields)
            .unwrap()
            .unwrap();
        let seen = Seen {
            head: &head,
            buffer: text.as_bytes(),
            fields: &fields,
            trusted,
        };
        let id = given_id(text.as_bytes(), &fields).filter(|_| trusted);
        let said = Said {
            peer: "10.0.0.9".parse().ok(),
            id: id.unwrap_or(b"new"),
            process: b"0123456789abcdef",
            via: trusted,
        };
        let mut out = Vec::new();
        let written = write_request(&mut out, &seen, &said);
        (String::from_utf8(out).unwrap(), written)
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
        let (out, written) = rewrite("GET / HTTP/1.0\r\n\r\n", false);
        assert_eq!(written.host_gap, Some("GET / HTTP/1.1\r\n".len()), "{out}");
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
        let nominated =
            "OPTIONS / HTTP/1.1\r\nHost: a\r\nConnection: max-forwards\r\nMax-Forwards: 3\r\n\r\n";
        assert!(rewrite(nominated, false).0.contains("Max-Forwards: 2\r\n"));
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
        let (request, _) = rewrite(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat/2, websocket\r\nUpgrade: x\r\n\r\n",
            false,
        );
        let request = request + "body\r\nUpgrade: in-the-body\r\n";
        for (upgrade, taken) in [
            ("Upgrade: in-the-body\r\n", false),
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
            assert_eq!(
                takes_an_offer(request.as_bytes(), text.as_bytes(), &fields),
                taken,
                "{upgrade}"
            );
        }
    }

    #[test]
    fn a_response_head() {
        let text = "HTTP/1.1 200 Fine\r\nServer: x\r\nConnection: x-hop\r\nX-Hop: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut fields = Vec::new();
        let head = response::parse(text.as_bytes(), false, &mut fields)
            .unwrap()
            .unwrap();
        let write = |client, persistence| {
            let mut out = Vec::new();
            let told = Told::plain(client_framing(&head, client), persistence);
            write_response(&mut out, &head, text.as_bytes(), &fields, &told);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            write(Version::V11, Persistence::Keep),
            "HTTP/1.1 200 Fine\r\nServer: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        assert_eq!(
            write(Version::V10, Persistence::Close),
            "HTTP/1.1 200 Fine\r\nServer: x\r\nConnection: close\r\n\r\n"
        );
    }

    /// What a client gets of a response with these fields.
    fn told(version: &str, lines: &str, told: &Told<'_>) -> String {
        let text = format!("HTTP/{version} 200 OK\r\n{lines}Content-Length: 0\r\n\r\n");
        let mut fields = Vec::new();
        let head = response::parse(text.as_bytes(), false, &mut fields)
            .unwrap()
            .unwrap();
        let mut out = Vec::new();
        write_response(&mut out, &head, text.as_bytes(), &fields, told);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_response_gets_what_the_proxy_says() {
        let plain = Told::plain(Framing::Length(0), Persistence::Keep);
        let date = Told {
            date: b"Date: now\r\n",
            ..plain
        };
        for (lines, has) in [
            ("", true),
            ("dATE: then\r\n", false),
            ("Date: \r\n", false),
            ("Datum: x\r\nX-Date: y\r\n", true),
            ("Connection: date\r\nDate: then\r\n", true),
        ] {
            let out = told("1.1", lines, &date);
            assert_eq!(out.contains("Date: now\r\n"), has, "{out}");
            assert_eq!(out.contains("then"), lines.starts_with("dATE"), "{out}");
        }
        let via = Told { via: true, ..plain };
        let out = told("1.0", "Via: 1.1 inner\r\n", &via);
        assert!(
            out.contains("Via: 1.1 inner\r\nVia: 1.0 lbproxy\r\n"),
            "{out}"
        );
        assert!(told("1.3", "", &via).contains("Via: 1.1 lbproxy\r\n"));
        let id = Told {
            id: b"ours",
            ..plain
        };
        let out = told("1.1", "x-request-id: theirs\r\n", &id);
        assert!(out.contains("X-Request-Id: ours\r\n") && !out.contains("theirs"));
        assert!(told("1.1", "x-request-id: theirs\r\n", &plain).contains("theirs"));
    }

    #[test]
    fn how_long_a_connection_is_kept_is_said_with_the_name_of_the_field() {
        for (persistence, lines) in [
            (Persistence::kept(None, false), ""),
            (Persistence::kept(None, true), "Connection: keep-alive\r\n"),
            (
                Persistence::kept(Some(74), true),
                "Connection: keep-alive\r\nKeep-Alive: timeout=74\r\n",
            ),
        ] {
            let told_of = Told::plain(Framing::Length(0), persistence);
            let out = told("1.1", "Keep-Alive: timeout=5\r\n", &told_of);
            let expected = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{lines}\r\n");
            assert_eq!(out, expected);
        }
    }
}
