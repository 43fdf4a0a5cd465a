//! The floor: what a proxy costs that only moves bytes. One thread, one epoll instance, edge-triggered, registered
//! once; each client connection gets a backend connection of its own, from a pool if one is free there, and bytes are
//! copied from one to the other without being looked at: one read and one write for each side and message.
//!
//! With `pool` a backend connection outlives its client, as with a proxy that keeps connections. That is sound only
//! because the load generator closes a connection after a whole answer and never inside one. Without it (TCP) both
//! ends go together.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::poll::{self, BOTH_WAYS, EventFlags, Numbered, Poll};

const SCRATCH: usize = 256 * 1024;
/// Reads of one connection in one turn, so that each gets its turn.
const TURN: usize = 8;
const LISTENER: usize = usize::MAX;

struct Connection {
    stream: TcpStream,
    is_backend: bool,
    /// Its other half; none for an unused backend connection.
    peer: Option<usize>,
    /// What this stream did not take yet.
    kept: Vec<u8>,
}

struct Floor {
    poll: Poll,
    backends: Vec<SocketAddr>,
    turn: usize,
    pool: bool,
    connections: Numbered<Connection>,
    unused: Vec<usize>,
    scratch: Vec<u8>,
}

/// Runs the process: prints its port, and returns only on an error.
pub(crate) fn run(pool: bool, backends: Vec<SocketAddr>) -> io::Result<()> {
    let listener = poll::listen(false)?;
    println!("listening {}", listener.local_addr()?.port());
    let mut floor = Floor {
        poll: Poll::new()?,
        backends,
        turn: 0,
        pool,
        connections: Numbered::new(),
        unused: Vec::new(),
        scratch: vec![0; SCRATCH],
    };
    floor.poll.add(&listener, LISTENER, EventFlags::IN)?;
    let mut again: Vec<usize> = Vec::new();
    loop {
        let count = floor
            .poll
            .wait((!again.is_empty()).then_some(Duration::ZERO))?;
        let busy = std::mem::take(&mut again);
        for index in 0..count {
            let (number, over) = floor.poll.event(index);
            if number == LISTENER {
                while let Some(client) = poll::accept(&listener)? {
                    floor.join(client)?;
                }
            } else {
                floor.serve(number, over, &mut again);
            }
        }
        for number in busy {
            floor.serve(number, true, &mut again);
        }
    }
}

impl Floor {
    /// Gives a client its backend connection.
    fn join(&mut self, stream: TcpStream) -> io::Result<()> {
        let client = self.insert(stream, false)?;
        let backend = match self.unused.pop() {
            Some(backend) => backend,
            None => {
                let address = self.backends[self.turn % self.backends.len()];
                self.turn += 1;
                self.insert(poll::connect(address, None)?, true)?
            }
        };
        for (one, other) in [(client, backend), (backend, client)] {
            self.connections.get(one).expect("both are there").peer = Some(other);
        }
        Ok(())
    }

    fn insert(&mut self, stream: TcpStream, is_backend: bool) -> io::Result<usize> {
        let number = self.connections.insert(Connection {
            stream,
            is_backend,
            peer: None,
            kept: Vec::new(),
        });
        let stream = &self.connections.get(number).expect("just put there").stream;
        self.poll.add(stream, number, BOTH_WAYS)?;
        Ok(number)
    }

    /// Something happened on a connection: sends what it did not take, then reads what it has.
    fn serve(&mut self, number: usize, over: bool, again: &mut Vec<usize>) {
        let Some(connection) = self.connections.get(number) else {
            return;
        };
        let Some(peer) = connection.peer else {
            // An unused backend connection speaks only to say that it is over.
            if !matches!(connection.stream.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            {
                self.unused.retain(|unused| *unused != number);
                self.connections.remove(number);
            }
            return;
        };
        let flushed = !connection.kept.is_empty() && matches!(flush(connection), Ok(true));
        // What was sent made room for what the other side has.
        for (from, to) in [(number, peer), (peer, number)]
            .into_iter()
            .take(1 + usize::from(flushed))
        {
            match self.relay(from, to, over) {
                Ok(true) => again.push(from),
                Ok(false) => {}
                Err(_) => return self.part(number, peer),
            }
        }
    }

    /// Moves what is there. `true`: more is there. An error: one side is over.
    fn relay(&mut self, from: usize, to: usize, over: bool) -> io::Result<bool> {
        for _ in 0..TURN {
            if self
                .connections
                .get(to)
                .is_none_or(|to| !to.kept.is_empty())
            {
                return Ok(false);
            }
            let Some(source) = self.connections.get(from) else {
                return Ok(false);
            };
            let Some(count) = poll::attempt(source.stream.read(&mut self.scratch))? else {
                return Ok(false);
            };
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let target = self.connections.get(to).expect("it was there");
            let written = poll::attempt(target.stream.write(&self.scratch[..count]))?.unwrap_or(0);
            target.kept.extend_from_slice(&self.scratch[written..count]);
            if count < SCRATCH && !over {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One side ended: the client goes, the backend connection is kept if it lives and may be.
    fn part(&mut self, one: usize, other: usize) {
        for number in [one, other] {
            let Some(connection) = self.connections.get(number) else {
                continue;
            };
            connection.peer = None;
            let lives = matches!(connection.stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            if self.pool && connection.is_backend && lives && connection.kept.is_empty() {
                self.unused.push(number);
            } else {
                self.connections.remove(number);
            }
        }
    }
}

/// Sends what was kept; `true` if all of it went.
fn flush(connection: &mut Connection) -> io::Result<bool> {
    let mut sent = 0;
    while sent < connection.kept.len() {
        match poll::attempt(connection.stream.write(&connection.kept[sent..]))? {
            None => break,
            Some(count) => sent += count,
        }
    }
    connection.kept.drain(..sent);
    Ok(connection.kept.is_empty())
}
