//! Removed backends and listeners whose sessions have not ended. A snapshot shows them until they have, or until
//! `drain_timeout` is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashSet;

use crate::model::backend::BackendId;
use crate::snapshot::{Cluster, Departing, Endpoint, Snapshot};
use crate::telemetry::metrics::ListenerMetrics;

/// From the time at which workers end sessions to the end of a drain.
const GRACE: Duration = Duration::from_secs(1);

/// What was removed and still drains, each since when.
#[derive(Debug, Default)]
pub(super) struct Drains {
    endpoints: Vec<(Endpoint, Instant)>,
    listeners: Vec<(Arc<ListenerMetrics>, Instant)>,
}

impl Drains {
    /// What a snapshot must still show.
    pub(super) fn departing(&self) -> Departing {
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

    /// Adds what `before` has and `next` does not; what has come back no longer drains. Clusters that both share cost
    /// hardly anything.
    pub(super) fn follow(&mut self, before: &Snapshot, next: &Snapshot) {
        let now = Instant::now();
        let shared = clusters_of(before);
        let built = next
            .clusters
            .iter()
            .filter(|c| !shared.contains(&Arc::as_ptr(c)));
        let present: HashSet<BackendId> = built.flat_map(|c| &c.endpoints).map(id_of).collect();
        self.endpoints
            .retain(|(endpoint, _)| !present.contains(&id_of(endpoint)));
        let shared = clusters_of(next);
        let replaced = before
            .clusters
            .iter()
            .filter(|c| !shared.contains(&Arc::as_ptr(c)));
        for endpoint in replaced.flat_map(|cluster| &cluster.endpoints) {
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

    /// Ends the drains of what has no sessions left or has had its time. Whether there were any.
    pub(super) fn end_due(&mut self, drain_timeout: Duration) -> bool {
        let count = self.endpoints.len() + self.listeners.len();
        let is_over = |since: &Instant| since.elapsed() > drain_timeout + GRACE;
        self.endpoints
            .retain(|(endpoint, since)| endpoint.backend.in_flight() > 0 && !is_over(since));
        self.listeners
            .retain(|(metrics, since)| metrics.active() > 0 && !is_over(since));
        count != self.endpoints.len() + self.listeners.len()
    }
}

/// The clusters of a snapshot by their addresses in memory: a cluster that did not change is the same object.
fn clusters_of(snapshot: &Snapshot) -> HashSet<*const Cluster> {
    snapshot.clusters.iter().map(Arc::as_ptr).collect()
}

fn id_of(endpoint: &Endpoint) -> BackendId {
    endpoint.backend.id()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::fixture::{cluster, endpoint, listener, snapshot};

    fn of(backends: &[&Endpoint], listeners: &[&str]) -> Snapshot {
        let endpoints = backends.iter().map(|&e| e.clone()).collect();
        let listeners = listeners.iter().map(|name| listener(name, "127.0.0.1:1"));
        snapshot(
            1,
            listeners.collect(),
            vec![Arc::new(cluster("web", endpoints))],
        )
    }

    #[test]
    fn a_removed_backend_drains_until_it_is_idle_or_its_time_is_over() {
        let (idle, busy, stays) = (
            endpoint("web", "10.0.0.1:80"),
            endpoint("web", "10.0.0.2:80"),
            endpoint("web", "10.0.0.3:80"),
        );
        busy.backend.start();
        let mut drains = Drains::default();
        let before = of(&[&idle, &busy, &stays], &["a"]);
        drains.follow(&before, &of(&[&stays], &["a"]));
        assert!(idle.backend.has_departed() && busy.backend.has_departed());
        assert!(!stays.backend.has_departed());
        let ids = |drains: &Drains| -> Vec<BackendId> {
            let endpoints = drains.departing().endpoints;
            endpoints.iter().map(|e| e.backend.id()).collect()
        };
        assert_eq!(ids(&drains), [idle.backend.id(), busy.backend.id()]);
        assert!(drains.end_due(Duration::from_secs(3600)), "one is idle");
        assert!(!drains.end_due(Duration::from_secs(3600)));
        assert_eq!(ids(&drains), [busy.backend.id()]);
        // It is configured again.
        drains.follow(&of(&[&stays], &["a"]), &of(&[&stays, &busy], &["a"]));
        assert!(ids(&drains).is_empty());
    }

    #[test]
    fn a_removed_listener_drains_once_under_its_name() {
        let mut drains = Drains::default();
        let before = of(&[], &["a", "b"]);
        before.listeners[1].metrics.sheet(0).connections.increment();
        let next = of(&[], &["a"]);
        drains.follow(&before, &next);
        drains.follow(&before, &next);
        let names: Vec<_> = drains.departing().listeners;
        assert_eq!(names.len(), 1);
        assert_eq!(&*names[0].name, "b");
        drains.follow(&next, &before);
        assert!(drains.departing().listeners.is_empty());
    }
}
