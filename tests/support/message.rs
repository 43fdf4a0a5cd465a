//! Heads of HTTP messages, read strictly: what is not exactly as RFC 9112 writes it is an error and not a guess.

use std::fmt;

/// Fields in order; names as they were sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// Reads field lines (each with its CRLF, without the empty line).
    pub fn parse(block: &str) -> Result<Self, String> {
        let mut fields = Vec::new();
        for line in block.split_terminator("\r\n") {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| format!("no colon in {line:?}"))?;
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(format!("bad field name in {line:?}"));
            }
            let value = value.trim_matches([' ', '\t']);
            if value.bytes().any(|b| b < 0x20 && b != b'\t' || b == 0x7f) {
                return Err(format!("control character in {line:?}"));
            }
            fields.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self(fields))
    }

    /// Every value of `name`.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let name = name.to_owned();
        let named = move |(n, _): &&(String, String)| n.eq_ignore_ascii_case(&name);
        self.0.iter().filter(named).map(|(_, v)| v.as_str())
    }

    /// The one value of `name`; more than one is a failed test.
    #[track_caller]
    pub fn get(&self, name: &str) -> Option<&str> {
        let values: Vec<&str> = self.all(name).collect();
        assert!(values.len() <= 1, "{name} is repeated: {values:?}");
        values.first().copied()
    }

    /// Whether there is a field `name`.
    pub fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// Whether a list field names `token`, in any case.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        let mut items = self.all(name).flat_map(|v| v.split(','));
        items.any(|item| item.trim().eq_ignore_ascii_case(token))
    }
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By its length; 0 for none.
    Length(u64),
    /// By the last chunk.
    Chunked,
    /// By the end of the connection.
    Close,
}

impl Fields {
    /// The framing that the fields tell; `None` if they tell none.
    pub fn framing(&self) -> Result<Option<Framing>, String> {
        let lengths: Vec<&str> = self.all("content-length").collect();
        let codings: Vec<&str> = self.all("transfer-encoding").collect();
        match (&lengths[..], &codings[..]) {
            ([], []) => Ok(None),
            ([length], []) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(Some(Framing::Length(length.parse().unwrap())))
            }
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
            _ => Err(format!(
                "unclear framing: content-length {lengths:?}, transfer-encoding {codings:?}"
            )),
        }
    }
}

/// The start line and the fields of a head that ends in an empty line.
pub fn split_head(head: &[u8]) -> Result<(&str, Fields), String> {
    let text = std::str::from_utf8(head).map_err(|_| "a head that is not text".to_owned())?;
    let text = text.strip_suffix("\r\n").ok_or("no empty line")?;
    if text.replace("\r\n", "").contains(['\r', '\n']) {
        return Err(format!("a bare CR or LF in {text:?}"));
    }
    let (line, block) = text.split_once("\r\n").ok_or("no start line")?;
    Ok((line, Fields::parse(block)?))
}

/// Length of the head at the start of `buffer`, with its empty line.
pub fn head_length(buffer: &[u8]) -> Option<usize> {
    memchr::memmem::find(buffer, b"\r\n\r\n").map(|at| at + 4)
}

/// The size of a chunk from its line (without CRLF); extensions are not passed on by a strict sender.
pub fn chunk_size(line: &str) -> Result<u64, String> {
    let digits = !line.is_empty() && line.len() <= 16;
    if !digits || !line.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!("bad chunk size {line:?}"));
    }
    u64::from_str_radix(line, 16).map_err(|e| e.to_string())
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|(n, v)| write!(f, "{n}: {v}\r\n"))
    }
}

/// Finds the parts of a body in a stream of bytes, without copying and without I/O.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// The trailers, once the body has ended.
    pub trailers: Fields,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Length(u64),
    Close,
    ChunkSize { first: bool },
    Chunk(u64),
    Trailers,
    Done,
}

/// What stands at the front of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// `length` bytes of the body after `skip` bytes of framing.
    Data {
        /// Framing before the data.
        skip: usize,
        /// Data.
        length: usize,
    },
    /// Too little to say.
    More,
    /// The body has ended with these bytes of framing.
    End {
        /// Framing at the end.
        skip: usize,
    },
}

impl Decoder {
    /// For a body of this framing.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::ChunkSize { first: true },
            Framing::Close => State::Close,
        };
        Self {
            state,
            trailers: Fields::default(),
        }
    }

    /// Whether the end of the connection is the end of the body.
    pub fn ends_at_close(&self) -> bool {
        matches!(self.state, State::Close)
    }

    /// Looks at the front of `buffer`; the caller consumes what is found.
    pub fn next(&mut self, buffer: &[u8]) -> Result<Part, String> {
        match self.state {
            State::Done | State::Length(0) => {
                self.state = State::Done;
                Ok(Part::End { skip: 0 })
            }
            State::Length(left) => Ok(self.data(0, left, buffer.len(), State::Length)),
            State::Close => Ok(self.data(0, u64::MAX, buffer.len(), |_| State::Close)),
            State::Chunk(left) => Ok(self.data(0, left, buffer.len(), after_chunk_data)),
            State::ChunkSize { first } => {
                let lead = if first { 0 } else { 2 };
                let Some(end) = memchr::memmem::find(&buffer[lead.min(buffer.len())..], b"\r\n")
                else {
                    return Ok(Part::More);
                };
                if !first && &buffer[..2] != b"\r\n" {
                    return Err("no CRLF after a chunk".to_owned());
                }
                let line = std::str::from_utf8(&buffer[lead..lead + end]).unwrap_or("not text");
                let size = chunk_size(line)?;
                let skip = lead + end + 2;
                if size == 0 {
                    self.state = State::Trailers;
                    return self.trailers(buffer, skip);
                }
                self.state = State::Chunk(size);
                Ok(self.data(skip, size, buffer.len() - skip, after_chunk_data))
            }
            State::Trailers => self.trailers(buffer, 0),
        }
    }

    fn data(
        &mut self,
        skip: usize,
        left: u64,
        available: usize,
        after: impl Fn(u64) -> State,
    ) -> Part {
        let length = left.min(available as u64) as usize;
        if length == 0 && skip == 0 {
            return Part::More;
        }
        self.state = after(left - length as u64);
        Part::Data { skip, length }
    }

    fn trailers(&mut self, buffer: &[u8], skip: usize) -> Result<Part, String> {
        let rest = &buffer[skip..];
        let block = if rest.starts_with(b"\r\n") {
            0
        } else if let Some(length) = head_length(rest) {
            length - 2
        } else if skip > 0 {
            return Ok(Part::Data { skip, length: 0 });
        } else {
            return Ok(Part::More);
        };
        let text = std::str::from_utf8(&rest[..block]).map_err(|e| e.to_string())?;
        self.trailers = Fields::parse(text)?;
        self.state = State::Done;
        Ok(Part::End {
            skip: skip + block + 2,
        })
    }
}

fn after_chunk_data(left: u64) -> State {
    match left {
        0 => State::ChunkSize { first: false },
        left => State::Chunk(left),
    }
}
