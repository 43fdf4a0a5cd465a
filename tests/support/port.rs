//! A port that stays ours while nobody listens on it: a backend that is down refuses connections, and no other
//! socket of the machine takes its place before it returns.

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::wait::{PATIENCE, wait_until};

/// A reserved port of a loopback address.
pub struct Port {
    /// Bound and never listening: it keeps the port from everybody who does not ask for this very one.
    _hold: Socket,
    /// The address.
    pub addr: SocketAddr,
}

impl Port {
    /// Reserves a free port of `ip`.
    pub fn reserve(ip: &str) -> Self {
        let hold = socket(SocketAddr::new(ip.parse().unwrap(), 0));
        let addr = hold.local_addr().unwrap().as_socket().unwrap();
        Self { _hold: hold, addr }
    }

    /// Listens on it.
    pub fn listen(&self) -> TcpListener {
        listen(self.addr)
    }
}

/// Listens on an address that a [`Port`] of this or another process holds, or on any free port.
///
/// A process that another test is just starting holds a copy of every socket of this one until it executes its
/// program, a listening socket that was closed here included: that is waited for.
pub fn listen(addr: SocketAddr) -> TcpListener {
    let mut bound = None;
    wait_until(PATIENCE, "nobody listens there any more", || {
        bound = try_socket(addr).ok();
        bound.is_some()
    });
    let socket = bound.unwrap();
    socket.listen(8192).unwrap();
    socket.into()
}

fn socket(addr: SocketAddr) -> Socket {
    try_socket(addr).unwrap()
}

fn try_socket(addr: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}
