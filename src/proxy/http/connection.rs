//! A client connection of an http listener: its requests one after the other, each walked through
//! pick → connect → relay → record.
//!
//! A connection at rest holds its socket, its deadline and nothing else: exchanges and buffers are borrowed from the
//! worker when the first bytes of a request are there.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use super::attempt::{Verdict, attempt, give_back};
use super::exchange::Exchange;
use super::intake::Intake;
use super::prepare::{Prepared, give_id, prepare};
use super::reply::{Reply, status_of};
use super::slot::slot;
use crate::http1::request::begins_with_head;
use crate::proxy::accept::{Accepted, ClientGuard};
use crate::proxy::flow::{Backlog, Pending, SMALL_READ, Stream, TURN};
use crate::proxy::load::Picked;
use crate::proxy::pool::Upstream;
use crate::proxy::record::{KeptNames, record_exchange};
use crate::proxy::relay::Relay;
use crate::proxy::sessions::{Fired, Rest};
use crate::proxy::tcp::{drain_if_departed, join};
use crate::proxy::worker::Worker;
use crate::telemetry::outcome::Reason;
use crate::transport::conn::Conn;

/// How long a client is read from after its last response, so that it can read that one before the kernel resets a
/// connection with unread bytes (RFC 9112 9.6): at most this long in all, and this long without a byte from it.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_SILENCE: Duration = Duration::from_secs(5);

/// Answers of the proxy's own to pipelined requests before other connections have their turn.
const OWN_ANSWERS: u8 = 4;

/// A client connection.
pub(crate) struct Client {
    pub(super) stream: Conn,
    pub(super) guard: ClientGuard,
    pub(super) intake: Intake,
}

/// What comes next on a connection.
enum Next {
    Request(Box<Exchange>),
    Answer(Box<Exchange>, Box<Reply>),
    Close,
}

/// What becomes of a connection behind an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// It goes on.
    Keep,
    /// In order: the client reads to the end.
    Close,
    /// With a reset, so that a cut body cannot be taken for a whole one.
    Reset,
}

/// Serves one connection until it ends.
///
/// The future is what a connection at rest holds: it is made of the client alone, and whatever it becomes for a while
/// is boxed or lives in a [`Slot`](super::slot::Slot).
pub(crate) fn serve(accepted: Accepted, worker: Rc<Worker>) -> impl Future<Output = ()> {
    let mut client = Client {
        stream: accepted.stream,
        guard: accepted.client,
        intake: Intake::default(),
    };
    async move {
        loop {
            let after = match next_request(&mut client, &worker).await {
                Next::Close => return,
                Next::Answer(exchange, reply) => {
                    Box::pin(answer(&mut client, &worker, exchange, *reply)).await
                }
                Next::Request(exchange) => {
                    let mut slot = worker.spare_slot().unwrap_or_else(|| slot(serve_exchange));
                    slot.begin(client, Rc::clone(&worker), exchange);
                    let after;
                    (client, after) = poll_fn(|cx| slot.poll(cx)).await;
                    worker.return_slot(slot);
                    after
                }
            };
            match after {
                After::Keep => {}
                After::Close => return Box::pin(linger(client, worker)).await,
                After::Reset => return client.stream.reset_on_close(),
            }
        }
    }
}

impl Client {
    /// Whether the response at hand is the last one.
    pub(super) fn is_closing(&self, worker: &Worker) -> bool {
        worker.is_closing() || self.guard.running.is_stopped()
    }
}

/// Waits for a request: until it is whole up to its body, refused, or the connection ends. Holds few words, since this
/// is what a connection at rest does.
fn next_request<'c>(
    client: &'c mut Client,
    worker: &'c Rc<Worker>,
) -> impl Future<Output = Next> + use<'c> {
    let (idle, header, header_bytes) = {
        let (held, place) = client.guard.running.view(worker);
        let listener = &held.listeners[place];
        (
            listener.timeouts.idle,
            listener.timeouts.header,
            listener.limits.header_bytes,
        )
    };
    client.intake.begin();
    let at_rest = client.intake.is_at_rest();
    let deadline = if at_rest { idle } else { header };
    client.guard.session.set_deadline(deadline);
    poll_fn(move |cx| {
        let next = poll_next(cx, client, worker, header, header_bytes);
        if next.is_ready() {
            client.guard.session.set_rest(Rest::AtWork);
        }
        next
    })
}

fn poll_next(
    cx: &mut Context<'_>,
    client: &mut Client,
    worker: &Worker,
    header: Duration,
    header_bytes: usize,
) -> Poll<Next> {
    let scratch = &mut *worker.scratch.borrow_mut();
    let Client {
        stream,
        guard,
        intake,
        ..
    } = &mut *client;
    loop {
        if let Some(next) = intake.look(header_bytes, |bytes| take_request(worker, guard, bytes)) {
            return Poll::Ready(next);
        }
        let was_at_rest = intake.is_at_rest();
        match stream.poll_receive(cx, &mut scratch[..SMALL_READ]) {
            Poll::Pending => {
                // Only now: what waited while we did not run is no silence of the client's.
                if let Poll::Ready(fired) = guard.session.poll_fired(cx) {
                    return Poll::Ready(on_fired(intake, guard, worker, fired));
                }
                // A removed listener leaves its clients the time of the drain to ask once more and be told to close.
                if was_at_rest && worker.is_draining() {
                    return Poll::Ready(Next::Close);
                }
                guard
                    .session
                    .set_rest(if was_at_rest { Rest::Whole } else { Rest::Half });
                return Poll::Pending;
            }
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Close),
            Poll::Ready(Ok(read)) => {
                guard.sheet().bytes_in.add(read as u64);
                let bytes = &mut scratch[..read];
                if let Some(next) = intake.add(bytes, |bytes| take_request(worker, guard, bytes)) {
                    return Poll::Ready(next);
                }
                if was_at_rest && !intake.is_at_rest() {
                    guard.session.set_deadline(header);
                }
            }
        }
    }
}

/// One request from the beginning of `bytes`; `None` while its head is not whole.
fn take_request(worker: &Worker, guard: &ClientGuard, bytes: &mut [u8]) -> (Option<Next>, usize) {
    let mut exchange = worker.spare_exchange();
    match prepare(worker, guard, bytes, &mut exchange) {
        (Prepared::Incomplete, _) => {
            worker.return_exchange(exchange);
            (None, 0)
        }
        (Prepared::Forward, used) => (Some(Next::Request(exchange)), used),
        (Prepared::Answer(reply), used) => (Some(Next::Answer(exchange, Box::new(reply))), used),
    }
}

fn on_fired(intake: &Intake, guard: &ClientGuard, worker: &Worker, fired: Fired) -> Next {
    match fired {
        Fired::Deadline if !intake.is_at_rest() => {
            let mut exchange = worker.spare_exchange();
            exchange.view = Some(guard.running.view(worker));
            exchange.facts.started = Some(Instant::now());
            exchange.facts.is_head = begins_with_head(&intake.kept);
            give_id(&mut exchange, &worker.random);
            Next::Answer(exchange, Box::new(Reply::failure(Reason::SlowHead, true)))
        }
        Fired::Evicted => {
            guard.sheet().rejected[Reason::Evicted.index()].increment();
            Next::Close
        }
        Fired::Deadline | Fired::Drained => Next::Close,
    }
}

/// Sends an answer of our own and records it.
async fn answer(
    client: &mut Client,
    worker: &Rc<Worker>,
    mut exchange: Box<Exchange>,
    mut reply: Reply,
) -> After {
    // These need nobody else, so nothing but this makes a long row of them pause.
    client.guard.own_answers = client.guard.own_answers.wrapping_add(1);
    if client.guard.own_answers.is_multiple_of(OWN_ANSWERS) {
        tokio::task::yield_now().await;
    }
    reply.close |= client.is_closing(worker);
    let close = reply.close;
    dress(&mut reply, &exchange);
    let bytes = reply.to_bytes(&exchange);
    let write = match &exchange.view {
        Some((held, place)) => held.listeners[*place].timeouts.write,
        None => LINGER_SILENCE,
    };
    // An interim response may be half sent.
    let mut pending = exchange.take_unsent();
    pending.push(&bytes);
    let mut written = 0;
    let sent = send_own(client, &mut pending, &mut written, write).await;
    client.guard.sheet().bytes_out.add(written);
    exchange.facts.bytes_out += written;
    let reason = reply.reason.or(sent.err());
    record_exchange(&exchange, &client.guard, worker, reply.status, reason);
    worker.return_exchange(exchange);
    match (sent, close) {
        (Err(_), _) => After::Reset,
        (Ok(()), true) => After::Close,
        (Ok(()), false) => After::Keep,
    }
}

/// Gives an error the page that the route or the listener has for it.
fn dress(reply: &mut Reply, exchange: &Exchange) {
    let Some((held, place)) = &exchange.view else {
        return;
    };
    let listener = &held.listeners[*place];
    let route = exchange.facts.route;
    let route = route.and_then(|index| listener.routes.rules().get(index));
    let narrow = route.map_or(&listener.errors, |rule| &rule.target.errors);
    reply.dress(narrow, &listener.errors);
}

/// Sends an answer of our own to a client that takes some of it now and then.
async fn send_own(
    client: &mut Client,
    pending: &mut Pending,
    written: &mut u64,
    write: Duration,
) -> Result<(), Reason> {
    let session = &client.guard.session;
    let look = write / 4;
    let mut backlog = Backlog::default();
    let mut taken_at = session.now();
    session.set_deadline(look);
    poll_fn(|cx| {
        let before = *written;
        match pending.poll_flush(&mut client.stream, cx, written) {
            Poll::Ready(result) => return Poll::Ready(result.map_err(|_| Reason::ClientLeft)),
            Poll::Pending if *written > before => taken_at = session.now(),
            Poll::Pending => {}
        }
        while let Poll::Ready(fired) = session.poll_fired(cx) {
            if fired == Fired::Drained {
                return Poll::Ready(Err(Reason::Drained));
            }
            if backlog.has_shrunk(&client.stream) {
                taken_at = session.now();
            }
            let silence = session.past().saturating_sub(taken_at);
            if u128::from(silence) >= write.as_millis() {
                return Poll::Ready(Err(Reason::SlowReader));
            }
            session.set_deadline(look);
        }
        Poll::Pending
    })
    .await
}

/// pick → connect → relay → record.
async fn serve_exchange(
    mut client: Client,
    worker: Rc<Worker>,
    exchange: Box<Exchange>,
) -> (Client, After) {
    let after = exchange_with(&mut client, &worker, exchange).await;
    (client, after)
}

async fn exchange_with(
    client: &mut Client,
    worker: &Rc<Worker>,
    mut exchange: Box<Exchange>,
) -> After {
    let verdict = attempt(client, worker, &mut exchange).await;
    client.guard.session.set_backend(0);
    match verdict {
        Verdict::Done(picked, upstream) => {
            let after = if exchange.response.close_client || !exchange.has_whole_request() {
                After::Close
            } else {
                After::Keep
            };
            give_back(worker, &exchange, &picked, upstream);
            drop(picked);
            finish(client, worker, exchange, None);
            after
        }
        Verdict::Tunnel(picked, upstream) => {
            tunnel(client, worker, exchange, picked, upstream).await
        }
        Verdict::Fail(reason) => {
            let close = !exchange.has_whole_request()
                || !exchange.facts.keep_alive
                || reason == Reason::BodyTooLarge;
            answer(client, worker, exchange, Reply::failure(reason, close)).await
        }
        Verdict::Gone(reason) => {
            finish(client, worker, exchange, Some(reason));
            After::Reset
        }
        Verdict::Cut(reason) => {
            Box::pin(flush(client, &mut exchange)).await;
            let after = if exchange.response.until_close {
                After::Reset
            } else {
                After::Close
            };
            finish(client, worker, exchange, Some(reason));
            after
        }
    }
}

/// Sends what the client has not taken yet of a response that is cut: at least its head, whose status is recorded.
async fn flush(client: &mut Client, exchange: &mut Exchange) {
    let mut pending = exchange.take_unsent();
    if pending.is_empty() {
        return;
    }
    let write = match &exchange.view {
        Some((held, place)) => held.listeners[*place].timeouts.write,
        None => LINGER_SILENCE,
    };
    let mut written = 0;
    // The response is cut either way.
    let _ = send_own(client, &mut pending, &mut written, write).await;
    client.guard.sheet().bytes_out.add(written);
    exchange.facts.bytes_out += written;
}

fn finish(client: &Client, worker: &Worker, exchange: Box<Exchange>, reason: Option<Reason>) {
    let status = exchange
        .response
        .status
        .or(reason.map(status_of))
        .unwrap_or(502);
    record_exchange(&exchange, &client.guard, worker, status, reason);
    worker.return_exchange(exchange);
}

/// Both sides speak another protocol: bytes go both ways until they end.
async fn tunnel(
    client: &mut Client,
    worker: &Rc<Worker>,
    mut exchange: Box<Exchange>,
    picked: Picked,
    mut upstream: Upstream,
) -> After {
    let Some((held, place)) = &exchange.view else {
        return After::Reset;
    };
    let silence = held.listeners[*place].timeouts.tunnel;
    let drain_timeout = held.drain_timeout;
    client
        .guard
        .session
        .set_backend(picked.endpoint().backend.id().get());
    // What lasts this long holds no generation.
    exchange.kept_names = KeptNames::of(&exchange);
    exchange.view = None;
    drain_if_departed(&client.guard.session, &picked, drain_timeout);
    let load = picked.detach();
    let kept = std::mem::take(&mut client.intake.kept);
    let relay = Relay::with_early(&kept, &std::mem::take(&mut exchange.response.early));
    let joined = join(
        &mut client.stream,
        &mut upstream.stream,
        relay,
        silence,
        Rest::AtWork,
        &client.guard,
        worker,
    )
    .await;
    drop(load);
    exchange.facts.bytes_in += joined.bytes_up;
    exchange.facts.bytes_out += joined.bytes_down;
    finish(client, worker, exchange, joined.reason);
    if joined.reason.is_some() {
        After::Reset
    } else {
        After::Close
    }
}

/// Ends a connection in order: says that nothing more comes, and reads on for a while.
async fn linger(mut client: Client, worker: Rc<Worker>) {
    let session = &client.guard.session;
    let end = session.now().saturating_add(LINGER.as_millis() as u64);
    session.set_deadline(LINGER_SILENCE);
    session.set_rest(Rest::Whole);
    if client.stream.shutdown().await.is_err() {
        return;
    }
    poll_fn(|cx| {
        if session.poll_fired(cx).is_ready() {
            return Poll::Ready(());
        }
        let sink = &mut worker.scratch.borrow_mut()[..SMALL_READ];
        let mut turn = 0;
        while turn < TURN {
            match client.stream.poll_receive(cx, sink) {
                Poll::Pending if turn > 0 => {
                    let silence = session.now() + LINGER_SILENCE.as_millis() as u64;
                    session.set_deadline_at(silence.min(end));
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(read)) => turn += read,
            }
        }
        session.set_deadline_at(end);
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<F: Future>(_: impl FnOnce(Accepted, Rc<Worker>) -> F) -> usize {
        size_of::<F>()
    }

    /// A connection at rest holds its future and little else, so what the future holds across a wait counts.
    #[test]
    fn the_future_of_a_connection_is_small() {
        let size = size_of_future(serve);
        println!("{size} bytes");
        // With what the runtime adds, 384 bytes: it rounds up to 128.
        assert!(size <= 256, "{size}");
    }
}
