//! Two or three members by hand, datagram by datagram.

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

/// Carries packets until nobody has any more.
fn carry(nodes: &mut [Node]) {
    carry_at(nodes, NOW);
}

fn carry_at(nodes: &mut [Node], now: Time) {
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

/// Two that know each other.
fn acquainted() -> [Node; 2] {
    let mut nodes = [run_of(0, 5, Role::Proxy), run_of(1, 5, Role::Agent)];
    nodes[1].set_seeds(vec![address_of(0)], NOW);
    nodes[1].run_timers(NOW);
    carry(&mut nodes);
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
    carry(&mut nodes);
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
fn every_reason_has_its_own_word_and_place() {
    let all: Vec<Dropped> = Dropped::all().collect();
    assert_eq!(all.len(), Dropped::COUNT);
    for (place, why) in all.iter().enumerate() {
        assert_eq!(why.index(), place, "{why:?}");
        let first = all.iter().position(|other| other.as_str() == why.as_str());
        assert_eq!(first, Some(place), "{why:?}");
    }
}

#[test]
fn an_announcement_that_is_refused_is_handed_out_with_its_reason() {
    let mut nodes = acquainted();
    let operator = OperatorKey::generate(&[1; 32]).public();
    nodes[0].set_authority(Some(Authority::new(operator)), NOW);
    let service = record(address_of(1), 3, ServiceState::Ready);
    nodes[1].announce(service, NOW).unwrap();
    for _ in 0..2 {
        nodes[1].gossip_records();
        carry(&mut nodes);
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
    carry(&mut nodes);
    assert_eq!(nodes[0].refused(), [], "it is used now");
}

#[test]
fn only_a_word_about_the_present_run_is_listened_to() {
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
        assert_eq!(epoch, 5, "who tells has not proved to be live");
        carry(&mut nodes);
        let epoch = nodes[1].identity().epoch();
        let right = if listens { epoch > known } else { epoch == 5 };
        assert!(right, "{about} {known}: {epoch}");
    }
}

/// A datagram as anybody can make it who has the key.
fn forged(sender: &Identity) -> Vec<u8> {
    let mut body = Vec::new();
    DatagramPrefix::write_start(DatagramKind::Swim, 1, &mut body);
    body.extend_from_slice(sender.as_bytes());
    let mut bytes = Vec::new();
    ring("test").seal(DATAGRAM, &[], [1; 12], &body, &mut bytes);
    bytes
}

#[test]
fn only_who_is_where_it_says_tells_of_later_runs_and_each_ip_address_once() {
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
    // Who is not believed is called where it says it is, since it may have been right.
    let called = node.take_packets().iter().any(|p| p.to == address_of(8));
    assert!(called);
    node.note_later_run(&at(2, 7946), 12);
    assert!(node.identity().epoch() > 12, "a second one");
}

#[test]
fn where_all_others_live_at_one_ip_address_one_of_them_is_enough() {
    let mut node = run_of(0, 5, Role::Agent);
    let at = |port: u16| Identity::new(([10, 0, 0, 9], port).into(), 5, Role::Proxy);
    let peers = (1..9).map(|port| Member::new(at(port), 0, State::Alive));
    node.merge_members(&at(1), true, peers.collect());
    node.note_later_run(&at(1), 12);
    assert!(node.identity().epoch() > 12);
}

/// Lets a node dial `address`, where the server answers.
fn dial(node: &mut Node, address: SocketAddr, server: &mut Node) {
    let (mut client, mut hello) = PushPull::client(node, address, NOW);
    let mut out = Vec::new();
    let taken = PushPull::server().take(server, &mut hello, &mut out, NOW);
    taken.expect("every run is answered");
    let taken = client.take(node, &mut out[0], &mut Vec::new(), NOW);
    assert_eq!(taken, Err(PushPullError::Own));
}

#[test]
fn only_a_later_run_that_answers_at_the_own_address_silences_a_member_and_for_a_time() {
    let mut node = run_of(0, 5, Role::Agent);
    let own = address_of(0);
    let teller = |place: usize| Identity::new(address_of(place), 5, Role::Proxy);
    // Each time by two: one alone, however often, does not count among many.
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
    assert_eq!(node.take_push_pulls(), [own], "it looks, and not too often");
    assert!(!node.in_conflict(), "words alone are no proof");
    dial(&mut node, own, &mut run_of(0, epoch, Role::Agent));
    dial(&mut node, own, &mut run_of(0, epoch - 1, Role::Agent));
    let elsewhere = address_of(3);
    dial(&mut node, elsewhere, &mut run_of(0, epoch + 1, Role::Agent));
    assert!(!node.in_conflict(), "itself, or nobody at its address");
    assert_eq!(node.identity().epoch(), epoch);
    dial(&mut node, own, &mut run_of(0, epoch + 1, Role::Agent));
    assert!(node.in_conflict());
    node.take_packets();
    node.run_timers(NOW + Duration::from_secs(299));
    assert!(node.take_packets().is_empty(), "it says nothing");
    assert!(
        node.members().all(|member| member.state() == State::Alive),
        "and holds nobody for dead who was not asked"
    );
    node.run_timers(NOW + Duration::from_secs(302));
    assert!(!node.in_conflict());
}

#[test]
fn one_member_alone_can_neither_silence_another_nor_wear_out_its_runs() {
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
        carry(&mut nodes);
    }
    let members: Vec<_> = nodes
        .iter()
        .map(|node| Member::new(node.identity(), 0, State::Alive))
        .collect();
    let peer = nodes[2].identity();
    nodes[0].merge_members(&peer, true, members);
    carry(&mut nodes);
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
            carry(&mut nodes);
        }
    }
    assert_eq!(nodes[0].identity().epoch(), first, "one word is none");
    // As often as it likes it may say that the run is down: that costs a few runs and nothing else.
    for _ in 0..100 {
        let run = nodes[0].identity();
        nodes[1].send_newer(&run, run.epoch());
        carry(&mut nodes);
    }
    assert!(nodes[0].identity().epoch() < first + 10_000);
    assert!(!nodes[0].in_conflict());
    // A run that cannot be is nobody's.
    let before = nodes[0].counters().dropped(far);
    let run = Identity::new(address_of(7), first * 2, Role::Agent);
    nodes[0].merge_members(&peer, true, vec![Member::new(run, 0, State::Alive)]);
    assert_eq!(nodes[0].counters().dropped(far), before + 1);
    assert_eq!(nodes[0].state_of(address_of(7)), None);
}

#[test]
fn a_suspect_is_told_by_the_first_that_it_speaks_to_and_contradicts() {
    let mut nodes = acquainted();
    let suspect = Member::new(nodes[1].identity(), 0, State::Suspect);
    let third = Identity::new(address_of(2), 5, Role::Agent);
    nodes[0].merge_members(&third, true, vec![suspect]);
    assert_eq!(nodes[0].state_of(address_of(1)), Some((5, State::Suspect)));
    nodes[0].take_packets();
    // It says anything, and does not know.
    nodes[1].announce_to(address_of(0));
    carry(&mut nodes);
    assert_eq!(nodes[0].state_of(address_of(1)), Some((5, State::Alive)));
    assert_eq!(nodes[1].identity().epoch(), 5, "in the same run");
}

#[test]
fn members_are_bounded_by_datagrams_and_by_exchanges() {
    let mut nodes = acquainted();
    let invented = |range: std::ops::Range<usize>| -> Vec<Member<Identity>> {
        let ids = range.map(|place| Identity::new(address_of(place), 1, Role::Agent));
        ids.map(|id| Member::new(id, 0, State::Alive)).collect()
    };
    // The other one has room; a datagram carries some 30 of its news.
    nodes[1].limits.members = 10_000;
    let own = nodes[1].identity();
    nodes[1].joining.joined = true;
    nodes[1].merge_members(&own, true, invented(10..2_000));
    for _ in 0..5 {
        let _ = nodes[1].swim.gossip(&mut nodes[1].io);
    }
    carry(&mut nodes);
    let known = nodes[0].members().count();
    assert!(known <= 1 + 10, "{known} in one second");
    nodes[0].merge_members(&own, true, invented(10..2_000));
    assert_eq!(nodes[0].members().count(), 50);
    assert!(nodes[0].counters().dropped(Dropped::Limit) > 1_000);
}

#[test]
fn what_is_announced_already_is_not_told_again() {
    let mut nodes = acquainted();
    let service = record(address_of(1), 3, ServiceState::Ready);
    nodes[1].announce(service.clone(), NOW).unwrap();
    nodes[1].gossip_records();
    carry(&mut nodes);
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
    carry(&mut nodes);
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
