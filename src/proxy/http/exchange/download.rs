//! The response's way through an exchange: interim heads, the final one, then the body piece by piece, to the client.

use std::task::{Context, Poll};

use tokio::time::Instant;

use super::upload::Upload;
use super::{
    Decide, Decision, Edits, End, PollContext, ResponseEvent, ResponseSink, ResponseSource,
};
use crate::http1::Refusal;
use crate::http1::response::{INTERIM_BYTES, INTERIM_RESPONSES, ResponseHead};
use crate::proxy::http::reply::reason_of;
use crate::proxy::read_size::{ReadSize, SMALL_READ, TURN, largest_read};
use crate::telemetry::outcome::{BackendError, Reason};

/// See the module. Begun again with each attempt.
#[derive(Debug, Default)]
pub(crate) struct Download {
    /// Some byte of a response has come.
    pub(super) has_begun: bool,
    /// Status of the final head, or of a 101, once it has come.
    pub(crate) status: Option<u16>,
    /// When it came.
    pub(super) head_at: Option<Instant>,
    /// A head that is no interim one has been forwarded.
    pub(crate) has_answered: bool,
    /// It came before the request had gone out whole.
    pub(super) is_early: bool,
    /// The backend keeps its connection.
    pub(super) keep_alive: bool,
    /// `Keep-Alive: timeout` of the backend, seconds.
    pub(crate) keep_alive_timeout: Option<u32>,
    /// The client's connection ends after this response.
    pub(crate) closes_client: bool,
    /// All of it has come.
    pub(super) is_done: bool,
    /// A 101 was forwarded.
    is_upgraded: bool,
    /// Bytes of the other protocol that came with the 101.
    pub(crate) early: Vec<u8>,
    /// What is wrong with it, if it is refused.
    pub(crate) cause: Option<&'static str>,
    /// Interim responses, and the bytes of their heads.
    pub(super) interim: u32,
    interim_bytes: usize,
    /// The client was told that nothing more comes, while the rest of its request still went to the backend.
    pub(super) is_finished: bool,
    /// Bytes to the client.
    pub(crate) bytes_out: u64,
    /// What the client has not taken, as of the last poll.
    pub(super) kept: usize,
    read_size: ReadSize,
    /// When the backend sent something last, or was last not waited for; milliseconds, as all of these.
    pub(super) last_read: u64,
    /// When the client took something last.
    pub(super) last_write: u64,
}

impl Download {
    /// At `now`, with nothing of a response.
    pub(super) fn new(now: u64) -> Self {
        Self {
            last_read: now,
            last_write: now,
            ..Self::default()
        }
    }

    /// Backend to client.
    pub(super) fn poll<C: ResponseSink, B: ResponseSource>(
        &mut self,
        cx: &mut Context<'_>,
        backend: &mut B,
        client: &mut C,
        io: &mut PollContext<'_>,
        upload: &mut Upload,
        decide: &mut impl Decide,
    ) -> Option<End> {
        let mut turn = 0;
        loop {
            if client.unsent() > 0 {
                let mut sent = 0;
                let flushed = client.poll_flush(cx, &mut sent);
                self.note_sent(sent, io.now);
                match flushed {
                    Poll::Pending => return None,
                    Poll::Ready(Err(_)) => return Some(End::Client(Reason::ClientLeft)),
                    Poll::Ready(Ok(())) => self.last_read = io.now,
                }
            }
            if self.is_done {
                if upload.is_closed || upload.is_sent {
                    return Some(End::Complete);
                }
                self.finish(cx, client, upload, io.now);
                return None;
            }
            if self.is_upgraded {
                return Some(End::Upgraded);
            }
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return None;
            }
            let most = if backend.partial_head() > 0 {
                // What is left of a head is no more.
                SMALL_READ
            } else {
                largest_read(io.scratch.len(), upload.kept)
            };
            let asked = self.read_size.next(|| client.send_room(), most);
            let end = match backend.poll_read(cx, &mut io.scratch[..asked]) {
                Poll::Pending => return None,
                Poll::Ready(Ok(0)) => self.backend_ended(cx, backend, client, upload, io.now),
                Poll::Ready(Err(_)) => Some(End::Backend(BackendError::Reset)),
                Poll::Ready(Ok(read)) => {
                    turn += read;
                    self.has_begun = true;
                    if self.status.is_some() {
                        self.last_read = io.now;
                    }
                    match self.take(cx, backend, client, io, upload, decide) {
                        Ok(whole) => {
                            if let Some(whole) = whole {
                                self.read_size.learn(asked, read, whole);
                            }
                            None
                        }
                        Err(end) => Some(end),
                    }
                }
            };
            if end.is_some() {
                return end;
            }
        }
    }

    fn note_sent(&mut self, sent: u64, now: u64) {
        self.bytes_out += sent;
        if sent > 0 {
            self.last_write = now;
        }
    }

    /// Says that nothing follows the response, while the rest of the request is still forwarded to a backend that reads
    /// it: the client may wait for the end of the connection before it stops sending.
    fn finish<C: ResponseSink>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        upload: &mut Upload,
        now: u64,
    ) {
        if !self.is_finished {
            self.is_finished = true;
            // A client that waited for a 100 has its time for the body from here on.
            upload.last_read = now;
            client.finish(cx);
        }
    }

    fn backend_ended<C: ResponseSink, B: ResponseSource>(
        &mut self,
        cx: &mut Context<'_>,
        backend: &mut B,
        client: &mut C,
        upload: &Upload,
        now: u64,
    ) -> Option<End> {
        if !backend.end_of_connection() || upload.met_reset {
            return Some(End::Backend(BackendError::Reset));
        }
        self.is_done = true;
        self.send(cx, client, &mut Vec::new(), (b"", Some(b"")), now)
            .err()
    }

    /// Takes what was read. Whether the client took all of a piece of the body that came without a head; `None` if there
    /// was none.
    fn take<C: ResponseSink, B: ResponseSource>(
        &mut self,
        cx: &mut Context<'_>,
        backend: &mut B,
        client: &mut C,
        io: &mut PollContext<'_>,
        upload: &mut Upload,
        decide: &mut impl Decide,
    ) -> Result<Option<bool>, End> {
        let mut taken = None;
        io.out.clear();
        loop {
            let event = match backend.next_event(io.scratch, io.fields) {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(taken),
                Err(refusal) => {
                    // A head that was good is sent: the client must see a cut response, as it would if its parts had
                    // come one after the other.
                    let _ = self.send(cx, client, io.out, (b"", None), io.now);
                    return Err(self.refuse(refusal));
                }
            };
            match event {
                ResponseEvent::Body(payload, end) => {
                    self.is_done = end.is_some();
                    let has_head = !io.out.is_empty();
                    let whole = self.send(cx, client, io.out, (payload, end), io.now)?;
                    taken = whole.filter(|_| !has_head);
                }
                ResponseEvent::Interim(view) => {
                    let edits = self.forward(decide(&view, upload.is_sent))?;
                    if self.note_interim(&view.head, upload, io.now, io.instant) {
                        // After any other interim head comes one that has the id.
                        let id = if self.is_upgraded { io.id } else { b"" };
                        let additions = edits.additions(b"", id);
                        let sent = client
                            .send_interim(cx, &view, &additions, io.out)
                            .map_err(|_| End::Client(Reason::ClientLeft))?;
                        self.note_sent(sent as u64, io.now);
                    }
                }
                ResponseEvent::Final(view) => {
                    self.status = Some(view.head.status);
                    let edits = self.forward(decide(&view, upload.is_sent))?;
                    self.note_head(&view.head, upload.is_sent, io.now, io.instant);
                    let additions = edits.additions(io.date.at(io.now), io.id);
                    self.closes_client = client.write_head(&view, &additions, io.out);
                }
            }
            if self.is_done {
                self.keep_alive &= !backend.has_excess();
            }
            if self.is_upgraded {
                self.early = backend.take_rest(io.scratch);
                return Ok(None);
            }
        }
    }

    /// The edits of a head that is forwarded.
    fn forward(&mut self, decision: Decision) -> Result<Edits, End> {
        match decision {
            Decision::Forward(edits) => Ok(edits),
            Decision::Retry(reason) => Err(End::Retry(reason)),
            Decision::Replace(reply) => {
                self.cause = reply.cause;
                Err(End::Replace(reply))
            }
        }
    }

    /// The response is not one that is forwarded.
    fn refuse(&mut self, refusal: Refusal) -> End {
        self.cause = Some(reason_of(refusal).as_str());
        End::Backend(BackendError::Protocol)
    }

    /// Takes what a final head says that is forwarded.
    fn note_head(&mut self, head: &ResponseHead<'_>, is_sent: bool, now: u64, instant: Instant) {
        self.has_answered = true;
        self.head_at = Some(instant);
        self.last_read = now;
        // A backend that responds before it has the request may respond again when it does.
        self.is_early = !is_sent;
        self.keep_alive = head.keep_alive;
        self.keep_alive_timeout = head.keep_alive_timeout;
    }

    /// Takes an interim head; whether it is forwarded.
    fn note_interim(
        &mut self,
        head: &ResponseHead<'_>,
        upload: &mut Upload,
        now: u64,
        instant: Instant,
    ) -> bool {
        self.interim = self.interim.saturating_add(1);
        self.interim_bytes = self.interim_bytes.saturating_add(head.len);
        self.is_upgraded = head.status == 101;
        let is_within_bounds =
            self.interim <= INTERIM_RESPONSES && self.interim_bytes <= INTERIM_BYTES;
        if !self.is_upgraded && !is_within_bounds {
            return false;
        }
        // A client that waited for a 100 has its time for the body from here on, and the backend its time for a response.
        upload.last_read = now;
        self.last_read = now;
        if self.is_upgraded {
            self.has_answered = true;
            self.status = Some(101);
            self.head_at = Some(instant);
        }
        true
    }

    /// Sends a head and a piece of the body; what the client does not take is kept. Whether all was taken; `None` if there
    /// was nothing.
    fn send<C: ResponseSink>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        head: &mut Vec<u8>,
        (payload, end): (&[u8], Option<&[u8]>),
        now: u64,
    ) -> Result<Option<bool>, End> {
        match client.write(cx, head, payload, end) {
            Ok(None) => Ok(None),
            Ok(Some((sent, whole))) => {
                self.bytes_out += sent as u64;
                self.last_write = now;
                Ok(Some(whole))
            }
            Err(_) => Err(End::Client(Reason::ClientLeft)),
        }
    }
}
