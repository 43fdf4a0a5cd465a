//! A port that stays ours while nobody listens on it: a backend that is down refuses connections, and no other
//! socket of the machine takes its place before it returns.

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

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
pub fn listen(addr: SocketAddr) -> TcpListener {
    let socket = socket(addr);
    socket.listen(8192).unwrap();
    socket.into()
}

fn socket(addr: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&addr.into()).unwrap();
    socket
}
