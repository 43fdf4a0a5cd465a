//! The attempts at an exchange: pick → connect → relay, and what is tried again.
//!
//! A request is sent again only if no byte of its response has come and either it never reached a backend or it is
//! idempotent and still whole; on another backend if there is one. A pooled connection that turns out to be dead is
//! replaced by a fresh one to the same backend, which does not count as an attempt.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tracing::warn;

use super::connection::Client;
use super::exchange::{Desk, End, Exchange};
use super::reply::reason_of_backend;
use crate::balance::PickRequest;
use crate::proxy::connect::{ConnectError, connect};
use crate::proxy::flow::Stream;
use crate::proxy::load::Picked;
use crate::proxy::pool::Upstream;
use crate::proxy::tcp::drain_if_departed;
use crate::proxy::worker::Worker;
use crate::snapshot::Cluster;
use crate::telemetry::outcome::{BackendError, Reason, RetryReason};
use crate::transport::conn::Conn;

/// A pooled connection that was used this recently is thought alive enough for a request that cannot be repeated.
const FRESH_MS: u64 = 1000;

/// How the attempts at an exchange ended.
pub(super) enum Verdict {
    /// The response went out; the backend's connection may serve again.
    Done(Picked, Upstream),
    /// Both speak another protocol now.
    Tunnel(Picked, Upstream),
    /// Nothing of a response went out: the client gets an answer of ours.
    Fail(Reason),
    /// The client is gone, or must go.
    Gone(Reason),
    /// The response was cut.
    Cut(Reason),
}

/// Tries backends until one answers, within the cluster's rules.
pub(super) async fn attempt(
    client: &mut Client,
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
) -> Verdict {
    let Some((held, _)) = exchange.view.clone() else {
        return Verdict::Fail(Reason::Internal);
    };
    let Some(index) = exchange.facts.cluster else {
        return Verdict::Fail(Reason::NoRoute);
    };
    let cluster = held.cluster(index);
    let mut failure = Reason::NoBackend;
    let mut retry: Option<RetryReason> = None;
    loop {
        let Some(endpoint) = pick(worker, exchange, cluster, failure) else {
            return Verdict::Fail(failure);
        };
        if let Some(retry) = retry {
            cluster.metrics.sheet(worker.index).retries[retry.index()].increment();
        }
        let picked = Picked::new(&held, index, endpoint);
        client
            .guard
            .session
            .set_backend(picked.endpoint().backend.id().get());
        drain_if_departed(&client.guard.session, &picked, held.drain_timeout);
        exchange.facts.attempts += 1;
        if held.access_log {
            exchange.keep_label(picked.endpoint().backend.label());
        }
        let failed = match try_backend(client, worker, exchange, &picked).await {
            Tried::Done(upstream) => return Verdict::Done(picked, upstream),
            Tried::Upgraded(upstream) => return Verdict::Tunnel(picked, upstream),
            Tried::Stop(verdict) => return verdict,
            Tried::Again(failed) => failed,
        };
        let (allowed, reason) = match failed {
            RetryReason::Connect => (cluster.settings.retry.on_connect, Reason::BackendConnect),
            RetryReason::Timeout => (cluster.settings.retry.on_timeout, Reason::BackendTimeout),
            RetryReason::Reset | RetryReason::Stale => {
                (cluster.settings.retry.on_reset, Reason::BackendReset)
            }
        };
        failure = reason;
        if !allowed || exchange.facts.attempts >= cluster.settings.retry.attempts {
            return Verdict::Fail(failure);
        }
        exchange.tried.push(endpoint as u32);
        retry = Some(failed);
    }
}

/// A backend that has not failed this request. One that broke off may be asked again if there is no other; one that
/// refused is not.
fn pick(worker: &Worker, exchange: &Exchange, cluster: &Cluster, failure: Reason) -> Option<usize> {
    let with = |tried: &[u32]| {
        cluster.balancer.pick(&PickRequest {
            key: exchange.facts.key,
            state: &cluster.state,
            worker: worker.index,
            random: &worker.random,
            tried,
        })
    };
    with(&exchange.tried).or_else(|| {
        if failure == Reason::BackendReset {
            with(&[])
        } else {
            None
        }
    })
}

/// How one attempt ended.
enum Tried {
    Done(Upstream),
    Upgraded(Upstream),
    Again(RetryReason),
    Stop(Verdict),
}

/// One attempt: on a pooled connection if there is a good one, on a fresh one else, or when the pooled one turns out
/// to be dead.
async fn try_backend(
    client: &mut Client,
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    picked: &Picked,
) -> Tried {
    let mut pooled = take_pooled(worker, exchange, picked);
    loop {
        let reused = pooled.is_some();
        let mut upstream = match pooled.take() {
            Some(upstream) => upstream,
            None => match Box::pin(connect_timed(client, worker, exchange, picked)).await {
                Ok(upstream) => upstream,
                Err(ConnectError::Unreachable | ConnectError::Timeout) => {
                    return Tried::Again(RetryReason::Connect);
                }
                Err(ConnectError::Exhausted) => {
                    return Tried::Stop(Verdict::Fail(Reason::DescriptorLimit));
                }
                Err(ConnectError::TotalTimeout) => {
                    return Tried::Stop(Verdict::Fail(Reason::RequestTimeout));
                }

                Err(ConnectError::Drained) => return Tried::Stop(Verdict::Gone(Reason::Drained)),
            },
        };
        exchange.begin_attempt(
            &picked.cluster().settings.timeouts,
            picked.endpoint().backend.host(),
            worker.sessions.now(),
        );
        let end = relay(client, worker, exchange, &mut upstream.stream).await;
        record_response(worker, exchange, picked);
        match end {
            End::Complete => return Tried::Done(upstream),
            End::Upgraded => return Tried::Upgraded(upstream),
            End::Backend(BackendError::Reset) if reused && exchange.may_repeat() => {
                let cluster = picked.cluster();
                cluster.metrics.sheet(worker.index).retries[RetryReason::Stale.index()].increment();
            }
            end => {
                if !exchange.is_sent() {
                    // Some backends take the beginning of a body for all of it if it ends in order.
                    upstream.stream.reset_on_close();
                }
                return give_up(worker, exchange, picked, end);
            }
        }
    }
}

/// What an attempt that failed means.
fn give_up(worker: &Worker, exchange: &Exchange, picked: &Picked, end: End) -> Tried {
    let answered = exchange.has_answered();
    Tried::Stop(match end {
        End::Backend(error) => {
            picked.endpoint().metrics.sheet(worker.index).errors[error.index()].increment();
            if let (BackendError::Protocol, Some(cause)) = (error, exchange.response.cause) {
                log_refusal(picked, cause);
            }
            match error {
                BackendError::Reset if exchange.may_repeat() => {
                    return Tried::Again(RetryReason::Reset);
                }
                BackendError::Timeout if exchange.may_repeat() => {
                    return Tried::Again(RetryReason::Timeout);
                }
                _ if answered => Verdict::Cut(Reason::BackendCut),
                _ => Verdict::Fail(reason_of_backend(error)),
            }
        }
        End::Client(reason @ (Reason::ClientLeft | Reason::SlowReader)) => Verdict::Gone(reason),
        End::Client(reason) if answered => Verdict::Cut(reason),
        End::Client(reason) => Verdict::Fail(reason),
        End::TotalTimeout if answered => Verdict::Cut(Reason::RequestTimeout),
        End::TotalTimeout => Verdict::Fail(Reason::RequestTimeout),
        End::Drained => Verdict::Gone(Reason::Drained),
        End::Complete | End::Upgraded => Verdict::Fail(Reason::Internal),
    })
}

/// Names a backend whose response was refused and what was wrong with it, seldom.
fn log_refusal(picked: &Picked, cause: &str) {
    let backend = &picked.endpoint().backend;
    if let Some(more) = picked.endpoint().metrics.refusals.pass() {
        warn!(
            cluster = %backend.cluster(), backend = %backend.label(), cause, more,
            "refused a response of a backend: it is not valid HTTP"
        );
    }
}

fn record_response(worker: &Worker, exchange: &Exchange, picked: &Picked) {
    if let Some(status) = exchange.response.status {
        let sheet = picked.endpoint().metrics.sheet(worker.index);
        sheet.requests.increment(status);
        if let Some(time) = exchange.response_time() {
            sheet.response.observe(time);
        }
    }
}

/// A pooled connection that this request may use: one that cannot be repeated takes only one that was used within
/// the last second.
fn take_pooled(worker: &Worker, exchange: &Exchange, picked: &Picked) -> Option<Upstream> {
    let endpoint = picked.endpoint();
    if !endpoint.backend.is_healthy() {
        // Only a new connection can tell whether it lets us in again.
        return None;
    }
    let now = worker.sessions.now();
    let may_repeat = exchange.facts.is_idempotent && exchange.is_whole_in_out();
    let used_since = if may_repeat {
        0
    } else {
        now.saturating_sub(FRESH_MS)
    };
    worker.pool.borrow_mut().take(
        endpoint.backend.id().get(),
        endpoint.address.as_ref()?,
        now,
        used_since,
    )
}

async fn connect_timed(
    client: &Client,
    worker: &Worker,
    exchange: &mut Exchange,
    picked: &Picked,
) -> Result<Upstream, ConnectError> {
    let started = Instant::now();
    let upstream = connect(
        worker,
        &client.guard.session,
        picked,
        exchange.total_deadline(),
        None,
    )
    .await?;
    exchange.facts.connect = Some(started.elapsed());
    Ok(upstream)
}

/// The verb relay: moves the request and the response until one of them ends the exchange.
async fn relay(
    client: &mut Client,
    worker: &Worker,
    exchange: &mut Exchange,
    upstream: &mut Conn,
) -> End {
    client.guard.session.set_deadline_at(u64::MAX);
    poll_fn(|cx| {
        let now = worker.sessions.now();
        if let Poll::Ready(fired) = client.guard.session.poll_fired(cx)
            && let Some(end) = exchange.expired(fired, worker.sessions.past())
        {
            return Poll::Ready(end);
        }
        let closing = client.is_closing(worker);
        let Client {
            stream,
            guard,
            intake,
            ..
        } = &mut *client;
        let mut scratch = worker.scratch.borrow_mut();
        let mut space = worker.head_space.borrow_mut();
        let mut desk = Desk {
            scratch: &mut scratch[..worker.reads.largest(now)],
            space: &mut space,
            now,
            closing,
        };
        let before = (exchange.bytes_read, exchange.facts.bytes_out);
        let end = exchange.poll(cx, stream, &mut intake.kept, upstream, &mut desk);
        guard.sheet().bytes_in.add(exchange.bytes_read - before.0);
        guard
            .sheet()
            .bytes_out
            .add(exchange.facts.bytes_out - before.1);
        if end.is_pending() {
            guard.session.set_deadline_at(exchange.next_deadline());
            worker.reads.learn(exchange.kept(), now);
        }
        end
    })
    .await
}

/// Puts the backend's connection into the pool, if it is fit for another request, or else closes it.
///
/// One on which all is said and has arrived is closed with a reset, unless the backend was first: whoever closes a
/// connection in order keeps its port for a minute (TIME_WAIT), and a new connection for each request would soon use up
/// all ports.
pub(super) fn give_back(worker: &Worker, exchange: &Exchange, picked: &Picked, upstream: Upstream) {
    let is_fit = exchange.backend_is_reusable() && !picked.endpoint().backend.has_departed();
    let left_over = if is_fit {
        keep(worker, exchange, picked, upstream)
    } else {
        Some(upstream)
    };
    if let Some(Upstream { stream, .. }) = left_over
        && exchange.is_settled()
        && !stream.peer_has_ended()
        && stream.send_queue() == 0
    {
        stream.reset_on_close();
    }
}

/// Puts the backend's connection into the pool; returns it if there is no room.
fn keep(
    worker: &Worker,
    exchange: &Exchange,
    picked: &Picked,
    upstream: Upstream,
) -> Option<Upstream> {
    let backend = &picked.endpoint().backend;
    let cluster = picked.cluster();
    let idle = match exchange.response.keep_alive_timeout {
        // A backend that closes at N seconds must not be asked at N: a second is for the way.
        Some(seconds) => cluster
            .settings
            .timeouts
            .idle
            .min(Duration::from_secs(u64::from(seconds).saturating_sub(1))),
        None => cluster.settings.timeouts.idle,
    };
    let now = worker.sessions.now();
    let until = now.saturating_add(idle.as_millis() as u64);
    worker.pool.borrow_mut().put(
        backend.id().get(),
        upstream,
        now,
        until,
        cluster.settings.idle_connections,
    )
}
