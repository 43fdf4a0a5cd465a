//! What is accepted, by whom, and for how long.

use super::*;
use crate::gossip::identity::pack_address;
use crate::gossip::record::{MAX_VERSION, Record, ServiceState};
use crate::gossip::token::{AgentCredential, Claims, OperatorKey, agent_id, mint, mint_with};

const NOW: Time = Duration::from_secs(50);
const EXPIRES: u64 = 10_000;

fn record(cluster: &str) -> Record {
    Record {
        name: "n".to_owned(),
        cluster: cluster.to_owned(),
        backend: "10.1.0.1:80".parse().unwrap(),
        weight: 5,
        zone: String::new(),
        state: ServiceState::Ready,
        build: String::new(),
    }
}

fn member(last: u8) -> MemberKey {
    pack_address(([10, 1, 0, last], 7946).into())
}

fn open(
    records: &mut Records,
    member: u8,
    cluster: &str,
    epoch: u64,
    version: u64,
) -> Result<bool, RecordRefusal> {
    let bytes = record(cluster)
        .encode(&self::member(member), epoch, version, &[])
        .unwrap();
    let policy = RecordPolicy {
        authority: None,
        label: "",
        unix: 0,
    };
    let taken = records.accept(
        &bytes,
        Duration::ZERO,
        NOW,
        &policy,
        |_| Some(9),
        HashSet::new,
    );
    taken.map(|key| key.is_some())
}

#[test]
fn the_newest_of_a_member_for_a_cluster_wins() {
    let mut records = Records::new(10);
    for (cluster, epoch, version, news) in [
        ("a", 5, 5, true),
        ("a", 5, 5, false),
        ("a", 5, 4, false),
        ("a", 4, 9, false),
        ("a", 5, 6, true),
        ("a", 6, 1, true),
        ("b", 1, 1, true),
    ] {
        let taken = open(&mut records, 1, cluster, epoch, version);
        assert_eq!(taken, Ok(news), "{cluster} {epoch} {version}");
    }
    assert_eq!((records.len(), records.of(&member(1)).count()), (2, 2));
}

#[test]
fn nobody_announces_for_a_later_run() {
    let mut records = Records::new(10);
    assert_eq!(open(&mut records, 1, "a", 9, 1), Ok(true));
    let later = Err(RecordRefusal::LaterRun);
    assert_eq!(open(&mut records, 1, "a", 10, 1), later);
    assert_eq!(open(&mut records, 1, "b", 10, 1), later);
}

#[test]
fn room_is_bounded() {
    let mut records = Records::new(12);
    for cluster in ["a", "b", "c", "d"] {
        assert_eq!(open(&mut records, 1, cluster, 1, 1), Ok(true));
    }
    let full = Err(RecordRefusal::Full);
    assert_eq!(open(&mut records, 1, "e", 1, 1), full, "of one member");
    for member in 2..7 {
        assert_eq!(open(&mut records, member, "a", 1, 1), Ok(true));
    }
    assert_eq!(open(&mut records, 7, "a", 1, 1), full, "of one cluster");
    assert_eq!(open(&mut records, 7, "b", 1, 1), Ok(true), "not of others");
    assert_eq!(open(&mut records, 7, "c", 1, 1), Ok(true));
    assert_eq!(open(&mut records, 7, "d", 1, 1), Ok(true));
    assert_eq!(open(&mut records, 8, "b", 1, 1), full, "in all");
    assert_eq!(
        open(&mut records, 6, "a", 1, 2),
        Ok(true),
        "but a newer one"
    );
}

#[test]
fn strangers_have_a_tenth_and_a_minute() {
    let mut records = Records::new(20);
    let policy = RecordPolicy {
        authority: None,
        label: "",
        unix: 0,
    };
    let take = |records: &mut Records, last: u8| {
        let bytes = record(&last.to_string())
            .encode(&member(last), 1, 1, &[])
            .unwrap();
        records.accept(&bytes, Duration::ZERO, NOW, &policy, |_| None, HashSet::new)
    };
    for last in 1..=2 {
        assert!(take(&mut records, last).is_ok());
    }
    assert_eq!(take(&mut records, 3), Err(RecordRefusal::Full));
    // The first becomes known, and then continues in another run.
    let known = |who: &MemberKey| (*who == member(1)).then_some(1);
    let later = |who: &MemberKey| (*who == member(1)).then_some(2);
    assert!(!records.sweep(NOW, 0, known), "there is time");
    assert!(take(&mut records, 3).is_ok(), "one place is free");
    assert!(records.sweep(NOW + ORPHAN, 0, known));
    assert_eq!(records.len(), 2, "the second was an orphan for long");
    assert!(records.sweep(NOW + ORPHAN * 2, 0, later));
    assert!(!records.sweep(NOW + ORPHAN * 3, 0, later));
    assert_eq!(
        records.len(),
        1,
        "the third too; the first stands until its member speaks in the run that is there"
    );
    let again = record("b").encode(&member(1), 2, 1, &[]).unwrap();
    let run = |_: &MemberKey| Some(2);
    assert!(
        records
            .accept(&again, Duration::ZERO, NOW, &policy, run, HashSet::new)
            .is_ok()
    );
    assert!(!records.sweep(NOW + ORPHAN * 4, 0, later));
    assert!(records.sweep(NOW + ORPHAN * 5, 0, later));
    assert_eq!(records.len(), 1, "and then goes");
}

fn signed(credential: &AgentCredential, record: &Record, from: u8, label: &str) -> Vec<u8> {
    let mut token = Vec::new();
    credential.token().encode(&mut token);
    let mut bytes = record.encode(&member(from), 1, 1, &token).unwrap();
    let signature = credential.sign(label, &bytes);
    bytes.extend_from_slice(&signature);
    bytes
}

#[test]
fn with_an_operator_a_token_decides() {
    let operator = OperatorKey::generate(&[1; 32]);
    let other = OperatorKey::generate(&[2; 32]);
    let cidrs = ["10.1.0.0/24".parse().unwrap()];
    let of = |operator| mint(operator, &[3; 32], "web", &cidrs, 5, EXPIRES).unwrap();
    let right = of(&operator);
    let web = record("web");
    let with = |change: fn(&mut Record)| {
        let mut record = record("web");
        change(&mut record);
        record
    };
    let good = signed(&right, &web, 1, "set");
    let mut forged = good.clone();
    forged[34] ^= 1;
    let mut elsewhere = web.encode(&pack_address("10.2.0.1:1".parse().unwrap()), 1, 1, &{
        let mut token = Vec::new();
        right.token().encode(&mut token);
        token
    });
    if let Ok(bytes) = &mut elsewhere {
        let signature = right.sign("set", bytes);
        bytes.extend_from_slice(&signature);
    }
    let bare = web.encode(&member(1), 1, 1, &[]).unwrap();
    use RecordRefusal::{NoToken, Token};
    use TokenError as E;
    for (what, bytes, unix, expected) in [
        ("as it should be", good.clone(), 0, Ok(true)),
        (
            "just expired, within the grace",
            good.clone(),
            EXPIRES + 300,
            Ok(true),
        ),
        ("expired", good, EXPIRES + 301, Err(Token(E::Expired))),
        ("no token", bare, 0, Err(NoToken)),
        (
            "another operator",
            signed(&of(&other), &web, 1, "set"),
            0,
            Err(Token(E::Forged)),
        ),
        (
            "signed for another set",
            signed(&right, &web, 1, "other"),
            0,
            Err(Token(E::RecordForged)),
        ),
        ("changed", forged, 0, Err(Token(E::RecordForged))),
        (
            "another cluster",
            signed(&right, &record("api"), 1, "set"),
            0,
            Err(Token(E::OtherCluster)),
        ),
        (
            "another network",
            signed(
                &right,
                &with(|r| r.backend = "10.2.0.1:80".parse().unwrap()),
                1,
                "set",
            ),
            0,
            Err(Token(E::OtherNetwork)),
        ),
        (
            "a member elsewhere",
            elsewhere.unwrap(),
            0,
            Err(Token(E::OtherNetwork)),
        ),
        (
            "too heavy",
            signed(&right, &with(|r| r.weight = 6), 1, "set"),
            0,
            Err(Token(E::TooHeavy)),
        ),
    ] {
        let authority = Authority::new(operator.public());
        let policy = RecordPolicy {
            authority: Some(&authority),
            label: "set",
            unix,
        };
        let mut records = Records::new(10);
        let run = |_: &MemberKey| Some(1);
        let taken = records.accept(&bytes, Duration::ZERO, NOW, &policy, run, HashSet::new);
        assert_eq!(taken.map(|key| key.is_some()), expected, "{what}");
        let revoked = |records: &Records| records.iter().map(|(_, r)| r.announced.revoked).next();
        if expected.is_ok() {
            let expires = |records: &Records| records.iter().next()?.1.announced.expires;
            assert_eq!(
                (revoked(&records), expires(&records)),
                (Some(None), Some(EXPIRES))
            );
            assert!(records.sweep(NOW, EXPIRES + 301, run));
            let expired = Some(Some(Revocation::Expired));
            assert_eq!(revoked(&records), expired, "it is revoked when it expires");
            assert!(!records.sweep(NOW + ORPHAN * 2, EXPIRES + 400, run));
            assert_eq!(
                revoked(&records),
                expired,
                "and can be seen for as long as its member is there"
            );
            let forbidden = Some(Some(Revocation::NotPermitted));
            let others = Authority::new(other.public());
            for (authority, unix, expected) in [
                (Some(&authority), unix, Some(None)),
                (Some(&authority), EXPIRES + 301, expired),
                (Some(&others), unix, forbidden),
                (Some(&others), EXPIRES + 301, forbidden),
                (None, EXPIRES + 301, Some(None)),
            ] {
                records.judge_again(&RecordPolicy {
                    authority,
                    unix,
                    ..policy
                });
                assert_eq!(revoked(&records), expected);
            }
            assert_eq!(
                expires(&records),
                None,
                "without an operator no token counts"
            );
        }
    }
}

/// An operator's key, and agents with a token each.
fn agents(seeds: &[u8]) -> (Authority, Vec<AgentCredential>) {
    let operator = OperatorKey::generate(&[1; 32]);
    let cidrs = ["10.1.0.0/24".parse().unwrap()];
    let of = |seed: &u8| mint(&operator, &[*seed; 32], "web", &cidrs, 5, EXPIRES).unwrap();
    (
        Authority::new(operator.public()),
        seeds.iter().map(of).collect(),
    )
}

/// An announcement with `credential` in the name of member 1.
fn by(credential: &AgentCredential, epoch: u64, version: u64) -> Vec<u8> {
    let mut token = Vec::new();
    credential.token().encode(&mut token);
    let bytes = record("web").encode(&member(1), epoch, version, &token);
    let mut bytes = bytes.unwrap();
    let signature = credential.sign("set", &bytes);
    bytes.extend_from_slice(&signature);
    bytes
}

#[test]
fn a_member_announces_with_one_key_until_it_proves_another() {
    let (authority, all) = agents(&[3, 4]);
    let policy = RecordPolicy {
        authority: Some(&authority),
        label: "set",
        unix: 0,
    };
    let keys = [0, 1].map(|i: usize| *all[i].token().agent());
    let other = Err(RecordRefusal::OtherAgent);
    let mut records = Records::new(10);
    let mut take =
        |who: usize, epoch: u64, version: u64, run: u64, proved: Option<(u64, usize)>| {
            if let Some((epoch, who)) = proved {
                records.prove(member(1), epoch, keys[who]);
            }
            let bytes = by(&all[who], epoch, version);
            let taken = records.accept(
                &bytes,
                Duration::ZERO,
                NOW,
                &policy,
                |_| Some(run),
                HashSet::new,
            );
            (taken.map(|key| key.is_some()), records.bound(&member(1)))
        };
    for (who, epoch, version, run, proved, expected, bound) in [
        (0, 5, 3, 5, None, Ok(true), (5, 0)),
        // However new it is, and in any run.
        (1, 5, 3, 5, None, other, (5, 0)),
        (1, 5, MAX_VERSION, 5, None, other, (5, 0)),
        (1, 5, 1, 5, None, other, (5, 0)),
        (1, 6, 1, 6, None, other, (5, 0)),
        (1, 6, 1, 6, Some((5, 1)), other, (5, 0)),
        (1, 6, 1, 6, Some((6, 0)), other, (5, 0)),
        (1, 4, 9, 6, None, Ok(false), (5, 0)),
        // The same key needs no proof.
        (0, 6, 1, 6, None, Ok(true), (6, 0)),
        // Another token in the same run, even with a lower version.
        (1, 6, 1, 6, Some((6, 1)), Ok(true), (6, 1)),
        (0, 6, 2, 6, None, other, (6, 1)),
        (1, 6, 2, 6, None, Ok(true), (6, 1)),
        // It was announced for a run that its member turns out not to be in.
        (0, 3, 1, 3, None, Ok(true), (3, 0)),
    ] {
        let taken = take(who, epoch, version, run, proved);
        let bound = Some((bound.0, keys[bound.1]));
        assert_eq!(taken, (expected, bound), "{who} {epoch} {version}");
    }
    assert_eq!(records.len(), 1);
    // Without an operator nobody is bound.
    records.judge_again(&RecordPolicy {
        authority: None,
        ..policy
    });
    assert_eq!(records.bound(&member(1)), None);
}

#[test]
fn versions_and_runs_are_bounded() {
    const UNIX: u64 = 1_790_000_000;
    let policy = RecordPolicy {
        authority: None,
        label: "",
        unix: UNIX,
    };
    let malformed = Err(RecordRefusal::Malformed);
    for (epoch, version, expected) in [
        (1, MAX_VERSION, Ok(true)),
        (1, MAX_VERSION + 1, malformed),
        (1, u64::MAX, malformed),
        (UNIX * 1_000, 1, Ok(true)),
        (UNIX * 2_000, 1, malformed),
        (u64::MAX, 1, malformed),
    ] {
        let bytes = record("a").encode(&member(1), epoch, version, &[]).unwrap();
        let taken =
            Records::new(9).accept(&bytes, Duration::ZERO, NOW, &policy, |_| None, HashSet::new);
        assert_eq!(
            taken.map(|key| key.is_some()),
            expected,
            "{epoch} {version}"
        );
    }
}

#[test]
fn a_token_limits_backends_set_and_agent_networks() {
    let operator = OperatorKey::generate(&[1; 32]);
    let nets = |all: &[&str]| {
        all.iter()
            .map(|net| net.parse().unwrap())
            .collect::<Vec<_>>()
    };
    let claims = Claims {
        label: Some("set".to_owned()),
        max_backends: Some(2),
        agent_cidrs: nets(&["10.1.0.0/29"]),
    };
    let backends = nets(&["10.2.0.0/16"]);
    let mint =
        |seed, claims| mint_with(&operator, &[seed; 32], "web", &backends, 5, EXPIRES, claims);
    let narrow = mint(3, claims.clone()).unwrap();
    let elsewhere = Claims {
        label: Some("other".to_owned()),
        ..claims
    };
    let elsewhere = mint(4, elsewhere).unwrap();
    let authority = Authority::new(operator.public());
    let policy = RecordPolicy {
        authority: Some(&authority),
        label: "set",
        unix: 0,
    };
    let mut records = Records::new(20);
    let mut take = |by: &AgentCredential, from: u8, backend: &str, state, down: &[u8]| {
        let record = Record {
            backend: backend.parse().unwrap(),
            state,
            ..record("web")
        };
        let bytes = signed(by, &record, from, "set");
        let live = || {
            let live = (1..20).filter(|last| !down.contains(last));
            live.map(member).collect()
        };
        let taken = records.accept(&bytes, Duration::ZERO, NOW, &policy, |_| Some(1), live);
        let stands = records
            .iter()
            .filter(|(_, r)| r.announced.revoked.is_none());
        (taken.map(|key| key.is_some()), stands.count())
    };
    use RecordRefusal::Token;
    use ServiceState::{Left, Ready};
    use TokenError as E;
    let many = Err(Token(E::TooManyBackends));
    for (what, by, from, backend, state, down, expected, stand) in [
        (
            "the first",
            &narrow,
            1,
            "10.2.0.1:80",
            Ready,
            &[][..],
            Ok(true),
            1,
        ),
        (
            "the same by another",
            &narrow,
            2,
            "10.2.0.1:80",
            Ready,
            &[],
            Ok(true),
            2,
        ),
        (
            "another",
            &narrow,
            3,
            "10.2.0.2:80",
            Ready,
            &[],
            Ok(true),
            3,
        ),
        ("a third", &narrow, 4, "10.2.0.3:80", Ready, &[], many, 3),
        (
            "one of both is there",
            &narrow,
            4,
            "10.2.0.3:80",
            Ready,
            &[1],
            many,
            3,
        ),
        (
            "one that has left",
            &narrow,
            5,
            "10.2.0.4:80",
            Left,
            &[],
            Ok(true),
            4,
        ),
        (
            "one has gone",
            &narrow,
            4,
            "10.2.0.3:80",
            Ready,
            &[3],
            Ok(true),
            4,
        ),
        ("and is out", &narrow, 6, "10.2.0.2:80", Ready, &[], many, 4),
        (
            "another set",
            &elsewhere,
            6,
            "10.2.0.2:80",
            Ready,
            &[],
            Err(Token(E::OtherLabel)),
            4,
        ),
        (
            "another place",
            &narrow,
            9,
            "10.2.0.1:80",
            Ready,
            &[],
            Err(Token(E::OtherAgentNetwork)),
            4,
        ),
        (
            "another network",
            &narrow,
            6,
            "10.1.0.1:80",
            Ready,
            &[],
            Err(Token(E::OtherNetwork)),
            4,
        ),
    ] {
        let taken = take(by, from, backend, state, down);
        assert_eq!(taken, (expected, stand), "{what}");
    }
}

#[test]
fn members_are_searched_only_if_a_tokens_backends_are_used_up() {
    let operator = OperatorKey::generate(&[1; 32]);
    let cidrs = ["10.1.0.0/16".parse().unwrap()];
    let claims = Claims {
        max_backends: Some(2),
        ..Claims::default()
    };
    let agent = mint_with(&operator, &[3; 32], "web", &cidrs, 5, EXPIRES, claims).unwrap();
    let authority = Authority::new(operator.public());
    let policy = RecordPolicy {
        authority: Some(&authority),
        label: "set",
        unix: 0,
    };
    let mut records = Records::new(20);
    for (from, looked) in [(1, false), (2, false), (2, false), (3, true)] {
        let record = Record {
            backend: SocketAddr::new([10, 1, 1, from].into(), 80),
            ..record("web")
        };
        let bytes = signed(&agent, &record, from, "set");
        let mut asked = false;
        let live = || {
            asked = true;
            (1..9).map(member).collect()
        };
        let _ = records.accept(&bytes, Duration::ZERO, NOW, &policy, |_| Some(1), live);
        assert_eq!(asked, looked, "{from}");
    }
}

#[test]
fn several_operators_and_single_revocations() {
    let [first, second, third] = [1, 2, 3].map(|seed| OperatorKey::generate(&[seed; 32]));
    let cidrs = ["10.1.0.0/24".parse().unwrap()];
    let of = |operator, seed| mint(operator, &[seed; 32], "web", &cidrs, 5, EXPIRES).unwrap();
    let good = of(&first, 7);
    let id = agent_id(good.token().agent());
    let both = vec![first.public(), second.public()];
    for (credential, revoked, expected) in [
        (&good, vec![], Ok(())),
        (&of(&second, 8), vec![], Ok(())),
        (&of(&third, 9), vec![], Err(TokenError::Forged)),
        (&good, vec![id.clone()], Err(TokenError::Revoked)),
        (&good, vec![id[..4].to_owned()], Err(TokenError::Revoked)),
        (&of(&second, 8), vec![id.clone()], Ok(())),
    ] {
        let authority = Authority::of(both.clone(), revoked.clone());
        let judged = authority.verify_token(credential.token(), 0);
        assert_eq!(judged, expected, "{revoked:?}");
    }
}
