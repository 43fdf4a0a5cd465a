//! Starts a member, and holds the handle to the thread that drives it.
//!
//! What can fail (sockets, key files) is done before anything is applied ([`PreparedMember`]), so a reload happens
//! whole or not at all. A new address, label or role makes another member; keys, seeds and operators change while it
//! runs.

use std::net::SocketAddr;
use std::sync::Arc;
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

/// Everything that a start or a change needs and that could fail.
#[derive(Debug)]
pub(crate) struct PreparedMember {
    settings: MemberSettings,
    secrets: Secrets,
    /// `None`: the running member keeps its sockets.
    sockets: Option<Sockets>,
}

impl PreparedMember {
    /// Reads the secrets, and binds the address unless the running member has `bound` it. Blocks.
    ///
    /// # Errors
    /// Why this is impossible; nothing has changed then.
    pub(crate) fn new(
        settings: MemberSettings,
        bound: Option<SocketAddr>,
    ) -> Result<Self, MemberError> {
        let secrets = settings.secrets()?;
        let address = settings.peer_set.address;
        let sockets = match bound == Some(address) {
            true => None,
            false => Some(Sockets::bind(address)?),
        };
        Ok(Self {
            settings,
            secrets,
            sockets,
        })
    }

    /// Starts the member.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(self, publisher: MemberPublisher) -> Result<RunningMember, MemberError> {
        let (commands, received) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        let sockets = match self.sockets {
            Some(sockets) => sockets,
            None => Sockets::bind(self.settings.peer_set.address)?,
        };
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
        let secrets = self.secrets;
        std::thread::Builder::new()
            .name("gossip".to_owned())
            .spawn(move || {
                driver::run(state, secrets, sockets);
                let _ = end.send(());
            })
            .map_err(MemberError::Thread)?;
        Ok(RunningMember {
            settings,
            commands,
            ended: Some(ended),
        })
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
    pub(crate) fn apply(&mut self, prepared: PreparedMember, record: Option<Record>) {
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
            let member = PreparedMember::new(settings, None).unwrap();
            let member = member.start(publisher.clone()).unwrap();
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
        let member = PreparedMember::new(settings("127.88.0.1", Role::Proxy, &[]), None)
            .unwrap()
            .start(publisher.clone())
            .unwrap();
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
