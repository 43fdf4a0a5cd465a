//! Small snapshots for tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Cluster, Departing, Endpoint, HttpListener, Listener, ListenerKind, ListenerState, Snapshot,
};
use crate::balance::{Balancer, WeightedBackend};
use crate::model::address::SocketAddress;
use crate::model::backend::Backend;
use crate::model::cluster::ClusterState;
use crate::model::settings::{
    Check, ClusterSettings, ListenerLimits, ListenerTimeouts, Policy, TrustedProxies,
};
use crate::route::table::Table;
use crate::telemetry::metrics::{BackendMetrics, ClusterMetrics, ListenerMetrics};
use crate::transport::listen::BoundSockets;

/// Workers of the fixtures.
pub(crate) const WORKERS: usize = 2;

/// A backend with weight 1; an address that is a name has not been resolved.
pub(crate) fn endpoint(cluster: &str, address: &str) -> Endpoint {
    let name: Arc<str> = cluster.into();
    let backend = Arc::new(Backend::new(name.clone(), address.parse().unwrap()));
    let resolved: Option<SocketAddr> = address.parse().ok();
    Endpoint {
        metrics: Arc::new(BackendMetrics::new(name, backend.label().clone(), WORKERS)),
        backend,
        weight: 1,
        backup: false,
        address: resolved.map(SocketAddress::Ip),
    }
}

/// A cluster of `endpoints` with default settings.
pub(crate) fn cluster(name: &str, endpoints: Vec<Endpoint>) -> Cluster {
    let members = endpoints.iter().map(|e| WeightedBackend {
        backend: e.backend.clone(),
        weight: e.weight,
        backup: e.backup,
    });
    Cluster {
        name: name.into(),
        settings: ClusterSettings::default(),
        balancer: Balancer::new(Policy::RoundRobin, 0, members.collect()),
        endpoints,
        state: Arc::new(ClusterState::new(WORKERS)),
        metrics: Arc::new(ClusterMetrics::new(name.into(), WORKERS)),
    }
}

/// The next generation of `cluster`, with the same identities and another check.
pub(crate) fn rechecked(cluster: &Cluster, check: Option<Check>) -> Cluster {
    let mut next = self::cluster(&cluster.name, cluster.endpoints.clone());
    next.state = cluster.state.clone();
    next.metrics = cluster.metrics.clone();
    next.settings = ClusterSettings {
        check,
        ..cluster.settings.clone()
    };
    next
}

/// An http listener without routes and sockets that claims to be bound to `address`.
pub(crate) fn listener(name: &str, address: &str) -> Listener {
    let local: SocketAddr = address.parse().unwrap();
    Listener {
        name: name.into(),
        address: address.parse().unwrap(),
        kind: ListenerKind::Http(HttpListener {
            via: false,
            expose_request_id: false,
            routes: Arc::new(Table::new(Vec::new())),
            fallback: None,
            errors: Default::default(),
        }),
        sockets: Arc::new(BoundSockets::at(local)),
        timeouts: ListenerTimeouts::default(),
        limits: ListenerLimits::default(),
        trusted_proxies: TrustedProxies::default(),
        state: Arc::new(ListenerState::default()),
        metrics: Arc::new(ListenerMetrics::new(name.into(), WORKERS)),
    }
}

/// A generation of `listeners` and `clusters`.
pub(crate) fn snapshot(
    generation: u64,
    listeners: Vec<Listener>,
    clusters: Vec<Arc<Cluster>>,
) -> Snapshot {
    Snapshot {
        generation,
        listeners: listeners.into_iter().map(Arc::new).collect(),
        clusters,
        departing: Departing::default(),
        drain_timeout: Duration::from_secs(30),
        access_log: false,
        access_query: true,
    }
}
