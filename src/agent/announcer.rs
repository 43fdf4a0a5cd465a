//! Announces a service as a member of the peer set.
//!
//! The member runs on a thread of its own ([`crate::discovery::gossip::member`]). Beside the announcements this follows
//! the files of its keys and its token ([`Announcer::tend`]), so that a rotation needs no restart of what the agent
//! supervises: what cannot be read is told once, and what was read before stays. And it tells of the company it is in
//! ([`company`]) and of a token that expires.

use std::convert::Infallible;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch::Receiver, watch::Sender};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;
use tracing::{info, warn};
use xxhash_rust::xxh3::xxh3_64;

use super::Announcer;
use crate::config::schema::AgentConfig;
use crate::config::watch::{read_settled, watch};
use crate::discovery::gossip::company;
use crate::discovery::gossip::member::{
    MemberError, MemberSettings, Prepared, RunningMember, Windows,
};
use crate::discovery::gossip::secrets::{self, SecretError};
use crate::gossip::identity::Role;
use crate::gossip::record::{MAX_NAME, Record, ServiceState};
use crate::gossip::token::{GRACE, TokenError};

/// Longest time between two looks at the wall clock, which may be set.
const CLOCK_LOOK: Duration = Duration::from_secs(60);

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
    /// The same, since the agent stands elsewhere.
    #[error("the token does not permit the agent's own address {0}, where others reach it: {1}")]
    Place(IpAddr, TokenError),
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
    /// When the token that is used expires, Unix seconds.
    expires: Sender<Option<u64>>,
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
        let expires = permits(&settings, &record)?;
        settings.warn_of_exposed();
        let read = |file: &PathBuf| {
            secrets::read(file)
                .ok()
                .map(|text| xxh3_64(text.as_bytes()))
        };
        let held = settings.files().map(read).collect();
        let windows = Windows::default();
        let announcer = Self {
            member: Prepared::new(settings, None)?.start(windows.clone())?,
            windows,
            record,
            held,
            expires: Sender::new(expires),
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
                let expires = permits(&settings, &record)?;
                let secrets = settings.secrets()?;
                settings.warn_of_exposed();
                Ok::<_, StartError>((secrets, expires))
            });
            match secrets.await {
                Ok(Ok((secrets, expires))) => {
                    self.member.renew(secrets);
                    self.expires.send_replace(expires);
                    info!("the files of keys and token have changed and are used");
                }
                Ok(Err(error)) => {
                    warn!(%error, "the files of keys and token have changed and are not used: what they held before is")
                }
                Err(error) => warn!(%error, "the files of keys and token cannot be read"),
            }
        }
    }

    /// Warns once of each token that expires. More is not for the agent to do: its clock may be wrong, and it is the
    /// proxies' that counts.
    async fn tell_of_expiry(&self) -> Infallible {
        let mut token = self.expires.subscribe();
        loop {
            expiry(&mut token, unix_now).await;
            warn!("the token has expired: proxies that ask for one will refuse this service");
            // The sender is here.
            let _ = token.changed().await;
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
            never = self.tell_of_expiry() => never,
        }
    }

    async fn leave(self) {
        self.member.leave().await;
    }
}

/// Whether the token, if there is one, is for this service and this agent, as proxies ask; and when it expires.
fn permits(settings: &MemberSettings, record: &Record) -> Result<Option<u64>, StartError> {
    let Some(file) = &settings.token_file else {
        return Ok(None);
    };
    let credential = secrets::credential(file)?;
    let token = credential.token();
    let permits = |ip| token.permits(&record.cluster, ip, record.weight);
    permits(record.backend.ip()).map_err(StartError::Token)?;
    let own = settings.advertise.ip();
    permits(own).map_err(|error| StartError::Place(own, error))?;
    Ok(Some(token.expires()))
}

/// Waits until the token, or one that takes its place in the meantime, has expired by the clock `now`.
async fn expiry(token: &mut Receiver<Option<u64>>, now: impl Fn() -> u64) {
    loop {
        let expires = *token.borrow_and_update();
        let left = expires.map(|at| {
            at.saturating_add(GRACE)
                .saturating_add(1)
                .saturating_sub(now())
        });
        if left == Some(0) {
            return;
        }
        let look = left.map(|seconds| CLOCK_LOOK.min(Duration::from_secs(seconds)));
        tokio::select! {
            _ = token.changed() => {}
            () = sleep(look.unwrap_or_default()), if look.is_some() => {}
        }
    }
}

/// Seconds since 1970; 0 before.
fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
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
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_expires_by_the_clock_unless_it_is_replaced() {
        let began = Instant::now();
        let now = || 1000 + began.elapsed().as_secs();
        let sender = Sender::new(Some(2000));
        let mut token = sender.subscribe();
        let replaced = async {
            sleep(Duration::from_secs(1200)).await;
            sender.send_replace(Some(3000));
        };
        tokio::join!(expiry(&mut token, now), replaced);
        assert_eq!(now(), 3000 + GRACE + 1);
        // One that has expired already.
        sender.send_replace(Some(5));
        expiry(&mut token, now).await;
        assert_eq!(now(), 3000 + GRACE + 1);
        // The clock was set.
        sender.send_replace(Some(1_000_000));
        let set = || now() + 1_000_000 * u64::from(began.elapsed() > Duration::from_secs(5000));
        expiry(&mut token, set).await;
        assert!(now() <= 1000 + 5000 + CLOCK_LOOK.as_secs() + 1, "{}", now());
        // None, and then one.
        sender.send_replace(None);
        let at = now();
        let replaced = async {
            sleep(Duration::from_secs(10_000)).await;
            sender.send_replace(Some(5));
        };
        tokio::join!(expiry(&mut token, now), replaced);
        assert_eq!(now(), at + 10_000);
    }

    #[test]
    fn host_names_are_names() {
        assert_eq!(as_name("web-7\n"), "web-7");
        let long = "ä".repeat(40);
        assert_eq!(as_name(&long), "ä".repeat(32));
        assert_eq!(as_name(&format!("a{long}")), format!("a{}", "ä".repeat(31)));
        assert!(!host_name().is_empty());
    }
}
