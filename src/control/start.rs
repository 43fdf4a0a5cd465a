//! How the control plane starts: the first generation is built before anything can be published, then [`Control`] takes
//! over.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{Notify, watch};

use super::commands::Commands;
use super::config_files::ConfigFiles;
use super::followed_files::FollowedFiles;
use super::gossip_membership::{GossipMembership, StagedMembership};
use super::gossip_overlay::GossipOverlay;
use super::listeners::bind_all;
use super::names::{BackendNames, look_up};
use super::snapshot_writer::SnapshotWriter;
use super::staged::Rejection;
use super::{Control, OnApplied, Outputs};
use crate::admin::AdminServer;
use crate::config::compile::{CompileInputs, Compiled, ResolvedNames, compile};
use crate::config::layers::Layers;
use crate::config::schema::Config;
use crate::discovery::gossip::publisher::MemberPublisher;
use crate::gossip::view::PeerSet;
use crate::snapshot::Snapshot;
use crate::snapshot::publish::Publisher;
use crate::snapshot::registry::Registry;
use crate::telemetry::metrics::ProcessMetrics;
use crate::transport::descriptors::Descriptors;

/// The first snapshot, and what was made for it: its listeners are bound, its names looked up, its place in the peer
/// set is prepared but not taken yet.
#[derive(Debug)]
pub(crate) struct FirstGeneration {
    /// To be published.
    pub snapshot: Arc<Snapshot>,
    registry: Registry,
    names: ResolvedNames,
    layers: Layers,
    overlay: GossipOverlay,
    membership: GossipMembership,
    staged: StagedMembership,
}

/// Where the control plane learns of the peer set, and where it tells others of it.
#[derive(Debug, Clone)]
pub(crate) struct GossipLinks {
    /// What the member of this process sees.
    pub member: MemberPublisher,
    /// The peer set that clusters discover their backends in.
    pub set: watch::Receiver<Arc<PeerSet>>,
    /// Wakes the health checks.
    pub checks: Arc<Notify>,
}

/// What the control plane consists of.
pub(crate) struct ControlParts {
    /// The receiving end of the handle.
    pub commands: Commands,
    /// The files of the first configuration.
    pub files: ConfigFiles,
    /// The first generation, published already.
    pub first: FirstGeneration,
    /// Publishes snapshots to the workers.
    pub publisher: Arc<Publisher>,
    /// Publishes snapshots to the health checks.
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    /// The budget of connections.
    pub descriptors: Arc<Descriptors>,
    /// What the process counts.
    pub process: Arc<ProcessMetrics>,
    /// The logs.
    pub outputs: Outputs,
    /// The running admin server.
    pub admin: AdminServer,
    /// Whom to tell of each reload that was applied.
    pub on_applied: Option<OnApplied>,
}

impl FirstGeneration {
    /// Binds every listener, looks up every name, takes in the last known members and compiles the configuration. Must
    /// run on a runtime; reads files (blocking).
    ///
    /// # Errors
    /// Why the proxy cannot start.
    pub(crate) async fn build(
        files: &ConfigFiles,
        config: Arc<Config>,
        workers: usize,
        links: GossipLinks,
        process: Arc<ProcessMetrics>,
    ) -> anyhow::Result<Self> {
        let path = files.main();
        let membership = GossipMembership::new(path, links.member);
        let staged = membership.prepare(config.gossip.as_ref())?;
        let mut overlay = GossipOverlay::start(path, &config, links.set, links.checks, process);
        let mut registry = Registry::new(workers);
        let sockets = bind_all(&config, workers, None).map_err(Rejection::Bind)?;
        let names = look_up(&config, &ResolvedNames::new()).await;
        overlay.update(&config, &sockets, &registry);
        let layers = overlay.layers(&config);
        let inputs = CompileInputs {
            registry: &registry,
            sockets: &sockets,
            names: &names,
            previous: None,
        };
        let Compiled { snapshot, effects } = compile(&layers, &inputs);
        effects.apply(&mut registry);
        Ok(Self {
            snapshot: Arc::new(snapshot),
            registry,
            names,
            layers,
            overlay,
            membership,
            staged,
        })
    }
}

impl Control {
    /// Takes over from the first generation, and joins the peer set. Must run on a runtime.
    pub(crate) fn new(parts: ControlParts) -> Self {
        let FirstGeneration {
            registry,
            names,
            layers,
            overlay,
            mut membership,
            staged,
            ..
        } = parts.first;
        membership.switch(staged);
        let mut followed = FollowedFiles::start(parts.files.targets());
        followed.follow_secrets(membership.secret_files());
        let process = parts.process;
        process.config_generation.add(1);
        process.last_reload_success.store(true, Ordering::Relaxed);
        Self {
            commands: parts.commands,
            names: BackendNames::start(&layers.file, names),
            snapshots: SnapshotWriter::new(
                registry,
                Arc::clone(&layers.file),
                parts.publisher,
                parts.snapshots,
            ),
            files: parts.files,
            layers,
            overlay,
            membership,
            followed,
            descriptors: parts.descriptors,
            process,
            outputs: parts.outputs,
            admin: parts.admin,
            on_applied: parts.on_applied,
        }
    }
}
