//! What a request or a session holds while it is open: a generation, and its place in a backend's load.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::deadlines::ConnectionSlot;
use crate::balance::hash_key;
use crate::model::backend::Backend;
use crate::snapshot::{Cluster, ClusterIndex, Endpoint, Listener, Snapshot};

/// A generation as a worker gives it to its requests: counted within the worker, so that a request pays no contended
/// atomic.
pub(crate) type SnapshotRef = Rc<Arc<Snapshot>>;

/// A listener in one generation.
#[derive(Debug, Clone)]
pub(crate) struct ListenerView {
    /// The generation.
    pub snapshot: SnapshotRef,
    /// The listener's index in it.
    index: u32,
}

impl ListenerView {
    /// The listener with this index, which `snapshot` has.
    pub(crate) fn new(snapshot: SnapshotRef, index: usize) -> Self {
        Self {
            snapshot,
            index: index as u32,
        }
    }

    /// The listener.
    pub(crate) fn listener(&self) -> &Arc<Listener> {
        &self.snapshot.listeners[self.index as usize]
    }
}

/// Where a request or a session goes: a cluster, and the key by which `consistent_hash` chooses in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Routed {
    /// The cluster, in the generation that the request sees.
    pub cluster: ClusterIndex,
    /// Hash of the key.
    pub key: u64,
}

/// A backend that was picked, and the request's place in its load, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Pick {
    snapshot: SnapshotRef,
    cluster: ClusterIndex,
    endpoint: u32,
    /// Whether the load is counted here, and not by a [`LoadGuard`].
    is_counted: bool,
}

impl Pick {
    /// Counts one request or session more on the endpoint.
    pub(crate) fn acquire(snapshot: &SnapshotRef, cluster: ClusterIndex, endpoint: usize) -> Self {
        let pick = Self {
            snapshot: Rc::clone(snapshot),
            cluster,
            endpoint: endpoint as u32,
            is_counted: true,
        };
        pick.backend().start();
        pick
    }

    /// The generation.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The cluster.
    pub(crate) fn cluster(&self) -> &Cluster {
        self.snapshot.cluster(self.cluster)
    }

    /// The endpoint.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.cluster().endpoints[self.endpoint as usize]
    }

    /// The endpoint's index in the cluster.
    pub(crate) fn index(&self) -> u32 {
        self.endpoint
    }

    /// The backend.
    pub(crate) fn backend(&self) -> &Arc<Backend> {
        &self.endpoint().backend
    }

    /// A backend that was removed meanwhile: the connection in `slot` drains like those that were there before.
    pub(crate) fn drain_if_departed(&self, slot: &ConnectionSlot) {
        if self.backend().has_departed() {
            slot.drain_backend(self.snapshot.drain_timeout);
        }
    }

    /// Lets go of the generation but keeps the load: for what lasts longer than a request.
    pub(crate) fn into_load(mut self) -> LoadGuard {
        self.is_counted = false;
        LoadGuard(Arc::clone(self.backend()))
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        if self.is_counted {
            self.backend().finish();
        }
    }
}

/// A session's place in a backend's load, without a generation.
#[derive(Debug)]
pub(crate) struct LoadGuard(Arc<Backend>);

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Hash of a client's address; that of nothing for a client without one.
pub(crate) fn client_key(cluster: &Cluster, client: Option<IpAddr>) -> u64 {
    match client {
        Some(IpAddr::V4(ip)) => hash_key(cluster.settings.hash_seed, &ip.octets()),
        Some(IpAddr::V6(ip)) => hash_key(cluster.settings.hash_seed, &ip.octets()),
        None => hash_key(cluster.settings.hash_seed, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::fixture::{cluster, endpoint, snapshot};

    #[test]
    fn a_session_that_lets_go_of_its_generation_is_counted_once() {
        let endpoint = endpoint("web", "10.0.0.1:1");
        let backend = Arc::clone(&endpoint.backend);
        let snapshot = Rc::new(Arc::new(snapshot(
            1,
            Vec::new(),
            vec![Arc::new(cluster("web", vec![endpoint]))],
        )));
        let pick = Pick::acquire(&snapshot, ClusterIndex::new(0), 0);
        assert_eq!(backend.in_flight(), 1);
        let load = pick.into_load();
        assert_eq!((backend.in_flight(), Rc::strong_count(&snapshot)), (1, 1));
        drop(load);
        assert_eq!(backend.in_flight(), 0);
        drop(Pick::acquire(&snapshot, ClusterIndex::new(0), 0));
        assert_eq!(backend.in_flight(), 0);
    }
}
