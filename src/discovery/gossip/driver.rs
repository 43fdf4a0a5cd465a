//! The thread that drives a member: datagrams, timers, streams, and what the rest of the program sees of it.
//!
//! The member has a thread and a runtime of its own, so that it and the data plane cannot delay each other. Each turn
//! reads all waiting datagrams before it runs timers, so that after a stall the answers that came in meanwhile count.
//! Everything is bounded: datagrams per turn, streams, and publications (ten a second).

mod datagrams;
mod publication;
mod seeds;
mod waiters;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tracing::{debug, error, info, warn};

use super::commands::{MemberCommand, MemberUpdate};
use super::publisher::MemberPublisher;
use super::settings::{MemberError, MemberSettings, Secrets};
use super::shared::SharedNode;
use super::sockets::Sockets;
use super::streams::PushPullStreams;
use crate::gossip::Time;
use crate::gossip::counters::Dropped;
use crate::gossip::identity::{Identity, Role};
use crate::gossip::node::{Limits, Node, NodeSettings};
use crate::gossip::quarantine::{InProgress, Quarantine};
use crate::gossip::record::Record;
use crate::gossip::refusals::Refused;
use datagrams::Datagrams;
use publication::Publication;
use seeds::Seeds;
use waiters::Waiters;

/// How long a member that leaves is still driven, so that others learn it.
const LEAVE_FOR: Duration = Duration::from_millis(900);
/// Time from a failure to the restart.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// What survives a panic of the member.
pub(super) struct SurvivingState {
    pub settings: MemberSettings,
    pub publisher: MemberPublisher,
    /// Number of this member as an owner of the publisher.
    pub claim: u64,
    pub commands: mpsc::UnboundedReceiver<MemberCommand>,
    /// What was announced last.
    pub announced: Option<Record>,
    /// The member was restarted after a failure.
    pub restarted: bool,
}

/// Drives a member until it has left. If a bug in processing what others send makes the member panic, another one takes
/// its place and refuses the announcement that was being processed. What was published stands in the meantime.
pub(super) fn run(mut state: SurvivingState, secrets: Secrets, sockets: Sockets) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return error!(%error, "gossip: cannot start the runtime of the thread"),
    };
    let mut prepared = Some((secrets, sockets));
    let mut quarantine = Quarantine::default();
    loop {
        let attempt = match prepared.take() {
            Some(prepared) => Ok(prepared),
            None => prepare(&state.settings),
        };
        let drive = |(secrets, sockets)| {
            let local = LocalSet::new();
            let ended = local.block_on(&runtime, async {
                let quarantine = quarantine.clone();
                Driver::new(&mut state, secrets, sockets, quarantine)?
                    .run()
                    .await;
                Ok::<_, io::Error>(())
            });
            ended.map_err(MemberError::Thread)
        };
        match catch_unwind(AssertUnwindSafe(|| attempt.and_then(drive))) {
            Ok(Ok(())) => break,
            Ok(Err(error)) => error!(%error, "gossip: the member cannot run; trying again"),
            Err(_) => {
                error!("gossip: the member panicked; restarting it");
                if let Some(InProgress { hash, member }) = quarantine.condemn() {
                    error!(
                        hash = format_args!("{hash:016x}"),
                        ?member,
                        "gossip: the announcement that was being processed is refused from now on"
                    );
                }
            }
        }
        state.restarted = true;
        runtime.block_on(async { tokio::time::sleep(RESTART_AFTER).await });
        if state.commands.is_closed() && state.commands.is_empty() {
            break;
        }
    }
    if state.publisher.is_owned_by(state.claim) {
        state.publisher.set.send_replace(Arc::default());
        state.publisher.publish_report(state.claim, None);
    }
    // A name look-up may still hang in the system's resolver.
    runtime.shutdown_background();
}

fn prepare(settings: &MemberSettings) -> Result<(Secrets, Sockets), MemberError> {
    let secrets = settings.secrets()?;
    Ok((secrets, Sockets::bind(settings.peer_set.address)?))
}

struct Driver<'a> {
    state: &'a mut SurvivingState,
    quarantine: Quarantine,
    shared: Rc<SharedNode>,
    datagrams: Datagrams,
    streams: PushPullStreams,
    seeds: Seeds,
    publication: Publication,
    waiters: Waiters,
    /// Since when the member is leaving.
    leaving: Option<Time>,
}

impl<'a> Driver<'a> {
    fn new(
        state: &'a mut SurvivingState,
        secrets: Secrets,
        sockets: Sockets,
        quarantine: Quarantine,
    ) -> io::Result<Self> {
        let mut node = node(&state.settings, secrets, Duration::ZERO);
        node.set_quarantine(quarantine.clone());
        if let Some(record) = &state.announced {
            // It was within the limits when it was announced.
            let _ = node.announce(record.clone(), Duration::ZERO);
        }
        let shared = Rc::new(SharedNode::new(node));
        let (datagrams, listener) = sockets.register()?;
        let peer_set = &state.settings.peer_set;
        info!(
            address = %peer_set.address, advertise = %peer_set.advertise, label = peer_set.label,
            "gossip: listening"
        );
        Ok(Self {
            seeds: Seeds::follow(&peer_set.seeds),
            streams: PushPullStreams::start(Rc::clone(&shared), listener),
            publication: Publication::new(state.restarted),
            datagrams: Datagrams::new(datagrams),
            waiters: Waiters::default(),
            leaving: None,
            state,
            quarantine,
            shared,
        })
    }

    async fn run(mut self) {
        loop {
            self.turn();
            let now = self.shared.now();
            if self.leaving.is_some_and(|since| now - since >= LEAVE_FOR) {
                break;
            }
            let deadline = self.next_deadline(now);
            tokio::select! {
                biased;
                command = self.state.commands.recv(), if self.leaving.is_none() => match command {
                    Some(command) => self.execute(command),
                    None => self.leave(),
                },
                ready = self.datagrams.readable() => if let Err(error) = ready {
                    // It cannot be read for now; timers still run.
                    debug!(%error, "gossip: the socket is not readable");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                },
                seeds = self.seeds.next() => {
                    let now = self.shared.now();
                    self.shared.node.borrow_mut().set_seeds(seeds, now);
                }
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep(deadline.saturating_sub(now)) => {}
            }
        }
    }

    /// Reads, then runs timers, then sends and publishes.
    fn turn(&mut self) {
        if self.shared.panicked.get() {
            // The panic itself was logged already.
            resume_unwind(Box::new("a stream has panicked"));
        }
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.shared.node.borrow_mut().set_unix(unix.as_secs());
        if self.datagrams.receive(&self.shared) {
            let now = self.shared.now();
            self.shared.node.borrow_mut().run_timers(now);
        }
        self.log_refused();
        self.send();
        self.waiters.answer(&self.shared);
        self.publication.publish(self.state, &self.shared);
    }

    fn log_refused(&self) {
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
                    "gossip: announcement refused: it is signed with agent key {other}, but its member announces with \
                     {bound}; either the holder of {other}'s token speaks for others, or two agents share an address"
                );
                continue;
            }
            warn!(%member, %cluster, reason, "gossip: announcement refused: {why}");
        }
    }

    fn send(&mut self) {
        let (packets, push_pulls) = {
            let mut node = self.shared.node.borrow_mut();
            (node.take_packets(), node.take_push_pulls())
        };
        for packet in packets {
            self.datagrams.send(&packet);
        }
        for member in push_pulls {
            self.streams.push_pull(member);
        }
    }

    /// The latest time of the next turn.
    fn next_deadline(&self, now: Time) -> Time {
        let node = self.shared.node.borrow();
        let mut deadline = self.publication.next_deadline(&node, now);
        if let Some(timer) = node.next_deadline() {
            deadline = deadline.min(timer);
        }
        if !self.waiters.is_empty() {
            deadline = deadline.min(now + Duration::from_millis(20));
        }
        deadline
    }

    fn execute(&mut self, command: MemberCommand) {
        let now = self.shared.now();
        match command {
            MemberCommand::Announce(record, answer) => {
                let announced = self.shared.node.borrow_mut().announce(record.clone(), now);
                if announced.is_ok() {
                    self.state.announced = Some(record);
                }
                let _ = answer.send(announced.map_err(|error| error.to_string()));
            }
            #[cfg(test)]
            MemberCommand::Fail => panic!("asked to fail"),
            MemberCommand::AwaitSent(answer) => self.waiters.add(answer, now),
            MemberCommand::Leave => self.leave(),
            MemberCommand::Update(update) => self.update(*update),
        }
    }

    fn leave(&mut self) {
        if self.leaving.is_none() {
            let now = self.shared.now();
            self.leaving = Some(now);
            self.shared.node.borrow_mut().leave(now);
        }
    }

    fn update(&mut self, update: MemberUpdate) {
        let MemberUpdate {
            settings,
            secrets,
            sockets,
            record,
        } = update;
        if record.is_some() {
            self.state.announced = record;
        }
        let before = std::mem::replace(&mut self.state.settings, settings);
        let (before, after) = (before, &self.state.settings);
        let same = before.peer_set.advertise == after.peer_set.advertise
            && before.peer_set.label == after.peer_set.label
            && before.role == after.role;
        let seeds = (!same || before.peer_set.seeds != after.peer_set.seeds)
            .then(|| Seeds::follow(&after.peer_set.seeds));
        if same {
            self.update_node(secrets);
        } else {
            self.replace_node(secrets);
        }
        if let Some(seeds) = seeds {
            self.seeds = seeds;
        }
        let Some(sockets) = sockets else { return };
        match sockets.register() {
            Ok((datagrams, listener)) => {
                info!(address = %self.state.settings.peer_set.address, "gossip: listening");
                self.datagrams.replace(datagrams);
                self.streams = PushPullStreams::start(Rc::clone(&self.shared), listener);
            }
            Err(error) => error!(%error, "gossip: cannot use the new sockets"),
        }
    }

    /// Continues as the same member, with other keys, tokens or another record.
    fn update_node(&self, secrets: Secrets) {
        let now = self.shared.now();
        let mut node = self.shared.node.borrow_mut();
        node.set_keyring(secrets.keyring);
        node.set_authority(secrets.authority, now);
        // The record comes first. Nothing is sent before the token has changed too.
        let announced = self.state.announced.clone();
        let announced = announced.map_or(Ok(()), |record| node.announce(record, now));
        if let Err(error) = announced {
            error!(%error, "gossip: cannot announce the changed service");
        }
        if let Err(error) = node.set_credential(secrets.credential, now) {
            error!(%error, "gossip: cannot use the new token; keeping the previous one");
        }
    }

    /// Continues as another member. The previous one leaves, as far as one packet to some members goes.
    fn replace_node(&mut self, secrets: Secrets) {
        let now = self.shared.now();
        self.shared.node.borrow_mut().leave(now);
        self.send();
        let mut node = node(&self.state.settings, secrets, now);
        node.set_quarantine(self.quarantine.clone());
        if let Some(record) = self.state.announced.clone() {
            // It was within the limits when it was made.
            let _ = node.announce(record, now);
        }
        *self.shared.node.borrow_mut() = node;
        self.publication.wait_for_join(now);
    }
}

/// A new run of a member, which starts at the wall clock's milliseconds; see [`crate::gossip::identity`].
fn node(settings: &MemberSettings, secrets: Secrets, now: Time) -> Node {
    let epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64;
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).expect("the system has random bytes");
    let settings = NodeSettings {
        identity: Identity::new(settings.peer_set.advertise, epoch, settings.role),
        keyring: secrets.keyring,
        label: settings.peer_set.label.clone(),
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
