//! Heads written anew: what goes to a backend, and what goes to a client.
//!
//! Fields that speak for one hop stay behind, and so do those that Connection names; forwarding fields are believed
//! only from trusted proxies, X-Lbproxy-* from nobody, and what we know ourselves is written after everything a client
//! could have sent.

use std::io::Write;
use std::net::IpAddr;

use super::seen::Seen;
use crate::http1::connection::UPGRADE_PROTOCOLS;
use crate::http1::field::{FieldName, list};
use crate::http1::head::{Copying, Field};
use crate::http1::response::ResponseHead;
use crate::http1::{Framing, Version};

/// What came of writing a request head.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WrittenRequest {
    /// Where `Host: …\r\n` must still be put in: an HTTP/1.0 request without one gets the backend's address.
    pub host_gap: Option<usize>,
    /// The first of the fields that were removed since a peer that is not trusted must not send them.
    pub removed: Option<usize>,
}

/// Appends the head that goes to a backend. `peer` is the other side of the socket, `id` the X-Request-Id: the one
/// that a trusted proxy gave, else a new one.
pub fn write_request(
    out: &mut Vec<u8>,
    seen: &Seen<'_>,
    peer: IpAddr,
    id: &[u8],
) -> WrittenRequest {
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
    let mut copying = Copying::of(buffer);
    for (place, field) in fields.iter().enumerate() {
        let value = field.value_in(buffer);
        match field.name {
            FieldName::Other if !field.nominated => copying.push(out, field),
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
            | FieldName::OddForwarding => {
                written.removed.get_or_insert(place);
            }
            _ => {}
        }
    }
    copying.flush(out);
    out.extend_from_slice(b"X-Forwarded-For: ");
    if !chain.is_empty() {
        extend(out, &[chain, b", "]);
    }
    write_address(out, peer);
    extend(out, &[b"\r\nX-Forwarded-Proto: ", proto]);
    if !host.is_empty() {
        extend(out, &[b"\r\nX-Forwarded-Host: ", host]);
    }
    extend(out, &[b"\r\nX-Request-Id: ", id, b"\r\n"]);
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
    let mut copying = Copying::of(buffer);
    for field in fields {
        let goes_on = match field.name {
            FieldName::Connection
            | FieldName::ContentLength
            | FieldName::KeepAlive
            | FieldName::HopByHop
            | FieldName::TransferEncoding => false,
            FieldName::Upgrade => persistence == Persistence::Upgrade,
            _ => !field.nominated,
        };
        if goes_on {
            copying.push(out, field);
        }
    }
    copying.flush(out);
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
        let peer = "10.0.0.9".parse().unwrap();
        let mut out = Vec::new();
        let written = write_request(&mut out, &seen, peer, id.unwrap_or(b"new"));
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
            "PUT /a HTTP/1.1\r\nHost: a\r\nX-Real-IP: 1\r\nX-Forwarded-For: 1.1.1.1, 10.0.0.9\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: www\r\nX-Request-Id: abc\r\nContent-Length: 3\r\n\r\n"
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
}
