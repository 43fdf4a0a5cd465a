//! One request and its response, as a state machine between two sides.
//!
//! [`Exchange::poll`] moves what can be moved and says how it ended; it owns no socket, no clock and no timer, and holds
//! no scratch memory between two calls. The caller tells it the time, arms the deadline that
//! [`Exchange::next_deadline`] names, decides what is done with a response head before any of it is sent
//! ([`Decision`]), and decides about retries, replies and reuse.
//!
//! The forwarded head and the payload that came with it stay whole in the [`ForwardHead`] until the exchange ends, so the
//! request can be sent again as long as nothing went beyond them and nothing of a response was sent.
//!
//! A client that ends its sending side before its response counts as gone (as in nginx and Envoy): the two cannot be told
//! apart until it is too late.

mod download;
mod limits;
mod sides;
mod upload;

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::download::Download;
pub(crate) use self::limits::Limits;
pub(crate) use self::sides::{
    Additions, BodyPiece, HeadView, RequestSink, RequestSource, ResponseEvent, ResponseSink,
    ResponseSource, SourceError,
};
pub(crate) use self::upload::Upload;
use super::date::DateLine;
use super::head::ForwardHead;
use super::reply::Reply;
use super::request::RequestInfo;
use crate::http1::head::Field;
use crate::telemetry::outcome::{BackendError, Reason, RetryReason};

/// Bytes of further requests that are taken while one is being answered.
pub const READ_AHEAD: usize = 16 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// The request's way.
    pub(crate) upload: Upload,
    /// The response's way.
    pub(crate) download: Download,
    limits: Limits,
}

/// How an exchange (or an attempt at it) ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The response is with the client.
    Complete,
    /// The 101 is with the client: both speak another protocol from here on.
    Upgraded,
    /// The client's fault, or its will.
    Client(Reason),
    /// The backend's fault.
    Backend(BackendError),
    /// The decision on the response head: send the request again.
    Retry(RetryReason),
    /// The decision on the response head: the client gets this in its place.
    Replace(Box<Reply>),
    /// The route's `timeout`.
    TotalTimeout,
    /// The drain ended.
    Drained,
}

/// What is done with a response head, of which the client has got nothing yet.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It is forwarded, with these edits.
    Forward(Edits),
    /// The request is sent again.
    Retry(RetryReason),
    /// The client gets another reply.
    Replace(Box<Reply>),
}

/// What a forwarded response head gets from the proxy.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Edits {
    /// A Via field.
    pub via: bool,
    /// The request's id as X-Request-Id, in place of the backend's.
    pub expose_id: bool,
    /// The client's connection ends after this response.
    pub close: bool,
}

impl Edits {
    /// What is added to a head, of a `date` line and the request's `id`.
    fn additions<'a>(self, date: &'a [u8], id: &'a [u8]) -> Additions<'a> {
        Additions {
            date,
            id: if self.expose_id { id } else { b"" },
            via: self.via,
            close: self.close,
        }
    }
}

/// What decides about a response head; `is_sent` says whether all of the request has gone to the backend.
pub(crate) trait Decide: FnMut(&HeadView<'_>, bool) -> Decision {}

impl<F: FnMut(&HeadView<'_>, bool) -> Decision> Decide for F {}

/// What one call of [`Exchange::poll`] works with.
#[derive(Debug)]
pub(crate) struct PollContext<'a> {
    /// Where reads go.
    pub scratch: &'a mut [u8],
    /// Where the fields of a head are parsed into.
    pub fields: &'a mut Vec<Field>,
    /// Where a head for the client is written.
    pub out: &'a mut Vec<u8>,
    /// The Date of a response that has none.
    pub date: &'a mut DateLine,
    /// The request head.
    pub head: &'a ForwardHead,
    /// The request's id.
    pub id: &'a [u8],
    /// The worker's time, in milliseconds.
    pub now: u64,
    /// The time.
    pub instant: Instant,
}

impl Exchange {
    /// Begins a request whose head has just come, at `now`.
    pub(crate) fn begin(&mut self, limits: Limits, body_limit: u64, now: u64) {
        *self = Self {
            upload: Upload::new(body_limit, now),
            download: Download::default(),
            limits,
        };
    }

    /// Gives back what memory it holds.
    pub(crate) fn release(&mut self) {
        self.download.early = Vec::new();
    }

    /// Begins an attempt: what was learnt from the previous one is forgotten.
    pub(crate) fn begin_attempt(&mut self, (response, body): (Duration, Duration), now: u64) {
        self.limits.begin_attempt(response, body);
        self.upload.begin_attempt(now);
        self.download = Download::new(now);
    }

    /// The route's limit of the whole request, in the table's milliseconds.
    pub(crate) fn total_deadline(&self) -> u64 {
        self.limits.total_at()
    }

    /// Whether the request may be sent again: it is idempotent, all of it is at hand, and nothing of a response has come.
    pub(crate) fn may_repeat(&self, info: RequestInfo) -> bool {
        info.is_idempotent && self.upload.is_at_hand() && !self.download.has_begun
    }

    /// Whether the request and then its response are whole: nothing is lost if the backend's connection ends at once.
    pub(crate) fn is_settled(&self) -> bool {
        self.download.is_done
            && !self.download.is_early
            && !self.upload.is_closed
            && self.upload.is_sent
    }

    /// Whether the backend's connection is fit for the next request. One that was offered another protocol is not, even
    /// if the backend declined: there are parsers that read on in another state (Node's swallows the errors of the next
    /// request). Nor is one that got a body with a method that seldom has one, be it the last chunk alone: a backend that
    /// does not read it takes it for the next request.
    pub(crate) fn backend_is_reusable(&self, info: RequestInfo) -> bool {
        let has_body = info.is_chunked || self.upload.body_bytes > 0;
        self.is_settled()
            && self.download.keep_alive
            && !info.wants_upgrade
            && !(info.may_ignore_body && has_body)
    }

    /// Request sent to response head.
    pub(crate) fn response_time(&self) -> Option<Duration> {
        let head = self.download.head_at?;
        Some(head.saturating_duration_since(self.upload.sent_at?))
    }

    /// Moves what can be moved.
    pub(crate) fn poll<C, B>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        backend: &mut B,
        io: &mut PollContext<'_>,
        decide: &mut impl Decide,
    ) -> Poll<End>
    where
        C: RequestSource + ResponseSink,
        B: RequestSink + ResponseSource,
    {
        match self.advance(cx, client, backend, io, decide) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    fn advance<C, B>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        backend: &mut B,
        io: &mut PollContext<'_>,
        decide: &mut impl Decide,
    ) -> Result<(), End>
    where
        C: RequestSource + ResponseSink,
        B: RequestSink + ResponseSource,
    {
        // Once the request is sent the response comes first: it may be all, and then nobody needs to look at the client.
        let was_sent = self.upload.is_sent;
        let mut client_is_read = true;
        if !was_sent {
            let kept = self.download.kept + backend.partial_head();
            let polled = self.upload.poll(cx, client, backend, io, kept);
            self.upload.kept = backend.unsent();
            client_is_read = polled.map_err(|end| self.meaning_of(end))?;
        }
        let ended = self
            .download
            .poll(cx, backend, client, io, &mut self.upload, decide);
        self.download.kept = client.unsent();
        if let Some(end) = ended {
            return Err(end);
        }
        if was_sent {
            let kept = self.download.kept;
            client_is_read = self.upload.poll(cx, client, backend, io, kept)?;
        }
        self.upload.kept = backend.unsent();
        self.upload.is_sending = !self.upload.is_closed && backend.is_sending();
        self.check_stalled(client, client_is_read, backend, io.now)
            .map_or(Ok(()), |end| Err(self.meaning_of(end)))
    }

    /// What the fuller direction keeps of what was read and not taken yet, in bytes.
    pub(crate) fn kept(&self) -> usize {
        self.upload.kept.max(self.download.kept)
    }

    /// Whether the client has the whole response: what is still under way is the rest of its request.
    fn is_delivered(&self) -> bool {
        self.download.is_done && self.download.kept == 0
    }

    /// What `end` means: nothing that happens to the rest of a request makes a delivered response less complete.
    fn meaning_of(&self, end: End) -> End {
        if self.is_delivered() {
            End::Complete
        } else {
            end
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::proxy::http::h1::backend_side::{BackendSide, BackendState};
    use crate::proxy::http::h1::client_side::{ClientSide, ClientState};

    /// An exchange whose request has gone out, and whose backend says `response` and ends.
    struct Played {
        exchange: Exchange,
        to_client: Vec<u8>,
        end: Option<End>,
    }

    async fn play(
        response: &str,
        prepare: impl FnOnce(&mut Exchange),
        decision: impl Fn() -> Decision,
    ) -> Played {
        let (mut client, mut near) = duplex(4096);
        let (mut backend, mut far) = duplex(4096);
        far.write_all(response.as_bytes()).await.unwrap();
        far.shutdown().await.unwrap();
        let mut exchange = Exchange::default();
        exchange.begin_attempt((Duration::MAX, Duration::MAX), 0);
        (exchange.upload.is_whole, exchange.upload.is_sent) = (true, true);
        prepare(&mut exchange);
        let (mut client_state, mut backend_state) =
            (ClientState::default(), BackendState::default());
        let (mut fields, mut out, mut date) = (Vec::new(), Vec::new(), DateLine::default());
        let mut io = PollContext {
            scratch: &mut vec![0; 64 << 10],
            fields: &mut fields,
            out: &mut out,
            date: &mut date,
            head: &ForwardHead::default(),
            id: b"",
            now: 0,
            instant: Instant::now(),
        };
        let mut cx = Context::from_waker(Waker::noop());
        let polled = exchange.poll(
            &mut cx,
            &mut ClientSide::<DuplexStream> {
                stream: &mut client,
                read_ahead: &mut Vec::new(),
                state: &mut client_state,
            },
            &mut BackendSide {
                stream: &mut backend,
                state: &mut backend_state,
            },
            &mut io,
            &mut |_: &HeadView<'_>, _| decision(),
        );
        drop(client);
        let mut to_client = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut near, &mut to_client)
            .await
            .unwrap();
        Played {
            exchange,
            to_client,
            end: match polled {
                Poll::Ready(end) => Some(end),
                Poll::Pending => None,
            },
        }
    }

    fn forward() -> Decision {
        Decision::Forward(Edits::default())
    }

    #[tokio::test]
    async fn a_body_until_the_end_is_cut_if_a_write_has_met_a_reset() {
        for (met_reset, end) in [(false, "Complete"), (true, "Backend(Reset)")] {
            let response = "HTTP/1.1 200 OK\r\n\r\nthe body";
            let prepare = |exchange: &mut Exchange| exchange.upload.met_reset = met_reset;
            let played = play(response, prepare, forward).await;
            assert_eq!(format!("{:?}", played.end.unwrap()), end);
            let text = String::from_utf8(played.to_client).unwrap();
            // The client sees the last chunk of a complete body alone.
            assert_eq!(text.ends_with("\r\n0\r\n\r\n"), !met_reset, "{text}");
        }
    }

    #[tokio::test]
    async fn nothing_of_a_head_that_is_not_forwarded_reaches_the_client() {
        let response = "HTTP/1.1 503 x\r\nX-Secret: 1\r\nContent-Length: 4\r\n\r\nbody";
        for (decide, end) in [
            (
                (|| Decision::Retry(RetryReason::Reset)) as fn() -> Decision,
                "Retry(Reset)",
            ),
            (
                || Decision::Replace(Box::new(Reply::failure(Reason::NoBackend, false))),
                "Replace(Reply { status: 503",
            ),
        ] {
            let played = play(response, |_| {}, decide).await;
            let shown = format!("{:?}", played.end.unwrap());
            assert!(shown.starts_with(end), "{shown}");
            assert_eq!(played.to_client, b"", "{end}");
            assert!(!played.exchange.download.has_answered);
            assert_eq!(
                played.exchange.download.status,
                Some(503),
                "for the metrics"
            );
        }
    }

    #[tokio::test]
    async fn interim_heads_and_a_cut_body_are_passed_on_as_they_are() {
        let response =
            "HTTP/1.1 103 x\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut";
        let played = play(response, |_| {}, forward).await;
        assert_eq!(format!("{:?}", played.end.unwrap()), "Backend(Reset)");
        let text = String::from_utf8(played.to_client).unwrap();
        assert!(text.starts_with("HTTP/1.1 103 x\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n"));
        assert!(text.ends_with("\r\nContent-Length: 9\r\n\r\ncut"), "{text}");
        assert!(played.exchange.download.has_answered);
    }
}
