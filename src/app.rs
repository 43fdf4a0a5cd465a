//! The composition root: the only place that sees both planes. It defines the order in which everything starts and
//! ends.
//!
//! Start: configuration → event log → signals → descriptor limit → sockets and first snapshot → access log → admin →
//! health checks → workers → control, which joins the peer set → ready. The end is in [`shutdown`].

mod shutdown;
mod signals;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

use crate::admin::{AdminServer, AdminState, Started};
use crate::config::schema::Config;
use crate::control::{
    ConfigFiles, Control, ControlParts, FirstGeneration, GossipLinks, OnApplied, Outputs,
    ValidConfig, commands, socket_files,
};
use crate::discovery::gossip::publisher::MemberPublisher;
use crate::health::{self, SessionOrderSink};
use crate::logging::access::AccessLogWriter;
use crate::logging::events::EventLog;
use crate::proxy::worker::Workers;
use crate::snapshot::Snapshot;
use crate::snapshot::publish::Publisher;
use crate::telemetry::metrics::ProcessMetrics;
use crate::telemetry::readiness::{Readiness, Stage};
use crate::transport::descriptors::{self, Descriptors};

use shutdown::RunningProxy;

/// From a failure of the health checks to their next start.
const CHECKS_RESTART: Duration = Duration::from_secs(1);

/// Called once the proxy is ready, with its first snapshot.
pub(crate) type OnReady = Box<dyn FnOnce(&Snapshot) + Send>;

/// Runs the proxy on the files and directories that are `named` until it is told to stop.
///
/// # Errors
/// Why it cannot start, or how it has failed.
pub(crate) fn run(named: &[PathBuf]) -> anyhow::Result<()> {
    run_with(named, Box::new(|_| {}), None)
}

/// As [`run`]; calls `on_ready` when it is ready and `on_applied` after each reload.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    named: &[PathBuf],
    on_ready: OnReady,
    on_applied: Option<OnApplied>,
) -> anyhow::Result<()> {
    let (ValidConfig { config, warnings }, files) = ConfigFiles::load(named)?;
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
    let setup = Setup {
        config: Arc::new(config),
        files,
        process,
        events: events.clone(),
        on_ready,
        on_applied,
    };
    let result = runtime.block_on(async { start(setup).await?.run_to_end().await });
    // A look-up of a name may still hang in the system's resolver.
    runtime.shutdown_background();
    events.flush();
    result
}

/// What there is before the runtime.
struct Setup {
    config: Arc<Config>,
    files: ConfigFiles,
    process: Arc<ProcessMetrics>,
    events: EventLog,
    on_ready: OnReady,
    on_applied: Option<OnApplied>,
}

async fn start(setup: Setup) -> anyhow::Result<RunningProxy> {
    let Setup {
        config,
        files,
        process,
        events,
        on_ready,
        on_applied,
    } = setup;
    let started = Started::now();
    let (handle, commands) = commands();
    let ends = signals::follow(handle).context("cannot follow signals")?;
    warn_of_root();
    let workers = config.workers.unwrap_or_else(cores);
    let descriptors = Arc::new(Descriptors::raise());
    let checks = Arc::new(Notify::new());
    let member = MemberPublisher::default();
    let links = GossipLinks {
        member: member.clone(),
        set: member.set.subscribe(),
        checks: Arc::clone(&checks),
    };
    let first = {
        let process = Arc::clone(&process);
        FirstGeneration::build(&files, Arc::clone(&config), workers, links, process).await?
    };
    let snapshot = Arc::clone(&first.snapshot);
    descriptors.subtract_own(descriptors::open(), workers)?;
    info!(
        connections = descriptors.limit(),
        "the descriptor limit allows this many connections, to clients and to backends together"
    );
    let publisher = Arc::new(Publisher::new(Arc::clone(&snapshot), workers));
    let access = {
        let log = config.log.access.resolved_in(files.directory());
        AccessLogWriter::start(&log, Arc::clone(&process))?
    };
    let readiness = Arc::new(Readiness::default());
    let admin = {
        let files = socket_files(snapshot.listeners.iter().map(|l| &*l.sockets));
        let state = AdminState {
            publisher: Arc::clone(&publisher),
            process: Arc::clone(&process),
            readiness: Arc::clone(&readiness),
            started,
            workers,
            connections: descriptors.for_admin(),
            gossip: member.report.subscribe(),
        };
        AdminServer::start(config.admin.as_ref(), &files, state)?
    };
    let (snapshots, followed) = watch::channel(Arc::clone(&snapshot));
    start_checks(&publisher, followed, &checks, descriptors.for_checks());
    let planes = {
        let (publisher, descriptors) = (Arc::clone(&publisher), Arc::clone(&descriptors));
        let logs = (0..workers).map(|_| access.sender()).collect();
        Workers::start(publisher, checks, descriptors, logs).context("cannot start the workers")?
    };
    let (stop, stopped) = watch::channel(false);
    let control = Control::new(ControlParts {
        commands,
        files,
        first,
        publisher: Arc::clone(&publisher),
        snapshots,
        descriptors,
        process,
        outputs: Outputs { events, access },
        admin,
        on_applied,
    });
    let control = tokio::spawn(control.run(stopped));
    readiness.advance(Stage::Ready);
    info!(workers, version = env!("CARGO_PKG_VERSION"), "ready");
    on_ready(&snapshot);
    Ok(RunningProxy {
        workers: planes,
        control,
        stop,
        ends,
        readiness,
        publisher,
        shutdown_delay: config.shutdown_delay,
    })
}

/// Whatever goes wrong in a process of root goes wrong with all rights.
fn warn_of_root() {
    if rustix::process::geteuid().is_root() {
        warn!(
            "runs as root, which it does not need: run it as a user of its own, with CAP_NET_BIND_SERVICE for ports \
             below 1024"
        );
    }
}

/// Starts the health checks of every snapshot, with at most so many probes at a time. They outlive a bug in them: they
/// start again.
fn start_checks(
    publisher: &Arc<Publisher>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    wake: &Arc<Notify>,
    most: usize,
) {
    let (publisher, wake) = (Arc::clone(publisher), Arc::clone(wake));
    let orders: SessionOrderSink = Arc::new(move |order| publisher.order(order));
    tokio::spawn(async move {
        let run = || {
            let (wake, orders) = (Arc::clone(&wake), Arc::clone(&orders));
            health::run(snapshots.clone(), wake, most, orders)
        };
        while let Err(failure) = tokio::spawn(run()).await {
            error!(%failure, "the health checks failed and start again");
            tokio::time::sleep(CHECKS_RESTART).await;
        }
    });
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
