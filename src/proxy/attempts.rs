//! Which backend is tried next, and whether another one is tried after a failure: the same for requests and for TCP
//! sessions.
//!
//! What may be sent again is decided by those who know how far it went; here stand the cluster's rules: how many
//! attempts, after which failures, and never the same backend while another is left. A backend that broke off may be
//! asked again if there is no other; one that refused is not.

use super::pick::{Pick, Routed, SnapshotRef};
use crate::balance::{PickRequest, Random};
use crate::snapshot::Cluster;
use crate::telemetry::outcome::{Reason, RetryReason};

/// The attempts at one request or session.
#[derive(Debug)]
pub(super) struct Attempts {
    /// Where it goes.
    routed: Routed,
    /// Indices of the endpoints that have failed it.
    tried: Vec<u32>,
    made: u32,
    last_failure: Option<RetryReason>,
}

impl Attempts {
    /// None yet.
    pub(crate) fn new(routed: Routed) -> Self {
        Self {
            routed,
            tried: Vec::new(),
            made: 0,
            last_failure: None,
        }
    }

    /// How many were made.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    /// Picks the backend of the next attempt.
    ///
    /// # Errors
    /// Why there is none: nothing can be picked, for the reason of the last failure if there was one.
    pub(crate) fn next(
        &mut self,
        snapshot: &SnapshotRef,
        worker: usize,
        random: &Random,
    ) -> Result<Pick, Reason> {
        let cluster = snapshot.cluster(self.routed.cluster);
        let endpoint = self
            .choose(cluster, worker, random)
            .ok_or_else(|| self.last_failure.map_or(Reason::NoBackend, reason_of))?;
        if let Some(reason) = self.last_failure {
            cluster.metrics.sheet(worker).retries[reason.index()].increment();
        }
        self.made += 1;
        Ok(Pick::acquire(snapshot, self.routed.cluster, endpoint))
    }

    fn choose(&self, cluster: &Cluster, worker: usize, random: &Random) -> Option<usize> {
        let with = |tried: &[u32]| {
            cluster.balancer.pick(&PickRequest {
                key: self.routed.key,
                state: &cluster.state,
                worker,
                random,
                tried,
            })
        };
        with(&self.tried).or_else(|| match self.last_failure {
            Some(RetryReason::Reset | RetryReason::Stale) => with(&[]),
            Some(RetryReason::Connect | RetryReason::Timeout) | None => None,
        })
    }

    /// Takes the failure of the attempt on `pick`.
    ///
    /// # Errors
    /// The rules allow no other attempt: why the whole has failed.
    pub(crate) fn failed(&mut self, pick: &Pick, failure: RetryReason) -> Result<(), Reason> {
        let rules = &pick.cluster().settings.retry;
        let is_allowed = match failure {
            RetryReason::Connect => rules.on_connect,
            RetryReason::Timeout => rules.on_timeout,
            RetryReason::Reset | RetryReason::Stale => rules.on_reset,
        };
        if !is_allowed || self.made >= rules.attempts {
            return Err(reason_of(failure));
        }
        self.tried.push(pick.index());
        self.last_failure = Some(failure);
        Ok(())
    }
}

/// What the client is told if the last attempt failed so.
fn reason_of(failure: RetryReason) -> Reason {
    match failure {
        RetryReason::Connect => Reason::BackendConnect,
        RetryReason::Timeout => Reason::BackendTimeout,
        RetryReason::Reset | RetryReason::Stale => Reason::BackendReset,
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::model::settings::Retry;
    use crate::snapshot::ClusterIndex;
    use crate::snapshot::fixture::{cluster, endpoint, snapshot};

    /// A generation with one cluster of so many backends under these rules.
    fn with(backends: usize, retry: Retry) -> SnapshotRef {
        let endpoints = (1..=backends).map(|i| endpoint("web", &format!("10.0.0.1:{i}")));
        let mut cluster = cluster("web", endpoints.collect());
        cluster.settings.retry = retry;
        Rc::new(Arc::new(snapshot(1, Vec::new(), vec![Arc::new(cluster)])))
    }

    fn rules(attempts: u32) -> Retry {
        Retry {
            attempts,
            on_connect: true,
            on_timeout: false,
            on_reset: true,
        }
    }

    /// Fails every attempt as `failures` say; the endpoints that were tried, and how it ended.
    fn play(snapshot: &SnapshotRef, failures: &[RetryReason]) -> (Vec<u32>, Option<Reason>) {
        let random = Random::new(1);
        let mut attempts = Attempts::new(Routed {
            cluster: ClusterIndex::new(0),
            key: 0,
        });
        let mut tried = Vec::new();
        for failure in failures {
            let pick = match attempts.next(snapshot, 0, &random) {
                Ok(pick) => pick,
                Err(reason) => return (tried, Some(reason)),
            };
            tried.push(pick.index());
            if let Err(reason) = attempts.failed(&pick, *failure) {
                return (tried, Some(reason));
            }
        }
        (tried, None)
    }

    #[test]
    fn the_rules_of_the_cluster_bound_the_attempts() {
        use RetryReason::{Connect, Reset, Timeout};
        for (backends, attempts, failures, count, end) in [
            (3, 2, vec![Connect; 3], 2, Some(Reason::BackendConnect)),
            (3, 5, vec![Connect; 4], 3, Some(Reason::BackendConnect)),
            (3, 5, vec![Timeout], 1, Some(Reason::BackendTimeout)),
            (
                3,
                3,
                vec![Reset, Connect, Reset],
                3,
                Some(Reason::BackendReset),
            ),
            (3, 5, vec![Connect, Reset], 2, None),
            // A backend that broke off is asked again where there is no other; one that refused is not.
            (1, 3, vec![Reset; 3], 3, Some(Reason::BackendReset)),
            (1, 3, vec![Connect; 3], 1, Some(Reason::BackendConnect)),
            (0, 3, vec![Reset], 0, Some(Reason::NoBackend)),
        ] {
            let (tried, ended) = play(&with(backends, rules(attempts)), &failures);
            assert_eq!((tried.len(), ended), (count, end), "{failures:?}");
            let mut distinct = tried.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), tried.len().min(backends), "{tried:?}");
        }
    }

    #[test]
    fn a_retry_is_counted_when_it_is_made() {
        let snapshot = with(2, rules(5));
        let _ = play(&snapshot, &[RetryReason::Connect; 3]);
        let sheet = snapshot.clusters[0].metrics.sheet(0);
        assert_eq!(sheet.retries[RetryReason::Connect.index()].get(), 1);
        for endpoint in &snapshot.clusters[0].endpoints {
            assert_eq!(endpoint.backend.in_flight(), 0);
        }
    }
}
