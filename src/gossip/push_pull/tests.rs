//! Two members, driven by hand, frame by frame.

use std::time::Duration;

use super::*;
use crate::gossip::fixture::{address_of, record};
use crate::gossip::keyring::{Keyring, SecretKey};
use crate::gossip::node::{Limits, NodeSettings};
use crate::gossip::record::ServiceState;
use crate::gossip::records::RecordRefusal;

const NOW: Time = Duration::from_secs(100);

fn member(place: usize, role: Role) -> Node {
    let key = SecretKey::generate(&[7; 32]);
    let settings = NodeSettings {
        identity: Identity::new(address_of(place), 5, role),
        keyring: Arc::new(Keyring::new(&[key], "test", false)),
        label: "test".to_owned(),
        authority: None,
        credential: None,
        observed: false,
        limits: Limits::default(),
        seed: [place as u8; 32],
    };
    let mut node = Node::new(settings, NOW);
    if role == Role::Agent {
        let record = record(address_of(place), 1, ServiceState::Ready);
        node.announce(record, NOW).unwrap();
    }
    node
}

fn known_as(place: usize, state: State) -> Member<Identity> {
    let identity = Identity::new(address_of(place), 5, Role::Agent);
    Member::new(identity, 0, state)
}

/// Lets a node know agents, and their services if it stores them.
fn tell(node: &mut Node, places: std::ops::Range<usize>) {
    let members = places.clone().map(|place| known_as(place, State::Alive));
    let nobody = Identity::new(address_of(9_999), 1, Role::Agent);
    node.merge_members(&nobody, true, members.collect());
    for place in places {
        let id = Identity::new(address_of(place), 5, Role::Agent);
        let record = record(address_of(place), 1, ServiceState::Ready);
        let bytes = record.encode(&id.key(), id.epoch(), 1, &[]).unwrap();
        if node.stores_all() {
            node.accept_record(&bytes, Duration::ZERO, false);
        }
    }
}

/// All frames of a push-pull, in order, each with whether the client receives it. `meddle` sees a batch before it
/// arrives.
fn run(
    client: &mut Node,
    server: &mut Node,
    mut meddle: impl FnMut(usize, &mut Vec<Vec<u8>>),
) -> Result<Vec<(bool, Vec<u8>)>, PushPullError> {
    let (mut at_client, hello) = PushPull::client(client, server.identity().address(), NOW);
    let mut at_server = PushPull::server();
    let (mut batch, mut to_client, mut all) = (vec![hello], false, Vec::new());
    for number in 0.. {
        meddle(number, &mut batch);
        let mut answer = Vec::new();
        let mut done = false;
        for mut frame in batch {
            all.push((to_client, frame.clone()));
            let progress = if to_client {
                at_client.take(client, &mut frame, &mut answer, NOW)?
            } else {
                at_server.take(server, &mut frame, &mut answer, NOW)?
            };
            done |= progress == PushPullProgress::Done;
        }
        if to_client && done {
            client.push_pull_ended(true, NOW);
            break;
        }
        assert!(!answer.is_empty(), "nobody knows how to go on");
        (batch, to_client) = (answer, !to_client);
    }
    Ok(all)
}

fn untouched(_: usize, _: &mut Vec<Vec<u8>>) {}

fn places(node: &Node) -> Vec<SocketAddr> {
    let active = node.members().filter(|m| m.state() != State::Down);
    let mut all: Vec<_> = active.map(|m| m.id().address()).collect();
    all.sort_unstable();
    all
}

fn range(places: std::ops::Range<usize>) -> Vec<SocketAddr> {
    places.map(address_of).collect()
}

#[test]
fn both_have_everything_after() {
    let (mut one, mut other) = (member(0, Role::Proxy), member(1, Role::Proxy));
    // More than one frame holds.
    tell(&mut one, 2..400);
    tell(&mut other, 300..700);
    run(&mut one, &mut other, untouched).unwrap();
    assert_eq!(places(&one), range(1..700));
    // The client becomes known by its next datagram, which proves where it is.
    assert_eq!(places(&other), range(2..700));
    assert_eq!((one.records().len(), other.records().len()), (698, 698));
    assert!(one.has_joined() && !other.has_joined());
}

#[test]
fn two_members_that_agree_send_little() {
    let (mut one, mut other) = (member(0, Role::Proxy), member(1, Role::Proxy));
    tell(&mut one, 2..2_000);
    tell(&mut other, 2..2_000);
    let peer = other.identity();
    other.merge_members(
        &peer,
        true,
        vec![Member::new(one.identity(), 0, State::Alive)],
    );
    run(&mut one, &mut other, untouched).unwrap();
    let frames = run(&mut one, &mut other, untouched).unwrap();
    let bytes: usize = frames.iter().map(|(_, frame)| frame.len()).sum();
    assert!(bytes < 6 * 1024, "{bytes}");
}

#[test]
fn an_agents_own_announcement_reaches_a_proxy_from_either_side() {
    for agent_asks in [true, false] {
        let (mut agent, mut proxy) = (member(0, Role::Agent), member(1, Role::Proxy));
        tell(&mut proxy, 2..20);
        if agent_asks {
            run(&mut agent, &mut proxy, untouched).unwrap();
        } else {
            run(&mut proxy, &mut agent, untouched).unwrap();
        }
        let own = |node: &Node| node.records().of(&agent.identity().key()).count();
        assert_eq!(own(&proxy), 1, "{agent_asks}");
        assert_eq!(
            agent.records().len(),
            1,
            "an agent does not store another's"
        );
    }
}

/// Lets one ask the other, after somebody has announced in the agent's name, `before` that.
fn with_an_impostor(agent_asks: bool, before: Duration) -> (Node, Node) {
    let (mut agent, mut proxy) = (member(0, Role::Agent), member(1, Role::Proxy));
    let who = agent.identity();
    proxy.merge_members(&who, true, vec![known_as(0, State::Alive)]);
    let drains = record(address_of(0), 1, ServiceState::Draining);
    let lie = drains.encode(&who.key(), who.epoch(), 3, &[]).unwrap();
    proxy.set_now(NOW - before);
    proxy.accept_record(&lie, Duration::ZERO, true);
    proxy.take_packets();
    let done = match agent_asks {
        true => run(&mut agent, &mut proxy, untouched),
        false => run(&mut proxy, &mut agent, untouched),
    };
    done.unwrap();
    (agent, proxy)
}

#[test]
fn an_impostor_is_detected_from_either_side() {
    let (agent, _) = with_an_impostor(true, Duration::ZERO);
    assert!(agent.identity().epoch() > 5);
    // The agent itself may have announced it in the meantime.
    for (before, found) in [(Duration::from_millis(999), false), (REORDERING, true)] {
        let (_, mut proxy) = with_an_impostor(false, before);
        let told = proxy.take_packets();
        let told = told.iter().any(|packet| packet.to == address_of(0));
        let refused = proxy.take_refused();
        let refused = refused.iter().any(|r| r.why == RecordRefusal::Outdone);
        assert_eq!((told, refused), (found, found), "{before:?}");
    }
}

#[test]
fn a_changed_frame_is_refused() {
    let frames = whole();
    for place in 0..frames.len() {
        for bit in [0, 7, 50, 200] {
            let result = with_frame(place, |frame| {
                let bit = bit % (frame.len() * 8);
                frame[bit / 8] ^= 1 << (bit % 8);
            });
            let refused = matches!(result, Err(PushPullError::Seal(_)));
            assert!(refused, "frame {place}, bit {bit}: {result:?}");
        }
        let result = with_frame(place, |frame| frame.truncate(frame.len() / 2));
        assert!(matches!(result, Err(PushPullError::Seal(_))), "{place}");
    }
}

#[test]
fn a_frame_of_another_stream_is_refused() {
    let recorded = whole();
    // A first frame opens a stream whoever sends it, but only its original sender can use the answer.
    for (place, (_, old)) in recorded.iter().enumerate() {
        let result = with_frame(place, |frame| frame.clone_from(old));
        let refused = matches!(result, Err(PushPullError::Seal(OpenError::Forged)));
        assert!(refused, "frame {place}: {result:?}");
    }
}

#[test]
fn frames_out_of_order_are_refused() {
    let (mut one, mut other) = pair();
    let result = run(&mut one, &mut other, |number, batch| {
        if number == 3 {
            assert!(batch.len() > 2);
            batch.swap(0, 1);
        }
    });
    assert_eq!(result, Err(PushPullError::Seal(OpenError::Forged)));
    // The same frame twice.
    let result = run(&mut one, &mut other, |number, batch| {
        if number == 3 {
            batch.insert(1, batch[0].clone());
        }
    });
    assert_eq!(result, Err(PushPullError::Seal(OpenError::Forged)));
}

/// Two members that know much that the other does not.
fn pair() -> (Node, Node) {
    let (mut one, mut other) = (member(0, Role::Proxy), member(1, Role::Proxy));
    tell(&mut one, 2..10);
    tell(&mut other, 8..20);
    (one, other)
}

/// The frames of a whole push-pull between two such members.
fn whole() -> Vec<(bool, Vec<u8>)> {
    let (mut one, mut other) = pair();
    // The recorded ones have advanced their random generators.
    one.random_bytes::<RANDOM_LEN>();
    other.random_bytes::<RANDOM_LEN>();
    run(&mut one, &mut other, untouched).unwrap()
}

/// A push-pull in which one frame is changed.
fn with_frame(
    place: usize,
    change: impl Fn(&mut Vec<u8>),
) -> Result<Vec<(bool, Vec<u8>)>, PushPullError> {
    let (mut one, mut other) = pair();
    let mut before = 0;
    run(&mut one, &mut other, |_, batch| {
        if let Some(frame) = place.checked_sub(before).and_then(|i| batch.get_mut(i)) {
            change(frame);
        }
        before += batch.len();
    })
}

/// A client that has sent its summary, and the server that waits for its answers.
fn under_way(client: &mut Node, server: &mut Node) -> (PushPull, PushPull) {
    let (mut at_client, mut frame) = PushPull::client(client, server.identity().address(), NOW);
    let mut at_server = PushPull::server();
    let (mut out, mut back) = (Vec::new(), Vec::new());
    at_server.take(server, &mut frame, &mut out, NOW).unwrap();
    at_client.take(client, &mut out[0], &mut back, NOW).unwrap();
    out.clear();
    at_server.take(server, &mut back[0], &mut out, NOW).unwrap();
    (at_client, at_server)
}

#[test]
fn what_a_peer_sends_is_bounded() {
    let (mut client, mut server) = (member(0, Role::Proxy), member(1, Role::Proxy));
    let (mut at_client, mut at_server) = under_way(&mut client, &mut server);
    let mut members = Vec::new();
    (2..1_000).for_each(|place| put_member(&known_as(place, State::Alive), &mut members));
    let mut sent = 0;
    let end = loop {
        let mut frames = Vec::new();
        at_client.send(&mut client, MEMBERS, &members, &mut frames);
        sent += frames[0].len();
        assert!(sent <= MAX_BYTES + MAX_FRAME, "it takes {sent} bytes");
        let result = at_server.take(&mut server, &mut frames[0], &mut Vec::new(), NOW);
        if let Err(end) = result {
            break end;
        }
    };
    assert_eq!(end, PushPullError::TooMuch);
    assert!(sent > MAX_BYTES, "{sent}");
    assert!(
        places(&server).is_empty(),
        "nothing is taken before the end"
    );

    let mut frame = vec![1; MAX_FRAME + 1];
    let result = PushPull::server().take(&mut server, &mut frame, &mut Vec::new(), NOW);
    assert_eq!(result, Err(PushPullError::TooMuch));
}

#[test]
fn a_frame_out_of_turn_ends_the_push_pull() {
    for (kind, body) in [
        (SUMMARY, vec![0; 4096]),
        (DIFFERS, vec![0; 32]),
        (HEADS, vec![0; HEAD_LEN]),
        (MEMBERS, vec![0; MEMBER_LEN - 1]),
        (RECORDS, vec![9; 7]),
        (WANTS, vec![1; WANT_LEN - 1]),
        (99, Vec::new()),
    ] {
        let (mut client, mut server) = (member(0, Role::Proxy), member(1, Role::Proxy));
        let (mut at_client, mut at_server) = under_way(&mut client, &mut server);
        let mut frames = Vec::new();
        at_client.send(&mut client, kind, &body, &mut frames);
        let result = at_server.take(&mut server, &mut frames[0], &mut Vec::new(), NOW);
        assert_eq!(result, Err(PushPullError::Malformed), "{kind}");
    }
}

#[test]
fn an_unknown_member_that_is_down_stays_unknown() {
    let (mut one, mut other) = (member(0, Role::Proxy), member(1, Role::Proxy));
    let nobody = other.identity();
    tell(&mut other, 2..4);
    other.merge_members(&nobody, true, vec![known_as(2, State::Down)]);
    // A member that is active there and reported as down only becomes suspect: it comes back in another run if it is
    // alive.
    assert_eq!(other.state_of(address_of(2)), Some((5, State::Suspect)));
    let peer = one.identity();
    one.merge_members(&peer, true, vec![known_as(9, State::Down)]);
    assert_eq!(one.state_of(address_of(9)), None);
}

#[test]
fn a_client_is_not_believed_about_itself() {
    let (mut client, mut server) = (member(0, Role::Agent), member(1, Role::Proxy));
    run(&mut client, &mut server, untouched).unwrap();
    assert_eq!(server.state_of(address_of(0)), None);
    assert_eq!(
        client.state_of(address_of(1)),
        Some((5, State::Alive)),
        "it was dialled"
    );
}

#[test]
fn a_member_does_not_push_pull_with_itself() {
    let (mut one, mut itself) = (member(0, Role::Agent), member(0, Role::Agent));
    let result = run(&mut one, &mut itself, untouched);
    assert_eq!(result, Err(PushPullError::Own));
}
