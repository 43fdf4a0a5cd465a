//! The thread that drives a member: datagrams, timers, streams, and what the rest of the program hears of it.
//!
//! It is a thread of its own with a runtime of its own, so that a busy data plane cannot delay it, nor it the data
//! plane. In each turn it reads all datagrams that wait before it runs timers: after a stall the answers that came in
//! the meantime count. The rest is bounded: datagrams of a turn, streams, and publications (ten a second).

mod seeds;

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::LocalSet;
use tracing::{debug, error, info, warn};

use seeds::Seeds;

use super::member::{Change, Command, MemberError, MemberSettings, Secrets, Sockets, Windows};
use super::streams::Streams;
use crate::gossip::Time;
use crate::gossip::identity::{Identity, Role};
use crate::gossip::node::{Dropped, Limits, Node, Settings};
use crate::gossip::quarantine::{InHand, Quarantine};
use crate::gossip::record::Record;
use crate::gossip::refusals::Refused;
use crate::gossip::tuning::MAX_DATAGRAM;
use crate::gossip::view::Report;

/// Datagrams that are read in one turn, at the most.
const TURN: usize = 1024;
/// How long timers wait for datagrams that are still to be read.
const MOST_BEHIND: Duration = Duration::from_millis(250);
/// Between two publications of the set.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// How long a member that has taken another's place may take to join before what it sees is shown.
const UNSEEN: Duration = Duration::from_secs(5);
/// Between two publications of figures, unless the set changes.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long a goodbye is told.
const GOODBYE: Duration = Duration::from_millis(900);
/// How long the first announcement may wait for a proxy to tell it to.
const TOLD_WITHIN: Duration = Duration::from_secs(1);
/// From a failure to the next member.
const BEGIN_ANEW: Duration = Duration::from_secs(1);

/// What outlives a failure of the thread.
pub(super) struct Seat {
    pub settings: MemberSettings,
    pub windows: Windows,
    /// By which it may show something there.
    pub claim: u64,
    pub commands: mpsc::UnboundedReceiver<Command>,
    /// What was announced last.
    pub announced: Option<Record>,
    /// Whether an earlier member of this seat has failed.
    pub failed: bool,
}

/// Drives a member until it has left. A bug in what it does with what others say ends the member, and another one
/// begins in its place, which refuses the announcement that was being handled: what was published stands in the
/// meantime.
pub(super) fn run(mut seat: Seat, secrets: Secrets, sockets: Sockets) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return error!(%error, "the gossip thread cannot start its runtime"),
    };
    let mut prepared = Some((secrets, sockets));
    let mut quarantine = Quarantine::default();
    loop {
        let attempt = match prepared.take() {
            Some(prepared) => Ok(prepared),
            None => prepare(&seat.settings),
        };
        let drive = |(secrets, sockets)| {
            let local = LocalSet::new();
            let ended = local.block_on(&runtime, async {
                let quarantine = quarantine.clone();
                Driver::new(&mut seat, secrets, sockets, quarantine)?
                    .run()
                    .await;
                Ok::<_, io::Error>(())
            });
            ended.map_err(MemberError::Thread)
        };
        match catch_unwind(AssertUnwindSafe(|| attempt.and_then(drive))) {
            Ok(Ok(())) => break,
            Ok(Err(error)) => error!(%error, "the gossip thread cannot go on, and tries again"),
            Err(_) => {
                error!("the gossip thread has failed, and begins anew");
                if let Some(InHand { hash, member }) = quarantine.convict() {
                    error!(
                        hash = format_args!("{hash:016x}"),
                        ?member,
                        "gossip: the announcement that was being handled is refused from now on"
                    );
                }
            }
        }
        seat.failed = true;
        runtime.block_on(async { tokio::time::sleep(BEGIN_ANEW).await });
        if seat.commands.is_closed() && seat.commands.is_empty() {
            break;
        }
    }
    if seat.windows.are_of(seat.claim) {
        seat.windows.set.send_replace(Arc::default());
        seat.windows.show(seat.claim, None);
    }
    // A look-up of a name may still hang in the system's resolver.
    runtime.shutdown_background();
}

fn prepare(settings: &MemberSettings) -> Result<(Secrets, Sockets), MemberError> {
    Ok((settings.secrets()?, Sockets::bind(settings.address)?))
}

/// What the thread's tasks share.
pub(super) struct Shared {
    pub node: RefCell<Node>,
    /// The node has something to send, or an earlier deadline.
    pub poke: Notify,
    /// A task has panicked with the node in its hands: the runtime keeps that from the thread.
    pub failed: Cell<bool>,
    clock: Instant,
}

impl Shared {
    pub(super) fn now(&self) -> Time {
        self.clock.elapsed()
    }
}

struct Driver<'a> {
    seat: &'a mut Seat,
    quarantine: Quarantine,
    shared: Rc<Shared>,
    datagrams: UdpSocket,
    streams: Streams,
    seeds: Seeds,
    /// Asked to say when all was told, and since when.
    waiting: Vec<(oneshot::Sender<()>, Time)>,
    /// When the set was; never yet, and then at once.
    published: Option<Time>,
    /// When figures are shown next.
    report_at: Time,
    leaving: Option<Time>,
    conflict: bool,
    /// Until then a member that has taken another's place shows nothing, unless it has joined: what was seen before
    /// stands.
    unseen_until: Time,
    /// Since when datagrams wait that were not read in the turn.
    behind: Option<Time>,
    buffer: Vec<u8>,
}

impl<'a> Driver<'a> {
    fn new(
        seat: &'a mut Seat,
        secrets: Secrets,
        sockets: Sockets,
        quarantine: Quarantine,
    ) -> io::Result<Self> {
        let settings = &seat.settings;
        let mut node = node(settings, secrets, Duration::ZERO);
        node.set_quarantine(quarantine.clone());
        if let Some(record) = &seat.announced {
            // It was within the limits when it was announced.
            let _ = node.announce(record.clone(), Duration::ZERO);
        }
        let shared = Rc::new(Shared {
            node: RefCell::new(node),
            poke: Notify::new(),
            failed: Cell::new(false),
            clock: Instant::now(),
        });
        let (datagrams, listener) = sockets.register()?;
        info!(address = %settings.address, advertise = %settings.advertise, label = settings.label, "gossip: listening");
        let unseen_until = if seat.failed { UNSEEN } else { Time::ZERO };
        Ok(Self {
            seeds: Seeds::follow(&settings.seeds),
            streams: Streams::start(Rc::clone(&shared), listener),
            seat,
            quarantine,
            shared,
            datagrams,
            waiting: Vec::new(),
            published: None,
            report_at: Duration::ZERO,
            leaving: None,
            conflict: false,
            behind: None,
            unseen_until,
            // One byte more than fits tells what is too long.
            buffer: vec![0; MAX_DATAGRAM + 1],
        })
    }

    async fn run(mut self) {
        loop {
            self.turn();
            let now = self.shared.now();
            if self.leaving.is_some_and(|since| now - since >= GOODBYE) {
                break;
            }
            let deadline = self.next_deadline(now);
            tokio::select! {
                biased;
                command = self.seat.commands.recv(), if self.leaving.is_none() => match command {
                    Some(command) => self.obey(command),
                    None => self.leave(),
                },
                ready = self.datagrams.readable() => if let Err(error) = ready {
                    // It cannot be read for now; the timers go on.
                    debug!(%error, "gossip: the socket is not readable");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                },
                seeds = self.seeds.next() => {
                    let now = self.shared.now();
                    self.shared.node.borrow_mut().set_seeds(seeds, now);
                }
                () = self.shared.poke.notified() => {}
                () = tokio::time::sleep(deadline.saturating_sub(now)) => {}
            }
        }
    }

    /// Reads, then runs timers, then sends.
    fn turn(&mut self) {
        if self.shared.failed.get() {
            // Its panic was told already.
            resume_unwind(Box::new("a stream has failed"));
        }
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.shared.node.borrow_mut().set_unix(unix.as_secs());
        let mut drained = false;
        for _ in 0..TURN {
            match self.datagrams.try_recv_from(&mut self.buffer) {
                Ok((length, _)) => {
                    let now = self.shared.now();
                    let mut node = self.shared.node.borrow_mut();
                    node.receive(&mut self.buffer[..length], now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    drained = true;
                    break;
                }
                // An ICMP answer to something sent earlier: that peer is not there.
                Err(_) => {}
            }
        }
        let now = self.shared.now();
        if !drained {
            // The next turn reads on; under a flood that does not end the timers run all the same.
            self.shared.poke.notify_one();
        }
        let behind = *self.behind.get_or_insert(now);
        if drained || now - behind >= MOST_BEHIND {
            self.behind = None;
            self.shared.node.borrow_mut().run_timers(now);
        }
        self.tell_refused();
        self.send();
        self.answer_the_waiting();
        self.publish();
    }

    fn tell_refused(&self) {
        for refused in self.shared.node.borrow_mut().take_refused() {
            let Refused {
                member,
                cluster,
                why,
                agents,
            } = refused;
            let reason = Dropped::from(why).as_str();
            if let Some((bound, other)) = agents {
                warn!(
                    %member, %cluster, reason, bound, other,
                    "gossip: an announcement is refused: it is signed by agent key {other}, and its member announces by \
                     {bound}; whoever holds the token of {other} speaks for others, or two agents have one address"
                );
                continue;
            }
            warn!(%member, %cluster, reason, "gossip: an announcement is refused: {why}");
        }
    }

    fn send(&mut self) {
        let (packets, exchanges) = {
            let mut node = self.shared.node.borrow_mut();
            (node.take_packets(), node.take_exchanges())
        };
        for packet in packets {
            // A full buffer or an unreachable host loses it, as the network may.
            if let Err(error) = self.datagrams.try_send_to(&packet.bytes, packet.to) {
                debug!(to = %packet.to, %error, "gossip: a datagram was not sent");
            }
        }
        for member in exchanges {
            self.streams.ask(member);
        }
    }

    fn answer_the_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let now = self.shared.now();
        let node = self.shared.node.borrow();
        let told = node.announced_to_all();
        let (alone, joined) = (node.active() == 1, node.has_joined());
        let mut still = Vec::new();
        for (answer, since) in self.waiting.drain(..) {
            let in_vain = now - since >= TOLD_WITHIN && (alone || !joined);
            if told && (joined || !alone) || in_vain || now - since >= 3 * TOLD_WITHIN {
                let _ = answer.send(());
            } else {
                still.push((answer, since));
            }
        }
        self.waiting = still;
    }

    fn publish(&mut self) {
        if !self.seat.windows.are_of(self.seat.claim) {
            self.report_at = self.shared.now() + REPORT_EVERY;
            return;
        }
        let now = self.shared.now();
        let mut node = self.shared.node.borrow_mut();
        let shows = node.has_joined() || now >= self.unseen_until;
        let rested = self.published.is_none_or(|at| now - at >= PUBLISH_EVERY);
        if shows && node.is_dirty() && rested {
            self.published = Some(now);
            self.seat.windows.set.send_replace(Arc::new(node.view(now)));
            // Whoever asks for the members sees those that traffic goes to.
            self.report_at = now;
        }
        if now < self.report_at {
            return;
        }
        self.report_at = now + REPORT_EVERY;
        if node.in_conflict() != self.conflict {
            self.conflict = node.in_conflict();
            if self.conflict {
                error!(address = %self.seat.settings.advertise, "gossip: somebody else uses this address; this member says nothing for five minutes, and listens on");
            } else {
                warn!("gossip: this member speaks again");
            }
        }
        let report = Report {
            set: Arc::clone(&self.seat.windows.set.borrow()),
            at: now,
            address: self.seat.settings.advertise,
            label: self.seat.settings.label.clone(),
            key_ids: node.key_ids(),
            counters: node.counters().clone(),
            lag: node.take_lag(),
            patience: node.patience(),
            joined: node.has_joined(),
            conflict: self.conflict,
            refused: node.refused(),
        };
        self.seat.windows.show(self.seat.claim, Some(report));
    }

    /// When the next turn is due at the latest.
    fn next_deadline(&self, now: Time) -> Time {
        let node = self.shared.node.borrow();
        let mut deadline = self.report_at;
        if let Some(timer) = node.next_deadline() {
            deadline = deadline.min(timer);
        }
        if node.is_dirty() {
            let due = self.published.map_or(now, |at| at + PUBLISH_EVERY);
            deadline = deadline.min(due.max(now + PUBLISH_EVERY / 10));
        }
        if !self.waiting.is_empty() {
            deadline = deadline.min(now + Duration::from_millis(20));
        }
        deadline
    }

    fn obey(&mut self, command: Command) {
        let now = self.shared.now();
        match command {
            Command::Announce(record, answer) => {
                let announced = self.shared.node.borrow_mut().announce(record.clone(), now);
                if announced.is_ok() {
                    self.seat.announced = Some(record);
                }
                let _ = answer.send(announced.map_err(|error| error.to_string()));
            }
            #[cfg(test)]
            Command::Fail => panic!("told to fail"),
            Command::Told(answer) => self.waiting.push((answer, now)),
            Command::Leave => self.leave(),
            Command::Change(change) => self.change(*change),
        }
    }

    fn leave(&mut self) {
        if self.leaving.is_none() {
            let now = self.shared.now();
            self.leaving = Some(now);
            self.shared.node.borrow_mut().leave(now);
        }
    }

    fn change(&mut self, change: Change) {
        let now = self.shared.now();
        let Change {
            settings,
            secrets,
            sockets,
            record,
        } = change;
        if record.is_some() {
            self.seat.announced = record;
        }
        let announced = self.seat.announced.clone();
        let known = std::mem::replace(&mut self.seat.settings, settings);
        let settings = &self.seat.settings;
        let same = known.advertise == settings.advertise
            && known.label == settings.label
            && known.role == settings.role;
        if same {
            let mut node = self.shared.node.borrow_mut();
            node.set_keyring(secrets.keyring);
            node.set_authority(secrets.authority, now);
            // The record first: nothing is sent before the token is changed too.
            let announced = announced.map_or(Ok(()), |record| node.announce(record, now));
            if let Err(error) = announced {
                error!(%error, "gossip: the service is not announced as it is now");
            }
            if let Err(error) = node.set_credential(secrets.credential, now) {
                error!(%error, "gossip: the token is not used, the one before stays");
            }
        } else {
            // Another member: this one says goodbye, as far as one packet to some goes.
            self.shared.node.borrow_mut().leave(now);
            self.send();
            let mut node = node(&self.seat.settings, secrets, now);
            node.set_quarantine(self.quarantine.clone());
            if let Some(record) = announced {
                // It was within the limits when it was made.
                let _ = node.announce(record, now);
            }
            *self.shared.node.borrow_mut() = node;
            self.unseen_until = now + UNSEEN;
        }
        if !same || known.seeds != self.seat.settings.seeds {
            self.seeds = Seeds::follow(&self.seat.settings.seeds);
        }
        let Some(sockets) = sockets else { return };
        match sockets.register() {
            Ok((datagrams, listener)) => {
                info!(address = %self.seat.settings.address, "gossip: listening");
                self.datagrams = datagrams;
                self.streams = Streams::start(Rc::clone(&self.shared), listener);
            }
            Err(error) => error!(%error, "the gossip sockets cannot be used"),
        }
    }
}

impl Sockets {
    fn register(self) -> io::Result<(UdpSocket, TcpListener)> {
        let datagrams = UdpSocket::from_std(self.datagrams)?;
        let listener = TcpListener::from_std(self.streams)?;
        Ok((datagrams, listener))
    }
}

/// A new run begins at the wall clock's milliseconds; see [`crate::gossip::identity`].
fn node(settings: &MemberSettings, secrets: Secrets, now: Time) -> Node {
    let epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64;
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).expect("the system has random bytes");
    let settings = Settings {
        identity: Identity::new(settings.advertise, epoch, settings.role),
        keyring: secrets.keyring,
        label: settings.label.clone(),
        authority: secrets.authority,
        credential: secrets.credential,
        observed: settings.role == Role::Proxy,
        limits: Limits::default(),
        seed,
    };
    Node::new(settings, now)
}

#[cfg(test)]
mod tests;
