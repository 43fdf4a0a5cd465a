//! The state of the health task: which backends and clusters are monitored, and which probe or trial is due when.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::SessionOrderSink;
use super::backend::MonitoredBackend;
use super::cluster::MonitoredCluster;
use super::probe::{ProbeFailure, probe};
use super::probe_queue::{FinishedProbe, ProbeQueue};
use crate::model::backend::BackendId;
use crate::model::settings::OnDown;
use crate::model::timer_queue::KeyedTimerQueue;
use crate::snapshot::publish::SessionOrder;
use crate::snapshot::{Cluster, Snapshot};
use crate::telemetry::outcome::Reason;

/// The first probe of a backend starts within this time (or the interval, if that is shorter).
const FIRST_PROBE_WITHIN: Duration = Duration::from_secs(1);
/// The same for a backend that the peer set adds, which gets no traffic before its first check result.
const JOINING_PROBE_WITHIN: Duration = Duration::from_millis(100);
/// The interval of the probes of such a backend until its first check result, if the interval of the check is longer.
const JOINING_INTERVAL: Duration = Duration::from_millis(500);
/// Share of the interval by which a probe may come early or late, so that probes do not run at the same time.
const JITTER: f64 = 0.05;

/// Everything that the health task owns.
pub(super) struct Checker {
    clusters: HashMap<Arc<str>, MonitoredCluster>,
    backends: HashMap<BackendId, MonitoredBackend>,
    timers: KeyedTimerQueue<Instant, BackendId>,
    probes: ProbeQueue,
    /// Whether the proxy itself cannot connect, as last logged.
    cannot_connect: bool,
    /// Setting of the newest snapshot.
    drain_timeout: Duration,
    /// Backends that went up (`true`) or down since [`Self::apply_changes`].
    transitions: Vec<(BackendId, bool)>,
    orders: SessionOrderSink,
}

impl Checker {
    /// Starts without backends. At most `max_probes` run at a time.
    pub(super) fn new(max_probes: usize, orders: SessionOrderSink) -> Self {
        Self {
            clusters: HashMap::new(),
            backends: HashMap::new(),
            timers: KeyedTimerQueue::default(),
            probes: ProbeQueue::new(max_probes),
            cannot_connect: false,
            drain_timeout: Duration::ZERO,
            transitions: Vec::new(),
            orders,
        }
    }

    /// Follows a newer snapshot. O(backends of the clusters that changed).
    pub(super) fn follow(&mut self, snapshot: &Snapshot, now: Instant) {
        self.drain_timeout = snapshot.drain_timeout;
        for cluster in &snapshot.clusters {
            match self.clusters.get(&cluster.name) {
                Some(known) if Arc::ptr_eq(&known.cluster, cluster) => {}
                _ => self.follow_cluster(cluster, now),
            }
        }
        if self.clusters.len() > snapshot.clusters.len() {
            let present: HashSet<&Arc<str>> = snapshot.clusters.iter().map(|c| &c.name).collect();
            let removed: Vec<_> = self
                .clusters
                .extract_if(|name, _| !present.contains(name))
                .collect();
            for (_, removed) in removed {
                let ids = removed.cluster.endpoints.iter().map(|e| e.backend.id());
                self.forget(ids, now);
            }
        }
    }

    fn follow_cluster(&mut self, cluster: &Arc<Cluster>, now: Instant) {
        let previous = self.clusters.remove(&cluster.name);
        let next = MonitoredCluster::new(cluster.clone(), previous.as_ref());
        self.clusters.insert(cluster.name.clone(), next);
        for (index, endpoint) in cluster.endpoints.iter().enumerate() {
            let id = endpoint.backend.id();
            let restarts = match self.backends.get_mut(&id) {
                Some(backend) => backend.follow(cluster, index),
                None => {
                    let backend = MonitoredBackend::new(cluster, index);
                    self.backends.insert(id, backend);
                    true
                }
            };
            if restarts {
                self.schedule_first(id, now);
            }
        }
        let Some(previous) = previous else { return };
        let present: HashSet<BackendId> =
            cluster.endpoints.iter().map(|e| e.backend.id()).collect();
        let known = previous.cluster.endpoints.iter().map(|e| e.backend.id());
        self.forget(known.filter(|id| !present.contains(id)), now);
    }

    /// Stops monitoring backends. One may have gone down unnoticed, for example when a worker's report makes the
    /// control plane move a name to its next address; then its sessions end like those of any backend that goes down.
    fn forget(&mut self, ids: impl Iterator<Item = BackendId>, now: Instant) {
        for id in ids {
            self.timers.cancel(id);
            let Some(mut backend) = self.backends.remove(&id) else {
                continue;
            };
            backend.stop_probe();
            backend.update(now);
            if backend.log_transition() == Some(false)
                && let Some(order) = session_order(&backend, false, self.drain_timeout)
            {
                (self.orders)(order);
            }
        }
    }

    /// Schedules the first probe of a backend that is new, got an address or has another check; or its next trial.
    fn schedule_first(&mut self, id: BackendId, now: Instant) {
        let Some(backend) = self.backends.get_mut(&id) else {
            return;
        };
        backend.update(now);
        match backend.check().map(|check| check.interval) {
            Some(interval) => {
                let limit = if backend.is_joining() {
                    JOINING_PROBE_WITHIN
                } else {
                    FIRST_PROBE_WITHIN
                };
                let within = interval.min(limit);
                self.timers.set(id, now + within.mul_f64(fastrand::f64()));
            }
            None => schedule_trial(&mut self.timers, id, backend),
        }
    }

    /// When the next probe or trial is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.timers.next_due()
    }

    /// Reads what workers reported and what the peer set doubts, for every backend: a few atomic loads each.
    pub(super) fn update_all(&mut self, now: Instant) {
        for (&id, backend) in &mut self.backends {
            if backend.backend().take_doubt() && backend.check().is_some() {
                // A running probe started before the doubt, so its result does not count.
                backend.stop_probe();
                self.timers.set(id, now);
            }
            backend.update(now);
            self.transitions
                .extend(backend.log_transition().map(|up| (id, up)));
            if backend.cluster().settings.check.is_none() {
                schedule_trial(&mut self.timers, id, backend);
            }
        }
        for cluster in self.clusters.values_mut() {
            cluster.mark_dirty();
        }
    }

    /// Waits until at least one probe has ended; forever if none runs. Cancel-safe.
    pub(super) async fn finished_probes(&mut self) {
        self.probes.wait().await;
    }

    /// Processes the probes that have ended, and starts those that are due.
    pub(super) fn run_due(&mut self, now: Instant) {
        for finished in self.probes.take_finished() {
            self.record(finished, now);
        }
        while let Some((id, due)) = self.timers.pop_due(now) {
            let Some(backend) = self.backends.get_mut(&id) else {
                continue;
            };
            if backend.check().is_some() {
                self.probes.enqueue(id, due);
            } else {
                backend.update(now);
                schedule_trial(&mut self.timers, id, backend);
                self.note_transition(id);
            }
        }
        while let Some((id, due)) = self.probes.dequeue() {
            self.start(id, due, now);
        }
    }

    fn start(&mut self, id: BackendId, due: Instant, now: Instant) {
        let Some(backend) = self.backends.get_mut(&id) else {
            return;
        };
        let (Some(interval), None) = (backend.check().map(|c| c.interval), &backend.probe) else {
            return;
        };
        let (cluster, index) = (backend.cluster().clone(), backend.index());
        let run = async move {
            let endpoint = &cluster.endpoints[index];
            match &cluster.settings.check {
                Some(check) => {
                    probe(check, endpoint.address.as_slice(), endpoint.backend.host()).await
                }
                None => Err(ProbeFailure::NoAddress),
            }
        };
        let waited = now.duration_since(due);
        backend.probe = Some((self.probes.start(id, waited, interval, run), now));
    }

    fn record(&mut self, finished: FinishedProbe, now: Instant) {
        let FinishedProbe {
            task,
            backend: id,
            result,
        } = finished;
        let Some(backend) = self.backends.get_mut(&id) else {
            return;
        };
        // A probe that was stopped is no longer that of its backend.
        let Some((_, started)) = backend.probe.take_if(|(handle, _)| handle.id() == task) else {
            return;
        };
        match &result {
            Err(ProbeFailure::Local(error)) if !self.cannot_connect => {
                self.cannot_connect = true;
                warn!(%error, "health checks cannot connect; backends keep their state");
            }
            Err(ProbeFailure::Local(_)) => {}
            _ if self.cannot_connect => {
                self.cannot_connect = false;
                info!("health checks connect again");
            }
            _ => {}
        }
        backend.record(result, now);
        if let Some(check) = backend.check() {
            let jitter = 1.0 + JITTER * (2.0 * fastrand::f64() - 1.0);
            let interval = if backend.is_joining() {
                check.interval.min(JOINING_INTERVAL)
            } else {
                check.interval
            };
            let next = started + interval.mul_f64(jitter);
            self.timers.set(id, next.max(now));
        }
        self.note_transition(id);
    }

    /// Logs and notes a change of a backend's health, if there was one.
    fn note_transition(&mut self, id: BackendId) {
        let Some(backend) = self.backends.get_mut(&id) else {
            return;
        };
        let Some(up) = backend.log_transition() else {
            return;
        };
        self.transitions.push((id, up));
        if let Some(cluster) = self.clusters.get_mut(&backend.cluster().name) {
            cluster.mark_dirty();
        }
    }

    /// Applies what the last batch changed: orders for sessions, and the standby and panic flags.
    pub(super) fn apply_changes(&mut self) {
        for (id, up) in std::mem::take(&mut self.transitions) {
            let backend = self.backends.get(&id);
            if let Some(order) = backend.and_then(|b| session_order(b, up, self.drain_timeout)) {
                (self.orders)(order);
            }
        }
        for cluster in self.clusters.values_mut() {
            cluster.update(&self.orders);
        }
    }
}

/// The order for the sessions of a backend that went up or down, as `on_down` says.
fn session_order(
    monitored: &MonitoredBackend,
    up: bool,
    drain_timeout: Duration,
) -> Option<SessionOrder> {
    let backend = monitored.backend();
    let after = match (monitored.cluster().settings.on_down, up) {
        (OnDown::Keep, _) | (OnDown::Close, true) => return None,
        (OnDown::Close, false) => Some(Duration::ZERO),
        (OnDown::Drain, false) => Some(drain_timeout),
        (OnDown::Drain, true) => None,
    };
    // A backend that is down only because it has no address has no sessions either.
    (up || backend.health().is_down()).then(|| SessionOrder {
        backend: backend.id(),
        after,
        why: Reason::BackendDown,
    })
}

fn schedule_trial(
    timers: &mut KeyedTimerQueue<Instant, BackendId>,
    id: BackendId,
    backend: &MonitoredBackend,
) {
    match backend.trial_due() {
        Some(due) => timers.set(id, due),
        None => timers.cancel(id),
    }
}
