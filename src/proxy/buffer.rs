//! What is kept of a byte stream: what a slow reader has not taken ([`Unsent`]), and buffers that a connection keeps.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::read_size::SMALL_READ;
use crate::transport::stream::Stream;

/// Slices of one vectored write.
pub(crate) const MOST_PARTS: usize = 7;

/// Appends to a buffer that a connection keeps. A large one grows by what comes: doubling could hold twice its limit.
pub(crate) fn append(buffer: &mut Vec<u8>, bytes: &[u8]) {
    if buffer.capacity() - buffer.len() < bytes.len() && buffer.len() >= SMALL_READ {
        buffer.reserve_exact(bytes.len().max(SMALL_READ));
    }
    buffer.extend_from_slice(bytes);
}

/// What a sink has not taken yet. Holds no memory while it is empty. While something is kept, nothing more is read from
/// the source (back-pressure).
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    bytes: Vec<u8>,
    start: usize,
}

impl Unsent {
    /// Whether everything was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes of memory that it takes: those that were written already go with the last of them.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Keeps `bytes`, after what is kept already.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        if self.bytes.capacity() > 0 {
            *self = Self::default();
        }
    }

    /// Writes as much as the sink takes; ready when nothing is left. The number of bytes written is added to
    /// `written`.
    pub(crate) fn poll_flush(
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

    /// Writes `parts` (at most [`MOST_PARTS`]) in one call and keeps what the sink does not take. Returns the number of
    /// bytes written. Nothing may be kept before.
    ///
    /// # Errors
    /// What the system said; the sink cannot be used again.
    pub(crate) fn write(
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
mod tests {
    use super::*;
    use std::task::Waker;
    use tokio::io::DuplexStream;

    use crate::proxy::read_size::KEPT;
    use crate::transport::conn::EndName;

    impl Stream for DuplexStream {
        fn send_room(&self) -> usize {
            KEPT
        }

        fn send_queue(&self) -> usize {
            0
        }

        fn reset_on_close(&self) {}

        fn peer_has_ended(&self) -> bool {
            false
        }

        fn is_idle(&self) -> bool {
            true
        }

        fn seems_idle(&self) -> bool {
            true
        }

        fn peer_name(&self) -> Option<EndName> {
            None
        }
    }

    #[test]
    fn what_a_sink_does_not_take_is_kept_in_order() {
        let (mut sink, mut other) = tokio::io::duplex(4);
        let mut cx = Context::from_waker(Waker::noop());
        let mut unsent = Unsent::default();
        let written = unsent
            .write(&mut sink, &mut cx, &[b"ab", b"cdef", b"gh"])
            .unwrap();
        let mut seen = Vec::new();
        let mut total = written as u64;
        loop {
            let done = unsent.poll_flush(&mut sink, &mut cx, &mut total).is_ready();
            let mut buffer = [0; 3];
            if let Poll::Ready(Ok(n)) = other.poll_receive(&mut cx, &mut buffer) {
                seen.extend_from_slice(&buffer[..n]);
            } else if done {
                break;
            }
        }
        assert_eq!((seen.as_slice(), total), (b"abcdefgh".as_slice(), 8));
        assert!(unsent.is_empty());
    }
}
