//! Announces a service as a member of the peer set.
//!
//! The member runs on a thread of its own ([`crate::discovery::gossip::member`]). Besides announcing, this follows the
//! files of keys and token ([`Announcer::run`]), so that a rotation needs no restart of the supervised process: a file
//! that cannot be read is logged once, and what was read before stays in use. Another configuration
//! ([`Announcer::change`]) is handled the same way: everything is read and judged before anything changes. It also logs
//! whether the member has company ([`join_reporter`]) and when the token expires.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::IpAddr;
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
use crate::discovery::gossip::join_reporter;
use crate::discovery::gossip::member::{PreparedChange, PreparedMember, RunningMember};
use crate::discovery::gossip::publisher::MemberPublisher;
use crate::discovery::gossip::secrets::{self, SecretError};
use crate::discovery::gossip::settings::{MemberError, MemberSettings};
use crate::gossip::identity::Role;
use crate::gossip::record::{MAX_NAME, Record, ServiceState};
use crate::gossip::token::{GRACE, TokenError};
use crate::model::units::show_duration;

/// Longest time between two looks at the wall clock, which may be set at any time.
const CLOCK_CHECK: Duration = Duration::from_secs(60);
/// The first warning comes at most this many seconds before a token expires.
const EARLY: u64 = 86_400;

/// Why a service cannot be announced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnnouncerError {
    /// The member that would announce it cannot be started.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// Its token cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Every proxy that requires a token would refuse it.
    #[error("the token does not permit this service: {0}")]
    Token(TokenError),
    /// Every proxy that requires a token would refuse it, because of the agent's own address.
    #[error("the token does not permit the agent's own address {0}, where others reach it: {1}")]
    Address(IpAddr, TokenError),
    /// It exceeds the limits of a record.
    #[error("the service cannot be announced: {0}")]
    Record(String),
    /// The member could not even start; the log has the reason.
    #[error("the gossip thread has ended")]
    Ended,
}

/// Announces a service as a member of the peer set; see the module.
#[derive(Debug)]
pub(crate) struct PeerAnnouncer {
    current: RefCell<Current>,
    publisher: MemberPublisher,
    /// Only one change at a time.
    changing: Mutex<()>,
    /// The files of keys and token that are followed.
    files: Sender<Targets>,
    /// The token that is in use.
    lease: Sender<Option<TokenLease>>,
}

/// What the announcer uses now.
#[derive(Debug)]
struct Current {
    member: RunningMember,
    /// What the member was made of.
    config: AgentConfig,
    record: Record,
    /// Hashes of the files of keys and token, from before they were read.
    fingerprints: Vec<Option<u64>>,
}

/// What a configuration asks for, read and judged: for a member that starts, or for a change of the running one.
struct PreparedAnnouncer<M> {
    member: M,
    record: Record,
    lease: Option<TokenLease>,
    files: Vec<PathBuf>,
    fingerprints: Vec<Option<u64>>,
}

impl<M> PreparedAnnouncer<M> {
    /// Reads the files with secrets, and has `prepare` do what could fail. Blocks.
    fn new(
        config: &AgentConfig,
        prepare: impl FnOnce(MemberSettings) -> Result<M, MemberError>,
    ) -> Result<Self, AnnouncerError> {
        let settings = member_settings(config);
        let record = record(config);
        let files: Vec<PathBuf> = settings.files().cloned().collect();
        let fingerprints = fingerprints(&files);
        let lease = lease(&settings, &record)?;
        settings.warn_of_exposed();
        Ok(Self {
            member: prepare(settings)?,
            record,
            lease,
            files,
            fingerprints,
        })
    }
}

impl PeerAnnouncer {
    /// Starts the member and announces the service as starting. Reads files and waits for the member, so it must not be
    /// called within a runtime.
    ///
    /// # Errors
    /// Why the service cannot be announced as it is.
    pub(crate) fn start(config: &AgentConfig) -> Result<Self, AnnouncerError> {
        let prepared = PreparedAnnouncer::new(config, PreparedMember::new)?;
        let publisher = MemberPublisher::default();
        let member = prepared.member.start(publisher.clone());
        let announced = member.announce(prepared.record.clone());
        let announcer = Self {
            current: RefCell::new(Current {
                member,
                config: config.clone(),
                record: prepared.record,
                fingerprints: prepared.fingerprints,
            }),
            publisher,
            changing: Mutex::default(),
            files: Sender::new(targets(prepared.files)),
            lease: Sender::new(prepared.lease),
        };
        match announced.blocking_recv() {
            Ok(Ok(())) => Ok(announcer),
            Ok(Err(error)) => Err(AnnouncerError::Record(error)),
            Err(_) => Err(AnnouncerError::Ended),
        }
    }

    /// Continues with `config`, or with the current one, and with what its files of keys and token hold now.
    async fn continue_with(&self, config: Option<AgentConfig>) -> Result<(), String> {
        let _one = self.changing.lock().await;
        let (config, bound) = {
            let current = self.current.borrow();
            let config = config.unwrap_or_else(|| current.config.clone());
            (config, current.member.address())
        };
        let change = move |settings| PreparedChange::new(settings, bound);
        let prepare = move || PreparedAnnouncer::new(&config, change).map(|ready| (ready, config));
        let (prepared, config) = spawn_blocking(prepare)
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        let mut current = self.current.borrow_mut();
        let record = Record {
            state: current.record.state,
            ..prepared.record
        };
        current.member.apply(prepared.member, Some(record.clone()));
        current.record = record;
        current.config = config;
        current.fingerprints = prepared.fingerprints;
        self.files.send_replace(targets(prepared.files));
        self.lease.send_if_modified(|lease| {
            // If only a key has changed, what was logged about the token still holds.
            let expires = |lease: &Option<TokenLease>| lease.map(|lease| lease.expires);
            let other = expires(lease) != expires(&prepared.lease);
            if other {
                *lease = prepared.lease;
            }
            other
        });
        Ok(())
    }

    /// Continues with other keys and another token when their files change.
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
            let is_known = now == self.current.borrow().fingerprints;
            if files != self.files.borrow().files || is_known {
                continue;
            }
            match self.continue_with(None).await {
                Ok(()) => info!("the key and token files have changed; using their new contents"),
                Err(error) => {
                    warn!(%error, "the key and token files have changed, but cannot be used; keeping what was read before");
                    self.current.borrow_mut().fingerprints = now;
                }
            }
        }
    }

    /// Logs a warning before each token expires, and when it has. The agent does no more, since its clock may be wrong
    /// and only those of the proxies count.
    async fn warn_of_expiry(&self) -> Infallible {
        loop {
            match next_warning(&self.lease, unix_now).await {
                TokenWarning::Soon { left } => warn!(
                    expires_in = show_duration(Duration::from_secs(left)),
                    "the token expires soon; mint another one and put it into its file, which is read again"
                ),
                TokenWarning::Expired => warn!(
                    "the token has expired; proxies that require one will refuse this service"
                ),
            }
        }
    }
}

impl Announcer for PeerAnnouncer {
    fn announce(&self, state: ServiceState) {
        let mut current = self.current.borrow_mut();
        current.record.state = state;
        // It was accepted at the start, and no limit depends on the state.
        drop(current.member.announce(current.record.clone()));
    }

    async fn sent(&self) {
        let announced = self.current.borrow().member.announced();
        announced.await;
    }

    async fn change(&self, config: AgentConfig) -> Result<(), String> {
        self.continue_with(Some(config)).await
    }

    async fn run(&self) -> Infallible {
        let reports = self.publisher.report.subscribe();
        tokio::select! {
            never = self.follow_files() => never,
            never = join_reporter::follow(reports, Role::Agent) => never,
            never = self.warn_of_expiry() => never,
        }
    }

    async fn leave(self) {
        self.current.into_inner().member.leave().await;
    }
}

fn member_settings(config: &AgentConfig) -> MemberSettings {
    MemberSettings {
        peer_set: config.peer_set.clone(),
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

/// Hashes of what the files hold; `None` for one that cannot be read.
fn fingerprints(files: &[PathBuf]) -> Vec<Option<u64>> {
    let read = |file: &PathBuf| secrets::read(file).ok();
    let texts = files.iter().map(read);
    texts
        .map(|text| text.map(|text| xxh3_64(text.as_bytes())))
        .collect()
}

/// Checks that the token, if there is one, permits this service and this agent, as proxies do; returns its lease.
fn lease(settings: &MemberSettings, record: &Record) -> Result<Option<TokenLease>, AnnouncerError> {
    let Some(file) = &settings.token_file else {
        return Ok(None);
    };
    let credential = secrets::credential(file)?;
    let token = credential.token();
    token
        .permits(&record.cluster, record.backend.ip(), record.weight)
        .map_err(AnnouncerError::Token)?;
    token
        .permits_label(&settings.peer_set.label)
        .map_err(AnnouncerError::Token)?;
    let own = settings.peer_set.advertise.ip();
    token
        .permits_agent(own)
        .map_err(|error| AnnouncerError::Address(own, error))?;
    Ok(Some(TokenLease {
        expires: token.expires(),
        taken: unix_now(),
        logged: None,
    }))
}

/// A token in use. Times are Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TokenLease {
    expires: u64,
    /// When it was taken into use.
    taken: u64,
    /// The last warning about it.
    logged: Option<TokenWarning>,
}

/// A warning about a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenWarning {
    /// It expires in so many seconds.
    Soon { left: u64 },
    /// No proxy accepts it any more.
    Expired,
}

impl TokenLease {
    /// The next warning, and in how many seconds it is due; `None` if there is none left. The first is due when a fifth
    /// of the token's life from when it was taken is left, or a day; the second when the grace of the proxies is over
    /// too.
    fn next_warning(&self, now: u64) -> Option<(TokenWarning, u64)> {
        let over = self.expires.saturating_add(GRACE).saturating_add(1);
        if now >= over && self.logged != Some(TokenWarning::Expired) {
            return Some((TokenWarning::Expired, 0));
        }
        match self.logged {
            None => {
                let life = self.expires.saturating_sub(self.taken);
                let soon = self.expires - EARLY.min(life / 5);
                let left = self.expires.saturating_sub(now.max(soon));
                Some((TokenWarning::Soon { left }, soon.saturating_sub(now)))
            }
            Some(TokenWarning::Soon { .. }) => Some((TokenWarning::Expired, over - now)),
            Some(TokenWarning::Expired) => None,
        }
    }
}

/// Waits until there is a warning about the token, or about one that takes its place meanwhile, by the clock `now`;
/// notes that it is logged.
async fn next_warning(lease: &Sender<Option<TokenLease>>, now: impl Fn() -> u64) -> TokenWarning {
    let mut changes = lease.subscribe();
    loop {
        let current = *changes.borrow_and_update();
        let due = current.and_then(|lease| lease.next_warning(now()));
        let wait = match due {
            Some((warning, 0)) => {
                lease.send_if_modified(|lease| {
                    // A token that came this very moment has its own warnings.
                    if *lease == current {
                        lease
                            .iter_mut()
                            .for_each(|lease| lease.logged = Some(warning));
                    }
                    false
                });
                return warning;
            }
            Some((_, seconds)) => Some(CLOCK_CHECK.min(Duration::from_secs(seconds))),
            None => None,
        };
        tokio::select! {
            _ = changes.changed() => {}
            () = sleep(wait.unwrap_or_default()), if wait.is_some() => {}
        }
    }
}

/// Unix seconds; 0 before 1970.
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

/// The part of a text that a record can hold as a name.
fn as_name(text: &str) -> String {
    let mut name: String = text.chars().filter(|c| !c.is_control()).collect();
    name.truncate(name.floor_char_boundary(MAX_NAME));
    name
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn lease(taken: u64, expires: u64) -> TokenLease {
        TokenLease {
            expires,
            taken,
            logged: None,
        }
    }

    #[test]
    fn when_to_warn_next() {
        const DAY: u64 = 86_400;
        let soon = |left| Some(TokenWarning::Soon { left });
        let over = Some(TokenWarning::Expired);
        for (expires, logged, now, next) in [
            // A fifth of a life of 1000 s, from 1000 on.
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
            // A day for a long one.
            (1000 + 30 * DAY, None, 1000, Some((soon(DAY), 29 * DAY))),
            (1000 + 5 * DAY, None, 1000, Some((soon(DAY), 4 * DAY))),
            (
                1000 + 4 * DAY,
                None,
                1000,
                Some((soon(DAY * 4 / 5), DAY * 16 / 5)),
            ),
            // A token that is within the grace when it is taken, and one that is not.
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
            let lease = TokenLease {
                logged,
                ..lease(1000.min(now), expires)
            };
            let next = next.map(|(warning, due)| (warning.unwrap(), due));
            assert_eq!(lease.next_warning(now), next, "{lease:?} at {now}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn warnings_follow_the_clock_unless_the_token_is_replaced() {
        let began = Instant::now();
        let now = || 1000 + began.elapsed().as_secs();
        let token = Sender::new(Some(lease(1000, 2000)));
        let replaced = async {
            sleep(Duration::from_secs(700)).await;
            token.send_replace(Some(lease(1700, 3200)));
        };
        let (warning, ()) = tokio::join!(next_warning(&token, now), replaced);
        assert_eq!((warning, now()), (TokenWarning::Soon { left: 300 }, 2900));
        assert_eq!(next_warning(&token, now).await, TokenWarning::Expired);
        assert_eq!(now(), 3200 + GRACE + 1);
        // There is nothing left to log, until there is another token, which has expired already.
        let at = now();
        let replaced = async {
            sleep(Duration::from_secs(10_000)).await;
            token.send_replace(Some(lease(now(), 5)));
        };
        let (warning, ()) = tokio::join!(next_warning(&token, now), replaced);
        assert_eq!((warning, now()), (TokenWarning::Expired, at + 10_000));
        // The clock is set.
        token.send_replace(Some(lease(now(), now() + 1_000_000)));
        let at = now();
        let set = || now() + 1_000_000 * u64::from(now() > at + 5000);
        assert_eq!(next_warning(&token, set).await, TokenWarning::Expired);
        assert!(now() <= at + 5001 + CLOCK_CHECK.as_secs(), "{}", now() - at);
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
