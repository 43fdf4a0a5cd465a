//! The order in which groups and health states are considered for a pick: the precedence of backups, of panic mode and
//! of backends that refuse connections, in one place.
//!
//! A tier is a group and the health bits that it excludes. Every tier excludes [`Health::UNRESOLVED`], since there is
//! nowhere to connect to. Backends that refuse connections come after all others, in panic mode too. The last tiers
//! accept what is left: a backend that is believed down may still answer, while without a backend there is no answer.

use crate::model::health::Health;

/// Excludes every backend that is not healthy.
pub(super) const HEALTHY: Health = Health::all();
/// Excludes backends that refuse connections; the check of the others may have failed.
const NOT_REFUSING: Health = Health::REFUSED.union(Health::UNRESOLVED);
/// Excludes only backends without an address.
const ANY: Health = Health::UNRESOLVED;

/// One step of the search for a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tier {
    /// Whether the tier consists of backups; otherwise of primaries.
    pub backups: bool,
    /// Health bits that exclude a backend from the tier.
    pub excluded: Health,
}

const fn primaries(excluded: Health) -> Tier {
    Tier {
        backups: false,
        excluded,
    }
}

const fn backups(excluded: Health) -> Tier {
    Tier {
        backups: true,
        excluded,
    }
}

/// The order outside panic mode: healthy backups come before primaries that failed their check.
const NORMAL: [Tier; 6] = [
    primaries(HEALTHY),
    backups(HEALTHY),
    primaries(NOT_REFUSING),
    backups(NOT_REFUSING),
    primaries(ANY),
    backups(ANY),
];

/// The order in panic mode: too few primaries are healthy to take the load alone, so check results of primaries are
/// ignored.
const PANIC: [Tier; 5] = [
    primaries(NOT_REFUSING),
    backups(HEALTHY),
    backups(NOT_REFUSING),
    primaries(ANY),
    backups(ANY),
];

/// The order where panic mode is disabled: only healthy backends get traffic.
const STRICT: [Tier; 2] = [primaries(HEALTHY), backups(HEALTHY)];

/// The tiers in order of preference; `strict` disables panic mode.
pub(super) const fn order(panic: bool, strict: bool) -> &'static [Tier] {
    match (strict, panic) {
        (true, _) => &STRICT,
        (false, true) => &PANIC,
        (false, false) => &NORMAL,
    }
}

#[cfg(test)]
mod tests {
    use crate::balance::fixture::TestCluster;
    use crate::model::health::Health;
    use crate::model::settings::Policy;

    const POLICIES: [Policy; 5] = [
        Policy::RoundRobin,
        Policy::LeastConnections,
        Policy::ConsistentHash,
        Policy::Random,
        Policy::PowerOfTwo,
    ];

    /// Two primaries (0, 1) and two backups (2, 3) with the health bits of `health`.
    fn cluster(policy: Policy, health: [Health; 4]) -> TestCluster {
        let cluster =
            TestCluster::with_backups(policy, &[(1, false), (1, false), (1, true), (1, true)]);
        for (index, bits) in health.into_iter().enumerate() {
            cluster.backend(index).set_health(bits);
        }
        cluster
    }

    /// The backends that picks choose over many keys and random numbers.
    fn picked(cluster: &TestCluster, tried: &[u32]) -> Vec<usize> {
        let mut picked: Vec<usize> = (0..200)
            .filter_map(|_| cluster.pick_without(tried))
            .collect();
        picked.sort_unstable();
        picked.dedup();
        picked
    }

    const H: Health = Health::empty();
    const D: Health = Health::CHECK_DOWN;
    const R: Health = Health::REFUSED;
    const U: Health = Health::UNRESOLVED;
    const DR: Health = D.union(R);
    const UR: Health = U.union(R);

    /// Health of the four backends, backends tried, backends picked in the normal order and in panic mode.
    type Case = (
        [Health; 4],
        &'static [u32],
        &'static [usize],
        &'static [usize],
    );

    const CASES: &[Case] = &[
        ([H, H, H, H], &[], &[0, 1], &[0, 1]),
        ([H, D, H, H], &[], &[0], &[0, 1]),
        ([H, R, H, H], &[], &[0], &[0]),
        ([D, D, H, D], &[], &[2], &[0, 1]),
        ([D, R, H, H], &[], &[2, 3], &[0]),
        ([R, R, H, D], &[], &[2], &[2]),
        ([R, R, R, D], &[], &[3], &[3]),
        ([R, D, R, D], &[], &[1], &[1]),
        ([R, DR, R, R], &[], &[0, 1], &[0, 1]),
        ([U, U, R, DR], &[], &[2, 3], &[2, 3]),
        ([U, R, U, U], &[], &[1], &[1]),
        ([U, U, U, UR], &[], &[], &[]),
        ([H, H, H, H], &[0], &[1], &[1]),
        ([H, H, H, H], &[0, 1], &[2, 3], &[2, 3]),
        ([H, D, H, H], &[0, 2], &[3], &[1]),
        ([H, R, D, U], &[0], &[2], &[2]),
        ([H, H, H, H], &[3, 2, 1, 0], &[], &[]),
        ([H, U, U, U], &[0], &[], &[]),
    ];

    #[test]
    fn every_policy_follows_the_order_of_the_tiers() {
        for policy in POLICIES {
            for (health, tried, normal, panic) in CASES {
                let cluster = cluster(policy, *health);
                assert_eq!(
                    &picked(&cluster, tried),
                    normal,
                    "{policy:?} {health:?} {tried:?}"
                );
                cluster.state.set_panic(true);
                assert_eq!(
                    &picked(&cluster, tried),
                    panic,
                    "{policy:?} in panic {health:?} {tried:?}"
                );
            }
        }
    }

    #[test]
    fn a_cluster_without_eligible_backends_has_no_pick() {
        for policy in POLICIES {
            assert_eq!(TestCluster::new(policy, &[]).pick(), None);
            assert_eq!(TestCluster::new(policy, &[0, 0]).pick(), None);
            let one = TestCluster::new(policy, &[3]);
            assert_eq!(one.pick(), Some(0));
            assert_eq!(one.pick_without(&[0]), None);
            assert_eq!(one.pick_without(&[7]), Some(0), "an index out of range");
            let zero_beside = TestCluster::new(policy, &[0, 2, 0]);
            assert_eq!(picked(&zero_beside, &[]), [1], "{policy:?}");
            let only_backups = TestCluster::with_backups(policy, &[(1, true), (1, true)]);
            assert_eq!(picked(&only_backups, &[]), [0, 1], "{policy:?}");
        }
    }

    #[test]
    fn without_panic_mode_only_healthy_backends_are_picked() {
        for policy in POLICIES {
            for (health, expected) in [
                ([H, D, H, H], &[0][..]),
                ([D, R, H, D], &[2]),
                ([D, D, D, R], &[]),
                ([U, U, U, U], &[]),
            ] {
                let cluster = cluster(policy, health).strict();
                assert_eq!(picked(&cluster, &[]), expected, "{policy:?} {health:?}");
                cluster.state.set_panic(true);
                assert_eq!(picked(&cluster, &[]), expected, "{policy:?} {health:?}");
            }
            // A refused backend still gets trials, one request at a time.
            let cluster = cluster(policy, [R | Health::TRIAL, R, R, R]).strict();
            cluster.state.set_trials(true);
            assert_eq!((cluster.pick(), cluster.pick()), (Some(0), None));
        }
    }

    #[test]
    fn backups_on_standby_get_all_traffic_until_none_is_healthy() {
        for policy in POLICIES {
            for strict in [false, true] {
                let cluster = cluster(policy, [H, H, H, R]);
                let cluster = if strict { cluster.strict() } else { cluster };
                cluster.state.set_standby(true);
                assert_eq!(picked(&cluster, &[]), [2], "{policy:?}");
                assert_eq!(picked(&cluster, &[2]), [0; 0], "no retry goes to a primary");
                // A refused primary waits; a refused backup gets its trial.
                cluster.backend(0).set_health(R | Health::TRIAL);
                cluster.backend(3).set_health(R | Health::TRIAL);
                cluster.state.set_trials(true);
                assert_eq!((cluster.pick(), cluster.pick()), (Some(3), Some(2)));
                cluster.backend(2).set_health(R);
                assert_eq!(
                    picked(&cluster, &[0]),
                    [1],
                    "the flag has no effect without a healthy backup"
                );
            }
        }
    }

    #[test]
    fn a_trial_comes_first_and_once() {
        for policy in POLICIES {
            let cluster = cluster(policy, [H, R | Health::TRIAL, R | Health::TRIAL, H]);
            cluster.state.set_trials(true);
            assert_eq!(cluster.pick(), Some(1));
            assert_eq!(cluster.pick(), Some(2));
            assert_eq!(cluster.pick(), Some(0));
            assert!(!cluster.state.has_trials(), "no trial is left");
            assert_eq!(picked(&cluster, &[]), [0]);
        }
    }

    #[test]
    fn a_trial_waits_for_a_request_that_may_claim_it() {
        let cluster = cluster(
            Policy::RoundRobin,
            [H, R | Health::TRIAL, H, U | R | Health::TRIAL],
        );
        cluster.state.set_trials(true);
        assert_eq!(cluster.pick_without(&[1]), Some(0), "backend 1 was tried");
        assert!(cluster.state.has_trials(), "another request may claim it");
        assert_eq!(cluster.pick(), Some(1));
        assert_eq!(cluster.pick(), Some(0), "no address, no trial");
        assert!(!cluster.state.has_trials());
        assert_eq!(cluster.backend(3).health(), U | R | Health::TRIAL);
    }

    #[test]
    fn no_trial_is_claimed_while_the_flag_is_clear() {
        let cluster = cluster(Policy::Random, [H, R | Health::TRIAL, H, H]);
        assert_eq!(picked(&cluster, &[]), [0]);
        assert_eq!(cluster.backend(1).health(), R | Health::TRIAL);
    }

    #[test]
    fn a_backend_of_weight_zero_gets_no_trial() {
        let cluster = TestCluster::new(Policy::RoundRobin, &[1, 0]);
        cluster.backend(1).set_health(R | Health::TRIAL);
        cluster.state.set_trials(true);
        assert_eq!(cluster.pick(), Some(0));
        assert!(!cluster.state.has_trials());
    }

    #[test]
    fn workers_that_race_for_a_trial_claim_it_once() {
        for _ in 0..50 {
            let cluster = cluster(Policy::RoundRobin, [H, R | Health::TRIAL, H, H]);
            cluster.state.set_trials(true);
            let claimed: usize = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| cluster.pick() == Some(1)))
                    .collect();
                workers
                    .into_iter()
                    .map(|worker| usize::from(worker.join().unwrap()))
                    .sum()
            });
            assert_eq!(claimed, 1);
        }
    }
}
