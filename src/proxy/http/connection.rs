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
use tokio::net::TcpStream;

use super::exchange::{Desk, End, Exchange};
use super::prepare::{Prepared, prepare};
use super::reply::{Reply, reason_of_backend, status_of};
use crate::balance::Pick;
use crate::http1::head::HeadEnd;
use crate::proxy::accept::{Accepted, ClientGuard};
use crate::proxy::connect::{ConnectError, connect};
use crate::proxy::flow::{Pending, SMALL_READ, Stream, poll_read};
use crate::proxy::load::Picked;
use crate::proxy::pool::{Upstream, is_quiet_now};
use crate::proxy::record::record_exchange;
use crate::proxy::relay::Relay;
use crate::proxy::sessions::Fired;
use crate::proxy::tcp::join;
use crate::proxy::worker::Worker;
use crate::snapshot::Cluster;
use crate::telemetry::outcome::{BackendError, Reason, RetryReason};

/// How long, and how many bytes, a client may go on sending after it was told that the connection ends, so that it
/// can read why (RFC 9112 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// A pooled connection that was used this recently is thought alive enough for a request that cannot be repeated.
const FRESH_MS: u64 = 1000;

/// A client connection.
struct Client {
    stream: TcpStream,
    guard: ClientGuard,
    /// Bytes that were read but not used: half a head, or requests behind the one at hand.
    carry: Vec<u8>,
}

/// What comes next on a connection.
enum Next {
    Request(Box<Exchange>),
    Answer(Box<Exchange>, Reply),
    Close,
}

/// What becomes of a connection behind an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Keep,
    /// In order: the client reads to the end.
    Close,
    /// With a reset, so that a cut body cannot be taken for a whole one.
    Reset,
}

/// Serves one connection until it ends.
pub async fn serve(accepted: Accepted, worker: Rc<Worker>) {
    let mut client = Client {
        stream: accepted.stream,
        guard: accepted.client,
        carry: Vec::new(),
    };
    loop {
        let after = match next_request(&mut client, &worker).await {
            Next::Close => return,
            Next::Answer(exchange, reply) => answer(&mut client, &worker, exchange, &reply).await,
            Next::Request(exchange) => {
                Box::pin(serve_exchange(&mut client, &worker, exchange)).await
            }
        };
        match after {
            After::Keep => {}
            After::Close => return Box::pin(linger(client)).await,
            After::Reset => return client.stream.reset_on_close(),
        }
    }
}

impl Client {
    fn is_closing(&self, worker: &Worker) -> bool {
        worker.is_draining() || self.guard.running.is_stopped()
    }
}

/// Waits for a request: until it is whole up to its body, refused, or the connection ends.
async fn next_request(client: &mut Client, worker: &Rc<Worker>) -> Next {
    let (idle, header, limit) = {
        let (held, place) = client.guard.running.view(worker);
        let listener = &held.listeners[place];
        (
            listener.timeouts.idle,
            listener.timeouts.header,
            listener.limits.header_bytes,
        )
    };
    client
        .guard
        .session
        .set_deadline(if client.carry.is_empty() {
            idle
        } else {
            header
        });
    let mut scan = HeadEnd::default();
    let next = poll_fn(|cx| poll_next(cx, client, worker, &mut scan, header, limit)).await;
    client.guard.session.set_at_rest(false);
    next
}

fn poll_next(
    cx: &mut Context<'_>,
    client: &mut Client,
    worker: &Worker,
    scan: &mut HeadEnd,
    header: Duration,
    limit: usize,
) -> Poll<Next> {
    if let Poll::Ready(fired) = client.guard.session.poll_fired(cx) {
        return Poll::Ready(on_fired(client, worker, fired));
    }
    let scratch = &mut *worker.scratch.borrow_mut();
    loop {
        if !client.carry.is_empty() && scan.is_due(&client.carry, limit) {
            let mut bytes = std::mem::take(&mut client.carry);
            let (next, used) = take_request(worker, client, &mut bytes);
            match next {
                Some(next) => {
                    if used < bytes.len() {
                        bytes.drain(..used);
                        client.carry = bytes;
                    }
                    return Poll::Ready(next);
                }
                None => client.carry = bytes,
            }
        }
        match poll_read(&mut client.stream, cx, &mut scratch[..SMALL_READ]) {
            Poll::Pending => {
                let at_rest = client.carry.is_empty();
                if at_rest && client.is_closing(worker) {
                    return Poll::Ready(Next::Close);
                }
                client.guard.session.set_at_rest(at_rest);
                return Poll::Pending;
            }
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Close),
            Poll::Ready(Ok(read)) => {
                client.guard.sheet().bytes_in.add(read as u64);
                let bytes = &mut scratch[..read];
                if !client.carry.is_empty() {
                    client.carry.extend_from_slice(bytes);
                    continue;
                }
                let (next, used) = take_request(worker, client, bytes);
                client.carry.extend_from_slice(&bytes[used..]);
                match next {
                    Some(next) => return Poll::Ready(next),
                    None => client.guard.session.set_deadline(header),
                }
            }
        }
    }
}

/// One request from the beginning of `bytes`; `None` while its head is not whole.
fn take_request(worker: &Worker, client: &Client, bytes: &mut [u8]) -> (Option<Next>, usize) {
    let mut exchange = worker.spare_exchange();
    match prepare(worker, &client.guard, bytes, &mut exchange) {
        (Prepared::Incomplete, _) => {
            worker.return_exchange(exchange);
            (None, 0)
        }
        (Prepared::Forward, used) => (Some(Next::Request(exchange)), used),
        (Prepared::Answer(reply), used) => (Some(Next::Answer(exchange, reply)), used),
    }
}

fn on_fired(client: &Client, worker: &Worker, fired: Fired) -> Next {
    match fired {
        Fired::Deadline if !client.carry.is_empty() => {
            let mut exchange = worker.spare_exchange();
            exchange.view = Some(client.guard.running.view(worker));
            exchange.facts.started = Some(Instant::now());
            Next::Answer(exchange, Reply::failure(Reason::SlowHead, true))
        }
        Fired::Deadline | Fired::Drained => Next::Close,
    }
}

/// Sends an answer of our own and records it.
async fn answer(
    client: &mut Client,
    worker: &Rc<Worker>,
    mut exchange: Box<Exchange>,
    reply: &Reply,
) -> After {
    let close = reply.close || client.is_closing(worker);
    let say_keep = exchange.facts.is_http10 && !close;
    let reply = &Reply {
        close,
        body: reply.body.clone(),
        location: reply.location.clone(),
        ..*reply
    };
    let bytes = reply.to_bytes(!exchange.facts.is_head, say_keep);
    let write = match &exchange.view {
        Some((held, place)) => held.listeners[*place].timeouts.write,
        None => LINGER,
    };
    let mut pending = Pending::default();
    pending.push(&bytes);
    let mut written = 0;
    client.guard.session.set_deadline(write);
    let sent = poll_fn(|cx| {
        if client.guard.session.poll_fired(cx).is_ready() {
            return Poll::Ready(false);
        }
        pending
            .poll_flush(&mut client.stream, cx, &mut written)
            .map(|result| result.is_ok())
    })
    .await;
    client.guard.sheet().bytes_out.add(written);
    exchange.facts.bytes_out += written;
    record_exchange(&exchange, &client.guard, worker, reply.status, reply.reason);
    worker.return_exchange(exchange);
    match (sent, close) {
        (false, _) => After::Reset,
        (true, true) => After::Close,
        (true, false) => After::Keep,
    }
}

/// How the attempts at an exchange ended.
enum Verdict {
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

/// pick → connect → relay → record.
async fn serve_exchange(
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
            let close = !exchange.has_whole_request() || !exchange.facts.keep_alive;
            answer(client, worker, exchange, &Reply::failure(reason, close)).await
        }
        Verdict::Gone(reason) => {
            finish(client, worker, exchange, Some(reason));
            After::Reset
        }
        Verdict::Cut(reason) => {
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

fn finish(client: &Client, worker: &Worker, exchange: Box<Exchange>, reason: Option<Reason>) {
    let status = exchange
        .response
        .status
        .or(reason.map(status_of))
        .unwrap_or(502);
    record_exchange(&exchange, &client.guard, worker, status, reason);
    worker.return_exchange(exchange);
}

/// Tries backends until one answers, within the cluster's rules.
async fn attempt(client: &mut Client, worker: &Rc<Worker>, exchange: &mut Exchange) -> Verdict {
    let Some((held, _)) = exchange.view.clone() else {
        return Verdict::Fail(Reason::Internal);
    };
    let Some(index) = exchange.facts.cluster else {
        return Verdict::Fail(Reason::NoRoute);
    };
    let cluster = &held.clusters[index];
    let mut failure = Reason::NoBackend;
    loop {
        let Some(endpoint) = pick(worker, exchange, cluster, failure) else {
            return Verdict::Fail(failure);
        };
        let picked = Picked::new(&held, index, endpoint);
        client
            .guard
            .session
            .set_backend(picked.endpoint().backend.id());
        exchange.facts.attempts += 1;
        let retry = match try_backend(client, worker, exchange, &picked).await {
            Tried::Done(upstream) => return Verdict::Done(picked, upstream),
            Tried::Upgraded(upstream) => return Verdict::Tunnel(picked, upstream),
            Tried::Stop(verdict) => return verdict,
            Tried::Again(retry) => retry,
        };
        let (allowed, reason) = match retry {
            RetryReason::Connect => (cluster.retry.on_connect, Reason::BackendConnect),
            RetryReason::Timeout => (cluster.retry.on_timeout, Reason::BackendTimeout),
            RetryReason::Reset | RetryReason::Stale => {
                (cluster.retry.on_reset, Reason::BackendReset)
            }
        };
        failure = reason;
        if !allowed || exchange.facts.attempts >= cluster.retry.attempts {
            return Verdict::Fail(failure);
        }
        exchange.tried.push(endpoint as u32);
        cluster.metrics.sheet(worker.index).retries[retry.index()].increment();
    }
}

/// A backend that has not failed this request. One that broke off may be asked again if there is no other; one that
/// refused is not.
fn pick(worker: &Worker, exchange: &Exchange, cluster: &Cluster, failure: Reason) -> Option<usize> {
    let with = |tried: &[u32]| {
        cluster.balancer.pick(&Pick {
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
                Err(ConnectError::Local(_)) => {
                    return Tried::Stop(Verdict::Fail(Reason::BackendConnect));
                }
                Err(ConnectError::Drained) => return Tried::Stop(Verdict::Gone(Reason::Drained)),
            },
        };
        exchange.begin_attempt(picked, log_is_on(exchange), worker.sessions.now());
        let end = relay(client, worker, exchange, &mut upstream.stream).await;
        record_response(worker, exchange, picked);
        match end {
            End::Complete => return Tried::Done(upstream),
            End::Upgraded => return Tried::Upgraded(upstream),
            End::Backend(BackendError::Reset) if reused && exchange.may_repeat() => {
                let cluster = picked.cluster();
                cluster.metrics.sheet(worker.index).retries[RetryReason::Stale.index()].increment();
            }
            end => return give_up(worker, exchange, picked, end),
        }
    }
}

/// What an attempt that failed means.
fn give_up(worker: &Worker, exchange: &Exchange, picked: &Picked, end: End) -> Tried {
    let answered = exchange.has_answered();
    Tried::Stop(match end {
        End::Backend(error) => {
            picked.endpoint().metrics.sheet(worker.index).errors[error.index()].increment();
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

fn log_is_on(exchange: &Exchange) -> bool {
    exchange
        .view
        .as_ref()
        .is_some_and(|(held, _)| held.access_log)
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
/// the last second and is alive as far as the kernel knows.
fn take_pooled(worker: &Worker, exchange: &Exchange, picked: &Picked) -> Option<Upstream> {
    let backend = picked.endpoint().backend.id();
    let now = worker.sessions.now();
    let mut pool = worker.pool.borrow_mut();
    if exchange.facts.is_idempotent && exchange.is_whole_in_out() {
        return pool.take(backend, now, 0);
    }
    let upstream = pool.take(backend, now, now.saturating_sub(FRESH_MS))?;
    is_quiet_now(&upstream.stream).then_some(upstream)
}

async fn connect_timed(
    client: &Client,
    worker: &Worker,
    exchange: &mut Exchange,
    picked: &Picked,
) -> Result<Upstream, ConnectError> {
    let started = Instant::now();
    let upstream = connect(worker, &client.guard.session, picked).await?;
    exchange.facts.connect = Some(started.elapsed());
    Ok(upstream)
}

/// The verb relay: moves the request and the response until one of them ends the exchange.
async fn relay(
    client: &mut Client,
    worker: &Worker,
    exchange: &mut Exchange,
    upstream: &mut TcpStream,
) -> End {
    client.guard.session.set_deadline_at(u64::MAX);
    poll_fn(|cx| {
        let now = worker.sessions.now();
        if let Poll::Ready(fired) = client.guard.session.poll_fired(cx)
            && let Some(end) = exchange.expired(fired, now)
        {
            return Poll::Ready(end);
        }
        let closing = client.is_closing(worker);
        let Client {
            stream,
            guard,
            carry,
        } = &mut *client;
        let mut scratch = worker.scratch.borrow_mut();
        let mut space = worker.head_space.borrow_mut();
        let mut desk = Desk {
            scratch: &mut scratch,
            space: &mut space,
            now,
            closing,
        };
        let before = (
            exchange.facts.bytes_in,
            exchange.facts.bytes_out,
            carry.len(),
        );
        let end = exchange.poll(cx, stream, carry, upstream, &mut desk);
        let ahead = carry.len().saturating_sub(before.2) as u64;
        guard
            .sheet()
            .bytes_in
            .add((exchange.facts.bytes_in - before.0).max(ahead));
        guard
            .sheet()
            .bytes_out
            .add(exchange.facts.bytes_out - before.1);
        if end.is_pending() {
            guard.session.set_deadline_at(exchange.next_deadline());
        }
        end
    })
    .await
}

/// Puts the backend's connection into the pool, if it is fit for another request.
fn give_back(worker: &Worker, exchange: &Exchange, picked: &Picked, upstream: Upstream) {
    let backend = &picked.endpoint().backend;
    if !exchange.backend_is_reusable() || backend.has_departed() {
        return;
    }
    let cluster = picked.cluster();
    let idle = match exchange.response.keep_alive_timeout {
        // A backend that closes at N seconds must not be asked at N: a second is for the way.
        Some(seconds) => cluster
            .timeouts
            .idle
            .min(Duration::from_secs(u64::from(seconds).saturating_sub(1))),
        None => cluster.timeouts.idle,
    };
    let now = worker.sessions.now();
    let until = now.saturating_add(idle.as_millis() as u64);
    worker
        .pool
        .borrow_mut()
        .put(backend.id(), upstream, now, until, cluster.idle_connections);
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
    client
        .guard
        .session
        .set_backend(picked.endpoint().backend.id());
    let load = picked.detach();
    let carry = std::mem::take(&mut client.carry);
    let relay = Relay::with_early(&carry, &std::mem::take(&mut exchange.response.early));
    let joined = join(
        &mut client.stream,
        &mut upstream.stream,
        relay,
        silence,
        &client.guard,
        worker,
    )
    .await;
    drop(load);
    exchange.facts.bytes_in += joined.bytes_up;
    exchange.facts.bytes_out += joined.bytes_down;
    finish(client, worker, exchange, joined.reason);
    // The relay has closed, or marked for a reset, what had to be.
    After::Close
}

/// Ends a connection in order: says that nothing more comes, and reads on for a while, so that the client can read
/// the last answer before the kernel resets a connection with unread bytes.
async fn linger(mut client: Client) {
    client.guard.session.set_deadline(LINGER);
    if client.stream.shutdown().await.is_err() {
        return;
    }
    let mut left = LINGER_BYTES;
    let mut sink = [0; 4096];
    poll_fn(|cx| {
        if client.guard.session.poll_fired(cx).is_ready() {
            return Poll::Ready(());
        }
        loop {
            match poll_read(&mut client.stream, cx, &mut sink) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(read)) if read >= left => return Poll::Ready(()),
                Poll::Ready(Ok(read)) => left -= read,
            }
        }
    })
    .await;
}
