//! One request and its response, as a state machine over two streams.
//!
//! [`Exchange::poll`] moves what can be moved and says how it ended; it owns no socket, no clock and no timer, and
//! holds no scratch memory between two calls. The caller tells it the time, arms the deadline that
//! [`Exchange::next_deadline`] names, and decides about retries, answers and reuse.
//!
//! The forwarded head and the body bytes that came with it stay whole in `out` until the exchange ends, so the
//! request can be sent again as long as nothing went beyond them and nothing of a response has come.
//!
//! A client that ends its sending side before its answer counts as gone (as in nginx and Envoy): the two cannot be
//! told apart until it is too late.

mod request;
mod response;
mod timing;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use self::timing::millis;
use super::prepare::HeadSpace;
use super::reply::reason_of;
use crate::http1::body::BodyReader;
use crate::http1::chunked::SizeLine;
use crate::http1::head::HeadEnd;
use crate::http1::request::RequestHead;
use crate::http1::{Framing, Version};
use crate::model::settings::ClusterTimeouts;
use crate::proxy::flow::{Backlog, Pending, ReadSize, SMALL_READ, Stream};
use crate::proxy::load::Held;
use crate::proxy::record::{Capture, KeptNames};
use crate::snapshot::{ClusterIndex, Listener};
use crate::telemetry::outcome::{BackendError, Reason};

/// Bytes of further requests that are taken while one is being answered.
pub const READ_AHEAD: usize = 16 << 10;

/// How long the rest of a request that nobody wants is read and thrown away while its response is under way, in
/// milliseconds: many clients send all of their request before they look at the response.
pub(crate) const DISCARD_MS: u64 = 30_000;

/// What is known of the request, small and plain.
#[derive(Debug, Default)]
pub struct Facts {
    /// When the head was complete.
    pub started: Option<Instant>,
    /// HEAD: its response has no body.
    pub is_head: bool,
    /// May be sent twice.
    pub is_idempotent: bool,
    /// HTTP/1.0.
    pub is_http10: bool,
    /// The client wants the connection kept.
    pub keep_alive: bool,
    /// The client waits for 100 before it sends the body.
    pub expects_continue: bool,
    /// The client offers another protocol.
    pub wants_upgrade: bool,
    /// GET, HEAD, DELETE or OPTIONS: a backend may leave its body unread (RFC 9110 9.3.1, 9.3.2, 9.3.5).
    pub may_ignore_body: bool,
    /// How long the client's connection may rest after this, in whole seconds, if that is announced.
    pub keeps_for: Option<u32>,
    /// Requests and responses get a Via field.
    pub via: bool,
    /// The response carries X-Request-Id.
    pub exposes_id: bool,
    /// The body goes out in chunks.
    pub is_chunked: bool,
    /// Where Host must be put in.
    pub host_gap: Option<usize>,
    /// Hash key.
    pub key: u64,
    /// Cluster, by index.
    pub cluster: Option<ClusterIndex>,
    /// Route, by index.
    pub route: Option<usize>,
    /// The client address.
    pub client: Option<std::net::IpAddr>,
    /// A trusted proxy named the client in a way that nobody understands.
    pub client_unknown: bool,
    /// Backends tried.
    pub attempts: u32,
    /// Time to connect, of the last attempt that did.
    pub connect: Option<Duration>,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    body_limit: u64,
    trailer_limit: usize,
}

/// The response as far as it has come; begun anew with each attempt.
#[derive(Debug, Default)]
pub struct Response {
    /// Any byte has come.
    pub seen: bool,
    /// Status of the final head, once it has come.
    pub status: Option<u16>,
    /// When it came.
    head_at: Option<Instant>,
    /// It began before the request had gone out whole.
    is_early: bool,
    /// The backend keeps its connection, and for how long.
    keep_alive: bool,
    /// `Keep-Alive: timeout` of the backend, seconds.
    pub keep_alive_timeout: Option<u32>,
    /// The client's connection ends behind this response.
    pub close_client: bool,
    /// The client learns of the end of the body by the end of the connection alone.
    pub until_close: bool,
    reader: Option<BodyReader>,
    is_chunked: bool,
    done: bool,
    upgraded: bool,
    /// Bytes came behind the response.
    excess: bool,
    /// Interim responses, and the bytes of their heads.
    interim: u32,
    interim_bytes: usize,
    partial: Vec<u8>,
    head_end: HeadEnd,
    /// What is wrong with it, if it is refused.
    pub cause: Option<&'static str>,
    /// Bytes of the other protocol that came with the 101.
    pub early: Vec<u8>,
}

/// Limits of time, in the milliseconds of the worker's table.
#[derive(Debug, Default, Clone, Copy)]
struct Times {
    request_body: u64,
    write: u64,
    response: u64,
    body: u64,
    total_at: Option<u64>,
}

/// The time of the call at hand, and when something last moved.
#[derive(Debug, Default, Clone, Copy)]
struct Since {
    now: u64,
    client_read: u64,
    client_write: u64,
    backend_read: u64,
    backend_write: u64,
    /// When to look at those who are waited for.
    look_at: Option<u64>,
    client_backlog: Backlog,
    backend_backlog: Backlog,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Exchange {
    /// About the request.
    pub facts: Facts,
    /// For the access log.
    pub capture: Capture,
    /// The generation that the request sees, and the listener's place in it.
    pub view: Option<(Held, usize)>,
    /// The names to record under, once the generation is let go of.
    pub kept_names: Option<KeptNames>,
    /// About the response.
    pub response: Response,
    /// Bytes read from the client while the exchange went on, those of further requests included.
    pub bytes_read: u64,
    /// Members that failed this request.
    pub tried: Vec<u32>,
    /// The forwarded head and the body bytes that came with it.
    pub(super) out: Vec<u8>,
    sent: usize,
    /// Body bytes beyond `out` have gone: it cannot be sent again.
    streamed: bool,
    /// The backend takes no more of the request; it may have answered all the same.
    deaf: bool,
    /// A write has met the backend's reset, which no read will show any more.
    was_reset: bool,
    /// Until when the rest of the request is thrown away, once that has begun; 0 once it is over.
    discard_until: Option<u64>,
    /// The client was told that nothing more comes, while the rest of its request still went to the backend.
    client_ended: bool,
    body: BodyReader,
    body_bytes: u64,
    trailers: Vec<u8>,
    up: Pending,
    down: Pending,
    up_size: ReadSize,
    down_size: ReadSize,
    times: Times,
    since: Since,
    sent_at: Option<Instant>,
    last_backend: Option<Arc<str>>,
}

/// How an exchange (or an attempt at it) ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The response is with the client.
    Complete,
    /// The 101 is with the client: both speak another protocol from here on.
    Upgraded,
    /// The client's fault, or its will.
    Client(Reason),
    /// The backend's fault.
    Backend(BackendError),
    /// The route's `timeout`.
    TotalTimeout,
    /// The drain ended.
    Drained,
}

/// What one call of [`Exchange::poll`] works with.
pub struct Desk<'a> {
    /// Where reads go.
    pub scratch: &'a mut [u8],
    /// Where heads are parsed and written.
    pub space: &'a mut HeadSpace,
    /// The worker's time.
    pub now: u64,
    /// The listener or the process is going away: this is the connection's last response.
    pub closing: bool,
}

impl Exchange {
    /// Takes what a request head says.
    pub(super) fn begin(
        &mut self,
        head: &RequestHead<'_>,
        listener: &Listener,
        now: Instant,
        now_ms: u64,
    ) {
        self.facts = Facts {
            started: Some(now),
            is_head: head.method == b"HEAD",
            is_idempotent: head.is_idempotent(),
            is_http10: head.version == Version::V10,
            keep_alive: head.keep_alive,
            expects_continue: head.expects_continue,
            wants_upgrade: head.wants_upgrade,
            may_ignore_body: matches!(head.method, b"GET" | b"HEAD" | b"DELETE" | b"OPTIONS"),
            keeps_for: keeps_for(listener.timeouts.idle),
            via: listener.via,
            exposes_id: listener.expose_request_id,
            is_chunked: head.framing == Framing::Chunked,
            body_limit: listener.limits.body_bytes,
            trailer_limit: listener.limits.trailer_bytes,
            ..Facts::default()
        };
        self.body = BodyReader::new(
            head.framing,
            self.facts.trailer_limit,
            head.forwards_trailers,
        );
        self.times.request_body = millis(listener.timeouts.request_body);
        self.times.write = millis(listener.timeouts.write);
        self.times.total_at = None;
        self.since.client_read = now_ms;
    }

    /// Sets the limit of the whole request.
    pub(super) fn limit_total(&mut self, timeout: Option<Duration>) {
        self.times.total_at =
            timeout.map(|timeout| self.since.client_read.saturating_add(millis(timeout)));
    }

    /// Sets the limit of the request body, if the route has one of its own.
    pub(super) fn limit_body(&mut self, bytes: Option<u64>) {
        self.facts.body_limit = bytes.unwrap_or(self.facts.body_limit);
    }

    /// Whether the body is announced as longer than it may be.
    pub(super) fn announces_too_much(&self) -> bool {
        self.body.announced() > self.facts.body_limit
    }

    /// Takes the body bytes that came with the head; they go out with it unless the request is not forwarded.
    pub(super) fn take_early_body(
        &mut self,
        bytes: &mut [u8],
        forward: bool,
    ) -> Result<usize, Reason> {
        let piece = self
            .body
            .read_in_place(bytes, &mut self.trailers)
            .map_err(reason_of)?;
        self.body_bytes = piece.payload as u64;
        if self.is_body_too_large() {
            return Err(Reason::BodyTooLarge);
        }
        if forward {
            let size = self.facts.is_chunked.then(|| SizeLine::new(piece.payload));
            let parts = frame(
                size.as_ref(),
                &bytes[..piece.payload],
                self.body.is_done(),
                &self.trailers,
            );
            for part in parts {
                self.out.extend_from_slice(part);
            }
        }
        Ok(piece.consumed)
    }

    fn is_body_too_large(&self) -> bool {
        self.body_bytes.saturating_add(self.body.announced()) > self.facts.body_limit
    }

    /// X-Request-Id; empty before there is one.
    pub fn id(&self) -> &[u8] {
        self.capture.get(&self.capture.id)
    }

    /// Whether all of the request has come from the client.
    pub fn has_whole_request(&self) -> bool {
        self.body.is_done()
    }

    /// Whether the request may be sent again: it is idempotent, whole, and nothing of a response has come.
    pub fn may_repeat(&self) -> bool {
        self.facts.is_idempotent && self.is_whole_in_out() && !self.response.seen
    }

    /// When the whole request must be over, in the table's milliseconds.
    pub fn total_deadline(&self) -> u64 {
        self.times.total_at.unwrap_or(u64::MAX)
    }

    /// What the fuller direction keeps of what was read and not taken yet.
    pub fn kept(&self) -> usize {
        self.up.len().max(self.down.len())
    }

    /// What the client has not taken yet.
    pub fn take_unsent(&mut self) -> Pending {
        std::mem::take(&mut self.down)
    }

    /// Whether all of the request is still at hand.
    pub fn is_whole_in_out(&self) -> bool {
        self.body.is_done() && !self.streamed
    }

    /// Whether all of the request has gone to the backend.
    pub fn is_sent(&self) -> bool {
        self.body.is_done() && self.sent == self.out.len() && self.up.is_empty()
    }

    /// Whether the final response head has gone to the client.
    pub fn has_answered(&self) -> bool {
        self.response.status.is_some()
    }

    /// Whether the backend's connection is fit for the next request. One that was offered another protocol is not, even
    /// if the backend declined: there are parsers that read on in another state (Node's swallows the errors of the next
    /// request). Nor is one that got a body with a method that seldom has one, be it the last chunk alone: a backend that
    /// does not read it takes it for the next request.
    pub fn backend_is_reusable(&self) -> bool {
        let has_body = self.facts.is_chunked || self.body_bytes > 0;
        self.is_settled()
            && self.response.keep_alive
            && !self.response.excess
            && !self.facts.wants_upgrade
            && !(self.facts.may_ignore_body && has_body)
    }

    /// Whether the request and then its response are whole: nothing is lost if the backend's connection ends at once.
    pub fn is_settled(&self) -> bool {
        self.response.done && !self.response.is_early && !self.deaf && self.is_sent()
    }

    /// Request sent to response head.
    pub fn response_time(&self) -> Option<Duration> {
        Some(
            self.response
                .head_at?
                .saturating_duration_since(self.sent_at?),
        )
    }

    /// The backend that was tried last.
    pub fn last_backend(&self) -> Option<&Arc<str>> {
        self.last_backend.as_ref()
    }

    /// Remembers the backend that is tried, for the log.
    pub fn keep_label(&mut self, label: &Arc<str>) {
        self.last_backend = Some(Arc::clone(label));
    }

    /// Begins an attempt on the backend that is called `host`: what was learnt from the one before is forgotten.
    pub fn begin_attempt(&mut self, timeouts: &ClusterTimeouts, host: &str, now: u64) {
        let ClusterTimeouts { response, body, .. } = *timeouts;
        (self.times.response, self.times.body) = (millis(response), millis(body));
        self.response = Response::default();
        self.sent = 0;
        (self.deaf, self.was_reset) = (false, false);
        self.discard_until = None;
        self.sent_at = None;
        self.since = Since {
            now,
            client_read: now,
            client_write: now,
            backend_read: now,
            backend_write: now,
            ..Since::default()
        };
        if let Some(gap) = self.facts.host_gap {
            self.fill_host_gap(gap, host);
        }
    }

    /// Puts `Host` in, or in the place of the one of the attempt before.
    fn fill_host_gap(&mut self, gap: usize, address: &str) {
        let line = format!("Host: {address}\r\n");
        let old = if self.out[gap..].starts_with(b"Host: ") {
            self.out[gap..]
                .iter()
                .position(|b| *b == b'\n')
                .map_or(0, |lf| lf + 1)
        } else {
            0
        };
        self.out.splice(gap..gap + old, line.bytes());
    }

    /// Forgets everything but memory worth keeping.
    pub fn clear(&mut self) {
        let mut out = std::mem::take(&mut self.out);
        let mut capture = std::mem::take(&mut self.capture);
        let mut tried = std::mem::take(&mut self.tried);
        out.clear();
        capture.clear();
        tried.clear();
        if out.capacity() > SMALL_READ {
            out = Vec::new();
        }
        *self = Self {
            out,
            capture,
            tried,
            ..Self::default()
        };
    }

    /// Moves what can be moved.
    pub fn poll<C: Stream, B: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        carry: &mut Vec<u8>,
        backend: &mut B,
        desk: &mut Desk<'_>,
    ) -> Poll<End> {
        self.since.now = desk.now;
        match self.advance(cx, client, carry, backend, desk) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    fn advance<C: Stream, B: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        carry: &mut Vec<u8>,
        backend: &mut B,
        desk: &mut Desk<'_>,
    ) -> Result<(), End> {
        // Once the request is sent the answer comes first: it may be all, and then nobody needs to look at the client.
        let is_sent = self.is_sent();
        let mut client_is_read = true;
        if !is_sent {
            client_is_read = self
                .poll_request(cx, client, carry, backend, desk)
                .map_err(|end| self.meaning_of(end))?;
        }
        if let Some(end) = self.poll_response(cx, client, backend, desk) {
            return Err(end);
        }
        if is_sent {
            client_is_read = self.poll_request(cx, client, carry, backend, desk)?;
        }
        self.look(client, client_is_read, backend)
            .map_or(Ok(()), |end| Err(self.meaning_of(end)))
    }

    /// Whether the client has the whole response: what is still under way is the rest of its request.
    fn is_delivered(&self) -> bool {
        self.response.done && self.down.is_empty()
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

/// What is announced of an `idle` timeout: a second less, for the way, and nothing of a short one.
fn keeps_for(idle: Duration) -> Option<u32> {
    let seconds = idle.as_secs().saturating_sub(1);
    u32::try_from(seconds).ok().filter(|seconds| *seconds >= 2)
}

/// A piece of a body as it goes out: as it is, or as a chunk if it has a `size` line, with the end of the body if it is
/// `done`.
fn frame<'p>(
    size: Option<&'p SizeLine>,
    payload: &'p [u8],
    done: bool,
    trailers: &'p [u8],
) -> [&'p [u8]; 5] {
    let empty: &[u8] = b"";
    match (size, payload.is_empty(), done) {
        (None, ..) => [empty, payload, empty, empty, empty],
        (Some(_), true, false) => [empty; 5],
        (Some(_), true, true) => [empty, empty, b"0\r\n", trailers, b"\r\n"],
        (Some(size), false, false) => [size.as_bytes(), payload, b"\r\n", empty, empty],
        (Some(size), false, true) => [size.as_bytes(), payload, b"\r\n0\r\n", trailers, b"\r\n"],
    }
}
