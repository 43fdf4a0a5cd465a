//! What is added, and as what: flapping, several members that announce one address, weights, refusals, a full cluster,
//! another name.

use super::*;

#[test]
fn a_flapping_candidate_is_held_down_and_reported_once() {
    let mut bench = Bench::new(true);
    let (up, out) = ([Peer::ready(1)], [Peer::new(1, ServiceState::Draining)]);
    bench.update(0, &up);
    let mut said = Vec::new();
    for second in 1..=10 {
        bench.update(second, &out);
        said.extend(bench.update(second, &up).1);
    }
    let joined = (1, EventKind::Joined);
    assert_eq!(
        said,
        [joined, joined, joined, (1, EventKind::HeldDown(s(30)))]
    );
    assert_eq!(bench.candidates.next_deadline(), Some(s(34)));
    assert_eq!(bench.update(33, &up), (false, vec![]));
    assert_eq!(bench.update(34, &up), (true, vec![joined]));
}

#[test]
fn an_unseen_restart_is_not_a_flap() {
    let mut bench = Bench::new(true);
    for epoch in 1..100 {
        let peer = Peer {
            epoch,
            ..Peer::ready(1)
        };
        bench.update(epoch, &[peer]);
        assert_eq!(bench.hosts(), [1]);
    }
}

#[test]
fn of_two_members_that_announce_one_address_one_counts() {
    use ServiceState as S;
    let at = |host: u8, epoch, version, state, weight| {
        let mut peer = Peer::new(host, state);
        peer.record.backend = backend(1);
        peer.record.weight = weight;
        Peer {
            epoch,
            version,
            ..peer
        }
    };
    let expired = Peer {
        revoked: Some(Revocation::Expired),
        ..at(3, 9, 9, S::Ready, 9)
    };
    let dead = Peer {
        liveness: Liveness::Down,
        ..at(3, 9, 9, S::Ready, 9)
    };
    for (peers, expected) in [
        (
            [at(1, 1, 5, S::Ready, 1), at(2, 2, 1, S::Ready, 2)],
            Some((2, 2)),
        ),
        (
            [at(1, 2, 5, S::Ready, 1), at(2, 2, 1, S::Ready, 2)],
            Some((1, 1)),
        ),
        (
            [at(1, 2, 5, S::Ready, 1), at(2, 2, 5, S::Ready, 2)],
            Some((2, 2)),
        ),
        (
            // Another member's order counts against nobody.
            [at(1, 2, 5, S::Draining, 1), at(2, 2, 4, S::Ready, 2)],
            Some((2, 2)),
        ),
        ([dead, at(2, 2, 4, S::Ready, 2)], Some((2, 2))),
        ([expired, at(2, 2, 4, S::Ready, 2)], Some((2, 2))),
    ] {
        let mut reversed = peers.clone();
        reversed.reverse();
        for peers in [peers, reversed] {
            let mut bench = Bench::new(true);
            bench.update(0, &peers);
            let found: Vec<_> = bench
                .candidates
                .of("web")
                .map(|c| (c.member.unwrap(), c.weight))
                .collect();
            let expected: Vec<_> = expected
                .map(|(host, weight)| (SocketAddr::from(([10, 0, 0, host], 7946)), weight))
                .into_iter()
                .collect();
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn weight_and_zone_apply_at_once() {
    let mut bench = Bench::new(true);
    let mut peer = Peer::ready(1);
    bench.update(0, std::slice::from_ref(&peer));
    peer.record.weight = 7;
    assert_eq!(bench.update(1, std::slice::from_ref(&peer)), (true, vec![]));
    peer.record.zone = "b".to_owned();
    assert_eq!(bench.update(2, std::slice::from_ref(&peer)), (true, vec![]));
    let found = bench.candidates.of("web").next().unwrap();
    assert_eq!((found.weight, &*found.zone), (7, "b"));
}

#[test]
fn refusals_are_counted_and_reported_once_and_remove_candidates() {
    let mut bench = Bench::new(true);
    let peers = [Peer::ready(1), Peer::ready(2), Peer::ready(200)];
    let own = EventKind::Refused {
        reason: CandidateRefusal::OwnListener,
        count: 1,
    };
    let (joined, refused) = (EventKind::Joined, |count| EventKind::Refused {
        reason: CandidateRefusal::OutOfRange,
        count,
    });
    assert_eq!(
        bench.update(0, &peers).1,
        [(1, joined), (2, joined), (200, own)]
    );
    assert_eq!(bench.update(1, &peers).1, []);
    bench.allow = vec!["10.0.0.2/32".parse().unwrap()];
    assert_eq!(bench.update(2, &peers), (true, vec![(1, refused(2))]));
    assert_eq!(bench.hosts(), [2]);
    bench.update(3, &peers);
    assert_eq!(
        bench.candidates.refusals()[CandidateRefusal::OutOfRange.index()],
        2
    );
    assert_eq!(
        bench.candidates.refusals()[CandidateRefusal::OwnListener.index()],
        1
    );
    bench.allow = vec!["10.0.0.0/8".parse().unwrap()];
    assert_eq!(bench.update(4, &peers).1, [(1, joined), (200, own)]);
}

#[test]
fn a_full_cluster_keeps_its_candidates() {
    let port = |port: u16| {
        let mut peer = Peer::ready(1);
        peer.record.backend.set_port(port);
        peer.address.set_port(port);
        peer
    };
    let most = MAX_CANDIDATES as u16;
    let mut peers: Vec<Peer> = (101..=100 + most).map(port).collect();
    let mut bench = Bench::new(true);
    bench.update(0, &peers);
    peers.extend((1..=3).map(port));
    let (changed, events) = bench.update(1, &peers);
    let full = |count| EventKind::Refused {
        reason: CandidateRefusal::ClusterFull,
        count,
    };
    assert_eq!((changed, events), (false, vec![(1, full(3))]));
    peers[7].record.state = ServiceState::Draining;
    bench.update(2, &peers);
    let ports: Vec<u16> = bench
        .candidates
        .of("web")
        .map(|c| c.address.port())
        .collect();
    assert_eq!((ports.len(), ports[0], ports[1]), (MAX_CANDIDATES, 1, 101));
}

#[test]
fn a_cluster_that_discovers_nothing_or_another_name_starts_from_scratch() {
    let set = set(&[Peer::ready(1)]);
    let policy = |subscriptions| CandidatePolicy {
        subscriptions,
        allow_cidrs: &[],
        is_own: &|_| false,
    };
    let other = [Subscription {
        cluster: "web",
        gossip: "api",
        checked: true,
    }];
    for subscriptions in [&other[..], &[]] {
        let mut bench = Bench::new(true);
        bench.update(0, &[Peer::ready(1)]);
        let update = bench
            .candidates
            .update(s(1), &set, &policy(subscriptions), &|_, _| {
                LocalHealth::Healthy
            });
        assert!(update.changed);
        assert!(bench.hosts().is_empty());
    }
}
