//! A keep-alive load generator that counts everything it sees.
//!
//! Every request has a target of its own and, against [`super::backend::Backend`]'s default answer, checks that the
//! answer is its own. A request fails if the connection fails, the answer is cut or not its own, or the status is 500
//! or above. A connection that the other side closes between requests is counted apart and opened again.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::message::head_length;
use super::runtime;

/// What to send.
#[derive(Clone)]
pub struct Load {
    addr: SocketAddr,
    connections: u64,
    rate: Option<u64>,
    total: u64,
    path: String,
    fields: Arc<dyn Fn(u64) -> String + Send + Sync>,
}

/// What was seen.
#[derive(Debug, Default, Clone)]
pub struct Report {
    /// Requests answered with less than 500, whole and their own.
    pub ok: u64,
    /// All others.
    pub failed: u64,
    /// Connections that the other side closed, or said it would close.
    pub closed: u64,
    /// Connections opened.
    pub opened: u64,
    /// Answers by status.
    pub by_status: BTreeMap<u16, u64>,
    /// Answers by backend.
    pub by_backend: BTreeMap<String, u64>,
    /// Bytes sent and received.
    pub bytes: (u64, u64),
    /// The first errors of each connection, and its closes.
    pub errors: Vec<String>,
    /// Backend of each request, if a test asks for it by [`Load::run_in_order`].
    pub order: Vec<String>,
}

impl Report {
    /// Panics unless every request was answered and no connection was closed.
    #[track_caller]
    pub fn assert_flawless(&self) {
        assert_eq!((self.failed, self.closed), (0, 0), "{self:#?}");
    }

    /// Answers of one backend.
    pub fn of(&self, backend: impl AsRef<str>) -> u64 {
        self.by_backend.get(backend.as_ref()).copied().unwrap_or(0)
    }

    fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.closed += other.closed;
        self.opened += other.opened;
        self.bytes.0 += other.bytes.0;
        self.bytes.1 += other.bytes.1;
        for (status, n) in other.by_status {
            *self.by_status.entry(status).or_default() += n;
        }
        for (backend, n) in other.by_backend {
            *self.by_backend.entry(backend).or_default() += n;
        }
        self.errors.extend(other.errors);
        self.order.extend(other.order);
    }
}

/// A load that runs until it is told to stop or has sent everything.
pub struct Running {
    tasks: JoinSet<Report>,
    shared: Arc<Shared>,
}

struct Shared {
    stop: AtomicBool,
    next: AtomicU64,
    done: AtomicU64,
}

impl Load {
    /// A closed loop of 8 connections without end.
    pub fn to(addr: SocketAddr) -> Self {
        Self {
            addr,
            connections: 8,
            rate: None,
            total: u64::MAX,
            path: "/load".to_owned(),
            fields: Arc::new(|_| String::new()),
        }
    }

    /// So many connections.
    pub fn connections(mut self, n: u64) -> Self {
        self.connections = n;
        self
    }

    /// So many requests a second, spread evenly over the connections; one that is late is sent at once.
    pub fn rate(mut self, per_second: u64) -> Self {
        self.rate = Some(per_second);
        self
    }

    /// So many requests in all.
    pub fn total(mut self, n: u64) -> Self {
        self.total = n;
        self
    }

    /// Begin of each target; the number of the request follows.
    pub fn path(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self
    }

    /// More fields (lines with CRLF) for the request with this number.
    pub fn fields(mut self, f: impl Fn(u64) -> String + Send + Sync + 'static) -> Self {
        self.fields = Arc::new(f);
        self
    }

    /// Starts.
    pub fn start(self) -> Running {
        self.launch(false)
    }

    /// Sends everything and reports.
    pub fn run(self) -> Report {
        self.launch(false).finish()
    }

    /// Sends everything on one connection and reports the backends in order.
    pub fn run_in_order(self) -> Report {
        self.connections(1).launch(true).finish()
    }

    fn launch(self, order: bool) -> Running {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            next: AtomicU64::new(0),
            done: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        for i in 0..self.connections {
            let sender = Sender {
                load: self.clone(),
                shared: Arc::clone(&shared),
                report: Report::default(),
                stream: None,
                buffer: Vec::with_capacity(16 << 10),
                order,
            };
            tasks.spawn_on(sender.run(i), runtime().handle());
        }
        Running { tasks, shared }
    }
}

impl Running {
    /// Requests answered or failed so far.
    pub fn done(&self) -> u64 {
        self.shared.done.load(Relaxed)
    }

    /// Sends nothing new, waits for what is under way and reports.
    pub fn stop(self) -> Report {
        self.shared.stop.store(true, Relaxed);
        self.finish()
    }

    /// Waits until everything has been sent and reports.
    pub fn finish(self) -> Report {
        let reports = runtime().block_on(self.tasks.join_all());
        reports.into_iter().fold(Report::default(), |mut all, one| {
            all.add(one);
            all
        })
    }
}

struct Sender {
    load: Load,
    shared: Arc<Shared>,
    report: Report,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    order: bool,
}

/// An answer, as far as a load generator looks.
struct Answer {
    status: u16,
    backend: String,
    closes: bool,
    own: bool,
}

impl Sender {
    async fn run(mut self, place: u64) -> Report {
        let mut ticks = self.load.rate.map(|rate| {
            let period = Duration::from_secs_f64(self.load.connections as f64 / rate as f64);
            let offset = period.mul_f64(place as f64 / self.load.connections as f64);
            let mut ticks = tokio::time::interval_at(Instant::now() + offset, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            ticks
        });
        loop {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
            if self.shared.stop.load(Relaxed) {
                return self.report;
            }
            let number = self.shared.next.fetch_add(1, Relaxed);
            if number >= self.load.total {
                return self.report;
            }
            let result = tokio::time::timeout(super::wait::PATIENCE, self.request(number)).await;
            let result = result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            self.record(number, result);
            self.shared.done.fetch_add(1, Relaxed);
        }
    }

    fn record(&mut self, number: u64, result: io::Result<Answer>) {
        let report = &mut self.report;
        match result {
            Ok(answer) => {
                *report.by_status.entry(answer.status).or_default() += 1;
                if self.order {
                    report.order.push(answer.backend.clone());
                }
                *report.by_backend.entry(answer.backend).or_default() += 1;
                if answer.status >= 500 || !answer.own {
                    report.failed += 1;
                    let (status, own) = (answer.status, answer.own);
                    let text = format!("request {number}: status {status}, own answer: {own}");
                    report.errors.push(text);
                    report.errors.truncate(5);
                } else {
                    report.ok += 1;
                }
                if answer.closes {
                    report.closed += 1;
                    let text = format!("request {number}: the answer says close");
                    report.errors.push(text);
                    self.stream = None;
                }
            }
            Err(e) => {
                report.failed += 1;
                report.errors.push(format!("request {number}: {e}"));
                report.errors.truncate(5);
                self.stream = None;
            }
        }
    }

    async fn request(&mut self, number: u64) -> io::Result<Answer> {
        self.connect(number).await?;
        let stream = self.stream.as_mut().unwrap();
        let target = format!("{}{number}", self.load.path);
        let fields = (self.load.fields)(number);
        let request = format!("GET {target} HTTP/1.1\r\nhost: load\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await?;
        self.report.bytes.0 += request.len() as u64;
        self.buffer.clear();
        let length = loop {
            if let Some(length) = head_length(&self.buffer) {
                break length;
            }
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::other("closed before the answer"));
            }
        };
        let head = std::str::from_utf8(&self.buffer[..length]).map_err(io::Error::other)?;
        let status = head.get(9..12).and_then(|s| s.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("no status"))?;
        let field = |name: &str| {
            head.lines().skip(1).find_map(|line| {
                let (n, v) = line.split_once(':')?;
                n.eq_ignore_ascii_case(name).then(|| v.trim().to_owned())
            })
        };
        let body: usize = field("content-length")
            .and_then(|v| v.parse().ok())
            .ok_or_else(|| io::Error::other("no length"))?;
        let backend = field("x-backend").unwrap_or_default();
        let closes = field("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        while self.buffer.len() < length + body {
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::other("cut in the body"));
            }
        }
        self.report.bytes.1 += self.buffer.len() as u64;
        let expected = format!("{backend} {target}");
        let own = backend.is_empty() || self.buffer[length..] == *expected.as_bytes();
        Ok(Answer {
            status,
            backend,
            closes,
            own,
        })
    }

    /// Looks whether the connection is still there, and opens one if not.
    async fn connect(&mut self, number: u64) -> io::Result<()> {
        if let Some(stream) = &self.stream {
            match stream.try_read(&mut [0]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Ok(n) if n > 0 => return Err(io::Error::other("bytes that nobody asked for")),
                end => {
                    self.report.closed += 1;
                    let text = format!("before request {number}: closed ({end:?})");
                    self.report.errors.push(text);
                }
            }
        }
        let stream = TcpStream::connect(self.load.addr).await?;
        stream.set_nodelay(true)?;
        self.report.opened += 1;
        self.stream = Some(stream);
        Ok(())
    }
}
