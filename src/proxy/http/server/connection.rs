//! A client's HTTP/1 connection: its requests one after the other, each walked through
//! route → pick → connect → relay → record.
//!
//! A connection at rest holds its socket, its deadline and nothing else: exchanges and buffers are borrowed from the
//! [`Server`] when the first bytes of a request are there.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::Server;
use super::future_slot::{ReusableFuture, slot};
use super::own_reply::{dress, send};
use super::request_buffer::RequestBuffer;
use crate::proxy::client::{Accepted, ClientGuard};
use crate::proxy::connected::Connected;
use crate::proxy::deadlines::{Activity, Fired};
use crate::proxy::http::forward::{Downstream, Forwarded, forward, give_back};
use crate::proxy::http::h1::encode::reply_bytes;
use crate::proxy::http::in_flight::InFlight;
use crate::proxy::http::reply::Reply;
use crate::proxy::http::request::RequestEnd;
use crate::proxy::http::route::{Arrival, Parsed, begin_broken, parse_and_route};
use crate::proxy::pick::Pick;
use crate::proxy::read_size::{SMALL_READ, TURN};
use crate::proxy::relay::{Join, Relay};
use crate::snapshot::Listener;
use crate::telemetry::outcome::Reason;
use crate::transport::connect::Connector;
use crate::transport::stream::Stream;

/// How long a client is read from after its last response, so that it can read that one before the kernel resets a
/// connection with unread bytes (RFC 9112 9.6): at most this long in all, and this long without a byte from it.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_SILENCE: Duration = Duration::from_secs(5);

/// Replies of the proxy's own to pipelined requests before other connections have their turn.
const OWN_REPLIES: u8 = 4;

/// A client's connection.
#[derive(Debug)]
pub(super) struct Client<S> {
    stream: S,
    guard: ClientGuard,
    buffer: RequestBuffer,
}

/// Where the future that forwards a request lives.
pub(super) type FutureSlot<T> = Box<
    dyn ReusableFuture<
            (
                Client<<T as Connector>::Stream>,
                Rc<Server<T>>,
                Box<InFlight>,
            ),
            (Client<<T as Connector>::Stream>, Disposition),
        >,
>;

/// What comes next on a connection.
enum Next {
    Request(Box<InFlight>),
    Reply(Box<InFlight>, Box<Reply>),
    Close,
}

/// What becomes of a connection after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disposition {
    /// It continues.
    Keep,
    /// It ends in order: the client reads to the end.
    Close,
    /// It ends with a reset, so that a cut body cannot be taken for a complete one.
    Reset,
}

/// Serves one connection until it ends.
///
/// The future is what a connection at rest holds: it is made of the client alone, and whatever it becomes for a while is
/// boxed or lives in a [`FutureSlot`].
pub(crate) fn serve<T: Connector>(
    accepted: Accepted<T::Stream>,
    server: Rc<Server<T>>,
) -> impl Future<Output = ()> {
    let mut client = Client {
        stream: accepted.stream,
        guard: accepted.client,
        buffer: RequestBuffer::default(),
    };
    async move {
        loop {
            let disposition = match next_request(&mut client, &server).await {
                Next::Close => return,
                Next::Reply(state, reply) => {
                    Box::pin(send_reply(&mut client, &server, state, *reply)).await
                }
                Next::Request(state) => {
                    let mut slot = server.spare_slot().unwrap_or_else(|| slot(serve_request));
                    slot.begin((client, Rc::clone(&server), state));
                    let disposition;
                    (client, disposition) = poll_fn(|cx| slot.poll(cx)).await;
                    server.give_back_slot(slot);
                    disposition
                }
            };
            match disposition {
                Disposition::Keep => {}
                Disposition::Close => return Box::pin(linger(client, server)).await,
                Disposition::Reset => return client.stream.reset_on_close(),
            }
        }
    }
}

/// Waits for a request: until its head is complete, it is refused, or the connection ends. Holds few words, since this is
/// what a connection at rest does.
fn next_request<'c, T: Connector>(
    client: &'c mut Client<T::Stream>,
    server: &'c Server<T>,
) -> impl Future<Output = Next> + use<'c, T> {
    let view = client.guard.listener.view(&server.ctx.snapshot());
    let patience = Patience::of(view.listener());
    drop(view);
    client.buffer.begin();
    patience.set(client.buffer.is_idle(), &client.guard);
    poll_fn(move |cx| {
        let next = poll_next(cx, client, server, patience);
        match next.is_ready() {
            true => client.guard.slot.set_activity(Activity::Busy),
            false => server.ctx.deadlines.forget_instant(),
        }
        next
    })
}

/// How long a request may take to come, and how large its head may be. Milliseconds, since every connection holds this.
#[derive(Debug, Clone, Copy)]
struct Patience {
    idle: u64,
    header: u64,
    header_bytes: usize,
}

impl Patience {
    fn of(listener: &Listener) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            idle: millis(listener.timeouts.idle),
            header: millis(listener.timeouts.header),
            header_bytes: listener.limits.header_bytes,
        }
    }

    /// Sets the deadline of a client that is idle, or has begun a request.
    fn set(self, is_idle: bool, guard: &ClientGuard) {
        let patience = if is_idle { self.idle } else { self.header };
        let slot = &guard.slot;
        slot.set_deadline_at(slot.now().saturating_add(patience));
    }
}

fn poll_next<T: Connector>(
    cx: &mut Context<'_>,
    client: &mut Client<T::Stream>,
    server: &Server<T>,
    patience: Patience,
) -> Poll<Next> {
    let ctx = &server.ctx;
    let scratch = &mut *ctx.scratch.borrow_mut();
    let Client {
        stream,
        guard,
        buffer,
    } = &mut *client;
    loop {
        if let Some(bytes) = buffer.ready(patience.header_bytes)
            && let Some((next, used)) = take_request(server, guard, bytes)
        {
            buffer.consume(used);
            return Poll::Ready(next);
        }
        let was_idle = buffer.is_idle();
        match stream.poll_receive(cx, &mut scratch[..SMALL_READ]) {
            Poll::Pending => {
                // Only now: what waited while we did not run is no silence of the client's.
                if let Poll::Ready(fired) = guard.slot.poll_fired(cx) {
                    return Poll::Ready(on_fired(buffer, guard, server, fired));
                }
                // A removed listener leaves its clients the time of the drain to ask once more and be told to close.
                if was_idle && ctx.is_draining() {
                    return Poll::Ready(Next::Close);
                }
                guard.slot.set_activity(match was_idle {
                    true => Activity::Idle,
                    false => Activity::PartialHead,
                });
                return Poll::Pending;
            }
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Close),
            Poll::Ready(Ok(read)) => {
                guard.sheet().bytes_in.add(read as u64);
                let bytes = &mut scratch[..read];
                if !buffer.is_empty() {
                    buffer.append(bytes);
                } else if let Some((next, used)) = take_request(server, guard, bytes) {
                    buffer.keep_rest(&bytes[used..], false);
                    return Poll::Ready(next);
                } else {
                    buffer.keep_rest(bytes, true);
                }
                let is_idle = buffer.is_idle();
                if is_idle != was_idle {
                    patience.set(is_idle, guard);
                }
            }
        }
    }
}

/// One request from the beginning of `bytes`, and how many of them it took; `None` while its head is not complete.
fn take_request<T: Connector>(
    server: &Server<T>,
    guard: &ClientGuard,
    bytes: &mut [u8],
) -> Option<(Next, usize)> {
    let mut state = server.spare();
    let fields = &mut server.http.heads.borrow_mut().fields;
    let (parsed, used) = parse_and_route(arrival(server, guard), fields, bytes, &mut state);
    match parsed {
        Parsed::Forward => Some((Next::Request(state), used)),
        Parsed::Reply(reply) => Some((Next::Reply(state, reply), used)),
        Parsed::Incomplete => {
            server.give_back(state);
            None
        }
        Parsed::Gone => {
            server.give_back(state);
            Some((Next::Close, used))
        }
    }
}

/// Where and when a request of this client comes in.
fn arrival<'a, T: Connector>(server: &'a Server<T>, guard: &ClientGuard) -> Arrival<'a> {
    let ctx = &server.ctx;
    let instant = ctx.deadlines.instant();
    Arrival {
        view: guard.listener.view(&ctx.snapshot()),
        peer: guard.peer.map(|peer| peer.ip()),
        instant,
        now: ctx.deadlines.now(),
        random: &ctx.random,
        process: &ctx.shared.id,
    }
}

fn on_fired<T: Connector>(
    buffer: &RequestBuffer,
    guard: &ClientGuard,
    server: &Server<T>,
    fired: Fired,
) -> Next {
    match fired {
        Fired::Deadline if !buffer.is_idle() => {
            let mut state = server.spare();
            begin_broken(&mut state, arrival(server, guard), &buffer.kept);
            let reply = Reply::failure(Reason::SlowHead, true);
            Next::Reply(state, Box::new(reply))
        }
        Fired::Evicted => {
            guard.sheet().rejected[Reason::Evicted.index()].increment();
            Next::Close
        }
        Fired::Deadline | Fired::Drained => Next::Close,
    }
}

/// pick → connect → relay → record.
async fn serve_request<T: Connector>(
    (mut client, server, mut state): (Client<T::Stream>, Rc<Server<T>>, Box<InFlight>),
) -> (Client<T::Stream>, Disposition) {
    let mut downstream = Downstream {
        stream: &mut client.stream,
        guard: &client.guard,
        read_ahead: &mut client.buffer.kept,
    };
    let forwarded = forward(&mut downstream, &server.http, &mut state).await;
    client.guard.slot.set_backend(None);
    let disposition = conclude(&mut client, &server, state, forwarded).await;
    (client, disposition)
}

async fn conclude<T: Connector>(
    client: &mut Client<T::Stream>,
    server: &Server<T>,
    mut state: Box<InFlight>,
    forwarded: Forwarded<T::Stream>,
) -> Disposition {
    match forwarded {
        Forwarded::Done(pick, backend) => {
            let closes = state.exchange.download.closes_client || !state.client.is_whole();
            give_back(&server.http, &state, &pick, backend);
            drop(pick);
            finish(client, server, state, None);
            match closes {
                true => Disposition::Close,
                false => Disposition::Keep,
            }
        }
        Forwarded::Tunnel(pick, backend) => {
            Box::pin(tunnel(client, server, state, pick, backend)).await
        }
        Forwarded::Reply(reply) => Box::pin(send_reply(client, server, state, *reply)).await,
        Forwarded::Gone(reason) => {
            finish(client, server, state, Some(reason));
            Disposition::Reset
        }
        Forwarded::Cut(reason) => {
            Box::pin(flush(client, &mut state)).await;
            let is_until_close = state.client.is_until_close;
            finish(client, server, state, Some(reason));
            match is_until_close {
                true => Disposition::Reset,
                false => Disposition::Close,
            }
        }
    }
}

/// Sends a reply of our own and records it.
async fn send_reply<T: Connector>(
    client: &mut Client<T::Stream>,
    server: &Server<T>,
    mut state: Box<InFlight>,
    mut reply: Reply,
) -> Disposition {
    // These need nobody else, so nothing but this makes a long row of them pause.
    client.guard.own_replies = client.guard.own_replies.wrapping_add(1);
    if client.guard.own_replies.is_multiple_of(OWN_REPLIES) {
        tokio::task::yield_now().await;
    }
    reply.close |= server.ctx.is_closing() || client.guard.listener.is_stopped();
    dress(&mut reply, &state.request);
    let bytes = reply_bytes(&reply, &state.request, state.client.keeps_for);
    // An interim response may be half sent.
    let mut unsent = state.take_unsent();
    unsent.push(&bytes);
    let patience = patience_of(&state);
    let (stream, slot) = (&mut client.stream, &client.guard.slot);
    let (sent, result) = send(stream, slot, &mut unsent, patience).await;
    server.ctx.deadlines.forget_instant();
    client.guard.sheet().bytes_out.add(sent);
    state.exchange.download.bytes_out += sent;
    let reason = reply.reason.or(result.err());
    record_end(client, server, &state, reply.status, reason);
    server.give_back(state);
    match (result, reply.close) {
        (Err(_), _) => Disposition::Reset,
        (Ok(()), true) => Disposition::Close,
        (Ok(()), false) => Disposition::Keep,
    }
}

/// How long a client may take nothing of what is sent to it.
fn patience_of(state: &InFlight) -> Duration {
    let view = state.request.view.as_ref();
    view.map_or(LINGER_SILENCE, |view| view.listener().timeouts.write)
}

/// Sends what the client has not taken yet of a response that is cut: at least its head, whose status is recorded.
async fn flush<S: Stream>(client: &mut Client<S>, state: &mut InFlight) {
    let mut unsent = state.take_unsent();
    if unsent.is_empty() {
        return;
    }
    let (stream, slot) = (&mut client.stream, &client.guard.slot);
    // The response is cut either way.
    let (sent, _) = send(stream, slot, &mut unsent, patience_of(state)).await;
    client.guard.sheet().bytes_out.add(sent);
    state.exchange.download.bytes_out += sent;
}

/// Records a request that ended with the backend's response, or without any.
fn finish<T: Connector>(
    client: &Client<T::Stream>,
    server: &Server<T>,
    state: Box<InFlight>,
    reason: Option<Reason>,
) {
    let download = &state.exchange.download;
    let answered = download.status.filter(|_| download.has_answered);
    let status = answered.or(reason.map(Reason::status)).unwrap_or(502);
    record_end(client, server, &state, status, reason);
    server.give_back(state);
}

fn record_end<T: Connector>(
    client: &Client<T::Stream>,
    server: &Server<T>,
    state: &InFlight,
    status: u16,
    reason: Option<Reason>,
) {
    let exchange = &state.exchange;
    let end = RequestEnd {
        status,
        reason,
        cause: exchange.download.cause,
        bytes_in: exchange.upload.bytes_in,
        bytes_out: exchange.download.bytes_out,
        response: exchange.response_time(),
    };
    let now = server.ctx.deadlines.instant();
    state.request.record(end, &client.guard, now, &server.ctx);
}

/// Both sides speak another protocol: bytes go both ways until they end.
async fn tunnel<T: Connector>(
    client: &mut Client<T::Stream>,
    server: &Server<T>,
    mut state: Box<InFlight>,
    pick: Pick,
    mut backend: Connected<T::Stream>,
) -> Disposition {
    let Some(view) = &state.request.view else {
        return Disposition::Reset;
    };
    let silence = view.listener().timeouts.tunnel;
    client.guard.slot.set_backend(Some(pick.backend().id()));
    // What lasts this long holds no generation.
    state.request.release_view();
    pick.drain_if_departed(&client.guard.slot);
    let load = pick.into_load();
    let kept = std::mem::take(&mut client.buffer.kept);
    let early = std::mem::take(&mut state.exchange.download.early);
    let join = Join {
        client: &mut client.stream,
        backend: &mut backend.stream,
        relay: Relay::with_early(&kept, &early),
        silence,
        activity: Activity::Busy,
    };
    let joined = join.run(&client.guard, &server.ctx).await;
    drop(load);
    server.ctx.deadlines.forget_instant();
    state.exchange.upload.bytes_in += joined.bytes_up;
    state.exchange.download.bytes_out += joined.bytes_down;
    finish(client, server, state, joined.reason);
    match joined.reason {
        Some(_) => Disposition::Reset,
        None => Disposition::Close,
    }
}

/// Ends a connection in order: says that nothing more comes, and reads on for a while.
async fn linger<T: Connector>(mut client: Client<T::Stream>, server: Rc<Server<T>>) {
    let slot = &client.guard.slot;
    let end = slot.now().saturating_add(LINGER.as_millis() as u64);
    slot.set_deadline(LINGER_SILENCE);
    slot.set_activity(Activity::Idle);
    if client.stream.shutdown().await.is_err() {
        return;
    }
    poll_fn(|cx| {
        if slot.poll_fired(cx).is_ready() {
            return Poll::Ready(());
        }
        let sink = &mut server.ctx.scratch.borrow_mut()[..SMALL_READ];
        let mut turn = 0;
        while turn < TURN {
            match client.stream.poll_receive(cx, sink) {
                Poll::Pending if turn > 0 => {
                    let silence = slot.now() + LINGER_SILENCE.as_millis() as u64;
                    slot.set_deadline_at(silence.min(end));
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(read)) => turn += read,
            }
        }
        slot.set_deadline_at(end);
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::connect::SystemConnector;

    fn size_of_future<A, B, F: Future>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// A connection at rest holds its future and little else, so what the future holds across a wait counts.
    #[test]
    fn the_future_of_a_connection_is_small() {
        let size = size_of_future(serve::<SystemConnector>);
        println!("{size} bytes");
        // With what the runtime adds, 384 bytes: it rounds up to 128.
        assert!(size <= 256, "{size}");
    }
}
