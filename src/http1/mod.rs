//! L1 pure: HTTP/1.1 and 1.0 messages (RFC 9112). Bytes in, values or a named refusal out; no I/O, no clock.
//!
//! The strictest reader and the plainest writer: a head is parsed in place, as slices of the buffer it came in,
//! and what is forwarded is written from scratch out of what was understood. Whatever two honest parsers could read
//! differently is refused. What the RFC lets a recipient repair is repaired only where the output is canonical and
//! no parser on the way could have meant something else. Each case is decided here, once, and shown by a test:
//! `requests/…` and `responses/…` are files of `tests/corpus`, every case of which runs whole, byte by byte and in random
//! cuts; other names are those of `tests/….rs`.
//!
//! # Requests
//!
//! | what comes in a request | what is done | source | shown by |
//! |---|---|---|---|
//! | bare LF, bare CR in a head | refused: `BareLineEnd` | RFC 9112 2.2 | requests/line-ends |
//! | NUL and other controls in a value; a name that is not a token, or empty; white space before the colon, or before the first field; a folded line | refused: `FieldSyntax` | RFC 9110 5.5, RFC 9112 2.2, 5.1, 5.2 | requests/fields |
//! | up to [`head::EMPTY_LINES`] empty lines before a request | skipped; more: `Malformed` | RFC 9112 2.2 | requests/line-ends |
//! | a method over [`request::METHOD_BYTES`] | refused: `MethodTooLong` (501) | RFC 9112 3 | requests/methods |
//! | anything but one space in a request line | refused: `Malformed`, `BadTarget`, and never repaired or redirected | RFC 9112 3 | requests/request-line |
//! | a head or trailers over their limit; more fields than the limit | refused: `HeadTooLarge`, `TooManyFields` (431) | RFC 9110 5.4, RFC 6585 5 | requests/limits |
//! | HTTP/1.2 to 1.9 | taken as HTTP/1.1, which is what goes on | RFC 9110 2.5, RFC 9112 2.3 | requests/versions |
//! | another major version | refused: `Version` (505, with what is spoken) | RFC 9110 2.5, 15.6.6 | requests/versions |
//! | CONNECT and TRACE in any case; HEAD in another case, since framing depends on it | refused: `Method` (405, with Allow) | RFC 9110 9.1, 9.3.2, 9.3.6, 9.3.8, 15.5.6 | requests/methods |
//! | another method, known or not | forwarded | RFC 9110 9.1 | requests/methods |
//! | a body with GET, HEAD, DELETE or OPTIONS | forwarded with its framing | RFC 9110 9.3 | requests/methods |
//! | fragment, control or non-ASCII byte in a target; `%00` in a path | refused: `BadTarget` | RFC 9112 3.2 | requests/target |
//! | visible ASCII that RFC 3986 wants encoded (`\|`, `^`, `{`, `"`, `\`) | forwarded: browsers send it | | requests/target |
//! | path and query | go on as they came | RFC 9110 7.7 | requests/path-normal-form |
//! | a target of 8,000 bytes | taken by default; over the limit: `UriTooLong` (414) | RFC 9112 3 | requests/limits |
//! | absolute-form | its authority becomes Host, whatever Host said | RFC 9112 3.2.2 | requests/target |
//! | absolute-form of OPTIONS without a path | goes on as `*` | RFC 9112 3.2.4 | requests/target |
//! | `*` without OPTIONS, authority-form, other schemes, an empty host, userinfo, `http://host?query` | refused: `BadTarget` | RFC 9110 4.2, RFC 9112 3.2.3, 3.2.4 | requests/target |
//! | a path of which a backend's reading takes another route (`route::normal`) | refused where routes are known (`proxy::http::prepare`): `ambiguous_path` | RFC 3986 6.2.2 | requests/path-normal-form |
//! | no Host in HTTP/1.1, two, an empty one, one that is not `host[:port]` of letters, digits, `-._~`, or `[v6]`; an empty label (a trailing dot is none) | refused: `BadHost` | RFC 9110 7.2, RFC 9112 3.2 | requests/host |
//! | no Host in HTTP/1.0 | the backend's address becomes Host; a redirect that names `{host}` is `BadHost` | RFC 9110 10.2.2, RFC 9112 3.2 | requests/versions, http_answers |
//! | Content-Length repeated (even equal), in a list, signed, over 19 digits | refused: `BadContentLength` | RFC 9110 8.6, RFC 9112 6.3 | requests/content-length |
//! | Content-Length beside Transfer-Encoding | refused: `AmbiguousFraming` | RFC 9112 6.1, 6.3 | requests/framing-conflicts |
//! | Transfer-Encoding in HTTP/1.0 | refused: `AmbiguousFraming` | RFC 9112 6.1 | requests/framing-conflicts |
//! | `Content_Length`, `Transfer.Encoding`, … | refused: `AmbiguousFraming`, since some read them as framing | | requests/framing-conflicts |
//! | `Transfer-Encoding: chunked`, in any case and once | taken, and written in lower case | RFC 9112 7, 7.1 | requests/transfer-encoding |
//! | a plain list of the registered codings with a final `chunked` | refused: `TransferCoding` (501) | RFC 9112 6.1 | requests/transfer-encoding |
//! | any other Transfer-Encoding, also a list without `chunked` at its end, and one with empty elements, which a list may have elsewhere | refused: `BadTransferEncoding` | RFC 9110 5.6.1, RFC 9112 6.3 | requests/transfer-encoding |
//! | a chunk size with sign, `0x`, white space, over 16 digits; no CRLF where one belongs | refused: `BadChunk` | RFC 9112 7.1 | requests/chunks |
//! | bare LF or CR in a chunk line or after chunk data, bare CR in trailers | refused: `BadChunk` | RFC 9112 7.1 | requests/chunks |
//! | chunk extensions | dropped, whatever they mean; over [`chunked::EXTENSION_BYTES`] or with controls: `BadChunk` | RFC 9112 7.1.1 | requests/chunks |
//! | a body that ends early | the backend's connection is reset, and what it got is not a whole request | RFC 9112 6.3, 8 | requests/truncated |
//! | Content-Length, Transfer-Encoding or Host in trailers | refused: `BadTrailer` | RFC 9110 6.5.1 | requests/trailers |
//! | other trailers that belong in a head | dropped, and never merged into the head | RFC 9110 6.5.1 | requests/trailers |
//! | trailers of a message whose Connection names a field that could be one of them | dropped, all of them | RFC 9110 6.5, 7.6.1 | requests/trailers |
//! | the rest of them | goes on, to clients also unasked (`TE` speaks for one hop); over [`chunked::TRAILER_FIELDS`]: `TooManyFields` | RFC 9110 6.5.1 | requests/trailers |
//! | `Expect` other than one `100-continue` | refused: `Expectation` (417) | RFC 9110 10.1.1 | requests/expect |
//! | `Expect: 100-continue` | goes on with the head at once, if no answer of ours can be told from the head | RFC 9110 10.1.1 | requests/expect |
//! | `Expect: 100-continue` in HTTP/1.0 or without a body | dropped | RFC 9110 10.1.1 | requests/expect |
//! | Max-Forwards of OPTIONS | counted down, whatever Connection says; 0 is answered with 200 and Allow; not a number, or two: `FieldSyntax`; with another method it goes on as it came | RFC 9110 7.6.2, 9.3.7 | requests/methods, http_answers |
//! | fields that are not known; Range, If-*, Accept*, Cache-Control, Authorization | go on unchanged, those of one name in their order | RFC 9110 5.1, 5.3, 11 to 14 | requests/fields, one_meaning |
//! | forwarding fields and those that override (`claims`), of which only the plain spelling is believed, and only from trusted proxies | others stay behind; no route or hash key sees what stays behind | | requests/trust |
//! | `Proxy` | dropped, whoever sends it: CGI makes `HTTP_PROXY` of it | CVE-2016-5385 | requests/trust |
//!
//! # Responses
//!
//! They are read by the same rules, with these differences. A refused one is a 502, and its connection is closed:
//!
//! | what comes in a response | what is done | source | shown by |
//! |---|---|---|---|
//! | a status outside 100 to 599, another major version | refused | RFC 9110 2.5, 15 | responses/status-line, responses/versions |
//! | no space after the status | taken: there is no reason phrase; what goes on has the space | RFC 9112 4 | responses/status-line |
//! | white space before the colon of a field or a trailer | removed | RFC 9112 5.1 | responses/fields, responses/trailers |
//! | a folded line, white space before the first field | refused | RFC 9112 2.2, 5.2 | responses/fields |
//! | a head over [`response::LIMITS`] | refused | RFC 9110 5.4 | responses/limits |
//! | Content-Length that is not one plain number, a list of equal ones included | refused | RFC 9110 8.6, RFC 9112 6.3 | responses/content-length |
//! | Transfer-Encoding other than one `chunked`; in HTTP/1.0; beside Content-Length | refused | RFC 9112 6.1, 6.3 | responses/transfer-encoding, responses/framing-conflicts |
//! | Content-Length, Transfer-Encoding or Host in trailers | the field is dropped, the body is whole | RFC 9110 6.5.1 | responses/trailers |
//! | 1xx with Transfer-Encoding or a length above 0 | refused | RFC 9110 8.6, RFC 9112 6.1 | responses/interim |
//! | 204, 304 and answers to HEAD with either | served without a body; what HEAD and 304 say of the length goes on, 204 has none; the connection is not used again, for a body that comes all the same would be read as the next answer | RFC 9110 8.6, 9.3.2, 15.4.5, RFC 9112 6.3 | responses/bodiless |
//! | an answer to HEAD, or a 204, without `Content-Length: 0` | served; the connection is not used again but reset: there are servers that send a body all the same, some of them late | RFC 9110 9.3.2, 15.3.5 | responses/bodiless |
//! | 205 | its framing is that of any other response | RFC 9110 15.3.6 | responses/bodiless |
//! | an answer that begins before the whole request has gone out; bytes behind an answer | served; the connection is not used again, and such bytes go to nobody | RFC 9112 6.3, 9.2, 9.5 | responses/early-responses, responses/excess-bytes |
//! | no framing | the body ends with the connection; an HTTP/1.1 client gets chunks, an HTTP/1.0 client the end of its connection | RFC 9112 6.3, 7.1 | responses/versions |
//! | a body that ends early | the client's is cut as visibly | RFC 9112 8 | responses/cut-bodies |
//! | 1xx | goes on to HTTP/1.1 clients, asked for or not, and restarts `timeouts.response`; more than [`response::INTERIM_RESPONSES`] or [`response::INTERIM_BYTES`] are dropped and restart nothing; none to HTTP/1.0 clients | RFC 9110 15.2 | responses/interim, http_answers |
//! | a 101 that names no protocol that was offered, or that comes before the whole request has been sent | refused | RFC 9110 7.8, 15.2.2 | responses/upgrade |
//! | a final response without Date | gets one; an interim one does not, since the final one has it | RFC 9110 6.6.1 | http_fields |
//! | content and the fields that describe it (Content-*, ETag, Vary, Cache-Control with or without `no-transform`) | go on unchanged | RFC 9110 7.7, 8, 15 | responses/fields |
//! | Upgrade in a 426 or another final response | stays behind: it speaks for one hop, and it is often `h2c` | RFC 9110 7.6.1, 7.8, 15.5.22 | responses/upgrade |
//!
//! # Connections, and what a gateway owes
//!
//! | | what is done | source | shown by |
//! |---|---|---|---|
//! | Connection, what it names, Keep-Alive, Proxy-Connection, Proxy-Authenticate, Proxy-Authorization, TE, Transfer-Encoding, Upgrade | stay behind; what is true of the next connection is written instead | RFC 9110 7.6.1, 10.1.4, 11.7 | requests/connection-options, responses/hop-by-hop |
//! | a Connection option that is not a token | refused: `FieldSyntax` | RFC 9110 7.6.1 | requests/connection-options |
//! | more than [`connection_options::CONNECTION_OPTIONS`] of them | refused: `TooManyFields` | | requests/connection-options |
//! | Connection options that name Host, framing, Expect or a forwarding field | have no effect | RFC 9110 7.6.1 | requests/connection-options |
//! | `close` | ends the connection after the answer, nothing behind that request is looked at; our own `close` is followed by the end of our side and a while of reading | RFC 9112 9.6 | http_basics, lifecycle |
//! | HTTP/1.0 | kept only where both sides say so: the rule against it (9.3) is one for proxies, and a gateway is to its clients what a server is | RFC 9112 9.3 | requests/versions, responses/versions |
//! | how long a kept client may rest | announced: `Keep-Alive: timeout=N`, named by Connection | RFC 9110 7.6.1, RFC 9112 9.5 | http_fields |
//! | pipelined requests | answered in order, one at a time; none are pipelined to backends | RFC 9110 7.5, RFC 9112 9.3.2 | requests/pipelining |
//! | a request whose backend has failed | sent again only if it is idempotent or never left, and whole | RFC 9110 9.2.2, RFC 9112 9.3.1 | failover |
//! | kept connections to backends | watched for their end, and looked at before use | RFC 9112 9.5 | limits |
//! | Upgrade without `Connection: upgrade`, in HTTP/1.0, of more than [`connection_options::UPGRADE_PROTOCOLS`], of what is not a protocol, or of `h2…` or `HTTP…` | dropped, the request served | RFC 9110 7.8, RFC 9113 3.1 | requests/upgrade |
//! | Upgrade with a body | the offer goes on, and the protocol changes when all of the body has been sent | RFC 9110 7.8 | requests/upgrade, upgrade |
//! | Via | with `via = true` ours is put behind those that are there, in the version that the message came in; off by default, since nginx then does not compress | RFC 9110 7.6.3 | http_fields |
//! | a request that has passed this process before | refused with 508, by X-Lbproxy-Hop | RFC 9110 7.6 | limits |
//! | the version of a message that goes on | is ours, HTTP/1.1 | RFC 9112 2.3 | requests/versions, responses/versions |
//! | 405, 505, 408 of our own | have Allow, say what is spoken, close | RFC 9110 15.5.6, 15.5.9, 15.6.6 | http_answers |
//! | 204, 205, 304 of our own | have no content | RFC 9110 15.3.5, 15.3.6, 15.4.5 | http_answers |
//!
//! [`head`] finds lines and fields, [`request`] and [`response`] give them meaning, [`body`] and [`chunked`] follow
//! a body, [`connection_options`] what a message says of its connection, [`field`] knows the names that matter to a proxy,
//! and `claims` those by which a stranger could pass for somebody else.

pub(crate) mod body;
pub(crate) mod chunked;
mod claims;
pub(crate) mod connection_options;
pub(crate) mod field;
pub(crate) mod head;
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
    /// Transfer-Encoding that is no plain list of codings with one, final `chunked`.
    #[error("malformed Transfer-Encoding")]
    BadTransferEncoding,
    /// A transfer coding that we do not have.
    #[error("unsupported transfer coding")]
    TransferCoding,
    /// A method longer than any that there is.
    #[error("method too long")]
    MethodTooLong,
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
