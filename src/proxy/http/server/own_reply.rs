//! Replies of the proxy's own, and what is left of a response that was cut: sent to a client that takes some of it now and
//! then.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use crate::proxy::buffer::Unsent;
use crate::proxy::deadlines::{ConnectionSlot, Fired};
use crate::proxy::http::reply::Reply;
use crate::proxy::http::request::RequestContext;
use crate::proxy::read_size::Backlog;
use crate::telemetry::outcome::Reason;
use crate::transport::stream::Stream;

/// Gives an error the page that the route or the listener has for it.
pub(super) fn dress(reply: &mut Reply, request: &RequestContext) {
    let Some(listener) = request.listener() else {
        return;
    };
    let narrow = request.target().map_or(&listener.errors, |to| &to.errors);
    reply.dress(narrow, &listener.errors);
}

/// Sends `unsent` to a client that takes some of it within each `patience`. Bytes that were sent, and why not all were.
pub(super) async fn send<S: Stream>(
    stream: &mut S,
    slot: &ConnectionSlot,
    unsent: &mut Unsent,
    patience: Duration,
) -> (u64, Result<(), Reason>) {
    let look = patience / 4;
    let mut backlog = Backlog::default();
    let mut taken_at = slot.now();
    let mut sent = 0;
    slot.set_deadline(look);
    let result = poll_fn(|cx| {
        let before = sent;
        match unsent.poll_flush(stream, cx, &mut sent) {
            Poll::Ready(result) => return Poll::Ready(result.map_err(|_| Reason::ClientLeft)),
            Poll::Pending if sent > before => taken_at = slot.now(),
            Poll::Pending => {}
        }
        while let Poll::Ready(fired) = slot.poll_fired(cx) {
            if fired == Fired::Drained {
                return Poll::Ready(Err(Reason::Drained));
            }
            if backlog.has_shrunk(stream) {
                taken_at = slot.now();
            }
            let silence = slot.safe_now().saturating_sub(taken_at);
            if u128::from(silence) >= patience.as_millis() {
                return Poll::Ready(Err(Reason::SlowReader));
            }
            slot.set_deadline(look);
        }
        Poll::Pending
    })
    .await;
    (sent, result)
}
