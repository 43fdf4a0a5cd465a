//! Which announcements were refused, for people: that an agent is not used must be found without counting.
//!
//! Each member and reason is told once in ten minutes, and 256 of both are remembered at the most: while so many are,
//! others are counted only ([`Counters::dropped`](super::node::Counters::dropped)), so that who invents members fills
//! no log. Only what is known to be an announcement is told, since else nobody knows whose it is; one of a later run is
//! not, since it comes again when that run is known.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Duration;

use super::Time;
use super::identity::unpack_address;
use super::record::Announcement;
use super::records::RecordRefusal;

/// Members and reasons that are remembered.
const MOST: usize = 256;
/// The same is told again after; what has not come for so long is forgotten.
const TELL_AGAIN: Duration = Duration::from_secs(600);

/// An announcement that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// In whose name it was.
    pub member: SocketAddr,
    /// For which cluster: at most [`MAX_NAME`](super::record::MAX_NAME) bytes.
    pub cluster: String,
    /// Why.
    pub why: RecordRefusal,
    /// Of a conflict: ids of the agent key that its member announces by, and of the other one.
    pub agents: Option<(String, String)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    known: Vec<Known>,
    untold: Vec<Refused>,
}

#[derive(Debug)]
struct Known {
    member: [u8; 18],
    why: RecordRefusal,
    told: Time,
    last: Time,
    /// The member has announced nothing since that was accepted.
    stands: bool,
}

impl Refusals {
    /// An announcement was refused.
    pub(super) fn note(
        &mut self,
        bytes: &[u8],
        why: RecordRefusal,
        agents: Option<(String, String)>,
        now: Time,
    ) {
        match why {
            RecordRefusal::Malformed | RecordRefusal::LaterRun => return,
            RecordRefusal::Full
            | RecordRefusal::NoToken
            | RecordRefusal::OtherAgent
            | RecordRefusal::Outdone
            | RecordRefusal::Token(_) => {}
        }
        let Ok(read) = Announcement::decode(bytes) else {
            return;
        };
        let is_it = |known: &&mut Known| known.member == read.member && known.why == why;
        if let Some(known) = self.known.iter_mut().find(is_it) {
            (known.last, known.stands) = (now, true);
            if now.saturating_sub(known.told) < TELL_AGAIN {
                return;
            }
            known.told = now;
        } else {
            if self.known.len() >= MOST {
                self.known.retain(|known| known.is_recent(now));
            }
            if self.known.len() >= MOST {
                return;
            }
            self.known.push(Known {
                member: read.member,
                why,
                told: now,
                last: now,
                stands: true,
            });
        }
        if self.untold.len() < MOST {
            self.untold.push(Refused {
                member: unpack_address(&read.member),
                cluster: read.record.cluster,
                why,
                agents,
            });
        }
    }

    /// News of a member was accepted.
    pub(super) fn settle(&mut self, member: &[u8; 18]) {
        let of_it = |known: &&mut Known| known.member == *member;
        let all = self.known.iter_mut().filter(of_it);
        all.for_each(|known| known.stands = false);
    }

    /// What is to be told.
    pub(super) fn take(&mut self) -> Vec<Refused> {
        std::mem::take(&mut self.untold)
    }

    /// Members whose last announcement was refused, and why; sorted by address.
    pub(super) fn standing(&self, now: Time) -> Vec<(SocketAddr, RecordRefusal)> {
        let standing = |known: &&Known| known.stands && known.is_recent(now);
        let known = self.known.iter().filter(standing);
        let mut all: Vec<(SocketAddr, Time, RecordRefusal)> = known
            .map(|known| (unpack_address(&known.member), known.last, known.why))
            .collect();
        all.sort_by_key(|&(member, last, _)| (member, Reverse(last)));
        all.dedup_by_key(|(member, ..)| *member);
        all.into_iter()
            .map(|(member, _, why)| (member, why))
            .collect()
    }
}

impl Known {
    fn is_recent(&self, now: Time) -> bool {
        now.saturating_sub(self.last) < TELL_AGAIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::fixture::{address_of, record};
    use crate::gossip::identity::pack_address;
    use crate::gossip::record::ServiceState;
    use crate::gossip::token::TokenError;

    const EXPIRED: RecordRefusal = RecordRefusal::Token(TokenError::Expired);

    fn at(seconds: u64) -> Time {
        Duration::from_secs(seconds)
    }

    fn bytes(place: usize) -> Vec<u8> {
        let address = address_of(place);
        let record = record(address, 1, ServiceState::Ready);
        record.encode(&pack_address(address), 1, 1, &[]).unwrap()
    }

    fn note(refusals: &mut Refusals, place: usize, why: RecordRefusal, now: Time) -> usize {
        refusals.note(&bytes(place), why, None, now);
        refusals.take().len()
    }

    #[test]
    fn a_member_is_told_of_once_in_ten_minutes_for_each_reason() {
        let mut refusals = Refusals::default();
        refusals.note(&bytes(1), EXPIRED, None, at(0));
        let told = Refused {
            member: address_of(1),
            cluster: "web".to_owned(),
            why: EXPIRED,
            agents: None,
        };
        assert_eq!(refusals.take(), [told]);
        for (place, why, seconds, told) in [
            (1, EXPIRED, 0, 0),
            (1, EXPIRED, 599, 0),
            (1, RecordRefusal::NoToken, 599, 1),
            (2, EXPIRED, 599, 1),
            (1, EXPIRED, 600, 1),
            (1, EXPIRED, 601, 0),
            (3, RecordRefusal::LaterRun, 601, 0),
            (3, RecordRefusal::Full, 601, 1),
        ] {
            let count = note(&mut refusals, place, why, at(seconds));
            assert_eq!(count, told, "{place} {why} {seconds}");
        }
        refusals.note(b"no announcement", EXPIRED, None, at(602));
        assert!(refusals.take().is_empty());
    }

    #[test]
    fn who_invents_members_fills_neither_memory_nor_log() {
        let mut refusals = Refusals::default();
        for place in 0..1_000 {
            refusals.note(&bytes(place), EXPIRED, None, at(0));
        }
        assert_eq!(
            (refusals.known.len(), refusals.untold.len()),
            (MOST, MOST),
            "and what nobody takes stays as much"
        );
        refusals.take();
        assert_eq!(note(&mut refusals, 1_000, EXPIRED, at(599)), 0);
        assert_eq!(
            note(&mut refusals, 1_000, EXPIRED, at(600)),
            1,
            "room again"
        );
        assert_eq!(refusals.known.len(), 1);
    }

    #[test]
    fn what_stands_is_the_last_refusal_of_a_member_until_news_of_it_is_accepted() {
        let mut refusals = Refusals::default();
        note(&mut refusals, 2, RecordRefusal::NoToken, at(0));
        note(&mut refusals, 1, RecordRefusal::NoToken, at(0));
        note(&mut refusals, 1, EXPIRED, at(1));
        let (one, two) = (address_of(1), address_of(2));
        let both = [(one, EXPIRED), (two, RecordRefusal::NoToken)];
        assert_eq!(refusals.standing(at(2)), both);
        refusals.settle(&pack_address(one));
        assert_eq!(refusals.standing(at(2)), both[1..]);
        assert_eq!(
            note(&mut refusals, 1, EXPIRED, at(3)),
            0,
            "it is not told anew"
        );
        assert_eq!(refusals.standing(at(3)), both);
        assert_eq!(refusals.standing(at(602)), both[..1], "nor for ever");
    }
}
