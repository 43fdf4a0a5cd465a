//! What is stored for a start without peers, and how long it stands once they answer.

use super::*;

#[test]
fn the_last_good_set_stands_until_the_real_one_is_complete() {
    let known = |host| Candidate {
        address: backend(host),
        weight: 3,
        zone: "a".to_owned(),
        member: None,
        doubted: false,
    };
    let mut bench = Bench::new(false);
    let mut all: Vec<Candidate> = (1..=4).map(known).collect();
    all.push(Candidate {
        address: "192.168.0.1:80".parse().unwrap(),
        ..known(1)
    });
    bench.candidates = Candidates::with_last_good(BTreeMap::from([("web".to_owned(), all)]));
    let (changed, _) = bench.update_with(0, &PeerSet::default());
    assert!(changed && bench.candidates.is_stale());
    assert_eq!(
        bench.hosts(),
        [1, 2, 3, 4],
        "what the file no longer allows is left out"
    );

    bench.update(1000, &[]);
    bench.update(1001, &[Peer::down(1)]);
    assert_eq!(
        bench.found().len(),
        4,
        "no other member, no other word: {:?}",
        bench.found()
    );
    let first = [Peer::ready(1), Peer::new(4, ServiceState::Draining)];
    bench.update(1002, &first);
    assert_eq!(
        bench.found(),
        [(1, false), (2, false), (3, false)],
        "a drain counts"
    );
    assert!(bench.candidates.is_stale());
    assert_eq!(bench.candidates.next_deadline(), Some(s(1007)));
    bench.update(1007, &[Peer::ready(1), Peer::ready(2)]);
    assert!(!bench.candidates.is_stale());
    assert_eq!(bench.found(), [(1, false), (2, false), (3, true)]);
    bench.update(1037, &[Peer::ready(1), Peer::ready(2)]);
    assert_eq!(bench.hosts(), [1, 2]);
    let company = [Peer::ready(1), Peer::ready(2), Peer::unheard(100, 1)];
    bench.update(1038, &company);
    let kept = bench
        .candidates
        .next_last_good(s(1038), &LastGood::new())
        .unwrap();
    assert_eq!(kept["web"].len(), 2);
}

#[test]
fn only_a_good_set_is_stored() {
    let all = [Peer::ready(1), Peer::ready(2)];
    let two = |state| [Peer::new(1, state), Peer::new(2, state)];
    let company = Peer::unheard(100, 1);
    let beside = |peers: &[Peer]| [peers, std::slice::from_ref(&company)].concat();
    let kept_at = |bench: &mut Bench, second: u64, before: &LastGood| -> Option<Vec<u16>> {
        let kept = bench.candidates.next_last_good(s(second), before)?;
        Some(kept["web"].iter().map(|c| c.weight).collect())
    };
    let kept = |bench: &mut Bench, before: &LastGood| kept_at(bench, 1, before);
    let start = |checked| {
        let mut bench = Bench::new(checked);
        let mut first = all.clone();
        // So that they can be told apart in what is stored.
        (first[0].record.weight, first[1].record.weight) = (11, 12);
        bench.update(0, &beside(&first));
        let before = bench
            .candidates
            .next_last_good(s(0), &LastGood::new())
            .unwrap();
        assert_eq!(before["web"].len(), 2);
        (bench, before)
    };
    let before_all = Some(vec![11, 12]);

    let (mut bench, before) = start(false);
    bench.update(
        1,
        &all.clone().map(|peer| Peer {
            liveness: Liveness::Down,
            ..peer
        }),
    );
    assert_eq!(kept(&mut bench, &before), None, "it is alone");
    bench.update(2, &beside(&all));
    assert_eq!(kept(&mut bench, &before), Some(vec![1, 1]));

    let (mut bench, before) = start(false);
    bench.update(1, &beside(&two(ServiceState::Failing)));
    assert_eq!(kept(&mut bench, &before), before_all, "they are held");
    let one = [
        Peer::new(1, ServiceState::Failing),
        Peer::new(2, ServiceState::Draining),
    ];
    bench.update(2, &beside(&one));
    assert_eq!(
        (bench.hosts(), kept(&mut bench, &before)),
        (vec![1], before_all.clone())
    );
    bench.update(3, &beside(&[Peer::ready(1)]));
    assert_eq!(kept(&mut bench, &before), Some(vec![1]), "it is over");

    let (mut bench, before) = start(true);
    for host in [1, 2] {
        bench.set_health(host, LocalHealth::Failing);
    }
    bench.update(1, &beside(&[]));
    bench.update(301, &beside(&[]));
    assert!(bench.hosts().is_empty());
    assert_eq!(kept(&mut bench, &before), before_all, "they were lost");
    bench.update(302, &beside(&[]));
    assert_eq!(kept(&mut bench, &before), before_all);

    let (mut bench, before) = start(true);
    bench.allow = vec!["192.168.0.0/16".parse().unwrap()];
    bench.update(1, &beside(&all));
    assert!(bench.hosts().is_empty());
    assert_eq!(
        kept(&mut bench, &before),
        before_all,
        "the file may be mistaken"
    );

    let (mut bench, before) = start(true);
    bench.allow = vec!["10.0.0.2/32".parse().unwrap()];
    bench.update(
        1,
        &beside(&[Peer::ready(1), Peer::new(2, ServiceState::Draining)]),
    );
    assert!(bench.hosts().is_empty());
    assert_eq!(
        kept(&mut bench, &before),
        before_all,
        "only one of them has left"
    );

    for state in [ServiceState::Draining, ServiceState::Left] {
        let (mut bench, before) = start(true);
        bench.update(1, &beside(&two(state)));
        assert!(bench.hosts().is_empty());
        for (second, expected) in [
            (1, before_all.clone()),
            (300, before_all.clone()),
            (301, Some(vec![])),
        ] {
            let kept = kept_at(&mut bench, second, &before);
            assert_eq!(kept, expected, "{state:?} {second}");
            let waits = (second < 301).then_some(s(301));
            assert_eq!(
                bench.candidates.next_deadline(),
                waits,
                "{state:?} {second}"
            );
            assert_eq!(bench.candidates.is_troubled(), waits.is_some());
        }
    }
}

#[test]
fn a_cluster_of_which_more_than_half_is_gone_is_stored_after_five_minutes() {
    let company = Peer::unheard(100, 1);
    let hosts = |kept: Option<LastGood>| -> Vec<SocketAddr> {
        let kept = kept.unwrap();
        kept["web"].iter().map(|c| c.address).collect()
    };
    let mut bench = Bench::new(true);
    let with = |hosts: &[u8]| -> Vec<Peer> {
        let all = hosts.iter().map(|&host| Peer::ready(host));
        all.chain([company.clone()]).collect()
    };
    bench.update(0, &with(&[1, 2, 3, 4]));
    let before = bench
        .candidates
        .next_last_good(s(0), &LastGood::new())
        .unwrap();
    let all = [1, 2, 3, 4].map(backend).to_vec();
    // They left by order, or others took their place: the previous set stands for a while.
    let leave = |hosts: &[u8], stay: &[u8]| -> Vec<Peer> {
        let gone = hosts
            .iter()
            .map(|&host| Peer::new(host, ServiceState::Left));
        gone.chain(with(stay)).collect()
    };
    for (second, gone, stay, expected) in [
        (1, &[1, 2][..], &[3, 4][..], vec![backend(3), backend(4)]),
        (2, &[1, 2, 3], &[4], all.clone()),
        (3, &[1, 2], &[3, 4], vec![backend(3), backend(4)]),
        (4, &[1, 2, 3, 4], &[5, 6, 7, 8], all.clone()),
        (303, &[1, 2, 3, 4], &[5, 6, 7, 8], all.clone()),
        (
            304,
            &[1, 2, 3, 4],
            &[5, 6, 7, 8],
            [5, 6, 7, 8].map(backend).to_vec(),
        ),
    ] {
        bench.update(second, &leave(gone, stay));
        let kept = bench.candidates.next_last_good(s(second), &before);
        assert_eq!(hosts(kept), expected, "{second}");
    }
}

#[test]
fn a_cluster_that_is_emptied_in_steps_is_compared_with_what_it_was() {
    let company = Peer::unheard(100, 1);
    let mut bench = Bench::new(true);
    let mut kept = LastGood::new();
    let mut step = |second: u64, stay: u8| -> usize {
        let left = |host| Peer::new(host, ServiceState::Left);
        let all = (1..=stay).map(Peer::ready);
        let all = all.chain((stay + 1..=10).map(left));
        let all: Vec<Peer> = all.chain([company.clone()]).collect();
        bench.update(second, &all);
        kept = bench.candidates.next_last_good(s(second), &kept).unwrap();
        kept["web"].len()
    };
    for (second, stay, expected) in [
        (0, 10, 10),
        (1, 5, 5),
        (2, 3, 5),
        (3, 2, 5),
        (4, 1, 5),
        // Those that come back are candidates again.
        (5, 5, 5),
        (6, 6, 6),
        (7, 4, 6),
        (306, 4, 6),
        (307, 4, 4),
        // After that only what was stored since counts.
        (308, 2, 2),
        (309, 1, 2),
        (310, 2, 2),
        (669, 1, 1),
    ] {
        assert_eq!(step(second, stay), expected, "{second}");
    }
}
