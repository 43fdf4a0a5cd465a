//! How a request or a session ended: recorded exactly once, when its last byte has gone.
//!
//! The closed sets of label values live here: why the proxy refused or failed a request ([`Reason`]), what went
//! wrong with a backend ([`BackendError`]) and why a request was tried again ([`RetryReason`]).

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
    pub Reason {
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
    pub BackendError {
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
