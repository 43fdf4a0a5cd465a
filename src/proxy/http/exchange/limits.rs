//! What an exchange may take: the deadlines that hold at a time, what each of them means when it has passed, and the looks
//! at those who are waited for.

use std::time::Duration;

use super::{Download, End, Exchange, RequestSink, RequestSource, ResponseSink, Upload};
use crate::proxy::deadlines::Fired;
use crate::proxy::read_size::Backlog;
use crate::telemetry::outcome::{BackendError, Reason};

const NEVER: u64 = u64::MAX;

/// How long a backend that has responded may take nothing of the rest of the request before the rest is no longer meant
/// for it, in milliseconds.
const UNREAD_MS: u64 = 2_000;

/// Between two looks at those who are waited for, in milliseconds.
const LOOK_MS: u64 = 500;

/// Limits of time, in the milliseconds of the worker's table.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Limits {
    request_body: u64,
    write: u64,
    response: u64,
    body: u64,
    total_at: Option<u64>,
    /// The client waits for 100 before it sends the body.
    expects_continue: bool,
    /// When to look at those who are waited for.
    look_at: Option<u64>,
    client_backlog: Backlog,
    backend_backlog: Backlog,
}

impl Limits {
    /// Of a request that began at `now`: for its body, for a client that does not read, and for all of it.
    pub(crate) fn new(
        (request_body, write): (Duration, Duration),
        total: Option<Duration>,
        expects_continue: bool,
        now: u64,
    ) -> Self {
        Self {
            request_body: millis(request_body),
            write: millis(write),
            total_at: total.map(|total| now.saturating_add(millis(total))),
            expects_continue,
            ..Self::default()
        }
    }

    /// Of an attempt: for the response head, and for a silence in the response body.
    pub(super) fn begin_attempt(&mut self, response: Duration, body: Duration) {
        (self.response, self.body) = (millis(response), millis(body));
        self.look_at = None;
        self.client_backlog = Backlog::default();
        self.backend_backlog = Backlog::default();
    }

    /// When the whole request must be over.
    pub(super) fn total_at(&self) -> u64 {
        self.total_at.unwrap_or(NEVER)
    }

    /// The times that may end an exchange, each with the end that it brings.
    fn deadlines(&self, upload: &Upload, download: &Download) -> [(u64, Expiry); 5] {
        let when = |applies: bool, at: u64| if applies { at } else { NEVER };
        let sending = upload.is_sending;
        // A client that waits for 100 is not waited for, unless a response has come in the place of that.
        let held_back = self.expects_continue
            && upload.body_bytes == 0
            && download.interim == 0
            && !download.is_finished;
        let receiving = !upload.is_closed && !sending && !upload.is_whole && !held_back;
        let client_full = download.kept > 0;
        // A backend that has responded need not take the rest of the request.
        let patience = if download.is_done {
            UNREAD_MS
        } else {
            self.body.max(self.response)
        };
        let awaited = if download.has_answered {
            let awaits = !client_full && !download.is_done;
            when(awaits, download.last_read.saturating_add(self.body))
        } else {
            let since = upload.last_write.max(download.last_read);
            when(!sending && !receiving, since.saturating_add(self.response))
        };
        [
            (self.total_at(), Expiry::Total),
            (
                when(client_full, download.last_write.saturating_add(self.write)),
                Expiry::SlowReader,
            ),
            (
                when(
                    receiving,
                    upload.last_read.saturating_add(self.request_body),
                ),
                Expiry::SlowBody,
            ),
            (
                when(sending, upload.last_write.saturating_add(patience)),
                Expiry::Backend,
            ),
            (awaited, Expiry::Backend),
        ]
    }
}

/// What a deadline means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    Total,
    SlowReader,
    SlowBody,
    Backend,
}

impl Expiry {
    fn end(self) -> End {
        match self {
            Self::Total => End::TotalTimeout,
            Self::SlowReader => End::Client(Reason::SlowReader),
            Self::SlowBody => End::Client(Reason::SlowBody),
            Self::Backend => End::Backend(BackendError::Timeout),
        }
    }
}

impl Exchange {
    /// While bytes wait, looks from time to time at what no read and no write tells: whether a client that is not read
    /// has left, and whether the sides take what the system holds for them.
    pub(super) fn check_stalled<C: RequestSource + ResponseSink, B: RequestSink>(
        &mut self,
        client: &C,
        client_is_read: bool,
        backend: &B,
        now: u64,
    ) -> Option<End> {
        let client_full = self.download.kept > 0;
        let limits = &mut self.limits;
        if client_is_read && !client_full && !self.upload.is_sending {
            limits.look_at = None;
            return None;
        }
        let next = now + LOOK_MS.min(limits.write / 4).max(1);
        if now < *limits.look_at.get_or_insert(next) {
            return None;
        }
        limits.look_at = Some(next);
        if client_full && ResponseSink::has_taken(client, &mut limits.client_backlog) {
            self.download.last_write = now;
        }
        if self.upload.is_sending && backend.has_taken(&mut limits.backend_backlog) {
            self.upload.last_write = now;
        }
        (!client_is_read && client.has_left()).then_some(End::Client(Reason::ClientLeft))
    }

    /// When to look again at the latest, in the worker's milliseconds.
    pub(crate) fn next_deadline(&self) -> u64 {
        self.limits
            .deadlines(&self.upload, &self.download)
            .iter()
            .map(|(at, _)| *at)
            .chain(self.limits.look_at)
            .min()
            .unwrap_or(NEVER)
    }

    /// What a deadline that fired means, if one has passed at `safe_now`.
    pub(crate) fn expired(&self, fired: Fired, safe_now: u64) -> Option<End> {
        match fired {
            Fired::Drained => Some(self.meaning_of(End::Drained)),
            // It was idle then, and is not now.
            Fired::Evicted => None,
            Fired::Deadline => self
                .limits
                .deadlines(&self.upload, &self.download)
                .into_iter()
                .find(|(at, _)| *at <= safe_now)
                .map(|(_, expiry)| self.meaning_of(expiry.end())),
        }
    }
}

/// Whole milliseconds, as the worker's table counts.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST_BODY: u64 = 3_000;

    /// What an exchange may stand on, each a bit.
    const EXPECTS: u32 = 1;
    const WHOLE: u32 = 1 << 1;
    const STREAMED: u32 = 1 << 2;
    const INTERIM: u32 = 1 << 3;
    const SENDING: u32 = 1 << 4;
    const CLOSED: u32 = 1 << 5;
    const ANSWERED: u32 = 1 << 6;
    const DONE: u32 = 1 << 7;
    const CLIENT_FULL: u32 = 1 << 8;
    const ALL: u32 = (1 << 9) - 1;

    /// An exchange between two polls; `None` for what cannot be, or is over.
    fn standing(on: u32) -> Option<Exchange> {
        let is = |bits: u32| on & bits == bits;
        let mut exchange = Exchange::default();
        let Exchange {
            upload,
            download,
            limits,
        } = &mut exchange;
        upload.body_bytes = u64::from(is(STREAMED));
        upload.is_whole = is(WHOLE);
        upload.is_sent = is(WHOLE) && !is(SENDING);
        upload.is_sending = is(SENDING) && !is(CLOSED);
        upload.is_closed = is(CLOSED);
        download.has_answered = is(ANSWERED);
        download.is_done = is(DONE);
        download.interim = u32::from(is(INTERIM));
        download.kept = usize::from(is(CLIENT_FULL));
        *limits = Limits {
            request_body: REQUEST_BODY,
            write: 1_000,
            response: 10_000,
            body: 10_000,
            expects_continue: is(EXPECTS),
            ..Limits::default()
        };
        let is_over = exchange.is_delivered() && (is(CLOSED) || exchange.upload.is_sent);
        exchange.download.is_finished = exchange.is_delivered();
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

    /// How an exchange ends at this time, if it does.
    fn end_at(exchange: &Exchange, at: u64) -> Option<String> {
        exchange
            .expired(Fired::Deadline, at)
            .map(|end| format!("{end:?}"))
    }

    #[test]
    fn a_client_that_waits_for_a_100_is_not_waited_for() {
        let past = |exchange: &Exchange| end_at(exchange, REQUEST_BODY);
        for on in [EXPECTS, EXPECTS | ANSWERED] {
            assert_eq!(past(&standing(on).unwrap()), None, "{on:#b}");
            let not_held_back = standing(on | INTERIM).unwrap();
            assert_eq!(past(&not_held_back).unwrap(), "Client(SlowBody)", "{on:#b}");
        }
        let delivered = standing(EXPECTS | ANSWERED | DONE).unwrap();
        assert_eq!(past(&delivered).unwrap(), "Complete");
    }

    #[test]
    fn each_who_is_waited_for_has_its_own_time() {
        for (on, at, end) in [
            // The head goes to the backend, and is not taken.
            (WHOLE | SENDING, 10_000, "Backend(Timeout)"),
            // It has the request, and does not respond.
            (WHOLE, 10_000, "Backend(Timeout)"),
            // It has responded, and falls silent.
            (WHOLE | ANSWERED, 10_000, "Backend(Timeout)"),
            // The client does not read.
            (WHOLE | ANSWERED | CLIENT_FULL, 1_000, "Client(SlowReader)"),
            // The client does not send.
            (0, REQUEST_BODY, "Client(SlowBody)"),
            // A backend that has responded leaves the rest of the request; the client has all of its response.
            (ANSWERED | DONE | SENDING, UNREAD_MS, "Complete"),
        ] {
            let exchange = standing(on).unwrap();
            assert_eq!(end_at(&exchange, at - 1), None, "{on:#b}");
            assert_eq!(end_at(&exchange, at).as_deref(), Some(end), "{on:#b}");
        }
    }

    #[test]
    fn the_limit_of_the_whole_comes_before_all_others() {
        let mut exchange = standing(WHOLE).unwrap();
        exchange.limits.total_at = Some(10_000);
        assert_eq!(end_at(&exchange, 10_000).unwrap(), "TotalTimeout");
        assert_eq!(exchange.next_deadline(), 10_000);
    }
}
