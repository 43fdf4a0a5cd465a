//! Handles datagrams and what they report of members.

use std::collections::HashMap;
use std::time::Duration;

use foca::{Member, State};

use super::super::Time;
use super::super::codec::{
    self, CHALLENGE_LEN, CodecError, DatagramKind, DatagramPrefix, MEMBER_LEN, PREFIX_LEN, SUSPECT,
    exactly, take_identity, take_u64,
};
use super::super::counters::Dropped;
use super::super::identity::{IDENTITY_LEN, Identity, MemberKey};
use super::super::replay::Freshness;
use super::super::tuning::MAX_DATAGRAM;
use super::io::{NodeTimer, SwimEvent};
use super::{DATAGRAM, Node};

/// Time between two notices to a suspect.
const NOTIFY_EVERY: Duration = Duration::from_millis(1_500);

impl Node {
    /// Takes a datagram from the network; it is opened in place.
    pub fn receive(&mut self, packet: &mut [u8], now: Time) {
        self.io.now = now;
        self.io.counters.packets_in += 1;
        self.io.counters.bytes_in += packet.len() as u64;
        if let Err(why) = self.judge(packet, now) {
            self.io.counters.drop(why);
        }
    }

    fn judge(&mut self, packet: &mut [u8], now: Time) -> Result<(), Dropped> {
        if packet.len() > MAX_DATAGRAM {
            return Err(Dropped::Oversized);
        }
        let keyring = self.keyring();
        let body = keyring.open(DATAGRAM, &[], packet).map_err(Dropped::Seal)?;
        let prefix = DatagramPrefix::read(body)?;
        if self.clock.horizon.excludes(prefix.sender.epoch()) {
            return Err(Dropped::Malformed);
        }
        if prefix.sender.key() == self.identity().key() {
            // It was reflected, or made by somebody who has the key. It does not prove that there is another run.
            return Err(Dropped::Own);
        }
        let rest = &body[PREFIX_LEN..];
        match prefix.kind {
            DatagramKind::Challenge => self.answer_challenge(&prefix, rest),
            DatagramKind::Echo => {
                let challenge = exactly::<CHALLENGE_LEN>(rest)?;
                let body = self
                    .contacts
                    .confirm(&prefix.sender, prefix.sequence, &challenge, now)
                    .ok_or(Dropped::Echo)?;
                let prefix = DatagramPrefix::read(&body)?;
                self.apply(&prefix, &body)
            }
            DatagramKind::Prove => self.prove(&prefix, rest),
            DatagramKind::Proof => self.take_proof(&prefix, rest),
            DatagramKind::Swim | DatagramKind::Records | DatagramKind::Newer => {
                match self.contacts.judge(&prefix.sender, prefix.sequence, now) {
                    Freshness::Fresh => self.apply(&prefix, body),
                    Freshness::Replayed => Err(Dropped::Replayed),
                    Freshness::Stale(known) => {
                        if self.rates.corrections.take(now) {
                            self.send_newer(&prefix.sender, known);
                        }
                        Err(Dropped::Stale)
                    }
                    Freshness::Unknown => self.challenge(prefix.sender, body, now),
                }
            }
        }
    }

    /// Tells a run that its address is known in another run, or that it is known as down.
    pub fn send_newer(&mut self, run: &Identity, known: u64) {
        let rest: [&[u8]; 2] = [&run.epoch().to_be_bytes(), &known.to_be_bytes()];
        self.io.send(run.address(), DatagramKind::Newer, &rest);
    }

    fn challenge(&mut self, sender: Identity, body: &[u8], now: Time) -> Result<(), Dropped> {
        let challenge = self.random_bytes();
        if let Some(challenge) = self.contacts.hold_for_echo(sender, body, challenge, now) {
            // Only what is sent counts: a datagram that is replayed again and again costs a challenge now and then.
            if !self.rates.challenges.take(now) {
                return Err(Dropped::Limit);
            }
            self.io.counters.challenges += 1;
            let rest: [&[u8]; 2] = [sender.as_bytes(), &challenge];
            self.io
                .send(sender.address(), DatagramKind::Challenge, &rest);
        }
        Ok(())
    }

    /// Echoes a challenge that is for this very run.
    fn answer_challenge(
        &mut self,
        prefix: &DatagramPrefix,
        mut rest: &[u8],
    ) -> Result<(), Dropped> {
        let whom = take_identity(&mut rest)?;
        let challenge = exactly::<CHALLENGE_LEN>(rest)?;
        if whom == self.identity() {
            let to = prefix.sender.address();
            self.io.send(to, DatagramKind::Echo, &[&challenge]);
        } else if whom.key() == self.identity().key() {
            // It asks about another run at this address. A later one is another member's, or ours from before the clock
            // was set back.
            let fresh = self
                .contacts
                .judge(&prefix.sender, prefix.sequence, self.io.now);
            if fresh == Freshness::Fresh {
                self.note_later_run(&prefix.sender, whom.epoch());
            }
        }
        Ok(())
    }

    /// Applies a datagram of a run that is known to be live.
    fn apply(&mut self, prefix: &DatagramPrefix, body: &[u8]) -> Result<(), Dropped> {
        match prefix.kind {
            DatagramKind::Swim => {
                self.apply_swim(&prefix.sender, &body[PREFIX_LEN - IDENTITY_LEN..])
            }
            DatagramKind::Records => self.receive_records(&prefix.sender, &body[PREFIX_LEN..]),
            DatagramKind::Newer => {
                let (about, known) = read_newer(&body[PREFIX_LEN..])?;
                // A report about another run answers what that run sent, which may have been replayed.
                if about == self.identity().epoch() {
                    self.note_later_run(&prefix.sender, known);
                }
                Ok(())
            }
            DatagramKind::Challenge
            | DatagramKind::Echo
            | DatagramKind::Prove
            | DatagramKind::Proof => Ok(()),
        }
    }

    fn apply_swim(&mut self, sender: &Identity, data: &[u8]) -> Result<(), Dropped> {
        let members = codec::members_of(data)?;
        if data[IDENTITY_LEN + 2..].starts_with(self.identity().as_bytes()) {
            self.joining.heard = true;
        }
        let known = self.members().len();
        let listed = members.map_or(0, |(_, count)| usize::from(count));
        let room = self.limits.members.saturating_sub(known);
        let left = self.rates.new_members.left(self.io.now) as usize;
        let room = left.min(room);
        let mut filtered = Vec::new();
        // The sender itself may be new too.
        let far = members.is_some_and(|(start, _)| self.lists_far_runs(&data[start..]));
        let data = if listed < room && !far {
            data
        } else {
            if !self.knows(sender) && room == 0 {
                return Err(Dropped::Limit);
            }
            filtered = self.filter_members(data, members, room);
            &filtered
        };
        if let Some((start, _)) = members {
            self.check_listed(sender, &data[start..]);
        }
        let result = self.swim.handle_data(data, &mut self.io);
        drop(filtered);
        let new = self.members().len().saturating_sub(known);
        self.rates.new_members.spend(new as u32);
        self.after_swim();
        self.notify_if_suspect(sender);
        // The layout is right, so whatever else foca refuses comes from a confused peer.
        result.map_err(|_| Dropped::Malformed)
    }

    fn knows(&self, member: &Identity) -> bool {
        self.member_at(&member.key()).is_some()
    }

    /// Whether one of these members is in an impossible run.
    fn lists_far_runs(&self, members: &[u8]) -> bool {
        let mut all = members.chunks_exact(MEMBER_LEN);
        all.any(|mut bytes| {
            codec::take_member(&mut bytes)
                .is_ok_and(|m| self.clock.horizon.excludes(m.id().epoch()))
        })
    }

    /// The message without members in impossible runs, and without new members after the first `room`.
    fn filter_members(
        &mut self,
        data: &[u8],
        members: Option<(usize, u16)>,
        mut room: usize,
    ) -> Vec<u8> {
        let mut filtered = data.to_vec();
        let Some((start, _)) = members else {
            return filtered;
        };
        filtered.truncate(start);
        let mut count = 0u16;
        for bytes in data[start..].chunks_exact(MEMBER_LEN) {
            let member = codec::take_member(&mut &*bytes);
            let far = member
                .as_ref()
                .is_ok_and(|member| self.clock.horizon.excludes(member.id().epoch()));
            let known = member.map_or(true, |member| self.knows(member.id()));
            if far {
                self.io.counters.drop(Dropped::Malformed);
            } else if known || room > 0 {
                room -= usize::from(!known);
                count += 1;
                filtered.extend_from_slice(bytes);
            } else {
                self.io.counters.drop(Dropped::Limit);
            }
        }
        filtered[start - 2..start].copy_from_slice(&count.to_be_bytes());
        filtered
    }

    /// Checks whether a sender lists suspects, or a later run at the own address.
    fn check_listed(&mut self, sender: &Identity, members: &[u8]) {
        let own = self.identity().key();
        for bytes in members.chunks_exact(MEMBER_LEN) {
            self.io.suspecting |= bytes[MEMBER_LEN - 1] == SUSPECT;
            if bytes.starts_with(&own)
                && let Ok(member) = codec::take_member(&mut &*bytes)
                && member.id().epoch() > self.identity().epoch()
            {
                self.note_later_run(sender, member.id().epoch());
            }
        }
    }

    /// Tells a sender that it is suspect here, so that it can refute in time: a member that was frozen learns it from
    /// the first member that it answers (the buddy system of Lifeguard, section IV.C).
    fn notify_if_suspect(&mut self, sender: &Identity) {
        if self.io.suspecting
            && let Some(suspect) = self.as_suspect(sender)
            && self.rates.suspicion_notices.take(self.io.now)
        {
            self.ping_suspect(&suspect);
        }
    }

    /// What is known of a run, if it is suspect.
    pub(super) fn as_suspect(&self, run: &Identity) -> Option<Member<Identity>> {
        let mut members = self.members();
        let suspect = members.find(|m| m.id() == run && m.state() == State::Suspect);
        suspect.cloned()
    }

    /// Pings a suspect; its answer comes in an incarnation that refutes.
    fn ping_suspect(&mut self, suspect: &Member<Identity>) {
        if !self.io.leaving {
            let mut rest = Vec::with_capacity(IDENTITY_LEN + MEMBER_LEN + 6);
            codec::put_ping(suspect, &mut rest);
            let to = suspect.id().address();
            self.io.send(to, DatagramKind::Swim, &[&rest]);
        }
    }

    /// Tells a member that it is suspect here, and repeats that while it does not refute.
    pub(super) fn notify_suspect(&mut self, suspect: Identity, left: u8) {
        if let Some(known) = self.as_suspect(&suspect) {
            self.ping_suspect(&known);
            if left > 1 {
                let again = NodeTimer::NotifySuspect(suspect, left - 1);
                self.io.after(NOTIFY_EVERY, again);
            }
        }
    }

    /// Handles the events that foca reported.
    pub(super) fn after_swim(&mut self) {
        while !self.io.events.is_empty() {
            for event in std::mem::take(&mut self.io.events) {
                self.observer.dirty = true;
                self.push_pulls.churn += 1;
                match event {
                    SwimEvent::Up(member) => {
                        self.io.counters.ups += 1;
                        self.member_active(member, false);
                    }
                    SwimEvent::Renamed(member) => self.member_active(member, true),
                    SwimEvent::Down(member) => {
                        self.io.counters.downs += 1;
                        self.member_inactive(&member);
                    }
                    SwimEvent::Rejoined(own) => self.in_new_run(own),
                }
            }
        }
    }

    /// Takes over members that a peer knows.
    ///
    /// What the peer says about itself and about this member counts only if the peer was reached at its address
    /// (`verified`); otherwise a challenge must show that first, so the peer is called there. A member that is down
    /// there and active here becomes suspect, and is told so, so that it comes back in another run if it is alive;
    /// unless it has left, which it has said itself.
    pub fn merge_members(
        &mut self,
        peer: &Identity,
        verified: bool,
        theirs: Vec<Member<Identity>>,
    ) {
        let joining = !self.joining.joined;
        let known: HashMap<MemberKey, (u64, u16, State)> = self
            .members()
            .map(|m| (m.id().key(), (m.id().epoch(), m.incarnation(), m.state())))
            .collect();
        let mut room = self.limits.members.saturating_sub(known.len());
        let (own, now) = (self.identity(), self.io.now);
        let mut taken = Vec::with_capacity(theirs.len());
        let (mut parted, mut doubtful) = (false, false);
        for member in theirs {
            let id = *member.id();
            if id.key() == own.key() {
                let outdated = id.epoch() > own.epoch();
                if outdated || (id == own && member.state() == State::Down) {
                    doubtful |= !verified;
                    if verified {
                        self.note_later_run(peer, id.epoch());
                    }
                }
                continue;
            }
            if self.clock.horizon.excludes(id.epoch()) {
                self.io.counters.drop(Dropped::Malformed);
                continue;
            }
            match known.get(&id.key()) {
                None if member.state() == State::Down => {}
                None if id.key() == peer.key() && !verified => {}
                None if room == 0 => self.io.counters.drop(Dropped::Limit),
                None => {
                    room -= 1;
                    taken.push(member);
                }
                Some(&(epoch, incarnation, state))
                    if member.state() == State::Down
                        && !codec::has_left(&member)
                        && state != State::Down
                        && epoch == id.epoch() =>
                {
                    taken.push(Member::new(id, incarnation, State::Suspect));
                    if self.rates.corrections.take(now) {
                        self.send_newer(&id, id.epoch());
                    }
                    parted = true;
                }
                Some(_) => taken.push(member),
            }
        }
        let _ = self
            .swim
            .apply_many(taken.into_iter(), !joining, &mut self.io);
        self.after_swim();
        self.io.suspecting = true;
        if doubtful && self.rates.corrections.take(now) {
            self.announce_to(peer.address());
        }
        if parted {
            // Both sides now come back in other runs, which each still has to learn from the other.
            self.plan_extra_push_pulls(2, Some(peer.address()));
        }
    }
}

/// Reads the run that a report is about, and the run that is known instead.
fn read_newer(mut rest: &[u8]) -> Result<(u64, u64), CodecError> {
    let about = take_u64(&mut rest)?;
    Ok((about, u64::from_be_bytes(exactly(rest)?)))
}
