//! What foca and the rest of a member act through: packets out, timers, counters.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foca::{Notification, Timer};
use rand::Rng;
use rand::rngs::StdRng;

use super::super::Time;
use super::super::codec::{self, Kind, Prefix};
use super::super::identity::Identity;
use super::super::keyring::{Keyring, Refusal};
use super::super::records::RecordRefusal;
use super::super::token::TokenError;
use super::DATAGRAM;
use crate::model::timer_queue::TimerQueue;

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// To whom.
    pub to: SocketAddr,
    /// Sealed.
    pub bytes: Vec<u8>,
}

/// Why something from the network is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// Not opened.
    Seal(Refusal),
    /// Longer than a datagram may be.
    Oversized,
    /// Opened, but no message.
    Malformed,
    /// Seen already.
    Replayed,
    /// From a run that is not the newest of its member.
    Stale,
    /// From this member's own address.
    Own,
    /// An echo of nothing that was asked.
    Echo,
    /// More members or announcements than there is room for.
    Limit,
    /// An announcement that an earlier member at this place has failed of.
    Quarantined,
    /// An announcement without a token, where one is asked for.
    NoToken,
    /// An announcement by another agent key than its member's.
    OtherAgent,
    /// An announcement of a member in whose name somebody else announces later versions.
    Outdone,
    /// An announcement whose token is of no use for it.
    Token(TokenError),
}

impl Dropped {
    /// All reasons.
    pub fn all() -> impl Iterator<Item = Self> {
        let seals = Refusal::ALL.into_iter().map(Self::Seal);
        let plain = [
            Self::Oversized,
            Self::Malformed,
            Self::Replayed,
            Self::Stale,
            Self::Own,
            Self::Echo,
            Self::Limit,
            Self::Quarantined,
            Self::NoToken,
            Self::OtherAgent,
            Self::Outdone,
        ];
        let tokens = TokenError::ALL.into_iter().map(Self::Token);
        seals.chain(plain).chain(tokens)
    }

    /// How many reasons there are.
    pub const COUNT: usize = Refusal::ALL.len() + 11 + TokenError::ALL.len();

    /// Place among [`Dropped::all`].
    pub fn index(self) -> usize {
        let seals = Refusal::ALL.len();
        match self {
            Self::Seal(refusal) => refusal as usize,
            Self::Oversized => seals,
            Self::Malformed => seals + 1,
            Self::Replayed => seals + 2,
            Self::Stale => seals + 3,
            Self::Own => seals + 4,
            Self::Echo => seals + 5,
            Self::Limit => seals + 6,
            Self::Quarantined => seals + 7,
            Self::NoToken => seals + 8,
            Self::OtherAgent => seals + 9,
            Self::Outdone => seals + 10,
            Self::Token(error) => seals + 11 + error as usize,
        }
    }

    /// Label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seal(refusal) => refusal.reason(),
            Self::Oversized => "oversized",
            Self::Malformed => "malformed",
            Self::Replayed => "replayed",
            Self::Stale => "stale",
            Self::Own => "own_address",
            Self::Echo => "echo",
            Self::Limit => "limit",
            Self::Quarantined => "quarantined",
            Self::NoToken => "token",
            Self::OtherAgent => "other_agent",
            Self::Outdone => "outdone",
            Self::Token(error) => error.reason(),
        }
    }
}

impl From<RecordRefusal> for Dropped {
    fn from(refusal: RecordRefusal) -> Self {
        match refusal {
            RecordRefusal::Malformed => Self::Malformed,
            RecordRefusal::LaterRun => Self::Stale,
            RecordRefusal::Full => Self::Limit,
            RecordRefusal::NoToken => Self::NoToken,
            RecordRefusal::OtherAgent => Self::OtherAgent,
            RecordRefusal::Outdone => Self::Outdone,
            RecordRefusal::Token(error) => Self::Token(error),
        }
    }
}

/// How often each was dropped, by [`Dropped::index`].
#[derive(Debug, Clone)]
pub struct Drops([u64; Dropped::COUNT]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; Dropped::COUNT])
    }
}

/// What is counted, since the start.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Datagrams sent.
    pub packets_out: u64,
    /// Bytes of them.
    pub bytes_out: u64,
    /// Datagrams that came, dropped ones included.
    pub packets_in: u64,
    /// Bytes of them.
    pub bytes_in: u64,
    /// What was dropped.
    pub dropped: Drops,
    /// Challenges sent.
    pub challenges: u64,
    /// Members that became active here.
    pub ups: u64,
    /// Members that were active and are down here, those that left included.
    pub downs: u64,
    /// Members that became suspect here; only where changes are followed.
    pub suspicions: u64,
    /// Suspects that contradicted; only where changes are followed.
    pub refutations: u64,
    /// Times that this member was thought down and came back in another run.
    pub rejoins: u64,
    /// Comparisons of the whole state that succeeded.
    pub exchanges: u64,
    /// Those that failed.
    pub exchanges_failed: u64,
    /// Announcements that were news.
    pub news: u64,
    /// Sum of their age when they came, from member to member.
    pub news_age: Duration,
    /// The greatest lateness of a timer since the last [`Node::take_lag`](super::Node::take_lag).
    pub latest_timer: Duration,
}

impl Counters {
    /// Counts something dropped.
    pub fn drop(&mut self, why: Dropped) {
        self.dropped.0[why.index()] += 1;
    }

    /// How often something was dropped for this.
    pub fn dropped(&self, why: Dropped) -> u64 {
        self.dropped.0[why.index()]
    }
}

/// What a timer is for.
#[derive(Debug)]
pub(super) enum Due {
    Swim(Timer<Identity>),
    /// News to some.
    Spread,
    /// The own announcement to a proxy that is new, so many times yet.
    Greet(Identity, u8),
    /// The suspect is told that it is one, so many times yet.
    Warn(Identity, u8),
    Join,
    Reconcile,
    /// Compare states once more: with this member, or with any.
    Again(Option<SocketAddr>),
    Housekeep,
}

/// A member that this one suspects is told so often, since rumours may miss it.
const WARNINGS: u8 = 3;

/// What foca told.
#[derive(Debug)]
pub(super) enum Notice {
    Up(Identity),
    Down(Identity),
    Renamed(Identity),
    Rejoined(Identity),
}

pub(super) struct Io {
    pub identity: Identity,
    pub keyring: Arc<Keyring>,
    pub rng: StdRng,
    pub now: Time,
    pub packets: Vec<Packet>,
    pub notices: Vec<Notice>,
    pub counters: Counters,
    /// Nothing is sent.
    pub mute: bool,
    /// Some member may be suspect.
    pub suspecting: bool,
    /// This member has said that it leaves.
    pub leaving: bool,
    sequence: u64,
    timers: TimerQueue<Time, Due>,
    /// Members that went down in the last hour and when that has passed, the longest first.
    pub gone: VecDeque<(Time, Identity)>,
    /// Members that have been down for longer and when they are forgotten, the longest first.
    pub lost: VecDeque<(Time, Identity)>,
    body: Vec<u8>,
}

impl Io {
    pub(super) fn new(identity: Identity, keyring: Arc<Keyring>, rng: StdRng, now: Time) -> Self {
        Self {
            identity,
            keyring,
            rng,
            now,
            packets: Vec::new(),
            notices: Vec::new(),
            counters: Counters::default(),
            mute: false,
            suspecting: false,
            leaving: false,
            sequence: 0,
            timers: TimerQueue::default(),
            gone: VecDeque::new(),
            lost: VecDeque::new(),
            body: Vec::new(),
        }
    }

    pub(super) fn after(&mut self, delay: Duration, due: Due) {
        self.timers.add(self.now + delay, due);
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.timers.next_due()
    }

    /// How many timers wait, those of members that are to be forgotten included.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.timers.len() + self.gone.len() + self.lost.len()
    }

    /// The next timer that is due, and how late it is.
    pub(super) fn pop_due(&mut self) -> Option<(Due, Duration)> {
        let (at, due) = self.timers.pop_due(self.now)?;
        Some((due, self.now - at))
    }

    /// Sends a datagram of a kind of our own.
    pub(super) fn send(&mut self, to: SocketAddr, kind: Kind, rest: &[&[u8]]) {
        let sender = self.identity;
        self.seal(to, kind, |body| {
            body.extend_from_slice(sender.as_bytes());
            rest.iter().for_each(|part| body.extend_from_slice(part));
        });
    }

    fn seal(&mut self, to: SocketAddr, kind: Kind, fill: impl FnOnce(&mut Vec<u8>)) {
        if self.mute {
            return;
        }
        self.sequence += 1;
        self.body.clear();
        Prefix::write_start(kind, self.sequence, &mut self.body);
        fill(&mut self.body);
        let mut nonce = [0; 12];
        self.rng.fill_bytes(&mut nonce);
        let mut bytes = Vec::with_capacity(self.body.len() + self.keyring.overhead());
        self.keyring
            .seal(DATAGRAM, &[], nonce, &self.body, &mut bytes);
        self.counters.packets_out += 1;
        self.counters.bytes_out += bytes.len() as u64;
        self.packets.push(Packet { to, bytes });
    }
}

impl foca::Runtime<Identity> for Io {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        let notice = match notification {
            Notification::MemberUp(member) => Notice::Up(*member),
            Notification::MemberDown(member) => Notice::Down(*member),
            Notification::Rename(_, member) => Notice::Renamed(*member),
            Notification::Rejoin(own) => Notice::Rejoined(*own),
            // Alone, or no longer: the count of members says the same.
            Notification::Active | Notification::Idle | Notification::Defunct => return,
        };
        self.notices.push(notice);
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        // What foca wrote begins with the sender.
        let left = self.leaving.then_some(self.identity);
        self.seal(to.address(), Kind::Swim, |body| {
            let start = body.len();
            body.extend_from_slice(data);
            if let Some(own) = left {
                codec::mark_left(&mut body[start..], &own);
            }
        });
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        if let Timer::RemoveDown(member) = event {
            // All of them wait equally long, and that is too long for the heap of timers.
            self.gone.push_back((self.now + after, member));
            return;
        }
        if let Timer::ChangeSuspectToDown { member_id, .. } = event {
            self.suspecting = true;
            self.after(Duration::ZERO, Due::Warn(member_id, WARNINGS));
        }
        self.after(after, Due::Swim(event));
    }
}
