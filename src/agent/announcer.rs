//! Announces a service as a member of the peer set.
//!
//! The member runs on a thread of its own ([`crate::discovery::gossip::member`]). Beside the announcements this follows
//! the files of its keys and its token ([`Announcer::tend`]), so that a rotation needs no restart of what the agent
//! supervises: what cannot be read is told once, and what was read before stays. And it tells of the company it is in
//! ([`company`]).

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::task::{JoinSet, spawn_blocking};
use tracing::{info, warn};
use xxhash_rust::xxh3::xxh3_64;

use super::Announcer;
use crate::config::schema::AgentConfig;
use crate::config::watch::{read_now, read_settled, watch};
use crate::discovery::gossip::company;
use crate::discovery::gossip::member::{
    MemberError, MemberSettings, Prepared, RunningMember, Windows,
};
use crate::discovery::gossip::secrets::{self, SecretError};
use crate::gossip::identity::Role;
use crate::gossip::record::{MAX_NAME, Record, ServiceState};
use crate::gossip::token::{GRACE, TokenError};

/// Why a service cannot be announced.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no member to announce it.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// Its token cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Every proxy that asks for a token would refuse it.
    #[error("the token does not permit this service: {0}")]
    Token(TokenError),
    /// It is no record.
    #[error("the service cannot be announced: {0}")]
    Record(String),
    /// The member could not even begin; the log has the reason.
    #[error("the gossip thread has ended")]
    Ended,
}

/// See the module.
#[derive(Debug)]
pub struct PeerAnnouncer {
    member: RunningMember,
    windows: Windows,
    record: Record,
    /// What the files held before they were read.
    held: Vec<Option<u64>>,
}

impl PeerAnnouncer {
    /// Starts the member and announces the service as starting. Reads files and waits for the member, so not within a
    /// runtime.
    ///
    /// # Errors
    /// Why the service cannot be announced as it is.
    pub fn start(config: &AgentConfig) -> Result<Self, StartError> {
        let settings = MemberSettings {
            address: config.address,
            advertise: config.advertise,
            seeds: config.seeds.clone(),
            label: config.label.clone(),
            key_files: config.key_files.clone(),
            accept_plaintext: config.insecure_plaintext,
            token_key: None,
            token_file: config.token_file.clone(),
            role: Role::Agent,
        };
        let record = record(config);
        permits(&settings, &record)?;
        let read = |file: &PathBuf| read_now(file).ok().map(|text| xxh3_64(&text));
        let held = settings.files().map(read).collect();
        let windows = Windows::default();
        let announcer = Self {
            member: Prepared::new(settings, None)?.start(windows.clone())?,
            windows,
            record,
            held,
        };
        let taken = announcer.member.announce(announcer.record.clone());
        match taken.blocking_recv() {
            Ok(Ok(())) => Ok(announcer),
            Ok(Err(error)) => Err(StartError::Record(error)),
            Err(_) => Err(StartError::Ended),
        }
    }

    /// Goes on by other keys and another token when their files change.
    async fn follow_files(&self) -> Infallible {
        let files: Vec<PathBuf> = self.member.settings().files().cloned().collect();
        let changed = Arc::new(Notify::new());
        let mut watches = JoinSet::new();
        for file in &files {
            watches.spawn(watch(file.clone(), Arc::clone(&changed)));
        }
        let mut held = self.held.clone();
        loop {
            changed.notified().await;
            let mut now = Vec::with_capacity(files.len());
            for file in &files {
                now.push(read_settled(file).await.ok().map(|text| xxh3_64(&text)));
            }
            if now == held {
                continue;
            }
            held = now;
            let (settings, record) = (self.member.settings().clone(), self.record.clone());
            let secrets = spawn_blocking(move || {
                permits(&settings, &record)?;
                Ok::<_, StartError>(settings.secrets()?)
            });
            match secrets.await {
                Ok(Ok(secrets)) => {
                    self.member.renew(secrets);
                    info!("the files of keys and token have changed and are used");
                }
                Ok(Err(error)) => {
                    warn!(%error, "the files of keys and token have changed and are not used: what they held before is")
                }
                Err(error) => warn!(%error, "the files of keys and token cannot be read"),
            }
        }
    }
}

impl Announcer for PeerAnnouncer {
    fn announce(&self, state: ServiceState) {
        // It was taken at the start, and no limit depends on the state.
        drop(self.member.announce(Record {
            state,
            ..self.record.clone()
        }));
    }

    async fn sent(&self) {
        self.member.told().await;
    }

    async fn tend(&self) -> Infallible {
        tokio::select! {
            never = self.follow_files() => never,
            never = company::follow(self.windows.report.subscribe()) => never,
        }
    }

    async fn leave(self) {
        self.member.leave().await;
    }
}

/// Whether the token, if there is one, is for this service. That it has expired is only warned of: this machine's clock may be
/// wrong, and it is the proxies' that counts.
fn permits(settings: &MemberSettings, record: &Record) -> Result<(), StartError> {
    let Some(file) = &settings.token_file else {
        return Ok(());
    };
    let credential = secrets::credential(file)?;
    let token = credential.token();
    token
        .permits(&record.cluster, record.backend.ip(), record.weight)
        .map_err(StartError::Token)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    if now.is_ok_and(|now| now.as_secs() > token.expires().saturating_add(GRACE)) {
        warn!("the token has expired: proxies that ask for one will refuse this service");
    }
    Ok(())
}

fn record(config: &AgentConfig) -> Record {
    Record {
        name: config.name.clone().unwrap_or_else(host_name),
        cluster: config.cluster.clone(),
        backend: config.backend,
        weight: config.weight,
        zone: config.zone.clone(),
        state: ServiceState::Starting,
        build: config.build.clone(),
    }
}

fn host_name() -> String {
    as_name(&rustix::system::uname().nodename().to_string_lossy())
}

/// What a record can hold of a name.
fn as_name(text: &str) -> String {
    let mut name: String = text.chars().filter(|c| !c.is_control()).collect();
    name.truncate(name.floor_char_boundary(MAX_NAME));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_names() {
        assert_eq!(as_name("web-7\n"), "web-7");
        let long = "ä".repeat(40);
        assert_eq!(as_name(&long), "ä".repeat(32));
        assert_eq!(as_name(&format!("a{long}")), format!("a{}", "ä".repeat(31)));
        assert!(!host_name().is_empty());
    }
}
