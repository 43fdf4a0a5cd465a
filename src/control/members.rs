//! Members that come and go: the names that must be resolved, and what was removed but still drains.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::schema::Config;
use crate::model::address::BackendAddress;
use crate::snapshot::registry::Registry;
use crate::snapshot::{Departing, Endpoint, Snapshot};
use crate::telemetry::metrics::ListenerMetrics;

/// Every name of the configuration, with the shortest interval that a cluster asks for.
pub fn names_of(config: &Config) -> HashMap<BackendAddress, Duration> {
    let mut names: HashMap<BackendAddress, Duration> = HashMap::new();
    for cluster in &config.clusters {
        for backend in &cluster.backends {
            if matches!(backend.address, BackendAddress::Name { .. }) {
                let interval = names
                    .entry(backend.address.clone())
                    .or_insert(cluster.resolve);
                *interval = (*interval).min(cluster.resolve);
            }
        }
    }
    names
}

/// Lets go of the live state of what is neither in `current` nor draining.
pub fn forget(registry: &mut Registry, current: &Snapshot) {
    let backends: HashSet<u64> = current
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
    registry.forget(
        |id| backends.contains(&id),
        |name| clusters.contains(name),
        |name| listeners.contains(name),
    );
}

/// What was removed and is not drained yet.
#[derive(Debug, Default)]
pub struct Drains {
    endpoints: Vec<(Endpoint, Instant)>,
    listeners: Vec<(Arc<ListenerMetrics>, Instant)>,
}

impl Drains {
    /// What a snapshot must still show.
    pub fn departing(&self) -> Departing {
        Departing {
            listeners: self
                .listeners
                .iter()
                .map(|(metrics, _)| Arc::clone(metrics))
                .collect(),
            endpoints: self
                .endpoints
                .iter()
                .map(|(endpoint, _)| endpoint.clone())
                .collect(),
        }
    }

    /// Adds what `before` has and `next` has not; what has come back no longer drains.
    pub fn follow(&mut self, before: &Snapshot, next: &Snapshot) {
        let now = Instant::now();
        let present: HashSet<u64> = next
            .clusters
            .iter()
            .flat_map(|c| &c.endpoints)
            .map(|endpoint| endpoint.backend.id())
            .collect();
        self.endpoints
            .retain(|(endpoint, _)| !present.contains(&endpoint.backend.id()));
        for endpoint in before
            .clusters
            .iter()
            .flat_map(|cluster| &cluster.endpoints)
        {
            let backend = &endpoint.backend;
            if !present.contains(&backend.id()) && !backend.has_departed() {
                backend.set_departed(true);
                self.endpoints.push((endpoint.clone(), now));
            }
        }
        let named: HashSet<&str> = next
            .listeners
            .iter()
            .map(|listener| &*listener.metrics.name)
            .collect();
        self.listeners
            .retain(|(metrics, _)| !named.contains(&*metrics.name));
        for listener in &before.listeners {
            let known = self
                .listeners
                .iter()
                .any(|(metrics, _)| Arc::ptr_eq(metrics, &listener.metrics));
            if !named.contains(&*listener.metrics.name) && !known {
                self.listeners.push((Arc::clone(&listener.metrics), now));
            }
        }
    }

    /// Ends the drains that have nothing left, or whose time is over; says whether there were any.
    pub fn end_due(&mut self, drain_timeout: Duration) -> bool {
        let count = self.endpoints.len() + self.listeners.len();
        let is_over = |since: &Instant| since.elapsed() > drain_timeout + Duration::from_secs(1);
        self.endpoints
            .retain(|(endpoint, since)| endpoint.backend.in_flight() > 0 && !is_over(since));
        self.listeners
            .retain(|(metrics, since)| metrics.active() > 0 && !is_over(since));
        count != self.endpoints.len() + self.listeners.len()
    }
}
