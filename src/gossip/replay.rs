//! Who has proved to be live, and which of their datagrams were seen.
//!
//! A datagram's sender says which run it is and how far it has counted. A run that is not known yet is asked to echo
//! a challenge before anything of it is applied, so that no recorded datagram brings back who has gone; its first
//! datagram waits for the echo. From then on a window of 64 tells which numbers were seen, as that of RFC 4303
//! (section 3.4.3). No clock of the world is looked at.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::Time;
use super::codec::CHALLENGE_LEN;
use super::identity::Identity;

/// Runs that wait for their echo, at the most; the longest waiting goes first.
const MOST_WAITING: usize = 1024;
/// How long an echo is waited for.
const ECHO_WITHIN: Duration = Duration::from_secs(3);
/// A run is asked again at the earliest after.
const ASK_AGAIN: Duration = Duration::from_millis(200);

type Key = [u8; 18];

/// What is to be done with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is new: apply it.
    Fresh,
    /// It was seen, or is too old to tell.
    Replayed,
    /// A later run of the sender is known: this one.
    Stale(u64),
    /// The run has not proved to be live.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
struct Contact {
    epoch: u64,
    highest: u64,
    /// Bit i: `highest - i` was seen.
    window: u64,
    seen: Time,
}

#[derive(Debug)]
struct Waiting {
    challenge: [u8; CHALLENGE_LEN],
    asked: Time,
    first: Time,
    body: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Contacts {
    known: HashMap<Key, Contact>,
    /// Each run by itself, so that what a recorder plays of an old one does not take the place of the live one.
    waiting: HashMap<Identity, Waiting>,
    /// Keys of `waiting` by age; may hold some that are gone.
    line: VecDeque<(Identity, Time)>,
    most: usize,
}

impl Contacts {
    /// Knows nobody, and at most `most` at a time.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            known: HashMap::new(),
            waiting: HashMap::new(),
            line: VecDeque::new(),
            most: most.max(1),
        }
    }

    /// Judges a datagram and marks its number as seen.
    pub(crate) fn judge(&mut self, sender: &Identity, sequence: u64, now: Time) -> Verdict {
        let Some(contact) = self.known.get_mut(&sender.key()) else {
            return Verdict::Unknown;
        };
        match sender.epoch().cmp(&contact.epoch) {
            std::cmp::Ordering::Less => Verdict::Stale(contact.epoch),
            std::cmp::Ordering::Greater => Verdict::Unknown,
            std::cmp::Ordering::Equal if contact.mark(sequence) => {
                contact.seen = now;
                Verdict::Fresh
            }
            std::cmp::Ordering::Equal => Verdict::Replayed,
        }
    }

    /// Keeps the body of an unknown run's datagram until it has echoed `challenge`. The challenge to send, unless the
    /// run was asked a moment ago: the newest body waits in place of the one before.
    pub(crate) fn wait_for(
        &mut self,
        sender: Identity,
        body: &[u8],
        challenge: [u8; CHALLENGE_LEN],
        now: Time,
    ) -> Option<[u8; CHALLENGE_LEN]> {
        self.expire(now);
        if let Some(waiting) = self.waiting.get_mut(&sender) {
            waiting.body.clear();
            waiting.body.extend_from_slice(body);
            if now.saturating_sub(waiting.asked) < ASK_AGAIN {
                return None;
            }
            waiting.asked = now;
            return Some(waiting.challenge);
        }
        while self.line.len() >= MOST_WAITING {
            match self.line.pop_front() {
                Some((oldest, since)) => self.remove_waiting(&oldest, since),
                None => break,
            }
        }
        self.waiting.insert(
            sender,
            Waiting {
                challenge,
                asked: now,
                first: now,
                body: body.to_vec(),
            },
        );
        self.line.push_back((sender, now));
        Some(challenge)
    }

    /// Takes an echo: the body that waited for it, if it is the right one. The echo's own number opens the window, behind
    /// which nothing is new.
    pub(crate) fn confirm(
        &mut self,
        sender: &Identity,
        sequence: u64,
        challenge: &[u8; CHALLENGE_LEN],
        now: Time,
    ) -> Option<Vec<u8>> {
        self.expire(now);
        let right = self
            .waiting
            .get(sender)
            .is_some_and(|w| w.challenge == *challenge);
        if !right {
            return None;
        }
        let waiting = self.waiting.remove(sender)?;
        // What was numbered before may be a recorder's: only what comes after the echo is known to be new.
        self.admit(sender, sequence, u64::MAX, now);
        Some(waiting.body)
    }

    /// Knows a run that nothing was heard of yet, for simulations that begin in the middle.
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
    pub(crate) fn run_of(&self, member: &Key) -> Option<u64> {
        self.known.get(member).map(|contact| contact.epoch)
    }

    /// How many wait for their echo.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many are known.
    #[cfg(test)]
    pub(crate) fn known(&self) -> usize {
        self.known.len()
    }

    fn expire(&mut self, now: Time) {
        while let Some(&(key, since)) = self.line.front() {
            if now.saturating_sub(since) < ECHO_WITHIN {
                break;
            }
            self.line.pop_front();
            self.remove_waiting(&key, since);
        }
    }

    fn remove_waiting(&mut self, key: &Identity, since: Time) {
        if self.waiting.get(key).is_some_and(|w| w.first == since) {
            self.waiting.remove(key);
        }
    }

    /// Forgets the quarter that was silent longest when all places are taken: O(known), once in so many.
    fn make_room(&mut self) {
        if self.known.len() < self.most {
            return;
        }
        let mut times: Vec<Time> = self.known.values().map(|contact| contact.seen).collect();
        let quarter = times.len() / 4;
        let (_, &mut bound, _) = times.select_nth_unstable(quarter);
        self.known.retain(|_, contact| contact.seen > bound);
    }
}

impl Contact {
    /// Marks a number; false if it was seen or is too old.
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
        contacts.wait_for(identity(1, 5), b"first", CHALLENGE, NOW);
        let body = contacts.confirm(&identity(1, 5), sequence, &CHALLENGE, NOW);
        assert_eq!(body.as_deref(), Some(&b"first"[..]));
        contacts
    }

    #[test]
    fn each_number_passes_once() {
        let mut contacts = known(100);
        for (sequence, verdict) in [
            (100, Verdict::Replayed),
            (101, Verdict::Fresh),
            (101, Verdict::Replayed),
            (99, Verdict::Replayed),
            (164, Verdict::Fresh),
            (101, Verdict::Replayed),
            (102, Verdict::Fresh),
            (102, Verdict::Replayed),
            (100, Verdict::Replayed),
            (u64::MAX, Verdict::Fresh),
            (164, Verdict::Replayed),
            (u64::MAX - 63, Verdict::Fresh),
            (u64::MAX - 64, Verdict::Replayed),
        ] {
            assert_eq!(
                contacts.judge(&identity(1, 5), sequence, NOW),
                verdict,
                "{sequence}"
            );
        }
    }

    #[test]
    fn another_run_proves_itself_anew_and_an_old_one_cannot() {
        let mut contacts = known(1);
        assert_eq!(contacts.judge(&identity(1, 4), 999, NOW), Verdict::Stale(5));
        assert_eq!(contacts.judge(&identity(1, 6), 1, NOW), Verdict::Unknown);
        assert_eq!(contacts.judge(&identity(2, 5), 1, NOW), Verdict::Unknown);
    }

    #[test]
    fn only_the_right_echo_counts_and_only_in_time() {
        let mut contacts = Contacts::new(10);
        let run = identity(1, 5);
        assert_eq!(
            contacts.wait_for(run, b"a", CHALLENGE, NOW),
            Some(CHALLENGE)
        );
        assert_eq!(contacts.wait_for(run, b"b", [9; 16], NOW), None);
        assert_eq!(contacts.confirm(&run, 1, &[9; 16], NOW), None);
        assert_eq!(contacts.confirm(&identity(1, 6), 1, &CHALLENGE, NOW), None);
        let later = NOW + Duration::from_millis(300);
        assert_eq!(
            contacts.wait_for(run, b"c", [9; 16], later),
            Some(CHALLENGE),
            "asked again, by the same challenge"
        );
        assert_eq!(
            contacts.confirm(&run, 1, &CHALLENGE, later).as_deref(),
            Some(&b"c"[..])
        );
        assert_eq!(contacts.confirm(&run, 2, &CHALLENGE, later), None, "once");
        contacts.wait_for(identity(2, 5), b"a", CHALLENGE, NOW);
        let late = NOW + ECHO_WITHIN;
        assert_eq!(contacts.confirm(&identity(2, 5), 1, &CHALLENGE, late), None);
    }

    #[test]
    fn the_crowd_is_bounded() {
        let mut contacts = Contacts::new(100);
        for port in 1..=20_000u16 {
            let now = NOW + Duration::from_micros(u64::from(port));
            contacts.wait_for(identity(port, 1), b"x", CHALLENGE, now);
            assert!(contacts.waiting() <= MOST_WAITING && contacts.line.len() <= MOST_WAITING);
        }
        for port in 1..=20_000u16 {
            let now = NOW + Duration::from_micros(20_000 + u64::from(port));
            contacts.wait_for(identity(port, 2), b"x", CHALLENGE, now);
            contacts.confirm(&identity(port, 2), 1, &CHALLENGE, now);
            assert!(contacts.known() <= 100 && contacts.line.len() <= MOST_WAITING);
        }
        let last = NOW + Duration::from_secs(1);
        assert_eq!(
            contacts.judge(&identity(20_000, 2), 2, last),
            Verdict::Fresh,
            "the newest stay"
        );
    }
}
