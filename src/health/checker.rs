//! The rounds: which members there are, who is due, which probes run, and what their cluster's panic flag says.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{Id, JoinError, JoinSet};
use tracing::{info, warn};

use super::Orders;
use super::member::Member;
use super::probe::{Failed, Passed, probe};
use crate::model::backend::BackendId;
use crate::model::settings::{OnDown, OnUp};
use crate::model::timer_queue::KeyedTimerQueue;
use crate::snapshot::publish::SessionOrder;
use crate::snapshot::{Cluster, Healthy, Snapshot};
use crate::telemetry::outcome::Reason;

/// The first probe comes within this time (or the interval, if that is shorter).
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// The same for one that joins by the peer set, and whose traffic waits for it.
const JOINS_WITHIN: Duration = Duration::from_millis(100);
/// Between two of its probes until the first verdict, or the interval, if that is shorter.
const JOINS_EVERY: Duration = Duration::from_millis(500);
/// Share of the interval by which a probe may come early or late, so that probes do not fire together.
const JITTER: f64 = 0.05;

type Probed = Result<Passed, Failed>;

/// A cluster that is followed.
#[derive(Debug)]
struct Followed {
    cluster: Arc<Cluster>,
    /// As last written to the log.
    panic: bool,
    /// It has had primaries, and something was known of each: only then can a standby stand in for them.
    had_primaries: bool,
    /// A member's health may have changed since the last look.
    dirty: bool,
}

/// Everything that the health task owns.
pub(super) struct Rounds {
    clusters: HashMap<Arc<str>, Followed>,
    /// By the id of the backend.
    members: HashMap<BackendId, Member>,
    timers: KeyedTimerQueue<Instant, BackendId>,
    probes: JoinSet<Probed>,
    probing: HashMap<Id, BackendId>,
    finished: Vec<Result<(Id, Probed), JoinError>>,
    /// Members that are due while `most` run, and since when.
    waiting: VecDeque<(BackendId, Instant)>,
    /// The ids in `waiting`: nobody stands there twice.
    in_line: HashSet<BackendId>,
    late: bool,
    /// Probes that run at a time.
    most: usize,
    /// A lack of ours stops probes; said once until one gets through.
    lacking: bool,
    /// Of the newest snapshot.
    drain_timeout: Duration,
    /// Members that went up or down in the last batch.
    flips: Vec<(BackendId, bool)>,
    orders: Orders,
}

impl Rounds {
    /// Nothing is followed yet; `most` probes run at a time.
    pub(super) fn new(most: usize, orders: Orders) -> Self {
        Self {
            clusters: HashMap::new(),
            members: HashMap::new(),
            timers: KeyedTimerQueue::default(),
            probes: JoinSet::new(),
            probing: HashMap::new(),
            finished: Vec::new(),
            waiting: VecDeque::new(),
            in_line: HashSet::new(),
            late: false,
            most,
            lacking: false,
            drain_timeout: Duration::ZERO,
            flips: Vec::new(),
            orders,
        }
    }

    /// Follows a newer snapshot; costs O(members of the clusters that changed).
    pub(super) fn follow(&mut self, snapshot: &Snapshot, now: Instant) {
        self.drain_timeout = snapshot.drain_timeout;
        for cluster in &snapshot.clusters {
            match self.clusters.get(&cluster.name) {
                Some(known) if Arc::ptr_eq(&known.cluster, cluster) => {}
                _ => self.follow_cluster(cluster, now),
            }
        }
        if self.clusters.len() > snapshot.clusters.len() {
            let kept: HashSet<&Arc<str>> = snapshot.clusters.iter().map(|c| &c.name).collect();
            let gone: Vec<_> = self
                .clusters
                .extract_if(|name, _| !kept.contains(name))
                .collect();
            for (_, followed) in gone {
                let ids = followed.cluster.endpoints.iter().map(|e| e.backend.id());
                self.forget(ids, now);
            }
        }
    }

    fn follow_cluster(&mut self, cluster: &Arc<Cluster>, now: Instant) {
        let followed = Followed {
            cluster: cluster.clone(),
            panic: false,
            had_primaries: false,
            dirty: true,
        };
        let before = self.clusters.insert(cluster.name.clone(), followed);
        for (place, endpoint) in cluster.endpoints.iter().enumerate() {
            let id = endpoint.backend.id();
            let fresh = match self.members.get_mut(&id) {
                Some(member) => member.follow(cluster, place),
                None => {
                    self.members.insert(id, Member::new(cluster, place));
                    true
                }
            };
            if fresh {
                self.plan_first(id, now);
            }
        }
        let Some(before) = before else { return };
        if let Some(followed) = self.clusters.get_mut(&cluster.name) {
            (followed.panic, followed.had_primaries) = (before.panic, before.had_primaries);
        }
        let kept: HashSet<BackendId> = cluster.endpoints.iter().map(|e| e.backend.id()).collect();
        let had = before.cluster.endpoints.iter().map(|e| e.backend.id());
        self.forget(had.filter(|id| !kept.contains(id)), now);
    }

    /// Lets go of members. One may be down already without anybody having looked, as when control moves a name on to its
    /// next address at the word of a worker: then its sessions end as those of any that goes down.
    fn forget(&mut self, ids: impl Iterator<Item = BackendId>, now: Instant) {
        for id in ids {
            self.timers.cancel(id);
            let Some(mut member) = self.members.remove(&id) else {
                continue;
            };
            member.stop_probe();
            member.look(now);
            if member.settle() == Some(false)
                && let Some(order) = order_of_flip(&member, false, self.drain_timeout)
            {
                (self.orders)(order);
            }
        }
    }

    /// Plans the first probe of a member that is new, was resolved or got another check; or looks after its trials.
    fn plan_first(&mut self, id: BackendId, now: Instant) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.look(now);
        match member.check().map(|check| check.interval) {
            Some(interval) => {
                let most = if member.joins() {
                    JOINS_WITHIN
                } else {
                    FIRST_WITHIN
                };
                let within = interval.min(most);
                self.timers.set(id, now + within.mul_f64(fastrand::f64()));
            }
            None => plan_trial(&mut self.timers, id, member),
        }
    }

    /// When something is due next.
    pub(super) fn next_due(&mut self) -> Option<Instant> {
        self.timers.next_due()
    }

    /// Looks at every member for what workers reported, and for doubts of the peer set: a few atomic loads each.
    pub(super) fn look_at_all(&mut self, now: Instant) {
        for (&id, member) in &mut self.members {
            if member.backend().take_doubt() && member.check().is_some() {
                // What runs began before the doubt, so it answers nothing.
                member.stop_probe();
                self.timers.set(id, now);
            }
            member.look(now);
            self.flips.extend(member.settle().map(|up| (id, up)));
            if member.cluster().settings.check.is_none() {
                plan_trial(&mut self.timers, id, member);
            }
        }
        for followed in self.clusters.values_mut() {
            followed.dirty = true;
        }
    }

    /// Waits until at least one probe has finished; for ever if none runs. Cancel-safe.
    pub(super) async fn finished_probes(&mut self) {
        match self.probes.join_next_with_id().await {
            Some(first) => self.finished.push(first),
            None => std::future::pending().await,
        }
        while let Some(more) = self.probes.try_join_next_with_id() {
            self.finished.push(more);
        }
    }

    /// Judges the probes that finished and starts those that are due.
    pub(super) fn work_off(&mut self, now: Instant) {
        for finished in std::mem::take(&mut self.finished) {
            self.judge(finished, now);
        }
        while let Some((id, at)) = self.timers.pop_due(now) {
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            if member.check().is_some() {
                if self.in_line.insert(id) {
                    self.waiting.push_back((id, at));
                }
            } else {
                member.look(now);
                plan_trial(&mut self.timers, id, member);
                changed(&mut self.clusters, &mut self.flips, id, member);
            }
        }
        while self.probes.len() < self.most {
            let Some((id, since)) = self.waiting.pop_front() else {
                self.late = false;
                break;
            };
            self.in_line.remove(&id);
            self.start(id, since, now);
        }
    }

    fn start(&mut self, id: BackendId, since: Instant, now: Instant) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let (Some(check), None) = (member.check(), &member.probe) else {
            return;
        };
        if now.duration_since(since) > check.interval && !self.late {
            self.late = true;
            warn!("health checks are late: too many backends do not answer theirs");
        }
        let (cluster, place) = (member.cluster().clone(), member.place());
        let handle = self.probes.spawn(async move {
            let endpoint = &cluster.endpoints[place];
            match &cluster.settings.check {
                Some(check) => {
                    probe(check, endpoint.address.as_slice(), endpoint.backend.host()).await
                }
                None => Err(Failed::NoAddress),
            }
        });
        self.probing.insert(handle.id(), id);
        member.probe = Some((handle, now));
    }

    fn judge(&mut self, finished: Result<(Id, Probed), JoinError>, now: Instant) {
        let (task, result) = match finished {
            Ok(finished) => finished,
            Err(broken) => (broken.id(), Err(Failed::Internal)),
        };
        // A probe that was stopped is no longer its member's.
        let Some(id) = self.probing.remove(&task) else {
            return;
        };
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let Some((_, began)) = member.probe.take_if(|(handle, _)| handle.id() == task) else {
            return;
        };
        match &result {
            Err(Failed::Local(error)) if !self.lacking => {
                self.lacking = true;
                warn!(%error, "health checks cannot connect; backends keep their state");
            }
            Err(Failed::Local(_)) => {}
            _ if self.lacking => {
                self.lacking = false;
                info!("health checks connect again");
            }
            _ => {}
        }
        member.judge(result, now);
        changed(&mut self.clusters, &mut self.flips, id, member);
        if let Some(check) = member.check() {
            let spread = 1.0 + JITTER * (2.0 * fastrand::f64() - 1.0);
            let every = if member.joins() {
                check.interval.min(JOINS_EVERY)
            } else {
                check.interval
            };
            let next = began + every.mul_f64(spread);
            self.timers.set(id, next.max(now));
        }
    }

    /// Writes down what the last batch changed: what becomes of sessions, the standby and panic flags, and one line
    /// when a panic begins or ends.
    pub(super) fn settle(&mut self) {
        for (id, up) in std::mem::take(&mut self.flips) {
            let member = self.members.get(&id);
            if let Some(order) = member.and_then(|m| order_of_flip(m, up, self.drain_timeout)) {
                (self.orders)(order);
            }
        }
        for followed in self.clusters.values_mut().filter(|f| f.dirty) {
            followed.dirty = false;
            let cluster = &followed.cluster;
            let healthy = cluster.healthy();
            let awaited = healthy.primaries_awaited > 0;
            followed.had_primaries |= healthy.primaries_in_all > 0 && !awaited;
            let without = followed.had_primaries && !awaited && healthy.primaries == 0;
            settle_standby(cluster, without, &healthy);
            if cluster.settings.on_up == OnUp::CloseBackups && healthy.primaries > 0 {
                close_backups(cluster, &self.orders);
            }
            let on_standby = cluster.state.on_standby();
            let threshold = cluster.settings.panic_threshold;
            let under = !on_standby && threshold.is_some_and(|share| healthy.is_under(share));
            cluster.state.set_panic(under);
            let panic = under || healthy.is_none();
            if panic != followed.panic {
                followed.panic = panic;
                tell_of_panic(cluster, &healthy, panic, under);
            }
        }
    }
}

/// What becomes of the sessions of a member that went up or down.
fn order_of_flip(member: &Member, up: bool, drain_timeout: Duration) -> Option<SessionOrder> {
    let backend = member.backend();
    let after = match (member.cluster().settings.on_down, up) {
        (OnDown::Keep, _) | (OnDown::Close, true) => return None,
        (OnDown::Close, false) => Some(Duration::ZERO),
        (OnDown::Drain, false) => Some(drain_timeout),
        (OnDown::Drain, true) => None,
    };
    // One that is down only because it has no address has no sessions either.
    let is_down = backend.health().is_down();
    (up || is_down).then(|| SessionOrder {
        backend: backend.id(),
        after,
        why: Reason::BackendDown,
    })
}

/// With `on_up = "stay"`: backups that stand in keep all until none of them is healthy. They begin to when the cluster
/// is `without` a healthy primary, and not while a primary is awaited that may be healthy.
fn settle_standby(cluster: &Cluster, without: bool, healthy: &Healthy) {
    let before = cluster.state.on_standby();
    let stays = before || without;
    let standby = cluster.settings.on_up == OnUp::Stay && stays && healthy.backups > 0;
    if standby == before {
        return;
    }
    cluster.state.set_standby(standby);
    let name = &cluster.name;
    match (standby, cluster.settings.on_up) {
        (true, _) => {
            warn!(cluster = %name, "the backups stand in, and keep all until none is healthy");
        }
        (false, OnUp::Stay) => {
            warn!(cluster = %name, "no backup is healthy; the others take over");
        }
        (false, _) => info!(cluster = %name, "the backups no longer keep all"),
    }
}

/// Ends the sessions on backups, as a primary is healthy. What is there without a failure that was seen came by a
/// moment's refusal, and goes too.
fn close_backups(cluster: &Cluster, orders: &Orders) {
    let backups = cluster.endpoints.iter().filter(|e| e.backup);
    for endpoint in backups.filter(|e| e.backend.in_flight() > 0) {
        orders(SessionOrder {
            backend: endpoint.backend.id(),
            after: Some(Duration::ZERO),
            why: Reason::PrimaryUp,
        });
    }
}

fn tell_of_panic(cluster: &Cluster, healthy: &Healthy, panic: bool, under: bool) {
    let (name, up, of) = (&cluster.name, healthy.primaries, healthy.primaries_in_all);
    match (cluster.settings.panic_threshold, panic) {
        (None, true) => warn!(
            cluster = %name, of, "no backend is healthy: requests get 503, connections are closed"
        ),
        (Some(threshold), true) if under => warn!(
            cluster = %name, healthy = up, of, threshold,
            "panic: too few backends are healthy, so all are used"
        ),
        (Some(_), true) => warn!(
            cluster = %name, of, "panic: no backend is healthy, so all are used"
        ),
        // All are gone, or their first verdict is still to come.
        (_, false) if of + healthy.backups_in_all == 0 => warn!(
            cluster = %name, "panic is over: no backend is left that takes traffic"
        ),
        (None, false) => info!(cluster = %name, healthy = up, of, "a backend is healthy again"),
        (Some(_), false) => info!(
            cluster = %name, healthy = up, of, "panic is over: enough backends are healthy again"
        ),
    }
}

fn plan_trial(timers: &mut KeyedTimerQueue<Instant, BackendId>, id: BackendId, member: &Member) {
    match member.trial_due() {
        Some(due) => timers.set(id, due),
        None => timers.cancel(id),
    }
}

fn changed(
    clusters: &mut HashMap<Arc<str>, Followed>,
    flips: &mut Vec<(BackendId, bool)>,
    id: BackendId,
    member: &mut Member,
) {
    let Some(up) = member.settle() else { return };
    flips.push((id, up));
    if let Some(followed) = clusters.get_mut(&member.cluster().name) {
        followed.dirty = true;
    }
}
