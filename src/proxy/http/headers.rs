//! Heads written anew: what goes to a backend, and what goes to a client.
//!
//! Fields that speak for one hop stay behind, and so do those that Connection names; forwarding fields are believed
//! only from trusted proxies, X-Lbproxy-* from nobody, and what we know ourselves is written after everything a client
//! could have sent.

use std::io::Write;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::http1::field::{FieldName, list, trim};
use crate::http1::head::Field;
use crate::http1::request::{RequestHead, is_nominated};
use crate::http1::response::ResponseHead;
use crate::http1::{Framing, Version};

/// Longest X-Request-Id that is believed.
const REQUEST_ID_BYTES: usize = 128;

/// The client address: the rightmost of X-Forwarded-For that is not a trusted proxy's, starting from the socket's.
pub fn client_address(peer: IpAddr, trusted: &[IpNet], buffer: &[u8], fields: &[Field]) -> IpAddr {
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
    let mut client = peer;
    if !is_trusted(&client) {
        return client;
    }
    for field in fields
        .iter()
        .rev()
        .filter(|field| field.name == FieldName::ForwardedFor)
    {
        for hop in field.value_in(buffer).rsplit(|b| *b == b',') {
            let Some(ip) = parse_hop(trim(hop)) else {
                return client;
            };
            client = ip;
            if !is_trusted(&client) {
                return client;
            }
        }
    }
    client
}

/// An address of X-Forwarded-For, with or without port.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?;
    let ip = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| {
            text.parse::<std::net::SocketAddr>()
                .ok()
                .map(|address| address.ip())
        })
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(ip.to_canonical())
}

/// What a request head is written from.
pub struct RequestParts<'a> {
    /// The head.
    pub head: &'a RequestHead<'a>,
    /// The bytes that it and its fields point into.
    pub buffer: &'a [u8],
    /// Its fields.
    pub fields: &'a [Field],
    /// The other side of the socket.
    pub peer: IpAddr,
    /// Whether the peer is a trusted proxy.
    pub trusted: bool,
    /// X-Request-Id: the one it brings if we believe it ([`given_id`]), else a new one.
    pub id: &'a [u8],
}

/// What came of writing a request head.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WrittenRequest {
    /// Where `Host: …\r\n` must still be put in: an HTTP/1.0 request without one gets the backend's address.
    pub host_gap: Option<usize>,
    /// Whether forwarding fields were removed, which an untrusted peer had sent.
    pub removed_forwarding: bool,
}

/// Appends the head that goes to a backend.
pub fn write_request(out: &mut Vec<u8>, parts: &RequestParts<'_>) -> WrittenRequest {
    let head = parts.head;
    let mut written = WrittenRequest::default();
    extend(out, &[head.method, b" ", head.target, b" HTTP/1.1\r\n"]);
    match head.host {
        Some(host) => extend(out, &[b"Host: ", host, b"\r\n"]),
        None => written.host_gap = Some(out.len()),
    }
    let mut chain: &[u8] = b"";
    let mut proto: &[u8] = b"http";
    let mut host = head.host.unwrap_or(b"");
    for field in parts.fields {
        let value = field.value_in(parts.buffer);
        match field.name {
            FieldName::Other => {
                let name = field.name_in(parts.buffer);
                if !(head.nominates && is_nominated(parts.buffer, parts.fields, name)) {
                    extend(out, &[name, b": ", value, b"\r\n"]);
                }
            }
            FieldName::Upgrade if head.wants_upgrade => {
                extend(out, &[b"Upgrade: ", value, b"\r\n"])
            }
            FieldName::ForwardedFor if parts.trusted => {
                // Several fields are one list (RFC 9110 5.2); the first is kept for the end, the others go as they are.
                if chain.is_empty() {
                    chain = value;
                } else {
                    extend(out, &[b"X-Forwarded-For: ", chain, b"\r\n"]);
                    chain = value;
                }
            }
            FieldName::ForwardedProto if parts.trusted && is_scheme(value) => proto = value,
            FieldName::ForwardedHost if parts.trusted && !value.is_empty() => host = value,
            FieldName::OtherForwarding if parts.trusted => {
                extend(out, &[field.name_in(parts.buffer), b": ", value, b"\r\n"]);
            }
            FieldName::ForwardedFor
            | FieldName::ForwardedProto
            | FieldName::ForwardedHost
            | FieldName::RequestId
            | FieldName::OtherForwarding => written.removed_forwarding |= !parts.trusted,
            _ => {}
        }
    }
    out.extend_from_slice(b"X-Forwarded-For: ");
    if !chain.is_empty() {
        extend(out, &[chain, b", "]);
    }
    write_address(out, parts.peer);
    extend(out, &[b"\r\nX-Forwarded-Proto: ", proto]);
    if !host.is_empty() {
        extend(out, &[b"\r\nX-Forwarded-Host: ", host]);
    }
    extend(out, &[b"\r\nX-Request-Id: ", parts.id, b"\r\n"]);
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

/// Appends an address as text; formatting one by the library costs more than the rest of a small head.
fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    let IpAddr::V4(v4) = address else {
        // Writing to a vector cannot fail.
        let _ = write!(out, "{address}");
        return;
    };
    let mut digits = itoa::Buffer::new();
    for (place, octet) in v4.octets().into_iter().enumerate() {
        if place > 0 {
            out.push(b'.');
        }
        out.extend_from_slice(digits.format(octet).as_bytes());
    }
}

/// Whether the Upgrade fields of a 101 name protocols, and only such as the forwarded `request` head offered
/// (RFC 9110 7.8).
pub fn takes_an_offer(request: &[u8], response: &[u8], fields: &[Field]) -> bool {
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
        .flat_map(|field| list(field.value_in(response)))
        .peekable();
    named.peek().is_some() && named.all(is_offered)
}

fn is_scheme(value: &[u8]) -> bool {
    value == b"http" || value == b"https"
}

/// The X-Request-Id that a trusted proxy has given to the request.
pub fn given_id<'b>(buffer: &'b [u8], fields: &[Field]) -> Option<&'b [u8]> {
    fields
        .iter()
        .find(|field| field.name == FieldName::RequestId)
        .map(|field| field.value_in(buffer))
        .filter(|value| is_id(value))
}

fn is_id(value: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES).contains(&value.len()) && value.iter().all(|b| matches!(b, 0x21..=0x7e))
}

/// What the client will learn of the connection's future.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// HTTP/1.1: kept, which need not be said.
    Keep,
    /// HTTP/1.0: kept, which must be said.
    SayKeep,
    /// Closed behind this response.
    Close,
    /// Another protocol from here on.
    Upgrade,
}

/// Appends the head that goes to a client, with the framing that its body gets.
pub fn write_response(
    out: &mut Vec<u8>,
    head: &ResponseHead<'_>,
    buffer: &[u8],
    fields: &[Field],
    framing: Framing,
    persistence: Persistence,
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
    for field in fields {
        let value = field.value_in(buffer);
        let goes_on = match field.name {
            FieldName::Connection
            | FieldName::ContentLength
            | FieldName::KeepAlive
            | FieldName::HopByHop
            | FieldName::TransferEncoding => false,
            FieldName::Upgrade => persistence == Persistence::Upgrade,
            _ => !(head.nominates && is_nominated(buffer, fields, field.name_in(buffer))),
        };
        if goes_on {
            extend(out, &[field.name_in(buffer), b": ", value, b"\r\n"]);
        }
    }
    write_framing(out, framing, described_length(head));
    match persistence {
        Persistence::Keep => {}
        Persistence::SayKeep => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        Persistence::Close => out.extend_from_slice(b"Connection: close\r\n"),
        Persistence::Upgrade => out.extend_from_slice(b"Connection: upgrade\r\n"),
    }
    out.extend_from_slice(b"\r\n");
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
        let mut digits = itoa::Buffer::new();
        extend(
            out,
            &[
                b"Content-Length: ",
                digits.format(length).as_bytes(),
                b"\r\n",
            ],
        );
    }
}

/// Framing of a response's body towards the client, whatever the backend's was.
pub fn client_framing(head: &ResponseHead<'_>, client: Version) -> Framing {
    match (head.framing, client) {
        (Framing::Chunked | Framing::UntilClose, Version::V11) => Framing::Chunked,
        (Framing::Chunked | Framing::UntilClose, Version::V10) => Framing::UntilClose,
        (framing, _) => framing,
    }
}

/// The first value of a cookie, as it was sent.
pub fn cookie<'b>(buffer: &'b [u8], fields: &[Field], name: &[u8]) -> Option<&'b [u8]> {
    fields
        .iter()
        .filter(|field| {
            field.name == FieldName::Other && field.name_in(buffer).eq_ignore_ascii_case(b"cookie")
        })
        .flat_map(|field| field.value_in(buffer).split(|b| *b == b';'))
        .find_map(|pair| trim(pair).strip_prefix(name)?.strip_prefix(b"="))
}

fn extend(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
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
        let parts = RequestParts {
            head: &head,
            buffer: text.as_bytes(),
            fields: &fields,
            peer: "10.0.0.9".parse().unwrap(),
            trusted,
            id: given_id(text.as_bytes(), &fields)
                .filter(|_| trusted)
                .unwrap_or(b"new"),
        };
        let mut out = Vec::new();
        let written = write_request(&mut out, &parts);
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
             X-Forwarded-Proto: http\r\nX-Forwarded-Host: A.example\r\nX-Request-Id: new\r\n\r\n"
        );
        assert!(written.removed_forwarding);
    }

    #[test]
    fn a_request_from_a_trusted_proxy() {
        let (out, written) = rewrite(
            "PUT /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: www\r\nX-Request-Id: abc\r\nContent-Length: 3\r\n\r\n",
            true,
        );
        assert_eq!(
            out,
            "PUT /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1, 10.0.0.9\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: www\r\nX-Request-Id: abc\r\nContent-Length: 3\r\n\r\n"
        );
        assert!(!written.removed_forwarding);
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
        for (upgrade, taken) in [
            ("", false),
            ("Upgrade: \r\n", false),
            ("Upgrade: WebSocket\r\n", true),
            ("Upgrade: x, chat/2\r\n", true),
            ("Upgrade: x\r\nUpgrade: h2c\r\n", false),
            ("Upgrade: chat\r\n", false),
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
    fn the_client_is_the_rightmost_stranger() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        for (peer, chain, client) in [
            ("9.9.9.9", "1.1.1.1", "9.9.9.9"),
            ("10.0.0.1", "1.1.1.1", "1.1.1.1"),
            ("10.0.0.1", "6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1"),
            ("10.0.0.1", "1.1.1.1, junk", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.3", "10.0.0.3"),
            ("10.0.0.1", "[2001:db8::1]:80", "2001:db8::1"),
            ("10.0.0.1", "::ffff:1.2.3.4", "1.2.3.4"),
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {chain}\r\n\r\n");
            let mut fields = Vec::new();
            request::parse(text.as_bytes(), &LIMITS, &mut fields)
                .unwrap()
                .unwrap();
            let found = client_address(peer.parse().unwrap(), &trusted, text.as_bytes(), &fields);
            assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{peer} {chain}");
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
            let framing = client_framing(&head, client);
            write_response(
                &mut out,
                &head,
                text.as_bytes(),
                &fields,
                framing,
                persistence,
            );
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

    #[test]
    fn cookies_are_found() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1; sid=x=y\r\nCookie: sid=z\r\n\r\n";
        let mut fields = Vec::new();
        request::parse(text.as_bytes(), &LIMITS, &mut fields)
            .unwrap()
            .unwrap();
        assert_eq!(
            cookie(text.as_bytes(), &fields, b"sid"),
            Some(b"x=y".as_slice())
        );
        assert_eq!(cookie(text.as_bytes(), &fields, b"si"), None);
    }
}
