//! The strictest reader of what the proxy sends to a backend: whole, incomplete, or wrong.
//!
//! It takes only the plain form that a proxy owes its backends (RFC 9112 3, 6, 7): one line `METHOD target
//! HTTP/1.1`, Host once and first, at most one framing field, chunk sizes in their shortest form without extensions.
//! It shares nothing with the proxy's own parser.

use super::super::message::{Fields, Framing, head_length, split_head};
use super::bytes::latin1;

/// A whole request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Request line.
    pub line: String,
    /// Fields; bytes beyond ASCII as one character each.
    pub fields: Fields,
    /// Body without its chunk framing.
    pub body: Vec<u8>,
    /// Trailers.
    pub trailers: Fields,
}

impl Request {
    /// Method.
    pub fn method(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }

    /// Target.
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// The head at the front of the bytes, and its length; `None` while it is incomplete.
///
/// # Errors
/// What is wrong with it.
pub fn head(bytes: &[u8]) -> Result<Option<(Request, usize)>, String> {
    let Some(length) = head_length(bytes) else {
        return check_part(bytes).map(|()| None);
    };
    let text = latin1(&bytes[..length]);
    let (line, fields) = split_head(text.as_bytes())?;
    check_line(line)?;
    check_fields(&fields)?;
    let request = Request {
        line: line.to_owned(),
        fields,
        body: Vec::new(),
        trailers: Fields::default(),
    };
    Ok(Some((request, length)))
}

/// The request at the front of the bytes, and its length; `None` while it is incomplete.
///
/// # Errors
/// What is wrong with it.
pub fn request(bytes: &[u8]) -> Result<Option<(Request, usize)>, String> {
    let Some((mut request, start)) = head(bytes)? else {
        return Ok(None);
    };
    let rest = &bytes[start..];
    match request.fields.framing()? {
        None => Ok(Some((request, start))),
        Some(Framing::Length(length)) => {
            let Some(body) = usize::try_from(length).ok().and_then(|n| rest.get(..n)) else {
                return Ok(None);
            };
            request.body = body.to_vec();
            Ok(Some((request, start + body.len())))
        }
        Some(Framing::Close) => Err("a request that ends with its connection".to_owned()),
        Some(Framing::Chunked) => {
            let Some(end) = chunks(rest, &mut request)? else {
                return Ok(None);
            };
            Ok(Some((request, start + end)))
        }
    }
}

/// The whole lines of half a head, and no line end but CRLF.
fn check_part(bytes: &[u8]) -> Result<(), String> {
    let text = latin1(bytes);
    let text = text.strip_suffix('\r').unwrap_or(&text);
    if text.replace("\r\n", "").contains(['\r', '\n']) {
        return Err(format!("a bare CR or LF in {text:?}"));
    }
    match text.split_once("\r\n") {
        Some((line, _)) => check_line(line),
        None => Ok(()),
    }
}

fn check_line(line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else {
        return Err(format!("no plain request line: {line:?}"));
    };
    let is_target = target
        .bytes()
        .all(|b| (0x21..=0x7e).contains(&b) && b != b'#');
    if method.is_empty() || target.is_empty() || !is_target {
        return Err(format!("no plain request line: {line:?}"));
    }
    Ok(())
}

/// Host once and first; no field that speaks for a hop but what an upgrade needs.
fn check_fields(fields: &Fields) -> Result<(), String> {
    let first = fields.0.first().map(|(name, _)| name.to_lowercase());
    if first.as_deref() != Some("host") || fields.all("host").count() != 1 {
        return Err(format!("Host is not first and alone: {fields:?}"));
    }
    if let Some(Framing::Length(_)) = fields.framing()? {
        let length = fields.all("content-length").next().unwrap_or_default();
        if length.len() > 1 && length.starts_with('0') || length.len() > 19 {
            return Err(format!("no plain Content-Length: {length:?}"));
        }
    }
    let coding = fields.all("transfer-encoding").next();
    if coding.is_some_and(|coding| coding != "chunked") {
        return Err(format!("no plain Transfer-Encoding: {coding:?}"));
    }
    let connection: Vec<&str> = fields.all("connection").collect();
    let upgrades = fields.has("upgrade");
    let plain = match connection[..] {
        [] => !upgrades,
        [option] => option.eq_ignore_ascii_case("upgrade") && upgrades,
        _ => false,
    };
    if !plain {
        return Err(format!("Connection {connection:?}, Upgrade {upgrades}"));
    }
    Ok(())
}

/// Reads chunks and trailers into `request`; where they end, `None` while they are incomplete.
fn chunks(bytes: &[u8], request: &mut Request) -> Result<Option<usize>, String> {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let Some(end) = memchr::memmem::find(rest, b"\r\n") else {
            return check_size_part(rest).map(|()| None);
        };
        let size = chunk_size(&rest[..end])?;
        at += end + 2;
        if size == 0 {
            return trailers(bytes, at, request);
        }
        let Some(data) = bytes.get(at..at + size + 2) else {
            return Ok(None);
        };
        if !data.ends_with(b"\r\n") {
            return Err("no CRLF after a chunk".to_owned());
        }
        request.body.extend_from_slice(&data[..size]);
        at += size + 2;
    }
}

fn is_size_digit(b: u8) -> bool {
    b.is_ascii_digit() || (b'a'..=b'f').contains(&b)
}

fn check_size_part(part: &[u8]) -> Result<(), String> {
    let digits = part.strip_suffix(b"\r").unwrap_or(part);
    match digits.iter().all(|b| is_size_digit(*b)) {
        true => Ok(()),
        false => Err(format!("no plain chunk size: {:?}", latin1(part))),
    }
}

/// Lower case, no zero before others, no extension.
fn chunk_size(line: &[u8]) -> Result<usize, String> {
    let plain = match line {
        b"0" => true,
        [first, ..] => *first != b'0' && line.len() <= 8 && line.iter().all(|b| is_size_digit(*b)),
        [] => false,
    };
    let text = latin1(line);
    match usize::from_str_radix(&text, 16) {
        Ok(size) if plain => Ok(size),
        _ => Err(format!("no plain chunk size: {text:?}")),
    }
}

fn trailers(bytes: &[u8], at: usize, request: &mut Request) -> Result<Option<usize>, String> {
    let rest = &bytes[at..];
    if rest.starts_with(b"\r\n") {
        return Ok(Some(at + 2));
    }
    let Some(length) = head_length(rest) else {
        return Ok(None);
    };
    let text = latin1(&rest[..length - 2]);
    if text.replace("\r\n", "").contains(['\r', '\n']) {
        return Err(format!("a bare CR or LF in {text:?}"));
    }
    request.trailers = Fields::parse(&text)?;
    Ok(Some(at + length))
}
