//! The backend of the request cases: records every byte that reaches it and answers what is a request to its
//! strictest reader.
//!
//! It has one door for each cluster. A whole request gets 200 and a short body. One with an Upgrade is held until the
//! runner lets it go, so that bytes which did not wait for its answer are seen; then it gets 101 if its path begins
//! with `/101`, and from then on bytes are recorded as they are. Anything that comes behind a request before its
//! answer is a fault: a connection carries one request at a time. Each answer carries the serial number of its
//! request, so that a client can tell an answer that belongs to another.

use std::net::{SocketAddr, TcpListener};

use super::answers::BODILESS;
use super::bytes::show;
use super::reader::{self, Request};
use super::wire::Wire;

/// The field with the serial number.
pub const SERIAL: &str = "x-serial";

/// The backend.
pub struct Recorder {
    doors: Vec<(&'static str, TcpListener)>,
    connections: Vec<Connection>,
    requests: Vec<Recorded>,
    serial: u64,
}

/// A whole request, and where it came.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Cluster.
    pub cluster: &'static str,
    /// Serial number.
    pub serial: u64,
    /// The request.
    pub request: Request,
}

/// What has come since the last time.
#[derive(Debug, Default)]
pub struct Recording {
    /// The whole requests in their order.
    pub requests: Vec<Recorded>,
    /// All bytes, a string for each connection that brought any.
    pub raw: Vec<Vec<u8>>,
    /// What came that is no whole request.
    pub rest: Vec<Rest>,
    /// What went through tunnels.
    pub tunnelled: Vec<u8>,
}

/// Bytes at the end of a connection that are no whole request.
#[derive(Debug)]
pub enum Rest {
    /// The beginning of one.
    Incomplete(Vec<u8>),
    /// Nothing that a strict reader takes.
    Wrong(String),
}

struct Connection {
    cluster: &'static str,
    wire: Wire,
    /// What was read of the wire's bytes as requests.
    read: usize,
    /// The head of the request at hand has been seen.
    has_gone_on: bool,
    /// A request that is not answered yet.
    held: Option<(Request, u64)>,
    tunnel_from: Option<usize>,
    wrong: Option<String>,
}

impl Recorder {
    /// Listens for these clusters.
    pub fn start(clusters: &[&'static str]) -> Self {
        let door = |cluster: &&'static str| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            (*cluster, listener)
        };
        Self {
            doors: clusters.iter().map(door).collect(),
            connections: Vec::new(),
            requests: Vec::new(),
            serial: 0,
        }
    }

    /// Where a cluster's door is.
    pub fn addr(&self, cluster: &str) -> SocketAddr {
        let door = self.doors.iter().find(|(name, _)| *name == cluster);
        door.unwrap().1.local_addr().unwrap()
    }

    /// Takes whatever has arrived, and answers; says whether anything moved.
    pub fn pump(&mut self) -> bool {
        let mut moved = false;
        for (cluster, listener) in &self.doors {
            while let Ok((stream, _)) = listener.accept() {
                self.connections
                    .push(Connection::new(cluster, Wire::over(stream)));
                moved = true;
            }
        }
        for connection in &mut self.connections {
            if connection.wire.pump() {
                moved = true;
                connection.take(&mut self.serial, &mut self.requests);
            }
        }
        moved
    }

    /// Whether a request with an Upgrade waits for its answer.
    pub fn is_holding(&self) -> bool {
        self.connections.iter().any(|c| c.held.is_some())
    }

    /// Answers the requests that wait.
    pub fn release(&mut self) {
        for connection in &mut self.connections {
            if let Some((request, serial)) = connection.held.take()
                && connection.wrong.is_none()
            {
                connection.answer(&request, serial);
            }
        }
    }

    /// Bytes that have come through tunnels and were not taken yet.
    pub fn tunnelled(&self) -> usize {
        let connections = self.connections.iter();
        connections.map(|c| c.tunnelled().len()).sum()
    }

    /// Whether the proxy has ended every connection on which half a request stands.
    pub fn has_no_open_rest(&self) -> bool {
        let mut connections = self.connections.iter();
        connections.all(|c| c.wire.end.is_some() || !c.has_rest())
    }

    /// What has come since the last call; connections that have ended are forgotten.
    pub fn take(&mut self) -> Recording {
        let mut recording = Recording {
            requests: std::mem::take(&mut self.requests),
            ..Recording::default()
        };
        for connection in &mut self.connections {
            connection.give(&mut recording);
        }
        self.connections.retain(|c| c.wire.end.is_none());
        recording
    }
}

impl Connection {
    fn new(cluster: &'static str, wire: Wire) -> Self {
        Self {
            cluster,
            wire,
            read: 0,
            has_gone_on: false,
            held: None,
            tunnel_from: None,
            wrong: None,
        }
    }

    fn tunnelled(&self) -> &[u8] {
        self.tunnel_from.map_or(&[], |at| &self.wire.seen[at..])
    }

    fn has_rest(&self) -> bool {
        self.tunnel_from.is_none() && self.read < self.wire.seen.len()
    }

    /// Takes what is whole, and answers it unless it is to be held.
    fn take(&mut self, serial: &mut u64, requests: &mut Vec<Recorded>) {
        while self.tunnel_from.is_none() && self.wrong.is_none() {
            if self.held.is_some() {
                self.expect_silence();
                break;
            }
            match reader::request(&self.wire.seen[self.read..]) {
                Ok(Some((request, length))) => {
                    self.read += length;
                    self.has_gone_on = false;
                    *serial += 1;
                    requests.push(Recorded {
                        cluster: self.cluster,
                        serial: *serial,
                        request: request.clone(),
                    });
                    self.expect_silence();
                    if request.fields.has("upgrade") {
                        self.held = Some((request, *serial));
                    } else {
                        self.answer(&request, *serial);
                    }
                }
                Ok(None) => {
                    self.go_on();
                    break;
                }
                Err(wrong) => self.wrong = Some(wrong),
            }
        }
        if self.wire.end.is_some() || self.wrong.is_some() {
            self.wire.finish();
        }
    }

    /// Behind a request nothing comes before its answer.
    fn expect_silence(&mut self) {
        if self.has_rest() {
            let rest = show(&self.wire.seen[self.read..]);
            self.wrong = Some(format!("bytes behind a request without its answer: {rest}"));
        }
    }

    /// Says 100 to a request that waits for it.
    fn go_on(&mut self) {
        if self.has_gone_on {
            return;
        }
        if let Ok(Some((request, _))) = reader::head(&self.wire.seen[self.read..]) {
            self.has_gone_on = true;
            if request.fields.lists("expect", "100-continue") {
                self.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
        }
    }

    fn answer(&mut self, request: &Request, serial: u64) {
        let mut offers = request.fields.all("upgrade").flat_map(|v| v.split(','));
        if let (Some(protocol), true) = (offers.next(), request.target().starts_with("/101")) {
            let switch = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n\
                 {SERIAL}: {serial}\r\n\r\n"
            );
            self.wire.send(switch.as_bytes());
            self.tunnel_from = Some(self.read);
            return;
        }
        let body = format!("answer {serial}\n");
        let (mark, body) = match request.method() {
            "HEAD" => (format!("{BODILESS}: yes\r\n"), ""),
            _ => (String::new(), body.as_str()),
        };
        let length = format!("answer {serial}\n").len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\n{SERIAL}: {serial}\r\n{mark}Content-Length: {length}\r\n\r\n{body}"
        );
        self.wire.send(answer.as_bytes());
    }

    /// Gives away what has come.
    fn give(&mut self, recording: &mut Recording) {
        recording.tunnelled.extend_from_slice(self.tunnelled());
        if let Some(wrong) = self.wrong.take() {
            recording.rest.push(Rest::Wrong(wrong));
        } else if self.has_rest() {
            let rest = self.wire.seen[self.read..].to_vec();
            recording.rest.push(Rest::Incomplete(rest));
        }
        if !self.wire.seen.is_empty() {
            recording.raw.push(std::mem::take(&mut self.wire.seen));
        }
        self.read = 0;
        self.tunnel_from = self.tunnel_from.map(|_| 0);
    }
}
