//! The order in which groups and states of health are asked for a member: the precedence of backups, of panic
//! and of backends that refuse connections, in one place.
//!
//! A tier is a group and the health bits that it does not accept. [`UNRESOLVED`] is in every one: there is nowhere
//! to connect to. A backend that refuses connections comes after all that do not, panic or not. The last tiers
//! take what is left, since a backend that is thought down may still answer, and no answer surely is none.

use crate::model::health::Health;

/// No bit at all: [`crate::model::backend::Backend::is_healthy`].
pub(super) const HEALTHY: Health = Health::all();
/// The check may have failed, connections are not refused.
const NOT_REFUSING: Health = Health::REFUSED.union(Health::UNRESOLVED);
/// Whatever has an address.
const ANY: Health = Health::UNRESOLVED;

/// One place to look for a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tier {
    /// Backups or primaries.
    pub backups: bool,
    /// Health bits, none of which a member may have.
    pub refused: Health,
}

const fn primaries(refused: Health) -> Tier {
    Tier {
        backups: false,
        refused,
    }
}

const fn backups(refused: Health) -> Tier {
    Tier {
        backups: true,
        refused,
    }
}

/// Backups stand in before a primary that failed its check does.
const NORMAL: [Tier; 6] = [
    primaries(HEALTHY),
    backups(HEALTHY),
    primaries(NOT_REFUSING),
    backups(NOT_REFUSING),
    primaries(ANY),
    backups(ANY),
];

/// Too few are healthy to carry the load alone, so the check's word counts for nothing among primaries.
const PANIC: [Tier; 5] = [
    primaries(NOT_REFUSING),
    backups(HEALTHY),
    backups(NOT_REFUSING),
    primaries(ANY),
    backups(ANY),
];

/// No panic is allowed: whoever is not healthy takes nothing.
const STRICT: [Tier; 2] = [primaries(HEALTHY), backups(HEALTHY)];

/// The tiers, first choice first; `strict` says that there is no panic, whatever happens.
pub(super) const fn order(panic: bool, strict: bool) -> &'static [Tier] {
    match (strict, panic) {
        (true, _) => &STRICT,
        (false, true) => &PANIC,
        (false, false) => &NORMAL,
    }
}

#[cfg(test)]
mod tests {
    use crate::balance::fixture::Bench;
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
    fn cluster(policy: Policy, health: [Health; 4]) -> Bench {
        let bench = Bench::with_backups(policy, &[(1, false), (1, false), (1, true), (1, true)]);
        for (index, bits) in health.into_iter().enumerate() {
            bench.backend(index).set_health(bits);
        }
        bench
    }

    /// The set of members that picks find, whatever the key and the random numbers.
    fn taken(bench: &Bench, tried: &[u32]) -> Vec<usize> {
        let mut taken: Vec<usize> = (0..200).filter_map(|_| bench.pick_without(tried)).collect();
        taken.sort_unstable();
        taken.dedup();
        taken
    }

    const H: Health = Health::empty();
    const D: Health = Health::CHECK_DOWN;
    const R: Health = Health::REFUSED;
    const U: Health = Health::UNRESOLVED;
    const DR: Health = D.union(R);
    const UR: Health = U.union(R);

    /// Health of the four, members tried, members taken in the normal order, in panic.
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
    fn every_policy_goes_through_the_tiers_in_order() {
        for policy in POLICIES {
            for (health, tried, normal, panic) in CASES {
                let bench = cluster(policy, *health);
                assert_eq!(
                    &taken(&bench, tried),
                    normal,
                    "{policy:?} {health:?} {tried:?}"
                );
                bench.state.set_panic(true);
                assert_eq!(
                    &taken(&bench, tried),
                    panic,
                    "{policy:?} in panic {health:?} {tried:?}"
                );
            }
        }
    }

    #[test]
    fn clusters_without_anyone_to_take_it_have_no_pick() {
        for policy in POLICIES {
            assert_eq!(Bench::new(policy, &[]).pick(), None);
            assert_eq!(Bench::new(policy, &[0, 0]).pick(), None);
            let one = Bench::new(policy, &[3]);
            assert_eq!(one.pick(), Some(0));
            assert_eq!(one.pick_without(&[0]), None);
            assert_eq!(one.pick_without(&[7]), Some(0), "an index of no member");
            let zero_beside = Bench::new(policy, &[0, 2, 0]);
            assert_eq!(taken(&zero_beside, &[]), [1], "{policy:?}");
            let only_backups = Bench::with_backups(policy, &[(1, true), (1, true)]);
            assert_eq!(taken(&only_backups, &[]), [0, 1], "{policy:?}");
        }
    }

    #[test]
    fn without_panic_only_the_healthy_are_taken() {
        for policy in POLICIES {
            for (health, expected) in [
                ([H, D, H, H], &[0][..]),
                ([D, R, H, D], &[2]),
                ([D, D, D, R], &[]),
                ([U, U, U, U], &[]),
            ] {
                let bench = cluster(policy, health).strict();
                assert_eq!(taken(&bench, &[]), expected, "{policy:?} {health:?}");
                bench.state.set_panic(true);
                assert_eq!(taken(&bench, &[]), expected, "{policy:?} {health:?}");
            }
            // It is still tried by one request at a time.
            let bench = cluster(policy, [R | Health::TRIAL, R, R, R]).strict();
            bench.state.set_trials(true);
            assert_eq!((bench.pick(), bench.pick()), (Some(0), None));
        }
    }

    #[test]
    fn a_standby_keeps_all_until_it_fails() {
        for policy in POLICIES {
            for strict in [false, true] {
                let bench = cluster(policy, [H, H, H, R]);
                let bench = if strict { bench.strict() } else { bench };
                bench.state.set_standby(true);
                assert_eq!(taken(&bench, &[]), [2], "{policy:?}");
                assert_eq!(taken(&bench, &[2]), [0; 0], "no retry leaves it");
                // A primary that was refused waits, a backup is tried.
                bench.backend(0).set_health(R | Health::TRIAL);
                bench.backend(3).set_health(R | Health::TRIAL);
                bench.state.set_trials(true);
                assert_eq!((bench.pick(), bench.pick()), (Some(3), Some(2)));
                bench.backend(2).set_health(R);
                assert_eq!(taken(&bench, &[0]), [1], "the flag alone holds nothing");
            }
        }
    }

    #[test]
    fn a_trial_goes_first_and_once() {
        for policy in POLICIES {
            let bench = cluster(policy, [H, R | Health::TRIAL, R | Health::TRIAL, H]);
            bench.state.set_trials(true);
            assert_eq!(bench.pick(), Some(1));
            assert_eq!(bench.pick(), Some(2));
            assert_eq!(bench.pick(), Some(0));
            assert!(!bench.state.has_trials(), "none was left");
            assert_eq!(taken(&bench, &[]), [0]);
        }
    }

    #[test]
    fn a_trial_waits_for_a_request_that_may_take_it() {
        let bench = cluster(
            Policy::RoundRobin,
            [H, R | Health::TRIAL, H, U | R | Health::TRIAL],
        );
        bench.state.set_trials(true);
        assert_eq!(bench.pick_without(&[1]), Some(0), "this one was tried");
        assert!(bench.state.has_trials(), "another request may take it");
        assert_eq!(bench.pick(), Some(1));
        assert_eq!(bench.pick(), Some(0), "no address, no trial");
        assert!(!bench.state.has_trials());
        assert_eq!(bench.backend(3).health(), U | R | Health::TRIAL);
    }

    #[test]
    fn a_trial_is_granted_to_nobody_while_the_flag_is_down() {
        let bench = cluster(Policy::Random, [H, R | Health::TRIAL, H, H]);
        assert_eq!(taken(&bench, &[]), [0]);
        assert_eq!(bench.backend(1).health(), R | Health::TRIAL);
    }

    #[test]
    fn weight_zero_takes_no_trial() {
        let bench = Bench::new(Policy::RoundRobin, &[1, 0]);
        bench.backend(1).set_health(R | Health::TRIAL);
        bench.state.set_trials(true);
        assert_eq!(bench.pick(), Some(0));
        assert!(!bench.state.has_trials());
    }

    #[test]
    fn workers_that_race_for_a_trial_take_it_once() {
        for _ in 0..50 {
            let bench = cluster(Policy::RoundRobin, [H, R | Health::TRIAL, H, H]);
            bench.state.set_trials(true);
            let took: usize = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| bench.pick() == Some(1)))
                    .collect();
                workers
                    .into_iter()
                    .map(|worker| usize::from(worker.join().unwrap()))
                    .sum()
            });
            assert_eq!(took, 1);
        }
    }
}
