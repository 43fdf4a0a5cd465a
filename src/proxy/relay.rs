//! The verb relay, for bytes: two connections joined until both sides have ended, with back-pressure and half-close.
//!
//! The end of one side's sending is passed on while the other direction continues. A reset is passed on as a reset, after
//! what the other direction still had to say.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::buffer::Unsent;
use super::client::ClientGuard;
use super::context::WorkerContext;
use super::deadlines::{Activity, Fired};
use super::read_size::{ReadSize, TURN, largest_read};
use crate::telemetry::outcome::Reason;
use crate::transport::connect::Connector;
use crate::transport::stream::Stream;

/// Two connections that are to be joined.
pub(crate) struct Join<'a, S> {
    /// The client's.
    pub(crate) client: &'a mut S,
    /// The backend's.
    pub(crate) backend: &'a mut S,
    /// What was read of them already.
    pub(crate) relay: Relay,
    /// How long both may be silent.
    pub(crate) silence: Duration,
    /// What the connection counts as until the first byte has moved.
    pub(crate) activity: Activity,
}

/// What two joined connections came to.
#[derive(Debug)]
pub(crate) struct Joined {
    /// Bytes from the client.
    pub(crate) bytes_up: u64,
    /// Bytes to the client.
    pub(crate) bytes_down: u64,
    /// What ended them, if that was not the two sides in order.
    pub(crate) reason: Option<Reason>,
}

impl<S: Stream> Join<'_, S> {
    /// Moves bytes both ways until the end.
    pub(crate) async fn run<T: Connector>(
        self,
        guard: &ClientGuard,
        ctx: &WorkerContext<T>,
    ) -> Joined {
        let Join {
            client,
            backend,
            mut relay,
            silence,
            activity,
        } = self;
        let slot = &guard.slot;
        slot.set_deadline(silence);
        slot.begin_session();
        slot.set_activity(activity);
        let sheet = guard.sheet();
        // What was read before is counted already.
        let mut early = relay.early_up();
        let ended = poll_fn(|cx| {
            if let Poll::Ready(fired) = slot.poll_fired(cx) {
                return Poll::Ready(Err(fired));
            }
            let mut moved = false;
            let before = (relay.bytes_up(), relay.bytes_down());
            let now = ctx.deadlines.now();
            let scratch = &mut ctx.scratch.borrow_mut()[..ctx.reads.largest(now)];
            let end = relay.poll(cx, client, backend, scratch, &mut moved);
            ctx.reads.learn(relay.kept(), now);
            let up = relay.bytes_up() - before.0;
            let known = early.min(up);
            early -= known;
            sheet.bytes_in.add(up - known);
            sheet.bytes_out.add(relay.bytes_down() - before.1);
            if moved {
                slot.set_activity(Activity::Busy);
                slot.set_deadline(silence);
            }
            end.map(Ok)
        })
        .await;
        if ended.is_err() {
            // Neither side may take what it got for the whole.
            client.reset_on_close();
            backend.reset_on_close();
        }
        let reason = match ended {
            Ok(RelayEnd::Closed) => None,
            Ok(RelayEnd::ClientReset) => Some(Reason::ClientLeft),
            Ok(RelayEnd::BackendReset) => Some(Reason::BackendReset),
            Err(Fired::Deadline) => Some(Reason::IdleTunnel),
            Err(Fired::Drained) => Some(slot.drained_for()),
            Err(Fired::Evicted) => Some(Reason::Evicted),
        };
        Joined {
            bytes_up: relay.bytes_up(),
            bytes_down: relay.bytes_down(),
            reason,
        }
    }
}

/// How a joined pair ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelayEnd {
    /// Both sides ended in order.
    Closed,
    /// The client broke off.
    ClientReset,
    /// The backend broke off.
    BackendReset,
}

/// The state of a joined pair.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    up: Direction,
    down: Direction,
}

#[derive(Debug, Default)]
struct Direction {
    kept: Unsent,
    read_size: ReadSize,
    bytes: u64,
    phase: Phase,
    /// A write has met the sink's reset, which no read from it will show any more: it would look like an end in order.
    was_reset: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// The source has ended; the sink must be told.
    Ended,
    /// The sink has been told.
    Closed,
    /// The source was reset.
    SourceReset,
    /// The sink takes no more.
    SinkReset,
}

impl Relay {
    /// With bytes that were read already: `up` from the client, `down` from the backend.
    pub(crate) fn with_early(up: &[u8], down: &[u8]) -> Self {
        let mut relay = Self::default();
        relay.up.kept.push(up);
        relay.down.kept.push(down);
        relay
    }

    /// Bytes from the client that were read before the two were joined and wait for the backend.
    pub(crate) fn early_up(&self) -> u64 {
        self.up.kept.len() as u64
    }

    /// Bytes given to the backend so far.
    pub(crate) fn bytes_up(&self) -> u64 {
        self.up.bytes
    }

    /// Bytes given to the client so far.
    pub(crate) fn bytes_down(&self) -> u64 {
        self.down.bytes
    }

    /// What the fuller direction keeps of what was read and not taken yet.
    pub(crate) fn kept(&self) -> usize {
        self.up.kept.len().max(self.down.kept.len())
    }

    /// Moves what can be moved. `moved` says whether anything was.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut impl Stream,
        backend: &mut impl Stream,
        scratch: &mut [u8],
        moved: &mut bool,
    ) -> Poll<RelayEnd> {
        let most = largest_read(scratch.len(), self.down.kept.len());
        let lost = self.down.was_reset;
        *moved |= self
            .up
            .advance(cx, client, backend, &mut scratch[..most], lost);
        let most = largest_read(scratch.len(), self.up.kept.len());
        let lost = self.up.was_reset;
        *moved |= self
            .down
            .advance(cx, backend, client, &mut scratch[..most], lost);
        let end = match (self.up.phase, self.down.phase) {
            (Phase::Closed, Phase::Closed) => RelayEnd::Closed,
            (Phase::SourceReset, _) | (_, Phase::SinkReset) => RelayEnd::ClientReset,
            // The backend may have answered before it broke off: that is passed on first.
            (_, Phase::SourceReset) | (Phase::SinkReset, Phase::Closed) => RelayEnd::BackendReset,
            _ => return Poll::Pending,
        };
        match end {
            RelayEnd::Closed => {}
            RelayEnd::ClientReset => backend.reset_on_close(),
            RelayEnd::BackendReset => client.reset_on_close(),
        }
        Poll::Ready(end)
    }
}

impl Direction {
    /// Moves what can be moved from `source` to `sink`; says whether anything was. A source that is `lost` has no end in
    /// order.
    fn advance(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Stream,
        sink: &mut impl Stream,
        scratch: &mut [u8],
        lost: bool,
    ) -> bool {
        let mut turn = 0;
        let before = self.bytes;
        let mut moved = false;
        if matches!(self.phase, Phase::Closed | Phase::SinkReset) {
            return false;
        }
        loop {
            match self.step(cx, source, sink, scratch) {
                Ok(Poll::Ready(0)) => {}
                Ok(Poll::Ready(n)) => {
                    moved = true;
                    turn += n;
                }
                // A part of what was kept may have gone.
                Ok(Poll::Pending) => return moved || self.bytes != before,
                Err(error) => {
                    self.phase = Phase::SinkReset;
                    // A sink that had ended in order before is a broken pipe.
                    self.was_reset = error.kind() == io::ErrorKind::ConnectionReset;
                }
            }
            if lost && self.phase == Phase::Ended {
                self.phase = Phase::SourceReset;
            }
            match self.phase {
                Phase::Open | Phase::Ended => {}
                Phase::Closed | Phase::SourceReset | Phase::SinkReset => return moved,
            }
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return moved;
            }
        }
    }

    /// One write of what is kept, one read with its write, or the end passed on. The number is what was read.
    /// An error is the sink's.
    fn step(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Stream,
        sink: &mut impl Stream,
        scratch: &mut [u8],
    ) -> io::Result<Poll<usize>> {
        if !self.kept.is_empty() {
            return match self.kept.poll_flush(sink, cx, &mut self.bytes) {
                Poll::Ready(Ok(())) => Ok(Poll::Ready(1)),
                Poll::Ready(Err(error)) => Err(error),
                Poll::Pending => Ok(Poll::Pending),
            };
        }
        if self.phase == Phase::Ended {
            return match Pin::new(sink).poll_shutdown(cx) {
                Poll::Ready(result) => {
                    self.phase = Phase::Closed;
                    // A side that is gone already has been told well enough.
                    let _: Result<(), io::Error> = result;
                    Ok(Poll::Ready(0))
                }
                Poll::Pending => Ok(Poll::Pending),
            };
        }
        let asked = self.read_size.next(|| sink.send_room(), scratch.len());
        match source.poll_receive(cx, &mut scratch[..asked]) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Err(_)) => {
                self.phase = Phase::SourceReset;
                Ok(Poll::Ready(0))
            }
            Poll::Ready(Ok(0)) => {
                self.phase = Phase::Ended;
                Ok(Poll::Ready(0))
            }
            Poll::Ready(Ok(read)) => {
                let written = self.kept.write(sink, cx, &[&scratch[..read]])?;
                self.bytes += written as u64;
                self.read_size.learn(asked, read, written == read);
                Ok(Poll::Ready(read))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::read_size::KEPT;
    use crate::transport::conn::EndName;
    use std::task::Waker;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, duplex};

    #[tokio::test]
    async fn both_ways_with_half_close() {
        let (mut client, mut client_end) = duplex(16);
        let (mut backend, mut backend_end) = duplex(16);
        let mut relay = Relay::with_early(b"early ", b"");
        let mut scratch = vec![0; 1 << 20];
        let joined = poll_fn(|cx| {
            relay.poll(
                cx,
                &mut client_end,
                &mut backend_end,
                &mut scratch,
                &mut false,
            )
        });
        let talk = async {
            client
                .write_all(b"a question longer than the pipe")
                .await
                .unwrap();
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let serve = async {
            let mut question = String::new();
            backend.read_to_string(&mut question).await.unwrap();
            backend
                .write_all(b"an answer after the end of the question")
                .await
                .unwrap();
            backend.shutdown().await.unwrap();
            question
        };
        let (end, answer, question) = tokio::join!(joined, talk, serve);
        assert_eq!(end, RelayEnd::Closed);
        assert_eq!(question, "early a question longer than the pipe");
        assert_eq!(answer, "an answer after the end of the question");
        assert_eq!((relay.bytes_up(), relay.bytes_down()), (37, 39));
    }

    /// A peer that has said something and was reset: a write meets the reset, and what can be read then is what was said
    /// and an end.
    struct Reset(&'static [u8], io::ErrorKind);

    impl AsyncRead for Reset {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buffer.put_slice(std::mem::take(&mut self.0));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Reset {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(self.1.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Stream for Reset {
        fn send_room(&self) -> usize {
            KEPT
        }

        fn reset_on_close(&self) {}

        fn send_queue(&self) -> usize {
            0
        }

        fn peer_has_ended(&self) -> bool {
            true
        }

        fn is_idle(&self) -> bool {
            false
        }

        fn seems_idle(&self) -> bool {
            false
        }

        fn peer_name(&self) -> Option<EndName> {
            None
        }
    }

    #[tokio::test]
    async fn a_reset_that_a_write_has_met_is_no_end_in_order() {
        for (kind, ended) in [
            (io::ErrorKind::ConnectionReset, false),
            (io::ErrorKind::BrokenPipe, true),
        ] {
            let (mut client, mut client_end) = duplex(64);
            let mut backend = Reset(b"partial", kind);
            client.write_all(b"x").await.unwrap();
            let mut relay = Relay::default();
            let mut scratch = vec![0; 1 << 20];
            let end = poll_fn(|cx| {
                relay.poll(cx, &mut client_end, &mut backend, &mut scratch, &mut false)
            });
            assert_eq!(end.await, RelayEnd::BackendReset);
            let mut said = [0; 7];
            client.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"partial");
            // The end of the sending side alone is what a client takes for the whole.
            let mut cx = Context::from_waker(Waker::noop());
            let mut rest = [0; 1];
            let next = client.poll_receive(&mut cx, &mut rest);
            assert_eq!(matches!(next, Poll::Ready(Ok(0))), ended, "{kind}");
        }
    }
}
