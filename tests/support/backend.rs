//! Sample HTTP backends on loopback, whose every byte can be scripted.
//!
//! Each has an id, which it tells in `x-backend` and in its body, and counts what reaches it. By default it answers
//! `ID TARGET`, so that a client notices an answer that belongs to another request. Written without an HTTP library,
//! so that a backend can also be wrong.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::message::Fields;
use super::port::{self, Port};
use super::runtime;
use super::serve::accept;

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
    /// Opens the gate: what came before is done.
    Open(Gate),
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
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) delay: Option<Duration>,
    pub(super) gate: Option<Gate>,
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

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is open.
    pub(super) async fn pass(&self) {
        let mut receiver = self.0.subscribe();
        receiver.wait_for(|open| *open).await.unwrap();
    }
}

type Behaviour = Arc<dyn Fn(&Request) -> Action + Send + Sync>;

/// What the backend and its connections share.
pub(super) struct Shared {
    pub(super) id: String,
    /// Tells the address that was connected to instead of the id: one socket that stands for many backends.
    pub(super) id_is_address: bool,
    pub(super) requests: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) open: AtomicU64,
    pub(super) record: AtomicBool,
    pub(super) recorded: Mutex<Vec<Request>>,
    pub(super) behaviour: RwLock<Option<Behaviour>>,
}

/// A running backend; its connections end with it.
pub struct Backend {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    _port: Option<Port>,
    send_buffer: Option<usize>,
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
        Self::make(port.addr, Some(port), id, false, None)
    }

    /// On a free port of 127.0.0.1, with sockets that keep only about so many bytes for a peer that does not read:
    /// thousands of answers that wait must not use up what the kernel has for all.
    pub fn start_with_send_buffer(id: &str, bytes: usize) -> Self {
        let port = Port::reserve("127.0.0.1");
        Self::make(port.addr, Some(port), id, false, Some(bytes))
    }

    /// On an address whose port another process has reserved for us.
    pub fn start_at(addr: SocketAddr, id: &str) -> Self {
        Self::make(addr, None, id, false, None)
    }

    /// On a free port of all IPv4 addresses; its id is the address that was connected to.
    pub fn start_on_all() -> Self {
        let port = Port::reserve("0.0.0.0");
        Self::make(port.addr, Some(port), "", true, None)
    }

    fn make(
        addr: SocketAddr,
        port: Option<Port>,
        id: &str,
        id_is_address: bool,
        send_buffer: Option<usize>,
    ) -> Self {
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
            send_buffer,
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
            if let Some(bytes) = self.send_buffer {
                // What it accepts inherits it (socket(7)).
                let buffer = socket2::SockRef::from(&listener).set_send_buffer_size(bytes);
                buffer.unwrap();
            }
            let (stop, stopped) = oneshot::channel();
            let task = runtime().spawn(accept(listener, Arc::clone(&self.shared), stopped));
            *running = Some((stop, task));
        }
    }

    /// Closes the listening socket and every connection; from then on connections are refused.
    pub fn down(&self) {
        // A test that has panicked must not panic again in a destructor.
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((stop, task)) = running {
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
