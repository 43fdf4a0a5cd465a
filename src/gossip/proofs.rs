//! Announcements that wait until their member has proved that it announces with their agent key.
//!
//! The holder of a token for a cluster can sign in the name of every member that lives in its networks. So the member
//! is asked at its own address, with a challenge that nobody else sees, and signs its answer with the key that it has.
//! It is asked again every second. After three seconds without proof, what waits counts as a conflict with what the
//! member itself announces.

use std::time::Duration;

use super::Time;
use super::codec::CHALLENGE_LEN;
use super::ed25519::PublicKey;
use super::identity::Identity;

/// Most announcements that may wait.
const CAPACITY: usize = 256;
/// Time between two requests to the same run.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long a run has to prove its key.
const PROOF_TIMEOUT: Duration = Duration::from_secs(3);

/// An announcement as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnprovenRecord {
    /// The run to ask.
    pub run: Identity,
    /// The key that it is signed with.
    pub agent: PublicKey,
    pub bytes: Vec<u8>,
    pub age: Duration,
    /// Whether it is gossiped if it is accepted.
    pub gossip: bool,
}

/// A run to ask, and the challenge to send.
pub(super) type ProofRequest = (Identity, [u8; CHALLENGE_LEN]);

#[derive(Debug)]
struct PendingProof {
    record: UnprovenRecord,
    challenge: [u8; CHALLENGE_LEN],
    since: Time,
    asked: Time,
}

/// The announcements that wait; see the module.
#[derive(Debug, Default)]
pub(super) struct PendingProofs(Vec<PendingProof>);

impl PendingProofs {
    /// Stores an announcement until its member has answered; a newer one of the same run and key replaces an older one.
    /// Returns what to ask, or `None` if it was asked already; `Err` if there is no room.
    pub(super) fn wait_for(
        &mut self,
        record: UnprovenRecord,
        challenge: [u8; CHALLENGE_LEN],
        now: Time,
    ) -> Result<Option<ProofRequest>, ()> {
        let same = |pending: &&mut PendingProof| {
            pending.record.run == record.run && pending.record.agent == record.agent
        };
        if let Some(pending) = self.0.iter_mut().find(same) {
            pending.record = record;
            return Ok(None);
        }
        if self.0.len() >= CAPACITY {
            return Err(());
        }
        let request = (record.run, challenge);
        self.0.push(PendingProof {
            record,
            challenge,
            since: now,
            asked: now,
        });
        Ok(Some(request))
    }

    /// The announcement that waited for a run to answer this challenge.
    pub(super) fn answered(
        &mut self,
        run: &Identity,
        challenge: &[u8; CHALLENGE_LEN],
    ) -> Option<&mut UnprovenRecord> {
        let right = |pending: &&mut PendingProof| {
            pending.record.run == *run && pending.challenge == *challenge
        };
        let pending = self.0.iter_mut().find(right)?;
        Some(&mut pending.record)
    }

    /// Removes what waits for a run and a key.
    pub(super) fn remove(&mut self, run: &Identity, agent: &PublicKey) {
        self.0
            .retain(|pending| pending.record.run != *run || pending.record.agent != *agent);
    }

    /// Returns what to ask again, and takes what was never proved.
    pub(super) fn poll(&mut self, now: Time) -> (Vec<ProofRequest>, Vec<UnprovenRecord>) {
        let is_over = |pending: &PendingProof| now.saturating_sub(pending.since) >= PROOF_TIMEOUT;
        let over = self.0.extract_if(.., |pending| is_over(pending));
        let over = over.map(|pending| pending.record).collect();
        let due = |pending: &&mut PendingProof| now.saturating_sub(pending.asked) >= ASK_AGAIN;
        let again = self.0.iter_mut().filter(due).map(|pending| {
            pending.asked = now;
            (pending.record.run, pending.challenge)
        });
        (again.collect(), over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::ed25519::PUBLIC_LEN;
    use crate::gossip::identity::Role;

    fn at(millis: u64) -> Time {
        Duration::from_millis(millis)
    }

    fn record(port: u16, agent: u8) -> UnprovenRecord {
        UnprovenRecord {
            run: Identity::new(([10, 0, 0, 1], port).into(), 5, Role::Agent),
            agent: [agent; PUBLIC_LEN],
            bytes: vec![agent],
            age: Duration::ZERO,
            gossip: true,
        }
    }

    #[test]
    fn a_member_is_asked_every_second_and_given_up_after_three() {
        let mut proofs = PendingProofs::default();
        let request = (record(1, 7).run, [1; 16]);
        let asked = proofs.wait_for(record(1, 7), [1; 16], at(0));
        assert_eq!(asked, Ok(Some(request)));
        assert_eq!(proofs.wait_for(record(1, 7), [2; 16], at(10)), Ok(None));
        for (millis, again) in [(999, false), (1_000, true), (1_500, false), (2_000, true)] {
            let expected = again.then_some(request);
            let (asked, over) = proofs.poll(at(millis));
            assert_eq!(asked, Vec::from_iter(expected), "{millis}");
            assert!(over.is_empty(), "{millis}");
        }
        assert_eq!(proofs.poll(at(3_000)), (vec![], vec![record(1, 7)]));
        assert_eq!(proofs.poll(at(9_000)), (vec![], vec![]));
    }

    #[test]
    fn only_the_right_answer_is_one_and_what_waits_is_bounded() {
        let mut proofs = PendingProofs::default();
        for port in 1..=CAPACITY as u16 {
            assert!(proofs.wait_for(record(port, 7), [1; 16], at(0)).is_ok());
        }
        assert_eq!(proofs.wait_for(record(999, 7), [1; 16], at(0)), Err(()));
        assert_eq!(proofs.answered(&record(1, 7).run, &[2; 16]), None);
        assert_eq!(proofs.answered(&record(999, 7).run, &[1; 16]), None);
        let waited = proofs.answered(&record(1, 7).run, &[1; 16]);
        assert_eq!(waited.cloned(), Some(record(1, 7)));
        proofs.remove(&record(1, 7).run, &[7; PUBLIC_LEN]);
        assert_eq!(proofs.answered(&record(1, 7).run, &[1; 16]), None);
        assert!(proofs.wait_for(record(999, 7), [1; 16], at(0)).is_ok());
    }
}
