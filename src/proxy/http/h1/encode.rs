//! HTTP/1.1 as it is written (RFC 9112): what completes a request head once its connection is known, response heads, replies
//! of our own, and the pieces of a body.

use std::time::SystemTime;

use crate::http1::chunked::SizeLine;
use crate::http1::field::FieldName;
use crate::http1::head::{Field, FieldCopier};
use crate::http1::response::ResponseHead;
use crate::http1::{Framing, Version};
use crate::proxy::http::head::{ForwardHead, extend, via_line, write_number};
use crate::proxy::http::reply::Reply;
use crate::proxy::http::request::RequestContext;

/// Completes `head` for an HTTP/1.1 connection: what that frames and asks, the end of the head, and the payload that came
/// with it. What another attempt has added is replaced.
pub fn complete_request(head: &mut ForwardHead) {
    let out = &mut head.text;
    out.truncate(head.fields.end);
    write_framing(out, head.framing, None);
    if head.expects_continue {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    if head.wants_upgrade {
        out.extend_from_slice(b"Connection: upgrade\r\n");
    }
    if head.says_empty {
        out.extend_from_slice(b"Content-Length: 0\r\n");
    }
    out.extend_from_slice(b"\r\n");
    let is_chunked = head.framing == Framing::Chunked;
    let size = is_chunked.then(|| SizeLine::new(head.early.len()));
    for part in frame(size.as_ref(), &head.early, head.early_end.as_deref()) {
        out.extend_from_slice(part);
    }
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
pub struct ResponseEdits<'a> {
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

impl ResponseEdits<'_> {
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
    edits: &ResponseEdits<'_>,
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
            FieldName::Upgrade => edits.persistence == Persistence::Upgrade,
            FieldName::RequestId if !edits.id.is_empty() => false,
            _ => !field.hop_by_hop,
        };
        if goes_on {
            has_date |= is_date(field.name_in(buffer));
            copying.push(out, field);
        }
    }
    copying.flush(out);
    if !has_date {
        out.extend_from_slice(edits.date);
    }
    if edits.via {
        out.extend_from_slice(via_line(head.version));
    }
    if !edits.id.is_empty() {
        extend(out, &[b"X-Request-Id: ", edits.id, b"\r\n"]);
    }
    write_framing(out, edits.framing, described_length(head));
    edits.persistence.write(out);
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

/// The bytes of `reply` to `request`. The connection is announced to last so many seconds at rest, if any are given.
pub(crate) fn reply_bytes(
    reply: &Reply,
    request: &RequestContext,
    keeps_for: Option<u32>,
) -> Vec<u8> {
    let persistence = if reply.close {
        Persistence::Close
    } else {
        Persistence::kept(keeps_for, request.info.is_http10)
    };
    let mut out = format!("HTTP/1.1 {} {}\r\n", reply.status, phrase_of(reply.status)).into_bytes();
    if let Some(location) = &reply.location {
        extend(&mut out, &[b"Location: ", location, b"\r\n"]);
    }
    let has_content = !matches!(reply.status, 204 | 304);
    if has_content {
        let (content_type, length) = (reply.content_type(), reply.content().len());
        let lines = format!("Content-Type: {content_type}\r\nContent-Length: {length}\r\n");
        out.extend_from_slice(lines.as_bytes());
    }
    if let Some(fields) = &reply.fields {
        out.extend_from_slice(fields.as_bytes());
    }
    let date = httpdate::fmt_http_date(SystemTime::now());
    out.extend_from_slice(format!("Date: {date}\r\n").as_bytes());
    if reply.allows {
        out.extend_from_slice(b"Allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS\r\n");
    }
    let id = request.id();
    if !id.is_empty() {
        extend(&mut out, &[b"X-Request-Id: ", id, b"\r\n"]);
    }
    persistence.write(&mut out);
    out.extend_from_slice(b"\r\n");
    if !request.info.is_head && has_content {
        out.extend_from_slice(reply.content());
    }
    out
}

/// The standard phrase of a status (RFC 9110 15), empty for one without.
fn phrase_of(status: u16) -> &'static str {
    hyper::StatusCode::from_u16(status)
        .ok()
        .and_then(|code| code.canonical_reason())
        .unwrap_or("")
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

/// Framing of a response's body towards the client, whatever the backend's was.
pub fn client_framing(head: &ResponseHead<'_>, client: Version) -> Framing {
    match (head.framing, client) {
        (Framing::Chunked | Framing::UntilClose, Version::V11) => Framing::Chunked,
        (Framing::Chunked | Framing::UntilClose, Version::V10) => Framing::UntilClose,
        (framing, _) => framing,
    }
}

/// A piece of a body as it is sent: as it is, or as a chunk if it has a `size` line, with the end of the body if `end` has
/// the trailers of that.
pub(crate) fn frame<'p>(
    size: Option<&'p SizeLine>,
    payload: &'p [u8],
    end: Option<&'p [u8]>,
) -> [&'p [u8]; 5] {
    let empty: &[u8] = b"";
    match (size, payload.is_empty(), end) {
        (None, ..) => [empty, payload, empty, empty, empty],
        (Some(_), true, None) => [empty; 5],
        (Some(_), true, Some(trailers)) => [empty, empty, b"0\r\n", trailers, b"\r\n"],
        (Some(size), false, None) => [size.as_bytes(), payload, b"\r\n", empty, empty],
        (Some(size), false, Some(trailers)) => {
            [size.as_bytes(), payload, b"\r\n0\r\n", trailers, b"\r\n"]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::http1::response;
    use crate::model::page::{ErrorPages, Page};
    use crate::telemetry::outcome::Reason;

    /// What a client gets of a response with these fields.
    fn edited(version: &str, lines: &str, edits: &ResponseEdits<'_>) -> String {
        let text = format!("HTTP/{version} 200 OK\r\n{lines}Content-Length: 0\r\n\r\n");
        let mut fields = Vec::new();
        let head = response::parse(text.as_bytes(), false, &mut fields)
            .unwrap()
            .unwrap();
        let mut out = Vec::new();
        write_response(&mut out, &head, text.as_bytes(), &fields, edits);
        String::from_utf8(out).unwrap()
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
            let edits = ResponseEdits::plain(client_framing(&head, client), persistence);
            write_response(&mut out, &head, text.as_bytes(), &fields, &edits);
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
    fn a_response_gets_what_the_proxy_says() {
        let plain = ResponseEdits::plain(Framing::Length(0), Persistence::Keep);
        let date = ResponseEdits {
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
            let out = edited("1.1", lines, &date);
            assert_eq!(out.contains("Date: now\r\n"), has, "{out}");
            assert_eq!(out.contains("then"), lines.starts_with("dATE"), "{out}");
        }
        let via = ResponseEdits { via: true, ..plain };
        let out = edited("1.0", "Via: 1.1 inner\r\n", &via);
        assert!(
            out.contains("Via: 1.1 inner\r\nVia: 1.0 lbproxy\r\n"),
            "{out}"
        );
        assert!(edited("1.3", "", &via).contains("Via: 1.1 lbproxy\r\n"));
        let id = ResponseEdits {
            id: b"ours",
            ..plain
        };
        let out = edited("1.1", "x-request-id: theirs\r\n", &id);
        assert!(out.contains("X-Request-Id: ours\r\n") && !out.contains("theirs"));
        assert!(edited("1.1", "x-request-id: theirs\r\n", &plain).contains("theirs"));
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
            let edits = ResponseEdits::plain(Framing::Length(0), persistence);
            let out = edited("1.1", "Keep-Alive: timeout=5\r\n", &edits);
            let expected = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{lines}\r\n");
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn a_page_stands_in_for_an_error_and_for_nothing_else() {
        let page = |text: &str| {
            Arc::new(Page {
                content_type: "text/html".to_owned(),
                body: text.as_bytes().into(),
            })
        };
        let mut pages = ErrorPages::default();
        pages.add_class(4, page("sorry"));
        let none = ErrorPages::default();
        let shown = |mut reply: Reply, with_body: bool| {
            reply.dress(&none, &pages);
            let mut request = RequestContext::default();
            request.info.is_head = !with_body;
            String::from_utf8(reply_bytes(&reply, &request, None)).unwrap()
        };
        let text = shown(Reply::failure(Reason::NoRoute, false), true);
        assert!(
            text.contains("\r\nContent-Type: text/html\r\nContent-Length: 5\r\n")
                && text.ends_with("\r\n\r\nsorry"),
            "{text}"
        );
        let head = shown(Reply::failure(Reason::NoRoute, false), false);
        assert!(
            head.contains("Content-Length: 5\r\n") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
        let other = shown(Reply::failure(Reason::NoBackend, false), true);
        assert!(other.ends_with("503 no backend available\n"), "{other}");
        let fields: Arc<str> = "Retry-After: 5\r\n".into();
        for (status, given, ends) in [
            (404, None, "\r\n\r\nsorry"),
            (404, Some(page("own")), "\r\n\r\nown"),
            (200, None, "\r\n\r\n"),
            (304, Some(page("own")), "\r\n\r\n"),
        ] {
            let text = shown(Reply::given(status, &fields, given.as_ref()), true);
            assert!(
                text.ends_with(ends) && text.contains("\r\nRetry-After: 5\r\n"),
                "{status} {text}"
            );
            assert_eq!(text.contains("Content-Length"), status != 304, "{text}");
        }
    }

    #[test]
    fn a_failure_says_why() {
        let mut request = RequestContext::default();
        let bytes = reply_bytes(&Reply::failure(Reason::NoRoute, false), &request, None);
        let text = String::from_utf8(bytes).unwrap();
        assert!(
            text.starts_with(
                "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\n"
            ),
            "{text}"
        );
        assert!(text.ends_with("\r\n\r\n404 no route\n"), "{text}");
        assert!(
            text.contains("Content-Length: 13\r\n") && !text.contains("Connection"),
            "{text}"
        );
        assert!(!text.contains("X-Request-Id"), "{text}");
        request.info.is_head = true;
        request.info.is_http10 = true;
        request.capture.id = request.capture.keep(b"the-id");
        let head = reply_bytes(&Reply::failure(Reason::Method, true), &request, Some(74));
        let text = String::from_utf8(head).unwrap();
        assert!(text.contains("X-Request-Id: the-id\r\n"), "{text}");
        assert!(
            text.contains("Connection: close\r\n")
                && text.contains("Allow: GET")
                && text.ends_with("\r\n\r\n")
        );
    }

    #[test]
    fn an_answer_that_keeps_the_connection_says_for_how_long() {
        let mut request = RequestContext::default();
        let bytes = |request: &RequestContext, keeps_for| {
            String::from_utf8(reply_bytes(&Reply::options(), request, keeps_for)).unwrap()
        };
        let text = bytes(&request, Some(74));
        let end = "Connection: keep-alive\r\nKeep-Alive: timeout=74\r\n\r\n";
        assert!(text.ends_with(end), "{text}");
        assert!(text.contains("Allow: GET, ") && text.contains("Content-Length: 0\r\n"));
        request.info.is_http10 = true;
        let text = bytes(&request, None);
        assert!(text.ends_with("Connection: keep-alive\r\n\r\n"), "{text}");
    }
}
