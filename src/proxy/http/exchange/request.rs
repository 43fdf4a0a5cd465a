//! The client's side of an exchange: the head that is ready, then the body piece by piece, to the backend.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use super::{DISCARD_MS, Desk, End, Exchange, READ_AHEAD, frame};
use crate::http1::chunked::SizeLine;
use crate::proxy::flow::{SMALL_READ, Stream, TURN, keep, largest_read};
use crate::proxy::http::reply::reason_of;
use crate::telemetry::outcome::Reason;

impl Exchange {
    /// Client to backend: moves what can be moved, and says whether the client is being read.
    pub(super) fn poll_request<C: Stream, B: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        carry: &mut Vec<u8>,
        backend: &mut B,
        desk: &mut Desk<'_>,
    ) -> Result<bool, End> {
        let mut turn = 0;
        loop {
            if self.deaf && !self.body.is_done() {
                return self.discard_request(cx, client, carry, desk);
            }
            if self.deaf || self.is_sent() {
                return self.watch_client(cx, client, carry, desk);
            }
            match self.push_request(cx, backend, desk.now) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.turn_deaf(&error);
                    continue;
                }
                Poll::Pending => return Ok(false),
            }
            if self.body.is_done() {
                continue;
            }
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Ok(true);
            }
            match self.pull_request(cx, client, carry, backend, desk) {
                Poll::Ready(read) => turn += read?,
                Poll::Pending => return Ok(true),
            }
        }
    }

    /// The backend takes no more.
    fn turn_deaf(&mut self, error: &io::Error) {
        self.deaf = true;
        // A backend that had ended in order before is a broken pipe.
        self.was_reset = error.kind() == io::ErrorKind::ConnectionReset;
    }

    /// Writes what waits for the backend.
    fn push_request<B: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        backend: &mut B,
        now: u64,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            match backend.poll_send(cx, &self.out[self.sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => {
                    self.sent += n;
                    self.since.backend_write = now;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if !self.up.is_empty() {
            let mut written = 0;
            let result = self.up.poll_flush(backend, cx, &mut written);
            if written > 0 {
                self.since.backend_write = now;
            }
            if result.is_ready() {
                // The client was not read for so long.
                self.since.client_read = now;
            }
            return result;
        }
        if self.body.is_done() && self.sent_at.is_none() {
            self.sent_at = Some(Instant::now());
        }
        Poll::Ready(Ok(()))
    }

    /// Reads a piece of the body and writes it on.
    fn pull_request<C: Stream, B: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        carry: &mut Vec<u8>,
        backend: &mut B,
        desk: &mut Desk<'_>,
    ) -> Poll<Result<usize, End>> {
        // Behind a body of known length little is read: it belongs to the next request.
        let rest = usize::try_from(self.body.announced()).unwrap_or(usize::MAX);
        let kept = self.down.len() + self.response.partial.len();
        let asked = self
            .up_size
            .next(backend, largest_read(desk.scratch.len(), kept))
            .min(rest.saturating_add(READ_AHEAD));
        let read = match client.poll_receive(cx, &mut desk.scratch[..asked]) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => {
                return Poll::Ready(Err(End::Client(Reason::ClientLeft)));
            }
            Poll::Ready(Ok(read)) => read,
        };
        self.facts.bytes_in += read as u64;
        self.bytes_read += read as u64;
        self.since.client_read = desk.now;
        let bytes = &mut desk.scratch[..read];
        self.trailers.clear();
        let piece = match self.body.read_in_place(bytes, &mut self.trailers) {
            Ok(piece) => piece,
            Err(refusal) => return Poll::Ready(Err(End::Client(reason_of(refusal)))),
        };
        if piece.consumed < read {
            keep(carry, &bytes[piece.consumed..]);
        }
        self.body_bytes += piece.payload as u64;
        if self.is_body_too_large() {
            return Poll::Ready(Err(End::Client(Reason::BodyTooLarge)));
        }
        self.streamed = true;
        let size = self.facts.is_chunked.then(|| SizeLine::new(piece.payload));
        let parts = frame(
            size.as_ref(),
            &bytes[..piece.payload],
            self.body.is_done(),
            &self.trailers,
        );
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > 0 {
            match self.up.write(backend, cx, &parts) {
                Ok(written) => self.up_size.learn(asked, read, written == length),
                Err(error) => self.turn_deaf(&error),
            }
        }
        if self.body.is_done() && self.up.is_empty() {
            self.sent_at = Some(Instant::now());
        }
        self.since.backend_write = desk.now;
        Poll::Ready(Ok(read))
    }

    /// Reads the rest of a request that the backend does not take, so that a client which sends all of it first comes to
    /// read the response. Bounded in time; says whether the client is being read.
    fn discard_request<C: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        carry: &mut Vec<u8>,
        desk: &mut Desk<'_>,
    ) -> Result<bool, End> {
        let until = *self
            .discard_until
            .get_or_insert(desk.now.saturating_add(DISCARD_MS));
        let mut turn = 0;
        while desk.now < until && !self.body.is_done() {
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Ok(true);
            }
            let read = match client.poll_receive(cx, &mut desk.scratch[..SMALL_READ]) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Ok(0) | Err(_)) => return Err(End::Client(Reason::ClientLeft)),
                Poll::Ready(Ok(read)) => read,
            };
            turn += read;
            self.facts.bytes_in += read as u64;
            self.bytes_read += read as u64;
            // What is thrown away cannot be sent again.
            self.streamed = true;
            let bytes = &mut desk.scratch[..read];
            self.trailers.clear();
            match self.body.read_in_place(bytes, &mut self.trailers) {
                Ok(piece) => keep(carry, &bytes[piece.consumed..]),
                Err(_) => {
                    self.discard_until = Some(0);
                    return Ok(false);
                }
            }
        }
        if self.body.is_done() {
            self.watch_client(cx, client, carry, desk)
        } else {
            Ok(false)
        }
    }

    /// While only the response is awaited: takes a little of what comes next, and notices a client that leaves. Says
    /// whether the client is being read.
    fn watch_client<C: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        carry: &mut Vec<u8>,
        desk: &mut Desk<'_>,
    ) -> Result<bool, End> {
        while self.body.is_done() && carry.len() < READ_AHEAD {
            match client.poll_receive(cx, &mut desk.scratch[..READ_AHEAD - carry.len()]) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Ok(0) | Err(_)) => return Err(End::Client(Reason::ClientLeft)),
                Poll::Ready(Ok(read)) => {
                    self.bytes_read += read as u64;
                    keep(carry, &desk.scratch[..read]);
                }
            }
        }
        Ok(false)
    }
}
