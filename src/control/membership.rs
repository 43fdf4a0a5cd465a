//! This proxy's own seat in the peer set: started, changed and left as `[gossip]` says.
//!
//! A reload prepares the change (keys are read, addresses bound) before anything is published, and is refused whole if
//! that fails. Key files are followed on their own: what is read there replaces the ring at once, and a file that holds
//! no key changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tracing::{error, info};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::schema::GossipConfig;
use crate::config::watch::watch;
use crate::discovery::gossip::join_reporter;
use crate::discovery::gossip::member::{PreparedMember, RunningMember};
use crate::discovery::gossip::publisher::MemberPublisher;
use crate::discovery::gossip::secrets;
use crate::discovery::gossip::settings::{MemberError, MemberSettings};
use crate::gossip::identity::Role;
use crate::model::peer_set::PeerSetSettings;

/// See the module.
#[derive(Debug)]
pub(crate) struct Membership {
    /// Of the configuration.
    path: PathBuf,
    windows: MemberPublisher,
    running: Option<RunningMember>,
    /// Tells of the company it is in.
    company: Option<AbortHandle>,
    /// A file with a secret may have changed.
    touched: Arc<Notify>,
    watches: Vec<AbortHandle>,
    /// Of what those files held last.
    fingerprints: Vec<u64>,
}

/// What becomes of the membership once a configuration is applied.
#[derive(Debug)]
pub(crate) enum Next {
    /// There is none.
    None,
    /// It starts, or goes on by other settings.
    Member(Box<PreparedMember>),
}

impl Membership {
    /// None yet; what it will see is shown in `windows`. `path` is that of the configuration.
    pub(crate) fn new(path: &Path, windows: MemberPublisher) -> Self {
        Self {
            path: path.to_owned(),
            windows,
            running: None,
            company: None,
            touched: Arc::default(),
            watches: Vec::new(),
            fingerprints: Vec::new(),
        }
    }

    /// Reads the keys and binds the addresses of `gossip`; changes nothing.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub(crate) fn prepare(&self, gossip: Option<&GossipConfig>) -> Result<Next, MemberError> {
        let Some(gossip) = gossip else {
            return Ok(Next::None);
        };
        let settings = settings(&self.path, gossip);
        let prepared =
            PreparedMember::new(settings, self.running.as_ref().map(RunningMember::address))?;
        Ok(Next::Member(Box::new(prepared)))
    }

    /// Goes on by what was prepared.
    ///
    /// # Errors
    /// If there is no thread for a member that starts.
    pub(crate) fn switch(&mut self, next: Next) -> Result<(), MemberError> {
        match (next, &mut self.running) {
            // Dropped, it says goodbye on its own thread.
            (Next::None, running) => {
                *running = None;
                self.stop_telling();
            }
            (Next::Member(prepared), Some(running)) => running.apply(*prepared, None),
            (Next::Member(prepared), running) => {
                let reports = self.windows.report.subscribe();
                *running = Some(prepared.start(self.windows.clone())?);
                self.company =
                    Some(tokio::spawn(join_reporter::follow(reports, Role::Proxy)).abort_handle());
            }
        }
        self.follow_files();
        Ok(())
    }

    /// Waits until a file with a secret may have changed. Cancel-safe.
    pub(crate) async fn touched(&self) {
        self.touched.notified().await;
    }

    /// Reads the files with secrets again, and goes on by them if they hold something else.
    pub(crate) fn read_again(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        let fingerprints = fingerprints(running.settings());
        if fingerprints == self.fingerprints {
            return;
        }
        match PreparedMember::new(running.settings().clone(), Some(running.address())) {
            Ok(prepared) => {
                running.apply(prepared, None);
                running.settings().warn_of_exposed();
                info!("gossip: the key files have changed and are applied");
            }
            Err(error) => {
                error!(%error, "gossip: the key files have changed and cannot be used; the keys before go on")
            }
        }
        self.fingerprints = fingerprints;
    }

    /// Says goodbye to the peer set, if there is one.
    pub(crate) async fn leave(mut self) {
        self.stop_telling();
        self.watches.iter().for_each(AbortHandle::abort);
        if let Some(running) = self.running {
            running.leave().await;
        }
    }

    fn stop_telling(&mut self) {
        if let Some(company) = self.company.take() {
            company.abort();
        }
    }

    fn follow_files(&mut self) {
        self.watches.drain(..).for_each(|watch| watch.abort());
        let Some(running) = &self.running else { return };
        for file in running.settings().files() {
            let task = watch(file.clone(), Arc::clone(&self.touched));
            self.watches.push(tokio::spawn(task).abort_handle());
        }
        self.fingerprints = fingerprints(running.settings());
    }
}

/// A hash of each file, so that an event without a change is none.
fn fingerprints(settings: &MemberSettings) -> Vec<u64> {
    let hash = |file: &PathBuf| secrets::read(file).map_or(0, |text| xxh3_64(text.as_bytes()));
    settings.files().map(hash).collect()
}

/// Paths are relative to the configuration's directory.
fn settings(path: &Path, gossip: &GossipConfig) -> MemberSettings {
    let directory = path.parent().unwrap_or(Path::new(""));
    let key_files = gossip.peer_set.key_files.iter();
    MemberSettings {
        peer_set: PeerSetSettings {
            key_files: key_files.map(|f| directory.join(f)).collect(),
            ..gossip.peer_set.clone()
        },
        token_keys: gossip
            .token_keys
            .iter()
            .map(|f| directory.join(f))
            .collect(),
        revoked: gossip.revoked.clone(),
        token_file: None,
        role: Role::Proxy,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::time::Duration;

    use super::*;
    use crate::model::address::BackendAddress;
    use crate::telemetry::capture::Capture;

    fn member(address: SocketAddr, seeds: &[SocketAddr]) -> Membership {
        let gossip = GossipConfig {
            peer_set: PeerSetSettings {
                seeds: seeds.iter().map(|&seed| BackendAddress::Ip(seed)).collect(),
                insecure_plaintext: true,
                ..PeerSetSettings::new(address)
            },
            token_keys: Vec::new(),
            revoked: Vec::new(),
            allow_cidrs: Vec::new(),
            members_file: None,
        };
        let mut membership = Membership::new(Path::new("lb.toml"), MemberPublisher::default());
        let next = membership.prepare(Some(&gossip)).unwrap();
        membership.switch(next).unwrap();
        membership
    }

    async fn said(lines: &Capture, text: &str) {
        let waiting = async {
            while lines.count(text) == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert!(ended.is_ok(), "never: {text}");
    }

    #[tokio::test]
    async fn a_proxy_tells_of_its_company() {
        let lines = Capture::begin();
        let address = |host: u8| {
            let bound = UdpSocket::bind((std::net::Ipv4Addr::new(127, 88, 1, host), 0));
            bound.and_then(|socket| socket.local_addr()).unwrap()
        };
        let (first, second) = (address(1), address(2));
        let membership = member(first, &[second]);
        said(&lines, "no member answers yet").await;
        let other = member(second, &[first]);
        said(&lines, "joined the peer set others=1").await;
        other.leave().await;
        said(&lines, "no other member of the peer set answers any more").await;
        membership.leave().await;
    }
}
