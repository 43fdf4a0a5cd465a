//! The request's way through an exchange: the head that is ready, then the body piece by piece, to the backend.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::{End, PollContext, READ_AHEAD, RequestSink, RequestSource, SourceError};
use crate::proxy::http::reply::reason_of;
use crate::proxy::read_size::{ReadSize, SMALL_READ, TURN, largest_read};
use crate::telemetry::outcome::Reason;

/// How long the rest of a request that nobody wants is read and thrown away while its response is under way, in
/// milliseconds: many clients send all of their request before they look at the response.
const DISCARD_MS: u64 = 30_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    /// Bytes from the client, the head included.
    pub(crate) bytes_in: u64,
    /// Payload of the body so far.
    pub(super) body_bytes: u64,
    body_limit: u64,
    /// All of the request has come from the client.
    pub(crate) is_whole: bool,
    /// All of it has gone to the backend.
    pub(crate) is_sent: bool,
    /// When it had.
    pub(super) sent_at: Option<Instant>,
    /// Body bytes beyond those that came with the head have gone: it cannot be sent again.
    is_streamed: bool,
    /// The backend takes no more of the request. It may still respond.
    pub(super) is_closed: bool,
    /// A write has met the backend's reset, which no read will show any more.
    pub(super) met_reset: bool,
    /// Something waits for the backend, as of the last poll.
    pub(super) is_sending: bool,
    /// Body bytes that the backend has not taken, as of the last poll.
    pub(super) kept: usize,
    /// Until when the rest of the request is thrown away, once that has begun; 0 once it is over.
    discard_until: Option<u64>,
    read_size: ReadSize,
    /// When the client was read last, or was last not waited for; milliseconds, as all of these.
    pub(super) last_read: u64,
    /// When the backend took something last.
    pub(super) last_write: u64,
}

impl Upload {
    /// At `now`, with nothing of the body.
    pub(super) fn new(body_limit: u64, now: u64) -> Self {
        Self {
            body_limit,
            last_read: now,
            ..Self::default()
        }
    }

    /// Takes what came with the head: so many `bytes`, with so much of the body, which is `whole` or is still `announced`
    /// to have more.
    ///
    /// # Errors
    /// The body is too large.
    pub(crate) fn take_early(
        &mut self,
        bytes: usize,
        payload: usize,
        whole: bool,
        announced: u64,
    ) -> Result<(), Reason> {
        self.bytes_in = bytes as u64;
        self.body_bytes = payload as u64;
        self.is_whole = whole;
        self.check_size(announced)
    }

    fn check_size(&self, announced: u64) -> Result<(), Reason> {
        if self.body_bytes.saturating_add(announced) > self.body_limit {
            Err(Reason::BodyTooLarge)
        } else {
            Ok(())
        }
    }

    /// Begins an attempt at `now`.
    pub(super) fn begin_attempt(&mut self, now: u64) {
        self.is_sent = false;
        self.sent_at = None;
        self.is_closed = false;
        self.met_reset = false;
        self.is_sending = true;
        self.discard_until = None;
        self.last_read = now;
        self.last_write = now;
    }

    /// Whether all of the request is still at hand.
    pub(crate) fn is_at_hand(&self) -> bool {
        self.is_whole && !self.is_streamed
    }

    /// Client to backend: moves what can be moved, and says whether the client is being read. `kept` is what the other
    /// direction keeps.
    pub(super) fn poll<C: RequestSource, B: RequestSink>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        backend: &mut B,
        io: &mut PollContext<'_>,
        kept: usize,
    ) -> Result<bool, End> {
        let mut turn = 0;
        loop {
            if self.is_closed && !self.is_whole {
                return self.discard(cx, client, io);
            }
            if self.is_closed || self.is_sent {
                return client.poll_ahead(cx, io.scratch).map_err(end_of);
            }
            match self.push(cx, client, backend, io) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.close(&error);
                    continue;
                }
                Poll::Pending => return Ok(false),
            }
            if self.is_whole {
                continue;
            }
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Ok(true);
            }
            match self.pull(cx, client, backend, io, kept) {
                Poll::Ready(read) => turn += read?,
                Poll::Pending => return Ok(true),
            }
        }
    }

    /// The backend takes no more.
    fn close(&mut self, error: &io::Error) {
        self.is_closed = true;
        // A backend that had ended in order before is a broken pipe.
        self.met_reset = error.kind() == io::ErrorKind::ConnectionReset;
    }

    /// Sends what waits for the backend.
    fn push<C: RequestSource, B: RequestSink>(
        &mut self,
        cx: &mut Context<'_>,
        client: &C,
        backend: &mut B,
        io: &PollContext<'_>,
    ) -> Poll<io::Result<()>> {
        let was_full = backend.unsent() > 0;
        let mut sent = 0;
        let flushed = backend.poll_flush(cx, io.head, &mut sent);
        if sent > 0 {
            self.last_write = io.now;
        }
        ready!(flushed)?;
        if was_full {
            // The client was not read for so long.
            self.last_read = io.now;
        }
        self.note_sent(client, backend, io);
        Poll::Ready(Ok(()))
    }

    fn note_sent<C: RequestSource, B: RequestSink>(
        &mut self,
        client: &C,
        backend: &B,
        io: &PollContext<'_>,
    ) {
        self.is_whole = client.is_whole();
        self.is_sent = self.is_whole && !backend.is_sending();
        if self.is_sent && self.sent_at.is_none() {
            self.sent_at = Some(io.instant);
        }
    }

    /// Reads a piece of the body and writes it on.
    fn pull<C: RequestSource, B: RequestSink>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        backend: &mut B,
        io: &mut PollContext<'_>,
        kept: usize,
    ) -> Poll<Result<usize, End>> {
        // After a body of known length little is read: it belongs to the next request.
        let rest = usize::try_from(client.announced()).unwrap_or(usize::MAX);
        let most = largest_read(io.scratch.len(), kept);
        let asked = self
            .read_size
            .next(|| backend.send_room(), most)
            .min(rest.saturating_add(READ_AHEAD));
        let piece = ready!(client.poll_body(cx, &mut io.scratch[..asked])).map_err(end_of)?;
        self.bytes_in += piece.read as u64;
        self.last_read = io.now;
        self.body_bytes += piece.payload as u64;
        self.check_size(client.announced()).map_err(End::Client)?;
        self.is_streamed = true;
        let end = client.is_whole().then(|| client.trailers());
        match backend.write(cx, &io.scratch[..piece.payload], end) {
            Ok(Some(whole)) => self.read_size.learn(asked, piece.read, whole),
            Ok(None) => {}
            Err(error) => self.close(&error),
        }
        self.note_sent(client, backend, io);
        self.last_write = io.now;
        Poll::Ready(Ok(piece.read))
    }

    /// Reads the rest of a request that the backend does not take, so that a client which sends all of it first comes to
    /// read the response. Bounded in time; says whether the client is being read.
    fn discard<C: RequestSource>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        io: &mut PollContext<'_>,
    ) -> Result<bool, End> {
        let until = *self
            .discard_until
            .get_or_insert(io.now.saturating_add(DISCARD_MS));
        let mut turn = 0;
        while io.now < until && !self.is_whole {
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Ok(true);
            }
            match client.poll_body(cx, &mut io.scratch[..SMALL_READ]) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Err(SourceError::Left)) => return Err(end_of(SourceError::Left)),
                Poll::Ready(Err(SourceError::Refused(_))) => {
                    self.discard_until = Some(0);
                    return Ok(false);
                }
                Poll::Ready(Ok(piece)) => {
                    turn += piece.read;
                    self.bytes_in += piece.read as u64;
                    // What is thrown away cannot be sent again.
                    self.is_streamed = true;
                    self.is_whole = client.is_whole();
                }
            }
        }
        if self.is_whole {
            client.poll_ahead(cx, io.scratch).map_err(end_of)
        } else {
            Ok(false)
        }
    }
}

/// What it means for the exchange that no more of a request comes.
fn end_of(error: SourceError) -> End {
    End::Client(match error {
        SourceError::Left => Reason::ClientLeft,
        SourceError::Refused(refusal) => reason_of(refusal),
    })
}
