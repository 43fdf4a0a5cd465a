//! Remembers refused announcements for the log and the status, so that an operator sees that an agent is not used, and
//! why, without comparing counters.
//!
//! Each pair of member and reason is reported once in ten minutes. At most 256 pairs are remembered; while there are as
//! many, further refusals are only counted, so that a peer that invents members cannot flood the log. Bytes that are
//! not an announcement are not reported, since nobody knows whose they are; nor is an announcement of a later run,
//! since it comes again once that run is known.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Duration;

use super::Time;
use super::identity::{MemberKey, unpack_address};
use super::record::Announcement;
use super::records::RecordRefusal;

/// Pairs of member and reason that are remembered.
const CAPACITY: usize = 256;
/// A pair is reported again after this time; one that did not recur for as long is forgotten.
const REPORT_AGAIN: Duration = Duration::from_secs(600);

/// An announcement that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The member in whose name it was.
    pub member: SocketAddr,
    /// Its cluster, at most [`MAX_NAME`](super::record::MAX_NAME) bytes.
    pub cluster: String,
    /// Why it was refused.
    pub why: RecordRefusal,
    /// If two agents conflict: the id of the key that its member announces with, and that of the other key.
    pub agents: Option<(String, String)>,
}

/// Recent refusals; see the module.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    known: Vec<RefusalEntry>,
    unreported: Vec<Refused>,
}

#[derive(Debug)]
struct RefusalEntry {
    member: MemberKey,
    why: RecordRefusal,
    reported: Time,
    last: Time,
    /// Nothing of the member was accepted since.
    stands: bool,
}

impl Refusals {
    /// Notes that an announcement was refused.
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
        let is_it = |known: &&mut RefusalEntry| known.member == read.member && known.why == why;
        if let Some(known) = self.known.iter_mut().find(is_it) {
            (known.last, known.stands) = (now, true);
            if now.saturating_sub(known.reported) < REPORT_AGAIN {
                return;
            }
            known.reported = now;
        } else {
            if self.known.len() >= CAPACITY {
                self.known.retain(|known| known.is_recent(now));
            }
            if self.known.len() >= CAPACITY {
                return;
            }
            self.known.push(RefusalEntry {
                member: read.member,
                why,
                reported: now,
                last: now,
                stands: true,
            });
        }
        if self.unreported.len() < CAPACITY {
            self.unreported.push(Refused {
                member: unpack_address(&read.member),
                cluster: read.record.cluster,
                why,
                agents,
            });
        }
    }

    /// Notes that news of a member was accepted.
    pub(super) fn settle(&mut self, member: &MemberKey) {
        let of_it = |known: &&mut RefusalEntry| known.member == *member;
        let all = self.known.iter_mut().filter(of_it);
        all.for_each(|known| known.stands = false);
    }

    /// Takes the refusals that are to be reported.
    pub(super) fn take(&mut self) -> Vec<Refused> {
        std::mem::take(&mut self.unreported)
    }

    /// Members whose last announcement was refused, and why; sorted by address.
    pub(super) fn standing(&self, now: Time) -> Vec<(SocketAddr, RecordRefusal)> {
        let standing = |known: &&RefusalEntry| known.stands && known.is_recent(now);
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

impl RefusalEntry {
    fn is_recent(&self, now: Time) -> bool {
        now.saturating_sub(self.last) < REPORT_AGAIN
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
    fn a_member_is_reported_once_in_ten_minutes_for_each_reason() {
        let mut refusals = Refusals::default();
        refusals.note(&bytes(1), EXPIRED, None, at(0));
        let reported = Refused {
            member: address_of(1),
            cluster: "web".to_owned(),
            why: EXPIRED,
            agents: None,
        };
        assert_eq!(refusals.take(), [reported]);
        for (place, why, seconds, reported) in [
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
            assert_eq!(count, reported, "{place} {why} {seconds}");
        }
        refusals.note(b"not an announcement", EXPIRED, None, at(602));
        assert!(refusals.take().is_empty());
    }

    #[test]
    fn invented_members_fill_neither_memory_nor_log() {
        let mut refusals = Refusals::default();
        for place in 0..1_000 {
            refusals.note(&bytes(place), EXPIRED, None, at(0));
        }
        assert_eq!(
            (refusals.known.len(), refusals.unreported.len()),
            (CAPACITY, CAPACITY),
            "bounded even if nobody takes them"
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
            "it is not reported again"
        );
        assert_eq!(refusals.standing(at(3)), both);
        assert_eq!(
            refusals.standing(at(602)),
            both[..1],
            "and it does not stand for ever"
        );
    }
}
