//! What an exchange may take: the deadlines that stand as it stands, what each of them means when it has passed, and the
//! looks at those who are waited for.

use std::time::Duration;

use super::{End, Exchange, Since, Times};
use crate::proxy::flow::Stream;
use crate::proxy::sessions::Fired;
use crate::telemetry::outcome::{BackendError, Reason};

const NEVER: u64 = u64::MAX;

/// How long a backend that has answered may take nothing of the rest of the request before the rest is no longer
/// meant for it.
const UNREAD_MS: u64 = 2_000;

/// Between two looks at those who are waited for, in milliseconds.
const LOOK_MS: u64 = 500;

impl Exchange {
    /// The times that may end the exchange as it stands, each with the end that it brings.
    fn deadlines(&self) -> [(u64, End); 5] {
        let Since {
            client_read,
            client_write,
            backend_read,
            backend_write,
            ..
        } = self.since;
        let Times {
            request_body,
            write,
            response,
            body,
            total_at,
        } = self.times;
        let when = |applies: bool, at: u64| if applies { at } else { NEVER };
        let sending = self.is_sending();
        // A client that waits for 100 is not waited for, unless an answer has come in the place of that.
        let held_back = self.facts.expects_continue
            && self.body_bytes == 0
            && self.response.interim == 0
            && !self.client_ended;
        let receiving = !self.deaf && !sending && !self.body.is_done() && !held_back;
        let answering = self.response.status.is_some();
        let client_full = !self.down.is_empty();
        let timeout = End::Backend(BackendError::Timeout);
        // A backend that has answered need not take the rest of the request.
        let patience = if self.response.done {
            UNREAD_MS
        } else {
            body.max(response)
        };
        let awaited = if answering {
            let awaits = !client_full && !self.response.done;
            when(awaits, backend_read.saturating_add(body))
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
                when(sending, backend_write.saturating_add(patience)),
                timeout,
            ),
            (awaited, timeout),
        ]
    }

    /// Bytes wait for the backend.
    fn is_sending(&self) -> bool {
        !self.deaf && (self.sent < self.out.len() || !self.up.is_empty())
    }

    /// While bytes wait, looks from time to time at what no read and no write tells: whether a client that is not read
    /// has left, and whether the sides take what the system holds for them.
    pub(super) fn look<C: Stream, B: Stream>(
        &mut self,
        client: &C,
        client_is_read: bool,
        backend: &B,
    ) -> Option<End> {
        let (now, client_full) = (self.since.now, !self.down.is_empty());
        if client_is_read && !client_full && !self.is_sending() {
            self.since.look_at = None;
            return None;
        }
        let next = now + LOOK_MS.min(self.times.write / 4).max(1);
        if now < *self.since.look_at.get_or_insert(next) {
            return None;
        }
        self.since.look_at = Some(next);
        if client_full && self.since.client_backlog.has_shrunk(client) {
            self.since.client_write = now;
        }
        if self.is_sending() && self.since.backend_backlog.has_shrunk(backend) {
            self.since.backend_write = now;
        }
        (!client_is_read && client.peer_has_ended()).then_some(End::Client(Reason::ClientLeft))
    }

    /// When to look again at the latest, in the worker's milliseconds.
    pub fn next_deadline(&self) -> u64 {
        self.deadlines()
            .iter()
            .map(|(at, _)| *at)
            .chain(self.since.look_at)
            .min()
            .unwrap_or(NEVER)
    }

    /// What a deadline that fired means, if one has passed at `past`.
    pub fn expired(&self, fired: Fired, past: u64) -> Option<End> {
        match fired {
            Fired::Drained => Some(self.meaning_of(End::Drained)),
            // It was at rest then, and is not now.
            Fired::Evicted => None,
            Fired::Deadline => self
                .deadlines()
                .into_iter()
                .find(|(at, _)| *at <= past)
                .map(|(_, end)| self.meaning_of(end)),
        }
    }
}

/// Whole milliseconds, as the worker's table counts.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Framing;
    use crate::http1::body::BodyReader;
    use crate::proxy::http::exchange::{Facts, Response};

    const REQUEST_BODY: u64 = 3_000;

    /// What an exchange may stand on, each a bit.
    const EXPECTS: u32 = 1;
    const WHOLE: u32 = 1 << 1;
    const STREAMED: u32 = 1 << 2;
    const INTERIM: u32 = 1 << 3;
    const SENDING: u32 = 1 << 4;
    const DEAF: u32 = 1 << 5;
    const ANSWERED: u32 = 1 << 6;
    const DONE: u32 = 1 << 7;
    const CLIENT_FULL: u32 = 1 << 8;
    const ALL: u32 = (1 << 9) - 1;

    /// An exchange between two polls; `None` for what cannot stand so, or is over.
    fn standing(on: u32) -> Option<Exchange> {
        let is = |bits: u32| on & bits == bits;
        let mut exchange = Exchange {
            facts: Facts {
                expects_continue: is(EXPECTS),
                ..Facts::default()
            },
            response: Response {
                status: is(ANSWERED).then_some(401),
                done: is(DONE),
                interim: u32::from(is(INTERIM)),
                ..Response::default()
            },
            out: b"head".to_vec(),
            sent: if is(SENDING) { 0 } else { 4 },
            body_bytes: u64::from(is(STREAMED)),
            deaf: is(DEAF),
            times: Times {
                request_body: REQUEST_BODY,
                write: 1_000,
                response: 10_000,
                body: 10_000,
                total_at: None,
            },
            ..Exchange::default()
        };
        if !is(WHOLE) {
            exchange.body = BodyReader::new(Framing::Length(5), 0, true);
        }
        if is(CLIENT_FULL) {
            exchange.down.push(b"x");
        }
        let is_over = exchange.is_delivered() && (is(DEAF) || exchange.is_sent());
        exchange.client_ended = exchange.is_delivered();
        (!is_over && (is(ANSWERED) || !is(DONE))).then_some(exchange)
    }

    #[test]
    fn there_is_always_a_deadline() {
        let mut seen = 0;
        for on in 0..=ALL {
            let Some(exchange) = standing(on) else {
                continue;
            };
            seen += 1;
            assert_ne!(exchange.next_deadline(), NEVER, "{on:#b}");
        }
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn a_client_that_waits_for_a_100_is_not_waited_for() {
        let past = |exchange: &Exchange| exchange.expired(Fired::Deadline, REQUEST_BODY);
        for on in [EXPECTS, EXPECTS | ANSWERED] {
            assert_eq!(past(&standing(on).unwrap()), None, "{on:#b}");
            let not_held_back = standing(on | INTERIM).unwrap();
            assert_eq!(
                past(&not_held_back),
                Some(End::Client(Reason::SlowBody)),
                "{on:#b}"
            );
        }
        let delivered = standing(EXPECTS | ANSWERED | DONE).unwrap();
        assert_eq!(past(&delivered), Some(End::Complete));
    }
}
