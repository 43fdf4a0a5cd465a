//! The backends: one epoll instance, and as many listening sockets as backends are wanted.
//!
//! They are served by a thread of their own, but while a load runs by its thread, in turns with the clients
//! ([`Backends::take`]): neither ever sleeps then. A peer across a network costs a proxy no waking, and here it must
//! cost none either, else a proxy pays for every moment in which its peers had nothing to do, and the slower it is the
//! more of them there are.
//!
//! - `http`: HTTP/1.1 with keep-alive. The last part of the path is the length of the body: `/128`, `/a/b/65536`. Only
//!   requests without a body are understood; nothing else comes here.
//! - `echo`: sends back what it gets.
//! - `source`: sends without end.
//! - `sink`: takes without end.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread::{self, Thread};
use std::time::Duration;

use rustix::net::RecvFlags;

use crate::poll::{self, BOTH_WAYS, EventFlags, Numbered, Poll};

/// How many HTTP backends there are, and how many of each other kind.
pub(crate) const HTTP: usize = 50;
const TCP: usize = 2;

const SCRATCH: usize = 256 * 1024;
/// Writes of a source in one turn, so that each gets its turn.
const TURN: usize = 8;
/// How long the thread waits for events before it looks whether it may go on.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Http,
    Echo,
    Source,
    Sink,
}

/// Where they listen.
#[derive(Default)]
pub(crate) struct Addresses {
    pub http: Vec<SocketAddr>,
    pub echo: Vec<SocketAddr>,
    pub source: Vec<SocketAddr>,
    pub sink: Vec<SocketAddr>,
    /// A port of every loopback address; none where the loopback device cannot be bound to.
    pub everywhere: Option<u16>,
}

/// The backends of a whole run. They end with the program.
pub(crate) struct Backends {
    pub addresses: Addresses,
    shared: Arc<Shared>,
    thread: Thread,
}

struct Shared {
    crew: Mutex<Crew>,
    /// Another thread serves them.
    taken: AtomicBool,
}

/// The right and the duty to serve the backends; their own thread goes on when it is dropped.
pub(crate) struct Taken<'a> {
    crew: MutexGuard<'a, Crew>,
    backends: &'a Backends,
}

impl Backends {
    pub(crate) fn start() -> io::Result<Self> {
        let (send, receive) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("backends".to_owned())
            .spawn(move || {
                let (crew, addresses) = match Crew::new() {
                    Ok(made) => made,
                    Err(error) => return drop(send.send(Err(error))),
                };
                let shared = Arc::new(Shared {
                    crew: Mutex::new(crew),
                    taken: AtomicBool::new(false),
                });
                if send.send(Ok((addresses, Arc::clone(&shared)))).is_ok() {
                    serve(&shared);
                }
            })?;
        let started = receive.recv().map_err(io::Error::other)?;
        let (addresses, shared) = started?;
        Ok(Self {
            addresses,
            shared,
            thread: thread.thread().clone(),
        })
    }

    pub(crate) fn take(&self) -> Taken<'_> {
        self.shared.taken.store(true, Ordering::SeqCst);
        Taken {
            crew: self.shared.crew.lock().expect("nothing panics with it"),
            backends: self,
        }
    }
}

impl Taken<'_> {
    /// Does what can be done now.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        self.crew.turn(Duration::ZERO)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.backends.shared.taken.store(false, Ordering::SeqCst);
        self.backends.thread.unpark();
    }
}

fn serve(shared: &Shared) {
    loop {
        if shared.taken.load(Ordering::SeqCst) {
            thread::park();
            continue;
        }
        let turn = shared
            .crew
            .lock()
            .expect("nothing panics with it")
            .turn(LOOK);
        if let Err(error) = turn {
            return eprintln!("peers: the backends have ended: {error}");
        }
    }
}

struct Connection {
    stream: TcpStream,
    kind: Kind,
    /// The beginning of a request whose end has not come.
    begun: Vec<u8>,
    /// What has to go out, and how much of it went.
    answer: Option<(Arc<[u8]>, usize)>,
}

struct Crew {
    poll: Poll,
    listeners: Vec<(Kind, TcpListener)>,
    connections: Numbered<Connection>,
    /// There is more to do for them at once.
    again: Vec<(usize, bool)>,
    means: Means,
}

struct Means {
    scratch: Vec<u8>,
    answers: HashMap<usize, Arc<[u8]>>,
    endless: Arc<[u8]>,
}

impl Crew {
    fn new() -> io::Result<(Self, Addresses)> {
        let mut listeners = Vec::new();
        let mut ports = |kind, count| -> io::Result<Vec<SocketAddr>> {
            (0..count)
                .map(|_| {
                    let listener = poll::listen(false)?;
                    let port = listener.local_addr()?.port();
                    listeners.push((kind, listener));
                    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
                })
                .collect()
        };
        let mut addresses = Addresses {
            http: ports(Kind::Http, HTTP)?,
            echo: ports(Kind::Echo, TCP)?,
            source: ports(Kind::Source, TCP)?,
            sink: ports(Kind::Sink, TCP)?,
            everywhere: None,
        };
        if let Ok(listener) = poll::listen(true) {
            addresses.everywhere = Some(listener.local_addr()?.port());
            listeners.push((Kind::Http, listener));
        }
        let poll = Poll::new()?;
        for (number, (_, listener)) in listeners.iter().enumerate() {
            poll.add(listener, number, EventFlags::IN)?;
        }
        let crew = Self {
            poll,
            listeners,
            connections: Numbered::new(),
            again: Vec::new(),
            means: Means {
                scratch: vec![0; SCRATCH],
                answers: HashMap::new(),
                endless: vec![b's'; SCRATCH].into(),
            },
        };
        Ok((crew, addresses))
    }

    fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = if self.again.is_empty() {
            timeout
        } else {
            Duration::ZERO
        };
        let count = self.poll.wait(Some(timeout))?;
        let mut ready = std::mem::take(&mut self.again);
        for index in 0..count {
            let (number, over) = self.poll.event(index);
            if let Some(number) = number.checked_sub(self.listeners.len()) {
                ready.push((number, over));
            } else {
                self.accept(number)?;
            }
        }
        for (number, over) in ready {
            let Some(connection) = self.connections.get(number) else {
                continue;
            };
            match self.means.advance(connection, over) {
                Ok(true) => self.again.push((number, true)),
                Ok(false) => {}
                // Clients leave as they please.
                Err(_) => drop(self.connections.remove(number)),
            }
        }
        Ok(())
    }

    fn accept(&mut self, listener: usize) -> io::Result<()> {
        let (kind, listener) = &self.listeners[listener];
        while let Some(stream) = poll::accept(listener)? {
            let number = self.connections.insert(Connection {
                stream,
                kind: *kind,
                begun: Vec::new(),
                answer: None,
            });
            let stream = &self.connections.get(number).expect("just put there").stream;
            self.poll
                .add(stream, number + self.listeners.len(), BOTH_WAYS)?;
        }
        Ok(())
    }
}

impl Means {
    /// Does what can be done now. `true`: there is more to do at once. An error: the connection is over.
    fn advance(&mut self, connection: &mut Connection, over: bool) -> io::Result<bool> {
        match connection.kind {
            Kind::Source => return self.pour(connection),
            Kind::Sink => return self.swallow(connection),
            Kind::Http | Kind::Echo => {}
        }
        loop {
            if !flush(connection)? {
                return Ok(false);
            }
            let Some(count) = poll::attempt(connection.stream.read(&mut self.scratch))? else {
                return Ok(false);
            };
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let bytes = &self.scratch[..count];
            if connection.kind == Kind::Echo {
                let written = poll::attempt(connection.stream.write(bytes))?.unwrap_or(0);
                if written < count {
                    connection.answer = Some((bytes[written..].into(), 0));
                }
            } else if connection.begun.is_empty() && bytes.ends_with(b"\r\n\r\n") {
                connection.answer = Some((answer(&mut self.answers, bytes)?, 0));
            } else {
                connection.begun.extend_from_slice(bytes);
                if connection.begun.ends_with(b"\r\n\r\n") {
                    connection.answer = Some((answer(&mut self.answers, &connection.begun)?, 0));
                    connection.begun.clear();
                }
            }
            if count < SCRATCH && !over {
                // Nothing more is there now; what comes later is a new event.
                flush(connection)?;
                return Ok(false);
            }
        }
    }

    fn pour(&self, connection: &mut Connection) -> io::Result<bool> {
        for _ in 0..TURN {
            if connection.answer.is_none() {
                connection.answer = Some((Arc::clone(&self.endless), 0));
            }
            if !flush(connection)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn swallow(&mut self, connection: &Connection) -> io::Result<bool> {
        for _ in 0..TURN {
            // Dropped by the kernel without being copied.
            let received =
                rustix::net::recv(&connection.stream, &mut self.scratch[..], RecvFlags::TRUNC);
            match poll::attempt(received.map(|(_, count)| count).map_err(io::Error::from))? {
                None => return Ok(false),
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(_) => {}
            }
        }
        Ok(true)
    }
}

/// Sends what has to go out; `true` if all of it went.
fn flush(connection: &mut Connection) -> io::Result<bool> {
    while let Some((bytes, sent)) = &mut connection.answer {
        match poll::attempt(connection.stream.write(&bytes[*sent..]))? {
            None => return Ok(false),
            Some(count) => *sent += count,
        }
        if *sent == bytes.len() {
            connection.answer = None;
        }
    }
    Ok(true)
}

/// The answer to one request, made once for each length.
fn answer(answers: &mut HashMap<usize, Arc<[u8]>>, request: &[u8]) -> io::Result<Arc<[u8]>> {
    let mut words = request.split(|byte| *byte == b' ');
    let path = words.nth(1).unwrap_or_default();
    let last = path.rsplit(|byte| *byte == b'/').next();
    let length = last
        .and_then(|last| std::str::from_utf8(last).ok())
        .and_then(|last| last.parse().ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    let made = answers.entry(length).or_insert_with(|| {
        let mut bytes = format!(
            "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
        )
        .into_bytes();
        bytes.resize(bytes.len() + length, b'x');
        bytes.into()
    });
    Ok(Arc::clone(made))
}
