//! What an exchange may take: the deadlines that stand as it stands, and what each of them means when it has passed.

use std::time::Duration;

use super::{End, Exchange, Since, Times};
use crate::proxy::sessions::Fired;
use crate::telemetry::outcome::{BackendError, Reason};

const NEVER: u64 = u64::MAX;

impl Exchange {
    /// The times that may end the exchange as it stands, each with the end that it brings.
    fn deadlines(&self) -> [(u64, End); 5] {
        let Since {
            client_read,
            client_write,
            backend_read,
            backend_write,
            now: _,
            look_at: _,
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
        // A client that was told to wait for 100 waits for the backend, not the backend for it.
        let held_back = self.facts.expects_continue && !self.streamed && self.response.interim == 0;
        let receiving = !self.deaf && !sending && !self.body.is_done() && !held_back;
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
            .chain(self.since.look_at)
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

/// Whole milliseconds, as the worker's table counts.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
