//! The program's exchange over two streams in memory, walked as the program walks it on sockets: requests of one
//! client one after the other, backend connections pooled only where the exchange says so. Nothing is random: how the
//! bytes are cut and how much a write takes come from a seed.
//!
//! [`drive`] plays a [`Plan`] and returns what went where; [`Played::check`] asserts what must hold for any bytes at
//! all, with the independent reader of [`super::strict`].

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use lbproxy::internals::balance::Random;
use lbproxy::internals::config::compile;
use lbproxy::internals::config::load::load;
use lbproxy::internals::model::settings::ClusterTimeouts;
use lbproxy::internals::proxy::flow::Stream;
use lbproxy::internals::proxy::http::exchange::{Desk, End, Exchange, READ_AHEAD};
use lbproxy::internals::proxy::http::intake::Intake;
use lbproxy::internals::proxy::http::prepare::{Arrival, HeadSpace, Prepared, understand};
use lbproxy::internals::proxy::http::reply::{Reply, reason_of_backend};
use lbproxy::internals::proxy::load::Held;
use lbproxy::internals::proxy::sessions::Fired;
use lbproxy::internals::snapshot::Snapshot;
use lbproxy::internals::telemetry::outcome::Reason;
use lbproxy::internals::transport::listen::BoundSockets;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::strict::{self, Message, Read};

/// A path that is fenced off, a limit that small inputs reach, and a cluster for the rest.
const FILE: &str = r#"
[[listener]]
name = "web"
address = "127.0.0.1:0"
cluster = "web"
limits = { body_bytes = "1KiB", header_bytes = "2KiB", headers = 20, uri_bytes = "256B", trailer_bytes = "256B" }
[[route]]
path = "/fenced/*"
respond = { status = 403, body = "fenced" }
[cluster.web]
backends = ["127.0.0.1:9"]
"#;

/// `header_bytes` of [`FILE`].
const HEADER_BYTES: usize = 2 << 10;
/// What one read of a client's bytes may bring.
const READ: usize = 16 << 10;

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
#[derive(Debug, Default)]
pub struct Played {
    /// Everything the client was sent.
    pub to_client: Vec<u8>,
    /// How the client's connection ended.
    pub last: Last,
    /// Methods of the requests that were answered or forwarded, in order.
    pub methods: Vec<Vec<u8>>,
    /// Everything each backend connection was sent.
    pub to_backends: Vec<Vec<u8>>,
    /// For each backend connection, how many requests it was given, and how many of them were whole when their
    /// exchange ended.
    pub given: Vec<(usize, usize)>,
    /// Most bytes that were kept for the client at a time.
    pub most_carried: usize,
}

/// How a client's connection ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Last {
    /// It did not: the client has said nothing more.
    #[default]
    Open,
    /// In order, behind a whole response or without one.
    Ended,
    /// Inside a response, in order: its framing tells.
    Cut,
    /// With a reset.
    Reset,
    /// It has become a tunnel.
    Tunnel,
}

/// Plays the plan.
pub fn drive(plan: &Plan) -> Played {
    thread_local! {
        static HELD: Held = Rc::new(Arc::new(snapshot()));
    }
    HELD.with(|held| Driver::new(plan, held).run())
}

fn snapshot() -> Snapshot {
    let loaded = load(FILE);
    let config = loaded.config.expect("the file is right");
    let sockets = BoundSockets::bind(&config.listeners[0].address, 1).expect("a free port");
    compile::snapshot(config, sockets)
}

/// One end of a connection, as the program holds it.
struct Side {
    input: Vec<u8>,
    /// Bytes of the input that have arrived.
    arrived: usize,
    read: usize,
    then: Then,
    when: When,
    silent: bool,
    output: Vec<u8>,
    /// Bytes of the output that are whole requests.
    asked: usize,
    /// Bytes of the input that were answers to requests before the one at hand.
    answered: usize,
    whole: bool,
    random: Random,
    broken: bool,
}

impl Side {
    fn new(script: &Script, whole: bool, seed: u64) -> Self {
        Self {
            input: script.bytes.clone(),
            arrived: 0,
            read: 0,
            then: script.then,
            when: script.when,
            silent: script.when != When::Connected,
            output: Vec::new(),
            asked: 0,
            answered: 0,
            whole,
            random: Random::new(seed),
            broken: false,
        }
    }

    /// Speaks if it has heard what it waits for.
    fn listen(&mut self) {
        let asked = self.asked;
        while let Ok(Read::Whole(message)) = strict::request(&self.output[self.asked..]) {
            self.asked += message.len;
        }
        self.silent &= match self.when {
            When::Asked => self.asked == asked,
            When::Heard | When::Connected => false,
        };
    }

    /// The connection may serve again: all that was read of it must be one whole answer to a request with `method`,
    /// from somebody who stays. Says nothing of answers that are not in the one form that the strict reader knows.
    fn assert_in_step(&mut self, method: &[u8]) {
        let read = self.answered..self.read;
        self.answered = self.read;
        let mut rest = &self.input[read];
        loop {
            match strict::response(rest, method, false) {
                Err(_) => return,
                Ok(Read::Part) => panic!("pooled inside an answer: {}", rest.escape_ascii()),
                Ok(Read::Whole(message)) => {
                    rest = &rest[message.len..];
                    if message.status() >= 200 {
                        assert!(rest.is_empty(), "pooled with {}", rest.escape_ascii());
                        assert!(!message.all("connection").any(|value| value == b"close"));
                        return;
                    }
                }
            }
        }
    }

    /// Lets some more arrive; says whether anything changes by that.
    fn advance(&mut self) -> bool {
        if self.silent || self.arrived == self.input.len() {
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

    /// Whether the peer has said something that was not read, or its end.
    fn has_news(&self) -> bool {
        let at_end = self.read == self.input.len();
        self.read < self.arrived || at_end && self.then != Then::Waits
    }
}

impl AsyncRead for Side {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let take = (self.arrived - self.read).min(buffer.remaining());
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
}

impl AsyncWrite for Side {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
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
        self.output.extend_from_slice(&bytes[..take]);
        if self.silent {
            self.listen();
        }
        Poll::Ready(Ok(take))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Stream for Side {
    fn send_room(&self) -> usize {
        64 << 10
    }

    fn reset_on_close(&self) {}

    fn send_queue(&self) -> usize {
        0
    }

    fn peer_has_ended(&self) -> bool {
        false
    }
}

struct Driver<'p> {
    plan: &'p Plan,
    held: &'p Held,
    client: Side,
    intake: Intake,
    space: HeadSpace,
    scratch: Vec<u8>,
    random: Random,
    /// The backend connection that may serve again.
    pooled: Option<Side>,
    opened: usize,
    played: Played,
}

/// Turns without any progress after which a write that was refused by chance has surely gone through.
const PATIENCE: usize = 64;

impl<'p> Driver<'p> {
    fn new(plan: &'p Plan, held: &'p Held) -> Self {
        let client = Script {
            bytes: plan.client.clone(),
            then: match plan.client_ends {
                true => Then::Ends,
                false => Then::Waits,
            },
            when: When::Connected,
        };
        Self {
            plan,
            held,
            client: Side::new(&client, plan.whole, plan.seed),
            intake: Intake::default(),
            space: HeadSpace::default(),
            scratch: vec![0; 64 << 10],
            random: Random::new(plan.seed),
            pooled: None,
            opened: 0,
            played: Played::default(),
        }
    }

    fn run(mut self) -> Played {
        self.played.last = loop {
            let mut exchange = Exchange::default();
            let ended = match self.next_request(&mut exchange) {
                None => Some(Last::Open),
                Some(Prepared::Incomplete) => Some(Last::Ended),
                Some(Prepared::Answer(reply)) => self.answer(&exchange, &reply),
                Some(Prepared::Forward) => self.forward(&mut exchange),
            };
            if let Some(last) = ended {
                break last;
            }
        };
        if let Some(backend) = self.pooled.take() {
            self.played.to_backends.push(backend.output);
        }
        self.played.to_client = std::mem::take(&mut self.client.output);
        self.played
    }

    /// The next request; `None` while the client has not sent it, `Incomplete` if it never will.
    fn next_request(&mut self, exchange: &mut Exchange) -> Option<Prepared> {
        let view = (Rc::clone(self.held), 0);
        let arrival = Arrival {
            view: &view,
            peer: "192.0.2.1".parse().ok(),
            now: Instant::now(),
            now_ms: 0,
            random: &self.random,
            process: b"0123456789abcdef",
        };
        let mut take =
            |bytes: &mut [u8]| match understand(&arrival, &mut self.space, bytes, exchange) {
                (Prepared::Incomplete, _) => (None, 0),
                (prepared, used) => (Some(prepared), used),
            };
        self.intake.begin();
        loop {
            if let Some(prepared) = self.intake.look(HEADER_BYTES, &mut take) {
                return Some(prepared);
            }
            assert!(
                self.intake.kept.len() <= HEADER_BYTES,
                "half a head beyond its limit"
            );
            if !self.client.advance() && self.client.read == self.client.arrived {
                return self.plan.client_ends.then_some(Prepared::Incomplete);
            }
            let from = self.client.read;
            self.client.read = self.client.arrived.min(from + READ);
            let bytes = &mut self.client.input[from..self.client.read];
            if let Some(prepared) = self.intake.add(bytes, &mut take) {
                return Some(prepared);
            }
        }
    }

    /// An answer of the proxy's own, behind what is left of interim ones.
    fn answer(&mut self, exchange: &Exchange, reply: &Reply) -> Option<Last> {
        let bytes = reply.to_bytes(exchange);
        self.client.output.extend_from_slice(&bytes);
        self.note_method(exchange);
        reply.close.then_some(Last::Ended)
    }

    fn note_method(&mut self, exchange: &Exchange) {
        self.played.methods.push(method_of(exchange).to_vec());
    }

    /// A backend connection and its place among all of them.
    fn connect(&mut self) -> Side {
        // What has come unasked disqualifies a connection, as in the pool; more of the script is for the next request.
        if let Some(mut backend) = self.pooled.take() {
            if !backend.has_news() {
                backend.silent = true;
                return backend;
            }
            self.played.to_backends.push(backend.output);
        }
        let script = self.plan.backends.get(self.opened).cloned();
        self.opened += 1;
        self.played.given.push((0, 0));
        let seed = self.plan.seed ^ self.opened as u64;
        Side::new(&script.unwrap_or_default(), self.plan.whole, seed)
    }

    fn forward(&mut self, exchange: &mut Exchange) -> Option<Last> {
        let mut backend = self.connect();
        let timeouts = ClusterTimeouts::default();
        exchange.begin_attempt(&timeouts, "127.0.0.1:9", 0);
        let end = self.relay(exchange, &mut backend);
        let given = self.played.given.last_mut().expect("a connection was made");
        given.0 += 1;
        given.1 += usize::from(exchange.has_whole_request() && exchange.is_sent());
        if end == End::Complete && exchange.backend_is_reusable() {
            backend.assert_in_step(method_of(exchange));
            self.pooled = Some(backend);
        } else {
            self.played.to_backends.push(backend.output);
        }
        self.conclude(exchange, end)
    }

    fn relay(&mut self, exchange: &mut Exchange, backend: &mut Side) -> End {
        let mut cx = Context::from_waker(Waker::noop());
        let mut idle = 0;
        let mut now = 0;
        loop {
            let mut desk = Desk {
                scratch: &mut self.scratch,
                space: &mut self.space,
                now,
                closing: false,
            };
            let polled = exchange.poll(
                &mut cx,
                &mut self.client,
                &mut self.intake.kept,
                backend,
                &mut desk,
            );
            self.played.most_carried = self.played.most_carried.max(self.intake.kept.len());
            if let Poll::Ready(end) = polled {
                return end;
            }
            let moved = self.client.advance() | backend.advance();
            idle = if moved { 0 } else { idle + 1 };
            if idle > PATIENCE {
                // Nobody will do anything any more: the next deadline passes.
                now = exchange.next_deadline();
                assert_ne!(now, u64::MAX, "an exchange that nothing ends");
                if let Some(end) = exchange.expired(Fired::Deadline, now) {
                    return end;
                }
            }
        }
    }

    /// What the end of an exchange means for the client.
    fn conclude(&mut self, exchange: &mut Exchange, end: End) -> Option<Last> {
        let answered = exchange.has_answered();
        let reason = match end {
            End::Complete => {
                self.note_method(exchange);
                let ends = exchange.response.close_client || !exchange.has_whole_request();
                return ends.then_some(Last::Ended);
            }
            End::Upgraded => {
                self.note_method(exchange);
                return Some(Last::Tunnel);
            }
            End::Client(reason) => reason,
            End::Backend(error) => reason_of_backend(error),
            End::TotalTimeout | End::Drained => panic!("nothing asked for {end:?}"),
        };
        if matches!(reason, Reason::ClientLeft | Reason::SlowReader) {
            return Some(Last::Reset);
        }
        if answered {
            self.note_method(exchange);
            return Some(if exchange.response.until_close {
                Last::Reset
            } else {
                Last::Cut
            });
        }
        let mut unsent = exchange.take_unsent();
        self.client.whole = true;
        let mut cx = Context::from_waker(Waker::noop());
        let flushed = unsent.poll_flush(&mut self.client, &mut cx, &mut 0);
        assert!(flushed.is_ready());
        let close = !exchange.has_whole_request() || !exchange.facts.keep_alive;
        let last = self.answer(exchange, &Reply::failure(reason, close));
        self.client.whole = self.plan.whole;
        last
    }
}

/// What the framing of an answer depends on.
fn method_of(exchange: &Exchange) -> &'static [u8] {
    if exchange.facts.is_head {
        b"HEAD"
    } else {
        b"GET"
    }
}

impl Played {
    /// The requests that the backends can read, whole ones only, in the order of their connections.
    ///
    /// # Panics
    /// If what a connection was sent is not exactly the requests that it was given, in the one form that there is.
    pub fn requests(&self) -> Vec<Message> {
        assert_eq!(self.to_backends.len(), self.given.len());
        let mut all = Vec::new();
        for (bytes, (given, whole)) in self.to_backends.iter().zip(&self.given) {
            let mut at = 0;
            let mut seen = 0;
            while at < bytes.len() {
                match strict::request(&bytes[at..]) {
                    Ok(Read::Whole(message)) => {
                        at += message.len;
                        seen += 1;
                        all.push(message);
                    }
                    Ok(Read::Part) => break,
                    Err(wrong) => panic!("{wrong}: {}", bytes.escape_ascii()),
                }
            }
            let parts = usize::from(at < bytes.len());
            assert_eq!(seen, *whole, "{}", bytes.escape_ascii());
            assert!(seen + parts <= *given, "{}", bytes.escape_ascii());
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
            let asked = method.map_or(b"GET".as_slice(), Vec::as_slice);
            match strict::response(&self.to_client[at..], asked, ended) {
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
            Last::Open | Last::Ended | Last::Tunnel => {
                assert!(is_whole, "half an answer: {self:?}");
                assert_eq!(all.len(), self.methods.len(), "{self:?}");
            }
        }
        all
    }

    /// What must hold whatever the two sides send.
    ///
    /// # Panics
    /// If it does not.
    pub fn check(&self) {
        self.requests();
        self.responses();
        assert!(
            self.most_carried <= HEADER_BYTES + READ + READ_AHEAD,
            "{} bytes of further requests are kept",
            self.most_carried
        );
    }
}
