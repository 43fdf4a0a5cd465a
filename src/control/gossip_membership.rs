//! This proxy's own membership in the gossip peer set: started, changed and left as `[gossip]` says.
//!
//! A reload prepares the change (keys are read, addresses bound, the thread started) before anything is published, and
//! is rejected if that fails; to switch cannot fail. Changed key files are applied on their own, and a file that holds
//! no key changes nothing.

use std::path::{Path, PathBuf};

use tokio::task::AbortHandle;
use tracing::{error, info};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::schema::GossipConfig;
use crate::discovery::gossip::join_reporter;
use crate::discovery::gossip::member::{PreparedChange, PreparedMember, RunningMember};
use crate::discovery::gossip::publisher::MemberPublisher;
use crate::discovery::gossip::secrets;
use crate::discovery::gossip::settings::{MemberError, MemberSettings};
use crate::gossip::identity::Role;
use crate::model::peer_set::PeerSetSettings;

/// The membership, while there is one, and what it takes to change it.
#[derive(Debug)]
pub(super) struct GossipMembership {
    /// Where the configuration is.
    path: PathBuf,
    publisher: MemberPublisher,
    current: Option<CurrentMember>,
}

/// A member of the peer set.
#[derive(Debug)]
struct CurrentMember {
    member: RunningMember,
    /// Logs who else is in the set.
    reporter: Task,
    /// Hashes of the files with secrets, so that an event without a change is ignored.
    secrets: Vec<u64>,
}

/// A task that ends when this is dropped.
#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What becomes of the membership once a configuration is applied; nothing of it can fail.
#[derive(Debug)]
pub(super) enum StagedMembership {
    /// There is none.
    None,
    /// A member starts.
    Start(Box<PreparedMember>),
    /// The running member gets other settings.
    Change(Box<PreparedChange>),
}

impl GossipMembership {
    /// No membership yet. What it sees goes to `publisher`; `path` is that of the configuration.
    pub(super) fn new(path: &Path, publisher: MemberPublisher) -> Self {
        Self {
            path: path.to_owned(),
            publisher,
            current: None,
        }
    }

    /// Reads the keys of `gossip` and binds its addresses (blocking); changes nothing.
    ///
    /// # Errors
    /// Why there can be no such member.
    pub(super) fn prepare(
        &self,
        gossip: Option<&GossipConfig>,
    ) -> Result<StagedMembership, MemberError> {
        let Some(gossip) = gossip else {
            return Ok(StagedMembership::None);
        };
        let settings = settings(&self.path, gossip);
        Ok(match &self.current {
            None => StagedMembership::Start(Box::new(PreparedMember::new(settings)?)),
            Some(current) => {
                let bound = current.member.address();
                StagedMembership::Change(Box::new(PreparedChange::new(settings, bound)?))
            }
        })
    }

    /// Switches to what was prepared.
    pub(super) fn switch(&mut self, staged: StagedMembership) {
        match staged {
            // When it is dropped, the member says goodbye on its own thread.
            StagedMembership::None => self.current = None,
            StagedMembership::Start(prepared) => {
                let reports = self.publisher.report.subscribe();
                let member = prepared.start(self.publisher.clone());
                let reporter = tokio::spawn(join_reporter::follow(reports, Role::Proxy));
                self.current = Some(CurrentMember {
                    secrets: hashes(member.settings()),
                    member,
                    reporter: Task(reporter.abort_handle()),
                });
            }
            StagedMembership::Change(prepared) => {
                if let Some(current) = &mut self.current {
                    current.member.apply(*prepared, None);
                    current.secrets = hashes(current.member.settings());
                }
            }
        }
    }

    /// The files with secrets; none without a membership.
    pub(super) fn secret_files(&self) -> Vec<PathBuf> {
        let current = self.current.iter();
        let files = current.flat_map(|current| current.member.settings().files());
        files.cloned().collect()
    }

    /// Reads the files with secrets again, and applies them if they hold something else (blocking).
    pub(super) fn reread_secrets(&mut self) {
        let Some(current) = &mut self.current else {
            return;
        };
        let secrets = hashes(current.member.settings());
        if secrets == current.secrets {
            return;
        }
        let (settings, bound) = (current.member.settings(), current.member.address());
        match PreparedChange::new(settings.clone(), bound) {
            Ok(prepared) => {
                current.member.apply(prepared, None);
                current.member.settings().warn_of_exposed();
                info!("gossip: the key files have changed and are applied");
            }
            Err(error) => {
                error!(%error, "gossip: the key files have changed and cannot be used; keeping the previous keys");
            }
        }
        current.secrets = secrets;
    }

    /// Says goodbye to the peer set, if there is a membership.
    pub(super) async fn leave(mut self) {
        if let Some(CurrentMember {
            member, reporter, ..
        }) = self.current.take()
        {
            drop(reporter);
            member.leave().await;
        }
    }
}

/// A hash of each file with a secret.
fn hashes(settings: &MemberSettings) -> Vec<u64> {
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
    use crate::telemetry::capture::LogCapture;

    fn member(address: SocketAddr, seeds: &[SocketAddr]) -> GossipMembership {
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
        let mut membership =
            GossipMembership::new(Path::new("lb.toml"), MemberPublisher::default());
        let next = membership.prepare(Some(&gossip)).unwrap();
        membership.switch(next);
        membership
    }

    async fn said(lines: &LogCapture, text: &str) {
        let waiting = async {
            while lines.count(text) == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert!(ended.is_ok(), "never: {text}");
    }

    #[tokio::test]
    async fn a_proxy_logs_who_else_is_in_the_set() {
        let lines = LogCapture::begin();
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
