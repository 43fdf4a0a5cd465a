//! The chunked coding (RFC 9112 7.1): a decoder that works in place, and the size lines of the chunks that are sent.
//!
//! Sizes are 1 to 16 hexadecimal digits. Extensions are checked, limited to [`EXTENSION_BYTES`] per body, and dropped.
//! A trailer field that would frame or route the message makes a request be refused and is dropped from a response;
//! one that belongs in a head is dropped; the others are forwarded in canonical form.

use super::Refusal;
use super::field::{TOKEN, TrailerAction, VALUE, trailer_action, trim};

/// Most bytes of chunk extensions in one body, the CR after each included.
pub(crate) const EXTENSION_BYTES: u32 = 4096;

/// Most fields of a trailer section.
pub(crate) const TRAILER_FIELDS: u32 = 64;

/// Decodes a chunked body, however its bytes are split across reads.
#[derive(Debug)]
pub struct Decoder {
    state: DecoderState,
    left: u64,
    extension_bytes: u32,
    trailer_limit: u32,
    trailer_bytes: u32,
    trailer_fields: u32,
    forwards_trailers: bool,
    is_response: bool,
    trailers: Option<Box<Trailers>>,
}

/// The trailer section: the line being read, and the lines to forward.
#[derive(Debug, Default)]
struct Trailers {
    line: Vec<u8>,
    forwarded: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DecoderState {
    /// In a chunk size, of which `digits` digits have been read.
    Size {
        digits: u8,
    },
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line or of the empty line that ends the body.
    TrailerStart,
    TrailerLine,
    TrailerLf,
    EndLf,
    Done,
}

/// What one call of [`Decoder::decode_in_place`] found in its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that belong to the body.
    pub consumed: usize,
    /// Bytes of payload, now at the start of the buffer.
    pub payload: usize,
    /// Whether the body is complete.
    pub done: bool,
}

impl Decoder {
    /// Starts the body of a request. Its trailer section may have `trailer_limit` bytes, and is dropped unless
    /// `forwards_trailers`.
    pub fn new(trailer_limit: usize, forwards_trailers: bool) -> Self {
        Self {
            state: DecoderState::Size { digits: 0 },
            left: 0,
            extension_bytes: 0,
            trailer_limit: u32::try_from(trailer_limit).unwrap_or(u32::MAX),
            trailer_bytes: 0,
            trailer_fields: 0,
            forwards_trailers,
            is_response: false,
            trailers: None,
        }
    }

    /// Starts the body of a response. A trailer that would frame or route the message is dropped without failing the
    /// body, which the client has by then, and white space before a colon is removed (RFC 9112 5.1).
    pub fn for_response(trailer_limit: usize, forwards_trailers: bool) -> Self {
        Self {
            is_response: true,
            ..Self::new(trailer_limit, forwards_trailers)
        }
    }

    /// Moves the payload in `buffer` to its start. Bytes after `consumed` are left as they are.
    ///
    /// # Errors
    /// [`Refusal::BadChunk`]; [`Refusal::HeadTooLarge`] or [`Refusal::TooManyFields`] for trailers over their limits;
    /// or what is wrong with a trailer field. The payload before the error is valid, but it is not a complete body.
    pub fn decode_in_place(&mut self, buffer: &mut [u8]) -> Result<Decoded, Refusal> {
        let mut read = 0;
        let mut payload = 0;
        while read < buffer.len() && self.state != DecoderState::Done {
            if self.state == DecoderState::Data {
                let take = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(buffer.len() - read);
                buffer.copy_within(read..read + take, payload);
                read += take;
                payload += take;
                self.left -= take as u64;
                if self.left == 0 {
                    self.state = DecoderState::DataCr;
                }
            } else {
                self.step(buffer[read])?;
                read += 1;
            }
        }
        Ok(Decoded {
            consumed: read,
            payload,
            done: self.state == DecoderState::Done,
        })
    }

    /// Bytes of the current chunk that have not arrived yet.
    pub fn announced(&self) -> u64 {
        if self.state == DecoderState::Data {
            self.left
        } else {
            0
        }
    }

    /// The trailer lines to forward, each with its CRLF; complete once the body is.
    pub fn trailers(&self) -> &[u8] {
        self.trailers
            .as_ref()
            .map_or(&[], |trailers| &trailers.forwarded)
    }

    fn step(&mut self, byte: u8) -> Result<(), Refusal> {
        self.state = match self.state {
            DecoderState::Size { digits } => self.size(byte, digits)?,
            DecoderState::Extension => self.extension(byte)?,
            DecoderState::SizeLf if byte == b'\n' => {
                if self.left == 0 {
                    DecoderState::TrailerStart
                } else {
                    DecoderState::Data
                }
            }
            DecoderState::DataCr if byte == b'\r' => DecoderState::DataLf,
            DecoderState::DataLf if byte == b'\n' => DecoderState::Size { digits: 0 },
            DecoderState::TrailerStart if byte == b'\r' => DecoderState::EndLf,
            DecoderState::TrailerStart | DecoderState::TrailerLine => self.trailer_byte(byte)?,
            DecoderState::TrailerLf if byte == b'\n' => {
                self.finish_trailer_line()?;
                DecoderState::TrailerStart
            }
            DecoderState::EndLf if byte == b'\n' => DecoderState::Done,
            DecoderState::SizeLf
            | DecoderState::DataCr
            | DecoderState::DataLf
            | DecoderState::TrailerLf
            | DecoderState::EndLf => {
                return Err(Refusal::BadChunk);
            }
            DecoderState::Data | DecoderState::Done => {
                unreachable!("decode_in_place handles these states")
            }
        };
        Ok(())
    }

    fn size(&mut self, byte: u8, digits: u8) -> Result<DecoderState, Refusal> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if digits > 0 => return Ok(DecoderState::SizeLf),
            b';' if digits > 0 => return Ok(DecoderState::Extension),
            _ => return Err(Refusal::BadChunk),
        };
        if digits == 16 {
            return Err(Refusal::BadChunk);
        }
        self.left = if digits == 0 { 0 } else { self.left << 4 } | u64::from(digit);
        Ok(DecoderState::Size { digits: digits + 1 })
    }

    fn extension(&mut self, byte: u8) -> Result<DecoderState, Refusal> {
        self.extension_bytes += 1;
        match byte {
            _ if self.extension_bytes > EXTENSION_BYTES => Err(Refusal::BadChunk),
            b'\r' => Ok(DecoderState::SizeLf),
            _ if VALUE[usize::from(byte)] => Ok(DecoderState::Extension),
            _ => Err(Refusal::BadChunk),
        }
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<DecoderState, Refusal> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > self.trailer_limit {
            return Err(Refusal::HeadTooLarge);
        }
        match byte {
            b'\r' => Ok(DecoderState::TrailerLf),
            b'\n' => Err(Refusal::BareLineEnd),
            _ => {
                self.trailers.get_or_insert_default().line.push(byte);
                Ok(DecoderState::TrailerLine)
            }
        }
    }

    fn finish_trailer_line(&mut self) -> Result<(), Refusal> {
        self.trailer_fields += 1;
        if self.trailer_fields > TRAILER_FIELDS {
            return Err(Refusal::TooManyFields);
        }
        let trailers = self.trailers.get_or_insert_default();
        let line = std::mem::take(&mut trailers.line);
        let colon = memchr::memchr(b':', &line).ok_or(Refusal::FieldSyntax)?;
        let (mut name, value) = (&line[..colon], trim(&line[colon + 1..]));
        if self.is_response {
            while let [shorter @ .., b' ' | b'\t'] = name {
                name = shorter;
            }
        }
        let is_field = !name.is_empty()
            && name.iter().all(|b| TOKEN[usize::from(*b)])
            && value.iter().all(|b| VALUE[usize::from(*b)]);
        if !is_field {
            return Err(Refusal::FieldSyntax);
        }
        match trailer_action(name) {
            TrailerAction::Refuse if !self.is_response => return Err(Refusal::BadTrailer),
            TrailerAction::Forward if self.forwards_trailers => {
                for part in [name, b": ", value, b"\r\n"] {
                    trailers.forwarded.extend_from_slice(part);
                }
            }
            TrailerAction::Drop | TrailerAction::Refuse | TrailerAction::Forward => {}
        }
        Ok(())
    }
}

/// The size line of a chunk to send: at most 16 digits and CRLF.
#[derive(Debug, Clone, Copy)]
pub struct SizeLine {
    bytes: [u8; 18],
    start: u8,
}

impl SizeLine {
    /// The size line of a chunk of `size` bytes.
    pub fn new(size: usize) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut bytes = *b"0000000000000000\r\n";
        let mut start = 16;
        let mut rest = size;
        loop {
            start -= 1;
            bytes[start] = DIGITS[rest & 15];
            rest >>= 4;
            if rest == 0 {
                return Self {
                    bytes,
                    start: start as u8,
                };
            }
        }
    }

    /// The line with its CRLF.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `wire` in pieces of `cut` bytes. Returns the payload, the trailers, and the number of bytes after the
    /// body.
    fn decode(wire: &[u8], cut: usize) -> Result<(Vec<u8>, Vec<u8>, usize), Refusal> {
        let mut decoder = Decoder::new(64, true);
        let mut payload = Vec::new();
        let mut consumed = 0;
        for piece in wire.chunks(cut.max(1)) {
            let mut buffer = piece.to_vec();
            let decoded = decoder.decode_in_place(&mut buffer)?;
            payload.extend_from_slice(&buffer[..decoded.payload]);
            consumed += decoded.consumed;
            if decoded.done {
                return Ok((payload, decoder.trailers().to_vec(), wire.len() - consumed));
            }
        }
        Err(Refusal::Malformed)
    }

    #[test]
    fn bodies_are_decoded_however_they_are_split() {
        let wire =
            b"5;x=\"y\"\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1 \r\nX_Real_IP: 1\r\nAuthorization: x\r\n\r\nGET /";
        for cut in 1..wire.len() {
            let (payload, trailers, rest) = decode(wire, cut).unwrap();
            assert_eq!(payload, b"hello world", "{cut}");
            assert_eq!(trailers, b"X-Sum: 1\r\n", "{cut}");
            assert_eq!(rest, 5);
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for wire in [
            "\r\n",
            "g\r\n",
            "+5\r\nhello\r\n",
            "0x5\r\n",
            " 5\r\n",
            "5 \r\n",
            "5\nhello",
            "5\r\nhelloX",
            "5\r\nhello\n",
            "5\r\nhello\rX",
            "11111111111111111\r\n",
            "5;\0\r\n",
            "5\r\n",
            "-1\r\n",
            "_1\r\n",
            "0\r\n\n",
            "0\r\n\rX",
        ] {
            assert!(decode(wire.as_bytes(), 1).is_err(), "{wire:?}");
            assert!(decode(wire.as_bytes(), 100).is_err(), "{wire:?}");
        }
    }

    #[test]
    fn trailers_and_extensions_are_bounded() {
        let trailer = |n: usize| format!("0\r\na: {}\r\n\r\n", "x".repeat(n));
        assert!(decode(trailer(60).as_bytes(), 7).is_ok());
        assert_eq!(
            decode(trailer(61).as_bytes(), 7),
            Err(Refusal::HeadTooLarge)
        );
        let extension = |n: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(n));
        assert!(decode(extension(4095).as_bytes(), 100).is_ok());
        let empty = |n: usize| "1;\r\nx\r\n".repeat(n) + "0\r\n\r\n";
        assert!(decode(empty(4096).as_bytes(), 100).is_ok());
        assert_eq!(decode(empty(4097).as_bytes(), 100), Err(Refusal::BadChunk));
        let fields = |n: usize| format!("0\r\n{}\r\n", "a:\r\n".repeat(n));
        assert!(decode(fields(16).as_bytes(), 100).is_ok());
        let mut decoder = Decoder::new(1 << 16, true);
        assert_eq!(
            decoder.decode_in_place(&mut fields(65).into_bytes()),
            Err(Refusal::TooManyFields)
        );
        assert_eq!(
            decode(extension(4096 + 1).as_bytes(), 100),
            Err(Refusal::BadChunk)
        );
        assert_eq!(
            decode(b"0\r\nno colon\r\n\r\n", 3),
            Err(Refusal::FieldSyntax)
        );
    }

    #[test]
    fn a_request_body_is_refused_for_trailers_that_would_frame_or_route() {
        for name in [
            "Content-Length",
            "transfer-encoding",
            "HOST",
            "Content_Length",
        ] {
            let wire = format!("0\r\nx: 1\r\n{name}: 1\r\n\r\n");
            assert_eq!(
                decode(wire.as_bytes(), 5),
                Err(Refusal::BadTrailer),
                "{name}"
            );
        }
    }

    #[test]
    fn a_response_loses_such_trailers_but_keeps_its_body() {
        let wire =
            b"5\r\nhello\r\n0\r\nX: 1\r\nContent-Length: 9\r\nTransfer-Encoding : x\r\nHost: b\r\n\
            content_length: 9\r\nY \t:  2\r\n\r\nHTTP/";
        for cut in 1..wire.len() {
            let mut decoder = Decoder::for_response(256, true);
            let (mut payload, mut consumed) = (Vec::new(), 0);
            for piece in wire.chunks(cut) {
                let mut buffer = piece.to_vec();
                let decoded = decoder.decode_in_place(&mut buffer).unwrap();
                payload.extend_from_slice(&buffer[..decoded.payload]);
                consumed += decoded.consumed;
            }
            assert_eq!(
                (payload.as_slice(), consumed),
                (&b"hello"[..], wire.len() - 5)
            );
            assert_eq!(decoder.trailers(), b"X: 1\r\nY: 2\r\n", "{cut}");
        }
        for line in [" : 1", "a b: 1", " a: 1", "a", "a\x0b: 1"] {
            let mut wire = format!("0\r\n{line}\r\n\r\n").into_bytes();
            let decoded = Decoder::for_response(256, true).decode_in_place(&mut wire);
            assert_eq!(decoded, Err(Refusal::FieldSyntax), "{line:?}");
        }
    }

    #[test]
    fn size_lines() {
        for (size, line) in [
            (0, "0\r\n"),
            (10, "a\r\n"),
            (255, "ff\r\n"),
            (usize::MAX, "ffffffffffffffff\r\n"),
        ] {
            assert_eq!(SizeLine::new(size).as_bytes(), line.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8), cut in 1usize..40) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(SizeLine::new(chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let (payload, _, rest) = decode(&wire, cut).unwrap();
            prop_assert_eq!(payload, chunks.concat());
            prop_assert_eq!(rest, 0);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 1usize..40) {
            let _ = decode(&bytes, cut);
        }
    }
}
