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

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::headers::{Persistence, client_framing, write_response};
use super::prepare::HeadSpace;
use super::reply::reason_of;
use crate::http1::body::BodyReader;
use crate::http1::chunked::SizeLine;
use crate::http1::head::HeadEnd;
use crate::http1::request::RequestHead;
use crate::http1::response::{self, INTERIM_RESPONSES, ResponseHead};
use crate::http1::{Framing, Version};
use crate::model::settings::ClusterTimeouts;
use crate::proxy::flow::{Pending, ReadSize, SMALL_READ, Stream, TURN, poll_read};
use crate::proxy::load::{Held, Picked};
use crate::proxy::record::Capture;
use crate::proxy::sessions::Fired;
use crate::snapshot::Listener;
use crate::telemetry::outcome::{BackendError, Reason};

/// Bytes of further requests that are taken while one is being answered.
pub const READ_AHEAD: usize = 16 << 10;

const NEVER: u64 = u64::MAX;

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
    /// The client offers another protocol.
    pub wants_upgrade: bool,
    /// The body goes out in chunks.
    pub is_chunked: bool,
    /// Where Host must be put in.
    pub host_gap: Option<usize>,
    /// Hash key.
    pub key: u64,
    /// Cluster, by index.
    pub cluster: Option<usize>,
    /// Route, by index.
    pub route: Option<usize>,
    /// The client address.
    pub client: Option<std::net::IpAddr>,
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
    interim: u8,
    partial: Vec<u8>,
    head_end: HeadEnd,
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

/// When something last moved.
#[derive(Debug, Default, Clone, Copy)]
struct Since {
    client_read: u64,
    client_write: u64,
    backend_read: u64,
    backend_write: u64,
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
    /// About the response.
    pub response: Response,
    /// Members that failed this request.
    pub tried: Vec<u32>,
    /// The forwarded head and the body bytes that came with it.
    pub(super) out: Vec<u8>,
    sent: usize,
    /// Body bytes beyond `out` have gone: it cannot be sent again.
    streamed: bool,
    /// The backend takes no more of the request; it may have answered all the same.
    deaf: bool,
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
            wants_upgrade: head.wants_upgrade,
            is_chunked: head.framing == Framing::Chunked,
            body_limit: listener.limits.body_bytes,
            trailer_limit: listener.limits.trailer_bytes,
            ..Facts::default()
        };
        self.body = BodyReader::new(head.framing, self.facts.trailer_limit);
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
            let size = SizeLine::new(piece.payload);
            let parts = frame(
                self.facts.is_chunked,
                &bytes[..piece.payload],
                self.body.is_done(),
                &size,
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

    /// Whether all of the request has come from the client.
    pub fn has_whole_request(&self) -> bool {
        self.body.is_done()
    }

    /// Whether the request may be sent again: it is idempotent, whole, and nothing of a response has come.
    pub fn may_repeat(&self) -> bool {
        self.facts.is_idempotent && self.is_whole_in_out() && !self.response.seen
    }

    /// Whether all of the request is still at hand.
    pub fn is_whole_in_out(&self) -> bool {
        self.body.is_done() && !self.streamed
    }

    /// Whether the final response head has gone to the client.
    pub fn has_answered(&self) -> bool {
        self.response.status.is_some()
    }

    /// Whether the backend's connection is fit for the next request.
    pub fn backend_is_reusable(&self) -> bool {
        self.response.done
            && self.response.keep_alive
            && !self.response.excess
            && !self.deaf
            && self.body.is_done()
            && self.sent == self.out.len()
            && self.up.is_empty()
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

    /// Begins an attempt on a backend: what was learnt from the one before is forgotten.
    pub fn begin_attempt(&mut self, picked: &Picked, keep_label: bool, now: u64) {
        let ClusterTimeouts { response, body, .. } = picked.cluster().timeouts;
        (self.times.response, self.times.body) = (millis(response), millis(body));
        self.response = Response::default();
        self.sent = 0;
        self.deaf = false;
        self.sent_at = None;
        self.since = Since {
            client_read: now,
            client_write: now,
            backend_read: now,
            backend_write: now,
        };
        if keep_label {
            self.last_backend = Some(Arc::clone(picked.endpoint().backend.label()));
        }
        if let Some(gap) = self.facts.host_gap {
            self.fill_host_gap(gap, picked.endpoint().backend.label());
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
        if out.capacity() > 4 * SMALL_READ {
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
        if let Some(end) = self.poll_request(cx, client, carry, backend, desk) {
            return Poll::Ready(end);
        }
        match self.poll_response(cx, client, backend, desk) {
            Some(end) => Poll::Ready(end),
            None => Poll::Pending,
        }
    }

    /// Client to backend.
    fn poll_request<C: Stream, B: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        carry: &mut Vec<u8>,
        backend: &mut B,
        desk: &mut Desk<'_>,
    ) -> Option<End> {
        let mut turn = 0;
        loop {
            if self.deaf || self.body.is_done() && self.sent == self.out.len() && self.up.is_empty()
            {
                return self.watch_client(cx, client, carry, desk);
            }
            match self.push_request(cx, backend, desk.now) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.deaf = true;
                    continue;
                }
                Poll::Pending => return None,
            }
            if self.body.is_done() {
                continue;
            }
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return None;
            }
            match self.pull_request(cx, client, carry, backend, desk) {
                Poll::Ready(Ok(read)) => turn += read,
                Poll::Ready(Err(end)) => return Some(end),
                Poll::Pending => return None,
            }
        }
    }

    /// Writes what waits for the backend.
    fn push_request<B: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        backend: &mut B,
        now: u64,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            match Pin::new(&mut *backend).poll_write(cx, &self.out[self.sent..]) {
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
        let asked = self.up_size.next(backend);
        let read = match poll_read(client, cx, &mut desk.scratch[..asked]) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => {
                return Poll::Ready(Err(End::Client(Reason::ClientLeft)));
            }
            Poll::Ready(Ok(read)) => read,
        };
        self.facts.bytes_in += read as u64;
        self.since.client_read = desk.now;
        let bytes = &mut desk.scratch[..read];
        let piece = match self.body.read_in_place(bytes, &mut self.trailers) {
            Ok(piece) => piece,
            Err(refusal) => return Poll::Ready(Err(End::Client(reason_of(refusal)))),
        };
        if piece.consumed < read {
            carry.extend_from_slice(&bytes[piece.consumed..]);
        }
        self.body_bytes += piece.payload as u64;
        if self.is_body_too_large() {
            return Poll::Ready(Err(End::Client(Reason::BodyTooLarge)));
        }
        self.streamed = true;
        let size = SizeLine::new(piece.payload);
        let parts = frame(
            self.facts.is_chunked,
            &bytes[..piece.payload],
            self.body.is_done(),
            &size,
            &self.trailers,
        );
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > 0 {
            match self.up.write(backend, cx, &parts) {
                Ok(written) => self.up_size.learn(asked, read, written == length),
                Err(_) => self.deaf = true,
            }
        }
        if self.body.is_done() && self.up.is_empty() {
            self.sent_at = Some(Instant::now());
        }
        self.since.backend_write = desk.now;
        Poll::Ready(Ok(read))
    }

    /// While only the response is awaited: takes a little of what comes next, and notices a client that leaves.
    fn watch_client<C: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        carry: &mut Vec<u8>,
        desk: &mut Desk<'_>,
    ) -> Option<End> {
        // A body that the backend does not want is left where it is.
        while self.body.is_done() && carry.len() < READ_AHEAD {
            match poll_read(client, cx, &mut desk.scratch[..READ_AHEAD - carry.len()]) {
                Poll::Pending => return None,
                Poll::Ready(Ok(0) | Err(_)) => return Some(End::Client(Reason::ClientLeft)),
                Poll::Ready(Ok(read)) => carry.extend_from_slice(&desk.scratch[..read]),
            }
        }
        None
    }

    /// Backend to client.
    fn poll_response<C: Stream, B: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        backend: &mut B,
        desk: &mut Desk<'_>,
    ) -> Option<End> {
        let mut turn = 0;
        loop {
            if !self.down.is_empty() {
                let mut written = 0;
                let flushed = self.down.poll_flush(client, cx, &mut written);
                self.facts.bytes_out += written;
                if written > 0 {
                    self.since.client_write = desk.now;
                }
                match flushed {
                    Poll::Pending => return None,
                    Poll::Ready(Err(_)) => return Some(End::Client(Reason::ClientLeft)),
                    Poll::Ready(Ok(())) => self.since.backend_read = desk.now,
                }
            }
            if self.response.done {
                return Some(End::Complete);
            }
            if self.response.upgraded {
                return Some(End::Upgraded);
            }
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return None;
            }
            let asked = self.down_size.next(client);
            let end = match poll_read(backend, cx, &mut desk.scratch[..asked]) {
                Poll::Pending => return None,
                Poll::Ready(Ok(0)) => self.backend_ended(cx, client),
                Poll::Ready(Err(_)) => Some(End::Backend(BackendError::Reset)),
                Poll::Ready(Ok(read)) => {
                    turn += read;
                    self.since.backend_read = desk.now;
                    self.take_response(cx, client, read, asked, desk)
                }
            };
            if end.is_some() {
                return end;
            }
        }
    }

    fn backend_ended<C: Stream>(&mut self, cx: &mut Context<'_>, client: &mut C) -> Option<End> {
        let is_whole = self
            .response
            .reader
            .as_mut()
            .is_some_and(BodyReader::end_of_connection);
        if !is_whole {
            return Some(End::Backend(BackendError::Reset));
        }
        self.response.done = true;
        if self.response.is_chunked {
            self.send(cx, client, &[b"0\r\n\r\n"], None)
        } else {
            None
        }
    }

    fn take_response<C: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        read: usize,
        asked: usize,
        desk: &mut Desk<'_>,
    ) -> Option<End> {
        self.response.seen = true;
        let bytes = &mut desk.scratch[..read];
        if self.response.reader.is_some() {
            return self.send_body(cx, client, bytes, &[], Some((asked, read)));
        }
        if self.response.partial.is_empty() {
            return self.take_heads(cx, client, bytes, desk.space, desk.closing);
        }
        let mut partial = std::mem::take(&mut self.response.partial);
        partial.extend_from_slice(bytes);
        if self
            .response
            .head_end
            .is_due(&partial, response::LIMITS.bytes)
        {
            self.take_heads(cx, client, &mut partial, desk.space, desk.closing)
        } else {
            self.response.partial = partial;
            None
        }
    }

    /// Takes interim heads and the final one from `bytes`, and what there is of the body.
    fn take_heads<C: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        bytes: &mut [u8],
        space: &mut HeadSpace,
        closing: bool,
    ) -> Option<End> {
        let mut at = 0;
        loop {
            let head = match response::parse(&bytes[at..], self.facts.is_head, &mut space.fields) {
                Ok(Some(head)) => head,
                Ok(None) => {
                    self.response.partial = bytes[at..].to_vec();
                    self.response.head_end = HeadEnd::default();
                    self.response
                        .head_end
                        .is_due(&self.response.partial, response::LIMITS.bytes);
                    return None;
                }
                Err(_) => return Some(End::Backend(BackendError::Protocol)),
            };
            let len = head.len;
            let is_final = head.status >= 200;
            if let Err(error) = self.rewrite_head(&head, &bytes[at..], space, closing) {
                return Some(End::Backend(error));
            }
            at += len;
            if is_final {
                return self.send_body(cx, client, &mut bytes[at..], &space.out, None);
            }
            if !space.out.is_empty()
                && let Some(end) = self.send_interim(cx, client, &space.out)
            {
                return Some(end);
            }
            if self.response.upgraded {
                self.response.early = bytes[at..].to_vec();
                return None;
            }
            if at == bytes.len() {
                return None;
            }
        }
    }

    /// Writes the client's head into `space.out` (nothing for an interim one that it would not understand) and takes
    /// what a final one says.
    fn rewrite_head(
        &mut self,
        head: &ResponseHead<'_>,
        bytes: &[u8],
        space: &mut HeadSpace,
        closing: bool,
    ) -> Result<(), BackendError> {
        space.out.clear();
        if head.status < 200 {
            return self.rewrite_interim(head, bytes, space);
        }
        let version = if self.facts.is_http10 {
            Version::V10
        } else {
            Version::V11
        };
        let framing = client_framing(head, version);
        let response = &mut self.response;
        response.status = Some(head.status);
        response.head_at = Some(Instant::now());
        response.keep_alive = head.keep_alive;
        response.keep_alive_timeout = head.keep_alive_timeout;
        response.is_chunked = framing == Framing::Chunked;
        response.until_close = framing == Framing::UntilClose;
        response.reader = Some(BodyReader::new(head.framing, self.facts.trailer_limit));
        let refused_early = !self.body.is_done() && head.status >= 400;
        response.close_client =
            closing || !self.facts.keep_alive || response.until_close || refused_early;
        let persistence = match (response.close_client, self.facts.is_http10) {
            (true, _) => Persistence::Close,
            (false, true) => Persistence::SayKeep,
            (false, false) => Persistence::Keep,
        };
        write_response(
            &mut space.out,
            head,
            bytes,
            &space.fields,
            framing,
            persistence,
        );
        Ok(())
    }

    fn rewrite_interim(
        &mut self,
        head: &ResponseHead<'_>,
        bytes: &[u8],
        space: &mut HeadSpace,
    ) -> Result<(), BackendError> {
        self.response.interim += 1;
        let is_upgrade = head.status == 101;
        let is_allowed = !is_upgrade || self.facts.wants_upgrade && self.is_whole_in_out();
        if self.response.interim > INTERIM_RESPONSES || !is_allowed {
            return Err(BackendError::Protocol);
        }
        let persistence = if is_upgrade {
            Persistence::Upgrade
        } else {
            Persistence::Keep
        };
        if is_upgrade {
            self.response.upgraded = true;
            self.response.status = Some(101);
            self.response.head_at = Some(Instant::now());
        }
        // RFC 9110 15.2: an HTTP/1.0 client does not know interim responses.
        if !self.facts.is_http10 {
            write_response(
                &mut space.out,
                head,
                bytes,
                &space.fields,
                Framing::None,
                persistence,
            );
        }
        Ok(())
    }

    /// Sends an interim head, behind whatever the client has not taken yet.
    fn send_interim<C: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        head: &[u8],
    ) -> Option<End> {
        if self.down.is_empty() {
            return self.send(cx, client, &[head], None);
        }
        self.down.push(head);
        None
    }

    /// Sends `head` and what `bytes` hold of the body.
    fn send_body<C: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        bytes: &mut [u8],
        head: &[u8],
        learn: Option<(usize, usize)>,
    ) -> Option<End> {
        let reader = self.response.reader.as_mut()?;
        self.trailers.clear();
        let Ok(piece) = reader.read_in_place(bytes, &mut self.trailers) else {
            return Some(End::Backend(BackendError::Protocol));
        };
        let done = reader.is_done();
        self.response.done = done;
        self.response.excess |= piece.consumed < bytes.len();
        let size = SizeLine::new(piece.payload);
        let trailers = std::mem::take(&mut self.trailers);
        let [line, payload, end, extra, last] = frame(
            self.response.is_chunked,
            &bytes[..piece.payload],
            done,
            &size,
            &trailers,
        );
        let end = if self.down.is_empty() {
            self.send(cx, client, &[head, line, payload, end, extra, last], learn)
        } else {
            for part in [head, line, payload, end, extra, last] {
                self.down.push(part);
            }
            None
        };
        self.trailers = trailers;
        end
    }

    /// Writes `parts` to the client; what it does not take is kept. Nothing is kept before.
    fn send<C: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        parts: &[&[u8]],
        learn: Option<(usize, usize)>,
    ) -> Option<End> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length == 0 {
            return None;
        }
        let Ok(written) = self.down.write(client, cx, parts) else {
            return Some(End::Client(Reason::ClientLeft));
        };
        self.facts.bytes_out += written as u64;
        self.since.client_write = self.since.backend_read;
        if let Some((asked, read)) = learn {
            self.down_size.learn(asked, read, written == length);
        }
        None
    }

    /// The times that may end the exchange as it stands, each with the end that it brings.
    fn deadlines(&self) -> [(u64, End); 5] {
        let Since {
            client_read,
            client_write,
            backend_read,
            backend_write,
        } = self.since;
        let Times {
            request_body,
            write,
            response,
            body,
            total_at,
        } = self.times;
        let when = |applies: bool, at: u64| if applies { at } else { NEVER };
        let sending = !self.deaf && (self.sent < self.out.len() || !self.up.is_empty());
        let receiving = !self.deaf && !sending && !self.body.is_done();
        let answering = self.response.status.is_some();
        let client_full = !self.down.is_empty();
        let timeout = End::Backend(BackendError::Timeout);
        let awaited = if answering {
            when(!client_full, backend_read.saturating_add(body))
        } else {
            when(
                !sending && !receiving,
                backend_write.max(backend_read).saturating_add(response),
            )
        };
        [
            (total_at.unwrap_or(NEVER), End::TotalTimeout),
            (
                when(client_full, client_write.saturating_add(write)),
                End::Client(Reason::SlowReader),
            ),
            (
                when(receiving, client_read.saturating_add(request_body)),
                End::Client(Reason::SlowBody),
            ),
            (
                when(sending, backend_write.saturating_add(body.max(response))),
                timeout,
            ),
            (awaited, timeout),
        ]
    }

    /// When to look again at the latest, in the worker's milliseconds.
    pub fn next_deadline(&self) -> u64 {
        self.deadlines()
            .iter()
            .map(|(at, _)| *at)
            .min()
            .unwrap_or(NEVER)
    }

    /// What a deadline that fired means, if anything is still too late.
    pub fn expired(&self, fired: Fired, now: u64) -> Option<End> {
        match fired {
            Fired::Drained => Some(End::Drained),
            Fired::Deadline => self
                .deadlines()
                .into_iter()
                .find(|(at, _)| *at <= now)
                .map(|(_, end)| end),
        }
    }
}

/// A piece of a body as it goes out: as it is, or as a chunk, with the end of the body if it is `done`.
fn frame<'p>(
    is_chunked: bool,
    payload: &'p [u8],
    done: bool,
    size: &'p SizeLine,
    trailers: &'p [u8],
) -> [&'p [u8]; 5] {
    let empty: &[u8] = b"";
    match (is_chunked, payload.is_empty(), done) {
        (false, ..) => [empty, payload, empty, empty, empty],
        (true, true, false) => [empty; 5],
        (true, true, true) => [empty, empty, b"0\r\n", trailers, b"\r\n"],
        (true, false, false) => [size.as_bytes(), payload, b"\r\n", empty, empty],
        (true, false, true) => [size.as_bytes(), payload, b"\r\n0\r\n", trailers, b"\r\n"],
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
