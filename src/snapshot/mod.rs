//! L2: the immutable view of listeners, routes, clusters and backends that both planes share.
//!
//! One writer (the control plane) builds the next [`Snapshot`] from the current one and publishes it
//! ([`publish::Publisher`]); a worker keeps the one that it works with and looks for a newer one between requests.
//! Clusters that did not change are shared between generations. The last reference is dropped by the control plane,
//! never by a worker.

mod cluster;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod pause;
pub(crate) mod publish;
pub(crate) mod registry;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pause::Pauses;

use crate::balance::Balancer;
use crate::limit::connections::Connections;
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
use crate::telemetry::outcome::AttemptOutcome;
use crate::transport::listen::BoundSockets;

pub(crate) use cluster::Healthy;

/// One generation of the configuration with its live state.
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
    /// How long sessions of removed listeners and backends may continue.
    pub drain_timeout: Duration,
    /// Whether finished requests are written to the access log.
    pub access_log: bool,
    /// Whether the access log shows what follows `?` in targets and referers.
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

/// Removed listeners and backends whose drain has not ended; metrics and status still show them.
#[derive(Debug, Default, Clone)]
pub struct Departing {
    /// The counters of removed listeners.
    pub listeners: Vec<Arc<ListenerMetrics>>,
    /// Removed backends.
    pub endpoints: Vec<Endpoint>,
}

/// A bound address and what is done with its connections.
#[derive(Debug)]
pub struct Listener {
    /// Name in metrics and logs.
    pub name: Arc<str>,
    /// Address as the file writes it.
    pub address: BindAddress,
    /// The protocol of its connections, and what that needs.
    pub kind: ListenerKind,
    /// The bound sockets, one for each worker; the same object in every generation that has the listener.
    pub sockets: Arc<BoundSockets>,
    /// How long clients may take.
    pub timeouts: ListenerTimeouts,
    /// How much clients may send, and how many there may be.
    pub limits: ListenerLimits,
    /// Networks whose X-Forwarded-* are believed.
    pub trusted_proxies: TrustedProxies,
    /// Live state, shared by all generations.
    pub state: Arc<ListenerState>,
    /// Counters, shared by all generations.
    pub metrics: Arc<ListenerMetrics>,
}

/// What a listener speaks.
#[derive(Debug)]
pub enum ListenerKind {
    /// HTTP.
    Http(HttpListener),
    /// Bytes.
    Tcp(TcpListener),
}

impl ListenerKind {
    /// Its name in the configuration.
    pub(crate) fn protocol(&self) -> Protocol {
        match self {
            Self::Http(_) => Protocol::Http,
            Self::Tcp(_) => Protocol::Tcp,
        }
    }
}

/// What an http listener does with requests.
#[derive(Debug)]
pub struct HttpListener {
    /// Whether requests and responses get a Via field.
    pub via: bool,
    /// Whether all responses carry X-Request-Id, and not the proxy's own alone.
    pub expose_request_id: bool,
    /// Its routes.
    pub routes: Arc<Table<RouteTarget>>,
    /// What is done with a request that no route takes; `None`: it gets a 404.
    pub fallback: Option<RouteAction<ClusterIndex>>,
    /// Pages in the place of the proxy's own errors.
    pub errors: ErrorPages,
}

/// What a tcp listener does with sessions.
#[derive(Debug)]
pub struct TcpListener {
    /// The cluster that they go to.
    pub cluster: Option<ClusterIndex>,
}

/// Live state of a listener, shared by the workers.
#[derive(Debug, Default)]
pub struct ListenerState {
    /// Open connections, of all workers.
    pub connections: Arc<Connections>,
    /// Whether it has paused accepting.
    pub pauses: Pauses,
    /// Whether the log has warned that an untrusted peer sends forwarding fields.
    pub warned_untrusted: AtomicBool,
}

/// What a route does with the requests that match.
#[derive(Debug)]
pub struct RouteTarget {
    /// Name in the access log.
    pub name: Arc<str>,
    /// Counters, if the file names the route.
    pub metrics: Option<Arc<RouteMetrics>>,
    /// What is done with a request.
    pub action: RouteAction<ClusterIndex>,
    /// Limit of the whole request.
    pub timeout: Option<Duration>,
    /// Most bytes of a request body; `None`: the listener's limit.
    pub body_bytes: Option<u64>,
    /// Pages that replace the proxy's own error responses, before those of the listener.
    pub errors: ErrorPages,
    /// Whether its requests are written to the access log.
    pub log: bool,
}

/// A named set of backends under one policy.
#[derive(Debug)]
pub struct Cluster {
    /// Name in the configuration, metrics and logs.
    pub name: Arc<str>,
    /// Settings as they are configured.
    pub settings: ClusterSettings,
    /// Backends, in the order of the balancer.
    pub endpoints: Vec<Endpoint>,
    /// Picks an endpoint for a request.
    pub balancer: Balancer,
    /// Live state, shared by all generations.
    pub state: Arc<ClusterState>,
    /// Counters, shared by all generations.
    pub metrics: Arc<ClusterMetrics>,
}

impl Endpoint {
    /// Takes how an attempt on it ended, on the sheet of `worker`.
    pub(crate) fn observe(&self, attempt: &AttemptOutcome, worker: usize) {
        let sheet = self.metrics.sheet(worker);
        if let Some(status) = attempt.status {
            sheet.requests.increment(status);
        }
        if let Some(time) = attempt.response {
            sheet.response.observe(time);
        }
        if let Some(error) = attempt.error {
            sheet.errors[error.index()].increment();
        }
    }
}

/// A backend as one generation configures it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Identity and live state.
    pub backend: Arc<Backend>,
    /// Counters, shared by all generations.
    pub metrics: Arc<BackendMetrics>,
    /// Share of the traffic, in relation to the other endpoints; 0 to 1000.
    pub weight: u32,
    /// Used only while no endpoint without this is healthy.
    pub backup: bool,
    /// Where to connect to; `None` while the name has not been resolved.
    pub address: Option<SocketAddress>,
}
