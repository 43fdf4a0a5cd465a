//! What the proxy replies itself: a short `text/plain` with the reason or the page that stands in for it, a redirect, or
//! what a route or a listener says. A value: the protocol of the client's connection writes it.

use std::sync::Arc;

use crate::http1::Refusal;
use crate::model::page::{ErrorPages, Page};
use crate::telemetry::outcome::Reason;

/// A reply of the proxy's own.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// Status code.
    pub status: u16,
    /// Why; `None` for what a route asked for.
    pub reason: Option<Reason>,
    /// What was wrong with a response that this takes the place of.
    pub cause: Option<&'static str>,
    /// Body; for a reason, its text.
    pub body: String,
    /// What is sent in place of the body.
    pub page: Option<Arc<Page>>,
    /// Additional fields, as whole lines.
    pub fields: Option<Arc<str>>,
    /// Location field of a redirect.
    pub location: Option<Vec<u8>>,
    /// Whether it names the methods that there are.
    pub allows: bool,
    /// Whether the connection ends after it.
    pub close: bool,
}

impl Reply {
    /// A reply that says what went wrong.
    pub(crate) fn failure(reason: Reason, close: bool) -> Self {
        let status = reason.status();
        Self {
            status,
            reason: Some(reason),
            body: format!("{status} {}\n", reason.text()),
            allows: status == 405,
            close,
            ..Self::default()
        }
    }

    /// What a route or a listener says. Without a `page` an error has the one of `errors`.
    pub(crate) fn given(status: u16, fields: &Arc<str>, page: Option<&Arc<Page>>) -> Self {
        Self {
            status,
            page: page.cloned(),
            fields: Some(Arc::clone(fields)),
            ..Self::default()
        }
    }

    /// A redirect.
    pub(crate) fn redirect(status: u16, location: Vec<u8>) -> Self {
        Self {
            status,
            location: Some(location),
            ..Self::default()
        }
    }

    /// To OPTIONS that no further proxy may forward (RFC 9110 7.6.2, 9.3.7).
    pub(crate) fn options() -> Self {
        Self {
            status: 200,
            allows: true,
            ..Self::default()
        }
    }

    /// To a request that cannot be parsed: nothing after it can be parsed either.
    pub(crate) fn refusal(refusal: Refusal) -> Self {
        Self::failure(reason_of(refusal), true)
    }

    /// Takes the page that stands in for an error of this status, unless it has one.
    pub(crate) fn dress(&mut self, narrow: &ErrorPages, wide: &ErrorPages) {
        if self.status >= 400 && self.page.is_none() {
            self.page = narrow.find(wide, self.status).cloned();
        }
    }

    /// What is sent as the body.
    pub(crate) fn content(&self) -> &[u8] {
        match &self.page {
            // RFC 9110 15.3.6: what the client shows is to be reset, not replaced.
            _ if self.status == 205 => b"",
            Some(page) => &page.body,
            None => self.body.as_bytes(),
        }
    }

    /// Its Content-Type.
    pub(crate) fn content_type(&self) -> &str {
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
