//! The thread over real sockets on loopback: what it logs, and what it survives.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use super::super::member::{Prepared, RunningMember};
use super::*;
use crate::gossip::quarantine::BUG;
use crate::gossip::record::ServiceState;
use crate::gossip::token::{Authority, OperatorKey};
use crate::model::address::BackendAddress;
use crate::telemetry::capture::Capture;

const PATIENCE: Duration = Duration::from_secs(60);

fn settings(ip: &str, role: Role, seeds: &[SocketAddr]) -> MemberSettings {
    let socket = std::net::UdpSocket::bind((ip, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    MemberSettings {
        address,
        advertise: address,
        seeds: seeds.iter().copied().map(BackendAddress::Ip).collect(),
        label: String::new(),
        key_files: Vec::new(),
        accept_plaintext: false,
        token_keys: Vec::new(),
        revoked: Vec::new(),
        token_file: None,
        role,
    }
}

/// A proxy whose thread is this one's child, so that what it logs is known.
struct Proxy {
    address: SocketAddr,
    windows: Windows,
    commands: mpsc::UnboundedSender<Command>,
    thread: JoinHandle<Vec<usize>>,
}

impl Proxy {
    /// Counts `words` in its log.
    fn start(ip: &str, authority: Option<Authority>, words: &'static [&str]) -> Self {
        let settings = settings(ip, Role::Proxy, &[]);
        let address = settings.address;
        let secrets = Secrets {
            authority,
            ..settings.secrets().unwrap()
        };
        let sockets = Sockets::bind(address).unwrap();
        let windows = Windows::default();
        let (commands, received) = mpsc::unbounded_channel();
        let seat = Seat {
            settings,
            windows: windows.clone(),
            claim: 0,
            commands: received,
            announced: None,
            failed: false,
        };
        let thread = std::thread::spawn(move || {
            let log = Capture::begin();
            run(seat, secrets, sockets);
            words.iter().map(|word| log.count(word)).collect()
        });
        Self {
            address,
            windows,
            commands,
            thread,
        }
    }

    async fn wait(&self, what: &str, is_so: impl FnMut(&Option<Arc<Report>>) -> bool) {
        let mut reports = self.windows.report.subscribe();
        let found = reports.wait_for(is_so);
        let found = tokio::time::timeout(PATIENCE, found).await.is_ok();
        assert!(found, "{what}: {:?}", *self.windows.report.borrow());
    }

    /// How often its words were logged.
    fn end(self) -> Vec<usize> {
        drop(self.commands);
        self.thread.join().unwrap()
    }
}

/// An agent whose service is in `zone`. One that is not `reached` advertises where it is not: then it is heard on
/// streams alone.
fn agent(ip: &str, zone: &str, reached: bool, proxy: &Proxy) -> RunningMember {
    let mut settings = settings(ip, Role::Agent, &[proxy.address]);
    if !reached {
        settings.advertise.set_port(9);
    }
    let address = settings.advertise;
    let prepared = Prepared::new(settings, None).unwrap();
    let member = prepared.start(Windows::default()).unwrap();
    drop(member.announce(Record {
        zone: zone.to_owned(),
        ..crate::gossip::fixture::record(address, 1, ServiceState::Ready)
    }));
    member
}

#[tokio::test]
async fn an_agent_without_a_token_is_named_once_in_the_log() {
    let operator = OperatorKey::generate(&[1; 32]).public();
    let words = &[
        "an announcement is refused: the announcement carries no token",
        "cluster=web reason=\"token\"",
    ];
    let proxy = Proxy::start("127.88.1.1", Some(Authority::new(operator)), words);
    let agent = agent("127.88.1.2", "a", true, &proxy);
    let seen = |report: &Option<Arc<Report>>| {
        report.as_ref().is_some_and(|report| {
            report.counters.dropped(Dropped::NoToken) >= 2 && report.refused.len() == 1
        })
    };
    proxy.wait("refused twice", seen).await;
    agent.leave().await;
    assert_eq!(proxy.end(), [1, 1]);
}

#[tokio::test]
async fn an_announcement_that_fails_the_thread_is_refused_by_the_next_one() {
    let words = &[
        "the gossip thread has failed, and begins anew",
        "handled is refused from now on hash=",
    ];
    let proxy = Proxy::start("127.88.2.1", None, words);
    let bad = agent("127.88.2.2", BUG, false, &proxy);
    let good = agent("127.88.2.3", "a", true, &proxy);
    let seen = |report: &Option<Arc<Report>>| {
        report.as_ref().is_some_and(|report| {
            let records = report.set.members.iter().flat_map(|m| &m.records);
            let zones: Vec<&str> = records.map(|r| r.record.zone.as_str()).collect();
            report.counters.dropped(Dropped::Quarantined) >= 2 && zones == ["a"]
        })
    };
    proxy
        .wait("the bad one refused, the good one used", seen)
        .await;
    good.leave().await;
    bad.leave().await;
    assert_eq!(proxy.end(), [1, 1], "once each");
}
