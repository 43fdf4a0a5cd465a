//! L3 control: finds out which backends are fit for traffic.
//!
//! [`run`] follows every snapshot, probes the backends of clusters with a check ([`probe`]) and grants trials to
//! refused backends of clusters without one. It maintains the health bits [`Health::CHECK_DOWN`], [`Health::JOINING`],
//! [`Health::TRIAL`] and [`Health::UNRESOLVED`] and the note of every backend, and the panic and standby flags of every
//! cluster; and it orders the end of sessions, as `on_down` and `on_up` say. Workers set and clear [`Health::REFUSED`]
//! themselves and report it. Picks see a change at once, without a new snapshot.
//!
//! All decisions are in `state`, which has neither a clock nor a socket. One task owns all state here; the only other
//! tasks are probes, at most [`MAX_PROBES`] of them and no more than the descriptor reserve allows. Results, reports
//! and timers are processed one after another, and what they change is applied and logged after each batch. A sweep
//! over all backends once a second backs up the reports, so that a lost wake-up has no effect.
//!
//! [`Health::CHECK_DOWN`]: crate::model::health::Health::CHECK_DOWN
//! [`Health::JOINING`]: crate::model::health::Health::JOINING
//! [`Health::TRIAL`]: crate::model::health::Health::TRIAL
//! [`Health::UNRESOLVED`]: crate::model::health::Health::UNRESOLVED
//! [`Health::REFUSED`]: crate::model::health::Health::REFUSED

mod backend;
mod checker;
mod cluster;
pub(crate) mod probe;
mod probe_queue;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::snapshot::Snapshot;
use crate::snapshot::publish::SessionOrder;
use checker::Checker;

/// Most probes that run at a time; the others wait in a queue.
pub(crate) const MAX_PROBES: usize = 256;
/// Time to collect reports before they are processed, since every worker reports a backend that dies.
const REPORT_DELAY: Duration = Duration::from_millis(5);
/// Interval of the sweep over all backends.
const SWEEP: Duration = Duration::from_secs(1);

/// Receives the orders for the sessions of backends.
pub(crate) type SessionOrderSink = Arc<dyn Fn(SessionOrder) + Send + Sync>;

/// Monitors the health of all backends of the newest snapshot until the sender is dropped. `reports` is notified (by
/// `notify_one`) when `report_refused` or `report_connected` of a worker returns true, or `raise_doubt` of the control
/// plane. At most `max_probes` run at a time. Orders to end sessions are sent to `orders`.
pub(crate) async fn run(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    reports: Arc<Notify>,
    max_probes: usize,
    orders: SessionOrderSink,
) {
    let mut checker = Checker::new(max_probes.clamp(1, MAX_PROBES), orders);
    let first = snapshots.borrow_and_update().clone();
    checker.follow(&first, now());
    drop(first);
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut report_due: Option<Instant> = None;
    loop {
        let due = checker.next_due();
        tokio::select! {
            changed = snapshots.changed() => {
                if changed.is_err() {
                    return;
                }
                let next = snapshots.borrow_and_update().clone();
                checker.follow(&next, now());
            }
            () = reports.notified(), if report_due.is_none() => {
                report_due = Some(Instant::now() + REPORT_DELAY);
            }
            () = until(report_due), if report_due.is_some() => {
                report_due = None;
                checker.update_all(now());
            }
            () = checker.finished_probes() => {}
            () = until(due.map(Instant::from_std)), if due.is_some() => {}
            _ = sweep.tick() => checker.update_all(now()),
        }
        checker.run_due(now());
        checker.apply_changes();
    }
}

/// The clock of the runtime, which tests may pause.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
