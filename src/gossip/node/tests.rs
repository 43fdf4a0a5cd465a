//! Two or three members, driven by hand, datagram by datagram.

mod bounds;
mod credential;

use foca::{Member, State};

use super::*;
use crate::gossip::codec::{DatagramKind, DatagramPrefix};
use crate::gossip::counters::Dropped;
use crate::gossip::fixture::{address_of, record};
use crate::gossip::keyring::{OpenError, SecretKey};
use crate::gossip::push_pull::{PushPull, PushPullError};
use crate::gossip::token::OperatorKey;

const NOW: Time = Duration::from_secs(100);

fn ring(label: &str) -> Arc<Keyring> {
    let key = SecretKey::generate(&[7; 32]);
    Arc::new(Keyring::new(&[key], label, false))
}

fn run_of(place: usize, epoch: u64, role: Role) -> Node {
    let settings = NodeSettings {
        identity: Identity::new(address_of(place), epoch, role),
        keyring: ring("test"),
        label: "test".to_owned(),
        authority: None,
        credential: None,
        observed: true,
        limits: Limits {
            members: 50,
            new_members: 10,
            records: 50,
        },
        seed: [place as u8; 32],
    };
    Node::new(settings, NOW)
}

/// Delivers packets until nobody has any more.
fn deliver(nodes: &mut [Node]) {
    deliver_at(nodes, NOW);
}

fn deliver_at(nodes: &mut [Node], now: Time) {
    loop {
        let packets: Vec<Packet> = nodes.iter_mut().flat_map(Node::take_packets).collect();
        if packets.is_empty() {
            return;
        }
        for mut packet in packets {
            let of = |node: &&mut Node| node.identity().address() == packet.to;
            if let Some(node) = nodes.iter_mut().find(of) {
                node.receive(&mut packet.bytes, now);
            }
        }
    }
}

/// Two members that know each other.
fn acquainted() -> [Node; 2] {
    let mut nodes = [run_of(0, 5, Role::Proxy), run_of(1, 5, Role::Agent)];
    nodes[1].set_seeds(vec![address_of(0)], NOW);
    nodes[1].run_timers(NOW);
    deliver(&mut nodes);
    assert_eq!(nodes[0].state_of(address_of(1)), Some((5, State::Alive)));
    assert_eq!(nodes[1].state_of(address_of(0)), Some((5, State::Alive)));
    nodes
}

#[test]
fn nothing_of_an_unknown_run_is_applied_before_its_echo() {
    let mut nodes = [run_of(0, 5, Role::Proxy), run_of(1, 5, Role::Agent)];
    nodes[1].set_seeds(vec![address_of(0)], NOW);
    nodes[1].run_timers(NOW);
    let mut announce = nodes[1].take_packets();
    let recorded = announce[0].bytes.clone();
    nodes[0].receive(&mut announce[0].bytes, NOW);
    assert_eq!(nodes[0].state_of(address_of(1)), None);
    assert_eq!(nodes[0].counters().challenges, 1);
    deliver(&mut nodes);
    assert_eq!(nodes[0].state_of(address_of(1)), Some((5, State::Alive)));
    nodes[0].receive(&mut recorded.clone(), NOW);
    assert_eq!(nodes[0].counters().dropped(Dropped::Replayed), 1);
    assert!(
        nodes[0].take_packets().is_empty(),
        "a replay is not answered"
    );
}

#[test]
fn what_is_dropped_is_counted_by_reason() {
    let mut node = run_of(0, 5, Role::Proxy);
    let sealed = |label: &str, kind: u8, body: &[u8]| {
        let mut bytes = Vec::new();
        ring(label).seal(kind, &[], [1; 12], body, &mut bytes);
        bytes
    };
    let own = forged(&node.identity());
    let mut echo = Vec::new();
    DatagramPrefix::write_start(DatagramKind::Echo, 1, &mut echo);
    echo.extend_from_slice(Identity::new(address_of(1), 5, Role::Agent).as_bytes());
    echo.extend_from_slice(&[0; 16]);
    for (mut packet, why) in [
        (Vec::new(), Dropped::Seal(OpenError::Truncated)),
        (vec![1; tuning::MAX_DATAGRAM + 1], Dropped::Oversized),
        (vec![9; 99], Dropped::Seal(OpenError::Version)),
        (
            sealed("other", DATAGRAM, &[0; 50]),
            Dropped::Seal(OpenError::UnknownKey),
        ),
        (
            sealed("test", DATAGRAM + 1, &[0; 50]),
            Dropped::Seal(OpenError::Kind),
        ),
        (sealed("test", DATAGRAM, &[]), Dropped::Malformed),
        (sealed("test", DATAGRAM, &[77; 90]), Dropped::Malformed),
        (own, Dropped::Own),
        (sealed("test", DATAGRAM, &echo), Dropped::Echo),
    ] {
        let before = node.counters().dropped(why);
        node.receive(&mut packet, NOW);
        assert_eq!(node.counters().dropped(why), before + 1, "{why:?}");
        assert!(node.take_packets().is_empty(), "{why:?} is answered");
    }
}

#[test]
fn every_reason_has_its_own_label_and_index() {
    let all: Vec<Dropped> = Dropped::all().collect();
    assert_eq!(all.len(), Dropped::COUNT);
    for (place, why) in all.iter().enumerate() {
        assert_eq!(why.index(), place, "{why:?}");
        let first = all.iter().position(|other| other.as_str() == why.as_str());
        assert_eq!(first, Some(place), "{why:?}");
    }
}

#[test]
fn a_refused_announcement_is_reported_with_its_reason() {
    let mut nodes = acquainted();
    let operator = OperatorKey::generate(&[1; 32]).public();
    nodes[0].set_authority(Some(Authority::new(operator)), NOW);
    let service = record(address_of(1), 3, ServiceState::Ready);
    nodes[1].announce(service, NOW).unwrap();
    for _ in 0..2 {
        nodes[1].gossip_records();
        deliver(&mut nodes);
    }
    let why = RecordRefusal::NoToken;
    assert_eq!(nodes[0].counters().dropped(Dropped::NoToken), 2);
    let refused = Refused {
        member: address_of(1),
        cluster: "web".to_owned(),
        why,
        agents: None,
    };
    assert_eq!(nodes[0].take_refused(), [refused], "once");
    assert_eq!(nodes[0].refused(), [(address_of(1), why)]);
    nodes[0].set_authority(None, NOW);
    nodes[1].gossip_records();
    deliver(&mut nodes);
    assert_eq!(nodes[0].refused(), [], "it is used now");
}

#[test]
fn only_reports_about_the_current_run_count() {
    for (about, known, listens) in [
        (4, 5, false),
        (4, 9, false),
        (5, 4, false),
        (5, 5, true),
        (5, 9, true),
    ] {
        let mut nodes = [run_of(0, 5, Role::Proxy), run_of(1, 5, Role::Agent)];
        let run = Identity::new(address_of(1), about, Role::Agent);
        nodes[0].send_newer(&run, known);
        let mut packets = nodes[0].take_packets();
        nodes[1].receive(&mut packets[0].bytes, NOW);
        let epoch = nodes[1].identity().epoch();
        assert_eq!(epoch, 5, "the reporter has not proved to be live");
        deliver(&mut nodes);
        let epoch = nodes[1].identity().epoch();
        let right = if listens { epoch > known } else { epoch == 5 };
        assert!(right, "{about} {known}: {epoch}");
    }
}

/// A datagram that anybody with the key can make.
fn forged(sender: &Identity) -> Vec<u8> {
    let mut body = Vec::new();
    DatagramPrefix::write_start(DatagramKind::Swim, 1, &mut body);
    body.extend_from_slice(sender.as_bytes());
    let mut bytes = Vec::new();
    ring("test").seal(DATAGRAM, &[], [1; 12], &body, &mut bytes);
    bytes
}

#[test]
fn only_verified_members_report_later_runs_and_each_ip_address_counts_once() {
    let at = |place: usize, port: u16| {
        let address = SocketAddr::new(address_of(place).ip(), port);
        Identity::new(address, 5, Role::Proxy)
    };
    let mut node = run_of(0, 5, Role::Agent);
    let peers = (1..9).map(|place| Member::new(at(place, 7946), 0, State::Alive));
    node.merge_members(&at(1, 7946), true, peers.collect());
    for turn in 0..20 {
        let later = node.identity().with_epoch(12 + turn);
        node.receive(&mut forged(&later), NOW);
        for place in 2..9 {
            let told = vec![Member::new(later, 0, State::Alive)];
            node.merge_members(&at(place, 7946), false, told);
        }
        for port in 1..9 {
            node.note_later_run(&at(1, port), later.epoch());
        }
    }
    assert_eq!(node.identity().epoch(), 5);
    // An unverified member is called at its address, since it may be right.
    let called = node.take_packets().iter().any(|p| p.to == address_of(8));
    assert!(called);
    node.note_later_run(&at(2, 7946), 12);
    assert!(node.identity().epoch() > 12, "a second report");
}

#[test]
fn one_report_is_enough_if_all_others_share_one_ip_address() {
    let mut node = run_of(0, 5, Role::Agent);
    let at = |port: u16| Identity::new(([10, 0, 0, 9], port).into(), 5, Role::Proxy);
    let peers = (1..9).map(|port| Member::new(at(port), 0, State::Alive));
    node.merge_members(&at(1), true, peers.collect());
    node.note_later_run(&at(1), 12);
    assert!(node.identity().epoch() > 12);
}

/// Lets a node dial `address`, where `server` answers.
fn dial(node: &mut Node, address: SocketAddr, server: &mut Node) {
    let (mut client, mut hello) = PushPull::client(node, address, NOW);
    let mut out = Vec::new();
    let taken = PushPull::server().take(server, &mut hello, &mut out, NOW);
    taken.expect("every run is answered");
    let taken = client.take(node, &mut out[0], &mut Vec::new(), NOW);
    assert_eq!(taken, Err(PushPullError::Own));
}

#[test]
fn only_a_later_run_that_answers_at_the_own_address_silences_a_member_for_a_time() {
    let mut node = run_of(0, 5, Role::Agent);
    let own = address_of(0);
    let teller = |place: usize| Identity::new(address_of(place), 5, Role::Proxy);
    // Two members report it each time: one alone does not count among many, however often it reports.
    let peers = (1..9).map(|place| Member::new(teller(place), 0, State::Alive));
    node.merge_members(&teller(1), true, peers.collect());
    node.joining.joined = true;
    for turn in 0..5 {
        let later = node.identity().epoch() + 7;
        for _ in 0..3 {
            node.note_later_run(&teller(1), later);
        }
        assert!(node.identity().epoch() < later, "{turn}");
        node.note_later_run(&teller(2), later);
        assert!(node.identity().epoch() > later, "{turn}");
    }
    let epoch = node.identity().epoch();
    for place in (1..9).cycle().take(100) {
        node.note_later_run(&teller(place), epoch + 1);
    }
    assert_eq!(node.take_push_pulls(), [own], "it dials, and not too often");
    assert!(!node.in_conflict(), "reports alone are not a proof");
    dial(&mut node, own, &mut run_of(0, epoch, Role::Agent));
    dial(&mut node, own, &mut run_of(0, epoch - 1, Role::Agent));
    let elsewhere = address_of(3);
    dial(&mut node, elsewhere, &mut run_of(0, epoch + 1, Role::Agent));
    assert!(!node.in_conflict(), "itself, or not at its address");
    assert_eq!(node.identity().epoch(), epoch);
    dial(&mut node, own, &mut run_of(0, epoch + 1, Role::Agent));
    assert!(node.in_conflict());
    node.take_packets();
    node.run_timers(NOW + Duration::from_secs(299));
    assert!(node.take_packets().is_empty(), "it is silent");
    assert!(
        node.members().all(|member| member.state() == State::Alive),
        "and takes nobody for dead that was not asked"
    );
    node.run_timers(NOW + Duration::from_secs(302));
    assert!(!node.in_conflict());
}

#[test]
fn one_member_alone_can_neither_silence_another_nor_use_up_its_runs() {
    const UNIX: u64 = 1_790_000_000;
    let first = UNIX * 1_000;
    let mut nodes = [
        run_of(0, first, Role::Proxy),
        run_of(1, first, Role::Agent),
        run_of(2, first, Role::Proxy),
    ];
    nodes.iter_mut().for_each(|node| node.set_unix(UNIX));
    for place in [1, 2] {
        nodes[place].set_seeds(vec![address_of(0)], NOW);
        nodes[place].run_timers(NOW);
        deliver(&mut nodes);
    }
    let members: Vec<_> = nodes
        .iter()
        .map(|node| Member::new(node.identity(), 0, State::Alive))
        .collect();
    let peer = nodes[2].identity();
    nodes[0].merge_members(&peer, true, members);
    deliver(&mut nodes);
    let far = Dropped::Malformed;
    for known in [
        first + (366 * 86_400 + 1) * 1_000,
        super::super::identity::MAX_EPOCH,
        u64::MAX,
    ] {
        for _ in 0..20 {
            let run = nodes[0].identity();
            nodes[1].send_newer(&run, known);
            nodes[1].send_newer(&run, run.epoch() + 1_000);
            deliver(&mut nodes);
        }
    }
    assert_eq!(
        nodes[0].identity().epoch(),
        first,
        "one report does not count"
    );
    // It may say as often as it likes that the run is down: that only costs a few runs.
    for _ in 0..100 {
        let run = nodes[0].identity();
        nodes[1].send_newer(&run, run.epoch());
        deliver(&mut nodes);
    }
    assert!(nodes[0].identity().epoch() < first + 10_000);
    assert!(!nodes[0].in_conflict());
    // An impossible run belongs to nobody.
    let before = nodes[0].counters().dropped(far);
    let run = Identity::new(address_of(7), first * 2, Role::Agent);
    nodes[0].merge_members(&peer, true, vec![Member::new(run, 0, State::Alive)]);
    assert_eq!(nodes[0].counters().dropped(far), before + 1);
    assert_eq!(nodes[0].state_of(address_of(7)), None);
}

#[test]
fn a_suspect_is_told_by_the_first_member_that_it_speaks_to_and_refutes() {
    let mut nodes = acquainted();
    let suspect = Member::new(nodes[1].identity(), 0, State::Suspect);
    let third = Identity::new(address_of(2), 5, Role::Agent);
    nodes[0].merge_members(&third, true, vec![suspect]);
    assert_eq!(nodes[0].state_of(address_of(1)), Some((5, State::Suspect)));
    nodes[0].take_packets();
    // It sends something without knowing that it is suspect.
    nodes[1].announce_to(address_of(0));
    deliver(&mut nodes);
    assert_eq!(nodes[0].state_of(address_of(1)), Some((5, State::Alive)));
    assert_eq!(nodes[1].identity().epoch(), 5, "in the same run");
}

#[test]
fn members_are_bounded_in_datagrams_and_in_push_pulls() {
    let mut nodes = acquainted();
    let invented = |range: std::ops::Range<usize>| -> Vec<Member<Identity>> {
        let ids = range.map(|place| Identity::new(address_of(place), 1, Role::Agent));
        ids.map(|id| Member::new(id, 0, State::Alive)).collect()
    };
    // The other one has room; a datagram carries about 30 of its news.
    nodes[1].limits.members = 10_000;
    let own = nodes[1].identity();
    nodes[1].joining.joined = true;
    nodes[1].merge_members(&own, true, invented(10..2_000));
    for _ in 0..5 {
        let _ = nodes[1].swim.gossip(&mut nodes[1].io);
    }
    deliver(&mut nodes);
    let known = nodes[0].members().count();
    assert!(known <= 1 + 10, "{known} in one second");
    nodes[0].merge_members(&own, true, invented(10..2_000));
    assert_eq!(nodes[0].members().count(), 50);
    assert!(nodes[0].counters().dropped(Dropped::Limit) > 1_000);
}

#[test]
fn announcing_the_same_again_sends_nothing() {
    let mut nodes = acquainted();
    let service = record(address_of(1), 3, ServiceState::Ready);
    nodes[1].announce(service.clone(), NOW).unwrap();
    nodes[1].gossip_records();
    deliver(&mut nodes);
    let version = |node: &Node| {
        let mut all = node
            .records()
            .of(&Identity::new(address_of(1), 5, Role::Agent).key())
            .map(|(_, s)| s.edition().version)
            .collect::<Vec<_>>();
        all.pop()
    };
    assert_eq!(version(&nodes[0]), Some(1));
    nodes[1].announce(service, NOW).unwrap();
    assert_eq!(version(&nodes[1]), Some(1));
    nodes[1].leave(NOW);
    deliver(&mut nodes);
    assert_eq!(version(&nodes[0]), Some(2));
    assert_eq!(nodes[0].state_of(address_of(1)), Some((5, State::Down)));
    let view = nodes[0].view(NOW);
    let left = view
        .members
        .iter()
        .find(|member| member.address == address_of(1));
    assert_eq!(
        left.map(|member| member.liveness),
        Some(super::super::view::Liveness::Left)
    );
}
