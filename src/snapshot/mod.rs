//! L2: the immutable view of listeners, routes, clusters and backends that both planes share.
//!
//! One writer (the control plane) builds the next [`Snapshot`] from the current one and publishes it
//! ([`publish::Publisher`]); a worker keeps the one that it works with and looks for a newer one between requests.
//! Clusters that did not change are shared between generations. The last reference is dropped by the control
//! plane, never by a worker.

pub(crate) mod clients;
mod cluster;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod pause;
pub(crate) mod publish;
pub(crate) mod registry;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use clients::ClientCounts;
use pause::Pauses;

use crate::balance::Balancer;
use crate::model::address::{BindAddress, SocketAddress};
use crate::model::backend::Backend;
use crate::model::cluster::ClusterState;
use crate::model::page::ErrorPages;
use crate::model::route_action::RouteAction;
use crate::model::settings::{
    ClusterSettings, ListenerLimits, ListenerTimeouts, Protocol, TrustedProxies,
};
use crate::route::table::Table;
use crate::telemetry::metrics::{BackendMetrics, ClusterMetrics, ListenerMetrics, RouteMetrics};
use crate::transport::listen::BoundSockets;

pub(crate) use cluster::Healthy;

/// One generation.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows by one with each publication.
    pub generation: u64,
    /// Listeners in the order of the file.
    pub listeners: Vec<Arc<Listener>>,
    /// Clusters in the order of the file; routes name them by [`ClusterIndex`].
    pub clusters: Vec<Arc<Cluster>>,
    /// What is no longer configured but still drains.
    pub departing: Departing,
    /// How long sessions of what was removed may go on.
    pub drain_timeout: Duration,
    /// Whether finished requests are written to the access log.
    pub access_log: bool,
    /// Whether it shows what follows `?` in targets and referers.
    pub access_query: bool,
}

/// The position of a cluster in [`Snapshot::clusters`]: means something in its own generation only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterIndex(u32);

impl ClusterIndex {
    /// The cluster at `position` of the configuration.
    pub fn new(position: usize) -> Self {
        // A configuration is at most 16 MiB, so there are not as many clusters.
        Self(u32::try_from(position).unwrap_or(u32::MAX))
    }
}

impl Snapshot {
    /// The cluster with this index, which must be of this generation.
    pub fn cluster(&self, index: ClusterIndex) -> &Arc<Cluster> {
        &self.clusters[index.0 as usize]
    }
}

/// Removed listeners and backends whose drain has not ended: their series are still shown.
#[derive(Debug, Default, Clone)]
pub struct Departing {
    /// Listeners.
    pub listeners: Vec<Arc<ListenerMetrics>>,
    /// Backends.
    pub endpoints: Vec<Endpoint>,
}

/// A bound address and what is done with what comes in.
#[derive(Debug)]
pub struct Listener {
    /// Name of metrics and log.
    pub name: Arc<str>,
    /// Address of the file.
    pub address: BindAddress,
    /// What is spoken.
    pub protocol: Protocol,
    /// The bound sockets, one for each worker; the same object while the listener stays.
    pub sockets: Arc<BoundSockets>,
    /// Timeouts.
    pub timeouts: ListenerTimeouts,
    /// Limits.
    pub limits: ListenerLimits,
    /// Networks whose X-Forwarded-* are believed.
    pub trusted_proxies: TrustedProxies,
    /// Whether requests and responses get a Via field.
    pub via: bool,
    /// Whether all responses carry X-Request-Id, and not the proxy's own alone.
    pub expose_request_id: bool,
    /// Rules of http listeners.
    pub routes: Table<RouteTarget>,
    /// The cluster that takes what no route takes.
    pub cluster: Option<ClusterIndex>,
    /// What is answered instead to what no route takes.
    pub answer: Option<RouteAction<ClusterIndex>>,
    /// Pages in the place of the proxy's own errors.
    pub errors: ErrorPages,
    /// Live state.
    pub state: Arc<ListenerState>,
    /// Counters.
    pub metrics: Arc<ListenerMetrics>,
}

/// Live state of a listener, shared by the workers.
#[derive(Debug, Default)]
pub struct ListenerState {
    /// Connections open now, of all workers.
    pub open: AtomicU32,
    /// Whether it is at its limit, so that reaching it is counted once.
    pub full: AtomicBool,
    /// Connections of each client, where they are limited.
    pub clients: ClientCounts,
    /// Whether it is accepting.
    pub pauses: Pauses,
    /// Whether the log has said that an untrusted peer sends forwarding fields.
    pub warned_untrusted: AtomicBool,
}

/// What a route does.
#[derive(Debug)]
pub struct RouteTarget {
    /// Name in the access log.
    pub name: Arc<str>,
    /// Counters, if the file names the route.
    pub metrics: Option<Arc<RouteMetrics>>,
    /// What is done with a request that matches.
    pub action: RouteAction<ClusterIndex>,
    /// Limit of the whole request.
    pub timeout: Option<Duration>,
    /// Request body; absent: the listener's limit.
    pub body_bytes: Option<u64>,
    /// Pages in the place of the proxy's own errors, before the listener's.
    pub errors: ErrorPages,
    /// Whether its requests are written to the access log.
    pub log: bool,
}

/// A named set of backends under one policy.
#[derive(Debug)]
pub struct Cluster {
    /// Name.
    pub name: Arc<str>,
    /// What the configuration says of it.
    pub settings: ClusterSettings,
    /// Backends, in the order of the balancer's backends.
    pub endpoints: Vec<Endpoint>,
    /// The picker.
    pub balancer: Balancer,
    /// Live state.
    pub state: Arc<ClusterState>,
    /// Counters.
    pub metrics: Arc<ClusterMetrics>,
}

/// A backend in one generation of its cluster.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Identity and live state.
    pub backend: Arc<Backend>,
    /// Counters.
    pub metrics: Arc<BackendMetrics>,
    /// Share of the traffic.
    pub weight: u32,
    /// Used only while no other is healthy.
    pub backup: bool,
    /// Where to connect to; `None` while the name has not been resolved.
    pub address: Option<SocketAddress>,
}
