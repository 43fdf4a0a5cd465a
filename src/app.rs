//! The composition root: the only place that sees both planes. Start order and drain order stand here.
//!
//! Start: file → signals → descriptor limit → sockets and first snapshot → logs → admin → workers → ready. Stop: not
//! ready → `shutdown_delay` → listeners and admin close, what is at rest closes, the rest is given `drain_timeout` → logs →
//! exit. Signals are heard through all of it (`signals`), and what hangs on the way out is left behind.

#[cfg(test)]
mod peer_set_tests;
mod signals;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::admin::{AdminServer, AdminState, Started};
use crate::control::{
    Control, First, Membership, OnApplied, Peers, first_snapshot, read_config, resolve_path,
    socket_files,
};
use crate::discovery::gossip::publisher::MemberPublisher;
use crate::logging::access::AccessLogWriter;
use crate::logging::events::EventLog;
use crate::model::units::show_duration;
use crate::proxy::worker::Workers;
use crate::snapshot::Snapshot;
use crate::snapshot::publish::Publisher;
use crate::telemetry::metrics::ProcessMetrics;
use crate::telemetry::readiness::{Readiness, Stage};
use crate::transport::descriptors::{self, Descriptors};

/// How long the access log may take to write what is queued when the process ends.
const LOG_CLOSE: Duration = Duration::from_secs(2);
/// How long what is left may take to end when the sessions have.
const WAY_OUT: Duration = Duration::from_secs(10);
/// And when the end was asked for twice.
const CUT_SHORT: Duration = Duration::from_secs(1);
/// Between two looks at the workers while they drain.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// Called once the proxy is ready, with its first snapshot.
pub(crate) type OnReady = Box<dyn FnOnce(&Snapshot) + Send>;

/// Runs the proxy on the files and directories that are `named` until it is told to stop.
///
/// # Errors
/// Why it cannot start.
pub(crate) fn run(named: &[PathBuf]) -> anyhow::Result<()> {
    run_with(named, Box::new(|_| {}), None)
}

/// [`run`], with a word when it is ready and after each reload.
///
/// # Errors
/// Why it cannot start.
pub fn run_with(
    named: &[PathBuf],
    on_ready: OnReady,
    on_applied: Option<OnApplied>,
) -> anyhow::Result<()> {
    let (config, warnings, tried) = read_config(named)?;
    let process = Arc::new(ProcessMetrics::default());
    let events = EventLog::start(config.log.level, config.log.format, Arc::clone(&process))?;
    if !warnings.is_empty() {
        warn!("the configuration has warnings\n{warnings}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control plane")?;
    let first = First {
        config: Arc::new(config),
        path: tried.main().to_owned(),
        targets: watch::Sender::new(tried.targets()),
        tried,
        named: named.to_owned(),
        process,
    };
    let last = events.clone();
    let result = runtime.block_on(serve(first, events, on_ready, on_applied));
    // A look-up of a name may still hang in the system's resolver.
    runtime.shutdown_background();
    last.flush();
    result
}

async fn serve(
    first: First,
    events: EventLog,
    on_ready: OnReady,
    on_applied: Option<OnApplied>,
) -> anyhow::Result<()> {
    let started = Started::now();
    let (mut ends, signals) = signals::follow().context("cannot follow signals")?;
    warn_of_root();
    let config = Arc::clone(&first.config);
    let process = Arc::clone(&first.process);
    let workers = config.workers.unwrap_or_else(cores);
    let descriptors = Arc::new(Descriptors::raise());
    let reports = Arc::new(Notify::new());
    let windows = MemberPublisher::default();
    let mut membership = Membership::new(&first.path, windows.clone());
    let member = membership.prepare(config.gossip.as_ref())?;
    let set = Some(windows.set.subscribe());
    let mut peers = Peers::start(
        &first.path,
        &config,
        set,
        Arc::clone(&reports),
        Arc::clone(&process),
    );
    let (snapshot, registry, names) =
        first_snapshot(&config, &mut peers, workers)
            .await
            .map_err(|errors| {
                anyhow::anyhow!(
                    errors
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join("\n")
                )
            })?;
    membership.switch(member)?;
    descriptors.take_off_own(descriptors::open(), workers)?;
    info!(
        connections = descriptors.limit(),
        "connections, clients' and backends' together, that the descriptor limit carries"
    );
    let snapshot = Arc::new(snapshot);
    let publisher = Arc::new(Publisher::new(Arc::clone(&snapshot), workers));
    let access = AccessLogWriter::start(
        &resolve_path(&first.path, &config.log.access),
        Arc::clone(&process),
    )?;
    let readiness = Arc::new(Readiness::default());
    let state = AdminState {
        publisher: Arc::clone(&publisher),
        process: Arc::clone(&process),
        readiness: Arc::clone(&readiness),
        started,
        workers,
        connections: descriptors.for_admin(),
        gossip: windows.report.subscribe(),
    };
    let admin = {
        let files = socket_files(snapshot.listeners.iter().map(|l| &*l.sockets));
        AdminServer::start(config.admin.as_ref(), &files, state)?
    };

    let (snapshots, followed) = watch::channel(Arc::clone(&snapshot));
    let ordered = Arc::clone(&publisher);
    let orders: crate::health::SessionOrderSink = Arc::new(move |order| ordered.order(order));
    tokio::spawn(keep_checking(
        followed,
        Arc::clone(&reports),
        descriptors.for_checks(),
        orders,
    ));
    let logs = (0..workers).map(|_| access.sender()).collect();
    let planes = Workers::start(
        Arc::clone(&publisher),
        reports,
        Arc::clone(&descriptors),
        logs,
    )
    .context("cannot start the workers")?;
    tokio::spawn(crate::config::watch::watch_all(
        first.targets.subscribe(),
        Arc::clone(&signals.file_event),
    ));
    let (stop, stopped) = watch::channel(false);
    let control = Control::new(
        first,
        registry,
        names,
        peers,
        membership,
        Arc::clone(&publisher),
        snapshots,
        descriptors,
        events,
        access,
        admin,
    )
    .telling(on_applied);
    let mut control = tokio::spawn(control.run(signals, stopped));
    readiness.advance(Stage::Ready);
    info!(workers, version = env!("CARGO_PKG_VERSION"), "ready");
    on_ready(&snapshot);
    drop(snapshot);

    let control_ended = tokio::select! {
        () = ends.wished(1) => false,
        _ = &mut control => true,
    };
    if control_ended {
        // It ends only by a bug before it is told to. Traffic goes on as it was; an operator must know.
        error!("the control plane failed: nothing is reloaded any more until a restart");
        ends.wished(1).await;
    }
    readiness.advance(Stage::Draining);
    let delay = show_duration(config.shutdown_delay);
    info!(%delay, "stopping");
    let bound = publisher.current().drain_timeout + Duration::from_secs(1);
    let drained = tokio::select! {
        () = drain(&planes, &stop, config.shutdown_delay, bound) => true,
        () = ends.wished(2) => false,
    };
    stop.send_replace(true);
    anyhow::ensure!(!control_ended, "the control plane had failed");
    let left = if drained {
        tokio::select! {
            left = tokio::time::timeout(WAY_OUT, leave(control)) => left,
            () = ends.wished(2) => return Err(told_twice()),
        }
    } else {
        tokio::time::timeout(CUT_SHORT, leave(control)).await
    };
    match left {
        Ok(left) => left?,
        Err(_) => warn!("something hangs on the way out and is left behind"),
    }
    info!("stopped");
    if drained { Ok(()) } else { Err(told_twice()) }
}

fn told_twice() -> anyhow::Error {
    anyhow::anyhow!("told to stop twice: ended without waiting for live sessions")
}

/// Waits for what ends after the sessions.
async fn leave(control: JoinHandle<AccessLogWriter>) -> anyhow::Result<()> {
    let access = control.await.context("the control plane failed")?;
    let closed = tokio::task::spawn_blocking(move || access.close(LOG_CLOSE)).await;
    if !closed.unwrap_or(false) {
        warn!("the access log did not take all lines in time");
    }
    Ok(())
}

/// What can go wrong goes wrong with all rights.
fn warn_of_root() {
    if rustix::process::geteuid().is_root() {
        warn!(
            "runs as root, which it does not need: run it as a user of its own, with CAP_NET_BIND_SERVICE for ports \
             below 1024"
        );
    }
}

/// Waits for those who send traffic to turn away, then lets live sessions end, for at most `bound`. From then on no
/// reload opens anything, and the admin server gives up its address.
async fn drain(
    planes: &Workers,
    stop: &watch::Sender<bool>,
    shutdown_delay: Duration,
    bound: Duration,
) {
    planes.announce_close();
    tokio::time::sleep(shutdown_delay).await;
    stop.send_replace(true);
    planes.drain();
    let ended = async {
        let mut look = tokio::time::interval(DRAIN_LOOK);
        while !planes.have_ended() {
            look.tick().await;
        }
    };
    if tokio::time::timeout(bound, ended).await.is_err() {
        warn!("some sessions did not end in time");
    }
}

/// Health checks outlive a bug of theirs: they begin anew.
async fn keep_checking(
    snapshots: watch::Receiver<Arc<Snapshot>>,
    reports: Arc<Notify>,
    most: usize,
    orders: crate::health::SessionOrderSink,
) {
    let run = || {
        let (reports, orders) = (Arc::clone(&reports), Arc::clone(&orders));
        crate::health::run(snapshots.clone(), reports, most, orders)
    };
    while let Err(failure) = tokio::spawn(run()).await {
        error!(%failure, "the health checks failed and begin anew");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
