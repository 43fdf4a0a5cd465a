//! A TCP session: route → pick → connect → relay → record, on one screen.

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::attempts::Attempts;
use super::client::{Accepted, ClientGuard};
use super::connect::{ConnectError, Within, connect};
use super::connected::Connected;
use super::context::WorkerContext;
use super::deadlines::Activity;
use super::loops::MAX_HOPS;
use super::pick::{ListenerView, LoadGuard, Routed, client_key};
use super::record::{Books, Counted, record};
use super::relay::{Join, Relay};
use crate::snapshot::ListenerKind;
use crate::telemetry::outcome::{Outcome, Reason, RetryReason, Times, Way};
use crate::transport::conn::EndName;
use crate::transport::connect::Connector;
use crate::transport::stream::Stream;

/// What is known of a session before its end.
#[derive(Default)]
struct Progress {
    cluster: Option<Arc<str>>,
    backend: Option<Arc<str>>,
    attempts: u32,
    times: Times,
}

/// Serves one connection of a tcp listener.
pub(crate) async fn serve<T: Connector>(accepted: Accepted<T::Stream>, ctx: Rc<WorkerContext<T>>) {
    let Accepted { mut stream, client } = accepted;
    let started = Instant::now();
    let view = client.listener.view(&ctx.snapshot());
    let silence = view.listener().timeouts.tunnel;
    let depth = depth(&stream, &client, &ctx);
    let mut progress = Progress::default();
    let mut outcome = Outcome {
        protocol: "tcp",
        client: client.peer.map(|peer| peer.ip()),
        ..Outcome::default()
    };
    match Box::pin(reach(view, depth, &client, &ctx, &mut progress)).await {
        Ok((mut backend, load)) => {
            let join = Join {
                client: &mut stream,
                backend: &mut backend.stream,
                relay: Relay::default(),
                silence,
                activity: Activity::Idle,
            };
            let joined = join.run(&client, &ctx).await;
            (outcome.bytes_in, outcome.bytes_out) = (joined.bytes_up, joined.bytes_down);
            outcome.reason = joined.reason;
            drop(load);
        }
        Err(reason) => {
            // An orderly end says that nothing more comes, and a client that is a proxy passes on just that: every
            // session behind a lost one would stay half open for as long as the first client likes.
            stream.reset_on_close();
            outcome.reason = Some(reason);
        }
    }
    outcome.way = Way {
        route: None,
        cluster: progress.cluster.as_deref(),
        backend: progress.backend.as_deref(),
        attempts: Some(progress.attempts),
    };
    let duration = started.elapsed();
    outcome.times = Times {
        duration,
        ..progress.times
    };
    let counted = Counted {
        status: None,
        reason: outcome.reason,
        duration,
    };
    let books = Books {
        listener: client.metrics(),
        route: None,
        peer: client.peer,
        is_logged: ctx.snapshot().access_log,
    };
    record(books, counted, || outcome, &ctx);
}

/// How often the session has passed this process already.
fn depth<T: Connector>(stream: &T::Stream, client: &ClientGuard, ctx: &WorkerContext<T>) -> usize {
    let end = || client.peer.map(EndName::Ip).or_else(|| stream.peer_name());
    ctx.shared.passages.depth_of(end)
}

/// Where the session goes. Bytes have no path and no fields, whatever `hash_key` says; what they have is where they come
/// from.
fn route(view: &ListenerView, client: &ClientGuard, depth: usize) -> Result<Routed, Reason> {
    if depth > MAX_HOPS {
        return Err(Reason::Loop);
    }
    let ListenerKind::Tcp(listener) = &view.listener().kind else {
        return Err(Reason::NoRoute);
    };
    let cluster = listener.cluster.ok_or(Reason::NoRoute)?;
    let client = client.peer.map(|peer| peer.ip());
    let key = client_key(view.snapshot.cluster(cluster), client);
    Ok(Routed { cluster, key })
}

/// Picks a backend and connects to it; on failure another, within the cluster's attempts.
async fn reach<T: Connector>(
    view: ListenerView,
    depth: usize,
    client: &ClientGuard,
    ctx: &Rc<WorkerContext<T>>,
    progress: &mut Progress,
) -> Result<(Connected<T::Stream>, LoadGuard), Reason> {
    let routed = route(&view, client, depth)?;
    progress.cluster = Some(Arc::clone(&view.snapshot.cluster(routed.cluster).name));
    let started = Instant::now();
    let mut attempts = Attempts::new(routed);
    loop {
        let pick = attempts.next(&view.snapshot, ctx.index, &ctx.random)?;
        progress.attempts = attempts.made();
        progress.backend = Some(Arc::clone(pick.backend().label()));
        client.slot.set_backend(Some(pick.backend().id()));
        let within = Within {
            until: u64::MAX,
            depth: Some(depth),
        };
        match connect(ctx, &client.slot, &pick, within).await {
            Ok(backend) => {
                progress.times.connect = Some(started.elapsed());
                pick.drain_if_departed(&client.slot);
                return Ok((backend, pick.into_load()));
            }
            Err(ConnectError::Backend) => attempts.failed(&pick, RetryReason::Connect)?,
            Err(ConnectError::TotalTimeout) => return Err(Reason::RequestTimeout),
            Err(ConnectError::Exhausted) => return Err(Reason::DescriptorLimit),
            Err(ConnectError::Drained) => return Err(Reason::Drained),
        }
    }
}
