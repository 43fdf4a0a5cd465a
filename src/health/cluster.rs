//! One cluster under health checks: its panic and standby flags, and what happens to sessions on its backups.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::SessionOrderSink;
use crate::model::settings::OnUp;
use crate::snapshot::publish::SessionOrder;
use crate::snapshot::{Cluster, Healthy};
use crate::telemetry::outcome::Reason;

/// A cluster of the newest snapshot.
#[derive(Debug)]
pub(super) struct MonitoredCluster {
    pub(super) cluster: Arc<Cluster>,
    /// Whether it is in panic mode, as last logged.
    panic: bool,
    /// Whether it has ever had primaries of known health: only then can backups on standby replace them.
    had_primaries: bool,
    /// Whether the health of a backend may have changed since the last [`Self::update`].
    dirty: bool,
}

impl MonitoredCluster {
    /// Starts with `cluster`, or continues with it after its `previous` generation.
    pub(super) fn new(cluster: Arc<Cluster>, previous: Option<&Self>) -> Self {
        Self {
            cluster,
            panic: previous.is_some_and(|previous| previous.panic),
            had_primaries: previous.is_some_and(|previous| previous.had_primaries),
            dirty: true,
        }
    }

    /// Records that the health of a backend may have changed.
    pub(super) fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    /// Updates the flags if the health of a backend may have changed, and logs the beginning or end of panic mode.
    pub(super) fn update(&mut self, orders: &SessionOrderSink) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let cluster = &self.cluster;
        let healthy = cluster.healthy();
        let awaited = healthy.primaries_awaited > 0;
        self.had_primaries |= healthy.primaries_in_all > 0 && !awaited;
        let lost_primaries = self.had_primaries && !awaited && healthy.primaries == 0;
        update_standby(cluster, lost_primaries, &healthy);
        if cluster.settings.on_up == OnUp::CloseBackups && healthy.primaries > 0 {
            close_backups(cluster, orders);
        }
        let on_standby = cluster.state.on_standby();
        let threshold = cluster.settings.panic_threshold;
        let too_few = !on_standby && threshold.is_some_and(|share| healthy.is_under(share));
        cluster.state.set_panic(too_few);
        let panic = too_few || healthy.is_none();
        if panic != self.panic {
            self.panic = panic;
            log_panic(cluster, &healthy, panic, too_few);
        }
    }
}

/// With `on_up = "stay"`, backups that replaced the primaries retain all traffic until none of them is healthy. They
/// begin to when the cluster has `lost_primaries`, and not while the health of a primary is still unknown.
fn update_standby(cluster: &Cluster, lost_primaries: bool, healthy: &Healthy) {
    let previous = cluster.state.on_standby();
    let wanted = previous || lost_primaries;
    let standby = cluster.settings.on_up == OnUp::Stay && wanted && healthy.backups > 0;
    if standby == previous {
        return;
    }
    cluster.state.set_standby(standby);
    let name = &cluster.name;
    match (standby, cluster.settings.on_up) {
        (true, _) => {
            warn!(cluster = %name, "backups take over, and retain all traffic until none is healthy");
        }
        (false, OnUp::Stay) => {
            warn!(cluster = %name, "no backup is healthy; the primaries take over again");
        }
        (false, _) => info!(cluster = %name, "backups no longer retain all traffic"),
    }
}

/// Ends the sessions on backups, because a primary is healthy. Sessions that came to a backup without a recorded
/// failure, because of a momentary refusal, are ended too.
fn close_backups(cluster: &Cluster, orders: &SessionOrderSink) {
    let backups = cluster.endpoints.iter().filter(|e| e.backup);
    for endpoint in backups.filter(|e| e.backend.in_flight() > 0) {
        orders(SessionOrder {
            backend: endpoint.backend.id(),
            after: Some(Duration::ZERO),
            why: Reason::PrimaryUp,
        });
    }
}

fn log_panic(cluster: &Cluster, healthy: &Healthy, panic: bool, too_few: bool) {
    let (name, up, of) = (&cluster.name, healthy.primaries, healthy.primaries_in_all);
    match (cluster.settings.panic_threshold, panic) {
        (None, true) => warn!(
            cluster = %name, of, "no backend is healthy: requests get 503, connections are closed"
        ),
        (Some(threshold), true) if too_few => warn!(
            cluster = %name, healthy = up, of, threshold,
            "panic: too few backends are healthy, so all are used"
        ),
        (Some(_), true) => warn!(
            cluster = %name, of, "panic: no backend is healthy, so all are used"
        ),
        // All have left, or their first check results are outstanding.
        (_, false) if of + healthy.backups_in_all == 0 => warn!(
            cluster = %name, "panic is over: no backend is left to take traffic"
        ),
        (None, false) => info!(cluster = %name, healthy = up, of, "a backend is healthy again"),
        (Some(_), false) => info!(
            cluster = %name, healthy = up, of, "panic is over: enough backends are healthy again"
        ),
    }
}
