//! Announcements that wait until their member has proved that it announces by their agent key.
//!
//! Whoever holds a token for a cluster can sign in the name of every member that lives in its networks. So the member
//! is asked at its own address, with a challenge that nobody else gets to see, and its answer is signed by the key that
//! it has. It is asked again each second, and after three what waits is in conflict with what it announces itself.

use std::time::Duration;

use super::Time;
use super::codec::CHALLENGE_LEN;
use super::identity::Identity;
use super::token::PUBLIC_LEN;

/// Announcements that wait, at the most.
const MOST: usize = 256;
/// Between two questions for the same.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long an answer is waited for.
const WITHIN: Duration = Duration::from_secs(3);

/// An announcement, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// Whom to ask.
    pub run: Identity,
    /// The key that it is signed by.
    pub agent: [u8; PUBLIC_LEN],
    pub bytes: Vec<u8>,
    pub age: Duration,
    pub tell: bool,
}

/// What to send, and to whom.
pub(super) type Question = (Identity, [u8; CHALLENGE_LEN]);

#[derive(Debug)]
struct Waiting {
    held: Held,
    challenge: [u8; CHALLENGE_LEN],
    since: Time,
    asked: Time,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Proofs(Vec<Waiting>);

impl Proofs {
    /// Keeps an announcement until its member has answered; the newest of a run and a key stays. What to ask, unless it
    /// was asked a moment ago; `Err` if there is no place.
    pub(super) fn wait_for(
        &mut self,
        held: Held,
        challenge: [u8; CHALLENGE_LEN],
        now: Time,
    ) -> Result<Option<Question>, ()> {
        let same = |w: &&mut Waiting| w.held.run == held.run && w.held.agent == held.agent;
        if let Some(waiting) = self.0.iter_mut().find(same) {
            waiting.held = held;
            return Ok(None);
        }
        if self.0.len() >= MOST {
            return Err(());
        }
        let question = (held.run, challenge);
        self.0.push(Waiting {
            held,
            challenge,
            since: now,
            asked: now,
        });
        Ok(Some(question))
    }

    /// What waited for the answer of a run to this challenge.
    pub(super) fn answered(
        &mut self,
        run: &Identity,
        challenge: &[u8; CHALLENGE_LEN],
    ) -> Option<&mut Held> {
        let right = |w: &&mut Waiting| w.held.run == *run && w.challenge == *challenge;
        self.0
            .iter_mut()
            .find(right)
            .map(|waiting| &mut waiting.held)
    }

    /// Lets go of what waits for a run and a key.
    pub(super) fn remove(&mut self, run: &Identity, agent: &[u8; PUBLIC_LEN]) {
        self.0
            .retain(|w| w.held.run != *run || w.held.agent != *agent);
    }

    /// What is to be asked again, and what was asked in vain.
    pub(super) fn look(&mut self, now: Time) -> (Vec<Question>, Vec<Held>) {
        let is_over = |w: &Waiting| now.saturating_sub(w.since) >= WITHIN;
        let over = self.0.extract_if(.., |waiting| is_over(waiting));
        let over = over.map(|waiting| waiting.held).collect();
        let due = |w: &&mut Waiting| now.saturating_sub(w.asked) >= ASK_AGAIN;
        let again = self.0.iter_mut().filter(due).map(|waiting| {
            waiting.asked = now;
            (waiting.held.run, waiting.challenge)
        });
        (again.collect(), over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::identity::Role;

    fn at(millis: u64) -> Time {
        Duration::from_millis(millis)
    }

    fn held(place: u16, agent: u8) -> Held {
        Held {
            run: Identity::new(([10, 0, 0, 1], place).into(), 5, Role::Agent),
            agent: [agent; PUBLIC_LEN],
            bytes: vec![agent],
            age: Duration::ZERO,
            tell: true,
        }
    }

    #[test]
    fn a_member_is_asked_each_second_and_given_up_after_three() {
        let mut proofs = Proofs::default();
        let question = (held(1, 7).run, [1; 16]);
        let asked = proofs.wait_for(held(1, 7), [1; 16], at(0));
        assert_eq!(asked, Ok(Some(question)));
        assert_eq!(proofs.wait_for(held(1, 7), [2; 16], at(10)), Ok(None));
        for (millis, again) in [(999, false), (1_000, true), (1_500, false), (2_000, true)] {
            let expected = again.then_some(question);
            let (asked, over) = proofs.look(at(millis));
            assert_eq!(asked, Vec::from_iter(expected), "{millis}");
            assert!(over.is_empty(), "{millis}");
        }
        assert_eq!(proofs.look(at(3_000)), (vec![], vec![held(1, 7)]));
        assert_eq!(proofs.look(at(9_000)), (vec![], vec![]));
    }

    #[test]
    fn only_the_right_answer_is_one_and_what_waits_is_bounded() {
        let mut proofs = Proofs::default();
        for place in 1..=MOST as u16 {
            assert!(proofs.wait_for(held(place, 7), [1; 16], at(0)).is_ok());
        }
        assert_eq!(proofs.wait_for(held(999, 7), [1; 16], at(0)), Err(()));
        assert_eq!(proofs.answered(&held(1, 7).run, &[2; 16]), None);
        assert_eq!(proofs.answered(&held(999, 7).run, &[1; 16]), None);
        let waited = proofs.answered(&held(1, 7).run, &[1; 16]);
        assert_eq!(waited.cloned(), Some(held(1, 7)));
        proofs.remove(&held(1, 7).run, &[7; PUBLIC_LEN]);
        assert_eq!(proofs.answered(&held(1, 7).run, &[1; 16]), None);
        assert!(proofs.wait_for(held(999, 7), [1; 16], at(0)).is_ok());
    }
}
