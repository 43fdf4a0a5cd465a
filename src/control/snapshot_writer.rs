//! The life of a snapshot: compiled from what is in force, published at most once in [`COALESCE`], and dropped here,
//! never by a worker, once no worker holds it.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashSet;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::drains::Drains;
use crate::config::compile::{CompileInputs, Compiled, Previous, ResolvedNames, compile};
use crate::config::layers::Layers;
use crate::config::schema::Config;
use crate::model::backend::BackendId;
use crate::snapshot::Snapshot;
use crate::snapshot::publish::Publisher;
use crate::snapshot::registry::Registry;
use crate::transport::listen::BoundSockets;
use crate::transport::memory::trim_heap;

/// Least time between two publications.
pub(crate) const COALESCE: Duration = Duration::from_millis(50);

/// Publishes snapshots and owns the live state that outlives them.
#[derive(Debug)]
pub(super) struct SnapshotWriter {
    registry: Registry,
    /// The configuration files that the current snapshot was built from.
    file: Arc<Config>,
    publisher: Arc<Publisher>,
    /// For the health checks.
    snapshots: watch::Sender<Arc<Snapshot>>,
    drains: Drains,
    retired: Vec<Retired>,
    /// Whether a reload has freed much memory since the heap was trimmed last.
    has_freed: bool,
    last: Instant,
}

/// A generation that was replaced and that workers may still hold.
#[derive(Debug)]
struct Retired {
    snapshot: Arc<Snapshot>,
    replaced_by: Cause,
}

/// Why a snapshot is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Another configuration, which may be much smaller.
    Reload,
    /// Names, the peer set or drains: the snapshot is much like the previous one.
    Update,
}

impl SnapshotWriter {
    /// Continues from a first snapshot, built from `file`, that is published already.
    pub(super) fn new(
        registry: Registry,
        file: Arc<Config>,
        publisher: Arc<Publisher>,
        snapshots: watch::Sender<Arc<Snapshot>>,
    ) -> Self {
        Self {
            registry,
            file,
            publisher,
            snapshots,
            drains: Drains::default(),
            retired: Vec::new(),
            has_freed: false,
            last: Instant::now(),
        }
    }

    /// The snapshot that is published.
    pub(super) fn current(&self) -> Arc<Snapshot> {
        self.publisher.current()
    }

    /// The sockets of the listeners of the current snapshot.
    pub(super) fn sockets(&self) -> Vec<Arc<BoundSockets>> {
        let current = self.current();
        let sockets = current.listeners.iter().map(|l| Arc::clone(&l.sockets));
        sockets.collect()
    }

    /// Live state by identity.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// As [`Self::registry`], to choose the addresses of names.
    pub(super) fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Waits until the next snapshot may be published.
    pub(super) async fn wait_for_turn(&self) {
        sleep_until(self.last + COALESCE).await;
    }

    /// Compiles what is in force and publishes it; takes some time if there is much of it.
    pub(super) fn publish(
        &mut self,
        layers: &Layers,
        names: &ResolvedNames,
        sockets: &[Arc<BoundSockets>],
        cause: Cause,
    ) {
        let previous = self.current();
        let inputs = CompileInputs {
            registry: &self.registry,
            sockets,
            names,
            previous: Some(Previous {
                file: &self.file,
                snapshot: &previous,
            }),
        };
        let Compiled {
            snapshot: mut next,
            effects,
        } = compile(layers, &inputs);
        effects.apply(&mut self.registry);
        self.file = Arc::clone(&layers.file);
        self.drains.follow(&previous, &next);
        drop(previous);
        next.departing = self.drains.departing();
        let next = Arc::new(next);
        self.retired.push(Retired {
            snapshot: self.publisher.publish(Arc::clone(&next)),
            replaced_by: cause,
        });
        self.snapshots.send_replace(next);
        self.last = Instant::now();
        self.drop_retired();
    }

    /// Drops the generations that nobody else holds.
    pub(super) fn drop_retired(&mut self) {
        let has_freed = &mut self.has_freed;
        self.retired.retain(|retired| {
            let is_held = Arc::strong_count(&retired.snapshot) > 1;
            *has_freed |= retired.replaced_by == Cause::Reload && !is_held;
            is_held
        });
    }

    /// A reload, applied or not, has freed what its files were read into.
    pub(super) fn note_reload(&mut self) {
        self.has_freed = true;
    }

    /// Gives what reloads have freed back to the system: once after each, and once more if workers let go of the
    /// previous generation later.
    pub(super) fn trim_heap(&mut self) {
        if std::mem::take(&mut self.has_freed) {
            trim_heap();
        }
    }

    /// Ends the drains that are due. Whether there were any.
    pub(super) fn end_drains(&mut self, drain_timeout: Duration) -> bool {
        self.drains.end_due(drain_timeout)
    }

    /// Drops the live state of what is neither in the current snapshot nor draining.
    pub(super) fn forget_unused(&mut self) {
        let current = self.publisher.current();
        let backends: HashSet<BackendId> = current
            .clusters
            .iter()
            .flat_map(|cluster| &cluster.endpoints)
            .chain(&current.departing.endpoints)
            .map(|endpoint| endpoint.backend.id())
            .collect();
        let clusters: HashSet<&str> = current.clusters.iter().map(|c| &*c.name).collect();
        let departing = current.departing.listeners.iter();
        let listeners: HashSet<&str> = current
            .listeners
            .iter()
            .map(|listener| &*listener.name)
            .chain(departing.map(|metrics| &*metrics.name))
            .collect();
        self.registry.retain(
            |id| backends.contains(&id),
            |name| clusters.contains(name),
            |name| listeners.contains(name),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::load;
    use crate::snapshot::fixture::{WORKERS, snapshot};
    use crate::snapshot::registry::BackendKey;

    /// A file with a cluster `web` of these backends.
    fn config(backends: &str) -> Arc<Config> {
        let text = format!(
            "[[listener]]\naddress = '127.0.0.1:1'\ncluster = 'web'\n[cluster.web]\nbackends = [{backends}]\n"
        );
        Arc::new(load(&text).config.unwrap())
    }

    /// A writer of clusters `web`.
    struct Bench {
        writer: SnapshotWriter,
        publisher: Arc<Publisher>,
    }

    impl Bench {
        fn new() -> Self {
            let first = Arc::new(snapshot(1, Vec::new(), Vec::new()));
            let publisher = Arc::new(Publisher::new(Arc::clone(&first), WORKERS));
            let snapshots = watch::Sender::new(first);
            let registry = Registry::new(WORKERS);
            Self {
                writer: SnapshotWriter::new(
                    registry,
                    config("'10.0.0.9:80'"),
                    Arc::clone(&publisher),
                    snapshots,
                ),
                publisher,
            }
        }

        fn publish(&mut self, backends: &str, cause: Cause) {
            let layers = Layers::of_file(config(backends));
            let sockets = [Arc::new(BoundSockets::at("127.0.0.1:1".parse().unwrap()))];
            let names = ResolvedNames::new();
            self.writer.publish(&layers, &names, &sockets, cause);
        }

        fn is_known(&self, address: &str) -> bool {
            let key = BackendKey::of_address(address.parse().unwrap());
            let registry = self.writer.registry();
            registry.known_backend("web", &key).is_some()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_turn_is_fifty_milliseconds_after_the_last_publication() {
        let mut bench = Bench::new();
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.publish("'10.0.0.1:80'", Cause::Update);
        let begun = Instant::now();
        bench.writer.wait_for_turn().await;
        assert_eq!(begun.elapsed(), Duration::from_millis(50));
        bench.writer.wait_for_turn().await;
        assert_eq!(begun.elapsed(), Duration::from_millis(50));
    }

    #[tokio::test]
    async fn a_generation_is_dropped_when_no_worker_holds_it() {
        let mut bench = Bench::new();
        bench.publish("'10.0.0.1:80'", Cause::Update);
        assert!(bench.writer.retired.is_empty(), "nobody held it");
        let held = bench.publisher.current();
        bench.publish("'10.0.0.2:80'", Cause::Reload);
        bench.writer.drop_retired();
        assert_eq!(bench.writer.retired.len(), 1);
        assert!(!bench.writer.has_freed);
        drop(held);
        bench.writer.drop_retired();
        assert!(bench.writer.retired.is_empty());
        assert!(bench.writer.has_freed, "a reload replaced it");
    }

    #[tokio::test]
    async fn a_removed_backend_departs_and_is_forgotten_when_it_is_idle() {
        let mut bench = Bench::new();
        bench.publish("'10.0.0.1:80', '10.0.0.2:80'", Cause::Update);
        let backend = {
            let endpoints = &bench.publisher.current().clusters[0].endpoints;
            Arc::clone(&endpoints[1].backend)
        };
        backend.start();
        bench.publish("'10.0.0.1:80'", Cause::Reload);
        assert!(backend.has_departed());
        let current = bench.publisher.current();
        assert_eq!(
            (current.generation, current.departing.endpoints.len()),
            (3, 1)
        );
        bench.writer.forget_unused();
        assert!(bench.is_known("10.0.0.2:80"), "it drains");
        let hour = Duration::from_secs(3600);
        assert!(!bench.writer.end_drains(hour));
        backend.finish();
        assert!(bench.writer.end_drains(hour));
        bench.publish("'10.0.0.1:80'", Cause::Update);
        bench.writer.forget_unused();
        assert!(!bench.is_known("10.0.0.2:80") && bench.is_known("10.0.0.1:80"));
    }
}
