//! L1 pure: HTTP/1.1 and 1.0 messages (RFC 9112). Bytes in, values or a named refusal out; no I/O, no clock.
//!
//! The strictest reader and the plainest writer: a head is parsed in place, as slices of the buffer it came in,
//! and what is forwarded is written anew from what was understood. Whatever two honest parsers could read
//! differently is refused. What the RFC lets a recipient repair is repaired only where the output is canonical and
//! no parser on the way could have meant something else. Each case is decided here, once:
//!
//! | what comes in a request | what is done | source |
//! |---|---|---|
//! | bare LF, bare CR in a head | refused: `BareLineEnd` | RFC 9112 2.2 |
//! | NUL and other controls in a value; a name that is no token, or empty; white space before the colon; a folded line | refused: `FieldSyntax` | RFC 9110 5.5, RFC 9112 5.1, 5.2 |
//! | up to [`head::EMPTY_LINES`] empty lines before a request | skipped; more: `Malformed` | RFC 9112 2.2 |
//! | a method over [`request::METHOD_BYTES`]; anything but one space in a request line | refused: `Malformed`, `BadTarget` | RFC 9112 3 |
//! | HTTP/1.2 to 1.9 | taken as HTTP/1.1, which is what goes on | RFC 9110 2.5 |
//! | another major version | refused: `Version` | RFC 9110 2.5, 15.6.6 |
//! | CONNECT and TRACE in any case; HEAD in another case, since framing depends on it | refused: `Method` | RFC 9110 9.1, 9.3.2, 9.3.6, 9.3.8 |
//! | fragment, control or non-ASCII byte in a target; `%00` in a path | refused: `BadTarget` | RFC 9112 3.2 |
//! | visible ASCII that RFC 3986 wants encoded (`\|`, `^`, `{`, `"`, `\`) | forwarded: browsers send it | |
//! | absolute-form | its authority becomes Host, whatever Host said | RFC 9112 3.2.2 |
//! | `*` without OPTIONS, authority-form, other schemes, userinfo, `http://host?query` | refused: `BadTarget` | RFC 9112 3.2.3, 3.2.4 |
//! | a path of which a backend's reading takes another route (`route::normal`) | refused where routes are known (`proxy::http::prepare`): `ambiguous_path` | RFC 3986 6.2.2 |
//! | no Host in HTTP/1.1, two, one that is not `host[:port]` of letters, digits, `-._~`, or `[v6]`; an empty label (a trailing dot is none) | refused: `BadHost` | RFC 9112 3.2 |
//! | Content-Length repeated (even equal), in a list, signed, over 19 digits | refused: `BadContentLength` | RFC 9112 6.3, 5 |
//! | Content-Length beside Transfer-Encoding | refused: `AmbiguousFraming` | RFC 9112 6.1 |
//! | Transfer-Encoding in HTTP/1.0 | refused: `AmbiguousFraming` | RFC 9112 6.1 |
//! | `Content_Length`, `Transfer.Encoding`, … | refused: `AmbiguousFraming`, since some read them as framing | |
//! | `Transfer-Encoding: chunked`, in any case and once | taken, and written in lower case | RFC 9112 7, 7.1 |
//! | a plain list of the registered codings, perhaps with a final `chunked` | refused: `TransferCoding` (501) | RFC 9112 6.1 |
//! | any other Transfer-Encoding | refused: `BadTransferEncoding` | RFC 9112 6.3 |
//! | a chunk size with sign, `0x`, white space, over 16 digits; no CRLF where one belongs | refused: `BadChunk` | RFC 9112 7.1 |
//! | bare LF or CR in a chunk line or behind chunk data, bare CR in trailers | refused: `BadChunk` | RFC 9112 7.1 |
//! | chunk extensions | dropped, whatever they mean; over [`chunked::EXTENSION_BYTES`] or with controls: `BadChunk` | RFC 9112 7.1.1 |
//! | Content-Length, Transfer-Encoding or Host in trailers | refused: `BadTrailer` | RFC 9110 6.5.1 |
//! | other trailers that belong in a head | dropped | RFC 9110 6.5.1 |
//! | trailers of a message whose Connection names a field that could be one of them | dropped, all of them | RFC 9110 7.6.1, 6.5 |
//! | the rest of them | goes on, to clients also unasked (`TE` speaks for one hop); over [`chunked::TRAILER_FIELDS`]: `TooManyFields` | RFC 9110 6.5.1 |
//! | `Expect` other than one `100-continue` | refused: `Expectation` | RFC 9110 10.1.1 |
//! | `Expect: 100-continue` in HTTP/1.0 or without a body | dropped | RFC 9110 10.1.1 |
//! | a Connection option that is no token | refused: `FieldSyntax` | RFC 9110 7.6.1 |
//! | more than [`connection::CONNECTION_OPTIONS`] of them | refused: `TooManyFields` | |
//! | Connection options that name Host, framing, Expect or a forwarding field | have no effect | RFC 9110 7.6.1 |
//! | forwarding fields and those that override (`claims`), of which only the plain spelling is believed, and only from trusted proxies | others stay behind; no route or hash key sees what stays behind | |
//! | `Proxy` | dropped, whoever sends it: CGI makes `HTTP_PROXY` of it | CVE-2016-5385 |
//! | Upgrade without `Connection: upgrade`, with a body, in HTTP/1.0, of more than [`connection::UPGRADE_PROTOCOLS`], of what is no protocol, or of `h2…` or `HTTP…` | dropped, the request served | RFC 9110 7.8, RFC 9113 3.1 |
//!
//! Responses are read by the same rules, with these differences:
//!
//! | what comes in a response | what is done | source |
//! |---|---|---|
//! | a status outside 100 to 599, another version | refused | RFC 9110 15 |
//! | no space behind the status | taken: there is no reason phrase | RFC 9112 4 |
//! | white space before the colon of a field or a trailer | removed | RFC 9112 5.1 |
//! | a folded line | refused, which is a 502 | RFC 9112 5.2 |
//! | Content-Length, Transfer-Encoding or Host in trailers | the field is dropped, the body is whole | RFC 9110 6.5.1 |
//! | 1xx with Transfer-Encoding or a length above 0 | refused | RFC 9110 8.6, RFC 9112 6.1 |
//! | 204, 304 and answers to HEAD with either | served without a body; the connection is not used again, for a body that comes all the same would be read as the next answer | RFC 9110 8.6, 9.3.2, 15.4.5 |
//! | an answer to HEAD, or a 204, without `Content-Length: 0` | served; the connection is not used again: there are servers that send a body all the same, some of them late | RFC 9110 9.3.2, 15.3.5 |
//! | an answer that begins before the whole request has gone out; bytes behind an answer | served; the connection is not used again | RFC 9112 9.2, 9.5 |
//! | no framing | the body ends with the connection | RFC 9112 6.3 |
//! | more than [`response::INTERIM_RESPONSES`] 1xx | refused | |
//! | a 101 that names no protocol that was offered | refused | RFC 9110 15.2.2 |
//!
//! [`head`] finds lines and fields, [`request`] and [`response`] give them meaning, [`body`] and [`chunked`] follow
//! a body, [`connection`] what a message says of its connection, [`field`] knows the names that matter to a proxy, and
//! `claims` those by which a stranger could pass for somebody else.

pub mod body;
pub mod chunked;
mod claims;
pub mod connection;
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
    /// Content-Length and Transfer-Encoding together, one of them oddly spelled, or framing where none can be.
    #[error("ambiguous framing")]
    AmbiguousFraming,
    /// Transfer-Encoding that is no plain list of codings with at most one, final `chunked`.
    #[error("malformed Transfer-Encoding")]
    BadTransferEncoding,
    /// A transfer coding that we do not have.
    #[error("unsupported transfer coding")]
    TransferCoding,
    /// A chunk that is not well formed.
    #[error("malformed chunk")]
    BadChunk,
    /// A trailer that would frame or route the message.
    #[error("a trailer that belongs in the head")]
    BadTrailer,
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
    /// More fields, or more Connection options, than allowed.
    #[error("too many header fields")]
    TooManyFields,
}
