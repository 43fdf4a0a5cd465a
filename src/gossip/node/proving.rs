//! By which agent key a member announces: asked of others, and proved to them. See [`proofs`](super::super::proofs).

use std::time::Duration;

use super::super::codec::{CHALLENGE_LEN, Kind, Prefix, take_array, take_identity};
use super::super::identity::{Identity, Role, unpack_address};
use super::super::proofs::{Held, Question};
use super::super::record::Announcement;
use super::super::records::RecordRefusal;
use super::super::token::{PUBLIC_LEN, SIGNATURE_LEN, agent_id, is_proved};
use super::receive::exactly;
use super::{Dropped, Node};

/// Members that are asked in a second.
const QUESTIONS: u32 = 500;
/// Proofs that are made in a second: each is a signature.
const PROOFS: u32 = 1_000;

impl Node {
    /// Asks the member of an announcement whether it announces by its key; until then it waits.
    pub(super) fn ask_for_proof(&mut self, bytes: &[u8], age: Duration, tell: bool) {
        let Ok(read) = Announcement::decode(bytes) else {
            return;
        };
        let Some(agent) = read.agent() else { return };
        let held = Held {
            run: self.run_at(&read.member, read.epoch),
            agent,
            bytes: bytes.to_vec(),
            age,
            tell,
        };
        let (challenge, now) = (self.random_bytes(), self.io.now);
        match self.proofs.wait_for(held, challenge, now) {
            Ok(Some(question)) => self.question(question),
            Ok(None) => {}
            Err(()) => self.io.counters.drop(Dropped::Limit),
        }
    }

    /// The run `epoch` of a member, in the role in which it is known.
    fn run_at(&self, member: &[u8; 18], epoch: u64) -> Identity {
        let mut members = self.swim.iter_membership_state();
        let known = members.find(|known| known.id().as_bytes().starts_with(member));
        let role = known.map_or(Role::Agent, |known| known.id().role());
        Identity::new(unpack_address(member), epoch, role)
    }

    fn question(&mut self, (run, challenge): Question) {
        if self.questions.take(self.io.now, QUESTIONS) {
            let rest: [&[u8]; 2] = [run.as_bytes(), &challenge];
            self.io.send(run.address(), Kind::Prove, &rest);
        }
    }

    /// Proves by which key this run announces, if it is the one that is asked.
    pub(super) fn prove(&mut self, prefix: &Prefix, mut rest: &[u8]) -> Result<(), Dropped> {
        let whom = take_identity(&mut rest)?;
        let challenge: [u8; CHALLENGE_LEN] = exactly(rest)?;
        let Some(credential) = &self.credential else {
            return Ok(());
        };
        if whom != self.io.identity {
            return Ok(());
        }
        if !self.proofs_made.take(self.io.now, PROOFS) {
            return Err(Dropped::Limit);
        }
        let signature = credential.prove(&self.label, &whom, &challenge);
        let rest: [&[u8]; 3] = [&challenge, credential.token().agent(), &signature];
        self.io.send(prefix.sender.address(), Kind::Proof, &rest);
        Ok(())
    }

    /// Takes a proof: what waited for it counts, or is in conflict with the key that is proved instead.
    pub(super) fn take_proof(&mut self, prefix: &Prefix, mut rest: &[u8]) -> Result<(), Dropped> {
        let challenge: [u8; CHALLENGE_LEN] = take_array(&mut rest)?;
        let agent: [u8; PUBLIC_LEN] = take_array(&mut rest)?;
        let signature: [u8; SIGNATURE_LEN] = exactly(rest)?;
        let run = prefix.sender;
        let waited = self.proofs.answered(&run, &challenge).cloned();
        let held = waited.ok_or(Dropped::Echo)?;
        if !is_proved(&agent, &self.label, &run, &challenge, &signature) {
            return Err(Dropped::Echo);
        }
        self.proofs.remove(&run, &held.agent);
        self.records.prove(run.key(), run.epoch(), agent);
        if agent == held.agent {
            self.take_record(&held.bytes, held.age, held.tell);
        } else {
            self.tell_conflict(&held);
        }
        Ok(())
    }

    /// Asks again whom it has asked, and tells what was never proved.
    pub(super) fn look_at_proofs(&mut self) {
        let (again, over) = self.proofs.look(self.io.now);
        again
            .into_iter()
            .for_each(|question| self.question(question));
        over.iter().for_each(|held| self.tell_conflict(held));
    }

    fn tell_conflict(&mut self, held: &Held) {
        self.io.counters.drop(Dropped::OtherAgent);
        let bound = self.records.bound(&held.run.key());
        let agents = bound.map(|(_, bound)| (agent_id(&bound), agent_id(&held.agent)));
        let why = RecordRefusal::OtherAgent;
        self.refusals.note(&held.bytes, why, agents, self.io.now);
    }
}
