//! One member as the rounds see it: its place in the newest generation, what is known about it, and the only code
//! that writes its health bits and its note.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::probe::{Failed, Passed};
use super::state::{Change, CheckState, Deed, TrialState};
use crate::model::backend::{Backend, Doubt};
use crate::model::health::Health;
use crate::model::settings::Check;
use crate::snapshot::{Cluster, Endpoint};

const REFUSED_NOTE: &str = "connection refused under live traffic";
const UNRESOLVED_NOTE: &str = "name not resolved";
const UNCHECKED_NOTE: &str = "not checked yet";
const UP_NOTE: &str = "up";

/// How it is looked after.
#[derive(Debug)]
enum Care {
    Checked(CheckState),
    Trials(TrialState),
}

/// A member that is followed.
#[derive(Debug)]
pub(super) struct Member {
    cluster: Arc<Cluster>,
    place: usize,
    care: Care,
    /// As last written to the log; `None` before the first verdict on one that joins.
    up: Option<bool>,
    /// The probe that runs, and when it began.
    pub(super) probe: Option<(AbortHandle, Instant)>,
}

impl Member {
    /// The member at `place` of `cluster`, whose bits and note may be from an earlier membership.
    pub(super) fn new(cluster: &Arc<Cluster>, place: usize) -> Self {
        let mut member = Self {
            cluster: cluster.clone(),
            place,
            care: Care::Trials(TrialState::default()),
            up: Some(true),
            probe: None,
        };
        member.begin_care();
        member.up = (!member.joins()).then_some(true);
        member.resolved_or_not();
        member
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.cluster.endpoints[self.place]
    }

    pub(super) fn backend(&self) -> &Arc<Backend> {
        &self.endpoint().backend
    }

    pub(super) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    pub(super) fn place(&self) -> usize {
        self.place
    }

    /// Whether it waits for the first verdict of its check.
    pub(super) fn joins(&self) -> bool {
        self.backend().health().is_joining()
    }

    /// The check, if it has one and there is something to connect to.
    pub(super) fn check(&self) -> Option<&Check> {
        let has_address = self.endpoint().address.is_some();
        self.cluster.settings.check.as_ref().filter(|_| has_address)
    }

    /// When a trial needs care.
    pub(super) fn trial_due(&self) -> Option<Instant> {
        match &self.care {
            Care::Trials(trials) => trials.due(),
            Care::Checked(_) => None,
        }
    }

    /// Takes its place in a newer generation. True if its probes begin anew.
    pub(super) fn follow(&mut self, cluster: &Arc<Cluster>, place: usize) -> bool {
        let before = std::mem::replace(&mut self.cluster, cluster.clone());
        let was_resolved = before.endpoints[self.place].address.is_some();
        self.place = place;
        let mut changed = before.settings.check != cluster.settings.check;
        if changed {
            self.stop_probe();
            self.begin_care();
        }
        // It left and came back, and the generation between was never seen here.
        if self.joins() && matches!(&self.care, Care::Checked(state) if !state.is_down()) {
            self.stop_probe();
            self.care = Care::Checked(CheckState::new(true));
            self.up = None;
            changed = true;
        }
        self.resolved_or_not();
        if self.check().is_none() {
            self.stop_probe();
        }
        changed || was_resolved == self.endpoint().address.is_none()
    }

    /// Ends the probe that runs, if one does.
    pub(super) fn stop_probe(&mut self) {
        if let Some((probe, _)) = self.probe.take() {
            probe.abort();
        }
    }

    /// Begins with the care that the cluster asks for now; the health so far is kept where it still has a meaning.
    fn begin_care(&mut self) {
        let backend = self.backend().clone();
        if self.cluster.settings.check.is_some() {
            if let Care::Checked(state) = &mut self.care {
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
            self.care = Care::Checked(CheckState::new(down));
        } else {
            backend.clear_health(Health::CHECK_DOWN | Health::JOINING);
            let refused = backend.health().is_refused();
            backend.set_note(if refused { REFUSED_NOTE } else { UP_NOTE });
            self.care = Care::Trials(TrialState::default());
        }
    }

    fn resolved_or_not(&mut self) {
        let backend = self.backend();
        if self.endpoint().address.is_none() {
            backend.set_health(Health::UNRESOLVED);
            backend.set_note(UNRESOLVED_NOTE);
            return;
        }
        backend.clear_health(Health::UNRESOLVED);
        if backend.note().reason == UNRESOLVED_NOTE {
            backend.set_note(match &self.care {
                Care::Checked(_) => UNCHECKED_NOTE,
                Care::Trials(_) => UP_NOTE,
            });
        }
    }

    /// Looks at what workers reported, and at what time asks of its trials.
    pub(super) fn look(&mut self, now: Instant) {
        let cluster = self.cluster.clone();
        let backend = &cluster.endpoints[self.place].backend;
        let reported = backend.take_report();
        let health = backend.health();
        match &mut self.care {
            // A refusal may be seen before its report, and the report after a probe has already answered it.
            // One that joins gets no traffic but in a panic: that it is refused then is its first verdict.
            Care::Checked(state) if reported && health.is_joining() => {
                state.refused();
                backend.clear_health(Health::JOINING);
                backend.set_note(REFUSED_NOTE);
            }
            Care::Checked(state) if reported || (health.is_refused() && !state.is_down()) => {
                backend.set_health(Health::CHECK_DOWN);
                if state.refused() == Some(Change::Down) {
                    backend.set_note(REFUSED_NOTE);
                }
            }
            Care::Checked(_) => {}
            Care::Trials(trials) if !health.is_refused() => {
                if !trials.is_quiet() {
                    trials.recovered();
                    backend.set_note(UP_NOTE);
                }
            }
            Care::Trials(trials) => {
                if reported || trials.is_quiet() {
                    backend.set_note(REFUSED_NOTE);
                    trials.refused(now, health.contains(Health::TRIAL));
                }
                match trials.tick(now, health.contains(Health::TRIAL)) {
                    Some(Deed::Grant) => grant(backend, &cluster),
                    Some(Deed::Remind) => cluster.state.set_trials(true),
                    None => {}
                }
            }
        }
    }

    /// What a probe found; one that failed for a lack of ours found nothing.
    pub(super) fn judge(&mut self, result: Result<Passed, Failed>, now: Instant) {
        self.look(now);
        if matches!(&result, Err(failed) if failed.is_local()) {
            return;
        }
        let cluster = self.cluster.clone();
        let backend = &cluster.endpoints[self.place].backend;
        let (Care::Checked(state), Some(check)) = (&mut self.care, &cluster.settings.check) else {
            return;
        };
        let was_down = state.is_down();
        // The peer set speaks against it too.
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

    /// Writes a change of its health to the log, once. Whether it is up now, if there was one.
    pub(super) fn settle(&mut self) -> Option<bool> {
        let backend = self.backend();
        let up = backend.is_healthy();
        if Some(up) == self.up || self.joins() {
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
    // A worker may have been let in between the look and the grant; a bit alone would keep it out.
    if !backend.health().is_refused() {
        backend.clear_health(Health::TRIAL);
    }
}
