//! The live state that outlives generations, by identity: backends by cluster and address, clusters and listeners by
//! name. Owned by the one writer of snapshots.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::address::BackendAddress;
use crate::model::backend::Backend;
use crate::model::cluster::ClusterState;
use crate::telemetry::metrics::{BackendMetrics, ClusterMetrics, ListenerMetrics};

/// See the module.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    backends: HashMap<(String, BackendAddress), (Arc<Backend>, Arc<BackendMetrics>)>,
    clusters: HashMap<String, (Arc<ClusterState>, Arc<ClusterMetrics>)>,
    listeners: HashMap<String, Arc<ListenerMetrics>>,
}

impl Registry {
    /// Empty, for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            backends: HashMap::new(),
            clusters: HashMap::new(),
            listeners: HashMap::new(),
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// A backend, known or new.
    pub fn backend(
        &mut self,
        cluster: &str,
        address: &BackendAddress,
    ) -> (Arc<Backend>, Arc<BackendMetrics>) {
        let workers = self.workers;
        let entry = self
            .backends
            .entry((cluster.to_owned(), address.clone()))
            .or_insert_with(|| {
                let backend = Arc::new(Backend::new(cluster.into(), address.clone()));
                let metrics = BackendMetrics::new(
                    Arc::clone(backend.cluster()),
                    Arc::clone(backend.label()),
                    workers,
                );
                (backend, Arc::new(metrics))
            });
        entry.clone()
    }

    /// A backend, if it is known.
    pub fn known_backend(&self, cluster: &str, address: &BackendAddress) -> Option<&Arc<Backend>> {
        let key = (cluster.to_owned(), address.clone());
        self.backends.get(&key).map(|(backend, _)| backend)
    }

    /// A cluster, known or new.
    pub fn cluster(&mut self, name: &str) -> (Arc<ClusterState>, Arc<ClusterMetrics>) {
        let workers = self.workers;
        let entry = self.clusters.entry(name.to_owned()).or_insert_with(|| {
            (
                Arc::new(ClusterState::new(workers)),
                Arc::new(ClusterMetrics::new(name.into(), workers)),
            )
        });
        entry.clone()
    }

    /// A listener's counters, known or new.
    pub fn listener(&mut self, name: &str) -> Arc<ListenerMetrics> {
        let workers = self.workers;
        let entry = self.listeners.entry(name.to_owned());
        Arc::clone(entry.or_insert_with(|| Arc::new(ListenerMetrics::new(name.into(), workers))))
    }

    /// Forgets everything that `keep_backend`, `keep_cluster` and `keep_listener` do not want kept.
    pub fn forget(
        &mut self,
        keep_backend: impl Fn(u64) -> bool,
        keep_cluster: impl Fn(&str) -> bool,
        keep_listener: impl Fn(&str) -> bool,
    ) {
        self.backends
            .retain(|_, (backend, _)| keep_backend(backend.id()));
        self.clusters.retain(|name, _| keep_cluster(name));
        self.listeners.retain(|name, _| keep_listener(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_keeps_its_state_until_it_is_forgotten() {
        let mut registry = Registry::new(1);
        let address: BackendAddress = "127.0.0.1:1".parse().unwrap();
        assert!(registry.known_backend("a", &address).is_none());
        let first = registry.backend("a", &address).0.id();
        let known = registry.known_backend("a", &address).map(|b| b.id());
        assert_eq!(known, Some(first));
        assert_eq!(registry.backend("a", &address).0.id(), first);
        assert_ne!(
            registry.backend("b", &address).0.id(),
            first,
            "the cluster is part of the identity"
        );
        registry.forget(|id| id != first, |_| true, |_| true);
        assert_ne!(registry.backend("a", &address).0.id(), first);
    }
}
