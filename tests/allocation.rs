//! What a connection takes of memory. A warm request takes none: a keep-alive GET with an answer of 128 bytes goes through
//! the program's own data plane and the allocator is not called once. And the worst that both sides together can make a
//! connection hold stays under 1 MiB.
//!
//! The connections are in memory and allocate nothing themselves. Counters of the thread's own tell, so that other threads
//! of the test program do not matter.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use lbproxy::internals::model::address::SocketAddress;
use lbproxy::internals::proxy::read_size::{LARGEST_READ, SMALL_READ as READ};
use lbproxy::internals::transport::{Connector, DialError, EndName, Stream};
use lbproxy::internals::{InMemory, Process};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::alone;
use crate::counting::{asked, held, peak, watch_peak};

const FILE: &str = r#"
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

/// What stands at the other end of a connection.
#[derive(Default)]
struct Side {
    says: Vec<u8>,
    read: usize,
    may_say: usize,
    /// What it was told, as far as that is kept.
    told: Vec<u8>,
    keeps: bool,
    takes: usize,
    /// Says nothing before it is told something, as a backend does.
    waits: bool,
}

impl Side {
    /// Says all of this each time, takes everything, and keeps it.
    fn repeating(says: Vec<u8>, waits: bool) -> Self {
        Self {
            may_say: says.len(),
            says,
            told: Vec::with_capacity(16 << 10),
            keeps: true,
            takes: usize::MAX,
            waits,
            ..Self::default()
        }
    }

    /// Says as much of this as it may, and takes as much as it must.
    fn flooding(says: Vec<u8>) -> Self {
        Self {
            says,
            ..Self::default()
        }
    }

    fn again(&mut self) {
        self.read = 0;
        self.told.clear();
    }

    fn poll_read(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let take = (self.may_say - self.read).min(buffer.remaining());
        if take == 0 || self.waits && self.told.is_empty() {
            return Poll::Pending;
        }
        buffer.put_slice(&self.says[self.read..self.read + take]);
        self.read += take;
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let take = length.min(self.takes);
        if take == 0 {
            return Poll::Pending;
        }
        if self.keeps {
            parts
                .iter()
                .for_each(|part| self.told.extend_from_slice(part));
        } else {
            self.takes -= take;
        }
        Poll::Ready(Ok(take))
    }
}

/// The program's end of a connection.
struct End(Rc<RefCell<Side>>);

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
        self.0.borrow_mut().poll_write(&[IoSlice::new(bytes)])
    }

    // A socket takes all parts of a small write at once; one that took the first alone would make the rest be kept.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(parts)
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

impl Stream for End {
    /// It claims to have room for anything.
    fn send_room(&self) -> usize {
        usize::MAX
    }

    fn send_queue(&self) -> usize {
        0
    }

    fn reset_on_close(&self) {}

    fn peer_has_ended(&self) -> bool {
        false
    }

    fn is_idle(&self) -> bool {
        true
    }

    fn seems_idle(&self) -> bool {
        true
    }

    fn peer_name(&self) -> Option<EndName> {
        None
    }
}

/// Connects to the one backend.
struct Backend(Rc<RefCell<Side>>);

impl Connector for Backend {
    type Stream = End;
    type Named = ();

    async fn connect(&self, _: &SocketAddress) -> Result<End, DialError> {
        Ok(End(Rc::clone(&self.0)))
    }

    fn bind(&self, _: &SocketAddress) -> Option<((), EndName)> {
        None
    }

    async fn connect_named(&self, (): ()) -> Result<End, DialError> {
        unreachable!("nothing is bound")
    }
}

/// A client's connection that is being served.
struct Served {
    client: Rc<RefCell<Side>>,
    backend: Rc<RefCell<Side>>,
    future: Pin<Box<dyn Future<Output = ()>>>,
    _worker: InMemory<Backend>,
}

impl Served {
    fn new(client: Side, backend: Side) -> Self {
        let [client, backend] = [client, backend].map(|side| Rc::new(RefCell::new(side)));
        let worker = InMemory::new(&Process::new(FILE), Backend(Rc::clone(&backend)), 1);
        let peer = "192.0.2.1:1000".parse().expect("an address");
        Self {
            future: worker.serve(End(Rc::clone(&client)), peer),
            client,
            backend,
            _worker: worker,
        }
    }

    /// Lets the program do what it can.
    fn run(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(
            self.future.as_mut().poll(&mut cx).is_pending(),
            "it has ended"
        );
    }
}

#[test]
fn a_warm_request_takes_no_memory() {
    let _alone = alone();
    let client = Side::repeating(REQUEST.to_vec(), false);
    let backend = Side::repeating([RESPONSE_HEAD, &[b'x'; 128]].concat(), true);
    let mut served = Served::new(client, backend);
    let before_all = asked();
    let mut warm = before_all;
    for turn in 0..WARM + COUNTED {
        if turn == WARM {
            warm = asked();
        }
        served.run();
        let (mut client, mut backend) = (served.client.borrow_mut(), served.backend.borrow_mut());
        assert!(client.told.ends_with(&[b'x'; 128]));
        let line = b"GET /items/7?page=2 HTTP/1.1\r\n";
        assert!(backend.told.starts_with(line));
        client.again();
        backend.again();
    }
    assert!(
        warm > before_all,
        "the first request grows its buffers, so the counter must have moved"
    );
    assert_eq!(asked() - warm, 0, "calls for memory in {COUNTED} requests");
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
    let client = Side::flooding(flood_request());
    let backend = Side::flooding(flood_response());
    let mut served = Served::new(client, backend);
    let before = held();
    watch_peak();
    // The head comes in pieces, the last of them with a part of the body.
    for _ in 0..2 {
        served.client.borrow_mut().may_say += READ;
        served.run();
    }
    for [client_says, backend_says, client_takes, backend_takes] in steps {
        let (mut client, mut backend) = (served.client.borrow_mut(), served.backend.borrow_mut());
        client.may_say = (client.may_say + client_says).min(client.says.len());
        backend.may_say = (backend.may_say + backend_says).min(backend.says.len());
        client.takes = *client_takes;
        backend.takes = *backend_takes;
        drop((client, backend));
        served.run();
    }
    (peak() - before) as usize
}

#[test]
fn whatever_both_sides_do_a_connection_holds_less_than_a_mebibyte() {
    let _alone = alone();
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
