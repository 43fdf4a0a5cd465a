//! A sample backend's side of the sockets: accepting, reading requests, doing what the behaviour says.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::backend::{Action, Answer, Request, Shared, Step};
use super::message::{Decoder, Fields, Framing, Part, head_length, split_head};
use super::pattern;

/// Accepts until it is told to stop, and has closed everything when it returns.
pub(super) async fn accept(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    mut stop: oneshot::Receiver<()>,
) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let mut connections = JoinSet::new();
    let ends = watch::Sender::new(());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let number = shared.connections.fetch_add(1, Relaxed) + 1;
                connections.spawn(serve(stream, Arc::clone(&shared), number, ends.subscribe()));
            }
            Some(_) = connections.join_next() => {}
            _ = &mut stop => break,
        }
    }
    end(&listener);
    drop(listener);
    drop(ends);
    while connections.join_next().await.is_some() {}
}

/// Ends a socket. A process that another test is just starting holds a copy of it for a moment, so closing ours does not.
fn end(socket: &impl AsFd) {
    let _ = socket2::SockRef::from(socket).shutdown(Shutdown::Both);
}

/// Counts a connection as open while it lives.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// A peer that goes away ends the connection; that is all an error means here.
async fn serve(stream: TcpStream, shared: Arc<Shared>, number: u64, mut ends: watch::Receiver<()>) {
    shared.open.fetch_add(1, Relaxed);
    let _open = Open(Arc::clone(&shared));
    let _ = stream.set_nodelay(true);
    let mut connection = Connection {
        stream,
        buffer: Vec::with_capacity(4096),
        start: 0,
    };
    let conversation = async { while let Ok(true) = connection.exchange(&shared, number).await {} };
    tokio::select! {
        () = conversation => return,
        _ = ends.changed() => {}
    }
    end(&connection.stream);
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
}

impl Connection {
    /// One request and its answer; says whether the connection goes on.
    async fn exchange(&mut self, shared: &Shared, number: u64) -> io::Result<bool> {
        let Some(mut request) = self.read_head(number).await? else {
            return Ok(false);
        };
        shared.requests.fetch_add(1, Relaxed);
        let record = shared.record.load(Relaxed);
        let behaviour = shared.behaviour.read().unwrap().clone();
        let action = match behaviour {
            Some(behaviour) => behaviour(&request),
            None => {
                let body = format!("{} {}", self.id(shared), request.target);
                Action::Answer(Answer::new(200, body))
            }
        };
        let framing = request.fields.framing().map_err(io::Error::other)?;
        let mut body = Decoder::new(framing.unwrap_or(Framing::Length(0)));
        if matches!(action, Action::Script(_)) && record {
            shared.recorded.lock().unwrap().push(request.clone());
        }
        let id = self.id(shared);
        match action {
            Action::Answer(answer) => {
                self.read_body(&mut request, &mut body, record).await?;
                remember(shared, record, &request);
                self.answer(&request, &id, answer).await?;
            }
            Action::Echo => {
                self.read_body(&mut request, &mut body, true).await?;
                remember(shared, record, &request);
                self.echo(&request, &id, framing == Some(Framing::Chunked))
                    .await?;
            }
            Action::Download { length, chunked } => {
                self.read_body(&mut request, &mut body, record).await?;
                remember(shared, record, &request);
                self.download(&id, length, chunked).await?;
            }
            Action::Sink => self.sink(&request, &id, body).await?,
            Action::EchoStream => self.echo_stream(&id, body).await?,
            Action::Upgrade => {
                remember(shared, record, &request);
                self.upgrade(&id).await?;
                return Ok(false);
            }
            Action::Script(steps) => return self.play(steps, &mut request, body).await,
        }
        Ok(request.version == "HTTP/1.1" && !request.fields.lists("connection", "close"))
    }

    fn id(&self, shared: &Shared) -> String {
        if shared.id_is_address {
            self.stream
                .local_addr()
                .map(|a| a.to_string())
                .unwrap_or_default()
        } else {
            shared.id.clone()
        }
    }

    async fn read_head(&mut self, connection: u64) -> io::Result<Option<Request>> {
        let length = loop {
            if let Some(length) = head_length(self.front()) {
                break length;
            }
            if self.fill(4096).await? == 0 {
                return Ok(None);
            }
        };
        let head = self.front()[..length].to_vec();
        self.start += length;
        let (line, fields) = split_head(&head).map_err(io::Error::other)?;
        let words: Vec<&str> = line.split(' ').collect();
        let [method, target, version] = words[..] else {
            return Err(io::Error::other("a bad request line"));
        };
        Ok(Some(Request {
            method: method.to_owned(),
            target: target.to_owned(),
            version: version.to_owned(),
            fields,
            body: Vec::new(),
            trailers: Fields::default(),
            connection,
            head: String::from_utf8_lossy(&head).into_owned(),
        }))
    }

    async fn read_body(
        &mut self,
        request: &mut Request,
        body: &mut Decoder,
        keep: bool,
    ) -> io::Result<()> {
        self.go_on(request).await?;
        while let Some(length) = self.piece(body, 64 << 10).await? {
            if keep {
                request.body.extend_from_slice(&self.front()[..length]);
            }
            self.start += length;
        }
        request.trailers = std::mem::take(&mut body.trailers);
        Ok(())
    }

    /// Says 100 to a client that waits for it.
    async fn go_on(&mut self, request: &Request) -> io::Result<()> {
        if request.fields.lists("expect", "100-continue") {
            self.stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await?;
        }
        Ok(())
    }

    async fn answer(&mut self, request: &Request, id: &str, answer: Answer) -> io::Result<()> {
        if let Some(delay) = answer.delay {
            tokio::time::sleep(delay).await;
        }
        if let Some(gate) = answer.gate {
            gate.pass().await;
        }
        let mut out = head(answer.status, id);
        for (name, value) in &answer.fields {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if answer.status != 204 && answer.status != 304 {
            out.extend_from_slice(format!("content-length: {}\r\n", answer.body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        if request.method != "HEAD" {
            out.extend_from_slice(&answer.body);
        }
        self.stream.write_all(&out).await
    }

    async fn echo(&mut self, request: &Request, id: &str, chunked: bool) -> io::Result<()> {
        let mut out = head(200, id);
        if chunked {
            out.extend_from_slice(b"trailer: x-checksum\r\ntransfer-encoding: chunked\r\n\r\n");
            for piece in request.body.chunks(8192) {
                chunk(&mut out, piece);
            }
            out.extend_from_slice(format!("0\r\n{}\r\n", request.trailers).as_bytes());
        } else {
            let length = request.body.len();
            out.extend_from_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
            out.extend_from_slice(&request.body);
        }
        self.stream.write_all(&out).await
    }

    async fn download(&mut self, id: &str, length: u64, chunked: bool) -> io::Result<()> {
        let mut out = head(200, id);
        let framing = if chunked {
            "transfer-encoding: chunked".to_owned()
        } else {
            format!("content-length: {length}")
        };
        out.extend_from_slice(format!("{framing}\r\n\r\n").as_bytes());
        self.stream.write_all(&out).await?;
        let mut sent = 0;
        while sent < length {
            let piece = pattern::slice(sent, (length - sent).min(256 << 10));
            if chunked {
                out.clear();
                chunk(&mut out, piece);
                self.stream.write_all(&out).await?;
            } else {
                self.stream.write_all(piece).await?;
            }
            sent += piece.len() as u64;
        }
        if chunked {
            self.stream.write_all(b"0\r\n\r\n").await?;
        }
        Ok(())
    }

    async fn sink(&mut self, request: &Request, id: &str, mut body: Decoder) -> io::Result<()> {
        self.go_on(request).await?;
        let mut received = 0;
        let mut wrong = None;
        while let Some(length) = self.piece(&mut body, 256 << 10).await? {
            if wrong.is_none() {
                wrong = pattern::check(received, &self.front()[..length]).err();
            }
            received += length as u64;
            self.start += length;
        }
        let text = wrong.unwrap_or_else(|| format!("ok {received}"));
        self.answer(request, id, Answer::new(200, text)).await
    }

    async fn echo_stream(&mut self, id: &str, mut body: Decoder) -> io::Result<()> {
        let mut out = head(200, id);
        out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        self.stream.write_all(&out).await?;
        while let Some(length) = self.piece(&mut body, 64 << 10).await? {
            out.clear();
            if length > 0 {
                chunk(&mut out, &self.front()[..length]);
                self.stream.write_all(&out).await?;
            }
            self.start += length;
        }
        self.stream.write_all(b"0\r\n\r\n").await
    }

    async fn upgrade(&mut self, id: &str) -> io::Result<()> {
        let mut out = head(101, id);
        out.extend_from_slice(b"connection: Upgrade\r\nupgrade: websocket\r\n\r\n");
        self.stream.write_all(&out).await?;
        loop {
            if self.front().is_empty() && self.fill(16 << 10).await? == 0 {
                return self.stream.shutdown().await;
            }
            let bytes = self.front().to_vec();
            self.start += bytes.len();
            self.stream.write_all(&bytes).await?;
        }
    }

    /// Says whether the connection goes on.
    async fn play(
        &mut self,
        steps: Vec<Step>,
        request: &mut Request,
        mut body: Decoder,
    ) -> io::Result<bool> {
        for step in steps {
            match step {
                Step::Send(bytes) => self.stream.write_all(&bytes).await?,
                Step::ReadBody => self.read_body(request, &mut body, false).await?,
                Step::Wait(gate) => gate.pass().await,
                Step::Open(gate) => gate.open(),
                Step::Sleep(span) => tokio::time::sleep(span).await,
                Step::Hang => std::future::pending().await,
                Step::Close => return Ok(false),
                Step::Reset => {
                    socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Length of the next piece of a body, which then stands at the front; `None` at its end.
    async fn piece(&mut self, body: &mut Decoder, read: usize) -> io::Result<Option<usize>> {
        loop {
            match body.next(self.front()).map_err(io::Error::other)? {
                Part::Data { skip, length } => {
                    self.start += skip;
                    return Ok(Some(length));
                }
                Part::End { skip } => {
                    self.start += skip;
                    return Ok(None);
                }
                Part::More => {
                    if self.fill(read).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }

    fn front(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    async fn fill(&mut self, least: usize) -> io::Result<usize> {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.reserve(least);
        self.stream.read_buf(&mut self.buffer).await
    }
}

fn remember(shared: &Shared, record: bool, request: &Request) {
    if record {
        shared.recorded.lock().unwrap().push(request.clone());
    }
}

fn head(status: u16, id: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Sample\r\nx-backend: {id}\r\n").into_bytes()
}

fn chunk(out: &mut Vec<u8>, piece: &[u8]) {
    out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
    out.extend_from_slice(piece);
    out.extend_from_slice(b"\r\n");
}
