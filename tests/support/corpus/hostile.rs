//! The backend of the response cases: it does what a script says, and answers `/next-N` in good order.
//!
//! The answers to `/next-N` end their connection, so that the proxy's pool is empty when the next case begins: a
//! connection that is used for such a request either is the one of the script, kept, or a fresh one.

use std::net::{SocketAddr, TcpListener};

use super::data::{ResponseCase, Then};
use super::reader;
use super::wire::Wire;

/// The backend.
pub struct Hostile {
    listener: TcpListener,
    connections: Vec<Connection>,
    script: Option<Script>,
    /// Which connection the script was played on, and which the next request came on.
    pub scripted: Option<u64>,
    /// The connection of the next request.
    pub next: Option<u64>,
    serial: u64,
}

/// Bytes to send in pieces, and what comes behind them.
pub struct Script {
    bytes: Vec<u8>,
    pieces: std::vec::IntoIter<usize>,
    at: usize,
    finish: Vec<u8>,
    is_seen: bool,
    then: Then,
    on_accept: bool,
    later: Vec<u8>,
}

impl Script {
    /// Of a case, cut into these pieces.
    pub fn of(case: &ResponseCase, pieces: Vec<usize>) -> Self {
        Self {
            bytes: case.backend.clone(),
            pieces: pieces.into_iter(),
            at: 0,
            finish: case.finish.clone(),
            is_seen: false,
            then: case.then,
            on_accept: case.on_accept,
            later: case.later.clone(),
        }
    }

    /// Sends one piece more, if there is one.
    fn send_piece(&mut self, wire: &mut Wire) -> bool {
        let Some(piece) = self.pieces.next() else {
            return false;
        };
        wire.send(&self.bytes[self.at..self.at + piece]);
        self.at += piece;
        true
    }
}

struct Connection {
    serial: u64,
    /// `None` once it was reset.
    wire: Option<Wire>,
    read: usize,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Accepted since the script was loaded.
    Fresh,
    /// The script is played on it.
    Playing,
    /// The script has been played on it.
    Played,
    /// Of an earlier case.
    Old,
}

impl Hostile {
    /// Listens.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self {
            listener,
            connections: Vec::new(),
            script: None,
            scripted: None,
            next: None,
            serial: 0,
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Makes ready for one delivery of a case.
    pub fn load(&mut self, script: Script) {
        self.script = Some(script);
        self.scripted = None;
        self.next = None;
        self.connections.retain(Connection::is_open);
        for connection in &mut self.connections {
            connection.role = Role::Old;
        }
    }

    /// Whether the script has been played to its end.
    pub fn has_said_all(&self) -> bool {
        self.connections.iter().any(|c| c.role == Role::Played)
    }

    /// Says that the client has seen what it can. A reset waits for that: it overtakes what the kernel still holds.
    pub fn is_seen(&mut self) {
        if let Some(script) = &mut self.script {
            script.is_seen = true;
        }
    }

    /// Sends the bytes that nobody asked for.
    pub fn send_later(&mut self) {
        let Some(script) = &self.script else { return };
        let scripted = self.connections.iter_mut().find(|c| c.role == Role::Played);
        if let Some(wire) = scripted.and_then(|c| c.wire.as_mut()) {
            wire.send(&script.later);
        }
    }

    /// Takes what has arrived and does what is next; says whether anything moved.
    pub fn pump(&mut self) -> bool {
        let mut moved = false;
        while let Ok((stream, _)) = self.listener.accept() {
            self.serial += 1;
            self.connections.push(Connection {
                serial: self.serial,
                wire: Some(Wire::over(stream)),
                read: 0,
                role: Role::Fresh,
            });
            moved = true;
        }
        for place in 0..self.connections.len() {
            moved |= self.attend(place);
        }
        moved
    }

    /// One connection: the script, the answer to a next request, or the end.
    fn attend(&mut self, place: usize) -> bool {
        let connection = &mut self.connections[place];
        let Some(wire) = &mut connection.wire else {
            return false;
        };
        let mut moved = wire.pump();
        if self.scripted.is_none()
            && connection.role == Role::Fresh
            && let Some(script) = &self.script
            && (script.on_accept || connection.wants_script())
        {
            connection.role = Role::Playing;
            self.scripted = Some(connection.serial);
            moved = true;
        }
        if let Some(script) = &mut self.script
            && connection.role == Role::Playing
        {
            moved |= connection.play(script);
        }
        if let Some(target) = connection.next_request() {
            self.next = Some(connection.serial);
            connection.answer(&target);
            moved = true;
        }
        connection.follow_end();
        moved
    }
}

impl Connection {
    fn is_open(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| wire.end.is_none())
    }

    /// Whether the head of a request has come that the script is for.
    fn wants_script(&mut self) -> bool {
        let Some(wire) = &self.wire else { return false };
        match reader::head(&wire.seen[self.read..]) {
            Ok(Some((request, _))) if request.target().starts_with("/next-") => false,
            Ok(Some(_)) => {
                self.pass_request();
                true
            }
            _ => false,
        }
    }

    /// Steps behind the request at hand, if it is whole.
    fn pass_request(&mut self) {
        if let Some(wire) = &self.wire
            && let Ok(Some((_, length))) = reader::request(&wire.seen[self.read..])
        {
            self.read += length;
        }
    }

    /// Does what is next in the script; says whether there was anything to do.
    fn play(&mut self, script: &mut Script) -> bool {
        let has_request = self.read > 0;
        let Some(wire) = &mut self.wire else {
            return false;
        };
        if script.send_piece(wire) {
            return true;
        }
        if !wire.is_flushed() {
            return false;
        }
        if !script.finish.is_empty() {
            if has_request {
                wire.send(&std::mem::take(&mut script.finish));
            }
            return has_request;
        }
        if script.then == Then::Reset && !script.is_seen {
            return false;
        }
        self.role = Role::Played;
        match script.then {
            Then::Keep => {}
            Then::Close => wire.finish(),
            Then::Reset => {
                wire.reset();
                self.wire = None;
            }
        }
        true
    }

    /// The target of a whole `/next-N`, behind the request of the script if that has become whole meanwhile.
    fn next_request(&mut self) -> Option<String> {
        loop {
            let wire = self.wire.as_ref()?;
            let (request, length) = reader::request(&wire.seen[self.read..]).ok()??;
            let is_next = request.target().starts_with("/next-");
            if !is_next && !matches!(self.role, Role::Playing | Role::Played) {
                return None;
            }
            self.read += length;
            if is_next {
                return Some(request.target().to_owned());
            }
        }
    }

    fn answer(&mut self, target: &str) {
        let Some(wire) = &mut self.wire else { return };
        let body = format!("answer to {target}");
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        wire.send(answer.as_bytes());
        wire.finish();
    }

    /// Closes behind a proxy that has closed.
    fn follow_end(&mut self) {
        if let Some(wire) = &mut self.wire
            && wire.end.is_some()
        {
            wire.finish();
        }
    }
}
