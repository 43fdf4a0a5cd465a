//! What foca and the rest of a member act through: packets to send, timers, events, counters.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foca::{Notification, Timer};
use rand::Rng;
use rand::rngs::StdRng;

use super::super::Time;
use super::super::codec::{self, DatagramKind, DatagramPrefix};
use super::super::counters::GossipCounters;
use super::super::identity::Identity;
use super::super::keyring::Keyring;
use super::DATAGRAM;
use crate::model::timer_queue::TimerQueue;

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The receiver.
    pub to: SocketAddr,
    /// The sealed bytes.
    pub bytes: Vec<u8>,
}

/// What a timer is for.
#[derive(Debug)]
pub(super) enum NodeTimer {
    /// One of foca's own timers.
    Swim(Timer<Identity>),
    /// Gossips news to some proxies.
    Gossip,
    /// Sends the own announcement to a new proxy; so many times are left.
    Greet(Identity, u8),
    /// Tells a suspect that it is suspect; so many times are left.
    NotifySuspect(Identity, u8),
    /// Calls other members until this one has joined and is heard.
    Join,
    /// Push-pulls with some member.
    PushPull,
    /// Push-pulls once more: with this member, or with any.
    ExtraPushPull(Option<SocketAddr>),
    /// Runs once a second.
    Housekeep,
}

/// How often a member is told that it is suspect here, since gossip may not reach it.
const SUSPICION_NOTICES: u8 = 3;

/// What foca reported.
#[derive(Debug)]
pub(super) enum SwimEvent {
    Up(Identity),
    Down(Identity),
    Renamed(Identity),
    Rejoined(Identity),
}

/// foca's runtime, and everything else that a member acts through.
pub(super) struct Io {
    pub identity: Identity,
    pub now: Time,
    pub rng: StdRng,
    pub counters: GossipCounters,
    pub outbox: Outbox,
    pub events: Vec<SwimEvent>,
    pub departed: Departed,
    timers: TimerQueue<Time, NodeTimer>,
    /// Some member may be suspect.
    pub suspecting: bool,
    /// This member has announced that it leaves.
    pub leaving: bool,
}

/// Seals the datagrams to send.
pub(super) struct Outbox {
    pub keyring: Arc<Keyring>,
    /// Nothing is sent while this is set.
    pub mute: bool,
    pub packets: Vec<Packet>,
    /// Number of the last datagram of this run.
    sequence: u64,
    body: Vec<u8>,
}

/// Members that went down, by when they are looked at next, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Departed {
    /// Down for less than an hour, and when that hour is over.
    pub recent: VecDeque<(Time, Identity)>,
    /// Down for longer, and when they are forgotten.
    pub lost: VecDeque<(Time, Identity)>,
}

impl Io {
    pub(super) fn new(identity: Identity, keyring: Arc<Keyring>, rng: StdRng, now: Time) -> Self {
        Self {
            identity,
            now,
            rng,
            counters: GossipCounters::default(),
            outbox: Outbox {
                keyring,
                mute: false,
                packets: Vec::new(),
                sequence: 0,
                body: Vec::new(),
            },
            events: Vec::new(),
            departed: Departed::default(),
            timers: TimerQueue::default(),
            suspecting: false,
            leaving: false,
        }
    }

    /// Sets a timer.
    pub(super) fn after(&mut self, delay: Duration, timer: NodeTimer) {
        self.timers.add(self.now + delay, timer);
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.timers.next_due()
    }

    /// The number of timers, those of departed members included.
    #[cfg(test)]
    pub(super) fn timers(&self) -> usize {
        self.timers.len() + self.departed.recent.len() + self.departed.lost.len()
    }

    /// Takes the next timer that is due, and how late it is.
    pub(super) fn pop_due(&mut self) -> Option<(NodeTimer, Duration)> {
        let (at, timer) = self.timers.pop_due(self.now)?;
        Some((timer, self.now - at))
    }

    /// Sends a datagram of one of our own kinds.
    pub(super) fn send(&mut self, to: SocketAddr, kind: DatagramKind, rest: &[&[u8]]) {
        let sender = self.identity;
        self.seal(to, kind, |body| {
            body.extend_from_slice(sender.as_bytes());
            rest.iter().for_each(|part| body.extend_from_slice(part));
        });
    }

    fn seal(&mut self, to: SocketAddr, kind: DatagramKind, fill: impl FnOnce(&mut Vec<u8>)) {
        let outbox = &mut self.outbox;
        if outbox.mute {
            return;
        }
        outbox.sequence += 1;
        outbox.body.clear();
        DatagramPrefix::write_start(kind, outbox.sequence, &mut outbox.body);
        fill(&mut outbox.body);
        let mut nonce = [0; 12];
        self.rng.fill_bytes(&mut nonce);
        let mut bytes = Vec::with_capacity(outbox.body.len() + outbox.keyring.overhead());
        outbox
            .keyring
            .seal(DATAGRAM, &[], nonce, &outbox.body, &mut bytes);
        self.counters.packets_out += 1;
        self.counters.bytes_out += bytes.len() as u64;
        outbox.packets.push(Packet { to, bytes });
    }
}

impl foca::Runtime<Identity> for Io {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        let event = match notification {
            Notification::MemberUp(member) => SwimEvent::Up(*member),
            Notification::MemberDown(member) => SwimEvent::Down(*member),
            Notification::Rename(_, member) => SwimEvent::Renamed(*member),
            Notification::Rejoin(own) => SwimEvent::Rejoined(*own),
            // Whether this member is alone follows from the number of members.
            Notification::Active | Notification::Idle | Notification::Defunct => return,
        };
        self.events.push(event);
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        // What foca wrote begins with the sender.
        let left = self.leaving.then_some(self.identity);
        self.seal(to.address(), DatagramKind::Swim, |body| {
            let start = body.len();
            body.extend_from_slice(data);
            if let Some(own) = left {
                codec::mark_left(&mut body[start..], &own);
            }
        });
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        if let Timer::RemoveDown(member) = event {
            // These all wait for the same long time, so a queue is enough.
            self.departed.recent.push_back((self.now + after, member));
            return;
        }
        if let Timer::ChangeSuspectToDown { member_id, .. } = event {
            self.suspecting = true;
            let notice = NodeTimer::NotifySuspect(member_id, SUSPICION_NOTICES);
            self.after(Duration::ZERO, notice);
        }
        self.after(after, NodeTimer::Swim(event));
    }
}
