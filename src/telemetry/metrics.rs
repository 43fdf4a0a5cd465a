//! The sheets of listeners, named routes, clusters and backends: one for each worker, under the labels of the thing counted.
//!
//! They belong to the identity of the thing, so they outlive generations; the last generation that knows a
//! backend takes its series along.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::counters::{CodeCounters, Counter, Counters, Histogram};
use super::outcome::{BackendError, Reason, RetryReason};
use super::seldom::Seldom;

/// What one worker counts of one listener.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct ListenerSheet {
    /// Connections accepted.
    pub connections: Counter,
    /// Connections ended; accepted minus ended are active.
    pub connections_ended: Counter,
    /// Answers by status code.
    pub requests: CodeCounters,
    /// Request head complete to answer sent.
    pub duration: Histogram,
    /// Bytes from clients.
    pub bytes_in: Counter,
    /// Bytes to clients.
    pub bytes_out: Counter,
    /// What the proxy refused or answered itself, by reason.
    pub rejected: Counters<{ Reason::ALL.len() }>,
}

/// The sheets of one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    /// Label `listener`.
    pub name: Arc<str>,
    sheets: Box<[OnceLock<Box<ListenerSheet>>]>,
}

impl ListenerMetrics {
    /// Empty sheets for `workers` workers.
    pub fn new(name: Arc<str>, workers: usize) -> Self {
        Self {
            name,
            sheets: empty(workers),
        }
    }

    /// The sheet of one worker, made on first use.
    pub fn sheet(&self, worker: usize) -> &ListenerSheet {
        self.sheets[worker].get_or_init(Box::default)
    }

    /// The sheets in use.
    pub fn sheets(&self) -> impl Iterator<Item = &ListenerSheet> {
        self.sheets.iter().filter_map(|s| s.get().map(|b| &**b))
    }

    /// Connections open now.
    pub fn active(&self) -> u64 {
        let (mut begun, mut ended) = (0u64, 0u64);
        for sheet in self.sheets() {
            // The end is read first, so that a connection that ends in between counts as open, not as negative.
            ended += sheet.connections_ended.get();
            begun += sheet.connections.get();
        }
        begun.saturating_sub(ended)
    }
}

/// What one worker counts of the routes of one name.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct RouteSheet {
    /// Answers by status code.
    pub requests: CodeCounters,
}

/// The sheets of the routes of one name.
#[derive(Debug)]
pub struct RouteMetrics {
    /// Label `route`.
    pub name: Arc<str>,
    sheets: Box<[OnceLock<Box<RouteSheet>>]>,
}

impl RouteMetrics {
    /// Empty sheets for `workers` workers.
    pub fn new(name: Arc<str>, workers: usize) -> Self {
        Self {
            name,
            sheets: empty(workers),
        }
    }

    /// The sheet of one worker, made on first use.
    pub fn sheet(&self, worker: usize) -> &RouteSheet {
        self.sheets[worker].get_or_init(Box::default)
    }

    /// The sheets in use.
    pub fn sheets(&self) -> impl Iterator<Item = &RouteSheet> {
        self.sheets.iter().filter_map(|s| s.get().map(|b| &**b))
    }
}

/// What one worker counts of one cluster.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct ClusterSheet {
    /// Requests that were tried once more, by reason.
    pub retries: Counters<{ RetryReason::ALL.len() }>,
}

/// The sheets of one cluster.
#[derive(Debug)]
pub struct ClusterMetrics {
    /// Label `cluster`.
    pub name: Arc<str>,
    sheets: Box<[OnceLock<Box<ClusterSheet>>]>,
}

impl ClusterMetrics {
    /// Empty sheets for `workers` workers.
    pub fn new(name: Arc<str>, workers: usize) -> Self {
        Self {
            name,
            sheets: empty(workers),
        }
    }

    /// The sheet of one worker, made on first use.
    pub fn sheet(&self, worker: usize) -> &ClusterSheet {
        self.sheets[worker].get_or_init(Box::default)
    }

    /// The sheets in use.
    pub fn sheets(&self) -> impl Iterator<Item = &ClusterSheet> {
        self.sheets.iter().filter_map(|s| s.get().map(|b| &**b))
    }
}

/// What one worker counts of one backend.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct BackendSheet {
    /// Answers by status code.
    pub requests: CodeCounters,
    /// Request sent to response head.
    pub response: Histogram,
    /// Connections opened.
    pub connections: Counter,
    /// Failures that were the backend's, by reason.
    pub errors: Counters<{ BackendError::ALL.len() }>,
}

/// The sheets of one backend.
#[derive(Debug)]
pub struct BackendMetrics {
    /// Label `cluster`.
    pub cluster: Arc<str>,
    /// Label `backend`.
    pub backend: Arc<str>,
    /// How often the log tells of a response of it that was refused.
    pub refusals: Seldom,
    sheets: Box<[OnceLock<Box<BackendSheet>>]>,
}

impl BackendMetrics {
    /// Empty sheets for `workers` workers.
    pub fn new(cluster: Arc<str>, backend: Arc<str>, workers: usize) -> Self {
        Self {
            cluster,
            backend,
            refusals: Seldom::new(Duration::from_secs(10)),
            sheets: empty(workers),
        }
    }

    /// The sheet of one worker, made on first use.
    pub fn sheet(&self, worker: usize) -> &BackendSheet {
        self.sheets[worker].get_or_init(Box::default)
    }

    /// The sheets in use.
    pub fn sheets(&self) -> impl Iterator<Item = &BackendSheet> {
        self.sheets.iter().filter_map(|s| s.get().map(|b| &**b))
    }
}

/// What the process counts beside the traffic; written by the control plane and by the log writer, and by a
/// worker that drops a log line.
#[derive(Debug, Default)]
pub(crate) struct ProcessMetrics {
    /// Access-log lines that found the queue full.
    pub access_log_dropped: SharedCounter,
    /// Events of the proxy itself that found their queue full.
    pub events_dropped: SharedCounter,
    /// Tasks that ended in a panic.
    pub panics: SharedCounter,
    /// Files applied, the first included.
    pub config_generation: SharedCounter,
    /// Reloads that were applied.
    pub reloads_ok: SharedCounter,
    /// Reloads that were refused.
    pub reloads_rejected: SharedCounter,
    /// 1 if the last reload (or the start) was applied, else 0.
    pub last_reload_success: std::sync::atomic::AtomicBool,
    /// How the members of the peer set are used.
    pub peer_set: PeerSetMetrics,
}

/// How what the peer set proposes is used.
#[derive(Debug, Default)]
pub(crate) struct PeerSetMetrics {
    /// Whether the last good set still stands in for the real one.
    pub stale: std::sync::atomic::AtomicBool,
    refused: std::sync::Mutex<Vec<(&'static str, u64)>>,
}

impl PeerSetMetrics {
    /// Records that are not used, by reason.
    pub(crate) fn refused(&self) -> Vec<(&'static str, u64)> {
        let refused = self.refused.lock();
        refused
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Says how many were not used so far.
    pub(crate) fn set_refused(&self, counts: impl IntoIterator<Item = (&'static str, u64)>) {
        let refused = self.refused.lock();
        let mut refused = refused.unwrap_or_else(std::sync::PoisonError::into_inner);
        refused.clear();
        refused.extend(counts);
    }
}

/// A counter that several threads add to; for what is rare.
#[derive(Debug, Default)]
pub(crate) struct SharedCounter(std::sync::atomic::AtomicU64);

impl SharedCounter {
    /// Adds.
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
    }

    /// The number so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

fn empty<T>(workers: usize) -> Box<[OnceLock<Box<T>>]> {
    (0..workers).map(|_| OnceLock::new()).collect()
}
