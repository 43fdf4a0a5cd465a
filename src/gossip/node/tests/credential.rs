//! What a member signs with, and what it may announce with that.

use std::sync::Arc;

use super::super::*;
use super::*;
use crate::gossip::identity::pack_address;
use crate::gossip::record::{Announcement, MAX_VERSION, RecordError};
use crate::gossip::token::{OperatorKey, mint};

const CLUSTER: &str = "a-cluster-with-a-name-of-forty-characters";

fn credential(seed: u8, networks: u8) -> AgentCredential {
    let operator = OperatorKey::generate(&[1; 32]);
    let cidrs: Vec<_> = (0..networks)
        .map(|i| format!("fd0{i}::1/128").parse().unwrap())
        .collect();
    mint(&operator, &[seed; 32], CLUSTER, &cidrs, 5, 1_000).unwrap()
}

/// An agent whose record leaves room for a token with a few networks.
fn agent(credential: AgentCredential) -> Node {
    let settings = NodeSettings {
        identity: Identity::new("127.0.0.1:1".parse().unwrap(), 1, Role::Agent),
        keyring: Arc::new(Keyring::new(&[], "", false)),
        label: String::new(),
        authority: None,
        credential: Some(credential),
        observed: false,
        limits: Limits::default(),
        seed: [0; 32],
    };
    let mut node = Node::new(settings, Duration::ZERO);
    let record = Record {
        name: "n".repeat(64),
        cluster: CLUSTER.to_owned(),
        backend: "[fd00::1]:80".parse().unwrap(),
        weight: 1,
        zone: "z".repeat(32),
        state: ServiceState::Ready,
        build: "b".repeat(32),
    };
    node.announce(record, Duration::ZERO).unwrap();
    node
}

/// The version of what it announces, and whether `by` has signed it.
fn announced(node: &Node, by: &AgentCredential) -> (u64, bool) {
    let key = node.identity().key();
    let (_, stored) = node.records().of(&key).next().unwrap();
    let announcement = Announcement::decode(&stored.bytes).unwrap();
    let signed = by.sign("", announcement.signed);
    (announcement.version, announcement.signature == signed)
}

#[test]
fn another_token_signs_what_is_announced_already() {
    let mut node = agent(credential(2, 1));
    assert_eq!(announced(&node, &credential(2, 1)), (1, true));
    node.set_credential(Some(credential(2, 1)), Duration::ZERO)
        .unwrap();
    assert_eq!(announced(&node, &credential(2, 1)), (1, true), "the same");
    node.set_credential(Some(credential(3, 2)), Duration::ZERO)
        .unwrap();
    assert_eq!(announced(&node, &credential(3, 2)), (2, true));
}

#[test]
fn a_token_that_is_too_long_is_not_used() {
    let mut node = agent(credential(2, 1));
    let refused = node.set_credential(Some(credential(3, 8)), Duration::ZERO);
    assert!(matches!(refused, Err(RecordError::Size(_))), "{refused:?}");
    assert_eq!(announced(&node, &credential(2, 1)), (1, true));
    // It continues with the previous one.
    let record = Record {
        state: ServiceState::Draining,
        ..node.announcements.own_record().unwrap().clone()
    };
    node.announce(record, Duration::ZERO).unwrap();
    assert_eq!(announced(&node, &credential(2, 1)), (2, true));
}

/// A proxy that requires tokens, an agent, and another member with a token of the same cluster, who know each other.
fn three_members() -> ([Node; 3], [AgentCredential; 2]) {
    let operator = OperatorKey::generate(&[1; 32]);
    let cidrs = ["10.0.0.0/8".parse().unwrap()];
    let of = |seed: u8| mint(&operator, &[seed; 32], "web", &cidrs, 9, 10_000).unwrap();
    let mut nodes = [
        run_of(0, 5, Role::Proxy),
        run_of(1, 5, Role::Agent),
        run_of(2, 5, Role::Proxy),
    ];
    nodes[0].set_authority(Some(Authority::new(operator.public())), NOW);
    nodes[1].set_credential(Some(of(3)), NOW).unwrap();
    for place in [1, 2] {
        nodes[place].set_seeds(vec![address_of(0)], NOW);
        nodes[place].run_timers(NOW);
        deliver(&mut nodes);
    }
    (nodes, [of(3), of(4)])
}

/// An announcement by another token in the name of the agent: that it drains.
fn usurped(by: &AgentCredential, epoch: u64, version: u64) -> Vec<u8> {
    let mut token = Vec::new();
    by.token().encode(&mut token);
    let victim = address_of(1);
    let record = record(victim, 1, ServiceState::Draining);
    let mut bytes = record
        .encode(&pack_address(victim), epoch, version, &token)
        .unwrap();
    let signature = by.sign("test", &bytes);
    bytes.extend_from_slice(&signature);
    bytes
}

fn heard_of(proxy: &Node) -> Option<(u64, ServiceState)> {
    let (_, stored) = proxy.records().of(&pack_address(address_of(1))).next()?;
    Some((stored.edition().epoch, stored.announced.state()))
}

fn say(nodes: &mut [Node; 3], state: ServiceState) {
    nodes[1]
        .announce(record(address_of(1), 1, state), NOW)
        .unwrap();
    for _ in 0..8 {
        nodes[1].gossip_records();
        deliver(nodes);
    }
}

#[test]
fn nobody_else_speaks_for_an_agent_whichever_comes_first() {
    use ServiceState::{Draining, Ready};
    for first in [true, false] {
        let (mut nodes, [own, other]) = three_members();
        let lie = |nodes: &mut [Node; 3], version| {
            nodes[0].accept_record(&usurped(&other, 5, version), Duration::ZERO, true);
            deliver(nodes);
        };
        if first {
            lie(&mut nodes, 1 << 20);
            assert_eq!(
                heard_of(&nodes[0]),
                Some((5, Draining)),
                "nobody else was heard"
            );
        }
        say(&mut nodes, Ready);
        assert_eq!(heard_of(&nodes[0]), Some((5, Ready)), "{first}");
        for version in [1, 2, 9, 1 << 20] {
            lie(&mut nodes, version);
            assert_eq!(heard_of(&nodes[0]), Some((5, Ready)), "{first} {version}");
        }
        let told = nodes[0].take_refused();
        let ids = [&own, &other].map(|c| crate::gossip::token::agent_id(c.token().agent()));
        let told: Vec<_> = told
            .into_iter()
            .map(|r| (r.member, r.why, r.agents))
            .collect();
        let conflict = (address_of(1), RecordRefusal::OtherAgent, Some(ids.into()));
        assert_eq!(told, [conflict], "once");
        assert_eq!(nodes[0].counters().dropped(Dropped::OtherAgent), 4);
        say(&mut nodes, Draining);
        assert_eq!(
            heard_of(&nodes[0]),
            Some((5, Draining)),
            "its own announcement counts"
        );
    }
}

#[test]
fn an_agent_continues_with_another_token_in_its_run_and_after_a_restart() {
    use ServiceState::{Failing, Ready};
    let (mut nodes, [_, other]) = three_members();
    say(&mut nodes, Ready);
    nodes[1].set_credential(Some(other), NOW).unwrap();
    for _ in 0..8 {
        nodes[1].gossip_records();
        deliver(&mut nodes);
    }
    let [third, fourth] = three_members().1;
    let agent = |node: &Node| node.records().bound(&pack_address(address_of(1)));
    assert_eq!(agent(&nodes[0]), Some((5, *fourth.token().agent())));
    // A new run with the first token again, as after a restart.
    nodes[1] = run_of(1, 6, Role::Agent);
    let first = three_members().1.into_iter().next();
    nodes[1].set_credential(first, NOW).unwrap();
    nodes[1].set_seeds(vec![address_of(0)], NOW);
    nodes[1].run_timers(NOW);
    deliver(&mut nodes);
    say(&mut nodes, Failing);
    assert_eq!(heard_of(&nodes[0]), Some((6, Failing)));
    assert_eq!(agent(&nodes[0]), Some((6, *third.token().agent())));
    assert_eq!(nodes[0].take_refused(), [], "that is not a conflict");
}

#[test]
fn what_is_never_proved_is_reported_after_three_seconds() {
    let (mut nodes, [_, other]) = three_members();
    say(&mut nodes, ServiceState::Ready);
    nodes[0].accept_record(&usurped(&other, 5, 9), Duration::ZERO, true);
    // The agent does not receive the request.
    nodes[0].take_packets();
    for second in 1..=4 {
        nodes[0].run_timers(NOW + Duration::from_secs(second));
        nodes[0].take_packets();
        assert_eq!(
            nodes[0].take_refused().len(),
            usize::from(second == 3),
            "{second}"
        );
    }
    assert_eq!(heard_of(&nodes[0]), Some((5, ServiceState::Ready)));
}

#[test]
fn a_member_whose_versions_are_used_up_continues_in_another_run() {
    let mut node = agent(credential(2, 1));
    let epoch = node.identity().epoch();
    node.set_own_version(MAX_VERSION);
    let record = node.announcements.own_record().unwrap().clone();
    let draining = Record {
        state: ServiceState::Draining,
        ..record
    };
    node.announce(draining, Duration::ZERO).unwrap();
    assert!(node.identity().epoch() > epoch);
    let key = node.identity().key();
    let newest = node
        .records()
        .of(&key)
        .map(|(_, s)| (s.edition(), s.announced.state()))
        .max_by_key(|(edition, _)| *edition);
    let (edition, state) = newest.unwrap();
    assert_eq!(
        (edition.epoch, edition.version, state),
        (node.identity().epoch(), 1, ServiceState::Draining)
    );
}
