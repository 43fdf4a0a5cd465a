//! Bytes from one socket to the next: how much to read, and what a slow reader leaves over.
//!
//! A read goes into the worker's scratch buffer and from there straight to the other side. Only what that does not
//! take is kept, with the connection, and while something is kept nothing more is read (back-pressure). A read
//! begins at [`KEPT`] (a body of 64 KiB then costs 25 µs, where reads that grow from 16 KiB cost 40), grows to the whole
//! scratch buffer only while writes go through whole, and falls to [`SMALL_READ`] when one does not. One of more than
//! [`KEPT`] bytes is made only if the other side says that it has room for it now. A kernel that is short of memory
//! takes less than it said: both directions of a connection then keep at most [`LARGEST_READ`], and the worker makes
//! do with small reads for a while ([`Reads`]).

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::transport::conn::Conn;
use crate::transport::{room, socket, stream};

/// Read of a head, and of a body whose sink has just not taken all.
pub const SMALL_READ: usize = 16 << 10;
/// What one direction of a connection may keep of what the other side has not taken, if that takes what it said it
/// would.
pub(crate) const KEPT: usize = 64 << 10;
/// The largest read, and about what both directions of a connection together keep at the very most. Bulk costs 290 ms
/// of CPU a GB with 512 KiB, 261 with 640 KiB and no less with 1 MiB (medians on one machine).
pub const LARGEST_READ: usize = 640 << 10;
/// How long a worker reads no more than [`KEPT`] at a time after a sink took less than it said it would.
const CAUTION_MS: u64 = 1000;
/// Bytes that one connection moves in one direction before others have their turn.
pub(crate) const TURN: usize = 2 << 20;

/// Slices of one vectored write.
pub(crate) const MOST_PARTS: usize = 6;

/// A connection that bytes are moved over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Reads what there is, at most `buffer.len()` bytes; 0 is the end.
    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        Pin::new(self)
            .poll_read(cx, &mut buffer)
            .map_ok(|()| buffer.filled().len())
    }
    /// Writes as much of `bytes` as it takes.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(cx, bytes)
    }
    /// About how many bytes a write would take now.
    fn send_room(&self) -> usize;
    /// Makes the coming close a reset.
    fn reset_on_close(&self);
    /// Bytes that the system holds for the other side, which has not acknowledged them.
    fn send_queue(&self) -> usize;
    /// Whether the other side has ended its sending or broken off, even if there are bytes of it yet to be read.
    fn peer_has_ended(&self) -> bool;
}

impl Stream for Conn {
    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        stream::poll_receive(self, cx, buffer)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        stream::poll_send(self, cx, bytes)
    }

    fn send_room(&self) -> usize {
        room::send_room(self)
    }

    fn reset_on_close(&self) {
        socket::reset_on_close(self);
    }

    fn send_queue(&self) -> usize {
        room::send_queue(self)
    }

    fn peer_has_ended(&self) -> bool {
        socket::peer_has_ended(self)
    }
}

/// How large the next read of one direction is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadSize(u32);

impl Default for ReadSize {
    fn default() -> Self {
        Self(KEPT as u32)
    }
}

impl ReadSize {
    /// Bytes to read for `sink`, at most `most`.
    pub(crate) fn next(self, sink: &impl Stream, most: usize) -> usize {
        let size = (self.0 as usize).min(most);
        if size <= KEPT {
            size
        } else {
            sink.send_room().clamp(KEPT, size)
        }
    }

    /// Learns from a read of `read` bytes (of `asked`) that was written whole, or was not.
    pub(crate) fn learn(&mut self, asked: usize, read: usize, whole: bool) {
        if !whole {
            self.0 = SMALL_READ as u32;
        } else if read == asked {
            self.0 = (self.0 * 2).min(LARGEST_READ as u32);
        }
    }
}

/// The largest read that one direction may make into `scratch` bytes while the rest of its connection keeps `kept`.
pub(crate) fn largest_read(scratch: usize, kept: usize) -> usize {
    scratch.saturating_sub(kept).max(SMALL_READ).min(scratch)
}

/// How large a worker's reads may be.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    careful_until: Cell<u64>,
}

impl Reads {
    /// The largest read at `now`, in the worker's milliseconds.
    pub(crate) fn largest(&self, now: u64) -> usize {
        if now < self.careful_until.get() {
            KEPT
        } else {
            LARGEST_READ
        }
    }

    /// Learns what one direction of a connection keeps after a call that moved its bytes. More than a read of [`KEPT`]
    /// with a head before it, which nothing was promised for, means that the kernel is short of memory, for all
    /// connections alike.
    pub(crate) fn learn(&self, kept: usize, now: u64) {
        if kept > 2 * KEPT {
            self.careful_until.set(now + CAUTION_MS);
        }
    }
}

/// Sees whether a peer takes what the system holds for it: a socket becomes writable again only when a good part of its
/// queue has gone, which a slow reader may need minutes for.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Backlog(usize);

impl Backlog {
    /// Whether there is less than at the last look.
    pub(crate) fn has_shrunk(&mut self, sink: &impl Stream) -> bool {
        let before = std::mem::replace(&mut self.0, sink.send_queue());
        self.0 < before
    }
}

/// Appends to a buffer that a connection keeps. A large one grows by what comes: doubling could hold twice its limit.
pub(crate) fn keep(buffer: &mut Vec<u8>, bytes: &[u8]) {
    if buffer.capacity() - buffer.len() < bytes.len() && buffer.len() >= SMALL_READ {
        buffer.reserve_exact(bytes.len().max(SMALL_READ));
    }
    buffer.extend_from_slice(bytes);
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

    /// Bytes of memory that it takes: those that were written already go with the last of them.
    pub fn len(&self) -> usize {
        self.bytes.len()
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
            match sink.poll_send(cx, &self.bytes[self.start..]) {
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
            [only] => sink.poll_send(cx, only),
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

        fn send_queue(&self) -> usize {
            0
        }

        fn peer_has_ended(&self) -> bool {
            false
        }
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
            if let Poll::Ready(Ok(n)) = other.poll_receive(&mut cx, &mut buffer) {
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
        assert_eq!(size.next(&sink, LARGEST_READ), KEPT);
        size.learn(KEPT, 1, false);
        assert_eq!(size.next(&sink, LARGEST_READ), SMALL_READ);
        size.learn(SMALL_READ, SMALL_READ - 1, true);
        assert_eq!(
            size.next(&sink, LARGEST_READ),
            SMALL_READ,
            "a short read says that there is no more"
        );
        for _ in 0..10 {
            size.learn(1, 1, true);
        }
        assert_eq!(
            size.next(&sink, LARGEST_READ),
            KEPT,
            "never more than the sink has room for"
        );
        assert_eq!(size.next(&sink, 100), 100);
        size.learn(1, 1, false);
        assert_eq!(size.next(&sink, LARGEST_READ), SMALL_READ);
    }

    #[test]
    fn what_is_kept_makes_the_reads_of_the_connection_smaller() {
        assert_eq!(largest_read(LARGEST_READ, 0), LARGEST_READ);
        assert_eq!(largest_read(LARGEST_READ, 100), LARGEST_READ - 100);
        assert_eq!(
            largest_read(LARGEST_READ, LARGEST_READ),
            SMALL_READ,
            "a read of nothing would look like an end"
        );
        assert_eq!(largest_read(10, 0), 10);
    }

    #[test]
    fn a_broken_promise_makes_the_worker_careful_for_a_while() {
        let reads = Reads::default();
        reads.learn(2 * KEPT, 5);
        assert_eq!(reads.largest(5), LARGEST_READ);
        reads.learn(2 * KEPT + 1, 5);
        assert_eq!(reads.largest(5 + CAUTION_MS - 1), KEPT);
        assert_eq!(reads.largest(5 + CAUTION_MS), LARGEST_READ);
    }
}
