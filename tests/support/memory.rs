//! The program's own data plane over connections in memory: requests of one client one after the other, to backends that
//! play a script. Nothing is random: how the bytes are cut and how much a write takes come from a seed, and the clock is a
//! paused one.
//!
//! [`drive`] plays a [`Plan`] and returns what went where; [`Played::check`] asserts what must hold for any bytes at
//! all, with the independent reader of [`super::strict`].

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lbproxy::internals::balance::Random;
use lbproxy::internals::model::address::SocketAddress;
use lbproxy::internals::transport::{Connector, DialError, EndName, Stream};
use lbproxy::internals::{InMemory, Process};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::strict::{self, Message, Read};

/// A path that is fenced off, limits that small inputs reach, short timeouts but the one that ends a connection at rest,
/// and a cluster for the rest.
const FILE: &str = r#"
[log]
access = "stdout"
[[listener]]
name = "web"
address = "127.0.0.1:0"
cluster = "web"
limits = { body_bytes = "1KiB", header_bytes = "2KiB", headers = 20, uri_bytes = "256B", trailer_bytes = "256B" }
timeouts = { header = "300ms", request_body = "300ms", write = "300ms", idle = "30s", tunnel = "300ms" }
[[route]]
path = "/fenced/*"
respond = { status = 403, body = "fenced" }
[cluster.web]
backends = ["127.0.0.1:9"]
timeouts = { response = "300ms", body = "300ms", idle = "30s" }
"#;

/// Longer than any silence but that of a connection at rest.
const AT_REST: Duration = Duration::from_secs(1);

/// What the two sides do.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// How bytes are cut, and how much writes take.
    pub seed: u64,
    /// Everything arrives at once and every write goes through.
    pub whole: bool,
    /// What the client sends.
    pub client: Vec<u8>,
    /// Whether the client then ends its side; else it waits.
    pub client_ends: bool,
    /// What a backend sends on each connection that is opened to it.
    pub backends: Vec<Script>,
}

/// A backend's side of one connection.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// What it sends.
    pub bytes: Vec<u8>,
    /// What it does then.
    pub then: Then,
    /// When it begins to send.
    pub when: When,
}

/// When a backend sends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum When {
    /// Once it has a whole request.
    #[default]
    Asked,
    /// Once it has heard anything.
    Heard,
    /// At once.
    Connected,
}

/// What follows the last byte of a side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    #[default]
    Waits,
    /// The end, in order.
    Ends,
    /// A reset.
    Resets,
}

/// What went where.
#[derive(Default)]
pub struct Played {
    /// Everything the client was sent.
    pub to_client: Vec<u8>,
    /// How the client's connection ended.
    pub last: Last,
    /// The requests that were answered, in order: the method, where the head was good.
    pub methods: Vec<Option<Vec<u8>>>,
    /// Everything each backend connection was sent.
    pub to_backends: Vec<Vec<u8>>,
    /// Bytes that were read of the client's before it was sent anything.
    pub read_before_answer: usize,
}

/// How a client's connection ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Last {
    /// At rest: the client has said nothing more.
    #[default]
    Open,
    /// In order, after a whole response or without one.
    Ended,
    /// Inside a response, in order: its framing tells.
    Cut,
    /// With a reset.
    Reset,
    /// As a tunnel.
    Tunnel,
}

/// Plays the plan.
pub fn drive(plan: &Plan) -> Played {
    thread_local! {
        static PROCESS: Process = Process::new(FILE);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build_local(Default::default())
        .expect("a runtime");
    PROCESS.with(|process| runtime.block_on(play(plan, process)))
}

async fn play(plan: &Plan, process: &Process) -> Played {
    let stage = Rc::new(Stage::new(plan));
    let worker = InMemory::new(process, Backends(Rc::clone(&stage)), plan.seed);
    let client = Script {
        bytes: plan.client.clone(),
        then: match plan.client_ends {
            true => Then::Ends,
            false => Then::Waits,
        },
        when: When::Connected,
    };
    let client = Rc::new(RefCell::new(Side::new(&client, plan.whole, plan.seed)));
    let peer = "192.0.2.1:1000".parse().expect("an address");
    let mut serving = worker.serve(End(Rc::clone(&client)), peer);
    let (mut moved_at, mut seen) = (Instant::now(), 0);
    let all = poll_fn(|cx| {
        let mut idle = 0;
        loop {
            if serving.as_mut().poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            let mut moved = client.borrow_mut().advance();
            for backend in stage.opened.borrow().iter() {
                moved |= backend.borrow_mut().advance();
            }
            let answered = client.borrow().output.len();
            moved |= answered > seen;
            seen = answered;
            idle = if moved { 0 } else { idle + 1 };
            if moved {
                moved_at = Instant::now();
            }
            if moved_at.elapsed() > AT_REST {
                return Poll::Ready(false);
            }
            if idle > PATIENCE {
                // Nobody does anything any more: time passes.
                return Poll::Pending;
            }
        }
    });
    let has_ended = tokio::select! {
        ended = all => ended,
        () = worker.run_deadlines() => unreachable!("it runs for ever"),
    };
    drop(serving);
    let log = worker.take_log();
    let records: Vec<Record> = log
        .split(|b| *b == b'\n')
        .filter_map(Record::read)
        .collect();
    let client = client.borrow();
    Played {
        last: last(&client, &records, has_ended),
        methods: records.iter().map(|record| record.method.clone()).collect(),
        to_client: client.output.clone(),
        to_backends: stage
            .opened
            .borrow()
            .iter()
            .map(|backend| backend.borrow().output.clone())
            .collect(),
        read_before_answer: client.read_before_write,
    }
}

/// A line of the access log.
#[derive(Debug)]
struct Record {
    method: Option<Vec<u8>>,
    status: u64,
    reason: String,
}

impl Record {
    fn read(line: &[u8]) -> Option<Self> {
        let line: serde_json::Value = serde_json::from_slice(line).ok()?;
        Some(Self {
            method: line["method"].as_str().map(|method| method.into()),
            status: line["status"].as_u64()?,
            reason: line["reason"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// The answer was cut; one of the proxy's own never is.
    fn is_cut(&self) -> bool {
        let own = match self.reason.as_str() {
            "" => return false,
            "backend_cut" => return true,
            "body_too_large" => 413,
            "slow_body" => 408,
            "head_too_large" => 431,
            "bad_chunk" | "bad_trailer" | "bare_line_end" | "field_syntax" | "malformed" => 400,
            _ => return false,
        };
        self.status != own
    }
}

fn last(client: &Side, records: &[Record], has_ended: bool) -> Last {
    let record = records.last();
    if record.is_some_and(|record| record.status == 101) {
        Last::Tunnel
    } else if client.is_reset {
        Last::Reset
    } else if record.is_some_and(Record::is_cut) {
        Last::Cut
    } else if !has_ended && !client.is_shut {
        Last::Open
    } else {
        Last::Ended
    }
}

/// Turns without any progress after which a write that was refused by chance has surely gone through.
const PATIENCE: usize = 64;

/// The backends' sides of the connections that were opened.
struct Stage {
    scripts: Vec<Script>,
    whole: bool,
    seed: u64,
    opened: RefCell<Vec<Rc<RefCell<Side>>>>,
}

impl Stage {
    fn new(plan: &Plan) -> Self {
        Self {
            scripts: plan.backends.clone(),
            whole: plan.whole,
            seed: plan.seed,
            opened: RefCell::default(),
        }
    }
}

/// Opens a connection that plays the next script.
struct Backends(Rc<Stage>);

impl Connector for Backends {
    type Stream = End;
    type Named = ();

    async fn connect(&self, _: &SocketAddress) -> Result<End, DialError> {
        let stage = &self.0;
        let mut opened = stage.opened.borrow_mut();
        let script = stage.scripts.get(opened.len()).cloned();
        let seed = stage.seed ^ (opened.len() as u64 + 1);
        let side = Side::new(&script.unwrap_or_default(), stage.whole, seed);
        let side = Rc::new(RefCell::new(side));
        opened.push(Rc::clone(&side));
        Ok(End(side))
    }

    fn bind(&self, _: &SocketAddress) -> Option<((), EndName)> {
        None
    }

    async fn connect_named(&self, (): ()) -> Result<End, DialError> {
        unreachable!("nothing is bound")
    }
}

/// The program's end of a connection.
struct End(Rc<RefCell<Side>>);

/// What stands at the other end.
struct Side {
    input: Vec<u8>,
    /// Bytes of the input that have arrived.
    arrived: usize,
    read: usize,
    then: Then,
    when: When,
    silent: bool,
    output: Vec<u8>,
    /// Bytes of the output that are whole requests, and the method of the last one.
    asked: usize,
    method: Vec<u8>,
    /// Bytes of the input that were answers to requests before the one at hand.
    answered: usize,
    /// The program waits for more.
    is_awaited: bool,
    read_before_write: usize,
    whole: bool,
    random: Random,
    broken: bool,
    is_reset: bool,
    is_shut: bool,
}

impl Side {
    fn new(script: &Script, whole: bool, seed: u64) -> Self {
        Self {
            input: script.bytes.clone(),
            then: script.then,
            when: script.when,
            silent: script.when != When::Connected,
            whole,
            random: Random::new(seed),
            arrived: 0,
            read: 0,
            output: Vec::new(),
            asked: 0,
            method: Vec::new(),
            answered: 0,
            is_awaited: false,
            read_before_write: 0,
            broken: false,
            is_reset: false,
            is_shut: false,
        }
    }

    /// Takes what was written. The first byte of a further request says that this connection was pooled: what was read
    /// of it must have been one whole answer.
    fn hear(&mut self, bytes: &[u8]) {
        if self.output.is_empty() {
            self.read_before_write = self.read;
        } else if self.asked == self.output.len() {
            self.assert_in_step();
            self.silent = true;
        }
        self.output.extend_from_slice(bytes);
        let asked = self.asked;
        while let Ok(Read::Whole(message)) = strict::request(&self.output[self.asked..]) {
            self.asked += message.len;
            self.method = message.word(0).to_vec();
        }
        self.silent &= match self.when {
            When::Asked => self.asked == asked,
            When::Heard | When::Connected => false,
        };
    }

    /// The connection serves again: all that was read of it must be one whole answer, from somebody who stays. Says
    /// nothing of answers that are not in the one form that the strict reader knows.
    fn assert_in_step(&mut self) {
        let read = self.answered..self.read;
        self.answered = self.read;
        let mut rest = &self.input[read];
        loop {
            match strict::response(rest, &self.method, false) {
                Err(_) => return,
                Ok(Read::Part) => panic!("pooled inside an answer: {}", rest.escape_ascii()),
                Ok(Read::Whole(message)) => {
                    rest = &rest[message.len..];
                    if message.status() == 101 {
                        // What follows is no HTTP.
                        return;
                    }
                    if message.status() >= 200 {
                        assert!(rest.is_empty(), "pooled with {}", rest.escape_ascii());
                        assert!(!message.all("connection").any(|value| value == b"close"));
                        return;
                    }
                }
            }
        }
    }

    /// Lets some more arrive if it is waited for; says whether anything changes by that.
    fn advance(&mut self) -> bool {
        if !self.is_awaited || self.silent || self.arrived == self.input.len() {
            return false;
        }
        let left = self.input.len() - self.arrived;
        self.arrived += match self.random.next_u64() % 8 {
            _ if self.whole => left,
            0..4 => 1,
            4..7 => 1 + (self.random.next_u64() % 40) as usize,
            _ => left,
        }
        .min(left);
        true
    }

    fn poll_read(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let take = (self.arrived - self.read).min(buffer.remaining());
        self.is_awaited = take == 0;
        if take > 0 {
            buffer.put_slice(&self.input[self.read..self.read + take]);
            self.read += take;
            return Poll::Ready(Ok(()));
        }
        if self.read < self.input.len() || self.silent {
            return Poll::Pending;
        }
        match self.then {
            Then::Waits => Poll::Pending,
            Then::Ends => Poll::Ready(Ok(())),
            Then::Resets => {
                self.broken = true;
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
        }
    }

    fn poll_write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let take = match self.random.next_u64() % 4 {
            _ if self.whole => bytes.len(),
            0 => return Poll::Pending,
            1 => (self.random.next_u64() % 64) as usize + 1,
            _ => bytes.len(),
        }
        .min(bytes.len());
        self.hear(&bytes[..take]);
        Poll::Ready(Ok(take))
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(buffer)
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().is_shut = true;
        Poll::Ready(Ok(()))
    }
}

impl Stream for End {
    fn send_room(&self) -> usize {
        64 << 10
    }

    fn send_queue(&self) -> usize {
        0
    }

    fn reset_on_close(&self) {
        self.0.borrow_mut().is_reset = true;
    }

    fn peer_has_ended(&self) -> bool {
        false
    }

    /// As in the kernel: neither bytes nor an end.
    fn is_idle(&self) -> bool {
        let side = self.0.borrow();
        let at_end = side.read == side.input.len();
        side.read == side.arrived && !(at_end && side.then != Then::Waits)
    }

    fn seems_idle(&self) -> bool {
        self.is_idle()
    }

    fn peer_name(&self) -> Option<EndName> {
        None
    }
}

impl std::fmt::Debug for Played {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes: &[u8]| bytes[..bytes.len().min(2000)].escape_ascii().to_string();
        f.debug_struct("Played")
            .field("to_client", &text(&self.to_client))
            .field("last", &self.last)
            .field(
                "methods",
                &self
                    .methods
                    .iter()
                    .map(|m| m.as_deref().map(text))
                    .collect::<Vec<_>>(),
            )
            .field(
                "to_backends",
                &self
                    .to_backends
                    .iter()
                    .take(4)
                    .map(|b| text(b))
                    .collect::<Vec<_>>(),
            )
            .field("read_before_answer", &self.read_before_answer)
            .finish()
    }
}

impl Played {
    /// The requests that the backends can read, whole ones only, in the order of their connections.
    ///
    /// # Panics
    /// If what a connection was sent is not whole requests in the one form that there is, and at most one part of one.
    pub fn requests(&self) -> Vec<Message> {
        let mut all = Vec::new();
        for bytes in &self.to_backends {
            let mut at = 0;
            while at < bytes.len() {
                match strict::request(&bytes[at..]) {
                    Ok(Read::Whole(message)) => {
                        at += message.len;
                        all.push(message);
                    }
                    Ok(Read::Part) => break,
                    Err(_) if self.last == Last::Tunnel => break,
                    Err(wrong) => panic!("{wrong}: {}", bytes.escape_ascii()),
                }
            }
        }
        all
    }

    /// The final responses that the client can read, whole ones only.
    ///
    /// # Panics
    /// If what the client was sent is not exactly the answers that were counted, or a cut one looks whole.
    pub fn responses(&self) -> Vec<Message> {
        let mut all = Vec::new();
        let mut at = 0;
        let mut methods = self.methods.iter();
        let mut method = methods.next();
        let ended = matches!(self.last, Last::Ended | Last::Cut);
        while at < self.to_client.len() {
            match self.response_at(at, method.and_then(|m| m.as_deref()), ended) {
                Ok(Read::Whole(message)) => {
                    at += message.len;
                    let status = message.status();
                    let is_final = status >= 200 || status == 101;
                    if is_final {
                        assert!(method.is_some(), "an answer too many: {self:?}");
                        method = methods.next();
                        all.push(message);
                    }
                    if status == 101 {
                        break;
                    }
                }
                Ok(Read::Part) => break,
                Err(wrong) => panic!("{wrong}: {}", self.to_client.escape_ascii()),
            }
        }
        let is_whole = at == self.to_client.len();
        match self.last {
            Last::Cut => {
                assert_eq!(
                    all.len() + 1,
                    self.methods.len(),
                    "a cut answer looks whole: {self:?}"
                );
            }
            Last::Reset => assert!(all.len() <= self.methods.len()),
            Last::Tunnel => assert_eq!(all.len(), self.methods.len(), "{self:?}"),
            Last::Open | Last::Ended => {
                assert!(is_whole, "half an answer: {self:?}");
                assert_eq!(all.len(), self.methods.len(), "{self:?}");
            }
        }
        all
    }

    /// The response at `at`, to a request with this method. A head that was refused may have been one of HEAD.
    fn response_at(
        &self,
        at: usize,
        method: Option<&[u8]>,
        ended: bool,
    ) -> Result<Read, strict::Wrong> {
        let bytes = &self.to_client[at..];
        match method {
            Some(method) => strict::response(bytes, method, ended),
            None => match strict::response(bytes, b"GET", ended) {
                Ok(Read::Part) => strict::response(bytes, b"HEAD", ended),
                other => other,
            },
        }
    }

    /// What must hold whatever the two sides send.
    ///
    /// # Panics
    /// If it does not.
    pub fn check(&self) {
        self.requests();
        self.responses();
    }
}
