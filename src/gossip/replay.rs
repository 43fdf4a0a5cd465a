//! Protects against replayed datagrams: knows which runs have proved to be live, and which of their datagrams were
//! seen.
//!
//! A datagram names its sender's run and carries a sequence number. A run that is not known yet must echo a challenge
//! before anything of it is applied, so a recorded datagram cannot bring back a member that has gone; its first
//! datagram waits for the echo. From then on a window of 64 sequence numbers tells which were seen, as in RFC 4303
//! (section 3.4.3). The wall clock plays no part.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::Time;
use super::codec::CHALLENGE_LEN;
use super::identity::{Identity, MemberKey};

/// Most runs that may wait for their echo; the one that waits longest is dropped first.
const MAX_PENDING: usize = 1024;
/// How long a run has to send its echo.
const ECHO_TIMEOUT: Duration = Duration::from_secs(3);
/// Least time between two challenges of a run.
const CHALLENGE_EVERY: Duration = Duration::from_millis(200);

/// Whether a datagram is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// It is new, and may be applied.
    Fresh,
    /// It was seen before, or is too old to tell.
    Replayed,
    /// The sender is known in a later run, which is given.
    Stale(u64),
    /// The sender's run has not proved to be live.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
struct Contact {
    epoch: u64,
    highest: u64,
    /// Bit i is set if `highest - i` was seen.
    window: u64,
    seen: Time,
}

#[derive(Debug)]
struct PendingContact {
    challenge: [u8; CHALLENGE_LEN],
    asked: Time,
    first: Time,
    body: Vec<u8>,
}

/// The runs that have proved to be live; see the module.
#[derive(Debug)]
pub(crate) struct Contacts {
    known: HashMap<MemberKey, Contact>,
    /// By run, so that a replayed datagram of an old run does not displace that of the live one.
    pending: HashMap<Identity, PendingContact>,
    /// Keys of `pending` by age; some may be gone already.
    by_age: VecDeque<(Identity, Time)>,
    capacity: usize,
}

impl Contacts {
    /// Knows nobody yet, and at most `capacity` members at a time.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            known: HashMap::new(),
            pending: HashMap::new(),
            by_age: VecDeque::new(),
            capacity: capacity.max(1),
        }
    }

    /// Judges a datagram, and marks its sequence number as seen.
    pub(crate) fn judge(&mut self, sender: &Identity, sequence: u64, now: Time) -> Freshness {
        let Some(contact) = self.known.get_mut(&sender.key()) else {
            return Freshness::Unknown;
        };
        match sender.epoch().cmp(&contact.epoch) {
            std::cmp::Ordering::Less => Freshness::Stale(contact.epoch),
            std::cmp::Ordering::Greater => Freshness::Unknown,
            std::cmp::Ordering::Equal if contact.mark(sequence) => {
                contact.seen = now;
                Freshness::Fresh
            }
            std::cmp::Ordering::Equal => Freshness::Replayed,
        }
    }

    /// Stores the body of an unknown run's datagram until that run has echoed `challenge`; a newer body replaces an
    /// older one. Returns the challenge to send, or `None` if the run was challenged a moment ago.
    pub(crate) fn hold_for_echo(
        &mut self,
        sender: Identity,
        body: &[u8],
        challenge: [u8; CHALLENGE_LEN],
        now: Time,
    ) -> Option<[u8; CHALLENGE_LEN]> {
        self.expire(now);
        if let Some(pending) = self.pending.get_mut(&sender) {
            pending.body.clear();
            pending.body.extend_from_slice(body);
            if now.saturating_sub(pending.asked) < CHALLENGE_EVERY {
                return None;
            }
            pending.asked = now;
            return Some(pending.challenge);
        }
        while self.by_age.len() >= MAX_PENDING {
            match self.by_age.pop_front() {
                Some((oldest, since)) => self.remove_pending(&oldest, since),
                None => break,
            }
        }
        self.pending.insert(
            sender,
            PendingContact {
                challenge,
                asked: now,
                first: now,
                body: body.to_vec(),
            },
        );
        self.by_age.push_back((sender, now));
        Some(challenge)
    }

    /// Takes an echo; returns the body that waited for it if it is the right one. The echo's own sequence number opens
    /// the window, and nothing before it counts as new.
    pub(crate) fn confirm(
        &mut self,
        sender: &Identity,
        sequence: u64,
        challenge: &[u8; CHALLENGE_LEN],
        now: Time,
    ) -> Option<Vec<u8>> {
        self.expire(now);
        let right = self
            .pending
            .get(sender)
            .is_some_and(|w| w.challenge == *challenge);
        if !right {
            return None;
        }
        let pending = self.pending.remove(sender)?;
        // Lower numbers may be replayed: only what comes after the echo is known to be new.
        self.admit(sender, sequence, u64::MAX, now);
        Some(pending.body)
    }

    /// Makes a run known without a challenge, for simulations that begin in the middle.
    pub(super) fn assume(&mut self, run: &Identity, now: Time) {
        self.admit(run, 0, 1, now);
    }

    fn admit(&mut self, run: &Identity, sequence: u64, window: u64, now: Time) {
        self.make_room();
        self.known.insert(
            run.key(),
            Contact {
                epoch: run.epoch(),
                highest: sequence,
                window,
                seen: now,
            },
        );
    }

    /// The run in which a member has proved to be live.
    pub(crate) fn run_of(&self, member: &MemberKey) -> Option<u64> {
        self.known.get(member).map(|contact| contact.epoch)
    }

    /// The number of runs that wait for their echo.
    #[cfg(test)]
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The number of members that are known.
    #[cfg(test)]
    pub(crate) fn known(&self) -> usize {
        self.known.len()
    }

    fn expire(&mut self, now: Time) {
        while let Some(&(key, since)) = self.by_age.front() {
            if now.saturating_sub(since) < ECHO_TIMEOUT {
                break;
            }
            self.by_age.pop_front();
            self.remove_pending(&key, since);
        }
    }

    fn remove_pending(&mut self, key: &Identity, since: Time) {
        if self.pending.get(key).is_some_and(|p| p.first == since) {
            self.pending.remove(key);
        }
    }

    /// When the store is full, forgets the quarter of the members that were silent longest. O(known), amortised O(1).
    fn make_room(&mut self) {
        if self.known.len() < self.capacity {
            return;
        }
        let mut times: Vec<Time> = self.known.values().map(|contact| contact.seen).collect();
        let quarter = times.len() / 4;
        let (_, &mut bound, _) = times.select_nth_unstable(quarter);
        self.known.retain(|_, contact| contact.seen > bound);
    }
}

impl Contact {
    /// Marks a sequence number; false if it was seen before or is too old.
    fn mark(&mut self, sequence: u64) -> bool {
        if sequence > self.highest {
            let ahead = sequence - self.highest;
            self.window = if ahead < 64 { self.window << ahead } else { 0 } | 1;
            self.highest = sequence;
            return true;
        }
        let behind = self.highest - sequence;
        if behind >= 64 || self.window & (1 << behind) != 0 {
            return false;
        }
        self.window |= 1 << behind;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::identity::Role;

    const NOW: Time = Duration::from_secs(9);
    const CHALLENGE: [u8; CHALLENGE_LEN] = [7; CHALLENGE_LEN];

    fn identity(port: u16, epoch: u64) -> Identity {
        Identity::new(([10, 0, 0, 1], port).into(), epoch, Role::Agent)
    }

    fn known(sequence: u64) -> Contacts {
        let mut contacts = Contacts::new(10);
        contacts.hold_for_echo(identity(1, 5), b"first", CHALLENGE, NOW);
        let body = contacts.confirm(&identity(1, 5), sequence, &CHALLENGE, NOW);
        assert_eq!(body.as_deref(), Some(&b"first"[..]));
        contacts
    }

    #[test]
    fn each_number_passes_once() {
        let mut contacts = known(100);
        for (sequence, freshness) in [
            (100, Freshness::Replayed),
            (101, Freshness::Fresh),
            (101, Freshness::Replayed),
            (99, Freshness::Replayed),
            (164, Freshness::Fresh),
            (101, Freshness::Replayed),
            (102, Freshness::Fresh),
            (102, Freshness::Replayed),
            (100, Freshness::Replayed),
            (u64::MAX, Freshness::Fresh),
            (164, Freshness::Replayed),
            (u64::MAX - 63, Freshness::Fresh),
            (u64::MAX - 64, Freshness::Replayed),
        ] {
            assert_eq!(
                contacts.judge(&identity(1, 5), sequence, NOW),
                freshness,
                "{sequence}"
            );
        }
    }

    #[test]
    fn another_run_must_prove_itself_again_and_an_old_one_cannot() {
        let mut contacts = known(1);
        assert_eq!(
            contacts.judge(&identity(1, 4), 999, NOW),
            Freshness::Stale(5)
        );
        assert_eq!(contacts.judge(&identity(1, 6), 1, NOW), Freshness::Unknown);
        assert_eq!(contacts.judge(&identity(2, 5), 1, NOW), Freshness::Unknown);
    }

    #[test]
    fn only_the_right_echo_counts_and_only_in_time() {
        let mut contacts = Contacts::new(10);
        let run = identity(1, 5);
        assert_eq!(
            contacts.hold_for_echo(run, b"a", CHALLENGE, NOW),
            Some(CHALLENGE)
        );
        assert_eq!(contacts.hold_for_echo(run, b"b", [9; 16], NOW), None);
        assert_eq!(contacts.confirm(&run, 1, &[9; 16], NOW), None);
        assert_eq!(contacts.confirm(&identity(1, 6), 1, &CHALLENGE, NOW), None);
        let later = NOW + Duration::from_millis(300);
        assert_eq!(
            contacts.hold_for_echo(run, b"c", [9; 16], later),
            Some(CHALLENGE),
            "asked again, with the same challenge"
        );
        assert_eq!(
            contacts.confirm(&run, 1, &CHALLENGE, later).as_deref(),
            Some(&b"c"[..])
        );
        assert_eq!(contacts.confirm(&run, 2, &CHALLENGE, later), None, "once");
        contacts.hold_for_echo(identity(2, 5), b"a", CHALLENGE, NOW);
        let late = NOW + ECHO_TIMEOUT;
        assert_eq!(contacts.confirm(&identity(2, 5), 1, &CHALLENGE, late), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut contacts = Contacts::new(100);
        for port in 1..=20_000u16 {
            let now = NOW + Duration::from_micros(u64::from(port));
            contacts.hold_for_echo(identity(port, 1), b"x", CHALLENGE, now);
            assert!(contacts.pending() <= MAX_PENDING && contacts.by_age.len() <= MAX_PENDING);
        }
        for port in 1..=20_000u16 {
            let now = NOW + Duration::from_micros(20_000 + u64::from(port));
            contacts.hold_for_echo(identity(port, 2), b"x", CHALLENGE, now);
            contacts.confirm(&identity(port, 2), 1, &CHALLENGE, now);
            assert!(contacts.known() <= 100 && contacts.by_age.len() <= MAX_PENDING);
        }
        let last = NOW + Duration::from_secs(1);
        assert_eq!(
            contacts.judge(&identity(20_000, 2), 2, last),
            Freshness::Fresh,
            "the newest stay"
        );
    }
}
