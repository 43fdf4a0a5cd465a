//! A TCP session: pick → connect → relay → record, on one screen.

use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::accept::{Accepted, ClientGuard};
use super::connect::{ConnectError, connect};
use super::flow::Stream;
use super::http::hops::MOST;
use super::load::{Detached, Held, Picked};
use super::pool::Upstream;
use super::record::SessionOutcome;
use super::relay::{Relay, RelayEnd};
use super::sessions::{Fired, Rest, Session};
use super::worker::Worker;
use crate::balance::{PickRequest, hash_key};
use crate::snapshot::Cluster;
use crate::telemetry::outcome::{Reason, RetryReason};
use crate::transport::conn::{Conn, EndName};

/// Serves one connection of a tcp listener.
pub(crate) async fn serve(accepted: Accepted, worker: Rc<Worker>) {
    let Accepted { mut stream, client } = accepted;
    let mut outcome = SessionOutcome::new(Instant::now());
    let (held, place) = client.running.view(&worker);
    let tunnel = held.listeners[place].timeouts.tunnel;
    let depth = depth(&stream, &client, &worker);
    match Box::pin(reach(&client, &worker, held, place, depth, &mut outcome)).await {
        Ok((mut upstream, load)) => {
            let relay = Relay::default();
            let joined = join(
                &mut stream,
                &mut upstream.stream,
                relay,
                tunnel,
                Rest::Whole,
                &client,
                &worker,
            )
            .await;
            outcome.ended(joined);
            drop(load);
        }
        Err(reason) => {
            // An orderly end says that nothing more comes, and a client that is a proxy passes on just that: every
            // session behind a lost one would stay half open for as long as the first client likes.
            stream.reset_on_close();
            outcome.reason = Some(reason);
        }
    }
    outcome.record(&client, &worker);
}

/// How often the session has passed this process already.
fn depth(stream: &Conn, client: &ClientGuard, worker: &Worker) -> usize {
    let end = || client.peer.map(EndName::Ip).or_else(|| stream.unix_peer());
    worker.shared.passages.depth_of(end)
}

/// Picks a backend and connects to it; on failure another, within the cluster's attempts.
async fn reach(
    client: &ClientGuard,
    worker: &Rc<Worker>,
    held: Held,
    place: usize,
    depth: usize,
    outcome: &mut SessionOutcome,
) -> Result<(Upstream, Detached), Reason> {
    if depth > MOST {
        return Err(Reason::Loop);
    }
    let index = held.listeners[place].cluster.ok_or(Reason::NoRoute)?;
    let cluster = held.cluster(index);
    // Bytes have no path and no fields, whatever `hash_key` says; what they have is where they come from.
    let key = client_key(cluster, client.peer.map(|peer| peer.ip()));
    outcome.cluster = Some(cluster.name.clone());
    let mut tried = Vec::new();
    let mut reason = Reason::NoBackend;
    for attempt in 1..=cluster.settings.retry.attempts {
        let pick = PickRequest {
            key,
            state: &cluster.state,
            worker: worker.index,
            random: &worker.random,
            tried: &tried,
        };
        let Some(endpoint) = cluster.balancer.pick(&pick) else {
            return Err(reason);
        };
        if attempt > 1 {
            cluster.metrics.sheet(worker.index).retries[RetryReason::Connect.index()].increment();
        }
        let picked = Picked::new(&held, index, endpoint);
        outcome.tries(&picked);
        client
            .session
            .set_backend(picked.endpoint().backend.id().get());
        match connect(worker, &client.session, &picked, u64::MAX, Some(depth)).await {
            Ok(upstream) => {
                outcome.connected();
                drain_if_departed(&client.session, &picked, held.drain_timeout);
                return Ok((upstream, picked.detach()));
            }
            Err(ConnectError::Drained) => return Err(Reason::Drained),
            Err(ConnectError::Exhausted) => return Err(Reason::DescriptorLimit),
            Err(ConnectError::Unreachable | ConnectError::Timeout | ConnectError::TotalTimeout) => {
                reason = Reason::BackendConnect
            }
        }
        if !cluster.settings.retry.on_connect {
            break;
        }
        tried.push(endpoint as u32);
    }
    Err(reason)
}

/// Hash of a client's address; that of nothing for a client that has none.
pub(super) fn client_key(cluster: &Cluster, client: Option<IpAddr>) -> u64 {
    match client {
        Some(IpAddr::V4(ip)) => hash_key(cluster.settings.hash_seed, &ip.octets()),
        Some(IpAddr::V6(ip)) => hash_key(cluster.settings.hash_seed, &ip.octets()),
        None => hash_key(cluster.settings.hash_seed, &[]),
    }
}

/// A member that was removed while we connected: this session drains like those before it.
pub(super) fn drain_if_departed(session: &Session, picked: &Picked, drain_timeout: Duration) {
    let backend = &picked.endpoint().backend;
    if backend.has_departed() {
        session.drain_backend(drain_timeout);
    }
}

/// Moves bytes both ways until the end of the session; also serves upgraded HTTP connections. It is at `rest` until
/// the first byte has moved.
pub(super) async fn join(
    stream: &mut Conn,
    upstream: &mut Conn,
    mut relay: Relay,
    tunnel: Duration,
    rest: Rest,
    client: &ClientGuard,
    worker: &Worker,
) -> Joined {
    client.session.set_deadline(tunnel);
    client.session.begin_session();
    client.session.set_rest(rest);
    let sheet = client.sheet();
    // What was read before is counted already.
    let mut early = relay.early_up();
    let ended = poll_fn(|cx| {
        if let Poll::Ready(fired) = client.session.poll_fired(cx) {
            return Poll::Ready(Err(fired));
        }
        let mut moved = false;
        let before = (relay.bytes_up(), relay.bytes_down());
        let now = worker.sessions.now();
        let end = relay.poll(
            cx,
            stream,
            upstream,
            &mut worker.scratch.borrow_mut()[..worker.reads.largest(now)],
            &mut moved,
        );
        worker.reads.learn(relay.kept(), now);
        let up = relay.bytes_up() - before.0;
        let known = early.min(up);
        early -= known;
        sheet.bytes_in.add(up - known);
        sheet.bytes_out.add(relay.bytes_down() - before.1);
        if moved {
            client.session.set_rest(Rest::AtWork);
            client.session.set_deadline(tunnel);
        }
        end.map(Ok)
    })
    .await;
    if ended.is_err() {
        // Neither side may take what it got for the whole.
        stream.reset_on_close();
        upstream.reset_on_close();
    }
    let reason = match ended {
        Ok(RelayEnd::Closed) => None,
        Ok(RelayEnd::ClientReset) => Some(Reason::ClientLeft),
        Ok(RelayEnd::BackendReset) => Some(Reason::BackendReset),
        Err(Fired::Deadline) => Some(Reason::IdleTunnel),
        Err(Fired::Drained) => Some(client.session.drained_for()),
        Err(Fired::Evicted) => Some(Reason::Evicted),
    };
    Joined {
        bytes_up: relay.bytes_up(),
        bytes_down: relay.bytes_down(),
        reason,
    }
}

/// What two joined connections came to. The reason says what ended them, if that was not the two sides in order.
pub(super) struct Joined {
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
    pub(super) reason: Option<Reason>,
}
