//! The verbs pick → connect → relay of a request, and what is tried again.
//!
//! A request is sent again only if nothing of a response was forwarded and either it never reached a backend or it is
//! idempotent and still whole; on another backend if there is one. A pooled connection that turns out to be dead is
//! replaced by a fresh one to the same backend, which does not count as an attempt.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::context::HttpContext;
use super::exchange::{Decision, Edits, End, HeadView, PollContext};
use super::h1::backend_side::BackendSide;
use super::h1::client_side::ClientSide;
use super::head::ForwardHead;
use super::in_flight::InFlight;
use super::reply::Reply;
use super::request::RequestContext;
use crate::proxy::attempts::Attempts;
use crate::proxy::client::ClientGuard;
use crate::proxy::connect::{ConnectError, Within, connect};
use crate::proxy::connected::Connected;
use crate::proxy::pick::Pick;
use crate::telemetry::outcome::{AttemptOutcome, BackendError, Fault, Reason, RetryReason};
use crate::transport::connect::Connector;
use crate::transport::stream::Stream;

/// A pooled connection that was used this recently is thought alive enough for a request that cannot be repeated, in
/// milliseconds.
const FRESH_MS: u64 = 1000;

/// A client's connection with what a request needs of it.
pub(crate) struct Downstream<'a, S> {
    /// The connection.
    pub(crate) stream: &'a mut S,
    /// What it holds beside its socket.
    pub(crate) guard: &'a ClientGuard,
    /// Bytes of further requests.
    pub(crate) read_ahead: &'a mut Vec<u8>,
}

/// How forwarding a request ended.
pub(crate) enum Forwarded<S> {
    /// The response went out; the backend's connection may serve again.
    Done(Pick, Connected<S>),
    /// Both speak another protocol now.
    Tunnel(Pick, Connected<S>),
    /// Nothing of a response went out: the client gets a reply of ours.
    Reply(Box<Reply>),
    /// The client is gone, or must go.
    Gone(Reason),
    /// The response was cut.
    Cut(Reason),
}

/// Tries backends until one responds, within the cluster's rules.
pub(crate) async fn forward<T: Connector>(
    client: &mut Downstream<'_, T::Stream>,
    ctx: &HttpContext<T>,
    state: &mut InFlight,
) -> Forwarded<T::Stream> {
    let (Some(view), Some(routed)) = (state.request.view.clone(), state.request.routed) else {
        return fail(state, Reason::Internal);
    };
    let mut attempts = Attempts::new(routed);
    loop {
        let pick = match attempts.next(&view.snapshot, ctx.index, &ctx.random) {
            Ok(pick) => pick,
            Err(reason) => return fail(state, reason),
        };
        let slot = &client.guard.slot;
        slot.set_backend(Some(pick.backend().id()));
        pick.drain_if_departed(slot);
        state.request.attempts = attempts.made();
        if view.snapshot.access_log {
            state.request.backend = Some(pick.backend().label().clone());
        }
        let failure = match attempt(client, ctx, state, &pick).await {
            Attempted::Done(backend) => return Forwarded::Done(pick, backend),
            Attempted::Upgraded(backend) => return Forwarded::Tunnel(pick, backend),
            Attempted::Stop(forwarded) => return forwarded,
            Attempted::Again(failure) => failure,
        };
        if let Err(reason) = attempts.failed(&pick, failure) {
            return fail(state, reason);
        }
    }
}

/// The client gets a reply that says why. The connection goes on only if the next request can be found on it.
fn fail<S>(state: &InFlight, reason: Reason) -> Forwarded<S> {
    let close = !state.client.is_whole()
        || !state.request.info.keep_alive
        || reason == Reason::BodyTooLarge;
    Forwarded::Reply(Box::new(Reply::failure(reason, close)))
}

/// How one attempt ended.
enum Attempted<S> {
    Done(Connected<S>),
    Upgraded(Connected<S>),
    Again(RetryReason),
    Stop(Forwarded<S>),
}

/// One attempt: on a pooled connection if there is a good one, on a fresh one else, or when the pooled one turns out to
/// be dead.
async fn attempt<T: Connector>(
    client: &mut Downstream<'_, T::Stream>,
    ctx: &HttpContext<T>,
    state: &mut InFlight,
    pick: &Pick,
) -> Attempted<T::Stream> {
    let mut pooled = take_pooled(ctx, state, pick);
    loop {
        let is_reused = pooled.is_some();
        let mut backend = match pooled.take() {
            Some(backend) => backend,
            None => match Box::pin(connect_timed(client.guard, ctx, state, pick)).await {
                Ok(backend) => backend,
                Err(ConnectError::Backend) => return Attempted::Again(RetryReason::Connect),
                Err(ConnectError::Exhausted) => {
                    return Attempted::Stop(fail(state, Reason::DescriptorLimit));
                }
                Err(ConnectError::TotalTimeout) => {
                    return Attempted::Stop(fail(state, Reason::RequestTimeout));
                }
                Err(ConnectError::Drained) => {
                    return Attempted::Stop(Forwarded::Gone(Reason::Drained));
                }
            },
        };
        begin_attempt(ctx, state, pick);
        let end = relay(client, ctx, state, &mut backend.stream, is_reused).await;
        let is_stale = match end {
            End::Retry(RetryReason::Stale) => true,
            End::Backend(BackendError::Reset) => is_reused && state.may_repeat(),
            _ => false,
        };
        observe(ctx, state, pick, (!is_stale).then_some(&end));
        match end {
            End::Complete => return Attempted::Done(backend),
            End::Upgraded => return Attempted::Upgraded(backend),
            _ if is_stale => {
                let sheet = pick.cluster().metrics.sheet(ctx.index);
                sheet.retries[RetryReason::Stale.index()].increment();
            }
            end => {
                if !state.exchange.upload.is_sent {
                    // Some backends take the beginning of a body for all of it if it ends in order.
                    backend.stream.reset_on_close();
                }
                return give_up(state, end);
            }
        }
    }
}

fn begin_attempt<T: Connector>(ctx: &HttpContext<T>, state: &mut InFlight, pick: &Pick) {
    let timeouts = &pick.cluster().settings.timeouts;
    let times = (timeouts.response, timeouts.body);
    state.exchange.begin_attempt(times, ctx.deadlines.now());
    let limits = state.request.view.as_ref();
    let trailer_limit = limits.map_or(0, |view| view.listener().limits.trailer_bytes);
    let is_head = state.request.info.is_head;
    let host = pick.backend().host();
    state
        .backend
        .begin(&mut state.head, host, is_head, trailer_limit);
}

/// Counts how an attempt ended, or that only its response head came; names a backend whose response was refused.
fn observe<T: Connector>(ctx: &HttpContext<T>, state: &InFlight, pick: &Pick, end: Option<&End>) {
    let download = &state.exchange.download;
    let error = match end {
        Some(End::Backend(error)) => Some(*error),
        Some(End::Replace(reply)) if reply.reason.map(Reason::fault) == Some(Fault::Backend) => {
            Some(BackendError::Protocol)
        }
        _ => None,
    };
    let outcome = AttemptOutcome {
        status: download.status,
        response: state.exchange.response_time(),
        error,
    };
    pick.endpoint().observe(&outcome, ctx.index);
    if let (Some(BackendError::Protocol), Some(cause)) = (error, download.cause) {
        log_refusal(pick, cause);
    }
}

/// Names a backend whose response was refused and what was wrong with it, seldom.
fn log_refusal(pick: &Pick, cause: &str) {
    let backend = pick.backend();
    if let Some(more) = pick.endpoint().metrics.refusals.pass() {
        warn!(
            cluster = %backend.cluster(), backend = %backend.label(), cause, more,
            "refused a response of a backend: it is not valid HTTP"
        );
    }
}

/// What an attempt that failed means.
fn give_up<S>(state: &InFlight, end: End) -> Attempted<S> {
    let has_answered = state.exchange.download.has_answered;
    Attempted::Stop(match end {
        End::Backend(BackendError::Reset) if state.may_repeat() => {
            return Attempted::Again(RetryReason::Reset);
        }
        End::Backend(BackendError::Timeout) if state.may_repeat() => {
            return Attempted::Again(RetryReason::Timeout);
        }
        End::Retry(reason) => return Attempted::Again(reason),
        End::Replace(mut reply) => {
            reply.close |= !state.client.is_whole() || !state.request.info.keep_alive;
            Forwarded::Reply(reply)
        }
        End::Backend(_) if has_answered => Forwarded::Cut(Reason::BackendCut),
        End::Backend(error) => fail(state, error.reason()),
        End::Client(reason @ (Reason::ClientLeft | Reason::SlowReader)) => Forwarded::Gone(reason),
        End::Client(reason) if has_answered => Forwarded::Cut(reason),
        End::Client(reason) => fail(state, reason),
        End::TotalTimeout if has_answered => Forwarded::Cut(Reason::RequestTimeout),
        End::TotalTimeout => fail(state, Reason::RequestTimeout),
        End::Drained => Forwarded::Gone(Reason::Drained),
        End::Complete | End::Upgraded => fail(state, Reason::Internal),
    })
}

/// A pooled connection that this request may use: one that cannot be repeated takes only one that was used within the
/// last second.
fn take_pooled<T: Connector>(
    ctx: &HttpContext<T>,
    state: &InFlight,
    pick: &Pick,
) -> Option<Connected<T::Stream>> {
    if !pick.backend().is_healthy() {
        // Only a new connection can tell whether it lets us in again.
        return None;
    }
    let now = ctx.deadlines.now();
    let may_repeat = state.request.info.is_idempotent && state.exchange.upload.is_at_hand();
    let used_since = if may_repeat {
        0
    } else {
        now.saturating_sub(FRESH_MS)
    };
    ctx.pool.borrow_mut().take(pick.endpoint(), now, used_since)
}

async fn connect_timed<T: Connector>(
    guard: &ClientGuard,
    ctx: &HttpContext<T>,
    state: &mut InFlight,
    pick: &Pick,
) -> Result<Connected<T::Stream>, ConnectError> {
    let started = Instant::now();
    let within = Within {
        until: state.exchange.total_deadline(),
        depth: None,
    };
    let backend = connect(ctx.worker(), &guard.slot, pick, within).await?;
    state.request.connect = Some(started.elapsed());
    Ok(backend)
}

/// The verb relay: moves the request and the response until one of them ends the exchange.
async fn relay<T: Connector>(
    client: &mut Downstream<'_, T::Stream>,
    ctx: &HttpContext<T>,
    state: &mut InFlight,
    backend: &mut T::Stream,
    is_reused: bool,
) -> End {
    let slot = &client.guard.slot;
    slot.set_deadline_at(u64::MAX);
    poll_fn(|cx| {
        let InFlight {
            request,
            head,
            exchange,
            client: client_state,
            backend: backend_state,
        } = &mut *state;
        if let Poll::Ready(fired) = slot.poll_fired(cx)
            && let Some(end) = exchange.expired(fired, ctx.deadlines.safe_now())
        {
            return Poll::Ready(end);
        }
        let closing = ctx.is_closing() || client.guard.listener.is_stopped();
        let instant = ctx.deadlines.instant();
        let now = ctx.deadlines.now();
        let mut scratch = ctx.scratch.borrow_mut();
        let mut heads = ctx.heads.borrow_mut();
        let heads = &mut *heads;
        let mut io = PollContext {
            scratch: &mut scratch[..ctx.reads.largest(now)],
            fields: &mut heads.fields,
            out: &mut heads.out,
            date: &mut heads.date,
            head,
            id: request.id(),
            now,
            instant,
        };
        let before = (client_state.bytes_read, exchange.download.bytes_out);
        let may_repeat = is_reused && exchange.may_repeat(request.info);
        let end = exchange.poll(
            cx,
            &mut ClientSide {
                stream: &mut *client.stream,
                read_ahead: &mut *client.read_ahead,
                state: client_state,
            },
            &mut BackendSide {
                stream: &mut *backend,
                state: backend_state,
            },
            &mut io,
            &mut |view: &HeadView<'_>, is_sent| {
                let circumstances = Circumstances {
                    closing,
                    is_sent,
                    may_repeat,
                };
                decide(view, request, head, circumstances)
            },
        );
        let sheet = client.guard.sheet();
        sheet.bytes_in.add(client_state.bytes_read - before.0);
        sheet.bytes_out.add(exchange.download.bytes_out - before.1);
        if end.is_pending() {
            slot.set_deadline_at(exchange.next_deadline());
            ctx.reads.learn(exchange.kept(), now);
            ctx.deadlines.forget_instant();
        }
        end
    })
    .await
}

/// What a decision depends on beside the head and the request.
#[derive(Debug, Clone, Copy)]
struct Circumstances {
    /// The listener or the process is going away: this is the connection's last response.
    closing: bool,
    /// All of the request has gone to the backend.
    is_sent: bool,
    /// It came over a pooled connection, and may be sent again.
    may_repeat: bool,
}

/// Decides what is done with a response head, before any of it is forwarded.
fn decide(
    view: &HeadView<'_>,
    request: &RequestContext,
    forwarded: &ForwardHead,
    circumstances: Circumstances,
) -> Decision {
    let status = view.head.status;
    if status == 101
        && let Some(cause) = fault_of_upgrade(view, forwarded, circumstances.is_sent)
    {
        return Decision::Replace(Box::new(Reply {
            cause: Some(cause),
            ..Reply::failure(Reason::BackendProtocol, false)
        }));
    }
    if status == 408 && circumstances.may_repeat {
        // The backend gave up waiting for a request before this one reached it (RFC 9110 15.5.9).
        return Decision::Retry(RetryReason::Stale);
    }
    let listener = request.listener();
    Decision::Forward(Edits {
        via: listener.is_some_and(|listener| listener.via),
        expose_id: listener.is_some_and(|listener| listener.expose_request_id),
        // What is left of a body that the backend responds to before it has it may never come, or belong to nobody.
        close: circumstances.closing || !request.info.keep_alive || !circumstances.is_sent,
    })
}

/// What is wrong with a 101. The protocol changes after the whole request (RFC 9110 7.8): before, its body is not the
/// other protocol's.
fn fault_of_upgrade(
    view: &HeadView<'_>,
    forwarded: &ForwardHead,
    is_sent: bool,
) -> Option<&'static str> {
    if !forwarded.offers(view.bytes, view.fields) {
        Some("upgrade_not_offered")
    } else if !is_sent {
        Some("upgrade_too_early")
    } else {
        None
    }
}

/// Puts the backend's connection into the pool, if it is fit for another request, or else closes it.
///
/// One on which all is said and has arrived is closed with a reset, unless the backend was first: whoever closes a
/// connection in order keeps its port for a minute (TIME_WAIT), and a new connection for each request would soon use up
/// all ports.
pub(crate) fn give_back<T: Connector>(
    ctx: &HttpContext<T>,
    state: &InFlight,
    pick: &Pick,
    backend: Connected<T::Stream>,
) {
    let is_fit = state.exchange.backend_is_reusable(state.request.info);
    let left_over = if is_fit && !pick.backend().has_departed() {
        keep(ctx, state, pick, backend)
    } else {
        Some(backend)
    };
    if let Some(Connected { stream, .. }) = left_over
        && state.exchange.is_settled()
        && !stream.peer_has_ended()
        && stream.send_queue() == 0
    {
        stream.reset_on_close();
    }
}

/// Puts the backend's connection into the pool; returns it if there is no room.
fn keep<T: Connector>(
    ctx: &HttpContext<T>,
    state: &InFlight,
    pick: &Pick,
    backend: Connected<T::Stream>,
) -> Option<Connected<T::Stream>> {
    let settings = &pick.cluster().settings;
    let idle = match state.exchange.download.keep_alive_timeout {
        // A backend that closes at N seconds must not be asked at N: a second is for the way.
        Some(seconds) => {
            let announced = Duration::from_secs(u64::from(seconds).saturating_sub(1));
            settings.timeouts.idle.min(announced)
        }
        None => settings.timeouts.idle,
    };
    let now = ctx.deadlines.now();
    let until = now.saturating_add(idle.as_millis() as u64);
    let id = pick.backend().id();
    ctx.pool
        .borrow_mut()
        .put(id, backend, (now, until), settings.idle_connections)
}
