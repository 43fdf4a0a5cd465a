//! The thread over real sockets on loopback: what it logs.

use std::thread::JoinHandle;

use super::super::member::{Prepared, RunningMember};
use super::*;
use crate::gossip::record::ServiceState;
use crate::gossip::token::{Authority, OperatorKey};
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
        token_key: None,
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

fn agent(ip: &str, zone: &str, proxy: &Proxy) -> RunningMember {
    let settings = settings(ip, Role::Agent, &[proxy.address]);
    let address = settings.address;
    let prepared = Prepared::new(settings, None).unwrap();
    let member = prepared.start(Windows::default()).unwrap();
    drop(member.announce(Record {
        zone: zone.to_owned(),
        ..crate::gossip::simulator::record(address, 1, ServiceState::Ready)
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
    let agent = agent("127.88.1.2", "a", &proxy);
    let seen = |report: &Option<Arc<Report>>| {
        report.as_ref().is_some_and(|report| {
            report.counters.dropped(Dropped::NoToken) >= 2 && report.refused.len() == 1
        })
    };
    proxy.wait("refused twice", seen).await;
    agent.leave().await;
    assert_eq!(proxy.end(), [1, 1]);
}
