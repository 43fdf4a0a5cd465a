//! Sample HTTP backends on loopback, whose every byte can be scripted.
//!
//! Each has an id, which it tells in `x-backend` and in its body, and counts what reaches it. By default it answers
//! `ID TARGET`, so that a client notices an answer that belongs to another request. Written without an HTTP library,
//! so that a backend can also be wrong.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::message::{Decoder, Fields, Framing, Part, head_length, split_head};
use super::port::{self, Port};
use super::{pattern, runtime};

/// A request as it reached a backend.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Target as it stands in the request line.
    pub target: String,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: String,
    /// Fields.
    pub fields: Fields,
    /// The raw head.
    pub head: String,
    /// The body, if the backend records or echoes.
    pub body: Vec<u8>,
    /// Its trailers.
    pub trailers: Fields,
    /// Serial number of the connection, from 1.
    pub connection: u64,
}

/// What a backend does with a request.
pub enum Action {
    /// Reads the body and answers.
    Answer(Answer),
    /// Reads the body and answers with it, in the same framing and with the same trailers.
    Echo,
    /// Answers at once and sends back each piece of the body as a chunk when it comes.
    EchoStream,
    /// Answers 101 and sends back each byte that comes.
    Upgrade,
    /// Reads the body and answers with so many bytes of the [`pattern`].
    Download { length: u64, chunked: bool },
    /// Compares the body with the [`pattern`] and answers `ok LENGTH`, or what is wrong.
    Sink,
    /// Does exactly this.
    Script(Vec<Step>),
}

/// One step of a script. Behind the last one the connection goes on with the next request.
pub enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Reads the body of the request.
    ReadBody,
    /// Waits for the gate.
    Wait(Gate),
    /// Lets the time pass: a slow backend.
    Sleep(Duration),
    /// Never does anything again.
    Hang,
    /// Closes.
    Close,
    /// Closes with a reset.
    Reset,
}

/// Sends this text.
pub fn send(text: &str) -> Step {
    Step::Send(text.as_bytes().to_vec())
}

/// A response with one body.
#[derive(Clone)]
pub struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    delay: Option<Duration>,
    gate: Option<Gate>,
}

impl Answer {
    /// With this status and body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: body.into(),
            delay: None,
            gate: None,
        }
    }

    /// With one field more.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// After a time: a slow backend.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Once the gate is open.
    pub fn gate(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }
}

impl From<Answer> for Action {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

/// What a test opens when a backend may go on.
#[derive(Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// Closed.
    pub fn new() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn pass(&self) {
        let mut receiver = self.0.subscribe();
        receiver.wait_for(|open| *open).await.unwrap();
    }
}

type Behaviour = Arc<dyn Fn(&Request) -> Action + Send + Sync>;

struct Shared {
    id: String,
    /// Tells the address that was connected to instead of the id: one socket that stands for many backends.
    id_is_address: bool,
    requests: AtomicU64,
    connections: AtomicU64,
    open: AtomicU64,
    record: AtomicBool,
    recorded: Mutex<Vec<Request>>,
    behaviour: RwLock<Option<Behaviour>>,
}

/// A running backend; its connections end with it.
pub struct Backend {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    _port: Option<Port>,
    running: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Backend {
    /// On a free port of 127.0.0.1.
    pub fn start(id: &str) -> Self {
        Self::start_on("127.0.0.1", id)
    }

    /// On a free port of `ip`.
    pub fn start_on(ip: &str, id: &str) -> Self {
        let port = Port::reserve(ip);
        Self::make(port.addr, Some(port), id, false)
    }

    /// On an address whose port another process has reserved for us.
    pub fn start_at(addr: SocketAddr, id: &str) -> Self {
        Self::make(addr, None, id, false)
    }

    /// On a free port of all IPv4 addresses; its id is the address that was connected to.
    pub fn start_on_all() -> Self {
        let port = Port::reserve("0.0.0.0");
        Self::make(port.addr, Some(port), "", true)
    }

    fn make(addr: SocketAddr, port: Option<Port>, id: &str, id_is_address: bool) -> Self {
        let backend = Self {
            addr,
            shared: Arc::new(Shared {
                id: id.to_owned(),
                id_is_address,
                requests: AtomicU64::new(0),
                connections: AtomicU64::new(0),
                open: AtomicU64::new(0),
                record: AtomicBool::new(false),
                recorded: Mutex::default(),
                behaviour: RwLock::new(None),
            }),
            _port: port,
            running: Mutex::new(None),
        };
        backend.up();
        backend
    }

    /// Listens (again).
    pub fn up(&self) {
        let mut running = self.running.lock().unwrap();
        if running.is_none() {
            let listener = port::listen(self.addr);
            let (stop, stopped) = oneshot::channel();
            let task = runtime().spawn(accept(listener, Arc::clone(&self.shared), stopped));
            *running = Some((stop, task));
        }
    }

    /// Closes the listening socket and every connection; from then on connections are refused.
    pub fn down(&self) {
        if let Some((stop, task)) = self.running.lock().unwrap().take() {
            let _ = stop.send(());
            runtime().block_on(task).unwrap();
        }
    }

    /// From now on does this with each request.
    pub fn behave<A: Into<Action>>(&self, f: impl Fn(&Request) -> A + Send + Sync + 'static) {
        *self.shared.behaviour.write().unwrap() = Some(Arc::new(move |r| f(r).into()));
    }

    /// From now on plays the same script for each request.
    pub fn script(&self, steps: impl Fn() -> Vec<Step> + Send + Sync + 'static) {
        self.behave(move |_| Action::Script(steps()));
    }

    /// From now on keeps what comes, with bodies.
    pub fn record(&self) -> &Self {
        self.shared.record.store(true, Relaxed);
        self
    }

    /// What came since the last call.
    pub fn take_recorded(&self) -> Vec<Request> {
        std::mem::take(&mut *self.shared.recorded.lock().unwrap())
    }

    /// The one request that came since the last call.
    #[track_caller]
    pub fn take_one(&self) -> Request {
        let mut all = self.take_recorded();
        assert_eq!(all.len(), 1, "one request was expected: {all:#?}");
        all.remove(0)
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// Requests whose head has come.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Relaxed)
    }

    /// Connections accepted.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Relaxed)
    }

    /// Connections open now.
    pub fn open_connections(&self) -> u64 {
        self.shared.open.load(Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.down();
    }
}

/// Accepts until it is told to stop, and has closed everything when it returns.
async fn accept(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    mut stop: oneshot::Receiver<()>,
) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let number = shared.connections.fetch_add(1, Relaxed) + 1;
                connections.spawn(serve(stream, Arc::clone(&shared), number));
            }
            Some(_) = connections.join_next() => {}
            _ = &mut stop => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Counts a connection as open while it lives.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// A peer that goes away ends the connection; that is all an error means here.
async fn serve(stream: TcpStream, shared: Arc<Shared>, number: u64) {
    shared.open.fetch_add(1, Relaxed);
    let _open = Open(Arc::clone(&shared));
    let _ = stream.set_nodelay(true);
    let mut connection = Connection {
        stream,
        buffer: Vec::with_capacity(4096),
        start: 0,
    };
    while let Ok(true) = connection.exchange(&shared, number).await {}
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
