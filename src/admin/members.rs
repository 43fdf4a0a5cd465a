//! The peer set as this proxy sees it, as JSON: `/api/v1/members`, and a part of the status. The names here are the
//! interface, and `lbproxy members` reads what is written here.
//!
//! All that grows is bounded by the peer set itself: 10,000 members and 10,000 records of at most 512 bytes. Keys show
//! as their ids and tokens not at all, since a report has neither.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::gossip::Time;
use crate::gossip::counters::Dropped;
use crate::gossip::identity::Role;
use crate::gossip::record::{Announced, Revocation};
use crate::gossip::view::{self, Liveness, Report};

/// Path of the page.
pub(crate) const PATH: &str = "/api/v1/members";
/// Body of the 404 while there is no peer set.
pub(crate) const NO_GOSSIP: &str = "no [gossip]: this proxy is in no peer set\n";

/// The whole page.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MembersPage<'a> {
    /// Label of the set.
    pub label: Cow<'a, str>,
    /// This proxy's name in it.
    pub address: SocketAddr,
    /// Whether packets are sealed.
    pub sealed: bool,
    /// Ids of the keys, the one that seals first.
    pub key_ids: Cow<'a, [String]>,
    /// Whether this proxy has compared its state with another member at least once.
    pub joined: bool,
    /// Whether it does not take part for now, since another process uses its address.
    pub conflict: bool,
    /// Whether the last good set, from disk, still stands in for this one.
    pub stale: bool,
    /// All members, this proxy included, sorted by address; empty while its own member is starting.
    pub members: Vec<MemberEntry<'a>>,
}

/// A member.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MemberEntry<'a> {
    /// The address where it gossips, which is its name.
    pub address: SocketAddr,
    /// `agent` or `proxy`.
    pub role: Cow<'a, str>,
    /// `alive`, `suspect`, `down` or `left`.
    pub state: Cow<'a, str>,
    /// Number of its run: grows with each start.
    pub epoch: u64,
    /// Time since its state, epoch or record last changed here.
    pub changed_seconds_ago: f64,
    /// Why its last announcement is not used, as a reason of `lbproxy_gossip_dropped_total`; absent: it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Cow<'a, str>>,
    /// The services that it announces, sorted by cluster.
    pub records: Vec<ServiceEntry<'a>>,
}

/// A service that a member announces.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServiceEntry<'a> {
    /// The name that proxies discover it by.
    pub cluster: Cow<'a, str>,
    /// Name of the agent; may be empty.
    pub name: Cow<'a, str>,
    /// The address of the service.
    pub backend: SocketAddr,
    /// 0 to 1000.
    pub weight: u16,
    /// Zone of the service; may be empty.
    pub zone: Cow<'a, str>,
    /// `starting`, `ready`, `failing`, `draining` or `left`.
    pub state: Cow<'a, str>,
    /// Version of the service; may be empty.
    pub build: Cow<'a, str>,
    /// Number of the run that announced it.
    pub epoch: u64,
    /// Grows with each change in a run.
    pub version: u64,
    /// Time since it was accepted here.
    pub seconds_ago: f64,
    /// When its token expires, unix seconds; absent where no token is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// `expired` or `not_permitted`: why it no longer counts; absent while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Cow<'a, str>>,
}

impl<'a> MembersPage<'a> {
    /// The page of a report; O(members).
    pub(crate) fn of(report: &'a Report, stale: bool) -> Self {
        let member = |m| member(m, report);
        Self {
            label: Cow::from(&report.label),
            address: report.address,
            sealed: is_sealed(report),
            key_ids: Cow::from(&report.key_ids),
            joined: report.joined,
            conflict: report.conflict,
            stale,
            members: report.set.members.iter().map(member).collect(),
        }
    }
}

fn member<'a>(member: &'a view::Member, report: &Report) -> MemberEntry<'a> {
    let at = report.at;
    let all = &report.refused;
    let refused = all.binary_search_by_key(&member.address, |(address, _)| *address);
    let mut records: Vec<_> = member.records.iter().map(|r| record(r, at)).collect();
    records.sort_unstable_by(|a, b| (&a.cluster, a.backend).cmp(&(&b.cluster, b.backend)));
    MemberEntry {
        address: member.address,
        role: Cow::from(member.role.as_str()),
        state: Cow::from(member.liveness.as_str()),
        epoch: member.epoch,
        changed_seconds_ago: ago(at, member.changed),
        refused: refused
            .ok()
            .map(|place| Cow::from(Dropped::from(all[place].1).as_str())),
        records,
    }
}

fn record(announced: &Announced, at: Time) -> ServiceEntry<'_> {
    let record = &announced.record;
    ServiceEntry {
        cluster: Cow::from(&record.cluster),
        name: Cow::from(&record.name),
        backend: record.backend,
        weight: record.weight,
        zone: Cow::from(&record.zone),
        state: Cow::from(record.state.as_str()),
        build: Cow::from(&record.build),
        epoch: announced.epoch,
        version: announced.version,
        seconds_ago: ago(at, announced.accepted),
        expires: announced.expires,
        revoked: announced.revoked.map(|why| Cow::from(why.as_str())),
    }
}

/// Seconds from `then` to `at`, to the millisecond.
fn ago(at: Time, then: Time) -> f64 {
    at.saturating_sub(then).as_millis() as f64 / 1e3
}

/// The peer set in the status.
#[derive(Debug, Serialize)]
pub(super) struct GossipStatus<'a> {
    by_state: BTreeMap<&'static str, u64>,
    by_role: BTreeMap<&'static str, u64>,
    #[serde(flatten)]
    set: MembersPage<'a>,
}

impl<'a> GossipStatus<'a> {
    /// The status of a report; O(members).
    pub(super) fn of(report: &'a Report, stale: bool) -> Self {
        let by_role = [Role::Agent, Role::Proxy]
            .map(|role| (role.as_str(), count(report, |member| member.role == role)));
        Self {
            by_state: by_state(report).into(),
            by_role: by_role.into(),
            set: MembersPage::of(report, stale),
        }
    }
}

/// How many members there are in each state.
pub(super) fn by_state(report: &Report) -> [(&'static str, u64); Liveness::ALL.len()] {
    Liveness::ALL.map(|state| (state.as_str(), count(report, |m| m.liveness == state)))
}

/// The earliest expiry of a token, unix seconds, among the records that count and those that have expired.
pub(super) fn first_expiry(report: &Report) -> Option<u64> {
    let records = report.set.members.iter().flat_map(|m| &m.records);
    let permitted = records.filter(|r| r.revoked != Some(Revocation::NotPermitted));
    permitted.filter_map(|record| record.expires).min()
}

fn count(report: &Report, like: impl Fn(&view::Member) -> bool) -> u64 {
    report.set.members.iter().filter(|m| like(m)).count() as u64
}

/// Whether packets are sealed.
pub(super) fn is_sealed(report: &Report) -> bool {
    !report.key_ids.is_empty()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::gossip::counters::GossipCounters;
    use crate::gossip::keyring::OpenError;
    use crate::gossip::record::{self, ServiceState};
    use crate::gossip::records::RecordRefusal;

    fn announced(cluster: &str, backend: &str, state: ServiceState) -> Announced {
        let record = record::Record {
            name: "host-7".to_owned(),
            cluster: cluster.to_owned(),
            backend: backend.parse().unwrap(),
            weight: 3,
            zone: "a".to_owned(),
            state,
            build: "1.2".to_owned(),
        };
        Announced {
            record: Arc::new(record),
            epoch: 70,
            version: 4,
            accepted: Duration::from_millis(98_500),
            expires: None,
            revoked: None,
        }
    }

    /// A proxy, and an agent in each other state: one without a record, one with two.
    pub(crate) fn report() -> Report {
        let member = |address: &str, role, liveness, records| view::Member {
            address: address.parse().unwrap(),
            epoch: 70,
            role,
            liveness,
            changed: Duration::from_secs(39),
            records,
        };
        let two = vec![
            announced("web", "10.0.0.8:80", ServiceState::Draining),
            announced("api", "10.0.0.8:81", ServiceState::Ready),
        ];
        let one = vec![announced("web", "10.0.0.7:80", ServiceState::Left)];
        let members = vec![
            member("10.0.0.5:7946", Role::Proxy, Liveness::Alive, Vec::new()),
            member("10.0.0.7:7946", Role::Agent, Liveness::Left, one),
            member("10.0.0.8:7946", Role::Agent, Liveness::Suspect, two),
            member("[fd00::9]:7946", Role::Agent, Liveness::Down, Vec::new()),
        ];
        let mut counters = GossipCounters {
            packets_out: 10,
            bytes_out: 1_000,
            packets_in: 20,
            bytes_in: 2_000,
            challenges: 5,
            suspicions: 6,
            refutations: 7,
            rejoins: 8,
            push_pulls: 9,
            push_pulls_failed: 1,
            news: 4,
            news_age: Duration::from_millis(1_250),
            ..GossipCounters::default()
        };
        counters.drop(Dropped::Replayed);
        counters.drop(Dropped::Seal(OpenError::Forged));
        Report {
            set: Arc::new(view::PeerSet {
                version: 1,
                at: Duration::from_secs(100),
                members,
            }),
            at: Duration::from_secs(100),
            address: "10.0.0.5:7946".parse().unwrap(),
            label: "prod".to_owned(),
            key_ids: vec!["0badcafe".to_owned()],
            counters,
            lag: Duration::from_millis(3),
            health_multiplier: 2,
            joined: true,
            conflict: false,
            refused: vec![("[fd00::9]:7946".parse().unwrap(), RecordRefusal::NoToken)],
        }
    }

    #[test]
    fn the_set_as_json() {
        let seen = serde_json::to_value(MembersPage::of(&report(), false)).unwrap();
        let record = |cluster, backend, state| {
            json!({
                "cluster": cluster, "name": "host-7", "backend": backend, "weight": 3, "zone": "a", "state": state,
                "build": "1.2", "epoch": 70, "version": 4, "seconds_ago": 1.5,
            })
        };
        let member = |address, role, state, records: &[_]| {
            json!({
                "address": address, "role": role, "state": state, "epoch": 70, "changed_seconds_ago": 61.0,
                "records": records,
            })
        };
        let mut without_token = member("[fd00::9]:7946", "agent", "down", &[]);
        without_token["refused"] = json!("token");
        let two = [
            record("api", "10.0.0.8:81", "ready"),
            record("web", "10.0.0.8:80", "draining"),
        ];
        let one = [record("web", "10.0.0.7:80", "left")];
        let members = [
            member("10.0.0.5:7946", "proxy", "alive", &[]),
            member("10.0.0.7:7946", "agent", "left", &one),
            member("10.0.0.8:7946", "agent", "suspect", &two),
            without_token,
        ];
        let expected = json!({
            "label": "prod", "address": "10.0.0.5:7946", "sealed": true, "key_ids": ["0badcafe"], "joined": true,
            "conflict": false, "stale": false, "members": members,
        });
        assert_eq!(seen, expected);

        let mut status = serde_json::to_value(GossipStatus::of(&report(), false)).unwrap();
        let fields = status.as_object_mut().unwrap();
        assert_eq!(
            [
                fields.remove("by_state").unwrap(),
                fields.remove("by_role").unwrap()
            ],
            [
                json!({ "alive": 1, "suspect": 1, "down": 1, "left": 1 }),
                json!({ "agent": 3, "proxy": 1 })
            ]
        );
        assert_eq!(status, expected, "and otherwise the same");
    }

    /// The report with tokens: one that has expired, one that is good, one that is not permitted.
    pub(crate) fn with_tokens(expires: [u64; 3]) -> Report {
        let mut report = report();
        let mut set = view::PeerSet::clone(&report.set);
        let records = set.members.iter_mut().flat_map(|m| &mut m.records);
        let revoked = [
            Some(Revocation::Expired),
            None,
            Some(Revocation::NotPermitted),
        ];
        for ((record, expires), revoked) in records.zip(expires).zip(revoked) {
            (record.expires, record.revoked) = (Some(expires), revoked);
        }
        report.set = Arc::new(set);
        report
    }

    #[test]
    fn tokens_and_what_may_not_be_announced_any_more() {
        let report = with_tokens([300, 200, 100]);
        let members = serde_json::to_value(MembersPage::of(&report, false)).unwrap();
        let seen = |member: usize, record: usize| {
            let record = &members["members"][member]["records"][record];
            (record["expires"].clone(), record["revoked"].clone())
        };
        assert_eq!(seen(1, 0), (json!(300), json!("expired")));
        assert_eq!(seen(2, 0), (json!(100), json!("not_permitted")));
        assert_eq!(seen(2, 1), (json!(200), json!(null)));
        assert_eq!(first_expiry(&report), Some(200));
        assert_eq!(first_expiry(&self::report()), None);
    }

    #[test]
    fn a_full_set_is_some_megabytes() {
        let mut report = report();
        let mut longest =
            (*announced("x", "[fd00::8]:65535", ServiceState::Starting).record).clone();
        // Each of these takes two bytes in JSON.
        (longest.name, longest.cluster) = ("\"".repeat(64), "\"".repeat(64));
        (longest.zone, longest.build) = ("\"".repeat(32), "\"".repeat(32));
        longest.check().unwrap();
        let announced = Announced {
            record: Arc::new(longest),
            epoch: u64::MAX,
            version: u64::MAX,
            accepted: Duration::ZERO,
            expires: Some(u64::MAX),
            revoked: Some(Revocation::NotPermitted),
        };
        let member = view::Member {
            address: "[fd00::8]:65535".parse().unwrap(),
            epoch: u64::MAX,
            role: Role::Agent,
            liveness: Liveness::Suspect,
            changed: Duration::ZERO,
            records: vec![announced],
        };
        report.set = Arc::new(view::PeerSet {
            version: 1,
            at: Duration::from_secs(1 << 32),
            members: vec![member; 10_000],
        });
        let text = serde_json::to_vec(&MembersPage::of(&report, false)).unwrap();
        assert!(text.len() < 8 << 20, "{}", text.len());
    }
}
