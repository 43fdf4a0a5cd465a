//! Sockets that never block: what has come is kept, what cannot go yet is queued.
//!
//! Nothing moves unless it is pumped. [`Patience`] pumps until a condition holds; its bound is that of every wait,
//! until the first wait was in vain: then the run has failed already, and the others need not be waited out.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::super::wait::{PATIENCE, pause};

/// How the other side ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In order.
    Closed,
    /// With a reset.
    Reset,
}

/// One end of a connection.
pub struct Wire {
    stream: TcpStream,
    queue: Vec<u8>,
    deaf: bool,
    finishing: bool,
    /// All that has come.
    pub seen: Vec<u8>,
    /// Whether the other side has ended.
    pub end: Option<End>,
}

impl Wire {
    /// Over a connection that is there.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            queue: Vec::new(),
            deaf: false,
            finishing: false,
            seen: Vec::new(),
            end: None,
        }
    }

    /// A new connection.
    pub fn connect(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect_timeout(&addr, PATIENCE).unwrap())
    }

    /// Sends, or queues what the other side does not take yet; a side that is gone takes everything.
    pub fn send(&mut self, bytes: &[u8]) {
        self.queue.extend_from_slice(bytes);
        self.flush();
    }

    /// Says that nothing more comes, behind what is queued.
    pub fn finish(&mut self) {
        self.finishing = true;
        self.flush();
    }

    /// Closes with a reset.
    pub fn reset(&mut self) {
        // The socket itself is closed when `self` goes; a shut connection with this option sends RST then.
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        self.deaf = true;
    }

    /// Whether everything has been handed over.
    pub fn is_flushed(&self) -> bool {
        self.queue.is_empty()
    }

    /// Moves what can be moved; says whether anything was.
    pub fn pump(&mut self) -> bool {
        let wrote = self.flush();
        self.read() || wrote
    }

    fn flush(&mut self) -> bool {
        let mut moved = false;
        while !self.queue.is_empty() {
            match self.stream.write(&self.queue) {
                Ok(n) => {
                    self.queue.drain(..n);
                    moved = true;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return moved,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.queue.clear(),
            }
        }
        if self.finishing && !self.deaf {
            self.deaf = true;
            // A side that is gone already has been told well enough.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        moved
    }

    fn read(&mut self) -> bool {
        let mut moved = false;
        let mut buffer = [0; 16 << 10];
        while self.end.is_none() {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.end = Some(End::Closed),
                Ok(n) => self.seen.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return moved,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.end = Some(End::Reset),
            }
            moved = true;
        }
        moved
    }
}

/// What one look at a condition has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It holds.
    Done,
    /// Not yet, but something moved.
    Moved,
    /// Nothing moved.
    Quiet,
}

impl Look {
    /// From the two questions.
    pub fn of(done: bool, moved: bool) -> Self {
        match (done, moved) {
            (true, _) => Self::Done,
            (false, true) => Self::Moved,
            (false, false) => Self::Quiet,
        }
    }
}

/// The bound of waits.
pub struct Patience(Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(PATIENCE)
    }
}

impl Patience {
    /// Looks until the condition holds.
    ///
    /// # Errors
    /// It was waited in vain.
    pub fn until(&mut self, what: &str, mut look: impl FnMut() -> Look) -> Result<(), String> {
        let deadline = Instant::now() + self.0;
        let mut quiet = 0;
        loop {
            match look() {
                Look::Done => return Ok(()),
                Look::Moved => quiet = 0,
                Look::Quiet if Instant::now() > deadline => {
                    let waited = std::mem::replace(&mut self.0, PATIENCE / 10);
                    return Err(format!("waited {waited:?} in vain: {what}"));
                }
                Look::Quiet => {
                    pause(Duration::from_micros(20 << quiet));
                    quiet = (quiet + 1).min(7);
                }
            }
        }
    }
}
