//! A blocking HTTP/1.1 client that is small and strict: an answer that is not well formed is an error.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::message::{Decoder, Fields, Framing, Part, head_length, split_head};
use super::wait::PATIENCE;

/// A response.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status.
    pub status: u16,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: String,
    /// Fields.
    pub fields: Fields,
    /// Body.
    pub body: Vec<u8>,
    /// Trailers.
    pub trailers: Fields,
    /// How the body was framed.
    pub framing: Framing,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Id of the backend that answered; empty for the proxy's own answers.
    pub fn backend(&self) -> &str {
        self.fields.get("x-backend").unwrap_or_default()
    }

    /// Whether the sender said that it closes.
    pub fn closes(&self) -> bool {
        self.fields.lists("connection", "close")
    }
}

/// One connection.
pub struct Client<S = TcpStream> {
    /// The socket, for what a test does beside HTTP.
    pub stream: S,
    buffer: Vec<u8>,
}

/// A head of a response whose body has yet to be read.
pub struct ResponseHead {
    /// The response without its body.
    pub response: Response,
    body: Decoder,
}

impl Client {
    /// Connects; no wait of this connection is longer than [`PATIENCE`].
    pub fn connect(addr: SocketAddr) -> Self {
        Self::try_connect(addr).unwrap()
    }

    /// Connects, if the other side lets us.
    pub fn try_connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::over(stream))
    }

    /// Whether the other side ends a connection at once; a reset may come before the connection is known to be made.
    pub fn is_turned_away(addr: SocketAddr) -> bool {
        match Self::try_connect(addr) {
            Ok(mut client) => client.is_closed(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// Closes with a reset.
    pub fn reset(self) {
        let linger = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        linger.unwrap();
    }

    /// Says that nothing more comes.
    pub fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Our own address.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }
}

impl<S: Read + Write> Client<S> {
    /// Over any stream of bytes.
    pub fn over(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// `GET path` with the usual fields, and its answer.
    pub fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, "", b"")
    }

    /// A request with fields (lines with CRLF) and, if it is not empty, a body with its length; and its answer.
    #[track_caller]
    pub fn request(&mut self, method: &str, target: &str, fields: &str, body: &[u8]) -> Response {
        self.try_request(method, target, fields, body).unwrap()
    }

    /// The same, where the connection may fail.
    pub fn try_request(
        &mut self,
        method: &str,
        target: &str,
        fields: &str,
        body: &[u8],
    ) -> io::Result<Response> {
        let mut out = format!("{method} {target} HTTP/1.1\r\nhost: test\r\n{fields}");
        if !body.is_empty() {
            out += &format!("content-length: {}\r\n", body.len());
        }
        let mut out = (out + "\r\n").into_bytes();
        out.extend_from_slice(body);
        self.stream.write_all(&out)?;
        self.read_response(method)
    }

    /// Reads the final response to a request of this method, past interim ones.
    pub fn read_response(&mut self, method: &str) -> io::Result<Response> {
        loop {
            let head = self.read_head(method)?;
            let status = head.response.status;
            if status >= 200 || status == 101 {
                return self.read_body(head);
            }
        }
    }

    /// The same, where it must come.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.read_response("GET").unwrap()
    }

    /// Reads one head, which may be interim.
    pub fn read_head(&mut self, method: &str) -> io::Result<ResponseHead> {
        let length = loop {
            if let Some(length) = head_length(&self.buffer) {
                break length;
            }
            if self.fill()? == 0 {
                return Err(match self.buffer.len() {
                    0 => io::Error::new(io::ErrorKind::ConnectionAborted, "closed, no answer"),
                    _ => io::Error::new(io::ErrorKind::UnexpectedEof, "cut in the head"),
                });
            }
        };
        let head: Vec<u8> = self.buffer.drain(..length).collect();
        let (line, fields) = split_head(&head).map_err(invalid)?;
        let (version, rest) = line.split_once(' ').ok_or_else(|| invalid("status line"))?;
        let (status, _reason) = rest.split_once(' ').ok_or_else(|| invalid("status line"))?;
        let status: u16 = status.parse().map_err(|_| invalid("status"))?;
        if !["HTTP/1.1", "HTTP/1.0"].contains(&version) || !(100..=599).contains(&status) {
            return Err(invalid(line));
        }
        let told = fields.framing().map_err(invalid)?;
        let bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
        if told.is_some() && (status < 200 || status == 204) {
            return Err(invalid("framing of a body that cannot be (RFC 9110 8.6)"));
        }
        let framing = match told {
            _ if bodiless => Framing::Length(0),
            told => told.unwrap_or(Framing::Close),
        };
        Ok(ResponseHead {
            body: Decoder::new(framing),
            response: Response {
                status,
                version: version.to_owned(),
                fields,
                body: Vec::new(),
                trailers: Fields::default(),
                framing,
            },
        })
    }

    /// Reads the body that follows a head.
    pub fn read_body(&mut self, head: ResponseHead) -> io::Result<Response> {
        let ResponseHead { mut response, body } = head;
        let mut all = Vec::new();
        response.trailers = self.stream_body(body, |piece| all.extend_from_slice(piece))?;
        response.body = all;
        Ok(response)
    }

    /// Reads the body that follows a head piece by piece.
    pub fn read_pieces(
        &mut self,
        head: ResponseHead,
        each: impl FnMut(&[u8]),
    ) -> io::Result<Response> {
        let ResponseHead { mut response, body } = head;
        response.trailers = self.stream_body(body, each)?;
        Ok(response)
    }

    fn stream_body(
        &mut self,
        mut body: Decoder,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<Fields> {
        let mut start = 0;
        loop {
            match body.next(&self.buffer[start..]).map_err(invalid)? {
                Part::Data { skip, length } => {
                    each(&self.buffer[start + skip..start + skip + length]);
                    start += skip + length;
                }
                Part::End { skip } => {
                    self.buffer.drain(..start + skip);
                    return Ok(body.trailers);
                }
                Part::More => {
                    self.buffer.drain(..start);
                    start = 0;
                    if self.fill()? > 0 {
                        continue;
                    }
                    if body.ends_at_close() {
                        return Ok(body.trailers);
                    }
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "cut in the body",
                    ));
                }
            }
        }
    }

    /// Whether the other side closes without sending anything more.
    pub fn is_closed(&mut self) -> bool {
        match self.fill() {
            Ok(0) => self.buffer.is_empty(),
            Ok(_) => false,
            Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// Reads exactly `n` bytes that are no HTTP.
    pub fn read_exactly(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < n {
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..n).collect())
    }

    /// Reads to the end of the connection.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    fn fill(&mut self) -> io::Result<usize> {
        let before = self.buffer.len();
        self.buffer.resize(before + (256 << 10), 0);
        let read = self.stream.read(&mut self.buffer[before..]);
        self.buffer.truncate(before + *read.as_ref().unwrap_or(&0));
        match read {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "nothing came"))
            }
            read => read,
        }
    }
}

/// One request on its own connection.
#[track_caller]
pub fn get(addr: SocketAddr, path: &str) -> Response {
    Client::connect(addr).get(path)
}

/// Sends raw bytes on a connection of their own and reads one final answer.
#[track_caller]
pub fn raw(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> Response {
    Client::connect(addr).send(bytes).response()
}

fn invalid(text: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_string())
}
