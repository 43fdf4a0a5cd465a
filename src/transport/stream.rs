//! Reads and writes of a TCP stream: the runtime waits for it, the system is called directly.
//!
//! `recv` and `send` of the C library are points at which a thread may be cancelled; in a program of several threads each
//! call pays for that with two locked instructions, which the five calls of a request need not. As with the runtime's own
//! streams a short read says that there is no more, so that no call finds that out, and the next byte is a new event.

use std::io;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads what there is, at most `buffer.len()` bytes; 0 is the end. Cancel-safe.
pub fn poll_receive(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let received = stream.try_io(Interest::READABLE, || {
            Ok(recv(stream, &mut *buffer, RecvFlags::empty())?.0)
        });
        match received {
            Ok(count) => {
                if count > 0 && count < buffer.len() {
                    // Forgets that it was readable. What has come since the read is an event that is still to be heard.
                    let _ = stream.try_io(Interest::READABLE, would_block);
                }
                return Poll::Ready(Ok(count));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// Writes as much of `bytes` as the socket takes, at least one; ready at once if it takes some. Cancel-safe.
pub fn poll_send(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    loop {
        let sent = stream.try_io(Interest::WRITABLE, || {
            Ok(send(stream, bytes, SendFlags::NOSIGNAL)?)
        });
        match sent {
            Ok(count) => {
                if count > 0 && count < bytes.len() {
                    let _ = stream.try_io(Interest::WRITABLE, would_block);
                }
                return Poll::Ready(Ok(count));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready!(stream.poll_write_ready(cx))?;
            }
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// Whether the kernel has heard nothing of the peer: neither bytes nor an end.
pub fn is_quiet(stream: &TcpStream) -> bool {
    matches!(
        recv(stream, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT),
        Err(rustix::io::Errno::AGAIN)
    )
}

fn would_block() -> io::Result<()> {
    Err(io::ErrorKind::WouldBlock.into())
}
