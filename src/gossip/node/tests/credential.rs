//! What a member signs by, and what it may announce with it.

use std::sync::Arc;

use super::super::*;
use crate::gossip::record::Announcement;
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
    let settings = Settings {
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

/// Version, token and signer's good signature of what it announces.
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
fn a_token_that_is_too_long_is_not_taken() {
    let mut node = agent(credential(2, 1));
    let refused = node.set_credential(Some(credential(3, 8)), Duration::ZERO);
    assert!(matches!(refused, Err(RecordError::Size(_))), "{refused:?}");
    assert_eq!(announced(&node, &credential(2, 1)), (1, true));
    // And goes on by the one before.
    let record = Record {
        state: ServiceState::Draining,
        ..node.own.as_ref().unwrap().record.clone()
    };
    node.announce(record, Duration::ZERO).unwrap();
    assert_eq!(announced(&node, &credential(2, 1)), (2, true));
}
