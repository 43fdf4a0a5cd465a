//! One backend under health checks: its place in the newest generation, what is known about it, and the code that
//! writes its health bits and its note.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::probe::{ProbeFailure, ProbeSuccess};
use super::state::{CheckState, Transition, TrialAction, TrialState};
use crate::model::backend::{Backend, Doubt};
use crate::model::health::Health;
use crate::model::settings::Check;
use crate::snapshot::{Cluster, Endpoint};

const REFUSED_NOTE: &str = "connection refused under live traffic";
const UNRESOLVED_NOTE: &str = "name not resolved";
const UNCHECKED_NOTE: &str = "not checked yet";
const UP_NOTE: &str = "up";

/// How the health of a backend is monitored.
#[derive(Debug)]
enum Monitoring {
    /// Its cluster has a check.
    Checks(CheckState),
    /// Its cluster has no check, so live requests try it after it refused one.
    Trials(TrialState),
}

/// A backend of the newest snapshot.
#[derive(Debug)]
pub(super) struct MonitoredBackend {
    cluster: Arc<Cluster>,
    index: usize,
    monitoring: Monitoring,
    /// Whether it is up, as last logged; `None` before the first check result of one that the peer set added.
    up: Option<bool>,
    /// The running probe, and when it started.
    pub(super) probe: Option<(AbortHandle, Instant)>,
}

impl MonitoredBackend {
    /// Starts monitoring the endpoint at `index` of `cluster`. Its health bits and note may be from earlier, if it was
    /// in the cluster before.
    pub(super) fn new(cluster: &Arc<Cluster>, index: usize) -> Self {
        let mut monitored = Self {
            cluster: cluster.clone(),
            index,
            monitoring: Monitoring::Trials(TrialState::default()),
            up: Some(true),
            probe: None,
        };
        monitored.start_monitoring();
        monitored.up = (!monitored.is_joining()).then_some(true);
        monitored.update_resolution();
        monitored
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.cluster.endpoints[self.index]
    }

    pub(super) fn backend(&self) -> &Arc<Backend> {
        &self.endpoint().backend
    }

    pub(super) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Whether its first check result is outstanding.
    pub(super) fn is_joining(&self) -> bool {
        self.backend().health().is_joining()
    }

    /// The check, if there is one and the backend has an address.
    pub(super) fn check(&self) -> Option<&Check> {
        let has_address = self.endpoint().address.is_some();
        self.cluster.settings.check.as_ref().filter(|_| has_address)
    }

    /// When its trials need [`Self::update`].
    pub(super) fn trial_due(&self) -> Option<Instant> {
        match &self.monitoring {
            Monitoring::Trials(trials) => trials.due(),
            Monitoring::Checks(_) => None,
        }
    }

    /// Follows a newer generation, in which it is at `index`. Returns whether its probes start again.
    pub(super) fn follow(&mut self, cluster: &Arc<Cluster>, index: usize) -> bool {
        let previous = std::mem::replace(&mut self.cluster, cluster.clone());
        let was_resolved = previous.endpoints[self.index].address.is_some();
        self.index = index;
        let mut changed = previous.settings.check != cluster.settings.check;
        if changed {
            self.stop_probe();
            self.start_monitoring();
        }
        // It left and returned, and the generation in between was skipped here.
        if self.is_joining()
            && matches!(&self.monitoring, Monitoring::Checks(state) if !state.is_down())
        {
            self.stop_probe();
            self.monitoring = Monitoring::Checks(CheckState::new(true));
            self.up = None;
            changed = true;
        }
        self.update_resolution();
        if self.check().is_none() {
            self.stop_probe();
        }
        changed || was_resolved == self.endpoint().address.is_none()
    }

    /// Stops the running probe, if there is one.
    pub(super) fn stop_probe(&mut self) {
        if let Some((probe, _)) = self.probe.take() {
            probe.abort();
        }
    }

    /// Starts the kind of monitoring that the cluster wants now; the health so far is kept where it still applies.
    fn start_monitoring(&mut self) {
        let backend = self.backend().clone();
        if self.cluster.settings.check.is_some() {
            if let Monitoring::Checks(state) = &mut self.monitoring {
                state.restart();
                return;
            }
            let down = backend.health().is_down();
            if down {
                backend.set_health(Health::CHECK_DOWN);
            } else {
                backend.set_note(UNCHECKED_NOTE);
            }
            backend.clear_health(Health::TRIAL);
            self.monitoring = Monitoring::Checks(CheckState::new(down));
        } else {
            backend.clear_health(Health::CHECK_DOWN | Health::JOINING);
            let refused = backend.health().is_refused();
            backend.set_note(if refused { REFUSED_NOTE } else { UP_NOTE });
            self.monitoring = Monitoring::Trials(TrialState::default());
        }
    }

    /// Sets or clears [`Health::UNRESOLVED`].
    fn update_resolution(&mut self) {
        let backend = self.backend();
        if self.endpoint().address.is_none() {
            backend.set_health(Health::UNRESOLVED);
            backend.set_note(UNRESOLVED_NOTE);
            return;
        }
        backend.clear_health(Health::UNRESOLVED);
        if backend.note().reason == UNRESOLVED_NOTE {
            backend.set_note(match &self.monitoring {
                Monitoring::Checks(_) => UNCHECKED_NOTE,
                Monitoring::Trials(_) => UP_NOTE,
            });
        }
    }

    /// Processes what workers reported, and grants a trial if one is due.
    pub(super) fn update(&mut self, now: Instant) {
        let cluster = self.cluster.clone();
        let backend = &cluster.endpoints[self.index].backend;
        let reported = backend.take_report();
        let health = backend.health();
        match &mut self.monitoring {
            // The bit may be visible before the report, and the report may arrive after a probe has cleared the bit. A
            // backend that is joining gets traffic only in panic mode; a refused connection is then its first result.
            Monitoring::Checks(state) if reported && health.is_joining() => {
                state.refused();
                backend.clear_health(Health::JOINING);
                backend.set_note(REFUSED_NOTE);
            }
            Monitoring::Checks(state) if reported || (health.is_refused() && !state.is_down()) => {
                backend.set_health(Health::CHECK_DOWN);
                if state.refused() == Some(Transition::Down) {
                    backend.set_note(REFUSED_NOTE);
                }
            }
            Monitoring::Checks(_) => {}
            Monitoring::Trials(trials) if !health.is_refused() => {
                if !trials.is_quiet() {
                    trials.recovered();
                    backend.set_note(UP_NOTE);
                }
            }
            Monitoring::Trials(trials) => {
                if reported || trials.is_quiet() {
                    backend.set_note(REFUSED_NOTE);
                    trials.refused(now, health.contains(Health::TRIAL));
                }
                match trials.tick(now, health.contains(Health::TRIAL)) {
                    Some(TrialAction::Grant) => grant(backend, &cluster),
                    Some(TrialAction::Remind) => cluster.state.set_trials(true),
                    None => {}
                }
            }
        }
    }

    /// Records what a probe found; one that failed for lack of local resources found nothing.
    pub(super) fn record(&mut self, result: Result<ProbeSuccess, ProbeFailure>, now: Instant) {
        self.update(now);
        if matches!(&result, Err(failed) if failed.is_local()) {
            return;
        }
        let cluster = self.cluster.clone();
        let backend = &cluster.endpoints[self.index].backend;
        let (Monitoring::Checks(state), Some(check)) =
            (&mut self.monitoring, &cluster.settings.check)
        else {
            return;
        };
        let was_down = state.is_down();
        // If the peer set doubts it too, one failure is enough.
        let doubted = backend.doubt() != Doubt::None;
        let fall = if doubted { 1 } else { check.fall };
        if result.is_ok() {
            backend.answer_doubt();
        }
        match result {
            Ok(passed) => match state.passed(check.rise) {
                Some(_) => {
                    backend.clear_health(
                        Health::CHECK_DOWN | Health::REFUSED | Health::TRIAL | Health::JOINING,
                    );
                    backend.set_note(format!("check passed: {passed}"));
                }
                None if !was_down => backend.amend_note(format!("check passed: {passed}")),
                None => {}
            },
            Err(failed) => match state.failed(fall) {
                Some(_) => {
                    backend.set_health(Health::CHECK_DOWN);
                    backend.set_note(format!("check failed: {failed}"));
                }
                None if backend.clear_health(Health::JOINING).is_joining() => {
                    backend.set_note(format!("check failed: {failed}"));
                }
                None if was_down => backend.amend_note(format!("check failed: {failed}")),
                None => {}
            },
        }
    }

    /// Logs a change of its health, once. Returns whether it is up now, or `None` if nothing changed.
    pub(super) fn log_transition(&mut self) -> Option<bool> {
        let backend = self.backend();
        let up = backend.is_healthy();
        if Some(up) == self.up || self.is_joining() {
            return None;
        }
        let (cluster, label, reason) = (backend.cluster(), backend.label(), backend.note().reason);
        if up {
            info!(%cluster, backend = %label, %reason, "backend is up");
        } else {
            warn!(%cluster, backend = %label, %reason, "backend is down");
        }
        self.up = Some(up);
        Some(up)
    }
}

fn grant(backend: &Backend, cluster: &Cluster) {
    backend.set_health(Health::TRIAL);
    cluster.state.set_trials(true);
    // A worker may have connected since the health was read; the trial bit alone would then exclude the backend.
    if !backend.health().is_refused() {
        backend.clear_health(Health::TRIAL);
    }
}
