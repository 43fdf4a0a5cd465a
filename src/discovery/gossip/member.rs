//! Starts a member, and holds the handle to the thread that drives it.
//!
//! What can fail (sockets, key files, the thread) is done before anything is applied ([`PreparedMember`],
//! [`PreparedChange`]), so a reload happens whole or not at all. A new address, label or role makes another member; keys,
//! seeds and operators change while it runs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::commands::{MemberCommand, MemberUpdate};
use super::driver;
use super::publisher::MemberPublisher;
use super::settings::{MemberError, MemberSettings, Secrets};
use super::sockets::Sockets;
use crate::gossip::counters::GossipCounters;
use crate::gossip::record::Record;
use crate::gossip::view::Report;

/// A member that can start: nothing that it needs can fail any more.
#[derive(Debug)]
pub(crate) struct PreparedMember {
    settings: MemberSettings,
    secrets: Secrets,
    sockets: Sockets,
    thread: IdleThread,
}

/// What a running member changes to: nothing that it needs can fail any more.
#[derive(Debug)]
pub(crate) struct PreparedChange {
    settings: MemberSettings,
    secrets: Secrets,
    /// `None`: the running member keeps its sockets.
    sockets: Option<Sockets>,
}

/// A thread that waits for a member to drive, and ends if it gets none.
#[derive(Debug)]
struct IdleThread {
    member: SyncSender<(driver::SurvivingState, Secrets, Sockets)>,
    ended: oneshot::Receiver<()>,
}

impl PreparedMember {
    /// Reads the secrets, binds the address and starts the thread. Blocks.
    ///
    /// # Errors
    /// Why this is impossible; nothing is left of it then.
    pub(crate) fn new(settings: MemberSettings) -> Result<Self, MemberError> {
        Ok(Self {
            secrets: settings.secrets()?,
            sockets: Sockets::bind(settings.peer_set.address)?,
            settings,
            thread: IdleThread::start().map_err(MemberError::Thread)?,
        })
    }

    /// Starts the member.
    pub(crate) fn start(self, publisher: MemberPublisher) -> RunningMember {
        let (commands, received) = mpsc::unbounded_channel();
        let settings = self.settings.clone();
        let claim = publisher.claim(first_report(&settings, &self.secrets));
        let state = driver::SurvivingState {
            settings: self.settings,
            publisher,
            claim,
            commands: received,
            announced: None,
            restarted: false,
        };
        RunningMember {
            settings,
            commands,
            ended: Some(self.thread.drive(state, self.secrets, self.sockets)),
        }
    }
}

impl PreparedChange {
    /// Reads the secrets, and binds the address unless the running member has `bound` it. Blocks.
    ///
    /// # Errors
    /// Why this is impossible; nothing has changed then.
    pub(crate) fn new(settings: MemberSettings, bound: SocketAddr) -> Result<Self, MemberError> {
        let secrets = settings.secrets()?;
        let address = settings.peer_set.address;
        let sockets = match bound == address {
            true => None,
            false => Some(Sockets::bind(address)?),
        };
        Ok(Self {
            settings,
            secrets,
            sockets,
        })
    }
}

impl IdleThread {
    fn start() -> io::Result<Self> {
        let (member, received) = sync_channel(1);
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("gossip".to_owned())
            .spawn(move || {
                if let Ok((state, secrets, sockets)) = received.recv() {
                    driver::run(state, secrets, sockets);
                }
                let _ = end.send(());
            })?;
        Ok(Self { member, ended })
    }

    /// Has the thread drive a member; what is returned resolves when that has ended.
    fn drive(
        self,
        state: driver::SurvivingState,
        secrets: Secrets,
        sockets: Sockets,
    ) -> oneshot::Receiver<()> {
        // The thread waits for this, and the queue has room for it.
        let _ = self.member.send((state, secrets, sockets));
        self.ended
    }
}

/// The report of a member whose thread has not started yet.
fn first_report(settings: &MemberSettings, secrets: &Secrets) -> Report {
    Report {
        set: Arc::default(),
        at: Duration::ZERO,
        address: settings.peer_set.advertise,
        label: settings.peer_set.label.clone(),
        key_ids: secrets.keyring.key_ids(),
        counters: GossipCounters::default(),
        lag: Duration::ZERO,
        health_multiplier: 1,
        joined: false,
        conflict: false,
        refused: Vec::new(),
    }
}

/// The handle of a member. When it is dropped, the member leaves in order.
#[derive(Debug)]
pub(crate) struct RunningMember {
    settings: MemberSettings,
    commands: mpsc::UnboundedSender<MemberCommand>,
    ended: Option<oneshot::Receiver<()>>,
}

impl RunningMember {
    /// Its current settings.
    pub(crate) fn settings(&self) -> &MemberSettings {
        &self.settings
    }

    /// The address that it has bound.
    pub(crate) fn address(&self) -> SocketAddr {
        self.settings.peer_set.address
    }

    /// Continues with what was prepared, and announces `record` if there is one.
    pub(crate) fn apply(&mut self, prepared: PreparedChange, record: Option<Record>) {
        self.settings = prepared.settings.clone();
        self.send(MemberCommand::Update(Box::new(MemberUpdate {
            settings: prepared.settings,
            secrets: prepared.secrets,
            sockets: prepared.sockets,
            record,
        })));
    }

    /// Announces a service from now on, in the order of the calls.
    pub(crate) fn announce(&self, record: Record) -> oneshot::Receiver<Result<(), String>> {
        let (answer, answered) = oneshot::channel();
        self.send(MemberCommand::Announce(record, answer));
        answered
    }

    /// Resolves when the newest announcement was sent to the known proxies, or after a second if there are none.
    pub(crate) fn announced(&self) -> impl Future<Output = ()> + use<> {
        let (answer, answered) = oneshot::channel();
        self.send(MemberCommand::AwaitSent(answer));
        async {
            let _ = answered.await;
        }
    }

    /// Leaves the peer set, and waits until the others have been told: about a second.
    pub(crate) async fn leave(mut self) {
        self.send(MemberCommand::Leave);
        if let Some(ended) = self.ended.take() {
            let _ = ended.await;
        }
    }

    fn send(&self, command: MemberCommand) {
        if self.commands.send(command).is_err() {
            warn!("gossip: the thread has ended; the peer set is no longer followed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::gossip::fixture::settings;
    use crate::gossip::identity::Role;
    use crate::gossip::record::ServiceState;
    use crate::gossip::view::PeerSet;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn there_is_a_report_from_the_first_moment_to_the_last() {
        let publisher = MemberPublisher::default();
        let mut reports = publisher.report.subscribe();
        let start = |ip| {
            let mut settings = settings(ip, Role::Proxy, &[]);
            settings.peer_set.label = "set".to_owned();
            let member = PreparedMember::new(settings).unwrap();
            let member = member.start(publisher.clone());
            assert!(publisher.report.borrow().is_some());
            member
        };
        let member = start("127.88.0.2");
        let first = reports.borrow_and_update().clone().unwrap();
        assert_eq!((first.label.as_str(), first.joined), ("set", false));
        // The first report of its thread includes the member itself.
        let own = reports.wait_for(|r| r.as_ref().is_some_and(|r| !r.set.members.is_empty()));
        tokio::time::timeout(PATIENCE, own).await.unwrap().unwrap();
        // A member that ends does not clear the report of the next one.
        let next = start("127.88.0.3");
        member.leave().await;
        assert!(publisher.report.borrow().is_some());
        next.leave().await;
        assert!(publisher.report.borrow().is_none());
    }

    #[tokio::test]
    async fn a_member_that_panics_is_restarted_and_announces_the_same() {
        let publisher = MemberPublisher::default();
        let member = PreparedMember::new(settings("127.88.0.1", Role::Proxy, &[]))
            .unwrap()
            .start(publisher.clone());
        let record = Record {
            name: String::new(),
            cluster: "web".to_owned(),
            backend: "10.0.0.1:80".parse().unwrap(),
            weight: 1,
            zone: String::new(),
            state: ServiceState::Ready,
            build: String::new(),
        };
        member.announce(record.clone()).await.unwrap().unwrap();
        let mut sets = publisher.set.subscribe();
        let own = |set: &Arc<PeerSet>| {
            let own = set.members.first().cloned();
            own.filter(|own| own.records.iter().any(|r| *r.record == record))
        };
        let found = tokio::time::timeout(PATIENCE, sets.wait_for(|set| own(set).is_some())).await;
        let first = own(&found.unwrap().unwrap()).unwrap();
        member.send(MemberCommand::Fail);
        let found = tokio::time::timeout(PATIENCE, async {
            let next = |set: &Arc<PeerSet>| own(set).is_some_and(|own| own.epoch > first.epoch);
            sets.wait_for(next).await.map(|set| own(&set))
        });
        let second = found.await.unwrap().unwrap().unwrap();
        assert_eq!(second.records[0].record, first.records[0].record);
        member.leave().await;
    }
}
