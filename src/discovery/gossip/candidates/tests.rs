//! A table of small histories, one rule each; and that no rumour takes a healthy candidate away. One room, since all of
//! them are played on the same bench.

use ipnet::IpNet;
use proptest::prelude::*;

use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use crate::discovery::gossip::{Kind, MAX_CANDIDATES, Wish};
use crate::gossip::identity::Role;
use crate::gossip::record::{Record, ServiceState};
use crate::gossip::view::{Announced, Liveness, Revocation};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const DOWN: Kind = Kind::Down { checked: true };
const DOWN_UNCHECKED: Kind = Kind::Down { checked: false };

fn backend(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 80))
}

/// One member and its record.
#[derive(Clone)]
struct Peer {
    address: SocketAddr,
    liveness: Liveness,
    record: Record,
    epoch: u64,
    version: u64,
    /// There is a record of it.
    heard: bool,
    revoked: Option<Revocation>,
}

impl Peer {
    fn new(host: u8, state: ServiceState) -> Self {
        Self {
            address: SocketAddr::from(([10, 0, 0, host], 7946)),
            liveness: Liveness::Alive,
            record: Record {
                name: format!("agent-{host}"),
                cluster: "web".to_owned(),
                backend: backend(host),
                weight: 1,
                zone: String::new(),
                state,
                build: String::new(),
            },
            epoch: 1,
            version: 1,
            heard: true,
            revoked: None,
        }
    }

    fn ready(host: u8) -> Self {
        Self::new(host, ServiceState::Ready)
    }

    fn down(host: u8) -> Self {
        Self {
            liveness: Liveness::Down,
            ..Self::ready(host)
        }
    }

    /// In the set, but with no record.
    fn unheard(host: u8, epoch: u64) -> Self {
        Self {
            epoch,
            heard: false,
            ..Self::ready(host)
        }
    }
}

/// This member, and those.
fn set(peers: &[Peer]) -> PeerSet {
    let member = |peer: &Peer| Member {
        address: peer.address,
        epoch: peer.epoch,
        role: Role::Agent,
        liveness: peer.liveness,
        changed: Duration::ZERO,
        records: Vec::from_iter(peer.heard.then(|| Announced {
            record: Arc::new(peer.record.clone()),
            epoch: peer.epoch,
            version: peer.version,
            accepted: Duration::ZERO,
            expires: None,
            revoked: peer.revoked,
        })),
    };
    let this = Member {
        address: "10.0.0.250:7946".parse().unwrap(),
        epoch: 1,
        role: Role::Proxy,
        liveness: Liveness::Alive,
        changed: Duration::ZERO,
        records: Vec::new(),
    };
    let mut members: Vec<Member> = std::iter::once(this)
        .chain(peers.iter().map(member))
        .collect();
    members.sort_by_key(|member| member.address);
    PeerSet {
        version: 1,
        at: Duration::ZERO,
        members,
    }
}

/// One cluster `web` that discovers `web`, and what the proxy thinks of its candidates.
struct Bench {
    candidates: Candidates,
    checked: bool,
    allow: Vec<IpNet>,
    opinions: HashMap<SocketAddr, Opinion>,
}

impl Bench {
    fn new(checked: bool) -> Self {
        Self {
            candidates: Candidates::default(),
            checked,
            allow: vec!["10.0.0.0/8".parse().unwrap()],
            opinions: HashMap::new(),
        }
    }

    fn think(&mut self, host: u8, opinion: Opinion) {
        self.opinions.insert(backend(host), opinion);
    }

    fn update(&mut self, second: u64, peers: &[Peer]) -> (bool, Vec<(u8, Kind)>) {
        self.update_with(second, &set(peers))
    }

    fn update_with(&mut self, second: u64, set: &PeerSet) -> (bool, Vec<(u8, Kind)>) {
        let wishes = [Wish {
            cluster: "web",
            gossip: "web",
            checked: self.checked,
        }];
        let rules = Rules {
            wishes: &wishes,
            allow_cidrs: &self.allow,
            is_own: &|address| address == backend(200),
        };
        let opinions = &self.opinions;
        let opinion = |_: &str, address: SocketAddr| {
            opinions.get(&address).copied().unwrap_or(Opinion::Unknown)
        };
        let update = self.candidates.update(s(second), set, &rules, &opinion);
        let host = |event: &Event| match event.backend.ip() {
            std::net::IpAddr::V4(v4) => v4.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        };
        let events = update.events.iter().map(|e| (host(e), e.kind)).collect();
        (update.changed, events)
    }

    /// The last parts of the addresses that are in; doubted ones with `true`.
    fn members(&self) -> Vec<(u8, bool)> {
        let host = |candidate: &Candidate| {
            candidate
                .address
                .to_string()
                .rsplit_once('.')
                .and_then(|(_, end)| end.split_once(':')?.0.parse().ok())
                .unwrap_or(0)
        };
        self.candidates
            .of("web")
            .map(|c| (host(c), c.doubted))
            .collect()
    }

    fn hosts(&self) -> Vec<u8> {
        self.members().into_iter().map(|(host, _)| host).collect()
    }
}

#[test]
fn what_a_new_record_brings() {
    use ServiceState as S;
    let suspect = Peer {
        liveness: Liveness::Suspect,
        ..Peer::ready(1)
    };
    let left = Peer {
        liveness: Liveness::Left,
        ..Peer::ready(1)
    };
    let mut foreign = Peer::ready(1);
    foreign.record.cluster = "api".to_owned();
    let mut far = Peer::ready(1);
    far.record.backend = "192.168.0.1:80".parse().unwrap();
    let mut own = Peer::ready(1);
    own.record.backend = backend(200);
    for (peer, expected) in [
        (Peer::ready(1), vec![(1, false)]),
        (suspect, vec![(1, false)]),
        (Peer::new(1, S::Starting), vec![]),
        (Peer::new(1, S::Failing), vec![]),
        (Peer::new(1, S::Draining), vec![]),
        (Peer::new(1, S::Left), vec![]),
        (Peer::down(1), vec![]),
        (left, vec![]),
        (foreign, vec![]),
        (far, vec![]),
        (own, vec![]),
    ] {
        for checked in [false, true] {
            let mut bench = Bench::new(checked);
            let (changed, _) = bench.update(0, std::slice::from_ref(&peer));
            assert_eq!(
                bench.members(),
                expected,
                "{:?} {:?}",
                peer.liveness,
                peer.record
            );
            assert_eq!(changed, !expected.is_empty());
            assert!(
                !bench.update(1, std::slice::from_ref(&peer)).0,
                "nothing new"
            );
        }
    }
}

#[test]
fn what_becomes_of_one_that_is_in() {
    use Opinion::{Failing, Healthy, Unknown};
    use ServiceState as S;
    let left = Peer {
        liveness: Liveness::Left,
        ..Peer::ready(1)
    };
    let suspect = Peer {
        liveness: Liveness::Suspect,
        ..Peer::ready(1)
    };
    let stays: &[(u8, bool)] = &[(1, false)];
    let doubted: &[(u8, bool)] = &[(1, true)];
    let out: &[(u8, bool)] = &[];
    type Case<'a> = (Option<Peer>, bool, Opinion, &'a [(u8, bool)], Option<Kind>);
    let cases: Vec<Case<'_>> = vec![
        (Some(Peer::ready(1)), true, Failing, stays, None),
        (Some(suspect), true, Failing, stays, None),
        (
            Some(Peer::new(1, S::Draining)),
            true,
            Healthy,
            out,
            Some(Kind::Draining),
        ),
        (
            Some(Peer::new(1, S::Left)),
            true,
            Healthy,
            out,
            Some(Kind::Left),
        ),
        // That its member has left says no more of a record that does not than that it is down.
        (Some(left), true, Healthy, doubted, Some(DOWN)),
        (Some(Peer::new(1, S::Failing)), true, Healthy, doubted, None),
        (Some(Peer::new(1, S::Failing)), true, Unknown, doubted, None),
        (Some(Peer::new(1, S::Failing)), true, Failing, doubted, None),
        (
            Some(Peer::new(1, S::Failing)),
            false,
            Unknown,
            out,
            Some(Kind::Failing),
        ),
        (
            Some(Peer::new(1, S::Starting)),
            true,
            Healthy,
            doubted,
            None,
        ),
        (Some(Peer::down(1)), true, Healthy, doubted, Some(DOWN)),
        (Some(Peer::down(1)), true, Failing, out, Some(Kind::Removed)),
        (
            Some(Peer::down(1)),
            false,
            Unknown,
            doubted,
            Some(DOWN_UNCHECKED),
        ),
        (
            Some(Peer::down(1)),
            false,
            Failing,
            out,
            Some(Kind::Removed),
        ),
        (None, true, Healthy, doubted, Some(DOWN)),
        (None, true, Failing, out, Some(Kind::Removed)),
        (None, false, Unknown, doubted, Some(DOWN_UNCHECKED)),
    ];
    // Others stand beside it, so that the guard has nothing to say.
    let beside = [Peer::ready(2), Peer::ready(3)];
    for (peer, checked, opinion, expected, event) in cases {
        let mut bench = Bench::new(checked);
        bench.update(0, &[&[Peer::ready(1)], &beside[..]].concat());
        bench.think(1, opinion);
        let peers: Vec<Peer> = peer.into_iter().chain(beside.clone()).collect();
        let said: Vec<_> = bench.update(1, &peers).1.into_iter().map(|e| e.1).collect();
        let shown = peers.first().map(|p| (p.liveness, p.record.state));
        let members = bench.members();
        let (found, others) = members.split_at(members.len() - 2);
        assert_eq!(found, expected, "{shown:?} {checked} {opinion:?}");
        assert_eq!(others, [(2, false), (3, false)]);
        assert_eq!(
            said,
            event.into_iter().collect::<Vec<_>>(),
            "{shown:?} {checked} {opinion:?}"
        );
        let again = bench.update(1, &peers).1;
        assert!(
            again.iter().all(|&(_, kind)| kind == Kind::DownButPasses),
            "said twice: {again:?}"
        );
    }
}

#[test]
fn what_its_member_no_longer_announces_is_out_at_once() {
    let mut elsewhere = Peer::ready(1);
    elsewhere.record.cluster = "api".to_owned();
    let mut moved = Peer::ready(1);
    moved.record.backend = backend(7);
    let suspect = Peer {
        liveness: Liveness::Suspect,
        ..Peer::unheard(1, 1)
    };
    for peer in [Peer::unheard(1, 1), suspect, elsewhere, moved] {
        for checked in [false, true] {
            let mut bench = Bench::new(checked);
            bench.update(0, &[Peer::ready(1), Peer::ready(2)]);
            bench.think(1, Opinion::Healthy);
            let (changed, events) = bench.update(1, &[peer.clone(), Peer::ready(2)]);
            assert!(changed, "{:?}", peer.record);
            assert_eq!(events[0], (1, Kind::Withdrawn));
            assert!(!bench.hosts().contains(&1), "{:?}", peer.record);
        }
    }
    let mut bench = Bench::new(true);
    let all: Vec<Peer> = (1..=5).map(Peer::ready).collect();
    bench.update(0, &all);
    let unheard: Vec<Peer> = (1..=5).map(|host| Peer::unheard(host, 1)).collect();
    bench.update(1, &unheard);
    assert!(bench.hosts().is_empty(), "no guard holds what may not be");
}

#[test]
fn what_may_not_be_announced_any_more_is_out_whatever_its_check_says() {
    use Revocation::{Expired, NotPermitted};
    let all: Vec<Peer> = (1..=4).map(Peer::ready).collect();
    let with = |count: usize, why| {
        let mut peers = all.clone();
        for peer in &mut peers[..count] {
            peer.revoked = Some(why);
        }
        peers
    };
    for checked in [true, false] {
        let bench = || {
            let mut bench = Bench::new(checked);
            bench.update(0, &all);
            for host in 1..=4 {
                bench.think(host, Opinion::Healthy);
            }
            bench
        };
        // The rules have changed: at once, however many.
        for count in [1, 4] {
            let (mut bench, revoked) = (bench(), with(count, NotPermitted));
            let (changed, events) = bench.update(1, &revoked);
            let out = |host: usize| (host as u8, Kind::Revoked(NotPermitted));
            assert_eq!(
                (changed, events),
                (true, (1..=count).map(out).collect::<Vec<_>>())
            );
            bench.update(2, &revoked);
            assert_eq!(bench.hosts().len(), 4 - count, "and does not come in again");
        }
        // A token has expired: at once too, but not more than half of them.
        let mut bench = bench();
        let out = (1, Kind::Revoked(Expired));
        assert_eq!(bench.update(1, &with(1, Expired)).1, [out]);
        bench.update(20, &with(1, Expired));
        assert_eq!(bench.hosts(), [2, 3, 4], "and does not come in again");
        let held = Kind::MassRemovalHeld {
            lost: 3,
            of: 3,
            expired: 3,
        };
        assert_eq!(
            bench.update(30, &with(4, Expired)),
            (false, vec![(2, held)])
        );
        // It is no better if its agent is gone, or its record.
        let mut gone = with(4, Expired);
        gone[1].heard = false;
        (gone[2].liveness, gone[2].revoked) = (Liveness::Down, None);
        assert_eq!(bench.update(329, &gone), (false, vec![]));
        let (_, events) = bench.update(330, &gone);
        let out = |host| (host, Kind::Revoked(Expired));
        assert_eq!(events, [out(2), out(3), out(4)]);
        // With a new token it is as any other.
        assert_eq!(bench.update(400, &all).1.len(), 4);
        bench.update(401, &with(3, Expired));
        let (changed, events) = bench.update(402, &all);
        assert_eq!((changed, events.len()), (false, 1), "{events:?}");
        assert_eq!(events[0].1, Kind::MassRemovalOver);
    }
}

#[test]
fn a_member_may_be_known_a_moment_before_its_record() {
    let with = |peer: Peer| [peer, Peer::ready(2)];
    let first = |bench: &mut Bench| {
        bench.update(0, &with(Peer::ready(1)));
        bench.think(1, Opinion::Healthy);
    };
    // It was gone and is back; it began another run; the set was built anew.
    for case in ["back", "run", "anew"] {
        let mut bench = Bench::new(true);
        first(&mut bench);
        let mut epoch = 1;
        match case {
            "back" => drop(bench.update(1, &[Peer::ready(2)])),
            "run" => epoch = 2,
            _ => bench.candidates.seen_at = s(1),
        }
        let unheard = with(Peer::unheard(1, epoch));
        bench.update(2, &unheard);
        assert_eq!(bench.members(), [(1, true), (2, false)], "{case}");
        let heard = Peer {
            epoch,
            ..Peer::ready(1)
        };
        assert_eq!(
            bench.update(31, &with(heard)).1,
            [(1, Kind::Back)],
            "{case}"
        );
        // However long it says nothing in another run: as long as the check passes it stays.
        let unheard = with(Peer::unheard(1, epoch + 1));
        bench.update(40, &unheard);
        bench.update(4_000, &unheard);
        assert_eq!(bench.members(), [(1, true), (2, false)], "{case}");
        bench.think(1, Opinion::Failing);
        let events = bench.update(4_001, &unheard).1;
        assert_eq!(events, [(1, Kind::Removed)], "{case}");
    }
}

#[test]
fn lost_without_a_check_goes_after_thirty_seconds() {
    let mut bench = Bench::new(false);
    bench.update(0, &[Peer::ready(1), Peer::ready(2)]);
    assert_eq!(bench.candidates.next_deadline(), None);
    bench.update(5, &[Peer::ready(1), Peer::down(2)]);
    assert_eq!(bench.candidates.next_deadline(), Some(s(35)));
    bench.update(34, &[Peer::ready(1)]);
    assert_eq!(bench.hosts(), [1, 2], "forgotten is no better than down");
    let (changed, events) = bench.update(35, &[Peer::ready(1)]);
    assert_eq!((changed, bench.hosts()), (true, vec![1]));
    assert_eq!(events, [(2, Kind::Removed)]);
    assert_eq!(bench.candidates.next_deadline(), None);
}

#[test]
fn a_check_that_passes_is_believed_and_said_once() {
    let mut bench = Bench::new(true);
    bench.update(0, &[Peer::ready(1)]);
    bench.think(1, Opinion::Healthy);
    assert_eq!(bench.update(1, &[]).1, [(1, DOWN)]);
    bench.think(1, Opinion::Unknown);
    assert_eq!(bench.update(2, &[]).1, [], "the check runs");
    bench.think(1, Opinion::Healthy);
    assert_eq!(bench.update(3, &[]).1, [(1, Kind::DownButPasses)]);
    assert_eq!(bench.update(100_000, &[]).1, []);
    assert_eq!(bench.members(), [(1, true)]);
    assert_eq!(
        bench.update(100_001, &[Peer::ready(1)]).1,
        [(1, Kind::Back)]
    );
    assert_eq!(bench.members(), [(1, false)]);
}

#[test]
fn a_mass_removal_is_held_while_orders_are_obeyed() {
    let all: Vec<Peer> = (1..=5).map(Peer::ready).collect();
    let mut bench = Bench::new(true);
    bench.update(0, &all);
    for host in 1..=5 {
        bench.think(host, Opinion::Failing);
    }
    let held = Kind::MassRemovalHeld {
        lost: 5,
        of: 5,
        expired: 0,
    };
    assert_eq!(bench.update(10, &[]), (false, vec![(1, held)]));
    assert_eq!(bench.candidates.next_deadline(), Some(s(310)));
    let drained = [Peer::new(1, ServiceState::Draining)];
    assert_eq!(bench.update(11, &drained).1, [(1, Kind::Draining)]);
    bench.think(2, Opinion::Healthy);
    assert_eq!(
        bench.update(309, &[Peer::ready(3)]).1,
        [(2, Kind::DownButPasses), (3, Kind::Back)]
    );
    assert_eq!(bench.hosts(), [2, 3, 4, 5]);
    let (_, events) = bench.update(310, &[Peer::ready(3)]);
    assert_eq!(events, [(4, Kind::Removed), (5, Kind::Removed)]);
    assert_eq!(
        bench.hosts(),
        [2, 3],
        "one passes its check, one is known again"
    );

    let mut bench = Bench::new(false);
    bench.update(0, &all);
    bench.update(1, &[]);
    let held = Kind::MassRemovalHeld {
        lost: 5,
        of: 5,
        expired: 0,
    };
    assert_eq!(bench.update(31, &[]).1, [(1, held)]);
    let (changed, events) = bench.update(60, &all);
    assert_eq!((changed, events.len()), (false, 6), "{events:?}");
    assert_eq!(events[5].1, Kind::MassRemovalOver);
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
        // Whoever says so itself goes all the same.
        peers[0] = Peer::new(1, ServiceState::Draining);
        assert_eq!(bench.update(100_001, &peers).1[0], (1, Kind::Draining));
    }
}

#[test]
fn in_company_a_hold_ends_in_time_but_hearsay_takes_the_last_one_never() {
    let company = Peer::unheard(100, 1);
    let beside = |peers: &[Peer]| [peers, std::slice::from_ref(&company)].concat();
    let all: Vec<Peer> = (1..=5).map(Peer::ready).collect();
    let mut bench = Bench::new(false);
    bench.update(0, &beside(&all));
    let two = beside(&all[..2]);
    bench.update(1, &two);
    let held = Kind::MassRemovalHeld {
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
    let held = Kind::MassRemovalHeld {
        lost: 2,
        of: 2,
        expired: 0,
    };
    assert_eq!(bench.update(430, &beside(&[])).1, [(1, held)]);
    assert_eq!(bench.update(100_000, &beside(&[])), (false, vec![]));
    bench.think(1, Opinion::Failing);
    assert_eq!(
        bench.update(100_001, &beside(&[])).1,
        [(1, Kind::Removed)],
        "live connections are refused"
    );
    assert_eq!(bench.hosts(), [2]);
}

#[test]
fn a_mass_removal_is_held_whole_though_one_check_answers_before_the_others() {
    let mut bench = Bench::new(true);
    bench.update(0, &[Peer::ready(1), Peer::ready(2), Peer::ready(3)]);
    let one = [Peer::ready(1)];
    bench.update(1, &one);
    bench.think(2, Opinion::Failing);
    let held = Kind::MassRemovalHeld {
        lost: 2,
        of: 3,
        expired: 0,
    };
    assert_eq!(bench.update(2, &one), (false, vec![(2, held)]));
    bench.think(3, Opinion::Failing);
    assert_eq!(bench.update(3, &one), (false, vec![]));
    assert_eq!(bench.hosts(), [1, 2, 3]);
}

#[test]
fn agents_that_say_that_all_services_fail_empty_no_cluster() {
    let all = |state| -> Vec<Peer> { (1..=5).map(|host| Peer::new(host, state)).collect() };
    let (ready, failing) = (all(ServiceState::Ready), all(ServiceState::Failing));
    let mut bench = Bench::new(true);
    bench.update(0, &ready);
    for host in 1..=5 {
        bench.think(host, Opinion::Failing);
    }
    // The health checks hold them down, so that a panic covers them.
    assert_eq!(bench.update(1, &failing), (false, vec![]));
    assert!(bench.members().iter().all(|&(_, doubted)| doubted));
    assert_eq!(bench.update(100_000, &failing), (false, vec![]));
    assert_eq!(bench.hosts().len(), 5);

    let mut bench = Bench::new(false);
    bench.update(0, &ready);
    let two = [&failing[..2], &ready[2..]].concat();
    assert_eq!(
        bench.update(1, &two).1,
        [(1, Kind::Failing), (2, Kind::Failing)]
    );
    let held = Kind::MassRemovalHeld {
        lost: 3,
        of: 3,
        expired: 0,
    };
    assert_eq!(bench.update(2, &failing), (false, vec![(3, held)]));
    assert_eq!(bench.update(100_000, &failing), (false, vec![]));
    let (_, events) = bench.update(100_001, &ready);
    assert_eq!(events[0], (3, Kind::MassRemovalOver));
    assert_eq!(bench.hosts(), [1, 2, 3, 4, 5]);
}

#[test]
fn the_order_of_all_agents_is_no_mass_removal() {
    let mut bench = Bench::new(true);
    bench.update(0, &(1..=5).map(Peer::ready).collect::<Vec<_>>());
    let drained: Vec<Peer> = (1..=5)
        .map(|host| Peer::new(host, ServiceState::Draining))
        .collect();
    bench.update(1, &drained);
    assert!(bench.hosts().is_empty());
}

#[test]
fn flapping_is_held_down_and_said_once() {
    let mut bench = Bench::new(true);
    let (up, out) = ([Peer::ready(1)], [Peer::new(1, ServiceState::Draining)]);
    bench.update(0, &up);
    let mut said = Vec::new();
    for second in 1..=10 {
        bench.update(second, &out);
        said.extend(bench.update(second, &up).1);
    }
    let joined = (1, Kind::Joined);
    assert_eq!(said, [joined, joined, joined, (1, Kind::HeldDown(s(30)))]);
    assert_eq!(bench.candidates.next_deadline(), Some(s(34)));
    assert_eq!(bench.update(33, &up), (false, vec![]));
    assert_eq!(bench.update(34, &up), (true, vec![joined]));
}

#[test]
fn a_restart_that_is_not_seen_is_no_flap() {
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
fn of_two_that_announce_one_address_one_counts() {
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
            [at(1, 2, 5, S::Draining, 1), at(2, 2, 4, S::Ready, 2)],
            None,
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
fn refusals_are_counted_and_said_once_and_act_on_those_that_are_in() {
    let mut bench = Bench::new(true);
    let peers = [Peer::ready(1), Peer::ready(2), Peer::ready(200)];
    let own = Kind::Refused {
        reason: Refusal::OwnListener,
        count: 1,
    };
    let (joined, refused) = (Kind::Joined, |count| Kind::Refused {
        reason: Refusal::OutOfRange,
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
    assert_eq!(bench.candidates.refusals()[Refusal::OutOfRange.index()], 2);
    assert_eq!(bench.candidates.refusals()[Refusal::OwnListener.index()], 1);
    bench.allow = vec!["10.0.0.0/8".parse().unwrap()];
    assert_eq!(bench.update(4, &peers).1, [(1, joined), (200, own)]);
}

#[test]
fn a_full_cluster_keeps_those_that_are_in() {
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
    let full = |count| Kind::Refused {
        reason: Refusal::ClusterFull,
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
fn the_last_good_set_serves_until_the_real_one_is_whole() {
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
        bench.members().len(),
        4,
        "no other member, no other word: {:?}",
        bench.members()
    );
    let first = [Peer::ready(1), Peer::new(4, ServiceState::Draining)];
    bench.update(1002, &first);
    assert_eq!(
        bench.members(),
        [(1, false), (2, false), (3, false)],
        "a drain counts"
    );
    assert!(bench.candidates.is_stale());
    assert_eq!(bench.candidates.next_deadline(), Some(s(1007)));
    bench.update(1007, &[Peer::ready(1), Peer::ready(2)]);
    assert!(!bench.candidates.is_stale());
    assert_eq!(bench.members(), [(1, false), (2, false), (3, true)]);
    bench.update(1037, &[Peer::ready(1), Peer::ready(2)]);
    assert_eq!(bench.hosts(), [1, 2]);
    let company = [Peer::ready(1), Peer::ready(2), Peer::unheard(100, 1)];
    bench.update(1038, &company);
    let kept = bench.candidates.to_last_good(&LastGood::new()).unwrap();
    assert_eq!(kept["web"].len(), 2);
}

#[test]
fn only_what_is_good_is_worth_keeping() {
    let all = [Peer::ready(1), Peer::ready(2)];
    let two = |state| [Peer::new(1, state), Peer::new(2, state)];
    let company = Peer::unheard(100, 1);
    let beside = |peers: &[Peer]| [peers, std::slice::from_ref(&company)].concat();
    let kept = |bench: &Bench, before: &LastGood| -> Option<Vec<u16>> {
        let kept = bench.candidates.to_last_good(before)?;
        Some(kept["web"].iter().map(|c| c.weight).collect())
    };
    let start = |checked| {
        let mut bench = Bench::new(checked);
        let mut first = all.clone();
        // So that they can be told in what is kept.
        (first[0].record.weight, first[1].record.weight) = (11, 12);
        bench.update(0, &beside(&first));
        let before = bench.candidates.to_last_good(&LastGood::new()).unwrap();
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
    assert_eq!(kept(&bench, &before), None, "it is alone");
    bench.update(2, &beside(&all));
    assert_eq!(kept(&bench, &before), Some(vec![1, 1]));

    let (mut bench, before) = start(false);
    bench.update(1, &beside(&two(ServiceState::Failing)));
    assert_eq!(kept(&bench, &before), before_all, "they are held");
    let one = [
        Peer::new(1, ServiceState::Failing),
        Peer::new(2, ServiceState::Draining),
    ];
    bench.update(2, &beside(&one));
    assert_eq!(
        (bench.hosts(), kept(&bench, &before)),
        (vec![1], before_all.clone())
    );
    bench.update(3, &beside(&[Peer::ready(1)]));
    assert_eq!(kept(&bench, &before), Some(vec![1]), "it is over");

    let (mut bench, before) = start(true);
    for host in [1, 2] {
        bench.think(host, Opinion::Failing);
    }
    bench.update(1, &beside(&[]));
    bench.update(301, &beside(&[]));
    assert!(bench.hosts().is_empty());
    assert_eq!(kept(&bench, &before), before_all, "they were lost");
    bench.update(302, &beside(&[]));
    assert_eq!(kept(&bench, &before), before_all);

    let (mut bench, before) = start(true);
    bench.allow = vec!["192.168.0.0/16".parse().unwrap()];
    bench.update(1, &beside(&all));
    assert!(bench.hosts().is_empty());
    assert_eq!(
        kept(&bench, &before),
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
        kept(&bench, &before),
        before_all,
        "only one of them has left"
    );

    for state in [ServiceState::Draining, ServiceState::Left] {
        let (mut bench, before) = start(true);
        bench.update(1, &beside(&two(state)));
        assert_eq!(kept(&bench, &before), Some(vec![]), "{state:?}");
    }
}

#[test]
fn a_cluster_that_discovers_no_more_or_another_name_starts_anew() {
    let set = set(&[Peer::ready(1)]);
    let rules = |wishes| Rules {
        wishes,
        allow_cidrs: &[],
        is_own: &|_| false,
    };
    let other = [Wish {
        cluster: "web",
        gossip: "api",
        checked: true,
    }];
    for wishes in [&other[..], &[]] {
        let mut bench = Bench::new(true);
        bench.update(0, &[Peer::ready(1)]);
        let update = bench
            .candidates
            .update(s(1), &set, &rules(wishes), &|_, _| Opinion::Healthy);
        assert!(update.changed);
        assert!(bench.hosts().is_empty());
    }
}

/// What the set says of a host, and what the proxy thinks of it.
fn words() -> impl Strategy<Value = (u8, u8, u8)> {
    (0u8..10, 0u8..3, 1u8..4)
}

proptest! {
    /// Only an agent's own order takes a healthy candidate out: no rumour, no silence, whatever came before. And what
    /// is said is said of a change.
    #[test]
    fn no_rumour_takes_a_healthy_candidate_away(
        turns in prop::collection::vec((prop::collection::vec(words(), 6), 0u64..40), 1..60),
    ) {
        let mut bench = Bench::new(true);
        let mut now = 0;
        for (hosts, step) in turns {
            now += step;
            let mut peers = Vec::new();
            let (mut ordered, mut unheard) = (Vec::new(), Vec::new());
            for (host, &(word, opinion, epoch)) in (1u8..).zip(&hosts) {
                let mut peer = Peer::ready(host);
                (peer.epoch, peer.version) = (epoch.into(), now);
                match word {
                    0 => continue,
                    1 => peer.liveness = Liveness::Down,
                    2 => peer.record.state = ServiceState::Left,
                    3 => peer.liveness = Liveness::Suspect,
                    4 => peer.record.state = ServiceState::Draining,
                    5 => peer.record.state = ServiceState::Failing,
                    6 => peer.record.state = ServiceState::Starting,
                    7 => {
                        peer.heard = false;
                        unheard.push(host);
                    }
                    _ => {}
                }
                if matches!(word, 2 | 4) {
                    ordered.push(host);
                }
                peers.push(peer);
                bench.think(host, [Opinion::Healthy, Opinion::Failing, Opinion::Unknown][usize::from(opinion)]);
            }
            let before = bench.hosts();
            let (changed, events) = bench.update(now, &peers);
            let after = bench.hosts();
            for host in &before {
                let healthy = bench.opinions.get(&backend(*host)) == Some(&Opinion::Healthy);
                if healthy && !ordered.contains(host) && !unheard.contains(host) {
                    prop_assert!(after.contains(host), "{host} is gone");
                }
            }
            prop_assert_eq!(changed, before != after);
            prop_assert!(ordered.iter().all(|host| !after.contains(host)));
            let mut said: Vec<u8> = events
                .iter()
                .filter(|(_, kind)| !matches!(kind, Kind::MassRemovalHeld { .. } | Kind::MassRemovalOver))
                .map(|(host, _)| *host)
                .collect();
            let count = said.len();
            said.sort_unstable();
            said.dedup();
            prop_assert_eq!(said.len(), count, "one event a change: {:?}", events);
            if let Some(deadline) = bench.candidates.next_deadline() {
                prop_assert!(deadline > Duration::from_secs(now));
            }
        }
    }
}
