//! Several members that announce one address: whose order counts.

use super::*;

/// A member at host 100 and above that announces the backend of host 1.
fn agent(host: u8, state: ServiceState) -> Peer {
    let mut peer = Peer::new(host, state);
    peer.record.backend = backend(1);
    peer
}

fn down(host: u8, state: ServiceState) -> Peer {
    Peer {
        liveness: Liveness::Down,
        ..agent(host, state)
    }
}

/// Plays sets of members, one per second; after each the backend is a candidate, or not.
#[track_caller]
fn plays(steps: &[(&[Peer], bool)]) {
    for checked in [true, false] {
        let mut bench = Bench::new(checked);
        bench.set_health(1, LocalHealth::Healthy);
        for (second, (peers, is_in)) in steps.iter().enumerate() {
            let beside = [Peer::ready(2), Peer::ready(3)];
            bench.update(second as u64, &[peers, &beside[..]].concat());
            let hosts = bench.hosts();
            assert_eq!(
                hosts.contains(&1),
                *is_in,
                "step {second}, {checked}: {hosts:?}"
            );
        }
    }
}

#[test]
fn a_duplicate_that_ends_in_order_drains_nothing() {
    use ServiceState::{Draining, Left, Ready, Starting};
    let first = || agent(100, Ready);
    // Whether it comes first or second, by address and by epoch.
    for (host, epoch) in [(101, 1), (101, 9), (99, 1), (99, 9)] {
        let other = |state| Peer {
            epoch,
            ..agent(host, state)
        };
        plays(&[
            (&[first()], true),
            (&[first(), other(Starting)], true),
            (&[first(), other(Ready)], true),
            (&[first(), other(Draining)], true),
            (&[first(), other(Left)], true),
            (&[first()], true),
            (&[agent(100, Draining)], false),
        ]);
        // It counts only while it is the only one; and the first one's drain counts for all.
        plays(&[
            (&[first()], true),
            (&[first(), other(Ready)], true),
            (&[agent(100, Draining), other(Ready)], false),
            (&[agent(100, Draining), other(Ready)], false),
            // Its service continues although its first agent has ended.
            (&[agent(100, Left), other(Ready)], true),
            (&[agent(100, Left), other(Draining)], false),
        ]);
        // One that starts while another is still leaving.
        plays(&[
            (&[other(Draining)], false),
            (&[other(Draining), first()], true),
            (&[other(Left), first()], true),
        ]);
    }
}

#[test]
fn all_that_announce_it_may_order_it_too() {
    use ServiceState::{Draining, Left, Ready};
    // The owner has disappeared: an order of one of two does not count, and a loss is for the checks to decide.
    plays(&[
        (&[agent(100, Ready)], true),
        (&[agent(100, Ready), agent(101, Ready)], true),
        (&[down(100, Ready), agent(101, Ready)], true),
        (&[down(100, Ready), agent(101, Draining)], true),
        (&[agent(101, Draining)], false),
    ]);
    plays(&[
        (&[agent(100, Ready)], true),
        (
            &[agent(100, Ready), agent(101, Ready), agent(102, Ready)],
            true,
        ),
        (&[agent(101, Ready), agent(102, Ready)], true),
        (&[agent(101, Left), agent(102, Left)], false),
    ]);
}

#[test]
fn another_members_record_changes_neither_weight_nor_owner() {
    let mut bench = Bench::new(true);
    let heavy = Peer {
        epoch: 9,
        record: Record {
            weight: 900,
            ..agent(101, ServiceState::Ready).record
        },
        ..agent(101, ServiceState::Ready)
    };
    let seen = |bench: &Bench| {
        let all: Vec<&Candidate> = bench.candidates.of("web").collect();
        (all[0].weight, all[0].member.unwrap().ip().to_string())
    };
    let owner = |host: u8| format!("10.0.0.{host}");
    bench.update(0, &[agent(100, ServiceState::Ready)]);
    assert_eq!(seen(&bench), (1, owner(100)));
    let both = [agent(100, ServiceState::Ready), heavy.clone()];
    assert!(!bench.update(1, &both).0);
    assert_eq!(seen(&bench), (1, owner(100)));
    // A rumour that the owner is down does not make another member the owner at once.
    let mut set = set(&[down(100, ServiceState::Ready), heavy]);
    set.at = s(2);
    for member in &mut set.members {
        member.changed = s(2);
    }
    for (second, expected) in [
        (2, (1, owner(100))),
        (61, (1, owner(100))),
        (62, (900, owner(101))),
    ] {
        set.at = s(second);
        bench.update_with(second, &set);
        assert_eq!(seen(&bench), expected, "{second}");
        assert_eq!(bench.found(), [(1, false)], "{second}");
    }
}
