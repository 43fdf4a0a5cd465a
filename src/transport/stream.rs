//! What the data plane needs from a connection, whatever it runs over, and how a [`Conn`] provides it.
//!
//! The runtime waits, but the system is called directly: `recv` and `send` of the C library are thread cancellation
//! points, which cost two locked instructions per call in a program with threads, and the five calls of a request do
//! not need them. As with the runtime's own streams, a short read clears readiness, so no call is spent on finding
//! nothing; the next byte is a new event.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::conn::{Conn, EndName};
use super::{socket, socket_buffers};

/// A connection as the data plane sees it: a plain socket, TLS over one, or two ends in memory.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Reads what is available, at most `buffer.len()` bytes; 0 is the end. Cancel-safe.
    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        Pin::new(self)
            .poll_read(cx, &mut buffer)
            .map_ok(|()| buffer.filled().len())
    }

    /// Writes as much of `bytes` as fits, at least one byte. Cancel-safe.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(cx, bytes)
    }

    /// Estimates how many bytes a write would accept now; 0 if unknown.
    fn send_room(&self) -> usize;

    /// Bytes that were written but that the peer has not acknowledged.
    fn send_queue(&self) -> usize;

    /// Makes the close of the connection a reset.
    fn reset_on_close(&self);

    /// Whether the peer has ended its side or reset the connection, even if some of its bytes are still unread.
    fn peer_has_ended(&self) -> bool;

    /// Whether nothing has arrived from the peer, neither bytes nor an end. Makes a system call.
    fn is_idle(&self) -> bool;

    /// Like [`Self::is_idle`], as far as the runtime knows: makes a system call only if something arrived.
    fn seems_idle(&self) -> bool;

    /// The name that the peer has bound its end to, if it has a name and not an address.
    fn peer_name(&self) -> Option<EndName>;
}

impl Stream for Conn {
    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        poll_receive(self, cx, buffer)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        poll_send(self, cx, bytes)
    }

    fn send_room(&self) -> usize {
        socket_buffers::send_room(self)
    }

    fn send_queue(&self) -> usize {
        socket_buffers::send_queue(self)
    }

    fn reset_on_close(&self) {
        socket::reset_on_close(self);
    }

    fn peer_has_ended(&self) -> bool {
        socket::peer_has_ended(self)
    }

    fn is_idle(&self) -> bool {
        matches!(
            recv(self, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT),
            Err(rustix::io::Errno::AGAIN)
        )
    }

    fn seems_idle(&self) -> bool {
        matches!(self.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    fn peer_name(&self) -> Option<EndName> {
        self.unix_peer()
    }
}

/// Implements [`Stream::poll_receive`].
fn poll_receive(stream: &Conn, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let received = stream.try_io(Interest::READABLE, || {
            Ok(recv(stream, &mut *buffer, RecvFlags::empty())?.0)
        });
        match received {
            Ok(count) => {
                if count > 0 && count < buffer.len() {
                    // Clears readiness. Bytes that arrived after the read cause another event.
                    let _ = stream.try_io(Interest::READABLE, would_block);
                }
                return Poll::Ready(Ok(count));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// Implements [`Stream::poll_send`]; ready at once if the socket accepts any bytes.
fn poll_send(stream: &Conn, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
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

fn would_block() -> io::Result<()> {
    Err(io::ErrorKind::WouldBlock.into())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::task::Waker;

    use tokio::net::TcpStream;

    use super::*;

    async fn pair() -> (Conn, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        (stream.unwrap().into(), listener.accept().unwrap().0)
    }

    #[tokio::test]
    async fn bytes_and_the_end_are_received() {
        let (stream, mut peer) = pair().await;
        let mut buffer = [0; 4];
        for text in [&b"ab"[..], b"abcd", b"c"] {
            peer.write_all(text).unwrap();
            let mut got = Vec::new();
            while got.len() < text.len() {
                let read = poll_fn(|cx| poll_receive(&stream, cx, &mut buffer)).await;
                got.extend_from_slice(&buffer[..read.unwrap()]);
            }
            assert_eq!(got, text);
            // A read that filled the buffer may have left something; one more call finds that it has not.
            let mut cx = Context::from_waker(Waker::noop());
            assert!(poll_receive(&stream, &mut cx, &mut buffer).is_pending());
            assert!(stream.is_idle());
        }
        drop(peer);
        let read = poll_fn(|cx| poll_receive(&stream, cx, &mut buffer)).await;
        assert_eq!(read.unwrap(), 0);
        assert!(!stream.is_idle());
    }

    #[tokio::test]
    async fn a_short_read_clears_readiness() {
        let (stream, mut peer) = pair().await;
        peer.write_all(b"ab").unwrap();
        let read = poll_fn(|cx| poll_receive(&stream, cx, &mut [0; 4])).await;
        assert_eq!(read.unwrap(), 2);
        let called = stream.try_io(Interest::READABLE, || Ok(()));
        assert!(called.is_err(), "there would be another system call");
    }

    #[tokio::test]
    async fn a_full_socket_is_waited_for() {
        let (stream, mut peer) = pair().await;
        let bytes = [b'x'; 1 << 16];
        let mut sent = 0;
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(count) = poll_send(&stream, &mut cx, &bytes) {
            sent += count.unwrap();
        }
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all.len()
        });
        sent += poll_fn(|cx| poll_send(&stream, cx, &bytes)).await.unwrap();
        drop(stream);
        assert_eq!(reader.join().unwrap(), sent);
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_an_error_and_not_a_signal() {
        let (stream, peer) = pair().await;
        drop(peer);
        let broken = poll_fn(|cx| match poll_send(&stream, cx, b"x") {
            Poll::Ready(Ok(_)) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            other => other,
        });
        let error = broken.await.unwrap_err();
        let kinds = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
        assert!(kinds.contains(&error.kind()), "{error}");
    }
}
