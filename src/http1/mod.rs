//! L1 pure: HTTP/1.1 and 1.0 messages (RFC 9112). Bytes in, values or a named refusal out; no I/O, no clock.
//!
//! The strictest reader and the plainest writer: a head is parsed in place, as slices of the buffer it came in,
//! and what is forwarded is written anew from what was understood. Whatever two honest parsers could read
//! differently is refused, never repaired:
//!
//! | what comes in | what is done | source |
//! |---|---|---|
//! | bare LF, bare CR, NUL and other controls in a head | refused | RFC 9112 2.2, RFC 9110 5.5 |
//! | space before a colon, folded line, empty name | refused | RFC 9112 5.1, 5.2 |
//! | up to [`head::EMPTY_LINES`] empty lines before a request | skipped | RFC 9112 2.2 |
//! | Content-Length repeated, in a list, signed, over 19 digits | refused | RFC 9112 6.3 |
//! | Content-Length beside Transfer-Encoding | refused | RFC 9112 6.1 |
//! | Transfer-Encoding other than one `chunked`, or in HTTP/1.0 | refused | RFC 9112 6.1 |
//! | a chunk size with sign, `0x`, white space, over 16 digits | refused | RFC 9112 7.1 |
//! | chunk extensions | checked, bounded, dropped | RFC 9112 7.1.1 |
//! | no Host in HTTP/1.1, two, a malformed one | refused | RFC 9112 3.2 |
//! | absolute-form target | its authority becomes Host | RFC 9112 3.2.2 |
//! | fragment, control or non-ASCII byte in a target | refused | RFC 9112 3.2 |
//! | `*` with a method other than OPTIONS, authority-form | refused | RFC 9112 3.2.3, 3.2.4 |
//!
//! [`head`] finds lines and fields, [`request`] and [`response`] give them meaning, [`body`] and [`chunked`] follow
//! a body, [`field`] knows the names that matter to a proxy.

pub mod body;
pub mod chunked;
pub mod field;
pub mod head;
pub mod request;
pub mod response;

use thiserror::Error;

/// The two versions spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    V10,
    /// HTTP/1.1.
    V11,
}

/// Where a body ends (RFC 9112 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After this many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection; responses only.
    UntilClose,
}

/// Why bytes are not a message that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Anything without a more exact name.
    #[error("malformed message")]
    Malformed,
    /// A line that ends in a bare LF, or a CR without LF.
    #[error("bare line end")]
    BareLineEnd,
    /// White space where a name ends, a folded line, a bad name or a control byte in a value.
    #[error("malformed field line")]
    FieldSyntax,
    /// Missing, repeated or malformed Host.
    #[error("missing, repeated or malformed Host")]
    BadHost,
    /// Not a request target.
    #[error("malformed request target")]
    BadTarget,
    /// Content-Length that is not one plain number.
    #[error("malformed or repeated Content-Length")]
    BadContentLength,
    /// Content-Length and Transfer-Encoding together, or Transfer-Encoding in HTTP/1.0.
    #[error("ambiguous framing")]
    AmbiguousFraming,
    /// Transfer-Encoding other than one `chunked`.
    #[error("unsupported transfer coding")]
    TransferCoding,
    /// A chunk that is not well formed.
    #[error("malformed chunk")]
    BadChunk,
    /// CONNECT or TRACE.
    #[error("method not allowed")]
    Method,
    /// An expectation other than `100-continue`.
    #[error("unknown expectation")]
    Expectation,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    #[error("unsupported HTTP version")]
    Version,
    /// Target over its limit.
    #[error("request target too long")]
    UriTooLong,
    /// Head or trailers over their limit.
    #[error("header section too large")]
    HeadTooLarge,
    /// More fields than allowed.
    #[error("too many header fields")]
    TooManyFields,
}
