//! What a connection takes of memory. A warm request path takes none: a keep-alive GET with an answer of 128 bytes goes
//! through what a worker does with it (understand, begin an attempt, poll the exchange, clear) and the allocator is not
//! called once. And the worst that both sides together can make a connection hold stays under 1 MiB.
//!
//! The streams are in memory and allocate nothing themselves. The exchange and the space for heads are used again as a
//! worker uses them. Counters of the thread's own tell, so that other threads of the test program do not matter.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use lbproxy::internals::balance::Random;
use lbproxy::internals::config::compile;
use lbproxy::internals::config::load::load;
use lbproxy::internals::model::settings::ClusterTimeouts;
use lbproxy::internals::proxy::flow::{LARGEST_READ, SMALL_READ as READ, Stream};
use lbproxy::internals::proxy::http::exchange::{Desk, End, Exchange};
use lbproxy::internals::proxy::http::intake::Intake;
use lbproxy::internals::proxy::http::prepare::{Arrival, HeadSpace, Prepared, understand};
use lbproxy::internals::proxy::load::Held;
use lbproxy::internals::snapshot::Snapshot;
use lbproxy::internals::transport::listen::BoundSockets;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::alone;
use crate::counting::{asked, held, peak, watch_peak};

const FILE: &str = r#"
[log]
access = "stdout"
[[listener]]
name = "web"
address = "127.0.0.1:0"
cluster = "web"
[cluster.web]
backends = ["127.0.0.1:9"]
"#;

const REQUEST: &[u8] =
    b"GET /items/7?page=2 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: curl/8.11.0\r\n\
    Accept: */*\r\n\r\n";

const RESPONSE_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: tiny\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 128\r\n\r\n";

/// Times the path is walked before it counts as warm.
const WARM: usize = 100;
/// Times it is walked then.
const COUNTED: usize = 1000;

fn snapshot() -> Snapshot {
    let config = load(FILE).config.expect("the file is right");
    let sockets = BoundSockets::bind(&config.listeners[0].address, 1).expect("a free port");
    compile::snapshot(config, sockets)
}

/// One end of a connection: what it says, and room for what it is told.
struct Side {
    says: Vec<u8>,
    read: usize,
    told: Vec<u8>,
    /// Says nothing before it is told something, as a backend does.
    waits: bool,
}

impl Side {
    fn new(says: Vec<u8>, waits: bool) -> Self {
        Self {
            says,
            read: 0,
            told: Vec::with_capacity(16 << 10),
            waits,
        }
    }

    fn again(&mut self) {
        self.read = 0;
        self.told.clear();
    }
}

impl AsyncRead for Side {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let take = (self.says.len() - self.read).min(buffer.remaining());
        if take == 0 || self.waits && self.told.is_empty() {
            return Poll::Pending;
        }
        buffer.put_slice(&self.says[self.read..self.read + take]);
        self.read += take;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Side {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.told.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    // A socket takes all parts of a small write at once; one that took the first alone would make the rest be kept.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let before = self.told.len();
        for part in parts {
            self.told.extend_from_slice(part);
        }
        Poll::Ready(Ok(self.told.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
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

/// What a worker and a connection keep from one request to the next.
struct Kept {
    view: (Held, usize),
    random: Random,
    space: HeadSpace,
    scratch: Vec<u8>,
    intake: Intake,
    exchange: Box<Exchange>,
    timeouts: ClusterTimeouts,
    label: Arc<str>,
}

impl Kept {
    fn new(scratch: usize) -> Self {
        Self {
            view: (Rc::new(Arc::new(snapshot())), 0),
            random: Random::new(1),
            space: HeadSpace::default(),
            scratch: vec![0; scratch],
            intake: Intake::default(),
            exchange: Box::default(),
            timeouts: ClusterTimeouts::default(),
            label: "127.0.0.1:9".into(),
        }
    }
}

/// One request and its answer.
fn walk(kept: &mut Kept, client: &mut Side, backend: &mut Side) {
    let arrival = Arrival {
        view: &kept.view,
        peer: "192.0.2.1".parse().ok(),
        now: Instant::now(),
        now_ms: 0,
        random: &kept.random,
        process: b"0123456789abcdef",
    };
    let length = client.says.len();
    kept.scratch[..length].copy_from_slice(&client.says);
    client.read = length;
    let (space, exchange) = (&mut kept.space, &mut kept.exchange);
    kept.intake.begin();
    let prepared = kept.intake.add(&mut kept.scratch[..length], |bytes| {
        let (prepared, used) = understand(&arrival, space, bytes, exchange);
        (Some(prepared), used)
    });
    assert!(matches!(prepared, Some(Prepared::Forward)));
    kept.exchange.begin_attempt(&kept.timeouts, &kept.label, 0);
    let mut cx = Context::from_waker(Waker::noop());
    let end = loop {
        let mut desk = Desk {
            scratch: &mut kept.scratch,
            space: &mut kept.space,
            now: 0,
            closing: false,
        };
        let polled = kept
            .exchange
            .poll(&mut cx, client, &mut kept.intake.kept, backend, &mut desk);
        if let Poll::Ready(end) = polled {
            break end;
        }
    };
    assert_eq!(end, End::Complete);
    assert!(kept.exchange.backend_is_reusable());
    kept.exchange.clear();
}

#[test]
fn a_warm_request_takes_no_memory() {
    let _one = alone();
    let mut kept = Kept::new(64 << 10);
    let mut client = Side::new(REQUEST.to_vec(), false);
    let mut backend = Side::new([RESPONSE_HEAD, &[b'x'; 128]].concat(), true);
    let before_all = asked();
    let mut warm = before_all;
    for turn in 0..WARM + COUNTED {
        if turn == WARM {
            warm = asked();
        }
        walk(&mut kept, &mut client, &mut backend);
        assert!(client.told.ends_with(&[b'x'; 128]));
        assert!(
            backend
                .told
                .starts_with(b"GET /items/7?page=2 HTTP/1.1\r\n")
        );
        client.again();
        backend.again();
    }
    assert!(
        warm > before_all,
        "the first request grows its buffers, so the counter must have moved"
    );
    assert_eq!(asked() - warm, 0, "calls for memory in {COUNTED} requests");
}

/// One end of a connection that says a lot, claims to have room for anything, and takes as much as it is let.
struct Flood {
    says: Vec<u8>,
    read: usize,
    may_say: usize,
    takes: usize,
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let take = (self.may_say - self.read).min(buffer.remaining());
        if take == 0 {
            return Poll::Pending;
        }
        buffer.put_slice(&self.says[self.read..self.read + take]);
        self.read += take;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let take = bytes.len().min(self.takes);
        if take == 0 {
            return Poll::Pending;
        }
        self.takes -= take;
        Poll::Ready(Ok(take))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let take = parts.iter().map(|part| part.len()).sum::<usize>();
        let take = take.min(self.takes);
        if take == 0 {
            return Poll::Pending;
        }
        self.takes -= take;
        Poll::Ready(Ok(take))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Stream for Flood {
    fn send_room(&self) -> usize {
        usize::MAX
    }

    fn reset_on_close(&self) {}

    fn send_queue(&self) -> usize {
        0
    }

    fn peer_has_ended(&self) -> bool {
        false
    }
}

/// A head of nearly 32 KiB, what the log keeps at its longest, and a body in one chunk without an end.
fn flood_request() -> Vec<u8> {
    let mut head = format!(
        "POST /{} HTTP/1.1\r\nHost: a\r\nUser-Agent: {}\r\nReferer: {}\r\nTransfer-Encoding: chunked\r\n",
        "u".repeat(8000),
        "a".repeat(4000),
        "r".repeat(4000),
    );
    while head.len() < 31_000 {
        head += &format!("X-{}: {}\r\n", head.len(), "v".repeat(400));
    }
    head += "\r\n";
    flood(head)
}

/// A head of nearly 64 KiB and a body in one chunk without an end.
fn flood_response() -> Vec<u8> {
    let mut head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n".to_owned();
    while head.len() < 63_000 {
        head += &format!("X-{}: {}\r\n", head.len(), "v".repeat(400));
    }
    head += "\r\n";
    flood(head)
}

fn flood(head: String) -> Vec<u8> {
    let mut bytes = (head + "40000000\r\n").into_bytes();
    bytes.resize(16 << 20, b'x');
    bytes
}

/// Plays `steps`: for each, how many more bytes client and backend may say, and how many more they take. Returns what
/// was held at the most beyond what the worker holds.
fn most_held(steps: &[[usize; 4]]) -> usize {
    let mut kept = Kept::new(LARGEST_READ);
    let mut client = Flood {
        says: flood_request(),
        read: 0,
        may_say: 0,
        takes: 0,
    };
    let mut backend = Flood {
        says: flood_response(),
        read: 0,
        may_say: 0,
        takes: 0,
    };
    let before = held();
    watch_peak();
    // The head comes in pieces, the last of them with a part of the body.
    let mut prepared = None;
    while prepared.is_none() {
        let piece = &mut kept.scratch[..READ];
        piece.copy_from_slice(&client.says[client.read..client.read + READ]);
        client.read += READ;
        let arrival = Arrival {
            view: &kept.view,
            peer: "192.0.2.1".parse().ok(),
            now: Instant::now(),
            now_ms: 0,
            random: &kept.random,
            process: b"0123456789abcdef",
        };
        let (space, exchange) = (&mut kept.space, &mut kept.exchange);
        let mut take = |bytes: &mut [u8]| match understand(&arrival, space, bytes, exchange) {
            (Prepared::Incomplete, _) => (None, 0),
            (prepared, used) => (Some(prepared), used),
        };
        prepared = kept.intake.add(piece, &mut take);
        if prepared.is_none() {
            prepared = kept.intake.look(32 << 10, &mut take);
        }
    }
    assert!(matches!(prepared, Some(Prepared::Forward)));
    kept.exchange.begin_attempt(&kept.timeouts, &kept.label, 0);
    client.may_say = client.read;
    let mut cx = Context::from_waker(Waker::noop());
    for [client_says, backend_says, client_takes, backend_takes] in steps {
        client.may_say = (client.may_say + client_says).min(client.says.len());
        backend.may_say = (backend.may_say + backend_says).min(backend.says.len());
        client.takes = *client_takes;
        backend.takes = *backend_takes;
        let mut desk = Desk {
            scratch: &mut kept.scratch,
            space: &mut kept.space,
            now: 0,
            closing: false,
        };
        let polled = kept.exchange.poll(
            &mut cx,
            &mut client,
            &mut kept.intake.kept,
            &mut backend,
            &mut desk,
        );
        assert!(polled.is_pending(), "{polled:?}");
    }
    (peak() - before) as usize
}

#[test]
fn whatever_both_sides_do_a_connection_holds_less_than_a_mebibyte() {
    let _one = alone();
    const ALL: usize = 1 << 30;
    let answer = 64 << 10;
    let plays: [&[[usize; 4]]; 4] = [
        // Both take all for a while, then nothing; the backend's head comes while the client's body waits.
        &[
            [4 << 20, 0, 0, ALL],
            [ALL, 0, 0, 0],
            [0, 60_000, 0, 0],
            [0, ALL, 0, 0],
        ],
        // The answer is under way when its client takes nothing more, then the backend neither.
        &[
            [0, answer, ALL, ALL],
            [0, 4 << 20, ALL, ALL],
            [0, ALL, 0, ALL],
            [ALL, 0, 0, ALL],
            [ALL, 0, 0, 0],
        ],
        // The client takes nearly all of what is kept for it, and its buffer stays whole for the rest.
        &[
            [0, answer, ALL, ALL],
            [0, 4 << 20, ALL, ALL],
            [0, ALL, 0, ALL],
            [0, 0, 600 << 10, ALL],
            [4 << 20, 0, 0, ALL],
            [ALL, 0, 0, 0],
        ],
        // Both at once.
        &[
            [0, answer, ALL, ALL],
            [4 << 20, 4 << 20, ALL, ALL],
            [ALL, ALL, 0, 0],
        ],
    ];
    for steps in plays {
        let most = most_held(steps);
        println!("{} KiB", most >> 10);
        assert!(most > LARGEST_READ, "the case did not come about: {most}");
        assert!(most < 1 << 20, "{most}");
    }
}
