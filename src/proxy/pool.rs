//! Idle upstream connections of one worker, by backend.
//!
//! The connection used last is used next, so that the oldest ones age out. A connection rests here only when both
//! sides of its last exchange were whole; while it rests nothing may come from the backend, so whatever the kernel
//! reports (an end, or bytes that nobody asked for) disqualifies it.

use std::collections::HashMap;
use std::net::SocketAddr;

use foldhash::fast::RandomState;
use tokio::net::TcpStream;

use crate::transport::descriptors::Descriptor;

/// A connection to a backend, with what it counts as.
#[derive(Debug)]
pub struct Upstream {
    /// The socket.
    pub stream: TcpStream,
    /// Where it leads: a name may have moved on since.
    pub address: SocketAddr,
    /// Its place in the descriptor budget.
    pub descriptor: Descriptor,
}

#[derive(Debug)]
struct Idle {
    upstream: Upstream,
    since: u64,
    until: u64,
}

/// The pool. Times are milliseconds of the worker's table.
#[derive(Debug, Default)]
pub struct Pool {
    idle: HashMap<u64, Vec<Idle>, RandomState>,
}

impl Pool {
    /// The connection to `backend` that was used last, if it is alive and leads to one of `addresses`.
    /// `used_since`: at the earliest then.
    pub fn take(
        &mut self,
        backend: u64,
        addresses: &[SocketAddr],
        now: u64,
        used_since: u64,
    ) -> Option<Upstream> {
        let connections = self.idle.get_mut(&backend)?;
        while let Some(idle) = connections.pop() {
            if idle.since < used_since {
                connections.push(idle);
                return None;
            }
            let is_current = addresses.contains(&idle.upstream.address);
            if idle.until > now && is_current && is_quiet(&idle.upstream.stream) {
                return Some(idle.upstream);
            }
        }
        None
    }

    /// Keeps a connection to `backend` until `until`, unless there are `most` already.
    pub fn put(&mut self, backend: u64, upstream: Upstream, now: u64, until: u64, most: usize) {
        let connections = self.idle.entry(backend).or_default();
        if connections.len() < most && until > now {
            connections.push(Idle {
                upstream,
                since: now,
                until,
            });
        }
    }

    /// Drops what is too old, what its backend has closed, and what `departed` says is no longer wanted.
    pub fn sweep(&mut self, now: u64, departed: impl Fn(u64) -> bool) {
        self.idle.retain(|backend, connections| {
            if departed(*backend) {
                return false;
            }
            connections.retain(|idle| idle.until > now && is_quiet(&idle.upstream.stream));
            !connections.is_empty()
        });
    }

    /// Whether nothing rests here.
    pub fn is_empty(&self) -> bool {
        self.idle.is_empty()
    }
}

/// Whether the runtime has heard nothing from the peer. Costs a system call only if it has.
fn is_quiet(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

/// Whether the kernel has heard nothing from the peer: one system call, for requests that cannot be repeated.
pub fn is_quiet_now(stream: &TcpStream) -> bool {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    let socket = socket2::SockRef::from(stream);
    matches!(socket.peek(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}
