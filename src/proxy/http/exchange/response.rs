//! The backend's side of an exchange: interim heads, the final one, then the body piece by piece, to the client.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use super::{Desk, End, Exchange, frame};
use crate::http1::body::BodyReader;
use crate::http1::chunked::SizeLine;
use crate::http1::head::{Field, HeadEnd};
use crate::http1::response::{self, INTERIM_BYTES, INTERIM_RESPONSES, ResponseHead};
use crate::http1::{Framing, Refusal, Version};
use crate::proxy::flow::{SMALL_READ, Stream, TURN, keep, largest_read};
use crate::proxy::http::headers::{
    Persistence, Told, client_framing, takes_an_offer, write_response,
};
use crate::proxy::http::prepare::HeadSpace;
use crate::proxy::http::reply::reason_of;
use crate::telemetry::outcome::{BackendError, Reason};

/// A body that came with its head and is no longer than this is copied behind it: one plain write costs less than a
/// vectored one.
const COPIED: usize = 4 << 10;

impl Exchange {
    /// Backend to client.
    pub(super) fn poll_response<C: Stream, B: Stream>(
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
                    self.since.client_write = self.since.now;
                }
                match flushed {
                    Poll::Pending => return None,
                    Poll::Ready(Err(_)) => return Some(End::Client(Reason::ClientLeft)),
                    Poll::Ready(Ok(())) => self.since.backend_read = self.since.now,
                }
            }
            if self.response.done {
                if self.deaf || self.is_sent() {
                    return Some(End::Complete);
                }
                self.end_client(cx, client);
                return None;
            }
            if self.response.upgraded {
                return Some(End::Upgraded);
            }
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return None;
            }
            let most = if self.response.partial.is_empty() {
                largest_read(desk.scratch.len(), self.up.len())
            } else {
                // What is left of a head is no more.
                SMALL_READ
            };
            let asked = self.down_size.next(client, most);
            let end = match backend.poll_receive(cx, &mut desk.scratch[..asked]) {
                Poll::Pending => return None,
                Poll::Ready(Ok(0)) => self.backend_ended(cx, client),
                Poll::Ready(Err(_)) => Some(End::Backend(BackendError::Reset)),
                Poll::Ready(Ok(read)) => {
                    turn += read;
                    if self.response.status.is_some() {
                        self.since.backend_read = self.since.now;
                    }
                    self.take_response(cx, client, read, asked, desk)
                }
            };
            if end.is_some() {
                return end;
            }
        }
    }

    /// Says that nothing follows the response, while the rest of the request is still forwarded to a backend that reads
    /// it: the client may wait for the end of the connection before it stops sending.
    fn end_client<C: Stream>(&mut self, cx: &mut Context<'_>, client: &mut C) {
        if !self.client_ended {
            self.client_ended = true;
            // Whoever waited for a 100 has its time for the body from here on.
            self.since.client_read = self.since.now;
            // An error shows with the next read.
            let _ = Pin::new(client).poll_shutdown(cx);
        }
    }

    fn backend_ended<C: Stream>(&mut self, cx: &mut Context<'_>, client: &mut C) -> Option<End> {
        let reader = self.response.reader.as_mut();
        let is_whole = reader.is_some_and(BodyReader::end_of_connection);
        if !is_whole || self.was_reset {
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
            return self.send_body(cx, client, bytes, &mut Vec::new(), Some((asked, read)));
        }
        if self.response.partial.is_empty() {
            return self.take_heads(cx, client, bytes, desk.space, desk.closing);
        }
        let mut partial = std::mem::take(&mut self.response.partial);
        keep(&mut partial, bytes);
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
                    self.response.head_end = HeadEnd::after(&self.response.partial);
                    return None;
                }
                Err(refusal) => return Some(self.refuse(refusal)),
            };
            let len = head.len;
            let is_final = head.status >= 200;
            if let Err(error) = self.rewrite_head(&head, &bytes[at..], space, closing) {
                return Some(End::Backend(error));
            }
            at += len;
            if is_final {
                return self.send_body(cx, client, &mut bytes[at..], &mut space.out, None);
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

    /// The response is not one that is forwarded.
    fn refuse(&mut self, refusal: Refusal) -> End {
        self.response.cause = Some(reason_of(refusal).as_str());
        End::Backend(BackendError::Protocol)
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
        let is_early = !self.is_sent();
        let response = &mut self.response;
        response.status = Some(head.status);
        response.head_at = Some(Instant::now());
        self.since.backend_read = self.since.now;
        // Whoever answers before it has the request may answer again when it does.
        response.is_early = is_early;
        response.keep_alive = head.keep_alive;
        response.keep_alive_timeout = head.keep_alive_timeout;
        response.is_chunked = framing == Framing::Chunked;
        response.until_close = framing == Framing::UntilClose;
        response.reader = Some(BodyReader::for_response(
            head.framing,
            self.facts.trailer_limit,
            head.forwards_trailers,
        ));
        // What is left of a body that the backend answers before it has it may never come, or belong to nobody.
        response.close_client =
            closing || !self.facts.keep_alive || response.until_close || is_early;
        let persistence = if response.close_client {
            Persistence::Close
        } else {
            Persistence::kept(self.facts.keeps_for, self.facts.is_http10)
        };
        let told = Told {
            framing,
            persistence,
            date: space.date.at(self.since.now),
            id: self.exposed_id(),
            via: self.facts.via,
        };
        write_response(&mut space.out, head, bytes, &space.fields, &told);
        Ok(())
    }

    fn rewrite_interim(
        &mut self,
        head: &ResponseHead<'_>,
        bytes: &[u8],
        space: &mut HeadSpace,
    ) -> Result<(), BackendError> {
        let is_upgrade = head.status == 101;
        if is_upgrade {
            self.response.cause = self.fault_of_upgrade(bytes, &space.fields);
            if self.response.cause.is_some() {
                return Err(BackendError::Protocol);
            }
        }
        self.response.interim = self.response.interim.saturating_add(1);
        self.response.interim_bytes = self.response.interim_bytes.saturating_add(head.len);
        let is_within_bounds = self.response.interim <= INTERIM_RESPONSES
            && self.response.interim_bytes <= INTERIM_BYTES;
        if !is_upgrade && !is_within_bounds {
            return Ok(());
        }
        // Whoever waited for a 100 has its time for the body from here on, and the backend its time for a response.
        self.since.client_read = self.since.now;
        self.since.backend_read = self.since.now;
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
            let told = Told {
                via: self.facts.via,
                // Behind any other interim one comes a response that has it.
                id: if is_upgrade { self.exposed_id() } else { b"" },
                ..Told::plain(Framing::None, persistence)
            };
            write_response(&mut space.out, head, bytes, &space.fields, &told);
        }
        Ok(())
    }

    /// What is wrong with a 101, whose head begins `bytes`. The protocol changes behind the whole request (RFC 9110 7.8):
    /// before, its body is not the other protocol's.
    fn fault_of_upgrade(&self, bytes: &[u8], fields: &[Field]) -> Option<&'static str> {
        if !self.facts.wants_upgrade || !takes_an_offer(&self.out, bytes, fields) {
            Some("upgrade_not_offered")
        } else if !self.is_sent() {
            Some("upgrade_too_early")
        } else {
            None
        }
    }

    /// X-Request-Id as responses have it: empty if they do not.
    fn exposed_id(&self) -> &[u8] {
        if self.facts.exposes_id {
            self.id()
        } else {
            b""
        }
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
        head: &mut Vec<u8>,
        learn: Option<(usize, usize)>,
    ) -> Option<End> {
        let reader = self.response.reader.as_mut()?;
        self.trailers.clear();
        let read = reader.read_in_place(bytes, &mut self.trailers);
        let piece = match read {
            Ok(piece) => piece,
            Err(refusal) => {
                // The head is good: the client must see a cut answer, as it would if they had come one after the other.
                if self.down.is_empty() {
                    let _ = self.send(cx, client, &[head], None);
                } else {
                    self.down.push(head);
                }
                return Some(self.refuse(refusal));
            }
        };
        let done = reader.is_done();
        self.response.done = done;
        self.response.excess |= piece.consumed < bytes.len();
        let size = self
            .response
            .is_chunked
            .then(|| SizeLine::new(piece.payload));
        let trailers = std::mem::take(&mut self.trailers);
        let [line, payload, end, extra, last] =
            frame(size.as_ref(), &bytes[..piece.payload], done, &trailers);
        let body = [line, payload, end, extra, last];
        let end = if !self.down.is_empty() {
            self.down.push(head);
            body.into_iter().for_each(|part| self.down.push(part));
            None
        } else if payload.len() <= COPIED && !head.is_empty() {
            body.into_iter()
                .for_each(|part| head.extend_from_slice(part));
            self.send(cx, client, &[head], learn)
        } else {
            let [line, payload, end, extra, last] = body;
            self.send(cx, client, &[head, line, payload, end, extra, last], learn)
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
        self.since.client_write = self.since.now;
        if let Some((asked, read)) = learn {
            self.down_size.learn(asked, read, written == length);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::http1::Framing;

    #[test]
    fn a_body_until_the_end_is_cut_if_a_write_has_met_a_reset() {
        for (was_reset, is_chunked, whole) in [
            (false, false, true),
            (false, true, true),
            (true, false, false),
            (true, true, false),
        ] {
            let mut exchange = Exchange {
                was_reset,
                ..Exchange::default()
            };
            exchange.response.reader = Some(BodyReader::for_response(Framing::UntilClose, 0, true));
            exchange.response.is_chunked = is_chunked;
            let (mut client, _other) = tokio::io::duplex(64);
            let mut cx = Context::from_waker(Waker::noop());
            let end = exchange.backend_ended(&mut cx, &mut client);
            assert_eq!((end.is_none(), exchange.response.done), (whole, whole));
        }
    }
}
