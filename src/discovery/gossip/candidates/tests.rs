//! Small histories, one rule each, and the property that no rumour removes a healthy candidate. This file has the bench
//! and what happens to a single candidate; the rest is in the files beside it.

mod entry;
mod last_good;
mod losses;
mod orders;

use ipnet::IpNet;
use proptest::prelude::*;

use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use crate::discovery::gossip::events::EventKind;
use crate::discovery::gossip::{MAX_CANDIDATES, Subscription};
use crate::gossip::identity::Role;
use crate::gossip::record::{Announced, Record, Revocation, ServiceState};
use crate::gossip::view::Liveness;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const DOWN: EventKind = EventKind::Down { checked: true };
const DOWN_UNCHECKED: EventKind = EventKind::Down { checked: false };

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
    /// There is a record of this member.
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

    /// A member of the set without a record.
    fn unheard(host: u8, epoch: u64) -> Self {
        Self {
            epoch,
            heard: false,
            ..Self::ready(host)
        }
    }
}

/// The set of these members and this proxy's own.
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

/// One cluster `web` that discovers `web`, and what the proxy knows of its candidates' health.
struct Bench {
    candidates: Candidates,
    checked: bool,
    allow: Vec<IpNet>,
    healths: HashMap<SocketAddr, LocalHealth>,
}

impl Bench {
    fn new(checked: bool) -> Self {
        Self {
            candidates: Candidates::default(),
            checked,
            allow: vec!["10.0.0.0/8".parse().unwrap()],
            healths: HashMap::new(),
        }
    }

    fn set_health(&mut self, host: u8, health: LocalHealth) {
        self.healths.insert(backend(host), health);
    }

    fn update(&mut self, second: u64, peers: &[Peer]) -> (bool, Vec<(u8, EventKind)>) {
        self.update_with(second, &set(peers))
    }

    fn update_with(&mut self, second: u64, set: &PeerSet) -> (bool, Vec<(u8, EventKind)>) {
        let subscriptions = [Subscription {
            cluster: "web",
            gossip: "web",
            checked: self.checked,
        }];
        let policy = CandidatePolicy {
            subscriptions: &subscriptions,
            allow_cidrs: &self.allow,
            is_own: &|address| address == backend(200),
        };
        let healths = &self.healths;
        let health = |_: &str, address: SocketAddr| {
            healths
                .get(&address)
                .copied()
                .unwrap_or(LocalHealth::Unknown)
        };
        let update = self.candidates.update(s(second), set, &policy, &health);
        let host = |event: &CandidateEvent| match event.backend.ip() {
            std::net::IpAddr::V4(v4) => v4.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        };
        let events = update.events.iter().map(|e| (host(e), e.kind)).collect();
        (update.changed, events)
    }

    /// The last part of each candidate's address, and whether the candidate is doubted.
    fn found(&self) -> Vec<(u8, bool)> {
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
        self.found().into_iter().map(|(host, _)| host).collect()
    }
}

#[test]
fn what_a_new_record_does() {
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
                bench.found(),
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
fn what_happens_to_a_candidate() {
    use LocalHealth::{Failing, Healthy, Unknown};
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
    type Case<'a> = (
        Option<Peer>,
        bool,
        LocalHealth,
        &'a [(u8, bool)],
        Option<EventKind>,
    );
    let cases: Vec<Case<'_>> = vec![
        (Some(Peer::ready(1)), true, Failing, stays, None),
        (Some(suspect), true, Failing, stays, None),
        (
            Some(Peer::new(1, S::Draining)),
            true,
            Healthy,
            out,
            Some(EventKind::Draining),
        ),
        (
            Some(Peer::new(1, S::Left)),
            true,
            Healthy,
            out,
            Some(EventKind::Left),
        ),
        // If a member has left, but its record does not say so, the record counts as one of a member that is down.
        (Some(left), true, Healthy, doubted, Some(DOWN)),
        (Some(Peer::new(1, S::Failing)), true, Healthy, doubted, None),
        (Some(Peer::new(1, S::Failing)), true, Unknown, doubted, None),
        (Some(Peer::new(1, S::Failing)), true, Failing, doubted, None),
        (
            Some(Peer::new(1, S::Failing)),
            false,
            Unknown,
            out,
            Some(EventKind::Failing),
        ),
        (
            Some(Peer::new(1, S::Starting)),
            true,
            Healthy,
            doubted,
            None,
        ),
        (Some(Peer::down(1)), true, Healthy, doubted, Some(DOWN)),
        (
            Some(Peer::down(1)),
            true,
            Failing,
            out,
            Some(EventKind::Removed),
        ),
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
            Some(EventKind::Removed),
        ),
        (None, true, Healthy, doubted, Some(DOWN)),
        (None, true, Failing, out, Some(EventKind::Removed)),
        (None, false, Unknown, doubted, Some(DOWN_UNCHECKED)),
    ];
    // There are others beside it, so that the guard does not matter.
    let beside = [Peer::ready(2), Peer::ready(3)];
    for (peer, checked, health, expected, event) in cases {
        let mut bench = Bench::new(checked);
        bench.update(0, &[&[Peer::ready(1)], &beside[..]].concat());
        bench.set_health(1, health);
        let peers: Vec<Peer> = peer.into_iter().chain(beside.clone()).collect();
        let said: Vec<_> = bench.update(1, &peers).1.into_iter().map(|e| e.1).collect();
        let shown = peers.first().map(|p| (p.liveness, p.record.state));
        let members = bench.found();
        let (found, others) = members.split_at(members.len() - 2);
        assert_eq!(found, expected, "{shown:?} {checked} {health:?}");
        assert_eq!(others, [(2, false), (3, false)]);
        assert_eq!(
            said,
            event.into_iter().collect::<Vec<_>>(),
            "{shown:?} {checked} {health:?}"
        );
        let again = bench.update(1, &peers).1;
        assert!(
            again
                .iter()
                .all(|&(_, kind)| kind == EventKind::DownButPasses),
            "said twice: {again:?}"
        );
    }
}

#[test]
fn what_its_member_no_longer_announces_is_removed_at_once() {
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
            bench.set_health(1, LocalHealth::Healthy);
            let (changed, events) = bench.update(1, &[peer.clone(), Peer::ready(2)]);
            assert!(changed, "{:?}", peer.record);
            assert_eq!(events[0], (1, EventKind::Withdrawn));
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
fn what_may_no_longer_be_announced_is_removed_whatever_its_check_says() {
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
                bench.set_health(host, LocalHealth::Healthy);
            }
            bench
        };
        // The policy has changed: all are removed at once.
        for count in [1, 4] {
            let (mut bench, revoked) = (bench(), with(count, NotPermitted));
            let (changed, events) = bench.update(1, &revoked);
            let out = |host: usize| (host as u8, EventKind::Revoked(NotPermitted));
            assert_eq!(
                (changed, events),
                (true, (1..=count).map(out).collect::<Vec<_>>())
            );
            bench.update(2, &revoked);
            assert_eq!(bench.hosts().len(), 4 - count, "and does not come in again");
        }
        // A token has expired: removed at once too, but not more than half of them.
        let mut bench = bench();
        let out = (1, EventKind::Revoked(Expired));
        assert_eq!(bench.update(1, &with(1, Expired)).1, [out]);
        bench.update(20, &with(1, Expired));
        assert_eq!(bench.hosts(), [2, 3, 4], "and does not come in again");
        let held = EventKind::MassRemovalHeld {
            lost: 3,
            of: 3,
            expired: 3,
        };
        assert_eq!(
            bench.update(30, &with(4, Expired)),
            (false, vec![(2, held)])
        );
        // That its agent or its record is gone changes nothing.
        let mut gone = with(4, Expired);
        gone[1].heard = false;
        (gone[2].liveness, gone[2].revoked) = (Liveness::Down, None);
        assert_eq!(bench.update(329, &gone), (false, vec![]));
        let (_, events) = bench.update(330, &gone);
        let out = |host| (host, EventKind::Revoked(Expired));
        assert_eq!(events, [out(2), out(3), out(4)]);
        // With a new token it is like any other.
        assert_eq!(bench.update(400, &all).1.len(), 4);
        bench.update(401, &with(3, Expired));
        let (changed, events) = bench.update(402, &all);
        assert_eq!((changed, events.len()), (false, 1), "{events:?}");
        assert_eq!(events[0].1, EventKind::MassRemovalOver);
    }
}

#[test]
fn a_member_may_be_known_a_moment_before_its_record() {
    let with = |peer: Peer| [peer, Peer::ready(2)];
    let first = |bench: &mut Bench| {
        bench.update(0, &with(Peer::ready(1)));
        bench.set_health(1, LocalHealth::Healthy);
    };
    // It was gone and is back; it began another run; the set was built from scratch.
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
        assert_eq!(bench.found(), [(1, true), (2, false)], "{case}");
        let heard = Peer {
            epoch,
            ..Peer::ready(1)
        };
        assert_eq!(
            bench.update(31, &with(heard)).1,
            [(1, EventKind::Back)],
            "{case}"
        );
        // However long it announces nothing in another run, it stays as long as the check passes.
        let unheard = with(Peer::unheard(1, epoch + 1));
        bench.update(40, &unheard);
        bench.update(4_000, &unheard);
        assert_eq!(bench.found(), [(1, true), (2, false)], "{case}");
        bench.set_health(1, LocalHealth::Failing);
        let events = bench.update(4_001, &unheard).1;
        assert_eq!(events, [(1, EventKind::Removed)], "{case}");
    }
}

/// What the set says of a host, and what the proxy knows of its health.
fn words() -> impl Strategy<Value = (u8, u8, u8)> {
    (0u8..10, 0u8..3, 1u8..4)
}

proptest! {
    /// Only an agent's own order removes a healthy candidate: no rumour and no silence do, whatever came before. And
    /// every event reports a change.
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
            for (host, &(word, health, epoch)) in (1u8..).zip(&hosts) {
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
                bench.set_health(host, [LocalHealth::Healthy, LocalHealth::Failing, LocalHealth::Unknown][usize::from(health)]);
            }
            let before = bench.hosts();
            let (changed, events) = bench.update(now, &peers);
            let after = bench.hosts();
            for host in &before {
                let healthy = bench.healths.get(&backend(*host)) == Some(&LocalHealth::Healthy);
                if healthy && !ordered.contains(host) && !unheard.contains(host) {
                    prop_assert!(after.contains(host), "{host} is gone");
                }
            }
            prop_assert_eq!(changed, before != after);
            prop_assert!(ordered.iter().all(|host| !after.contains(host)));
            let mut said: Vec<u8> = events
                .iter()
                .filter(|(_, kind)| !matches!(kind, EventKind::MassRemovalHeld { .. } | EventKind::MassRemovalOver))
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
