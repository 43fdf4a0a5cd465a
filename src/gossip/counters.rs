//! What a member counts: packets, changes of members, and everything that it dropped, by reason.

use std::time::Duration;

use super::codec::CodecError;
use super::keyring::OpenError;
use super::records::RecordRefusal;
use super::token::TokenError;

/// Why something from the network is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// It could not be opened.
    Seal(OpenError),
    /// It is longer than a datagram may be.
    Oversized,
    /// It was opened, but is not a message.
    Malformed,
    /// It was seen before.
    Replayed,
    /// It comes from a run that is not the newest of its member.
    Stale,
    /// It claims to come from this member's own address.
    Own,
    /// It answers a challenge that was never sent.
    Echo,
    /// There is no room for more members or announcements.
    Limit,
    /// It is an announcement that made an earlier member on this thread panic.
    Quarantined,
    /// It is an announcement without a token, but one is required.
    NoToken,
    /// It is an announcement by another agent key than its member's.
    OtherAgent,
    /// It is an announcement of a member in whose name somebody else announces later versions.
    Outdone,
    /// It is an announcement whose token is invalid or does not permit it.
    Token(TokenError),
}

impl Dropped {
    /// All reasons.
    pub fn all() -> impl Iterator<Item = Self> {
        let seals = OpenError::ALL.into_iter().map(Self::Seal);
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

    /// Number of reasons.
    pub const COUNT: usize = OpenError::ALL.len() + 11 + TokenError::ALL.len();

    /// Index in [`Dropped::all`].
    pub fn index(self) -> usize {
        let seals = OpenError::ALL.len();
        match self {
            Self::Seal(error) => error as usize,
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

    /// Label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seal(error) => error.reason(),
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

impl From<CodecError> for Dropped {
    fn from(_: CodecError) -> Self {
        Self::Malformed
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

/// How often something was dropped for each reason, by [`Dropped::index`].
#[derive(Debug, Clone)]
pub struct Drops([u64; Dropped::COUNT]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; Dropped::COUNT])
    }
}

/// Counts since the start of the member.
#[derive(Debug, Clone, Default)]
pub struct GossipCounters {
    /// Datagrams sent.
    pub packets_out: u64,
    /// Bytes sent in datagrams.
    pub bytes_out: u64,
    /// Datagrams received, those that were dropped included.
    pub packets_in: u64,
    /// Bytes received in datagrams.
    pub bytes_in: u64,
    /// What was dropped.
    pub dropped: Drops,
    /// Challenges sent.
    pub challenges: u64,
    /// Members that became active here.
    pub ups: u64,
    /// Members that were active and went down here, those that left included.
    pub downs: u64,
    /// Members that became suspect here; counted only if changes are observed.
    pub suspicions: u64,
    /// Suspects that refuted; counted only if changes are observed.
    pub refutations: u64,
    /// How often this member was thought down and came back in another run.
    pub rejoins: u64,
    /// Push-pulls that succeeded.
    pub push_pulls: u64,
    /// Push-pulls that failed.
    pub push_pulls_failed: u64,
    /// Announcements that were news.
    pub news: u64,
    /// Sum of their ages on arrival, added up from member to member.
    pub news_age: Duration,
    /// The greatest lateness of a timer since the last `Node::take_lag`.
    pub latest_timer: Duration,
}

impl GossipCounters {
    /// Counts something that was dropped.
    pub fn drop(&mut self, why: Dropped) {
        self.dropped.0[why.index()] += 1;
    }

    /// How often something was dropped for this reason.
    pub fn dropped(&self, why: Dropped) -> u64 {
        self.dropped.0[why.index()]
    }
}
