//! The page `/api/v1/status`, as JSON: the names here are the interface.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::members::GossipStatus;
use super::state::AdminState;
use crate::gossip::view::Report;
use crate::model::health::Health;
use crate::snapshot::{Cluster, Endpoint, Listener, Snapshot};
use crate::telemetry::counters::{CodeCounters, HistogramTotal};
use crate::telemetry::metrics::{BackendMetrics, ListenerMetrics};
use crate::telemetry::outcome::BackendError;

/// The whole page.
#[derive(Debug, Serialize)]
pub(crate) struct StatusPage<'a> {
    version: &'static str,
    pid: u32,
    started: String,
    uptime_seconds: u64,
    /// Configurations that were applied.
    generation: u64,
    /// Snapshots that were published.
    snapshot: u64,
    readiness: &'static str,
    workers: usize,
    listeners: Vec<ListenerStatus<'a>>,
    clusters: Vec<ClusterStatus<'a>>,
    departing: DepartingStatus<'a>,
    /// Absent while there is no peer set.
    #[serde(skip_serializing_if = "Option::is_none")]
    gossip: Option<GossipStatus<'a>>,
}

#[derive(Debug, Serialize)]
struct ListenerStatus<'a> {
    name: &'a str,
    /// The first of `addresses`.
    address: String,
    /// As the file writes them, each beside the one of `bound` at the same index.
    addresses: Vec<String>,
    bound: Vec<String>,
    protocol: &'static str,
    connections_active: u64,
    connections_total: u64,
    requests_total: u64,
}

#[derive(Debug, Serialize)]
struct ClusterStatus<'a> {
    name: &'a str,
    policy: &'static str,
    panic: bool,
    /// Whether the backups keep all new traffic (`on_up = "stay"`).
    standby: bool,
    backends: Vec<BackendStatus<'a>>,
}

#[derive(Debug, Serialize)]
struct BackendStatus<'a> {
    address: &'a str,
    weight: u32,
    backup: bool,
    state: &'static str,
    reason: String,
    since: String,
    addresses: Vec<String>,
    in_flight: u32,
    requests_total: u64,
    connections_total: u64,
    errors_total: u64,
    /// From request sent to response head, over all requests; absent before the first, and in a tcp cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_p50_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_p99_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct DepartingStatus<'a> {
    listeners: Vec<DepartingListener<'a>>,
    backends: Vec<DepartingBackend<'a>>,
}

#[derive(Debug, Serialize)]
struct DepartingListener<'a> {
    name: &'a str,
    connections_active: u64,
}

#[derive(Debug, Serialize)]
struct DepartingBackend<'a> {
    cluster: &'a str,
    #[serde(flatten)]
    backend: BackendStatus<'a>,
}

impl<'a> StatusPage<'a> {
    /// The state of the process as `snapshot` and `report` show it; O(backends + members).
    pub(crate) fn of(
        state: &AdminState,
        snapshot: &'a Snapshot,
        report: Option<&'a Report>,
    ) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            started: time(state.started.time),
            uptime_seconds: state.started.clock.elapsed().as_secs(),
            generation: state.process.config_generation.get(),
            snapshot: snapshot.generation,
            readiness: state.readiness.get().as_str(),
            workers: state.workers,
            listeners: listeners(snapshot),
            clusters: snapshot.clusters.iter().map(cluster).collect(),
            departing: departing(snapshot),
            gossip: report.map(|report| GossipStatus::of(report, state.is_stale())),
        }
    }
}

/// Each listener with all of its addresses.
fn listeners(snapshot: &Snapshot) -> Vec<ListenerStatus<'_>> {
    let mut all: Vec<ListenerStatus<'_>> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for one in &snapshot.listeners {
        match known.get(&*one.name) {
            Some(place) => {
                all[*place].addresses.push(one.address.to_string());
                all[*place].bound.push(one.sockets.address().to_string());
            }
            None => {
                known.insert(&one.name, all.len());
                all.push(listener(one));
            }
        }
    }
    all
}

fn listener(listener: &Listener) -> ListenerStatus<'_> {
    let metrics: &ListenerMetrics = &listener.metrics;
    ListenerStatus {
        name: &listener.name,
        address: listener.address.to_string(),
        addresses: vec![listener.address.to_string()],
        bound: vec![listener.sockets.address().to_string()],
        protocol: listener.kind.protocol().as_str(),
        connections_active: metrics.active(),
        connections_total: metrics.sheets().map(|s| s.connections.get()).sum(),
        requests_total: metrics.sheets().map(|s| total(&s.requests)).sum(),
    }
}

fn cluster(cluster: &Arc<Cluster>) -> ClusterStatus<'_> {
    ClusterStatus {
        name: &cluster.name,
        policy: cluster.settings.policy.as_str(),
        panic: cluster.in_panic(),
        standby: cluster.state.on_standby(),
        backends: cluster.endpoints.iter().map(backend).collect(),
    }
}

/// The reason by the health bits alone, for the moment until the control plane has noted what a worker has found.
fn reason_of(health: Health) -> &'static str {
    match health {
        _ if health.is_healthy() => "up",
        _ if health.is_unresolved() => "name not resolved",
        _ if health.is_refused() => "connection refused under live traffic",
        _ => "check failed",
    }
}

fn backend(endpoint: &Endpoint) -> BackendStatus<'_> {
    let (backend, metrics): (_, &BackendMetrics) = (&endpoint.backend, &endpoint.metrics);
    let note = backend.note();
    let health = backend.health();
    let mut responses = HistogramTotal::default();
    metrics
        .sheets()
        .for_each(|s| s.response.add_to(&mut responses));
    BackendStatus {
        address: backend.label(),
        weight: endpoint.weight,
        backup: endpoint.backup,
        state: match health {
            _ if backend.has_departed() => "draining",
            _ if health.is_healthy() => "up",
            _ if health.is_unresolved() => "unresolved",
            _ => "down",
        },
        reason: if note.health == health {
            note.reason
        } else {
            reason_of(health).to_owned()
        },
        since: time(note.since),
        addresses: endpoint.address.iter().map(ToString::to_string).collect(),
        in_flight: backend.in_flight(),
        requests_total: metrics.sheets().map(|s| total(&s.requests)).sum(),
        connections_total: metrics.sheets().map(|s| s.connections.get()).sum(),
        errors_total: metrics
            .sheets()
            .flat_map(|s| BackendError::ALL.iter().map(|e| s.errors[e.index()].get()))
            .sum(),
        response_p50_seconds: responses.quantile(0.5),
        response_p99_seconds: responses.quantile(0.99),
    }
}

fn departing(snapshot: &Snapshot) -> DepartingStatus<'_> {
    let departing = &snapshot.departing;
    DepartingStatus {
        listeners: departing
            .listeners
            .iter()
            .map(|l| DepartingListener {
                name: &l.name,
                connections_active: l.active(),
            })
            .collect(),
        backends: departing
            .endpoints
            .iter()
            .map(|e| DepartingBackend {
                cluster: e.backend.cluster(),
                backend: backend(e),
            })
            .collect(),
    }
}

fn total(codes: &CodeCounters) -> u64 {
    let mut sum = 0;
    codes.for_each(|_, count| sum += count);
    sum
}

/// RFC 3339 in UTC, with milliseconds.
fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
