//! What the proxy answers itself: short `text/plain` with the reason or the page that stands in for it, a redirect, or
//! what a route or a listener says.

use std::sync::Arc;
use std::time::SystemTime;

use super::exchange::Exchange;
use super::headers::Persistence;
use crate::http1::Refusal;
use crate::model::page::{ErrorPages, Page};
use crate::telemetry::outcome::{BackendError, Reason};

/// An answer of the proxy's own.
#[derive(Debug)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Why; `None` for what a route asked for.
    pub reason: Option<Reason>,
    /// Body; for a reason, its text.
    pub body: String,
    /// What is sent in its place.
    pub page: Option<Arc<Page>>,
    /// Whole lines of further fields.
    pub fields: Option<Arc<str>>,
    /// Location field of a redirect.
    pub location: Option<Vec<u8>>,
    /// Whether it names the methods that there are.
    pub allows: bool,
    /// Whether the connection ends behind it.
    pub close: bool,
}

impl Reply {
    /// An answer that tells what went wrong.
    pub fn failure(reason: Reason, close: bool) -> Self {
        let status = status_of(reason);
        Self {
            status,
            reason: Some(reason),
            body: format!("{status} {}\n", text_of(reason)),
            page: None,
            fields: None,
            location: None,
            allows: status == 405,
            close,
        }
    }

    /// What a route or a listener says. Without a `page` an error has the one of `errors`.
    pub fn given(status: u16, fields: &Arc<str>, page: Option<&Arc<Page>>) -> Self {
        Self {
            status,
            reason: None,
            body: String::new(),
            page: page.cloned(),
            fields: Some(Arc::clone(fields)),
            location: None,
            allows: false,
            close: false,
        }
    }

    /// A redirect.
    pub fn redirect(status: u16, location: Vec<u8>) -> Self {
        Self {
            status,
            reason: None,
            body: String::new(),
            page: None,
            fields: None,
            location: Some(location),
            allows: false,
            close: false,
        }
    }

    /// To OPTIONS that no further proxy may forward (RFC 9110 7.6.2, 9.3.7).
    pub fn options() -> Self {
        Self {
            status: 200,
            reason: None,
            body: String::new(),
            page: None,
            fields: None,
            location: None,
            allows: true,
            close: false,
        }
    }

    /// Takes the page that stands in for an error of this status, unless it has one.
    pub fn dress(&mut self, narrow: &ErrorPages, wide: &ErrorPages) {
        if self.status >= 400 && self.page.is_none() {
            self.page = narrow.find(wide, self.status).cloned();
        }
    }

    /// To a request that is not understood: nothing behind it can be understood either.
    pub fn refusal(refusal: Refusal) -> Self {
        Self::failure(reason_of(refusal), true)
    }

    /// The bytes that answer the request of `exchange`.
    pub fn to_bytes(&self, exchange: &Exchange) -> Vec<u8> {
        let with_body = !exchange.facts.is_head;
        let persistence = if self.close {
            Persistence::Close
        } else {
            Persistence::kept(exchange.facts.keeps_for, exchange.facts.is_http10)
        };
        let allow = if self.allows {
            "Allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS\r\n"
        } else {
            ""
        };
        let mut out =
            format!("HTTP/1.1 {} {}\r\n", self.status, phrase_of(self.status)).into_bytes();
        if let Some(location) = &self.location {
            out.extend_from_slice(b"Location: ");
            out.extend_from_slice(location);
            out.extend_from_slice(b"\r\n");
        }
        let has_content = !matches!(self.status, 204 | 304);
        if has_content {
            let (content_type, length) = (self.content_type(), self.content().len());
            let head = format!("Content-Type: {content_type}\r\nContent-Length: {length}\r\n");
            out.extend_from_slice(head.as_bytes());
        }
        if let Some(fields) = &self.fields {
            out.extend_from_slice(fields.as_bytes());
        }
        let date = httpdate::fmt_http_date(SystemTime::now());
        out.extend_from_slice(format!("Date: {date}\r\n{allow}").as_bytes());
        let id = exchange.id();
        if !id.is_empty() {
            for part in [b"X-Request-Id: ", id, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        persistence.write(&mut out);
        out.extend_from_slice(b"\r\n");
        if with_body && has_content {
            out.extend_from_slice(self.content());
        }
        out
    }

    fn content(&self) -> &[u8] {
        match &self.page {
            // RFC 9110 15.3.6: what the client shows is to be reset, not replaced.
            _ if self.status == 205 => b"",
            Some(page) => &page.body,
            None => self.body.as_bytes(),
        }
    }

    fn content_type(&self) -> &str {
        match &self.page {
            Some(page) => &page.content_type,
            None => "text/plain; charset=utf-8",
        }
    }
}

/// The reason of a refused message.
pub(crate) fn reason_of(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::Malformed => Reason::Malformed,
        Refusal::BareLineEnd => Reason::BareLineEnd,
        Refusal::FieldSyntax => Reason::FieldSyntax,
        Refusal::BadHost => Reason::BadHost,
        Refusal::BadTarget => Reason::BadTarget,
        Refusal::BadContentLength => Reason::BadContentLength,
        Refusal::AmbiguousFraming => Reason::AmbiguousFraming,
        Refusal::TransferCoding => Reason::TransferCoding,
        Refusal::MethodTooLong => Reason::MethodTooLong,
        Refusal::BadTransferEncoding => Reason::BadTransferEncoding,
        Refusal::BadChunk => Reason::BadChunk,
        Refusal::BadTrailer => Reason::BadTrailer,
        Refusal::Method => Reason::Method,
        Refusal::Expectation => Reason::Expectation,
        Refusal::Version => Reason::Version,
        Refusal::UriTooLong => Reason::UriTooLong,
        Refusal::HeadTooLarge => Reason::HeadTooLarge,
        Refusal::TooManyFields => Reason::TooManyHeaders,
    }
}

/// The reason of a backend's failure before its answer began.
pub fn reason_of_backend(error: BackendError) -> Reason {
    match error {
        BackendError::Connect => Reason::BackendConnect,
        BackendError::Timeout => Reason::BackendTimeout,
        BackendError::Reset => Reason::BackendReset,
        BackendError::Protocol => Reason::BackendProtocol,
    }
}

/// The status of what the proxy answers for a reason.
pub(crate) fn status_of(reason: Reason) -> u16 {
    match reason {
        Reason::Malformed
        | Reason::BareLineEnd
        | Reason::FieldSyntax
        | Reason::BadHost
        | Reason::BadTarget
        | Reason::BadContentLength
        | Reason::AmbiguousPath
        | Reason::AmbiguousFraming
        | Reason::BadTransferEncoding
        | Reason::BadChunk
        | Reason::BadTrailer => 400,
        Reason::NoRoute => 404,
        Reason::Method => 405,
        Reason::SlowHead | Reason::SlowBody => 408,
        Reason::BodyTooLarge => 413,
        Reason::UriTooLong => 414,
        Reason::Expectation => 417,
        Reason::HeadTooLarge | Reason::TooManyHeaders => 431,
        Reason::ClientLeft | Reason::SlowReader => 499,
        Reason::Internal => 500,
        Reason::TransferCoding | Reason::MethodTooLong => 501,
        Reason::BackendConnect
        | Reason::BackendReset
        | Reason::BackendProtocol
        | Reason::BackendCut => 502,
        Reason::NoBackend
        | Reason::ConnectionLimit
        | Reason::ClientConnectionLimit
        | Reason::Evicted
        | Reason::DescriptorLimit
        | Reason::IdleTunnel
        | Reason::Drained
        | Reason::BackendDown
        | Reason::PrimaryUp => 503,
        Reason::BackendTimeout | Reason::RequestTimeout => 504,
        Reason::Version => 505,
        Reason::Loop => 508,
    }
}

/// What a person reads.
fn text_of(reason: Reason) -> &'static str {
    match reason {
        Reason::Malformed => "malformed request",
        Reason::BareLineEnd => "a line ends without CRLF",
        Reason::FieldSyntax => "malformed header field",
        Reason::BadHost => "missing, repeated or malformed Host",
        Reason::BadTarget => "malformed request target",
        Reason::BadContentLength => "malformed or repeated Content-Length",
        Reason::AmbiguousFraming => "ambiguous message framing",
        Reason::AmbiguousPath => "ambiguous path",
        Reason::BadTransferEncoding => "malformed Transfer-Encoding",
        Reason::BadChunk => "malformed chunk",
        Reason::BadTrailer => "a trailer that belongs in the head",
        Reason::NoRoute => "no route",
        Reason::Method => "method not allowed",
        Reason::SlowHead => "the request head took too long",
        Reason::SlowBody => "the request body took too long",
        Reason::BodyTooLarge => "request body too large",
        Reason::UriTooLong => "request target too long",
        Reason::Expectation => "unknown expectation",
        Reason::HeadTooLarge => "request head too large",
        Reason::TooManyHeaders => "too many header fields",
        Reason::ClientLeft | Reason::SlowReader => "client left",
        Reason::Internal => "internal error",
        Reason::TransferCoding => "transfer coding not supported",
        Reason::MethodTooLong => "method not implemented",
        Reason::BackendConnect => "no connection to the backend",
        Reason::BackendReset => "the backend closed the connection",
        Reason::BackendProtocol => "the backend's response is not valid HTTP",
        Reason::BackendCut => "the backend's response was cut",
        Reason::NoBackend => "no backend available",
        Reason::ConnectionLimit
        | Reason::ClientConnectionLimit
        | Reason::Evicted
        | Reason::DescriptorLimit => "too many connections",
        Reason::Loop => "the request has come back to this proxy",
        Reason::IdleTunnel => "silent for too long",
        Reason::Drained => "the proxy is going away",
        Reason::BackendDown => "the backend is down",
        Reason::PrimaryUp => "another backend has taken over",
        Reason::BackendTimeout => "the backend took too long",
        Reason::RequestTimeout => "the request took too long",
        Reason::Version => "HTTP version not supported: 1.1 and 1.0 are",
    }
}

/// The standard phrase of a status (RFC 9110 15), empty for one without.
fn phrase_of(status: u16) -> &'static str {
    hyper::StatusCode::from_u16(status)
        .ok()
        .and_then(|code| code.canonical_reason())
        .unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let mut exchange = Exchange::default();
            exchange.facts.is_head = !with_body;
            String::from_utf8(reply.to_bytes(&exchange)).unwrap()
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
        let mut exchange = Exchange::default();
        let bytes = Reply::failure(Reason::NoRoute, false).to_bytes(&exchange);
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
        exchange.facts.is_head = true;
        exchange.facts.is_http10 = true;
        exchange.facts.keeps_for = Some(74);
        exchange.capture.id = exchange.capture.keep(b"the-id");
        let head = Reply::failure(Reason::Method, true).to_bytes(&exchange);
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
        let mut exchange = Exchange::default();
        exchange.facts.keeps_for = Some(74);
        let text = String::from_utf8(Reply::options().to_bytes(&exchange)).unwrap();
        let end = "Connection: keep-alive\r\nKeep-Alive: timeout=74\r\n\r\n";
        assert!(text.ends_with(end), "{text}");
        assert!(text.contains("Allow: GET, ") && text.contains("Content-Length: 0\r\n"));
        exchange.facts.keeps_for = None;
        exchange.facts.is_http10 = true;
        let text = String::from_utf8(Reply::options().to_bytes(&exchange)).unwrap();
        assert!(text.ends_with("Connection: keep-alive\r\n\r\n"), "{text}");
    }
}
