//! How a request or a session ended ([`Outcome`]), recorded exactly once, when its last byte has gone; and how each
//! attempt on a backend ended ([`AttemptOutcome`]).
//!
//! The closed sets of label values are here too: why the proxy refused or failed a request ([`Reason`], with whose fault
//! that is), what went wrong with a backend ([`BackendError`]) and why a request was tried again ([`RetryReason`]).

use std::net::IpAddr;
use std::time::Duration;

/// How a request or a session ended. Texts that are empty and values that are `None` are not known.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome<'a> {
    /// `HTTP/1.1`, `HTTP/1.0` or `tcp`.
    pub protocol: &'a str,
    /// The client, as told by proxies that are trusted; `None` if what they told cannot be read.
    pub client: Option<IpAddr>,
    /// What the request head said.
    pub request: RequestText<'a>,
    /// Which way it took.
    pub way: Way<'a>,
    /// Status of the response; 499 if the client left before it.
    pub status: Option<u16>,
    /// Why the proxy replied itself or ended the session.
    pub reason: Option<Reason>,
    /// What was wrong with a backend's response that was refused: the label that a request would have got.
    pub cause: Option<&'a str>,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// How long its parts took.
    pub times: Times,
}

/// What the access log shows of a request head.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RequestText<'a> {
    /// X-Request-Id.
    pub id: &'a [u8],
    /// Method.
    pub method: &'a [u8],
    /// Host, as it was sent.
    pub host: &'a [u8],
    /// Request target, as it was sent.
    pub uri: &'a [u8],
    /// User-Agent.
    pub user_agent: &'a [u8],
    /// Referer.
    pub referer: &'a [u8],
}

/// Where a request or a session went.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Way<'a> {
    /// Name of the route.
    pub route: Option<&'a str>,
    /// Name of the cluster.
    pub cluster: Option<&'a str>,
    /// Label of the backend that was tried last.
    pub backend: Option<&'a str>,
    /// Attempts; `None` if no backend was asked for.
    pub attempts: Option<u32>,
}

/// How long the parts of a request or a session took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    /// Request head complete, or session accepted, to its end.
    pub duration: Duration,
    /// Time to connect to the backend, if a connection was made.
    pub connect: Option<Duration>,
    /// Request sent to response head.
    pub response: Option<Duration>,
}

/// How one attempt on a backend ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AttemptOutcome {
    /// Status of its response, if the head of one came.
    pub status: Option<u16>,
    /// Request sent to response head.
    pub response: Option<Duration>,
    /// What the backend did wrong.
    pub error: Option<BackendError>,
}

impl AttemptOutcome {
    /// An attempt that failed before any response.
    pub(crate) fn failed(error: BackendError) -> Self {
        Self {
            error: Some(error),
            ..Self::default()
        }
    }
}

/// Whose doing it is that a request or a session did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The client's, or its will.
    Client,
    /// The backend's.
    Backend,
    /// Ours: a limit, a drain, the configuration or a bug.
    Proxy,
}

/// Declares an enum whose variants have fixed label texts, and the list of them.
macro_rules! labels {
    ($(#[$meta:meta])* $vis:vis $name:ident { $($(#[$doc:meta])* $variant:ident => $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of the declaration.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The label text.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// Place in [`Self::ALL`].
            pub(crate) const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

labels! {
    /// Why the proxy answered itself, or ended a connection without an answer: the label `reason` of
    /// `lbproxy_rejected_total` and a field of the access log.
    pub(crate) Reason {
        /// 400: a request that is not well formed; the more exact reasons below have their own label.
        Malformed => "malformed",
        /// 400: a line that ends in a bare LF, or a bare CR.
        BareLineEnd => "bare_line_end",
        /// 400: white space before a colon, inside a name, or a folded line.
        FieldSyntax => "field_syntax",
        /// 400: no Host, several, or one that is not a host.
        BadHost => "bad_host",
        /// 400: a request target that is not one.
        BadTarget => "bad_target",
        /// 400: Content-Length that is repeated or not a plain number.
        BadContentLength => "bad_content_length",
        /// 400: a path that in some reading would take another route.
        AmbiguousPath => "ambiguous_path",
        /// 400: both Content-Length and Transfer-Encoding, or one of them in an odd spelling.
        AmbiguousFraming => "ambiguous_framing",
        /// 400: Transfer-Encoding that is not one plain `chunked`, nor a plain list of other codings before it.
        BadTransferEncoding => "bad_transfer_encoding",
        /// 400: a chunk that is not well formed.
        BadChunk => "bad_chunk",
        /// 400: a trailer that would frame or route the message.
        BadTrailer => "bad_trailer",
        /// 404: no route takes it.
        NoRoute => "no_route",
        /// 405: CONNECT or TRACE.
        Method => "method",
        /// 408: the head took too long.
        SlowHead => "slow_head",
        /// 408: the body fell silent.
        SlowBody => "slow_body",
        /// 413: the body is larger than `body_bytes`.
        BodyTooLarge => "body_too_large",
        /// 414: the target is larger than `uri_bytes`.
        UriTooLong => "uri_too_long",
        /// 431: the head is larger than `header_bytes`, or the trailers than `trailer_bytes`.
        HeadTooLarge => "head_too_large",
        /// 431: more fields than `headers`, or too many Connection options.
        TooManyHeaders => "too_many_headers",
        /// 417: an expectation other than `100-continue`.
        Expectation => "expectation",
        /// 501: a transfer coding other than `chunked`.
        TransferCoding => "transfer_coding",
        /// 501: a method longer than any that there is.
        MethodTooLong => "method_too_long",
        /// 505: neither HTTP/1.1 nor HTTP/1.0.
        Version => "version",
        /// 502: no connection to a backend.
        BackendConnect => "backend_connect",
        /// 502: the backend closed before it answered.
        BackendReset => "backend_reset",
        /// 502: the backend's answer is not HTTP.
        BackendProtocol => "backend_protocol",
        /// 508: the request, or the TCP session, has come back to the process that sent it on.
        Loop => "loop",
        /// 503: the cluster has no backend to choose.
        NoBackend => "no_backend",
        /// 504: no answer in time.
        BackendTimeout => "backend_timeout",
        /// 504: the route's `timeout` for the whole request.
        RequestTimeout => "request_timeout",
        /// The backend's body was cut; the client's was cut as well.
        BackendCut => "backend_cut",
        /// The client took nothing for `write`.
        SlowReader => "slow_reader",
        /// 499 in the log: the client left before its answer.
        ClientLeft => "client_left",
        /// The listener is at `connections`, so that it does not accept for a while.
        ConnectionLimit => "connection_limit",
        /// A client address was at `connections_per_client`: its connection was closed at once.
        ClientConnectionLimit => "client_connection_limit",
        /// A connection that rested was closed to make room for others.
        Evicted => "evicted",
        /// The process is near its descriptor limit, so that the listener does not accept for a while.
        DescriptorLimit => "descriptor_limit",
        /// A session that was silent for `tunnel`.
        IdleTunnel => "idle_tunnel",
        /// `drain_timeout` passed.
        Drained => "drained",
        /// A session whose backend went down (`on_down`).
        BackendDown => "backend_down",
        /// A session on a backup when another backend was up again (`on_up`).
        PrimaryUp => "primary_up",
        /// 500: a bug of ours; the log has it.
        Internal => "internal",
    }
}

labels! {
    /// Label `reason` of `lbproxy_backend_errors_total`.
    pub(crate) BackendError {
        /// No connection.
        Connect => "connect",
        /// No answer, or a silence in it, for too long.
        Timeout => "timeout",
        /// The connection ended too early.
        Reset => "reset",
        /// What came is not HTTP.
        Protocol => "protocol",
    }
}

labels! {
    /// Label `reason` of `lbproxy_retries_total`.
    pub(crate) RetryReason {
        /// A connection that could not be made.
        Connect => "connect",
        /// A connection that ended before the answer began.
        Reset => "reset",
        /// No answer in time.
        Timeout => "timeout",
        /// A pooled connection that turned out to be dead; does not count as an attempt.
        Stale => "stale",
    }
}

impl Reason {
    /// The status that the client gets, or that is logged if it gets none.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Malformed
            | Self::BareLineEnd
            | Self::FieldSyntax
            | Self::BadHost
            | Self::BadTarget
            | Self::BadContentLength
            | Self::AmbiguousPath
            | Self::AmbiguousFraming
            | Self::BadTransferEncoding
            | Self::BadChunk
            | Self::BadTrailer => 400,
            Self::NoRoute => 404,
            Self::Method => 405,
            Self::SlowHead | Self::SlowBody => 408,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::Expectation => 417,
            Self::HeadTooLarge | Self::TooManyHeaders => 431,
            Self::ClientLeft | Self::SlowReader => 499,
            Self::Internal => 500,
            Self::TransferCoding | Self::MethodTooLong => 501,
            Self::BackendConnect
            | Self::BackendReset
            | Self::BackendProtocol
            | Self::BackendCut => 502,
            Self::NoBackend
            | Self::ConnectionLimit
            | Self::ClientConnectionLimit
            | Self::Evicted
            | Self::DescriptorLimit
            | Self::IdleTunnel
            | Self::Drained
            | Self::BackendDown
            | Self::PrimaryUp => 503,
            Self::BackendTimeout | Self::RequestTimeout => 504,
            Self::Version => 505,
            Self::Loop => 508,
        }
    }

    /// What a person reads in the body of the reply.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Malformed => "malformed request",
            Self::BareLineEnd => "a line ends without CRLF",
            Self::FieldSyntax => "malformed header field",
            Self::BadHost => "missing, repeated or malformed Host",
            Self::BadTarget => "malformed request target",
            Self::BadContentLength => "malformed or repeated Content-Length",
            Self::AmbiguousFraming => "ambiguous message framing",
            Self::AmbiguousPath => "ambiguous path",
            Self::BadTransferEncoding => "malformed Transfer-Encoding",
            Self::BadChunk => "malformed chunk",
            Self::BadTrailer => "a trailer that belongs in the head",
            Self::NoRoute => "no route",
            Self::Method => "method not allowed",
            Self::SlowHead => "the request head took too long",
            Self::SlowBody => "the request body took too long",
            Self::BodyTooLarge => "request body too large",
            Self::UriTooLong => "request target too long",
            Self::Expectation => "unknown expectation",
            Self::HeadTooLarge => "request head too large",
            Self::TooManyHeaders => "too many header fields",
            Self::ClientLeft | Self::SlowReader => "client left",
            Self::Internal => "internal error",
            Self::TransferCoding => "transfer coding not supported",
            Self::MethodTooLong => "method not implemented",
            Self::BackendConnect => "no connection to the backend",
            Self::BackendReset => "the backend closed the connection",
            Self::BackendProtocol => "the backend's response is not valid HTTP",
            Self::BackendCut => "the backend's response was cut",
            Self::NoBackend => "no backend available",
            Self::ConnectionLimit
            | Self::ClientConnectionLimit
            | Self::Evicted
            | Self::DescriptorLimit => "too many connections",
            Self::Loop => "the request has come back to this proxy",
            Self::IdleTunnel => "silent for too long",
            Self::Drained => "the proxy is going away",
            Self::BackendDown => "the backend is down",
            Self::PrimaryUp => "another backend has taken over",
            Self::BackendTimeout => "the backend took too long",
            Self::RequestTimeout => "the request took too long",
            Self::Version => "HTTP version not supported: 1.1 and 1.0 are",
        }
    }

    /// Whose doing it is.
    pub(crate) fn fault(self) -> Fault {
        match self {
            Self::Malformed
            | Self::BareLineEnd
            | Self::FieldSyntax
            | Self::BadHost
            | Self::BadTarget
            | Self::BadContentLength
            | Self::AmbiguousPath
            | Self::AmbiguousFraming
            | Self::BadTransferEncoding
            | Self::BadChunk
            | Self::BadTrailer
            | Self::NoRoute
            | Self::Method
            | Self::SlowHead
            | Self::SlowBody
            | Self::BodyTooLarge
            | Self::UriTooLong
            | Self::HeadTooLarge
            | Self::TooManyHeaders
            | Self::Expectation
            | Self::TransferCoding
            | Self::MethodTooLong
            | Self::Version
            | Self::SlowReader
            | Self::ClientLeft
            | Self::ClientConnectionLimit
            | Self::IdleTunnel => Fault::Client,
            Self::BackendConnect
            | Self::BackendReset
            | Self::BackendProtocol
            | Self::BackendTimeout
            | Self::BackendCut
            | Self::BackendDown => Fault::Backend,
            Self::Loop
            | Self::NoBackend
            | Self::RequestTimeout
            | Self::ConnectionLimit
            | Self::Evicted
            | Self::DescriptorLimit
            | Self::Drained
            | Self::PrimaryUp
            | Self::Internal => Fault::Proxy,
        }
    }
}

impl BackendError {
    /// Why a request failed to which the backend did this before its response began.
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::Connect => Reason::BackendConnect,
            Self::Timeout => Reason::BackendTimeout,
            Self::Reset => Reason::BackendReset,
            Self::Protocol => Reason::BackendProtocol,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_names_every_reason_and_no_other() {
        let document = include_str!("../../docs/http.md");
        let (_, rest) = document
            .split_once("## The proxy's own responses\n")
            .expect("the section");
        let section = rest.split("\n## ").next().unwrap_or_default();
        let rows = section.lines().filter(|line| line.starts_with('|'));
        let cells = rows.filter_map(|row| row.split('|').nth(2));
        let named: BTreeSet<&str> = cells
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .collect();
        let all: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(named, all);
    }

    #[test]
    fn label_texts_are_distinct_and_plain() {
        let mut texts: Vec<&str> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert!(
            texts
                .iter()
                .all(|t| t.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Reason::ALL.len());
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), i);
        }
    }
}
