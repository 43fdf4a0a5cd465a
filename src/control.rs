//! L3 control: the one writer of snapshots.
//!
//! Everything that changes what workers see comes through here: a new file, a new answer of a resolver, a change of the
//! peer set, the end of a drain. Each is checked whole, built into the next snapshot and published; changes are
//! coalesced, at most one publication in [`COALESCE`]. A file with any error changes nothing. What can fail (descriptors, sockets, the admin address,
//! the log) is done before anything is published, so that a reload happens whole or not at all.

mod changes;
mod files;
mod members;
mod membership;
mod own;
mod peers;
mod state;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use crate::admin::AdminServer;
use crate::config::compile::{CompileInputs, Compiled, compile};
use crate::config::layers::Layers;
use crate::config::schema::{AccessLog, Config, ListenerConfig};
use crate::config::watch::Targets;
use crate::discovery::dns::{Resolved, Resolver, resolve_all};
use crate::files::bounded_async_for;
use crate::logging::access::AccessLogWriter;
use crate::logging::events::EventLog;
use crate::model::address::BackendAddress;
use crate::snapshot::publish::Publisher;
use crate::snapshot::registry::Registry;
use crate::snapshot::{Listener, Snapshot};
use crate::telemetry::metrics::ProcessMetrics;
use crate::transport::descriptors::Descriptors;
use crate::transport::listen::{BindError, BoundSockets};
use crate::transport::memory::give_back;
use crate::transport::unix::SocketFile;

pub(crate) use changes::Changes;
pub(crate) use files::{
    Absent, FileError, Machine, Tried, look_at_secrets, read_alone, read_config,
};
pub(crate) use membership::Membership;
pub(crate) use peers::Peers;

/// Between two publications at the least.
pub(crate) const COALESCE: Duration = Duration::from_millis(50);
/// How long a start or a reload waits for the first answers about names.
const FIRST_LOOK_UP: Duration = Duration::from_secs(1);
/// How long a reload may take to understand the file and to read what it names.
const PARSE: Duration = Duration::from_secs(20);
/// Between two looks at what drains.
const DRAIN_LOOK: Duration = Duration::from_millis(500);

/// The resolved names.
type Names = HashMap<BackendAddress, Arc<[SocketAddr]>>;

/// See the module.
pub(crate) struct Control {
    path: PathBuf,
    layers: Layers,
    peers: Peers,
    membership: Membership,
    /// The files and directories that were named at the start.
    named: Vec<PathBuf>,
    tried: Tried,
    /// What is watched.
    targets: watch::Sender<Targets>,
    registry: Registry,
    names: Names,
    resolver: Resolver,
    answers: mpsc::Receiver<Resolved>,
    publisher: Arc<Publisher>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    /// Generations that workers may still hold: dropped here, never by a worker.
    retired: Vec<Retired>,
    /// Whether a reload left much free memory since the last look.
    has_freed: bool,
    drains: members::Drains,
    moves: members::Moves,
    published: Instant,
    process: Arc<ProcessMetrics>,
    descriptors: Arc<Descriptors>,
    events: EventLog,
    access: AccessLogWriter,
    admin: AdminServer,
    on_applied: Option<OnApplied>,
}

/// A generation that was replaced.
struct Retired {
    snapshot: Arc<Snapshot>,
    /// By a reload, which may have made it much smaller; else by one much like it.
    by_reload: bool,
}

/// Called after each reload that was applied, with the generation and what changed.
pub(crate) type OnApplied = Box<dyn Fn(u64, &Changes) + Send>;

/// What control is told from outside.
pub(crate) struct Signals {
    /// Read the file again, changed or not.
    pub reload: Arc<Notify>,
    /// The file may have changed.
    pub file_event: Arc<Notify>,
    /// Open log files again.
    pub reopen: Arc<Notify>,
}

/// The first generation, and what goes on from it.
pub(crate) struct First {
    /// The configuration.
    pub config: Arc<Config>,
    /// What it was read from.
    pub tried: Tried,
    /// The files and directories that were named.
    pub named: Vec<PathBuf>,
    /// The first of them: what is beside the configuration is beside it.
    pub path: PathBuf,
    /// Where is said what to watch.
    pub targets: watch::Sender<Targets>,
    /// Counters of the process.
    pub process: Arc<ProcessMetrics>,
}

/// Builds the first snapshot: binds every listener, asks for every name and takes in the last known members.
///
/// # Errors
/// The listeners that could not be bound.
pub(crate) async fn first_snapshot(
    config: &Arc<Config>,
    peers: &mut Peers,
    workers: usize,
) -> Result<
    (
        Snapshot,
        Registry,
        HashMap<BackendAddress, Arc<[SocketAddr]>>,
    ),
    Vec<BindError>,
> {
    let mut registry = Registry::new(workers);
    let sockets = bind_all(config, workers, None)?;
    let names = resolve_all(members::names_of(config).into_keys(), FIRST_LOOK_UP).await;
    peers.look(config, &sockets, &registry);
    let inputs = CompileInputs {
        registry: &registry,
        sockets: &sockets,
        names: &names,
        previous: None,
    };
    let Compiled { snapshot, effects } = compile(&peers.layers(config), &inputs);
    effects.apply(&mut registry);
    Ok((snapshot, registry, names))
}

impl Control {
    /// Takes over from the first snapshot.
    #[expect(
        clippy::too_many_arguments,
        reason = "the composition root hands over what it has made"
    )]
    pub(crate) fn new(
        first: First,
        registry: Registry,
        names: HashMap<BackendAddress, Arc<[SocketAddr]>>,
        peers: Peers,
        membership: Membership,
        publisher: Arc<Publisher>,
        snapshots: watch::Sender<Arc<Snapshot>>,
        descriptors: Arc<Descriptors>,
        events: EventLog,
        access: AccessLogWriter,
        admin: AdminServer,
    ) -> Self {
        let (sender, answers) = mpsc::channel(1024);
        let mut resolver = Resolver::new(sender);
        resolver.follow(&members::names_of(&first.config), &names);
        first.process.config_generation.add(1);
        first
            .process
            .last_reload_success
            .store(true, Ordering::Relaxed);
        Self {
            path: first.path,
            layers: peers.layers(&first.config),
            peers,
            membership,
            named: first.named,
            tried: first.tried,
            targets: first.targets,
            registry,
            names,
            resolver,
            answers,
            publisher,
            snapshots,
            retired: Vec::new(),
            has_freed: false,
            drains: members::Drains::default(),
            moves: members::Moves::default(),
            published: Instant::now(),
            process: first.process,
            descriptors,
            events,
            access,
            admin,
            on_applied: None,
        }
    }

    /// With somebody to be told of each reload.
    pub(crate) fn telling(mut self, on_applied: Option<OnApplied>) -> Self {
        self.on_applied = on_applied;
        self
    }

    /// Follows everything that changes until `stop` says so. Then the admin server gives up its address, so that the
    /// next process can have it, and the peer set is left; gives back what must be closed last.
    pub(crate) async fn run(
        mut self,
        signals: Signals,
        mut stop: watch::Receiver<bool>,
    ) -> AccessLogWriter {
        let mut look = tokio::time::interval(DRAIN_LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = signals.reload.notified() => self.reload(true).await,
                () = signals.file_event.notified(), if self.layers.file.watch => self.reload(false).await,
                () = signals.reopen.notified() => self.access.reopen(),
                Some(resolved) = self.answers.recv() => self.take_answers(resolved).await,
                () = self.peers.changed() => self.take_peers().await,
                () = self.membership.touched() => {
                    tokio::task::block_in_place(|| self.membership.read_again());
                }
                _ = look.tick() => self.look_at_drains().await,
                _ = stop.changed() => break,
            }
        }
        tokio::join!(self.admin.stop(), self.membership.leave());
        self.access
    }

    /// Reads the file and applies it. Unless `always`, a text that was tried already is left alone.
    async fn reload(&mut self, always: bool) {
        let sources = match files::read_settled(&self.named).await {
            Ok(sources) => sources,
            // Between two steps of an editor there is no file; the next event or look finds it again.
            Err(error) if !always => {
                return tracing::debug!(%error, "the configuration cannot be read for now");
            }
            Err(error) => {
                error!(path = %self.path.display(), %error, "reload refused: the file cannot be read");
                return self.count_reload(false);
            }
        };
        if !always && tokio::task::block_in_place(|| self.tried.is_same(&sources)) {
            return;
        }
        let parse = move || Ok(files::parse(sources));
        let (parsed, tried) = match bounded_async_for(&self.path, PARSE, parse).await {
            Ok(parsed) => parsed,
            Err(error) => {
                error!(path = %self.path.display(), %error, "reload refused: what the file names cannot be read");
                return self.count_reload(false);
            }
        };
        self.targets.send_replace(tried.targets());
        self.tried = tried;
        let applied = match parsed {
            Ok((config, warnings)) => {
                if !warnings.is_empty() {
                    warn!("the configuration has warnings\n{warnings}");
                }
                self.apply(config).await
            }
            Err(FileError(text)) => {
                error!(
                    "reload refused: the configuration is not valid; the one before goes on\n{text}"
                );
                false
            }
        };
        self.count_reload(applied);
    }

    /// Who sees the count of the reload sees what became of it too.
    fn count_reload(&mut self, applied: bool) {
        // What the file was read into.
        self.has_freed = true;
        self.process
            .last_reload_success
            .store(applied, Ordering::Relaxed);
        if applied {
            self.process.config_generation.add(1);
            self.process.reloads_ok.add(1);
        } else {
            self.process.reloads_rejected.add(1);
        }
    }

    /// Applies a valid configuration, whole or not at all.
    async fn apply(&mut self, config: Config) -> bool {
        let before = self.publisher.current();
        let workers = self.registry.workers();
        if let Err(error) = self.descriptors.carry(config.listeners.len() * workers) {
            error!(%error, "reload refused: too few descriptors; the configuration before goes on");
            return false;
        }
        let sockets = match bind_all(&config, workers, Some(&before)) {
            Ok(sockets) => sockets,
            Err(errors) => {
                for error in errors {
                    error!(%error, "reload refused: a listener cannot be bound; the configuration before goes on");
                }
                return false;
            }
        };
        let files = socket_files(sockets.iter().map(|sockets| &**sockets));
        let admin = match self.admin.prepare(config.admin.as_ref(), &files) {
            Ok(admin) => admin,
            Err(error) => {
                error!(%error, "reload refused: the admin address cannot be bound; the configuration before goes on");
                return false;
            }
        };
        let prepare = || self.membership.prepare(config.gossip.as_ref());
        let member = match tokio::task::block_in_place(prepare) {
            Ok(member) => member,
            Err(error) => {
                error!(%error, "reload refused: [gossip] cannot be applied; the configuration before goes on");
                return false;
            }
        };
        if config.log.access != self.layers.file.log.access
            && let Err(error) = self
                .access
                .switch(&resolve_path(&self.path, &config.log.access))
        {
            error!(%error, "reload refused: the access log cannot be opened; the configuration before goes on");
            return false;
        }
        if config.workers != self.layers.file.workers {
            warn!("a change of `workers` takes a restart; the rest of the file is applied");
        }
        self.look_up_new_names(&config).await;
        sleep_until(self.published + COALESCE).await;
        if let Err(error) = self.membership.switch(member) {
            error!(%error, "reload refused: [gossip] cannot be applied; the configuration before goes on");
            return false;
        }
        for file in files {
            if let Err(error) = file.take_over() {
                error!(%error, "a listener cannot take over its path; the next reload binds it again");
            }
        }
        self.peers.look(&config, &sockets, &self.registry);
        let before = Arc::clone(&self.layers.file);
        let config = Arc::new(config);
        self.build_and_publish(Arc::clone(&config), &sockets);
        if let Some(replaced) = self.retired.last_mut() {
            replaced.by_reload = true;
        }
        let changes = Changes::between(&before, &config);
        self.events.set_level(config.log.level);
        self.events.set_format(config.log.format);
        self.admin.switch(admin);
        // The one that is counted for it right after.
        let generation = self.process.config_generation.get() + 1;
        info!(
            generation,
            changed = %changes,
            listeners = config.listener_count(),
            routes = config.routes.len(),
            clusters = config.clusters.len(),
            "the configuration is applied"
        );
        if let Some(on_applied) = &self.on_applied {
            on_applied(generation, &changes);
        }
        true
    }

    fn build_and_publish(&mut self, file: Arc<Config>, sockets: &[Arc<BoundSockets>]) {
        let layers = self.peers.layers(&file);
        let before = self.publisher.current();
        let inputs = CompileInputs {
            registry: &self.registry,
            sockets,
            names: &self.names,
            previous: Some(&before),
        };
        let compiled = tokio::task::block_in_place(|| compile(&layers, &inputs));
        self.resolver.follow(&members::names_of(&file), &self.names);
        self.layers = layers;
        self.publish(before, compiled);
    }

    fn publish(&mut self, before: Arc<Snapshot>, compiled: Compiled) {
        let mut next = compiled.snapshot;
        compiled.effects.apply(&mut self.registry);
        self.drains.follow(&before, &next);
        next.departing = self.drains.departing();
        let next = Arc::new(next);
        self.retired.push(Retired {
            snapshot: self.publisher.publish(Arc::clone(&next)),
            by_reload: false,
        });
        self.snapshots.send_replace(next);
        self.published = Instant::now();
        drop(before);
        self.bury();
    }

    /// Drops the generations that nobody else holds.
    fn bury(&mut self) {
        let has_freed = &mut self.has_freed;
        self.retired.retain(|retired| {
            let is_held = Arc::strong_count(&retired.snapshot) > 1;
            *has_freed |= retired.by_reload && !is_held;
            is_held
        });
    }

    /// Gives back what a reload freed: once behind it, applied or not, and once more if workers let go of the generation
    /// before only later.
    fn give_back(&mut self) {
        if std::mem::take(&mut self.has_freed) {
            tokio::task::block_in_place(give_back);
        }
    }

    async fn look_up_new_names(&mut self, config: &Config) {
        let wanted = members::names_of(config);
        let unknown: Vec<BackendAddress> = wanted
            .keys()
            .filter(|name| !self.names.contains_key(name))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            self.names
                .extend(resolve_all(unknown.into_iter(), FIRST_LOOK_UP).await);
        }
        self.names.retain(|name, _| wanted.contains_key(name));
    }

    /// Takes an answer, and those that come while it waits for its turn.
    async fn take_answers(&mut self, first: Resolved) {
        self.names.insert(first.name, first.addresses);
        sleep_until(self.published + COALESCE).await;
        while let Ok(more) = self.answers.try_recv() {
            self.names.insert(more.name, more.addresses);
        }
        self.republish();
    }

    /// Looks at the peer set, and publishes what it changes.
    async fn take_peers(&mut self) {
        sleep_until(self.published + COALESCE).await;
        let sockets = self.sockets();
        if self.peers.look(&self.layers.file, &sockets, &self.registry) {
            self.build_and_publish(Arc::clone(&self.layers.file), &sockets);
        }
    }

    async fn look_at_drains(&mut self) {
        self.bury();
        self.give_back();
        let moved = self.moves.choose(
            &self.layers.file,
            &self.names,
            &mut self.registry,
            std::time::Instant::now(),
        );
        if self.drains.end_due(self.layers.file.drain_timeout) || moved {
            sleep_until(self.published + COALESCE).await;
            self.republish();
            members::forget(&mut self.registry, &self.publisher.current());
        }
    }

    /// The same configuration in a world that has changed.
    fn republish(&mut self) {
        self.build_and_publish(Arc::clone(&self.layers.file), &self.sockets());
    }

    fn sockets(&self) -> Vec<Arc<BoundSockets>> {
        let current = self.publisher.current();
        let sockets = current.listeners.iter().map(|l| Arc::clone(&l.sockets));
        sockets.collect()
    }
}

/// The files of those sockets that have one.
pub(crate) fn socket_files<'s>(
    sockets: impl Iterator<Item = &'s BoundSockets>,
) -> Vec<Arc<SocketFile>> {
    sockets.filter_map(BoundSockets::file).collect()
}

/// The sockets of every listener: those of `before` where the address stays, new ones else. All or none.
fn bind_all(
    config: &Config,
    workers: usize,
    before: Option<&Snapshot>,
) -> Result<Vec<Arc<BoundSockets>>, Vec<BindError>> {
    let mut sockets = Vec::with_capacity(config.listeners.len());
    let mut files: Vec<Arc<SocketFile>> = Vec::new();
    let mut errors = Vec::new();
    for listener in &config.listeners {
        let known = before.and_then(|snapshot| {
            snapshot.listeners.iter().find(|known| {
                // Port 0 is another port each time, so there the name tells which is which.
                known.address == listener.address
                    && (!listener.address.is_any_port() || *known.name == *listener.name)
            })
        });
        match bind_or_keep(listener, workers, known) {
            Ok(bound) => {
                let file = bound.file();
                // Two spellings of one path.
                if file.as_ref().is_some_and(|file| file.collides(&files)) {
                    errors.push(BindError::in_use(&listener.address));
                }
                files.extend(file);
                sockets.push(bound);
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(sockets)
    } else {
        Err(errors)
    }
}

/// The sockets that a listener has already, or new ones. Those whose file is gone are replaced if they can be.
fn bind_or_keep(
    listener: &ListenerConfig,
    workers: usize,
    known: Option<&Arc<Listener>>,
) -> Result<Arc<BoundSockets>, BindError> {
    let is_lost = |known: &Listener| known.sockets.file().is_some_and(|file| file.is_lost());
    let lost = match known {
        Some(known) if !is_lost(known) => return Ok(Arc::clone(&known.sockets)),
        lost => lost,
    };
    match (BoundSockets::bind(&listener.address, workers), lost) {
        (Ok(bound), _) => {
            info!(listener = %listener.name, address = %bound.address(), "listening");
            Ok(Arc::new(bound))
        }
        (Err(error), Some(lost)) => {
            warn!(listener = %listener.name, %error, "nobody can connect: the socket has lost its file");
            Ok(Arc::clone(&lost.sockets))
        }
        (Err(error), None) => Err(error),
    }
}

/// The access log's file is relative to the configuration's directory.
pub(crate) fn resolve_path(config: &std::path::Path, access: &AccessLog) -> AccessLog {
    match access {
        AccessLog::File(file) => AccessLog::File(
            config
                .parent()
                .unwrap_or(std::path::Path::new(""))
                .join(file),
        ),
        other => other.clone(),
    }
}
