//! Asks other members to prove the key that they announce with, and proves it to them; see
//! [`proofs`](super::super::proofs).

use std::time::Duration;

use super::super::codec::{
    CHALLENGE_LEN, DatagramKind, DatagramPrefix, exactly, take_array, take_identity,
};
use super::super::counters::Dropped;
use super::super::ed25519::{PublicKey, Signature};
use super::super::identity::{Identity, MemberKey, Role, unpack_address};
use super::super::proofs::{ProofRequest, UnprovenRecord};
use super::super::record::Announcement;
use super::super::records::RecordRefusal;
use super::super::token::{agent_id, is_proved};
use super::Node;

impl Node {
    /// Asks the member of an announcement whether it announces with its key; the announcement waits for the answer.
    pub(super) fn ask_for_proof(&mut self, bytes: &[u8], age: Duration, gossip: bool) {
        let Ok(read) = Announcement::decode(bytes) else {
            return;
        };
        let Some(agent) = read.agent() else { return };
        let record = UnprovenRecord {
            run: self.run_at(&read.member, read.epoch),
            agent,
            bytes: bytes.to_vec(),
            age,
            gossip,
        };
        let (challenge, now) = (self.random_bytes(), self.io.now);
        let proofs = &mut self.announcements.proofs;
        match proofs.wait_for(record, challenge, now) {
            Ok(Some(request)) => self.request_proof(request),
            Ok(None) => {}
            Err(()) => self.io.counters.drop(Dropped::Limit),
        }
    }

    /// The run `epoch` of a member, in the role in which it is known.
    fn run_at(&self, member: &MemberKey, epoch: u64) -> Identity {
        let known = self.member_at(member);
        let role = known.map_or(Role::Agent, |known| known.id().role());
        Identity::new(unpack_address(member), epoch, role)
    }

    fn request_proof(&mut self, (run, challenge): ProofRequest) {
        if self.rates.proof_requests.take(self.io.now) {
            let rest: [&[u8]; 2] = [run.as_bytes(), &challenge];
            self.io.send(run.address(), DatagramKind::Prove, &rest);
        }
    }

    /// Proves the key that this run announces with, if it is the run that is asked.
    pub(super) fn prove(
        &mut self,
        prefix: &DatagramPrefix,
        mut rest: &[u8],
    ) -> Result<(), Dropped> {
        let whom = take_identity(&mut rest)?;
        let challenge: [u8; CHALLENGE_LEN] = exactly(rest)?;
        let Some(credential) = &self.announcements.credential else {
            return Ok(());
        };
        if whom != self.io.identity {
            return Ok(());
        }
        if !self.rates.proofs.take(self.io.now) {
            return Err(Dropped::Limit);
        }
        let signature = credential.prove(&self.announcements.label, &whom, &challenge);
        let rest: [&[u8]; 3] = [&challenge, credential.token().agent(), &signature];
        self.io
            .send(prefix.sender.address(), DatagramKind::Proof, &rest);
        Ok(())
    }

    /// Takes a proof. The announcement that waited for it is accepted, or conflicts with the key that is proved
    /// instead.
    pub(super) fn take_proof(
        &mut self,
        prefix: &DatagramPrefix,
        mut rest: &[u8],
    ) -> Result<(), Dropped> {
        let challenge: [u8; CHALLENGE_LEN] = take_array(&mut rest)?;
        let agent: PublicKey = take_array(&mut rest)?;
        let signature: Signature = exactly(rest)?;
        let run = prefix.sender;
        let state = &mut self.announcements;
        let waited = state.proofs.answered(&run, &challenge).cloned();
        let record = waited.ok_or(Dropped::Echo)?;
        if !is_proved(&agent, &state.label, &run, &challenge, &signature) {
            return Err(Dropped::Echo);
        }
        state.proofs.remove(&run, &record.agent);
        state.records.prove(run.key(), run.epoch(), agent);
        if agent == record.agent {
            self.accept_record(&record.bytes, record.age, record.gossip);
        } else {
            self.report_conflict(&record);
        }
        Ok(())
    }

    /// Repeats requests that were not answered, and reports what was never proved.
    pub(super) fn poll_proofs(&mut self) {
        let (again, over) = self.announcements.proofs.poll(self.io.now);
        for request in again {
            self.request_proof(request);
        }
        for record in over {
            self.report_conflict(&record);
        }
    }

    fn report_conflict(&mut self, record: &UnprovenRecord) {
        self.io.counters.drop(Dropped::OtherAgent);
        let bound = self.announcements.records.bound(&record.run.key());
        let agents = bound.map(|(_, bound)| (agent_id(&bound), agent_id(&record.agent)));
        let why = RecordRefusal::OtherAgent;
        let refusals = &mut self.announcements.refusals;
        refusals.note(&record.bytes, why, agents, self.io.now);
    }
}
