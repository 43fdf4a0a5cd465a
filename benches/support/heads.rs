//! The messages that the benches of heads and bodies read: three sizes of head, and chunked bodies. The same bytes in
//! every run.

use std::fmt::Write;

use lbproxy::internals::http1::head::HeadLimits;

/// Bounds that the largest head keeps.
pub(crate) const LIMITS: HeadLimits = HeadLimits {
    bytes: 16 << 10,
    fields: 100,
    target: 8 << 10,
};

/// The id that a request gets.
pub(crate) const REQUEST_ID: &[u8] = b"0123456789abcdef0123456789abcdef";

/// Payload of a chunked body.
pub(crate) const BODY_BYTES: usize = 16 << 10;

/// Bytes of a large head.
const LARGE_BYTES: usize = 8 << 10;
/// Fields of a large head.
const LARGE_FIELDS: usize = 60;

/// How large a head is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Size {
    /// As curl sends it.
    Small,
    /// As a browser sends it, and what a web application answers.
    Browser,
    /// 60 fields, 8 KiB.
    Large,
}

impl Size {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Small, Self::Browser, Self::Large];

    /// What reports call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Browser => "browser",
            Self::Large => "large",
        }
    }
}

const SMALL_REQUEST: &str = "GET /items/7 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: curl/8.11.0\r\nAccept: */*\r\n\r\n";

const BROWSER_REQUEST: &str = "GET /shop/items/7?page=2&sort=price HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    Connection: keep-alive\r\n\
    sec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Dest: document\r\n\
    Referer: https://www.example.com/shop/\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\n\r\n";

const SMALL_RESPONSE: &str =
    "HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\nContent-Length: 128\r\n\r\n";

const BROWSER_RESPONSE: &str = "HTTP/1.1 200 OK\r\n\
    Date: Tue, 24 Nov 2026 12:00:00 GMT\r\n\
    Server: application\r\n\
    Connection: keep-alive\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 20480\r\n\
    Cache-Control: private, max-age=0, must-revalidate\r\n\
    ETag: \"0123456789abcdef\"\r\n\
    Last-Modified: Mon, 23 Nov 2026 12:00:00 GMT\r\n\
    Vary: Accept-Encoding, Cookie\r\n\
    Content-Encoding: gzip\r\n\
    Set-Cookie: session=0123456789abcdef0123456789abcdef; Path=/; Secure; HttpOnly; SameSite=Lax\r\n\
    Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n\
    Content-Security-Policy: default-src 'self'; img-src 'self' data:; frame-ancestors 'none'\r\n\
    X-Content-Type-Options: nosniff\r\n\
    Referrer-Policy: strict-origin-when-cross-origin\r\n\r\n";

/// A request head of this size.
pub(crate) fn request_head(size: Size) -> Vec<u8> {
    match size {
        Size::Small => SMALL_REQUEST.into(),
        Size::Browser => BROWSER_REQUEST.into(),
        Size::Large => large("GET /items/7 HTTP/1.1\r\nHost: www.example.com\r\n"),
    }
}

/// A response head of this size.
pub(crate) fn response_head(size: Size) -> Vec<u8> {
    match size {
        Size::Small => SMALL_RESPONSE.into(),
        Size::Browser => BROWSER_RESPONSE.into(),
        Size::Large => large("HTTP/1.1 200 OK\r\nContent-Length: 128\r\n"),
    }
}

/// `begin`, which has one field, and 59 more, 8 KiB in all.
fn large(begin: &str) -> Vec<u8> {
    let mut head = begin.to_owned();
    for n in 1..LARGE_FIELDS {
        let name = format!("X-Field-{n:02}: ");
        let left = LARGE_BYTES - 2 - head.len();
        let value = left / (LARGE_FIELDS - n) - name.len() - 2;
        write!(head, "{name}{:v<value$}\r\n", "").expect("a string takes everything");
    }
    head.push_str("\r\n");
    assert_eq!(head.len(), LARGE_BYTES);
    head.into()
}

/// A body of [`BODY_BYTES`] in chunks of `chunk` bytes.
pub(crate) fn chunked(chunk: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..BODY_BYTES / chunk {
        body.extend_from_slice(format!("{chunk:x}\r\n").as_bytes());
        body.resize(body.len() + chunk, b'x');
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}
