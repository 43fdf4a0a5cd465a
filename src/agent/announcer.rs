//! Announces a service as a member of the peer set.
//!
//! The member runs on a thread of its own ([`crate::discovery::gossip::member`]). Beside the announcements this follows
//! the files of its keys and its token ([`Announcer::tend`]), so that a rotation needs no restart of what the agent
//! supervises: what cannot be read is told once, and what was read before stays. And it tells of the company it is in:
//! others found, all lost, nobody there yet.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;
use tracing::{info, warn};
use xxhash_rust::xxh3::xxh3_64;

use super::Announcer;
use crate::config::schema::AgentConfig;
use crate::config::watch::{read_now, read_settled, watch};
use crate::discovery::gossip::member::{
    MemberError, MemberSettings, Prepared, RunningMember, Windows,
};
use crate::discovery::gossip::secrets::{self, SecretError};
use crate::gossip::identity::Role;
use crate::gossip::record::{MAX_NAME, Record, ServiceState};
use crate::gossip::token::{GRACE, TokenError};
use crate::gossip::view::{Liveness, Report};

/// How long nobody may be there before that is told, and told again.
const NOBODY_FIRST: Duration = Duration::from_secs(5);
const NOBODY_AGAIN: Duration = Duration::from_secs(60);

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

    async fn tell_of_company(&self) -> Infallible {
        let mut reports = self.windows.report.subscribe();
        let began = Instant::now();
        let mut company = Company::default();
        loop {
            if reports.changed().await.is_err() {
                // Not while the windows are here.
                return std::future::pending().await;
            }
            let Some(report) = reports.borrow_and_update().clone() else {
                continue;
            };
            let (others, tries) = (others(&report), report.counters.exchanges_failed);
            match company.look(began.elapsed(), others, tries) {
                Some(Word::Joined) => info!(others, "joined the peer set"),
                Some(Word::Lost) => warn!("no other member of the peer set answers any more"),
                Some(Word::Nobody { tries }) => warn!(
                    tries,
                    "no member answers yet; one with another key or label never does"
                ),
                None => {}
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
            never = self.tell_of_company() => never,
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

/// How many other members answer.
fn others(report: &Report) -> usize {
    let answers = |liveness| matches!(liveness, Liveness::Alive | Liveness::Suspect);
    let members = report.set.members.iter();
    members
        .filter(|member| member.address != report.address && answers(member.liveness))
        .count()
}

/// What there is to say of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// The first is there, or there again.
    Joined,
    /// The last is gone.
    Lost,
    /// Still none, after so many tries.
    Nobody { tries: u64 },
}

/// Whether there are others, and what was said of it. Pure.
#[derive(Debug, Default)]
struct Company {
    there: bool,
    /// When it was last said that nobody is there.
    said: Option<Duration>,
    /// Tries before the others were lost.
    before: u64,
}

impl Company {
    /// Takes in the number of others and of tries that failed since the start. A member without seeds tries nothing:
    /// it waits for others, and that is no news.
    fn look(&mut self, now: Duration, others: usize, failed: u64) -> Option<Word> {
        match (self.there, others > 0) {
            (false, true) => {
                self.there = true;
                Some(Word::Joined)
            }
            (true, false) => {
                *self = Self {
                    there: false,
                    said: Some(now),
                    before: failed,
                };
                Some(Word::Lost)
            }
            (true, true) => None,
            (false, false) => {
                let due = self.said.map_or(NOBODY_FIRST, |said| said + NOBODY_AGAIN);
                let tries = failed - self.before;
                if now < due || tries == 0 {
                    return None;
                }
                self.said = Some(now);
                Some(Word::Nobody { tries })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Word::{Joined, Lost, Nobody};
    use super::*;

    #[test]
    fn each_change_is_told_once_and_solitude_each_minute() {
        let mut company = Company::default();
        for (second, others, failed, word) in [
            (1, 0, 1, None),
            (4, 0, 3, None),
            (5, 0, 4, Some(Nobody { tries: 4 })),
            (6, 0, 5, None),
            (64, 0, 16, None),
            (65, 0, 17, Some(Nobody { tries: 17 })),
            (66, 1, 17, Some(Joined)),
            (67, 2, 17, None),
            (300, 1, 18, None),
            (301, 0, 20, Some(Lost)),
            (302, 0, 21, None),
            (361, 0, 25, Some(Nobody { tries: 5 })),
            (362, 3, 25, Some(Joined)),
        ] {
            let said = company.look(Duration::from_secs(second), others, failed);
            assert_eq!(said, word, "at {second} s");
        }
    }

    #[test]
    fn who_asks_nobody_misses_nobody() {
        let mut company = Company::default();
        assert_eq!(company.look(Duration::from_secs(100), 0, 0), None);
        assert_eq!(company.look(Duration::from_secs(101), 1, 0), Some(Joined));
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
