//! What others may do to a member, and what grows.

use super::*;
use crate::gossip::identity::{MAX_EPOCH, pack_address};
use crate::gossip::quarantine::BUG;
use crate::gossip::record::{Record, ServiceState};
use crate::gossip::token::{OperatorKey, mint};
use crate::gossip::view::Liveness;
use foca::Identity as _;

/// An announcement for `cluster` in the name of `member`, by a holder of a token for that cluster.
fn signed(cluster: &str, member: SocketAddr, epoch: u64, state: ServiceState) -> Vec<u8> {
    let operator = OperatorKey::generate(&[1; 32]);
    let cidrs = ["10.0.0.0/8".parse().unwrap()];
    let credential = mint(&operator, &[2; 32], cluster, &cidrs, 9, 10_000).unwrap();
    let mut token = Vec::new();
    credential.token().encode(&mut token);
    let record = Record {
        state,
        cluster: cluster.to_owned(),
        ..record(member, 1, state)
    };
    let mut bytes = record
        .encode(&pack_address(member), epoch, 1, &token)
        .unwrap();
    let signature = credential.sign("test", &bytes);
    bytes.extend_from_slice(&signature);
    bytes
}

#[test]
fn a_token_for_one_cluster_does_not_touch_another() {
    let mut nodes = acquainted();
    let operator = OperatorKey::generate(&[1; 32]).public();
    nodes[0].set_authority(Some(Authority::new(operator)), NOW);
    let victim = address_of(1);
    nodes[0].accept_record(
        &signed("web", victim, 5, ServiceState::Ready),
        Duration::ZERO,
        true,
    );
    for epoch in [5, 6, MAX_EPOCH, u64::MAX] {
        nodes[0].accept_record(
            &signed("other", victim, epoch, ServiceState::Left),
            Duration::ZERO,
            true,
        );
    }
    let down = Member::new(nodes[1].identity(), 0, State::Down);
    let told = std::iter::once(down);
    nodes[0]
        .swim
        .apply_many(told, true, &mut nodes[0].io)
        .unwrap();
    nodes[0].after_swim();
    let view = nodes[0].view(NOW);
    let member = view.members.iter().find(|m| m.address == victim).unwrap();
    assert_eq!(
        member.liveness,
        Liveness::Down,
        "it has not left by its own word"
    );
    let epochs: Vec<u64> = member.records.iter().map(|r| r.epoch).collect();
    assert_eq!(epochs, [5, 5], "nobody announces for a later run");
}

/// An agent announces after somebody has announced in its name, `ahead` versions later and this long before: its weight
/// and state as they are known then, and how often the conflict was reported.
fn outdone(ahead: u64, after: Duration) -> (u16, ServiceState, usize) {
    let mut nodes = acquainted();
    let agent = nodes[1].identity();
    let service = |weight| record(agent.address(), weight, ServiceState::Ready);
    nodes[1].announce(service(3), NOW).unwrap();
    nodes[1].gossip_records();
    deliver(&mut nodes);
    let drains = record(agent.address(), 3, ServiceState::Draining);
    let lie = drains.encode(&agent.key(), 5, 1 + ahead, &[]).unwrap();
    nodes[0].accept_record(&lie, Duration::ZERO, true);
    let now = NOW + after;
    nodes[1].announce(service(4), now).unwrap();
    for _ in 0..4 {
        nodes[1].gossip_records();
        deliver_at(&mut nodes, now);
    }
    let told = nodes[0].take_refused();
    let known = nodes[0].records().of(&agent.key()).next();
    let known = &known.unwrap().1.announced.record;
    let outdone = told.iter().filter(|r| r.why == RecordRefusal::Outdone);
    (known.weight, known.state, outdone.count())
}

#[test]
fn a_member_is_heard_again_after_somebody_used_later_versions_in_its_name() {
    use ServiceState::{Draining, Ready};
    let (moment, long) = (Duration::from_millis(900), Duration::from_secs(1));
    for (ahead, after, expected) in [
        (0, Duration::ZERO, (4, Ready, 0)),
        (1, Duration::ZERO, (4, Ready, 1)),
        (2, long, (4, Ready, 1)),
        (64, long, (4, Ready, 1)),
        (1_000, moment, (4, Ready, 1)),
        // Datagrams may overtake each other.
        (2, moment, (3, Draining, 0)),
    ] {
        assert_eq!(outdone(ahead, after), expected, "{ahead} {after:?}");
    }
}

#[test]
fn a_replayed_datagram_does_not_keep_newcomers_out() {
    let mut nodes = [
        run_of(0, 5, Role::Proxy),
        run_of(1, 5, Role::Agent),
        run_of(2, 5, Role::Agent),
    ];
    nodes[2].set_seeds(vec![address_of(0)], NOW);
    nodes[2].run_timers(NOW);
    let recorded = nodes[2].take_packets()[0].bytes.clone();
    for _ in 0..5_000 {
        nodes[0].receive(&mut recorded.clone(), NOW);
    }
    assert_eq!(nodes[0].counters().challenges, 1);
    nodes[0].take_packets();
    nodes[1].set_seeds(vec![address_of(0)], NOW);
    nodes[1].run_timers(NOW);
    deliver(&mut nodes[..2]);
    assert_eq!(nodes[0].state_of(address_of(1)), Some((5, State::Alive)));
}

#[test]
fn timers_are_bounded_by_the_members_and_not_by_time() {
    let mut node = run_of(0, 5, Role::Proxy);
    let run = |i: u32| {
        let [_, a, b, c] = i.to_be_bytes();
        Identity::new(([10, a + 1, b, c], 7).into(), 1, Role::Agent)
    };
    let mut most = 0;
    for second in 0..300 {
        let now = NOW + Duration::from_secs(u64::from(second));
        node.set_now(now);
        for state in [State::Alive, State::Down] {
            let members = (0..40).map(|i| Member::new(run(second * 40 + i), 0, state));
            node.swim.apply_many(members, true, &mut node.io).unwrap();
        }
        node.after_swim();
        node.run_timers(now);
        node.take_packets();
        node.take_push_pulls();
        most = most.max(node.io.timers());
    }
    assert!(node.members().count() <= 50, "{}", node.members().count());
    assert!(most <= 200, "{most}");
}

#[test]
fn members_that_left_are_not_missing_nor_those_that_were_down_for_an_hour() {
    let mut node = run_of(0, 5, Role::Proxy);
    node.set_now(NOW);
    let members = (1..=6).map(|place| {
        // Every second one has left.
        let incarnation = u16::MAX - place as u16 % 2;
        let run = Identity::new(address_of(place), 1, Role::Agent);
        Member::new(run, incarnation, State::Down)
    });
    node.swim.apply_many(members, true, &mut node.io).unwrap();
    for (seconds, missed, known) in [
        (0, 3, 6),
        (3_599, 3, 6),
        (3_602, 0, 3),
        (86_399, 0, 3),
        (86_402, 0, 0),
    ] {
        node.run_timers(NOW + Duration::from_secs(seconds));
        let found = (node.missing(), node.members().count());
        assert_eq!(found, (missed, known), "{seconds}");
    }
}

#[test]
fn leaving_is_told_from_being_found_down() {
    let mut nodes = acquainted();
    nodes[1].leave(NOW);
    deliver(&mut nodes);
    assert_eq!(nodes[0].state_of(address_of(1)), Some((5, State::Down)));
    assert_eq!(nodes[0].missing(), 0);
    // Another member that learns it in a push-pull also knows that it has left.
    let left: Vec<_> = nodes[0].members().cloned().collect();
    let mut others = acquainted();
    let peer = Identity::new(address_of(2), 5, Role::Proxy);
    others[0].merge_members(&peer, true, left);
    assert_eq!(others[0].state_of(address_of(1)), Some((5, State::Down)));
    assert_eq!(others[0].missing(), 0);
    let mut others = acquainted();
    let down = Member::new(others[1].identity(), 0, State::Down);
    others[0]
        .swim
        .apply_many(std::iter::once(down), true, &mut others[0].io)
        .unwrap();
    assert_eq!(others[0].missing(), 1);
}

#[test]
fn a_member_that_is_thought_down_again_and_again_does_not_call_more_and_more() {
    // Its streams arrive, but its datagrams do not.
    let mut node = run_of(1, 5, Role::Agent);
    node.set_seeds(vec![address_of(0)], NOW);
    let peer = Identity::new(address_of(0), 5, Role::Proxy);
    let mut last_minute = 0;
    for tick in 0..3 * 3_600u64 {
        let now = NOW + Duration::from_millis(tick * 333);
        node.run_timers(now);
        if !node.take_push_pulls().is_empty() {
            let own = Member::new(node.identity(), 0, State::Down);
            let told = vec![Member::new(peer, 0, State::Alive), own];
            node.merge_members(&peer, true, told);
            node.push_pull_ended(true, now);
        }
        let sent = node.take_packets().len();
        if tick >= 3 * 3_540 {
            last_minute += sent;
        }
    }
    assert!(last_minute < 20 * 60, "{last_minute} datagrams in a minute");
}

#[test]
fn no_run_is_beyond_what_others_accept() {
    let last = Identity::new(address_of(1), MAX_EPOCH, Role::Agent);
    assert_eq!(last.renew(), None);
    let before = last.with_epoch(MAX_EPOCH - 1);
    assert_eq!(before.renew(), Some(last));
    assert_eq!(Identity::from_bytes(last.as_bytes()), Some(last));
}

#[test]
fn an_announcement_that_makes_a_node_panic_is_refused_by_the_next() {
    let mut quarantine = Quarantine::default();
    let bad = |place: usize, zone: &str| {
        let address = address_of(place);
        let record = Record {
            zone: zone.to_owned(),
            ..record(address, 1, ServiceState::Ready)
        };
        record.encode(&pack_address(address), 1, 1, &[]).unwrap()
    };
    let all = [bad(1, "a"), bad(2, BUG), bad(3, "a")];
    let mut failures = Vec::new();
    let node = loop {
        let mut node = run_of(0, 5, Role::Proxy);
        node.set_quarantine(quarantine.clone());
        let take = || {
            for bytes in &all {
                node.accept_record(bytes, Duration::ZERO, true);
            }
        };
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(take));
        let condemned = quarantine.condemn();
        assert_eq!(ended.is_err(), condemned.is_some());
        match condemned {
            Some(condemned) => failures.push(condemned.member),
            None => break node,
        }
    };
    assert_eq!(failures, [Some(address_of(2))], "once");
    assert_eq!(node.records().len(), 2);
    assert_eq!(node.counters().dropped(Dropped::Quarantined), 1);
}
