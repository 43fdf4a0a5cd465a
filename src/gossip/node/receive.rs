//! What is done with a datagram.

use std::sync::Arc;
use std::time::Duration;

use foca::{Member, State};

use super::super::Time;
use super::super::codec::{
    self, CHALLENGE_LEN, CodecError, Kind, MEMBER_LEN, PREFIX_LEN, Prefix, SUSPECT, take_array,
    take_identity, take_u64,
};
use super::super::identity::{IDENTITY_LEN, Identity};
use super::super::replay::Verdict;
use super::super::tuning::MAX_DATAGRAM;
use super::io::{Due, Notice};
use super::{Budget, DATAGRAM, Dropped, Node};

/// Words to runs that are not the newest, in a second.
pub(super) const CORRECTIONS: u32 = 100;
/// Runs that are challenged in a second.
const CHALLENGES: u32 = 2_000;
/// Between two warnings of a suspect.
const WARN_EVERY: Duration = Duration::from_millis(1_500);

impl Node {
    /// Takes a datagram as it came from the network; it is opened in place.
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
        let keyring = Arc::clone(&self.io.keyring);
        let body = keyring.open(DATAGRAM, &[], packet).map_err(Dropped::Seal)?;
        let prefix = Prefix::read(body)?;
        if self.horizon.excludes(prefix.sender.epoch()) {
            return Err(Dropped::Malformed);
        }
        if prefix.sender.key() == self.identity().key() {
            // A reflection of what this run has sent, or anybody's who has the key: no sign of another run.
            return Err(Dropped::Own);
        }
        let rest = &body[PREFIX_LEN..];
        match prefix.kind {
            Kind::Challenge => self.answer(&prefix, rest),
            Kind::Echo => {
                let challenge = exactly::<CHALLENGE_LEN>(rest)?;
                let body = self
                    .contacts
                    .confirm(&prefix.sender, prefix.sequence, &challenge, now)
                    .ok_or(Dropped::Echo)?;
                let prefix = Prefix::read(&body)?;
                self.apply(&prefix, &body)
            }
            Kind::Prove => self.prove(&prefix, rest),
            Kind::Proof => self.take_proof(&prefix, rest),
            Kind::Swim | Kind::Records | Kind::Newer => {
                match self.contacts.judge(&prefix.sender, prefix.sequence, now) {
                    Verdict::Fresh => self.apply(&prefix, body),
                    Verdict::Replayed => Err(Dropped::Replayed),
                    Verdict::Stale(known) => {
                        if self.corrections.take(now, CORRECTIONS) {
                            self.tell_newer(&prefix.sender, known);
                        }
                        Err(Dropped::Stale)
                    }
                    Verdict::Unknown => self.challenge(prefix.sender, body, now),
                }
            }
        }
    }

    /// Tells a run that its address is known in another one, or in this very run as down.
    pub fn tell_newer(&mut self, run: &Identity, known: u64) {
        let rest: [&[u8]; 2] = [&run.epoch().to_be_bytes(), &known.to_be_bytes()];
        self.io.send(run.address(), Kind::Newer, &rest);
    }

    fn challenge(&mut self, sender: Identity, body: &[u8], now: Time) -> Result<(), Dropped> {
        let challenge = self.random_bytes();
        if let Some(challenge) = self.contacts.wait_for(sender, body, challenge, now) {
            // Only what is sent is paid for: a datagram that is played again and again costs a challenge now and then.
            if !self.challenges.take(now, CHALLENGES) {
                return Err(Dropped::Limit);
            }
            self.io.counters.challenges += 1;
            let rest: [&[u8]; 2] = [sender.as_bytes(), &challenge];
            self.io.send(sender.address(), Kind::Challenge, &rest);
        }
        Ok(())
    }

    /// Echoes a challenge that is for this very run.
    fn answer(&mut self, prefix: &Prefix, mut rest: &[u8]) -> Result<(), Dropped> {
        let whom = take_identity(&mut rest)?;
        let challenge = exactly::<CHALLENGE_LEN>(rest)?;
        if whom == self.identity() {
            let to = prefix.sender.address();
            self.io.send(to, Kind::Echo, &[&challenge]);
        } else if whom.key() == self.identity().key() {
            // Asked about another run at this address: a later one is somebody else's, or ours from before a clock
            // was set back.
            let fresh = self
                .contacts
                .judge(&prefix.sender, prefix.sequence, self.io.now);
            if fresh == Verdict::Fresh {
                self.hear_of(&prefix.sender, whom.epoch());
            }
        }
        Ok(())
    }

    /// A datagram of a run that is known to be live.
    fn apply(&mut self, prefix: &Prefix, body: &[u8]) -> Result<(), Dropped> {
        match prefix.kind {
            Kind::Swim => self.apply_swim(&prefix.sender, &body[PREFIX_LEN - IDENTITY_LEN..]),
            Kind::Records => self.apply_records(&prefix.sender, &body[PREFIX_LEN..]),
            Kind::Newer => {
                let (about, known) = read_newer(&body[PREFIX_LEN..])?;
                // A word about another run answers what that one has sent, perhaps by the hand of a recorder.
                if about == self.identity().epoch() {
                    self.hear_of(&prefix.sender, known);
                }
                Ok(())
            }
            Kind::Challenge | Kind::Echo | Kind::Prove | Kind::Proof => Ok(()),
        }
    }

    fn apply_swim(&mut self, sender: &Identity, data: &[u8]) -> Result<(), Dropped> {
        let members = codec::members_of(data)?;
        if data[IDENTITY_LEN + 2..].starts_with(self.identity().as_bytes()) {
            self.heard = true;
        }
        let known = self.swim.iter_membership_state().len();
        let told = members.map_or(0, |(_, count)| usize::from(count));
        let room = self.limits.members.saturating_sub(known);
        let budget = self
            .budget
            .left(self.io.now, self.limits.new_members)
            .min(room as u64);
        let mut kept = Vec::new();
        // The sender itself may be new too.
        let far = members.is_some_and(|(start, _)| self.tells_of_far_runs(&data[start..]));
        let data = if (told as u64) < budget && !far {
            data
        } else {
            if !self.knows(sender) && budget == 0 {
                return Err(Dropped::Limit);
            }
            kept = self.only_known(data, members, budget as usize);
            &kept
        };
        if let Some((start, _)) = members {
            self.look_at_told(sender, &data[start..]);
        }
        let result = self.swim.handle_data(data, &mut self.io);
        drop(kept);
        let new = self
            .swim
            .iter_membership_state()
            .len()
            .saturating_sub(known);
        self.budget.used = self.budget.used.saturating_add(new as u32);
        self.after_swim();
        self.tell_suspect(sender);
        // What foca finds wrong beyond the layout has no other cause than a confused peer.
        result.map_err(|_| Dropped::Malformed)
    }

    fn knows(&self, member: &Identity) -> bool {
        let key = member.key();
        self.swim
            .iter_membership_state()
            .any(|known| known.id().key() == key)
    }

    /// Whether one of these members is in a run that cannot be.
    fn tells_of_far_runs(&self, members: &[u8]) -> bool {
        let mut all = members.chunks_exact(MEMBER_LEN);
        all.any(|mut bytes| {
            codec::take_member(&mut bytes).is_ok_and(|m| self.horizon.excludes(m.id().epoch()))
        })
    }

    /// The message without members in runs that cannot be, and without those that are new, but for the first `room`.
    fn only_known(
        &mut self,
        data: &[u8],
        members: Option<(usize, u16)>,
        mut room: usize,
    ) -> Vec<u8> {
        let mut kept = data.to_vec();
        let Some((start, _)) = members else {
            return kept;
        };
        kept.truncate(start);
        let mut count = 0u16;
        for bytes in data[start..].chunks_exact(MEMBER_LEN) {
            let member = codec::take_member(&mut &*bytes);
            let far = member
                .as_ref()
                .is_ok_and(|member| self.horizon.excludes(member.id().epoch()));
            let known = member.map_or(true, |member| self.knows(member.id()));
            if far {
                self.io.counters.drop(Dropped::Malformed);
            } else if known || room > 0 {
                room -= usize::from(!known);
                count += 1;
                kept.extend_from_slice(bytes);
            } else {
                self.io.counters.drop(Dropped::Limit);
            }
        }
        kept[start - 2..start].copy_from_slice(&count.to_be_bytes());
        kept
    }

    /// Whether somebody speaks of a later run at the own address, or of suspects.
    fn look_at_told(&mut self, teller: &Identity, members: &[u8]) {
        let own = self.identity().key();
        for bytes in members.chunks_exact(MEMBER_LEN) {
            self.io.suspecting |= bytes[MEMBER_LEN - 1] == SUSPECT;
            if bytes.starts_with(&own)
                && let Ok(member) = codec::take_member(&mut &*bytes)
                && member.id().epoch() > self.identity().epoch()
            {
                self.hear_of(teller, member.id().epoch());
            }
        }
    }

    /// Tells a sender that it is suspect here, so that it can contradict in time: who was frozen hears of it from the
    /// first that it answers (the buddy system of Lifeguard, section IV.C).
    fn tell_suspect(&mut self, sender: &Identity) {
        if self.io.suspecting
            && let Some(suspect) = self.as_suspect(sender)
            && self.warnings.take(self.io.now, CORRECTIONS)
        {
            self.ping_suspect(&suspect);
        }
    }

    /// A member as it is known, if that is as suspect.
    pub(super) fn as_suspect(&self, run: &Identity) -> Option<Member<Identity>> {
        let mut members = self.swim.iter_membership_state();
        let suspect = members.find(|m| m.id() == run && m.state() == State::Suspect);
        suspect.cloned()
    }

    /// The answer comes in the incarnation that contradicts.
    fn ping_suspect(&mut self, suspect: &Member<Identity>) {
        if !self.io.leaving {
            let mut rest = Vec::with_capacity(IDENTITY_LEN + MEMBER_LEN + 6);
            codec::put_ping(suspect, &mut rest);
            let to = suspect.id().address();
            self.io.send(to, Kind::Swim, &[&rest]);
        }
    }

    /// Tells a member that this one suspects, and does so again while it does not contradict.
    pub(super) fn warn(&mut self, suspect: Identity, left: u8) {
        if let Some(known) = self.as_suspect(&suspect) {
            self.ping_suspect(&known);
            if left > 1 {
                self.io.after(WARN_EVERY, Due::Warn(suspect, left - 1));
            }
        }
    }

    /// Follows what foca has told.
    pub(super) fn after_swim(&mut self) {
        while !self.io.notices.is_empty() {
            for notice in std::mem::take(&mut self.io.notices) {
                self.dirty = true;
                self.churn += 1;
                match notice {
                    Notice::Up(member) => {
                        self.io.counters.ups += 1;
                        self.meet(member, false);
                    }
                    Notice::Renamed(member) => self.meet(member, true),
                    Notice::Down(member) => {
                        self.io.counters.downs += 1;
                        self.proxies.retain(|known| known.key() != member.key());
                    }
                    Notice::Rejoined(own) => self.in_new_run(own),
                }
            }
        }
    }

    /// Takes members that another one knows. Its word about itself and about this member counts only if it was found
    /// where it says (`believed`); else a datagram's challenge must show that, so it is called there. What is down there
    /// and active here is suspect, and is told, so that it comes back in another run if it lives; but if it has left,
    /// that was its own word.
    pub fn take_members(&mut self, peer: &Identity, believed: bool, told: Vec<Member<Identity>>) {
        let joining = !self.joined;
        let known: std::collections::HashMap<[u8; 18], (u64, u16, State)> = self
            .swim
            .iter_membership_state()
            .map(|m| (m.id().key(), (m.id().epoch(), m.incarnation(), m.state())))
            .collect();
        let mut room = self.limits.members.saturating_sub(known.len());
        let (own, now) = (self.identity(), self.io.now);
        let mut taken = Vec::with_capacity(told.len());
        let (mut parted, mut doubtful) = (false, false);
        for member in told {
            let id = *member.id();
            if id.key() == own.key() {
                let outdated = id.epoch() > own.epoch();
                if outdated || (id == own && member.state() == State::Down) {
                    doubtful |= !believed;
                    if believed {
                        self.hear_of(peer, id.epoch());
                    }
                }
                continue;
            }
            if self.horizon.excludes(id.epoch()) {
                self.io.counters.drop(Dropped::Malformed);
                continue;
            }
            match known.get(&id.key()) {
                None if member.state() == State::Down => {}
                None if id.key() == peer.key() && !believed => {}
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
                    if self.corrections.take(now, CORRECTIONS) {
                        self.tell_newer(&id, id.epoch());
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
        if doubtful && self.corrections.take(now, CORRECTIONS) {
            self.announce_to(peer.address());
        }
        if parted {
            // Both sides come back in other runs now, which each has yet to hear of from the other.
            self.compare_again(2, Some(peer.address()));
        }
    }

    pub(super) fn random_below(&mut self, bound: u32) -> u32 {
        use rand::RngExt;
        self.io.rng.random_range(0..bound.max(1))
    }
}

impl Budget {
    /// How much is left of `most` in this second.
    fn left(&mut self, now: Time, most: u32) -> u64 {
        if now.as_secs() != self.second {
            self.second = now.as_secs();
            self.used = 0;
        }
        u64::from(most.saturating_sub(self.used))
    }

    /// Takes one of `most`, if there is one left in this second.
    pub(super) fn take(&mut self, now: Time, most: u32) -> bool {
        let some = self.left(now, most) > 0;
        self.used += u32::from(some);
        some
    }
}

impl From<CodecError> for Dropped {
    fn from(_: CodecError) -> Self {
        Self::Malformed
    }
}

/// All of `rest`, which must be `N` bytes.
pub(super) fn exactly<const N: usize>(mut rest: &[u8]) -> Result<[u8; N], CodecError> {
    let bytes = take_array(&mut rest)?;
    if rest.is_empty() {
        Ok(bytes)
    } else {
        Err(CodecError::Trailing)
    }
}

/// The run that a word is about, and the one that is known.
fn read_newer(mut rest: &[u8]) -> Result<(u64, u64), CodecError> {
    let about = take_u64(&mut rest)?;
    Ok((about, u64::from_be_bytes(exactly(rest)?)))
}
