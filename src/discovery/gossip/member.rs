//! A running member of a peer set: its settings, the sockets it needs, and the handle to the thread that drives it.
//!
//! What can fail (sockets, key files) is made before anything is applied ([`Prepared`]), so that a reload happens whole
//! or not at all. A new label, address or role is another member; keys, seeds and the operator change while it runs.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use super::driver;
use super::secrets::{self, SecretError};
use crate::gossip::identity::Role;
use crate::gossip::keyring::Keyring;
use crate::gossip::node::Counters;
use crate::gossip::record::Record;
use crate::gossip::token::{AgentCredential, Authority};
use crate::gossip::view::{PeerSet, Report};
use crate::model::address::BackendAddress;

/// Bytes of datagrams that the kernel may keep while the thread is busy; it may give less.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Streams that wait to be accepted.
const BACKLOG: i32 = 128;

/// What a member is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberSettings {
    /// UDP and TCP address that is bound.
    pub address: SocketAddr,
    /// Where others reach it.
    pub advertise: SocketAddr,
    /// Who is asked first.
    pub seeds: Vec<BackendAddress>,
    /// Of the set.
    pub label: String,
    /// The first seals, all open; none: nothing is sealed.
    pub key_files: Vec<PathBuf>,
    /// What is not sealed is taken too.
    pub accept_plaintext: bool,
    /// Operators' public keys: records need a token of one of them; none: they need none.
    pub token_keys: Vec<PathBuf>,
    /// What the ids of tokens that do not count any more begin with.
    pub revoked: Vec<String>,
    /// What an agent signs with.
    pub token_file: Option<PathBuf>,
    /// What it does.
    pub role: Role,
}

/// Why a member cannot be started or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemberError {
    /// The address cannot be bound.
    #[error("the gossip address {address} cannot be bound ({protocol}): {error}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// UDP or TCP.
        protocol: &'static str,
        /// Why.
        error: io::Error,
    },
    /// A key or a token cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The thread cannot be started.
    #[error("the gossip thread cannot be started: {0}")]
    Thread(io::Error),
}

/// The sockets of a member.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(super) datagrams: UdpSocket,
    pub(super) streams: TcpListener,
}

/// What a member seals, signs and judges by.
#[derive(Debug)]
pub(crate) struct Secrets {
    pub(super) keyring: Arc<Keyring>,
    pub(super) authority: Option<Authority>,
    pub(super) credential: Option<AgentCredential>,
}

/// All that a start or a change needs and that could fail.
#[derive(Debug)]
pub(crate) struct Prepared {
    settings: MemberSettings,
    secrets: Secrets,
    /// `None`: those of the running member stay.
    sockets: Option<Sockets>,
}

/// What a member goes on by.
#[derive(Debug)]
pub(super) struct Change {
    pub settings: MemberSettings,
    pub secrets: Secrets,
    /// `None`: those that it has.
    pub sockets: Option<Sockets>,
    /// What it announces; `None`: what it announced before.
    pub record: Option<Record>,
}

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Go on by these; with another name, label or role as another member.
    Change(Box<Change>),
    /// Announce this.
    Announce(Record, oneshot::Sender<Result<(), String>>),
    /// Say when what is announced has been told.
    Told(oneshot::Sender<()>),
    /// Say goodbye, and end.
    Leave,
    /// Panic.
    #[cfg(test)]
    Fail,
}

/// What the world sees of a member; kept while members come and go by reloads.
#[derive(Debug, Clone)]
pub(crate) struct Windows {
    /// The set, on each change.
    pub set: Arc<watch::Sender<Arc<PeerSet>>>,
    /// Its figures, each second; `None` without a member. Until its thread has begun it has nobody in its set, not even
    /// itself.
    pub report: Arc<watch::Sender<Option<Arc<Report>>>>,
    /// Which member looks out of them: the last that was started.
    owner: Arc<AtomicU64>,
}

impl Windows {
    /// They are a new member's from now on, and show `first`: whoever looks sees at once that there is a member. Who
    /// owns them changes while the report is locked, so that the member before can neither overwrite nor clear it.
    fn claim(&self, first: Report) -> u64 {
        let mut claim = 0;
        self.report.send_modify(|report| {
            claim = self.owner.fetch_add(1, Ordering::Relaxed) + 1;
            *report = Some(Arc::new(first));
        });
        claim
    }

    /// Shows a report, or that there is none, if they still are this member's.
    pub(super) fn show(&self, claim: u64, next: Option<Report>) {
        self.report.send_if_modified(|report| {
            let own = self.are_of(claim);
            if own {
                *report = next.map(Arc::new);
            }
            own
        });
    }

    /// Whether they still are.
    pub(super) fn are_of(&self, claim: u64) -> bool {
        self.owner.load(Ordering::Relaxed) == claim
    }
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            set: Arc::new(watch::Sender::new(Arc::default())),
            report: Arc::new(watch::Sender::new(None)),
            owner: Arc::default(),
        }
    }
}

/// See the module. Dropped, it leaves in order.
#[derive(Debug)]
pub(crate) struct RunningMember {
    settings: MemberSettings,
    commands: mpsc::UnboundedSender<Command>,
    ended: Option<oneshot::Receiver<()>>,
}

impl MemberSettings {
    /// Reads the secrets.
    ///
    /// # Errors
    /// The first file that is of no use.
    pub(crate) fn secrets(&self) -> Result<Secrets, MemberError> {
        let keyring = secrets::keyring(&self.key_files, &self.label, self.accept_plaintext)?;
        let operators = self.token_keys.iter().map(|file| secrets::operator(file));
        let operators = operators.collect::<Result<Vec<_>, _>>()?;
        let authority = match operators.is_empty() {
            true => None,
            false => Some(Authority::of(operators, self.revoked.clone())),
        };
        let credential = self.token_file.as_deref().map(secrets::credential);
        Ok(Secrets {
            keyring: Arc::new(keyring),
            authority,
            credential: credential.transpose()?,
        })
    }

    /// Warns of each file that others than those it is for can read or change.
    pub(crate) fn warn_of_exposed(&self) {
        let private = self.key_files.iter().chain(&self.token_file);
        let files = private.map(|file| (file, false));
        for (file, public) in files.chain(self.token_keys.iter().map(|file| (file, true))) {
            if let Some(exposed) = secrets::exposed(file, public) {
                warn!("{exposed}");
            }
        }
    }

    /// Files whose change asks for a look at them.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let others = self.token_keys.iter().chain(&self.token_file);
        self.key_files.iter().chain(others)
    }
}

impl Prepared {
    /// Reads the secrets, and binds the address unless it is the one that is `bound` by the running member.
    ///
    /// # Errors
    /// Why it cannot be done; nothing has changed then.
    pub(crate) fn new(
        settings: MemberSettings,
        bound: Option<SocketAddr>,
    ) -> Result<Self, MemberError> {
        let secrets = settings.secrets()?;
        let sockets = match bound == Some(settings.address) {
            true => None,
            false => Some(Sockets::bind(settings.address)?),
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
    /// If there is no thread for it.
    pub(crate) fn start(self, windows: Windows) -> Result<RunningMember, MemberError> {
        let (commands, received) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        let sockets = match self.sockets {
            Some(sockets) => sockets,
            None => Sockets::bind(self.settings.address)?,
        };
        let settings = self.settings.clone();
        let starting = Report {
            set: Arc::default(),
            at: Duration::ZERO,
            address: settings.advertise,
            label: settings.label.clone(),
            key_ids: self.secrets.keyring.key_ids(),
            counters: Counters::default(),
            lag: Duration::ZERO,
            patience: 1,
            joined: false,
            conflict: false,
            refused: Vec::new(),
        };
        let (secrets, seat) = (
            self.secrets,
            driver::Seat {
                settings: self.settings,
                claim: windows.claim(starting),
                windows,
                commands: received,
                announced: None,
                failed: false,
            },
        );
        std::thread::Builder::new()
            .name("gossip".to_owned())
            .spawn(move || {
                driver::run(seat, secrets, sockets);
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

impl RunningMember {
    /// What it goes by.
    pub(crate) fn settings(&self) -> &MemberSettings {
        &self.settings
    }

    /// What it has bound.
    pub(crate) fn address(&self) -> SocketAddr {
        self.settings.address
    }

    /// Goes on by what was prepared, and announces `record` if there is another one.
    pub(crate) fn apply(&mut self, prepared: Prepared, record: Option<Record>) {
        self.settings = prepared.settings.clone();
        self.tell(Command::Change(Box::new(Change {
            settings: prepared.settings,
            secrets: prepared.secrets,
            sockets: prepared.sockets,
            record,
        })));
    }

    /// Announces a service from now on; in the order of the calls.
    pub(crate) fn announce(&self, record: Record) -> oneshot::Receiver<Result<(), String>> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Announce(record, answer));
        answered
    }

    /// Resolves when what was announced has been told to the proxies that are known, or after a second without.
    pub(crate) fn told(&self) -> impl Future<Output = ()> + use<> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Told(answer));
        async {
            let _ = answered.await;
        }
    }

    /// Says goodbye and waits until the others have been told: about a second.
    pub(crate) async fn leave(mut self) {
        self.tell(Command::Leave);
        if let Some(ended) = self.ended.take() {
            let _ = ended.await;
        }
    }

    fn tell(&self, command: Command) {
        if self.commands.send(command).is_err() {
            warn!("the gossip thread has ended: the peer set is not followed any more");
        }
    }
}

impl Sockets {
    /// Binds UDP and TCP at `address`.
    pub(super) fn bind(address: SocketAddr) -> Result<Self, MemberError> {
        let failed = |protocol| {
            move |error| MemberError::Bind {
                address,
                protocol,
                error,
            }
        };
        let datagrams = bind_datagrams(address).map_err(failed("UDP"))?;
        let streams = bind_streams(address).map_err(failed("TCP"))?;
        Ok(Self { datagrams, streams })
    }
}

fn bind_datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // The kernel gives what its limit allows.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn bind_streams(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restart need not wait for the connections of the run before.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::record::ServiceState;

    /// Of a proxy at a free port of this address.
    fn settings(host: &str) -> MemberSettings {
        let address = UdpSocket::bind((host, 0))
            .and_then(|socket| socket.local_addr())
            .unwrap();
        MemberSettings {
            address,
            advertise: address,
            seeds: Vec::new(),
            label: "set".to_owned(),
            key_files: Vec::new(),
            accept_plaintext: false,
            token_keys: Vec::new(),
            revoked: Vec::new(),
            token_file: None,
            role: Role::Proxy,
        }
    }

    #[tokio::test]
    async fn there_is_a_report_from_the_first_moment_to_the_last() {
        let windows = Windows::default();
        let mut reports = windows.report.subscribe();
        let begin = |settings| {
            let member = Prepared::new(settings, None).unwrap();
            let member = member.start(windows.clone()).unwrap();
            assert!(windows.report.borrow().is_some());
            member
        };
        let member = begin(settings("127.88.0.2"));
        let first = reports.borrow_and_update().clone().unwrap();
        assert_eq!((first.label.as_str(), first.joined), ("set", false));
        // The first word of its thread has the member itself.
        let own = reports.wait_for(|r| r.as_ref().is_some_and(|r| !r.set.members.is_empty()));
        tokio::time::timeout(Duration::from_secs(30), own)
            .await
            .unwrap()
            .unwrap();
        // One that ends clears nothing of another that has begun.
        let next = begin(settings("127.88.0.3"));
        member.leave().await;
        assert!(windows.report.borrow().is_some());
        next.leave().await;
        assert!(windows.report.borrow().is_none());
    }

    #[tokio::test]
    async fn a_member_that_fails_begins_anew_and_announces_the_same() {
        let settings = settings("127.88.0.1");
        let windows = Windows::default();
        let member = Prepared::new(settings, None)
            .unwrap()
            .start(windows.clone())
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
        let mut sets = windows.set.subscribe();
        let own = |set: &Arc<PeerSet>| {
            let own = set.members.first().cloned();
            own.filter(|own| own.records.iter().any(|r| *r.record == record))
        };
        let wait = Duration::from_secs(30);
        let found = tokio::time::timeout(wait, sets.wait_for(|set| own(set).is_some())).await;
        let first = own(&found.unwrap().unwrap()).unwrap();
        member.tell(Command::Fail);
        let found = tokio::time::timeout(wait, async {
            let next = |set: &Arc<PeerSet>| own(set).is_some_and(|own| own.epoch > first.epoch);
            sets.wait_for(next).await.map(|set| own(&set))
        });
        let second = found.await.unwrap().unwrap().unwrap();
        assert_eq!(second.records[0].record, first.records[0].record);
        member.leave().await;
    }
}
