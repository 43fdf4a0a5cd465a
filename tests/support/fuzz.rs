//! What the fuzz targets do with their input; the tests replay the corpus that fuzzing found. Each function panics if
//! what must hold for any bytes does not.

use lbproxy::internals::http1::body::BodyReader;
use lbproxy::internals::http1::chunked::SizeLine;
use lbproxy::internals::http1::head::{HeadEnd, HeadLimits};
use lbproxy::internals::http1::{Framing, Version, request, response};
use lbproxy::internals::proxy::http::{
    ForwardHead, ForwardedRequest, Persistence, RequestEdits, ResponseEdits, client_framing,
    complete_request, write_response,
};

pub use super::fuzz_gossip::{gossip_codec, gossip_node};
use super::memory::{Plan, Script, Then, When, drive};
use super::strict::{self, Message, Read};

/// A target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 6] = [
    ("request_head", request_head),
    ("response_head", response_head),
    ("chunked_body", chunked_body),
    ("exchange", exchange),
    ("gossip_codec", gossip_codec),
    ("gossip_node", gossip_node),
];

const LIMITS: HeadLimits = HeadLimits {
    bytes: 4096,
    fields: 40,
    target: 512,
};

/// A request head: what is taken is found in any cut, and what is written of it has one meaning.
pub fn request_head(bytes: &[u8]) {
    let mut fields = Vec::new();
    let Ok(Some(head)) = request::parse(bytes, &LIMITS, &mut fields) else {
        return;
    };
    assert_due_at(bytes, head.len);
    let request = ForwardedRequest {
        head: &head,
        buffer: bytes,
        fields: &fields,
        trusted: bytes.len().is_multiple_of(2),
    };
    let edits = RequestEdits {
        peer: "192.0.2.1".parse().ok(),
        id: b"id",
        process: b"0123456789abcdef",
        via: bytes.len().is_multiple_of(3),
    };
    let mut forwarded = ForwardHead::default();
    forwarded.write(&request, &edits);
    complete_request(&mut forwarded);
    let mut out = forwarded.text().to_vec();
    if head.host.is_none() {
        let line_end = memchr::memmem::find(&out, b"\r\n").unwrap() + 2;
        out.splice(line_end..line_end, *b"Host: backend\r\n");
    }
    match head.framing {
        Framing::Length(length) if length < 1 << 16 => {
            out.resize(out.len() + length as usize, b'x')
        }
        Framing::Length(_) => return,
        Framing::Chunked => out.extend_from_slice(b"0\r\n\r\n"),
        Framing::None | Framing::UntilClose => {}
    }
    let message = whole(strict::request(&out), &out);
    assert_eq!(message.len, out.len());
    assert_eq!(message.word(0), head.method);
    assert_eq!(message.word(1), head.target);
}

/// A response head, to HEAD if the first byte is odd.
pub fn response_head(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let to_head = first & 1 == 1;
    let mut fields = Vec::new();
    let Ok(Some(head)) = response::parse(bytes, to_head, &mut fields) else {
        return;
    };
    assert_due_at(bytes, head.len);
    for version in [Version::V10, Version::V11] {
        let framing = client_framing(&head, version);
        let persistence = match (head.status, version) {
            (101, _) => Persistence::Upgrade,
            (_, Version::V10) => Persistence::Close,
            (_, Version::V11) => Persistence::kept(first.checked_sub(2).map(u32::from), false),
        };
        let mut out = Vec::new();
        let edits = ResponseEdits::plain(framing, persistence);
        write_response(&mut out, &head, bytes, &fields, &edits);
        match framing {
            Framing::Length(length) if length < 1 << 16 => {
                out.resize(out.len() + length as usize, b'x');
            }
            Framing::Length(_) => return,
            Framing::Chunked => out.extend_from_slice(b"0\r\n\r\n"),
            Framing::None | Framing::UntilClose => {}
        }
        let method: &[u8] = if to_head { b"HEAD" } else { b"GET" };
        let message = whole(strict::response(&out, method, true), &out);
        assert_eq!(message.len, out.len());
        assert_eq!(message.status(), head.status);
    }
}

/// A chunked body, cut as the first byte says: any cut gives the same payload, and what is written of it is read back.
pub fn chunked_body(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = decode(bytes, bytes.len().max(1));
    let cut = decode(bytes, usize::from(*first % 16) + 1);
    assert_eq!(whole.is_some(), cut.is_some());
    let Some((payload, trailers, used)) = whole else {
        return;
    };
    assert_eq!(cut, Some((payload.clone(), trailers.clone(), used)));
    let mut out = b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    if !payload.is_empty() {
        out.extend_from_slice(SizeLine::new(payload.len()).as_bytes());
        out.extend_from_slice(&payload);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(&trailers);
    out.extend_from_slice(b"\r\n");
    let message = self::whole(strict::request(&out), &out);
    assert_eq!(message.body, payload);
    assert_eq!(message.len, out.len());
}

/// Payload, trailers and length of a whole body at the beginning of `wire`, fed in pieces.
fn decode(wire: &[u8], cut: usize) -> Option<(Vec<u8>, Vec<u8>, usize)> {
    let mut reader = BodyReader::new(Framing::Chunked, 256, true);
    let (mut payload, mut trailers, mut used) = (Vec::new(), Vec::new(), 0);
    for piece in wire.chunks(cut) {
        let mut buffer = piece.to_vec();
        let piece = reader.read_in_place(&mut buffer, &mut trailers).ok()?;
        payload.extend_from_slice(&buffer[..piece.payload]);
        used += piece.consumed;
        if reader.is_done() {
            return Some((payload, trailers, used));
        }
    }
    None
}

/// A client and up to three backend connections, held apart by [`SEPARATOR`]; see [`plan`].
pub fn exchange(bytes: &[u8]) {
    drive(&plan(bytes)).check();
}

/// Stands between the sides.
pub const SEPARATOR: [u8; 2] = [0xff, 0xfe];

/// The first byte is the seed, the lowest bit of the second says whether all bytes come at once, the next one whether
/// the client ends; the first byte of a backend's part says when it speaks and what it does at its end.
pub fn plan(bytes: &[u8]) -> Plan {
    let (seed, flags, rest) = match bytes {
        [seed, flags, rest @ ..] => (*seed, *flags, rest),
        _ => (0, 0, bytes),
    };
    let mut parts = split(rest).into_iter();
    let client = parts.next().unwrap_or_default().to_vec();
    let backends = parts.take(3).map(script).collect();
    Plan {
        seed: u64::from(seed),
        whole: flags & 1 == 1,
        client,
        client_ends: flags & 2 == 2,
        backends,
    }
}

fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(2).position(|pair| pair == SEPARATOR) {
        parts.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    parts.push(rest);
    parts
}

fn script(part: &[u8]) -> Script {
    let (first, bytes) = part.split_first().unwrap_or((&0, &[]));
    Script {
        bytes: bytes.to_vec(),
        then: [Then::Waits, Then::Ends, Then::Resets][usize::from(first % 3)],
        when: [When::Asked, When::Heard, When::Connected][usize::from(first / 3 % 3)],
    }
}

/// A head that is whole at `len` is worth parsing there, and not before.
fn assert_due_at(bytes: &[u8], len: usize) {
    let mut end = HeadEnd::after(&bytes[..len - 1]);
    assert!(!end.is_due(&bytes[..len - 1], len), "too early");
    assert!(end.is_due(&bytes[..len], len), "too late");
}

fn whole(read: Result<Read, strict::Wrong>, bytes: &[u8]) -> Message {
    match read {
        Ok(Read::Whole(message)) => message,
        Ok(Read::Part) => panic!("only a part: {}", bytes.escape_ascii()),
        Err(wrong) => panic!("{wrong}: {}", bytes.escape_ascii()),
    }
}

/// The inputs of a corpus file: one a line, as [`u8::escape_ascii`] writes them.
pub fn inputs(text: &str) -> Vec<Vec<u8>> {
    text.lines().map(unescape).collect()
}

/// The line of an input, without its end.
pub fn line(input: &[u8]) -> String {
    input.escape_ascii().to_string()
}

fn unescape(line: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = line.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let (escaped, used) = match tail {
            [b'r', ..] => (b'\r', 1),
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b'x', high, low, ..] => {
                let digit = |b: u8| char::from(b).to_digit(16).expect("two digits behind \\x");
                ((digit(*high) << 4 | digit(*low)) as u8, 3)
            }
            [other, ..] => (*other, 1),
            [] => panic!("a line that ends in a backslash: {line}"),
        };
        out.push(escaped);
        rest = &tail[used..];
    }
    out
}
