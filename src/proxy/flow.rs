//! Bytes from one socket to the next: how much to read, and what a slow reader leaves over.
//!
//! A read goes into the worker's scratch buffer and from there straight to the other side. Only what that does not
//! take is kept, with the connection, and while something is kept nothing more is read (back-pressure). A read
//! grows from [`SMALL_READ`] to the whole scratch buffer only while writes go through whole, and one of more than
//! [`KEPT`] bytes is made only if the other side has room for it now, so a connection keeps at most about [`KEPT`].

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::worker::SCRATCH;
use crate::transport::{room, socket};

/// First read of a connection.
pub const SMALL_READ: usize = 16 << 10;
/// What one direction of a connection may keep of what the other side has not taken.
pub const KEPT: usize = 64 << 10;
/// Bytes that one connection moves in one direction before others have their turn.
pub const TURN: usize = 2 << 20;

/// Slices of one vectored write.
pub const MOST_PARTS: usize = 6;

/// A connection that bytes are moved over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// About how many bytes a write would take now.
    fn send_room(&self) -> usize;
    /// Makes the coming close a reset.
    fn reset_on_close(&self);
}

impl Stream for TcpStream {
    fn send_room(&self) -> usize {
        room::send_room(self)
    }

    fn reset_on_close(&self) {
        socket::reset_on_close(self);
    }
}

/// Reads what there is, at most `buffer.len()` bytes; 0 is the end.
pub fn poll_read(
    stream: &mut impl Stream,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    match Pin::new(stream).poll_read(cx, &mut buffer) {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(buffer.filled().len())),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending => Poll::Pending,
    }
}

/// How large the next read of one direction is.
#[derive(Debug, Clone, Copy)]
pub struct ReadSize(u32);

impl Default for ReadSize {
    fn default() -> Self {
        Self(SMALL_READ as u32)
    }
}

impl ReadSize {
    /// Bytes to read for `sink`.
    pub fn next(self, sink: &impl Stream) -> usize {
        let size = self.0 as usize;
        if size <= KEPT {
            size
        } else {
            sink.send_room().clamp(KEPT, size)
        }
    }

    /// Learns from a read of `read` bytes (of `asked`) that was written whole, or was not.
    pub fn learn(&mut self, asked: usize, read: usize, whole: bool) {
        if !whole {
            self.0 = SMALL_READ as u32;
        } else if read == asked {
            self.0 = (self.0 * 2).min(SCRATCH as u32);
        }
    }
}

/// What a sink has not taken yet. Holds no memory while it is empty.
#[derive(Debug, Default)]
pub struct Pending {
    bytes: Vec<u8>,
    start: usize,
}

impl Pending {
    /// Whether everything was taken.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that are kept.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Keeps `bytes` behind what is kept already.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Writes as much as the sink takes; ready when nothing is left. The number of bytes written is added to
    /// `written`.
    pub fn poll_flush(
        &mut self,
        sink: &mut impl Stream,
        cx: &mut Context<'_>,
        written: &mut u64,
    ) -> Poll<io::Result<()>> {
        while self.start < self.bytes.len() {
            match Pin::new(&mut *sink).poll_write(cx, &self.bytes[self.start..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => {
                    self.start += n;
                    *written += n as u64;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.clear();
        Poll::Ready(Ok(()))
    }

    /// Writes `parts` (at most [`MOST_PARTS`]) in one call and keeps what the sink does not take. Returns the number of bytes written.
    /// Nothing may be kept before.
    ///
    /// # Errors
    /// What the system said; the sink is of no more use.
    pub fn write(
        &mut self,
        sink: &mut impl Stream,
        cx: &mut Context<'_>,
        parts: &[&[u8]],
    ) -> io::Result<usize> {
        debug_assert!(self.is_empty());
        let mut slices = [IoSlice::new(&[]); MOST_PARTS];
        let mut used = 0;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            slices[used] = IoSlice::new(part);
            used += 1;
        }
        let written = match &slices[..used] {
            [only] => Pin::new(sink).poll_write(cx, only),
            several => Pin::new(sink).poll_write_vectored(cx, several),
        };
        let written = match written {
            Poll::Ready(result) => result?,
            Poll::Pending => 0,
        };
        let mut skip = written;
        // Exactly: growing by doubling would keep twice of what a slow reader leaves over.
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.bytes.reserve_exact(length - written);
        for part in parts {
            let skipped = skip.min(part.len());
            skip -= skipped;
            self.push(&part[skipped..]);
        }
        Ok(written)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::task::Waker;
    use tokio::io::DuplexStream;

    impl Stream for DuplexStream {
        fn send_room(&self) -> usize {
            KEPT
        }

        fn reset_on_close(&self) {}
    }

    #[test]
    fn what_a_sink_does_not_take_is_kept_in_order() {
        let (mut sink, mut other) = tokio::io::duplex(4);
        let mut cx = Context::from_waker(Waker::noop());
        let mut pending = Pending::default();
        let written = pending
            .write(&mut sink, &mut cx, &[b"ab", b"cdef", b"gh"])
            .unwrap();
        let mut seen = Vec::new();
        let mut total = written as u64;
        loop {
            let done = pending
                .poll_flush(&mut sink, &mut cx, &mut total)
                .is_ready();
            let mut buffer = [0; 3];
            if let Poll::Ready(Ok(n)) = poll_read(&mut other, &mut cx, &mut buffer) {
                seen.extend_from_slice(&buffer[..n]);
            } else if done {
                break;
            }
        }
        assert_eq!((seen.as_slice(), total), (b"abcdefgh".as_slice(), 8));
        assert!(pending.is_empty());
    }

    #[test]
    fn reads_grow_while_writes_go_through_and_shrink_when_they_do_not() {
        let (sink, _other) = tokio::io::duplex(4);
        let mut size = ReadSize::default();
        assert_eq!(size.next(&sink), SMALL_READ);
        size.learn(SMALL_READ, SMALL_READ - 1, true);
        assert_eq!(
            size.next(&sink),
            SMALL_READ,
            "a short read says that there is no more"
        );
        for _ in 0..10 {
            size.learn(1, 1, true);
        }
        assert_eq!(
            size.next(&sink),
            KEPT,
            "never more than the sink has room for"
        );
        size.learn(1, 1, false);
        assert_eq!(size.next(&sink), SMALL_READ);
    }
}
