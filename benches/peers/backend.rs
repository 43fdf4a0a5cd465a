//! The backends: one process, one thread, one epoll instance, and as many listening sockets as backends are wanted.
//!
//! - `http`: HTTP/1.1 with keep-alive. The last part of the path is the length of the body: `/128`, `/a/b/65536`. Only
//!   requests without a body are understood; nothing else comes here.
//! - `echo`: sends back what it gets.
//! - `source`: sends without end.
//!
//! It prints a line per kind with the ports (`http 4001 4002 …`) and runs until it is ended.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use crate::poll::{self, BOTH_WAYS, EventFlags, Numbered, Poll};

/// How many backends of each kind one process plays.
pub const HTTP: usize = 50;
pub const TCP: usize = 2;

const SCRATCH: usize = 256 * 1024;
/// Writes of a source in one turn, so that each gets its turn.
const TURN: usize = 8;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Http,
    Echo,
    Source,
}

struct Connection {
    stream: TcpStream,
    kind: Kind,
    /// The beginning of a request whose end has not come.
    begun: Vec<u8>,
    /// What has to go out, and how much of it went.
    answer: Option<(Rc<[u8]>, usize)>,
}

struct Backends {
    scratch: Vec<u8>,
    answers: HashMap<usize, Rc<[u8]>>,
    endless: Rc<[u8]>,
}

/// Runs the process. Returns only on an error.
pub fn run() -> io::Result<()> {
    let mut listeners: Vec<(Kind, TcpListener)> = Vec::new();
    let kinds = [
        ("http", Kind::Http, HTTP, false),
        ("echo", Kind::Echo, TCP, false),
        ("source", Kind::Source, TCP, false),
        ("everywhere", Kind::Http, 1, true),
    ];
    for (name, kind, count, everywhere) in kinds {
        let mut line = name.to_owned();
        for _ in 0..count {
            // Where the loopback device cannot be bound to, the line stays empty and the scenario is left out.
            let listener = match poll::listen(everywhere) {
                Err(_) if everywhere => break,
                listener => listener?,
            };
            line.push_str(&format!(" {}", listener.local_addr()?.port()));
            listeners.push((kind, listener));
        }
        println!("{line}");
    }

    let mut poll = Poll::new()?;
    for (number, (_, listener)) in listeners.iter().enumerate() {
        poll.add(listener, number, EventFlags::IN)?;
    }
    let mut backends = Backends {
        scratch: vec![0; SCRATCH],
        answers: HashMap::new(),
        endless: vec![b's'; SCRATCH].into(),
    };
    let mut connections = Numbered::new();
    let mut again: Vec<(usize, bool)> = Vec::new();
    loop {
        let count = poll.wait((!again.is_empty()).then_some(Duration::ZERO))?;
        let mut ready = std::mem::take(&mut again);
        for index in 0..count {
            let (number, over) = poll.event(index);
            let Some((kind, listener)) = listeners.get(number) else {
                ready.push((number - listeners.len(), over));
                continue;
            };
            while let Some(stream) = poll::accept(listener)? {
                let number = connections.insert(Connection {
                    stream,
                    kind: *kind,
                    begun: Vec::new(),
                    answer: None,
                });
                let connection: &mut Connection = connections.get(number).expect("just put there");
                poll.add(&connection.stream, number + listeners.len(), BOTH_WAYS)?;
            }
        }
        for (number, over) in ready {
            let Some(connection) = connections.get(number) else {
                continue;
            };
            match backends.advance(connection, over) {
                Ok(true) => again.push((number, true)),
                Ok(false) => {}
                // Clients leave as they please.
                Err(_) => drop(connections.remove(number)),
            }
        }
    }
}

impl Backends {
    /// Does what can be done now. `true`: there is more to do at once. An error: the connection is over.
    fn advance(&mut self, connection: &mut Connection, over: bool) -> io::Result<bool> {
        if connection.kind == Kind::Source {
            return self.pour(connection);
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
                connection.answer = Some((Rc::clone(&self.endless), 0));
            }
            if !flush(connection)? {
                return Ok(false);
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
fn answer(answers: &mut HashMap<usize, Rc<[u8]>>, request: &[u8]) -> io::Result<Rc<[u8]>> {
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
    Ok(Rc::clone(made))
}
