//! One connection of the load generator: connecting, sending a request, reading and checking its answer.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;

use super::http::Reader;
use super::{Load, Work};
use crate::poll::{self, Poll};

const SCRATCH: usize = 1024 * 1024;
/// What an upload sends at once.
const PIECE: usize = 256 * 1024;

/// Local ports and addresses of connections that serve one request, in turn: one address has too few ports for some
/// tens of thousands of connections a second whose ends rest in TIME_WAIT.
const PORTS: std::ops::Range<u16> = 10_000..60_000;
const ADDRESSES: u32 = 32;

thread_local! {
    static NEXT: std::cell::Cell<(u32, u16)> = const { std::cell::Cell::new((0, PORTS.start)) };
    static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; SCRATCH]);
}

/// What came of an event.
pub(super) enum Step {
    Waiting,
    /// Bytes of a stream without end.
    Bytes(u64),
    /// An answer is whole; its request counts from then.
    Done(Instant),
}

/// A connection.
pub(super) struct Client {
    number: usize,
    stream: Option<TcpStream>,
    /// When the request that is under way was due.
    since: Option<Instant>,
    /// How much of it has gone out.
    sent: usize,
    /// Bytes of a message that came back.
    back: usize,
    reader: Reader,
}

impl Client {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            stream: None,
            since: None,
            sent: 0,
            back: 0,
            reader: Reader::default(),
        }
    }

    pub(super) fn connect(&mut self, load: &Load, poll: &Poll) -> io::Result<()> {
        let stream = if load.work.reconnects() {
            connect_from_next(load.to)
        } else {
            poll::connect(load.to, None)
        };
        let stream = stream.map_err(|error| wrong(&format!("connecting: {error}")))?;
        poll.add(&stream, self.number, load.work.flags())?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Begins a request that was due at `since`.
    pub(super) fn begin(&mut self, load: &Load, poll: &Poll, since: Instant) -> io::Result<()> {
        if self.stream.is_none() {
            self.connect(load, poll)?;
        }
        self.since = Some(since);
        self.sent = 0;
        self.send(load)
    }

    fn send(&mut self, load: &Load) -> io::Result<()> {
        let message: &[u8] = match &load.work {
            Work::Http { requests, .. } => &requests[self.number % requests.len()],
            Work::PingPong(length) => &PATTERN[..*length],
            Work::Bulk | Work::Upload => return Ok(()),
        };
        let stream = self
            .stream
            .as_mut()
            .expect("a request begins on a connection");
        while self.sent < message.len() {
            match poll::attempt(stream.write(&message[self.sent..])) {
                Ok(Some(count)) => self.sent += count,
                Ok(None) => break,
                Err(error) => return Err(wrong(&format!("sending: {error}"))),
            }
        }
        Ok(())
    }

    /// Does what can be done now.
    pub(super) fn advance(&mut self, load: &Load, over: bool) -> io::Result<Step> {
        BUFFER.with_borrow_mut(|buffer| self.advance_with(load, over, buffer))
    }

    /// Whether a request is under way that was due so long ago.
    pub(super) fn waits_longer(&self, than: Duration) -> bool {
        self.since.is_some_and(|since| since.elapsed() > than)
    }

    fn advance_with(&mut self, load: &Load, over: bool, buffer: &mut [u8]) -> io::Result<Step> {
        if self.since.is_some() {
            self.send(load)?;
        }
        loop {
            let Some(stream) = &mut self.stream else {
                return Ok(Step::Waiting);
            };
            if let Work::Upload = load.work {
                let sent = poll::attempt(stream.write(&buffer[..PIECE]));
                let sent = sent.map_err(|error| wrong(&format!("sending: {error}")))?;
                return Ok(sent.map_or(Step::Waiting, |count| Step::Bytes(count as u64)));
            }
            // Bytes that are only counted are dropped by the kernel without being copied, which leaves the load core
            // more time for its own work.
            let unseen = match &load.work {
                Work::Bulk => SCRATCH,
                _ => self
                    .reader
                    .left()
                    .map_or(0, |left| left.min(SCRATCH as u64) as usize),
            };
            let asked = if unseen > 0 { unseen } else { SCRATCH };
            let read = if unseen > 0 {
                let received = rustix::net::recv(&*stream, &mut buffer[..unseen], RecvFlags::TRUNC);
                received.map(|(_, count)| count).map_err(io::Error::from)
            } else {
                stream.read(buffer)
            };
            let Some(count) =
                poll::attempt(read).map_err(|error| wrong(&format!("reading: {error}")))?
            else {
                return Ok(Step::Waiting);
            };
            if count == 0 {
                return Err(wrong("a connection ended early"));
            }
            let whole = match &load.work {
                Work::Bulk | Work::Upload => return Ok(Step::Bytes(count as u64)),
                Work::Http { .. } if unseen > 0 => self
                    .reader
                    .drop_body(count as u64)
                    .map_err(|text| wrong(&text))?,
                Work::Http { length, .. } => self
                    .reader
                    .take(&buffer[..count], *length)
                    .map_err(|text| wrong(&text))?,
                Work::PingPong(length) => {
                    if PATTERN
                        .get(self.back..self.back + count)
                        .is_none_or(|sent| sent != &buffer[..count])
                    {
                        return Err(wrong("other bytes came back than were sent"));
                    }
                    self.back = (self.back + count) % length;
                    self.back == 0
                }
            };
            if whole {
                let since = self
                    .since
                    .take()
                    .ok_or_else(|| wrong("an answer to no request"))?;
                if load.work.reconnects() {
                    self.stream = None;
                }
                return Ok(Step::Done(since));
            }
            if count < asked && !over {
                // The socket is empty; what comes later is a new event.
                return Ok(Step::Waiting);
            }
        }
    }
}

/// What ping-pong sends.
const PATTERN: [u8; 4096] = {
    let mut bytes = [0; 4096];
    let mut index = 0;
    while index < bytes.len() {
        bytes[index] = (index % 251) as u8;
        index += 1;
    }
    bytes
};

/// Connects from the next address and port that are free.
fn connect_from_next(to: SocketAddr) -> io::Result<TcpStream> {
    let mut last = io::Error::other("no free port");
    for _ in 0..100 {
        let (address, port) = NEXT.get();
        let next = if address + 1 < ADDRESSES {
            (address + 1, port)
        } else {
            (0, port + 1)
        };
        NEXT.set(if PORTS.contains(&next.1) {
            next
        } else {
            (0, PORTS.start)
        });
        let from = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + 1 + address);
        match poll::connect(to, Some(SocketAddr::from((from, port)))) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
                ) =>
            {
                last = error
            }
            result => return result,
        }
    }
    Err(last)
}

fn wrong(text: &str) -> io::Error {
    io::Error::other(text.to_owned())
}
