//! The load generator: one thread, one epoll instance, any number of connections.
//!
//! - Closed loop: `in_flight` requests are always under way. With fewer of them than connections, each next request
//!   takes the connection that has been quiet longest, so most connections are quiet at any moment.
//! - Open loop: requests fall due at a fixed rate, whatever the answers do. A latency counts from the moment at which
//!   its request was due, not from when it could be sent, so a proxy that stalls is charged for all that waited
//!   (no coordinated omission).
//!
//! It serves the backends in turns with its own connections and never sleeps (see [`backend`](crate::backend)).
//! Every answer is checked; a wrong one, or a connection that ends early, ends the run with an error. Only what
//! completes in the window after the warm-up is counted, and the caller is called at both edges of it.
//! HTTP/2 and TLS would be two more kinds of [`Work`] here and two more kinds of backend; lbproxy speaks neither yet.

mod client;
mod histogram;
mod http;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use self::client::{Client, Step};
use self::histogram::Histogram;
use crate::backend::Backends;
use crate::poll::{BOTH_WAYS, EventFlags, Poll};

/// What a connection does.
#[derive(Clone)]
pub(crate) enum Work {
    /// Requests whose answers have `length` bytes; connection n sends request n modulo their number. With `reconnect`
    /// each goes over a new connection, which the client closes after the answer.
    Http {
        requests: Vec<Vec<u8>>,
        length: u64,
        reconnect: bool,
    },
    /// A message of that many bytes, and the same back.
    PingPong(usize),
    /// Reads whatever comes, without end.
    Bulk,
    /// Sends without end.
    Upload,
}

/// When requests begin.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    Closed { in_flight: usize },
    Open { per_second: f64 },
}

/// A load.
pub(crate) struct Load {
    pub to: SocketAddr,
    pub work: Work,
    pub connections: usize,
    pub pace: Pace,
    pub warm_up: Duration,
    pub window: Duration,
}

/// What came of it, in the window.
pub(crate) struct Outcome {
    pub window: Duration,
    /// Requests or exchanges answered.
    pub done: u64,
    /// Bytes read or sent (bulk only).
    pub bytes: u64,
    pub latency: Histogram,
    /// Requests that were due at the end of the window and had not been begun.
    pub behind: usize,
}

/// An edge of the window.
#[derive(Clone, Copy)]
pub(crate) enum Edge {
    Begin,
    End,
}

impl Load {
    /// Runs it. Takes `warm_up` and `window` in all, however the other side behaves.
    pub(crate) fn run(
        &self,
        backends: &Backends,
        at_edge: &mut dyn FnMut(Edge) -> io::Result<()>,
    ) -> io::Result<Outcome> {
        let mut backends = backends.take();
        let mut poll = Poll::new()?;
        let mut clients = Vec::with_capacity(self.connections);
        for number in 0..self.connections {
            let mut client = Client::new(number);
            if !self.work.reconnects() {
                client.connect(self, &poll)?;
            }
            clients.push(client);
        }
        let mut quiet: VecDeque<usize> = (0..self.connections).collect();
        let mut due: VecDeque<Instant> = VecDeque::new();
        let start = Instant::now();
        let (begin, end) = (start + self.warm_up, start + self.warm_up + self.window);
        let mut next = start;
        let interval = match self.pace {
            Pace::Closed { in_flight } => {
                due.extend(std::iter::repeat_n(start, in_flight));
                None
            }
            Pace::Open { per_second } => Some(Duration::from_secs_f64(1.0 / per_second)),
        };
        let mut outcome = Outcome {
            window: Duration::ZERO,
            done: 0,
            bytes: 0,
            latency: Histogram::new(),
            behind: 0,
        };
        let mut counted_from = None;
        let mut now = start;
        loop {
            if counted_from.is_none() && now >= begin {
                at_edge(Edge::Begin)?;
                counted_from = Some(Instant::now());
            }
            if now >= end {
                break;
            }
            if let Some(interval) = interval {
                while next <= now {
                    due.push_back(next);
                    next += interval;
                }
            }
            while let (Some(since), Some(number)) = (due.front().copied(), quiet.front().copied()) {
                due.pop_front();
                quiet.pop_front();
                clients[number].begin(self, &poll, since)?;
            }
            backends.turn()?;
            let count = poll.wait(Some(Duration::ZERO))?;
            for index in 0..count {
                let (number, over) = poll.event(index);
                match clients[number].advance(self, over)? {
                    Step::Waiting => {}
                    Step::Bytes(count) => {
                        outcome.bytes += if counted_from.is_some() { count } else { 0 };
                    }
                    Step::Done(since) => {
                        let finished = Instant::now();
                        if counted_from.is_some() {
                            outcome.done += 1;
                            outcome.latency.record(finished - since);
                        }
                        quiet.push_back(number);
                        if interval.is_none() {
                            // The next one begins at once, on the connection that has been quiet longest.
                            let number = quiet.pop_front().expect("one was just put there");
                            clients[number].begin(self, &poll, finished)?;
                        }
                    }
                }
            }
            now = Instant::now();
        }
        at_edge(Edge::End)?;
        let patience = Duration::from_secs(1).max(self.window / 2);
        let answers = interval.is_none() && !self.work.is_endless();
        if answers && clients.iter().any(|client| client.waits_longer(patience)) {
            return Err(io::Error::other(format!(
                "a request had no answer for {patience:?}"
            )));
        }
        outcome.window = counted_from.map_or(Duration::ZERO, |from| from.elapsed());
        outcome.behind = due.len();
        Ok(outcome)
    }

    /// One request on a connection of its own, to see whether the other side is ready.
    pub(crate) fn once(to: SocketAddr, work: &Work) -> io::Result<()> {
        let load = Self {
            to,
            work: work.clone(),
            connections: 1,
            pace: Pace::Closed { in_flight: 1 },
            warm_up: Duration::ZERO,
            window: Duration::from_secs(1),
        };
        let mut poll = Poll::new()?;
        let mut client = Client::new(0);
        if !work.reconnects() {
            client.connect(&load, &poll)?;
        }
        let end = Instant::now() + load.window;
        client.begin(&load, &poll, Instant::now())?;
        while Instant::now() < end {
            if poll.wait(Some(end.saturating_duration_since(Instant::now())))? > 0
                && !matches!(client.advance(&load, true)?, Step::Waiting)
            {
                return Ok(());
            }
        }
        Err(io::Error::other("no answer within a second"))
    }
}

impl Work {
    pub(crate) fn get(path: &str, length: u64) -> Self {
        Self::Http {
            requests: vec![request(path, "")],
            length,
            reconnect: false,
        }
    }

    fn reconnects(&self) -> bool {
        matches!(
            self,
            Self::Http {
                reconnect: true,
                ..
            }
        )
    }

    fn flags(&self) -> EventFlags {
        // Without an end, one read or write for an event, so that each connection gets its turn.
        match self {
            Self::Bulk => EventFlags::IN,
            Self::Upload => EventFlags::OUT,
            Self::Http { .. } | Self::PingPong(_) => BOTH_WAYS,
        }
    }

    fn is_endless(&self) -> bool {
        matches!(self, Self::Bulk | Self::Upload)
    }
}

/// A request as clients of this size send it, with one more field line if that is not empty.
pub(crate) fn request(path: &str, field: &str) -> Vec<u8> {
    let end = if field.is_empty() { "" } else { "\r\n" };
    format!("GET {path} HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nAccept: */*\r\n{field}{end}\r\n").into_bytes()
}
