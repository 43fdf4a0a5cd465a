//! L1 pure: HTTP/1.1 and HTTP/1.0 messages (RFC 9112). Bytes go in; values or a named refusal come out. No I/O, no
//! clock.
//!
//! The parser is strict and the writer is plain. A head is parsed in place, as slices of the buffer that it arrived in,
//! and what is forwarded is written from scratch from the parsed values. Anything that two honest parsers could read
//! differently is refused. What the RFC lets a recipient repair is repaired only where the output is canonical and no
//! parser on the path could have read it differently. Each case is decided once, here, and covered by a test:
//! `requests/…` and `responses/…` are files of `tests/corpus`, where every case runs whole, byte by byte and in random
//! cuts; other names are those of `tests/….rs`.
//!
//! # Requests
//!
//! | in a request | what is done | source | test |
//! |---|---|---|---|
//! | bare LF, bare CR in a head | refused: `BareLineEnd` | RFC 9112 2.2 | requests/line-ends |
//! | NUL and other controls in a value; a name that is empty or not a token; white space before the colon or before the first field; a folded line | refused: `FieldSyntax` | RFC 9110 5.5, RFC 9112 2.2, 5.1, 5.2 | requests/fields |
//! | up to [`head::EMPTY_LINES`] empty lines before a request | skipped; more: `Malformed` | RFC 9112 2.2 | requests/line-ends |
//! | a method longer than [`request::METHOD_BYTES`] | refused: `MethodTooLong` (501) | RFC 9112 3 | requests/methods |
//! | anything but one space between the parts of a request line | refused: `Malformed`, `BadTarget`; never repaired or redirected | RFC 9112 3 | requests/request-line |
//! | a head or trailers over their size limit; more fields than the limit | refused: `HeadTooLarge`, `TooManyFields` (431) | RFC 9110 5.4, RFC 6585 5 | requests/limits |
//! | HTTP/1.2 to 1.9 | treated as HTTP/1.1, and forwarded as HTTP/1.1 | RFC 9110 2.5, RFC 9112 2.3 | requests/versions |
//! | another major version | refused: `Version` (505, which names the supported versions) | RFC 9110 2.5, 15.6.6 | requests/versions |
//! | CONNECT and TRACE in any case; HEAD in any other case, since framing depends on it | refused: `Method` (405, with Allow) | RFC 9110 9.1, 9.3.2, 9.3.6, 9.3.8, 15.5.6 | requests/methods |
//! | any other method, known or not | forwarded | RFC 9110 9.1 | requests/methods |
//! | a body with GET, HEAD, DELETE or OPTIONS | forwarded with its framing | RFC 9110 9.3 | requests/methods |
//! | a fragment, control or non-ASCII byte in a target; `%00` in a path | refused: `BadTarget` | RFC 9112 3.2 | requests/target |
//! | visible ASCII that RFC 3986 wants encoded (`\|`, `^`, `{`, `"`, `\`) | forwarded, because browsers send it | | requests/target |
//! | path and query | forwarded unchanged | RFC 9110 7.7 | requests/path-normal-form |
//! | a target of 8,000 bytes | accepted by default; over the limit: `UriTooLong` (414) | RFC 9112 3 | requests/limits |
//! | absolute-form | its authority replaces Host | RFC 9112 3.2.2 | requests/target |
//! | absolute-form of OPTIONS without a path | forwarded as `*` | RFC 9112 3.2.4 | requests/target |
//! | `*` without OPTIONS, authority-form, other schemes, an empty host, userinfo, `http://host?query` | refused: `BadTarget` | RFC 9110 4.2, RFC 9112 3.2.3, 3.2.4 | requests/target |
//! | a path that a backend may read so that it matches another route (`route::normal`) | refused where routes are known (`proxy::http::prepare`): `ambiguous_path` | RFC 3986 6.2.2 | requests/path-normal-form |
//! | Host missing in HTTP/1.1, repeated, empty, or not `host[:port]` of letters, digits, `-._~`, or `[v6]`; an empty label (a trailing dot does not make one) | refused: `BadHost` | RFC 9110 7.2, RFC 9112 3.2 | requests/host |
//! | no Host in HTTP/1.0 | the backend's address becomes Host; a redirect that uses `{host}` is `BadHost` | RFC 9110 10.2.2, RFC 9112 3.2 | requests/versions, http_answers |
//! | Content-Length repeated (even equal), in a list, signed, over 19 digits | refused: `BadContentLength` | RFC 9110 8.6, RFC 9112 6.3 | requests/content-length |
//! | Content-Length together with Transfer-Encoding | refused: `AmbiguousFraming` | RFC 9112 6.1, 6.3 | requests/framing-conflicts |
//! | Transfer-Encoding in HTTP/1.0 | refused: `AmbiguousFraming` | RFC 9112 6.1 | requests/framing-conflicts |
//! | `Content_Length`, `Transfer.Encoding`, … | refused: `AmbiguousFraming`, since some servers read them as framing | | requests/framing-conflicts |
//! | one `Transfer-Encoding: chunked`, in any case | accepted, and written in lower case | RFC 9112 7, 7.1 | requests/transfer-encoding |
//! | a plain list of the registered codings with a final `chunked` | refused: `TransferCoding` (501) | RFC 9112 6.1 | requests/transfer-encoding |
//! | any other Transfer-Encoding, including a list without a final `chunked` and one with empty elements, which other lists may have | refused: `BadTransferEncoding` | RFC 9110 5.6.1, RFC 9112 6.3 | requests/transfer-encoding |
//! | a chunk size with a sign, `0x`, white space or over 16 digits; a missing CRLF | refused: `BadChunk` | RFC 9112 7.1 | requests/chunks |
//! | bare LF or CR in a chunk line or after chunk data, bare CR in trailers | refused: `BadChunk` | RFC 9112 7.1 | requests/chunks |
//! | chunk extensions | dropped, whatever they mean; over [`chunked::EXTENSION_BYTES`] or with controls: `BadChunk` | RFC 9112 7.1.1 | requests/chunks |
//! | a body that ends early | the backend connection is reset, so that the backend never sees a complete request | RFC 9112 6.3, 8 | requests/truncated |
//! | Content-Length, Transfer-Encoding or Host in trailers | refused: `BadTrailer` | RFC 9110 6.5.1 | requests/trailers |
//! | other trailers that belong in a head | dropped, never merged into the head | RFC 9110 6.5.1 | requests/trailers |
//! | trailers of a message whose Connection names a field that could be one of them | all dropped | RFC 9110 6.5, 7.6.1 | requests/trailers |
//! | the remaining trailers | forwarded, to clients even if they did not ask (`TE` applies to one hop); over [`chunked::TRAILER_FIELDS`]: `TooManyFields` | RFC 9110 6.5.1 | requests/trailers |
//! | `Expect` other than one `100-continue` | refused: `Expectation` (417) | RFC 9110 10.1.1 | requests/expect |
//! | `Expect: 100-continue` | forwarded with the head at once, unless the head alone already calls for a response from the proxy | RFC 9110 10.1.1 | requests/expect |
//! | `Expect: 100-continue` in HTTP/1.0 or without a body | dropped | RFC 9110 10.1.1 | requests/expect |
//! | Max-Forwards of OPTIONS | decremented, whatever Connection says; 0 is answered with 200 and Allow; not a number, or repeated: `FieldSyntax`; with another method it is forwarded unchanged | RFC 9110 7.6.2, 9.3.7 | requests/methods, http_answers |
//! | unknown fields; Range, If-*, Accept*, Cache-Control, Authorization | forwarded unchanged, fields of one name in their order | RFC 9110 5.1, 5.3, 11 to 14 | requests/fields, one_meaning |
//! | forwarding and override fields (`claims`), which are believed only in their plain spelling and only from trusted proxies | otherwise removed; no route and no hash key sees a removed field | | requests/trust |
//! | `Proxy` | dropped, whoever sends it: CGI turns it into `HTTP_PROXY` | CVE-2016-5385 | requests/trust |
//!
//! # Responses
//!
//! Responses follow the same rules, with these differences. A refused response becomes a 502, and its connection is
//! closed:
//!
//! | in a response | what is done | source | test |
//! |---|---|---|---|
//! | a status outside 100 to 599, another major version | refused | RFC 9110 2.5, 15 | responses/status-line, responses/versions |
//! | no space after the status | accepted as an empty reason phrase; the space is written when it is forwarded | RFC 9112 4 | responses/status-line |
//! | white space before the colon of a field or a trailer | removed | RFC 9112 5.1 | responses/fields, responses/trailers |
//! | a folded line, white space before the first field | refused | RFC 9112 2.2, 5.2 | responses/fields |
//! | a head over [`response::LIMITS`] | refused | RFC 9110 5.4 | responses/limits |
//! | Content-Length that is not one plain number, including a list of equal ones | refused | RFC 9110 8.6, RFC 9112 6.3 | responses/content-length |
//! | Transfer-Encoding other than one `chunked`; in HTTP/1.0; together with Content-Length | refused | RFC 9112 6.1, 6.3 | responses/transfer-encoding, responses/framing-conflicts |
//! | Content-Length, Transfer-Encoding or Host in trailers | the field is dropped; the body is complete | RFC 9110 6.5.1 | responses/trailers |
//! | 1xx with Transfer-Encoding or a length above 0 | refused | RFC 9110 8.6, RFC 9112 6.1 | responses/interim |
//! | 204, 304 and responses to HEAD with Transfer-Encoding or a length above 0 | forwarded without a body; the length in HEAD and 304 responses is forwarded, that in a 204 is not; the connection is not reused, because a body sent anyway would be read as the next response | RFC 9110 8.6, 9.3.2, 15.4.5, RFC 9112 6.3 | responses/bodiless |
//! | a response to HEAD, or a 204 or 304, without `Content-Length: 0` | forwarded; the connection is reset, not reused, because some servers send a body anyway, some of them late | RFC 9110 9.3.2, 15.3.5 | responses/bodiless |
//! | 205 | framed like any other response | RFC 9110 15.3.6 | responses/bodiless |
//! | a response that begins before the whole request has been sent; bytes after a response | forwarded; the connection is not reused, and the extra bytes are discarded | RFC 9112 6.3, 9.2, 9.5 | responses/early-responses, responses/excess-bytes |
//! | no framing | the body ends with the connection; an HTTP/1.1 client gets chunks, an HTTP/1.0 client the end of its connection | RFC 9112 6.3, 7.1 | responses/versions |
//! | a body that ends early | the client's copy is cut just as visibly | RFC 9112 8 | responses/cut-bodies |
//! | 1xx | forwarded to HTTP/1.1 clients, whether they asked or not, and restarts `timeouts.response`; more than [`response::INTERIM_RESPONSES`] or [`response::INTERIM_BYTES`] are dropped and restart nothing; never forwarded to HTTP/1.0 clients | RFC 9110 15.2 | responses/interim, http_answers |
//! | a 101 that names no protocol that was offered, or that comes before the whole request has been sent | refused | RFC 9110 7.8, 15.2.2 | responses/upgrade |
//! | a final response without Date | gets one; an interim response does not, since the final one has it | RFC 9110 6.6.1 | http_fields |
//! | content and the fields that describe it (Content-*, ETag, Vary, Cache-Control with or without `no-transform`) | forwarded unchanged | RFC 9110 7.7, 8, 15 | responses/fields |
//! | Upgrade in a 426 or another final response | removed: it applies to one hop, and it is often `h2c` | RFC 9110 7.6.1, 7.8, 15.5.22 | responses/upgrade |
//!
//! # Connections, and the duties of a gateway
//!
//! | | what is done | source | test |
//! |---|---|---|---|
//! | Connection, the fields that it names, Keep-Alive, Proxy-Connection, Proxy-Authenticate, Proxy-Authorization, TE, Transfer-Encoding, Upgrade | removed; what applies to the next connection is written instead | RFC 9110 7.6.1, 10.1.4, 11.7 | requests/connection-options, responses/hop-by-hop |
//! | a Connection option that is not a token | refused: `FieldSyntax` | RFC 9110 7.6.1 | requests/connection-options |
//! | more than [`connection_options::CONNECTION_OPTIONS`] of them | refused: `TooManyFields` | | requests/connection-options |
//! | Connection options that name Host, framing, Expect or a forwarding field | have no effect | RFC 9110 7.6.1 | requests/connection-options |
//! | `close` | ends the connection after the response, and nothing after that request is read; after a `close` of the proxy's own, it ends its side and keeps reading for a while | RFC 9112 9.6 | http_basics, lifecycle |
//! | HTTP/1.0 | kept alive only if both sides ask for it: the rule against it (9.3) is for proxies, and to its clients a gateway is a server | RFC 9112 9.3 | requests/versions, responses/versions |
//! | how long a client connection may stay idle | announced: `Keep-Alive: timeout=N`, named by Connection | RFC 9110 7.6.1, RFC 9112 9.5 | http_fields |
//! | pipelined requests | answered in order, one at a time; none are pipelined to backends | RFC 9110 7.5, RFC 9112 9.3.2 | requests/pipelining |
//! | a request whose backend has failed | sent again only if it is complete, and either idempotent or never sent | RFC 9110 9.2.2, RFC 9112 9.3.1 | failover |
//! | idle connections to backends | watched for their end, and checked before use | RFC 9112 9.5 | limits |
//! | Upgrade without `Connection: upgrade`, in HTTP/1.0, with more than [`connection_options::UPGRADE_PROTOCOLS`], with something that is not a protocol, or with `h2…` or `HTTP…` | dropped; the request is served | RFC 9110 7.8, RFC 9113 3.1 | requests/upgrade |
//! | Upgrade with a body | the offer is forwarded, and the protocol changes when the whole body has been sent | RFC 9110 7.8 | requests/upgrade, upgrade |
//! | Via | with `via = true` ours is added after those present, with the version that the message arrived in; off by default, because nginx does not compress when it is there | RFC 9110 7.6.3 | http_fields |
//! | a request that has passed through this process before | refused with 508, by X-Lbproxy-Hop | RFC 9110 7.6 | limits |
//! | the version of a forwarded message | is the proxy's own, HTTP/1.1 | RFC 9112 2.3 | requests/versions, responses/versions |
//! | 405, 505, 408 from the proxy | carry Allow, name the supported versions, close | RFC 9110 15.5.6, 15.5.9, 15.6.6 | http_answers |
//! | 204, 205, 304 from the proxy | have no content | RFC 9110 15.3.5, 15.3.6, 15.4.5 | http_answers |
//!
//! [`head`] finds lines and fields, [`request`] and [`response`] interpret them, [`body`] and [`chunked`] follow a
//! body, [`connection_options`] reads what a message says about its connection, [`field`] knows the names that matter
//! to a proxy, and `claims` those with which a client could pass for someone else.

pub(crate) mod body;
pub(crate) mod chunked;
mod claims;
pub(crate) mod connection_options;
pub(crate) mod field;
pub(crate) mod head;
pub mod request;
pub mod response;

use thiserror::Error;

/// The HTTP versions that the proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    V10,
    /// HTTP/1.1.
    V11,
}

/// How the end of a body is found (RFC 9112 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// The body ends after this many bytes.
    Length(u64),
    /// The body ends with its last chunk.
    Chunked,
    /// The body ends with the connection; responses only.
    UntilClose,
}

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Malformed in a way that no other variant names.
    #[error("malformed message")]
    Malformed,
    /// A line that ends in a bare LF, or a CR without LF.
    #[error("bare line end")]
    BareLineEnd,
    /// White space after a field name, a folded line, a bad name or a control byte in a value.
    #[error("malformed field line")]
    FieldSyntax,
    /// Host is missing, repeated or malformed.
    #[error("missing, repeated or malformed Host")]
    BadHost,
    /// The request target is malformed.
    #[error("malformed request target")]
    BadTarget,
    /// Content-Length is not one plain number.
    #[error("malformed or repeated Content-Length")]
    BadContentLength,
    /// Content-Length and Transfer-Encoding together, a lookalike of either, or framing where there can be none.
    #[error("ambiguous framing")]
    AmbiguousFraming,
    /// Transfer-Encoding is not a plain list of codings with a single, final `chunked`.
    #[error("malformed Transfer-Encoding")]
    BadTransferEncoding,
    /// A transfer coding that the proxy does not support.
    #[error("unsupported transfer coding")]
    TransferCoding,
    /// The method is longer than any that exists.
    #[error("method too long")]
    MethodTooLong,
    /// A chunk is malformed.
    #[error("malformed chunk")]
    BadChunk,
    /// A trailer that would frame or route the message.
    #[error("a trailer that belongs in the head")]
    BadTrailer,
    /// CONNECT, TRACE, or HEAD in another case.
    #[error("method not allowed")]
    Method,
    /// An expectation other than `100-continue`.
    #[error("unknown expectation")]
    Expectation,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    #[error("unsupported HTTP version")]
    Version,
    /// The target is over its limit.
    #[error("request target too long")]
    UriTooLong,
    /// The head or the trailers are over their limit.
    #[error("header section too large")]
    HeadTooLarge,
    /// More fields, or more Connection options, than allowed.
    #[error("too many header fields")]
    TooManyFields,
}
