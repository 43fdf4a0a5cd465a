//! Candidates that the set reports as lost: which are removed, and which the guard against mass removals keeps.

use super::*;

#[test]
fn a_lost_candidate_without_a_check_is_removed_after_thirty_seconds() {
    let mut bench = Bench::new(false);
    bench.update(0, &[Peer::ready(1), Peer::ready(2)]);
    assert_eq!(bench.candidates.next_deadline(), None);
    bench.update(5, &[Peer::ready(1), Peer::down(2)]);
    assert_eq!(bench.candidates.next_deadline(), Some(s(35)));
    bench.update(34, &[Peer::ready(1)]);
    assert_eq!(bench.hosts(), [1, 2], "forgotten is no better than down");
    let (changed, events) = bench.update(35, &[Peer::ready(1)]);
    assert_eq!((changed, bench.hosts()), (true, vec![1]));
    assert_eq!(events, [(2, EventKind::Removed)]);
    assert_eq!(bench.candidates.next_deadline(), None);
}

#[test]
fn a_check_that_passes_counts_and_is_reported_once() {
    let mut bench = Bench::new(true);
    bench.update(0, &[Peer::ready(1)]);
    bench.set_health(1, LocalHealth::Healthy);
    assert_eq!(bench.update(1, &[]).1, [(1, DOWN)]);
    bench.set_health(1, LocalHealth::Unknown);
    assert_eq!(bench.update(2, &[]).1, [], "the check runs");
    bench.set_health(1, LocalHealth::Healthy);
    assert_eq!(bench.update(3, &[]).1, [(1, EventKind::DownButPasses)]);
    assert_eq!(bench.update(100_000, &[]).1, []);
    assert_eq!(bench.found(), [(1, true)]);
    assert_eq!(
        bench.update(100_001, &[Peer::ready(1)]).1,
        [(1, EventKind::Back)]
    );
    assert_eq!(bench.found(), [(1, false)]);
}

#[test]
fn a_mass_removal_is_held_while_orders_are_followed() {
    let all: Vec<Peer> = (1..=5).map(Peer::ready).collect();
    let mut bench = Bench::new(true);
    bench.update(0, &all);
    for host in 1..=5 {
        bench.set_health(host, LocalHealth::Failing);
    }
    let held = EventKind::MassRemovalHeld {
        lost: 5,
        of: 5,
        expired: 0,
    };
    assert_eq!(bench.update(10, &[]), (false, vec![(1, held)]));
    assert_eq!(bench.candidates.next_deadline(), Some(s(310)));
    let drained = [Peer::new(1, ServiceState::Draining)];
    assert_eq!(bench.update(11, &drained).1, [(1, EventKind::Draining)]);
    bench.set_health(2, LocalHealth::Healthy);
    assert_eq!(
        bench.update(309, &[Peer::ready(3)]).1,
        [(2, EventKind::DownButPasses), (3, EventKind::Back)]
    );
    assert_eq!(bench.hosts(), [2, 3, 4, 5]);
    let (_, events) = bench.update(310, &[Peer::ready(3)]);
    assert_eq!(events, [(4, EventKind::Removed), (5, EventKind::Removed)]);
    assert_eq!(
        bench.hosts(),
        [2, 3],
        "one passes its check, one is known again"
    );

    let mut bench = Bench::new(false);
    bench.update(0, &all);
    bench.update(1, &[]);
    let held = EventKind::MassRemovalHeld {
        lost: 5,
        of: 5,
        expired: 0,
    };
    assert_eq!(bench.update(31, &[]).1, [(1, held)]);
    let (changed, events) = bench.update(60, &all);
    assert_eq!((changed, events.len()), (false, 6), "{events:?}");
    assert_eq!(events[5].1, EventKind::MassRemovalOver);
}

#[test]
fn a_proxy_that_is_cut_off_keeps_every_cluster_without_a_check() {
    for count in [1, 2, 3, 8] {
        let mut bench = Bench::new(false);
        let all: Vec<Peer> = (1..=count).map(Peer::ready).collect();
        bench.update(0, &all);
        let mut peers = all.clone();
        // It finds them down one by one.
        for (second, peer) in (9..).zip(&mut peers.clone()) {
            let place = peers.iter().position(|p| p.address == peer.address);
            peers[place.unwrap()].liveness = Liveness::Down;
            bench.update(second, &peers);
        }
        let mut held = 0;
        for second in (20..60).chain([339, 400, 100_000]) {
            let (changed, events) = bench.update(second, &peers);
            assert!(!changed, "{count} at {second} s: {events:?}");
            held += events.len();
            let deadline = bench.candidates.next_deadline();
            assert!(deadline.is_none_or(|at| at > s(second)), "{deadline:?}");
        }
        assert_eq!(held, 1, "said once");
        assert_eq!(bench.hosts().len(), all.len());
        // An agent's own order still removes its candidate.
        peers[0] = Peer::new(1, ServiceState::Draining);
        assert_eq!(bench.update(100_001, &peers).1[0], (1, EventKind::Draining));
    }
}

#[test]
fn with_other_members_a_hold_ends_in_time_but_hearsay_never_removes_the_last() {
    let company = Peer::unheard(100, 1);
    let beside = |peers: &[Peer]| [peers, std::slice::from_ref(&company)].concat();
    let all: Vec<Peer> = (1..=5).map(Peer::ready).collect();
    let mut bench = Bench::new(false);
    bench.update(0, &beside(&all));
    let two = beside(&all[..2]);
    bench.update(1, &two);
    let held = EventKind::MassRemovalHeld {
        lost: 3,
        of: 5,
        expired: 0,
    };
    assert_eq!(bench.update(31, &two).1, [(3, held)]);
    assert_eq!(bench.update(330, &two).1, []);
    assert_eq!(bench.candidates.next_deadline(), Some(s(331)));
    assert_eq!(bench.update(331, &two).1.len(), 3);
    assert_eq!(bench.hosts(), [1, 2]);

    bench.update(400, &beside(&[]));
    let held = EventKind::MassRemovalHeld {
        lost: 2,
        of: 2,
        expired: 0,
    };
    assert_eq!(bench.update(430, &beside(&[])).1, [(1, held)]);
    assert_eq!(bench.update(100_000, &beside(&[])), (false, vec![]));
    bench.set_health(1, LocalHealth::Failing);
    assert_eq!(
        bench.update(100_001, &beside(&[])).1,
        [(1, EventKind::Removed)],
        "live connections are refused"
    );
    assert_eq!(bench.hosts(), [2]);
}

#[test]
fn a_mass_removal_is_held_although_one_check_answers_before_the_others() {
    let mut bench = Bench::new(true);
    bench.update(0, &[Peer::ready(1), Peer::ready(2), Peer::ready(3)]);
    let one = [Peer::ready(1)];
    bench.update(1, &one);
    bench.set_health(2, LocalHealth::Failing);
    let held = EventKind::MassRemovalHeld {
        lost: 2,
        of: 3,
        expired: 0,
    };
    assert_eq!(bench.update(2, &one), (false, vec![(2, held)]));
    bench.set_health(3, LocalHealth::Failing);
    assert_eq!(bench.update(3, &one), (false, vec![]));
    assert_eq!(bench.hosts(), [1, 2, 3]);
}

#[test]
fn agents_that_report_all_services_as_failing_do_not_empty_a_cluster() {
    let all = |state| -> Vec<Peer> { (1..=5).map(|host| Peer::new(host, state)).collect() };
    let (ready, failing) = (all(ServiceState::Ready), all(ServiceState::Failing));
    let mut bench = Bench::new(true);
    bench.update(0, &ready);
    for host in 1..=5 {
        bench.set_health(host, LocalHealth::Failing);
    }
    // The health checks take them down, so that panic mode covers them.
    assert_eq!(bench.update(1, &failing), (false, vec![]));
    assert!(bench.found().iter().all(|&(_, doubted)| doubted));
    assert_eq!(bench.update(100_000, &failing), (false, vec![]));
    assert_eq!(bench.hosts().len(), 5);

    let mut bench = Bench::new(false);
    bench.update(0, &ready);
    let two = [&failing[..2], &ready[2..]].concat();
    assert_eq!(
        bench.update(1, &two).1,
        [(1, EventKind::Failing), (2, EventKind::Failing)]
    );
    let held = EventKind::MassRemovalHeld {
        lost: 3,
        of: 3,
        expired: 0,
    };
    assert_eq!(bench.update(2, &failing), (false, vec![(3, held)]));
    assert_eq!(bench.update(100_000, &failing), (false, vec![]));
    let (_, events) = bench.update(100_001, &ready);
    assert_eq!(events[0], (3, EventKind::MassRemovalOver));
    assert_eq!(bench.hosts(), [1, 2, 3, 4, 5]);
}

#[test]
fn an_order_of_all_agents_is_not_a_mass_removal() {
    let mut bench = Bench::new(true);
    bench.update(0, &(1..=5).map(Peer::ready).collect::<Vec<_>>());
    let drained: Vec<Peer> = (1..=5)
        .map(|host| Peer::new(host, ServiceState::Draining))
        .collect();
    bench.update(1, &drained);
    assert!(bench.hosts().is_empty());
}
