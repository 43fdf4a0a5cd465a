//! Announces a service as a member of the peer set.
//!
//! The member runs on a thread of its own ([`crate::discovery::gossip::member`]). Beside the announcements this follows
//! the files of its keys and its token ([`Announcer::tend`]), so that a rotation needs no restart of what the agent
//! supervises: what cannot be read is logged once, and what was read before stays. Another configuration
//! ([`Announcer::change`]) takes the same way: all is read and judged before anything changes. And it tells of the company it is in
//! ([`company`]) and of a token that expires.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Mutex, Notify, watch::Sender};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;
use tracing::{info, warn};
use xxhash_rust::xxh3::xxh3_64;

use super::Announcer;
use crate::config::schema::AgentConfig;
use crate::config::watch::{Targets, read_settled, watch_all};
use crate::discovery::gossip::company;
use crate::discovery::gossip::member::{
    MemberError, MemberSettings, Prepared, RunningMember, Windows,
};
use crate::discovery::gossip::secrets::{self, SecretError};
use crate::gossip::identity::Role;
use crate::gossip::record::{MAX_NAME, Record, ServiceState};
use crate::gossip::token::{GRACE, TokenError};
use crate::model::units::show_duration;

/// Longest time between two looks at the wall clock, which may be set.
const CLOCK_LOOK: Duration = Duration::from_secs(60);
/// At the most so many seconds before a token expires the first word is said of it.
const EARLY: u64 = 86_400;

/// Why a service cannot be announced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
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
pub(crate) struct PeerAnnouncer {
    member: RefCell<RunningMember>,
    windows: Windows,
    /// What the member was made of.
    config: RefCell<AgentConfig>,
    record: RefCell<Record>,
    /// One change at a time.
    changing: Mutex<()>,
    /// The files of keys and token, as they are followed.
    files: Sender<Targets>,
    /// What they held before they were read.
    held: RefCell<Vec<Option<u64>>>,
    /// Of the token that is used.
    lease: Sender<Option<Lease>>,
}

/// All that a configuration asks for, read and judged.
struct Ready {
    prepared: Prepared,
    record: Record,
    lease: Option<Lease>,
    files: Vec<PathBuf>,
    held: Vec<Option<u64>>,
}

impl Ready {
    /// Reads the files with secrets, and binds the address unless it is the one that is `bound`. Blocks.
    fn new(config: &AgentConfig, bound: Option<SocketAddr>) -> Result<Self, StartError> {
        let settings = member_settings(config);
        let record = record(config);
        let files: Vec<PathBuf> = settings.files().cloned().collect();
        let held = fingerprints(&files);
        let lease = permits(&settings, &record)?;
        settings.warn_of_exposed();
        Ok(Self {
            prepared: Prepared::new(settings, bound)?,
            record,
            lease,
            files,
            held,
        })
    }
}

impl PeerAnnouncer {
    /// Starts the member and announces the service as starting. Reads files and waits for the member, so not within a
    /// runtime.
    ///
    /// # Errors
    /// Why the service cannot be announced as it is.
    pub(crate) fn start(config: &AgentConfig) -> Result<Self, StartError> {
        let ready = Ready::new(config, None)?;
        let windows = Windows::default();
        let announcer = Self {
            member: RefCell::new(ready.prepared.start(windows.clone())?),
            windows,
            config: RefCell::new(config.clone()),
            record: RefCell::new(ready.record),
            changing: Mutex::default(),
            files: Sender::new(targets(ready.files)),
            held: RefCell::new(ready.held),
            lease: Sender::new(ready.lease),
        };
        let record = announcer.record.borrow().clone();
        let taken = announcer.member.borrow().announce(record);
        match taken.blocking_recv() {
            Ok(Ok(())) => Ok(announcer),
            Ok(Err(error)) => Err(StartError::Record(error)),
            Err(_) => Err(StartError::Ended),
        }
    }

    /// Goes on by `config`, or by the one it has, and by what its files with secrets hold now.
    async fn go_on_by(&self, config: Option<AgentConfig>) -> Result<(), String> {
        let _one = self.changing.lock().await;
        let config = config.unwrap_or_else(|| self.config.borrow().clone());
        let bound = self.member.borrow().address();
        let ready = spawn_blocking(move || Ready::new(&config, Some(bound)).map(|r| (r, config)));
        let (ready, config) = ready
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        let record = Record {
            state: self.record.borrow().state,
            ..ready.record
        };
        let mut member = self.member.borrow_mut();
        member.apply(ready.prepared, Some(record.clone()));
        self.record.replace(record);
        self.config.replace(config);
        self.held.replace(ready.held);
        self.files.send_replace(targets(ready.files));
        self.lease.send_if_modified(|current| {
            // The same token, beside another key: what was said of it stands.
            let expires = |lease: &Option<Lease>| lease.map(|lease| lease.expires);
            let other = expires(current) != expires(&ready.lease);
            if other {
                *current = ready.lease;
            }
            other
        });
        Ok(())
    }

    /// Goes on by other keys and another token when their files change.
    async fn follow_files(&self) -> Infallible {
        let changed = Arc::new(Notify::new());
        let mut watches = JoinSet::new();
        watches.spawn(watch_all(self.files.subscribe(), Arc::clone(&changed)));
        loop {
            changed.notified().await;
            let files = self.files.borrow().files.clone();
            let mut now = Vec::with_capacity(files.len());
            for file in &files {
                now.push(read_settled(file).await.ok().map(|text| xxh3_64(&text)));
            }
            if files != self.files.borrow().files || now == *self.held.borrow() {
                continue;
            }
            match self.go_on_by(None).await {
                Ok(()) => info!("the files of keys and token have changed and are used"),
                Err(error) => {
                    warn!(%error, "the files of keys and token have changed and are not used: what they held before is");
                    self.held.replace(now);
                }
            }
        }
    }

    /// Warns of each token before it expires, and when it has. More is not for the agent to do: its clock may be wrong,
    /// and it is the proxies' that counts.
    async fn tell_of_expiry(&self) -> Infallible {
        loop {
            match next_word(&self.lease, unix_now).await {
                Word::Soon { left } => warn!(
                    expires_in = show_duration(Duration::from_secs(left)),
                    "the token expires soon: mint another one and put it in its file, which is read again"
                ),
                Word::Expired => warn!(
                    "the token has expired: proxies that ask for one will refuse this service"
                ),
            }
        }
    }
}

impl Announcer for PeerAnnouncer {
    fn announce(&self, state: ServiceState) {
        let mut record = self.record.borrow_mut();
        record.state = state;
        // It was taken at the start, and no limit depends on the state.
        drop(self.member.borrow().announce(record.clone()));
    }

    async fn sent(&self) {
        let told = self.member.borrow().told();
        told.await;
    }

    async fn change(&self, config: AgentConfig) -> Result<(), String> {
        self.go_on_by(Some(config)).await
    }

    async fn tend(&self) -> Infallible {
        tokio::select! {
            never = self.follow_files() => never,
            never = company::follow(self.windows.report.subscribe(), Role::Agent) => never,
            never = self.tell_of_expiry() => never,
        }
    }

    async fn leave(self) {
        self.member.into_inner().leave().await;
    }
}

fn member_settings(config: &AgentConfig) -> MemberSettings {
    MemberSettings {
        address: config.address,
        advertise: config.advertise,
        seeds: config.seeds.clone(),
        label: config.label.clone(),
        key_files: config.key_files.clone(),
        accept_plaintext: config.insecure_plaintext,
        token_keys: Vec::new(),
        revoked: Vec::new(),
        token_file: config.token_file.clone(),
        role: Role::Agent,
    }
}

fn targets(files: Vec<PathBuf>) -> Targets {
    Targets {
        files,
        folders: Vec::new(),
    }
}

/// Of what the files hold; `None` for one that cannot be read.
fn fingerprints(files: &[PathBuf]) -> Vec<Option<u64>> {
    let read = |file: &PathBuf| secrets::read(file).ok();
    let texts = files.iter().map(read);
    texts
        .map(|text| text.map(|text| xxh3_64(text.as_bytes())))
        .collect()
}

/// Whether the token, if there is one, is for this service and this agent, as proxies ask; and its lease from now on.
fn permits(settings: &MemberSettings, record: &Record) -> Result<Option<Lease>, StartError> {
    let Some(file) = &settings.token_file else {
        return Ok(None);
    };
    let credential = secrets::credential(file)?;
    let token = credential.token();
    let permitted = token.permits(&record.cluster, record.backend.ip(), record.weight);
    permitted.map_err(StartError::Token)?;
    let labelled = token.permits_label(&settings.label);
    labelled.map_err(StartError::Token)?;
    let own = settings.advertise.ip();
    let placed = token.permits_agent(own);
    placed.map_err(|error| StartError::Place(own, error))?;
    Ok(Some(Lease {
        expires: token.expires(),
        taken: unix_now(),
        said: None,
    }))
}

/// A token in use. Times are Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lease {
    expires: u64,
    /// When it was taken into use.
    taken: u64,
    /// What was said of it.
    said: Option<Word>,
}

/// What there is to say of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// So many seconds are left.
    Soon { left: u64 },
    /// It is of no use to anybody any more.
    Expired,
}

impl Lease {
    /// The next word on the token, and in how many seconds it is due; `None` when all is said. The first is due when a
    /// fifth of the life that it had when it was taken is left, or a day; the other when the grace of those who judge it
    /// is over too.
    fn next(&self, now: u64) -> Option<(Word, u64)> {
        let over = self.expires.saturating_add(GRACE).saturating_add(1);
        if now >= over && self.said != Some(Word::Expired) {
            return Some((Word::Expired, 0));
        }
        match self.said {
            None => {
                let life = self.expires.saturating_sub(self.taken);
                let soon = self.expires - EARLY.min(life / 5);
                let left = self.expires.saturating_sub(now.max(soon));
                Some((Word::Soon { left }, soon.saturating_sub(now)))
            }
            Some(Word::Soon { .. }) => Some((Word::Expired, over - now)),
            Some(Word::Expired) => None,
        }
    }
}

/// Waits until there is something to say of the token, or of one that takes its place in the meantime, by the clock
/// `now`; notes that it is said.
async fn next_word(lease: &Sender<Option<Lease>>, now: impl Fn() -> u64) -> Word {
    let mut changes = lease.subscribe();
    loop {
        let current = *changes.borrow_and_update();
        let due = current.and_then(|lease| lease.next(now()));
        let look = match due {
            Some((word, 0)) => {
                lease.send_if_modified(|lease| {
                    // Another token that came this moment has a word of its own to wait for.
                    if *lease == current {
                        lease.iter_mut().for_each(|lease| lease.said = Some(word));
                    }
                    false
                });
                return word;
            }
            Some((_, seconds)) => Some(CLOCK_LOOK.min(Duration::from_secs(seconds))),
            None => None,
        };
        tokio::select! {
            _ = changes.changed() => {}
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

    fn lease(taken: u64, expires: u64) -> Lease {
        Lease {
            expires,
            taken,
            said: None,
        }
    }

    #[test]
    fn when_to_warn_next() {
        const DAY: u64 = 86_400;
        let soon = |left| Some(Word::Soon { left });
        let over = Some(Word::Expired);
        for (expires, said, now, next) in [
            // A life of 1000 s from 1000 on: a fifth of it.
            (2000, None, 1000, Some((soon(200), 800))),
            (2000, None, 1799, Some((soon(200), 1))),
            (2000, None, 1800, Some((soon(200), 0))),
            (2000, None, 1900, Some((soon(100), 0))),
            (2000, soon(200), 1800, Some((over, 200 + GRACE + 1))),
            (2000, soon(200), 2000 + GRACE, Some((over, 1))),
            (2000, soon(200), 2001 + GRACE, Some((over, 0))),
            (2000, over, 2001 + GRACE, None),
            // The clock went back meanwhile.
            (2000, over, 1000, None),
            (2000, soon(200), 1000, Some((over, 1001 + GRACE))),
            // Of a long one a day.
            (1000 + 30 * DAY, None, 1000, Some((soon(DAY), 29 * DAY))),
            (1000 + 5 * DAY, None, 1000, Some((soon(DAY), 4 * DAY))),
            (
                1000 + 4 * DAY,
                None,
                1000,
                Some((soon(DAY * 4 / 5), DAY * 16 / 5)),
            ),
            // One that is within the grace, and one that is not, when it is taken.
            (990, None, 1000, Some((soon(0), 0))),
            (5, None, 1000, Some((over, 0))),
            (0, None, 0, Some((soon(0), 0))),
            (
                u64::MAX,
                None,
                1000,
                Some((soon(DAY), u64::MAX - DAY - 1000)),
            ),
        ] {
            let lease = Lease {
                said,
                ..lease(1000.min(now), expires)
            };
            let next = next.map(|(word, due)| (word.unwrap(), due));
            assert_eq!(lease.next(now), next, "{lease:?} at {now}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_told_of_by_the_clock_unless_it_is_replaced() {
        let began = Instant::now();
        let now = || 1000 + began.elapsed().as_secs();
        let token = Sender::new(Some(lease(1000, 2000)));
        let replaced = async {
            sleep(Duration::from_secs(700)).await;
            token.send_replace(Some(lease(1700, 3200)));
        };
        let (word, ()) = tokio::join!(next_word(&token, now), replaced);
        assert_eq!((word, now()), (Word::Soon { left: 300 }, 2900));
        assert_eq!(next_word(&token, now).await, Word::Expired);
        assert_eq!(now(), 3200 + GRACE + 1);
        // All is said, until there is another, which has expired already.
        let at = now();
        let replaced = async {
            sleep(Duration::from_secs(10_000)).await;
            token.send_replace(Some(lease(now(), 5)));
        };
        let (word, ()) = tokio::join!(next_word(&token, now), replaced);
        assert_eq!((word, now()), (Word::Expired, at + 10_000));
        // The clock is set.
        token.send_replace(Some(lease(now(), now() + 1_000_000)));
        let at = now();
        let set = || now() + 1_000_000 * u64::from(now() > at + 5000);
        assert_eq!(next_word(&token, set).await, Word::Expired);
        assert!(now() <= at + 5001 + CLOCK_LOOK.as_secs(), "{}", now() - at);
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
