//! Options of a TCP connection.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, TcpKeepalive};

/// Silence after which the kernel asks whether the peer is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Between two questions.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long sent bytes may go unacknowledged, or questions unanswered. Long, because on Linux it also bounds how
/// long a peer that is alive may keep its window shut.
const USER_TIMEOUT: Duration = Duration::from_secs(300);

/// No Nagle delay; a dead peer is found; writes are bounded by the send buffer alone.
pub(crate) fn set_options(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEP_ALIVE)
            .with_interval(KEEP_ALIVE_INTERVAL),
    )?;
    // Whatever the system's setting: large writes are worth the while only if they are taken whole.
    socket.set_tcp_notsent_lowat(u32::MAX)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Whether the peer has ended its side or broken off, even if there are bytes of it yet to be read.
pub(crate) fn peer_has_ended(socket: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(socket, PollFlags::RDHUP)];
    // A failure says nothing of the peer.
    poll(&mut asked, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Makes the coming close a reset, so that the peer cannot take what it got for the whole.
pub(crate) fn reset_on_close(socket: &impl AsFd) {
    // A failure means that the connection is gone already.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::time::Instant;

    /// Loopback delivers soon, not at once.
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
    fn an_end_behind_unread_bytes_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.write_all(b"unread").unwrap();
            (client, listener.accept().unwrap().0)
        };
        let (client, server) = connect();
        assert!(!peer_has_ended(&server));
        client.shutdown(Shutdown::Write).unwrap();
        assert!(soon(|| peer_has_ended(&server)), "in order");
        let (client, server) = connect();
        assert!(!peer_has_ended(&server));
        reset_on_close(&client);
        drop(client);
        assert!(soon(|| peer_has_ended(&server)), "by a reset");
    }
}
