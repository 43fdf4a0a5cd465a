//! L3 control: whether backends are fit for traffic.
//!
//! [`run`] follows every snapshot, probes the members of clusters with a check ([`probe`]), gives refused members of
//! clusters without one their trials, and keeps three things true: the health bits [`Health::CHECK_DOWN`], [`Health::JOINING`],
//! [`Health::TRIAL`] and [`Health::UNRESOLVED`] of every member, its note for people, and the panic and standby flags of
//! every cluster; and it orders the end of sessions, as `on_down` and `on_up` say. Workers
//! set and clear [`Health::REFUSED`] on their own and report it; a flip is seen by pickers at once and builds no snapshot.
//!
//! All decisions are in [`state`], which knows neither clock nor socket. One task owns everything here; probes are
//! the only other tasks, at most [`MAX_PROBES`] of them and no more than the reserve of descriptors carries. Results, reports and time come in one after another, and
//! what they changed is settled (logged, panic) after each batch of them. A slow look at everything once a second
//! is the net under the reports: nothing here depends on a wake-up that might be lost.
//!
//! [`Health::CHECK_DOWN`]: crate::model::health::Health::CHECK_DOWN
//! [`Health::JOINING`]: crate::model::health::Health::JOINING
//! [`Health::TRIAL`]: crate::model::health::Health::TRIAL
//! [`Health::UNRESOLVED`]: crate::model::health::Health::UNRESOLVED
//! [`Health::REFUSED`]: crate::model::health::Health::REFUSED

mod member;
pub(crate) mod probe;
mod rounds;
pub(crate) mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::snapshot::Snapshot;
use crate::snapshot::publish::SessionOrder;
use rounds::Rounds;

/// Probes that run at a time; the others wait in line.
pub(crate) const MAX_PROBES: usize = 256;
/// Reports are looked at together, since a backend that dies is reported by every worker.
const REPORT_DELAY: Duration = Duration::from_millis(5);
/// The slow look at everything.
const SWEEP: Duration = Duration::from_secs(1);

/// Where the orders for the sessions of backends go.
pub(crate) type Orders = Arc<dyn Fn(SessionOrder) + Send + Sync>;

/// Looks after the health of all members of the newest snapshot until the sender is gone. `reports` is notified
/// (by `notify_one`) when a worker's `report_refused` or `report_connected` returned true, or control's `raise_doubt`.
/// At most `most_probes` run at a time. What becomes of sessions goes to `orders`.
pub(crate) async fn run(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    reports: Arc<Notify>,
    most_probes: usize,
    orders: Orders,
) {
    let mut rounds = Rounds::new(most_probes.clamp(1, MAX_PROBES), orders);
    let first = snapshots.borrow_and_update().clone();
    rounds.follow(&first, now());
    drop(first);
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look: Option<Instant> = None;
    loop {
        let due = rounds.next_due();
        tokio::select! {
            changed = snapshots.changed() => {
                if changed.is_err() {
                    return;
                }
                let next = snapshots.borrow_and_update().clone();
                rounds.follow(&next, now());
            }
            () = reports.notified(), if look.is_none() => {
                look = Some(Instant::now() + REPORT_DELAY);
            }
            () = until(look), if look.is_some() => {
                look = None;
                rounds.look_at_all(now());
            }
            () = rounds.finished_probes() => {}
            () = until(due.map(Instant::from_std)), if due.is_some() => {}
            _ = sweep.tick() => rounds.look_at_all(now()),
        }
        rounds.work_off(now());
        rounds.settle();
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
