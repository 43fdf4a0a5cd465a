//! Options of a TCP connection.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Silence after which the kernel asks whether the peer is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Between two questions.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long sent bytes may go unacknowledged, or questions unanswered. Long, because on Linux it also bounds how
/// long a peer that is alive may keep its window shut.
const USER_TIMEOUT: Duration = Duration::from_secs(300);

/// No Nagle delay; a dead peer is found.
pub fn set_options(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEP_ALIVE)
            .with_interval(KEEP_ALIVE_INTERVAL),
    )?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Makes the coming close a reset, so that the peer cannot take what it got for the whole.
pub fn reset_on_close(socket: &impl AsFd) {
    // A failure means that the connection is gone already.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}
