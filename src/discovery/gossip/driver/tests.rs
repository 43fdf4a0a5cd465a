//! The thread over real sockets on loopback: what it logs, and what it survives.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use super::*;
use crate::discovery::gossip::fixture::settings;
use crate::discovery::gossip::member::{PreparedMember, RunningMember};
use crate::gossip::quarantine::BUG;
use crate::gossip::record::ServiceState;
use crate::gossip::token::{Authority, OperatorKey};
use crate::gossip::view::Report;
use crate::telemetry::capture::LogCapture;

const PATIENCE: Duration = Duration::from_secs(60);

/// A proxy whose thread the test starts itself, so that it sees what is logged.
struct Proxy {
    address: SocketAddr,
    publisher: MemberPublisher,
    commands: mpsc::UnboundedSender<MemberCommand>,
    thread: JoinHandle<Vec<usize>>,
}

impl Proxy {
    /// Counts `texts` in its log.
    fn start(ip: &str, authority: Option<Authority>, texts: &'static [&str]) -> Self {
        let settings = settings(ip, Role::Proxy, &[]);
        let address = settings.peer_set.address;
        let secrets = Secrets {
            authority,
            ..settings.secrets().unwrap()
        };
        let sockets = Sockets::bind(address).unwrap();
        let publisher = MemberPublisher::default();
        let (commands, received) = mpsc::unbounded_channel();
        let state = SurvivingState {
            settings,
            publisher: publisher.clone(),
            claim: 0,
            commands: received,
            announced: None,
            restarted: false,
        };
        let thread = std::thread::spawn(move || {
            let log = LogCapture::begin();
            run(state, secrets, sockets);
            texts.iter().map(|text| log.count(text)).collect()
        });
        Self {
            address,
            publisher,
            commands,
            thread,
        }
    }

    async fn wait(&self, what: &str, is_so: impl FnMut(&Option<Arc<Report>>) -> bool) {
        let mut reports = self.publisher.report.subscribe();
        let found = reports.wait_for(is_so);
        let found = tokio::time::timeout(PATIENCE, found).await.is_ok();
        assert!(found, "{what}: {:?}", *self.publisher.report.borrow());
    }

    /// How often each text was logged.
    fn end(self) -> Vec<usize> {
        drop(self.commands);
        self.thread.join().unwrap()
    }
}

/// An agent whose service is in `zone`. One that is not `reached` advertises an address where it is not, so that it is
/// heard on streams alone.
fn agent(ip: &str, zone: &str, reached: bool, proxy: &Proxy) -> RunningMember {
    let mut settings = settings(ip, Role::Agent, &[proxy.address]);
    if !reached {
        settings.peer_set.advertise.set_port(9);
    }
    let address = settings.peer_set.advertise;
    let prepared = PreparedMember::new(settings).unwrap();
    let member = prepared.start(MemberPublisher::default());
    drop(member.announce(Record {
        zone: zone.to_owned(),
        ..crate::gossip::fixture::record(address, 1, ServiceState::Ready)
    }));
    member
}

#[tokio::test]
async fn an_agent_without_a_token_is_named_once_in_the_log() {
    let operator = OperatorKey::generate(&[1; 32]).public();
    let texts = &[
        "announcement refused: the announcement carries no token",
        "cluster=web reason=\"token\"",
    ];
    let proxy = Proxy::start("127.88.1.1", Some(Authority::new(operator)), texts);
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
async fn an_announcement_that_makes_a_member_panic_is_refused_by_the_next_one() {
    let texts = &[
        "the member panicked; restarting it",
        "being processed is refused from now on hash=",
    ];
    let proxy = Proxy::start("127.88.2.1", None, texts);
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
