//! Options and state of a TCP socket.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, TcpKeepalive};

/// Idle time after which the kernel probes whether the peer is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Time between two probes.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Most time that sent bytes or probes may remain unacknowledged. It is long because on Linux it also limits how long a
/// live peer may keep its window closed.
const USER_TIMEOUT: Duration = Duration::from_secs(300);

/// Disables Nagle's algorithm, detects dead peers, and lets only the send buffer limit writes.
pub(crate) fn set_options(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEP_ALIVE)
            .with_interval(KEEP_ALIVE_INTERVAL),
    )?;
    // Overrides the system's setting, since large writes pay off only if they are accepted completely.
    socket.set_tcp_notsent_lowat(u32::MAX)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Whether the peer has ended its side or reset the connection, even if some of its bytes are still unread.
pub(crate) fn peer_has_ended(socket: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::RDHUP)];
    // A failure says nothing about the peer.
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Makes the close of the socket a reset, so that the peer cannot mistake what it received for a complete message.
pub(crate) fn reset_on_close(socket: &impl AsFd) {
    // If it fails, the connection is already gone.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::time::Instant;

    /// Waits until `condition` is true, since loopback does not deliver at once.
    fn soon(condition: impl Fn() -> bool) -> bool {
        let start = Instant::now();
        while !condition() {
            if start.elapsed() > Duration::from_secs(10) {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    #[test]
    fn an_end_after_unread_bytes_is_detected() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.write_all(b"unread").unwrap();
            (client, listener.accept().unwrap().0)
        };
        let (client, server) = connect();
        assert!(!peer_has_ended(&server));
        client.shutdown(Shutdown::Write).unwrap();
        assert!(soon(|| peer_has_ended(&server)), "by an orderly end");
        let (client, server) = connect();
        assert!(!peer_has_ended(&server));
        reset_on_close(&client);
        drop(client);
        assert!(soon(|| peer_has_ended(&server)), "by a reset");
    }
}
