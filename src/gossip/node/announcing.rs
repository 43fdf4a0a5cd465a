//! Announcements of services on their way: the own one to proxies that come, news from proxy to proxy, and what others
//! announce into the store.

use std::time::Duration;

use super::super::codec::{CodecError, Kind, PREFIX_LEN, take, take_u16, take_u32};
use super::super::identity::{Identity, Role};
use super::super::record::Announcement;
use super::super::records::{RecordKey, RecordRefusal, Rules};
use super::super::tuning::{self, MAX_DATAGRAM};
use super::super::view::Announced;
use super::io::Due;
use super::receive::CORRECTIONS;
use super::{Dropped, Node, OVERHEAD};

/// So many versions may come before an earlier one, and by no more than [`ON_THE_WAY`].
const OVERTAKEN: u64 = 64;
/// How long what a member says may be on its way while a later word of it has come.
pub(in crate::gossip) const ON_THE_WAY: Duration = Duration::from_secs(1);
/// A new proxy is told of the own service so often.
const GREETINGS: u8 = 3;

impl Node {
    /// A member is active in this run. A renamed one counts only if it was active before: else it is told as up too.
    pub(super) fn meet(&mut self, member: Identity, renamed: bool) {
        if member.key() == self.identity().key() {
            return;
        }
        let place = self
            .proxies
            .iter()
            .position(|known| known.key() == member.key());
        if member.role() == Role::Agent {
            // It was a proxy in the run before.
            place.map(|place| self.proxies.swap_remove(place));
            return;
        }
        match place {
            Some(place) if self.proxies[place] != member => self.proxies[place] = member,
            None if !renamed => self.proxies.push(member),
            _ => return,
        }
        if self.own.is_some() {
            self.greet_later(member, GREETINGS);
        }
    }

    /// Plans to tell a proxy of the own service: the more members, the longer they wait, so that it is not flooded.
    fn greet_later(&mut self, proxy: Identity, left: u8) {
        let within = (self.active() as f64 / 2_000.0).clamp(0.05, 5.0);
        let wait = if left == GREETINGS { 0.0 } else { 1.0 };
        let random = f64::from(self.random_below(1_000)) / 1_000.0;
        let delay = Duration::from_secs_f64(wait + within * random);
        self.io.after(delay, Due::Greet(proxy, left));
    }

    pub(super) fn greet(&mut self, proxy: Identity, left: u8) {
        if self.own.is_none() || !self.proxies.contains(&proxy) {
            return;
        }
        let key = self.identity().key();
        let keys: Vec<RecordKey> = self.records.of(&key).map(|(key, _)| key).collect();
        self.send_records(&proxy, &mut keys.into_iter());
        if left > 1 {
            self.greet_later(proxy, left - 1);
        }
    }

    /// Tells news to some proxies.
    pub(super) fn spread(&mut self) {
        if self.proxies.is_empty() {
            // Proxies that come are greeted, and ask each other.
            self.rumours.clear();
        }
        for _ in 0..tuning::FANOUT.min(self.proxies.len()) {
            if self.rumours.is_empty() {
                break;
            }
            let place = self.random_below(self.proxies.len() as u32) as usize;
            let proxy = self.proxies[place];
            let mut told = Vec::new();
            let mut room = MAX_DATAGRAM - OVERHEAD - PREFIX_LEN;
            let records = &self.records;
            self.rumours.tell(|key| {
                let Some(stored) = records.get(key) else {
                    return true;
                };
                let length = stored.bytes.len() + 6;
                let fits = length <= room;
                if fits {
                    room -= length;
                    told.push(*key);
                }
                fits
            });
            self.send_records(&proxy, &mut told.into_iter());
        }
    }

    fn send_records(&mut self, to: &Identity, keys: &mut dyn Iterator<Item = RecordKey>) {
        let mut body = Vec::with_capacity(MAX_DATAGRAM);
        for key in keys {
            if let Some(stored) = self.records.get(&key) {
                put_record(&stored.bytes, stored.age(self.io.now), &mut body);
            }
        }
        if !body.is_empty() {
            self.io.send(to.address(), Kind::Records, &[&body]);
        }
    }

    pub(super) fn apply_records(
        &mut self,
        sender: &Identity,
        mut rest: &[u8],
    ) -> Result<(), Dropped> {
        while !rest.is_empty() {
            let (age, bytes) = take_record(&mut rest)?;
            if self.keeps_all() {
                self.take_record(bytes, age, true);
                self.tell_if_outdone(sender, bytes);
            }
        }
        Ok(())
    }

    /// A member announces in its own datagram what is known otherwise in the same version of its run or a later one: so
    /// somebody else announces in its name. It is told to go on in another run, in which its own word counts. An
    /// announcement may also have overtaken an earlier one on the way, but not for long.
    fn tell_if_outdone(&mut self, sender: &Identity, bytes: &[u8]) {
        let Ok(read) = Announcement::decode(bytes) else {
            return;
        };
        // Another agent's key is another matter.
        let bound = self.records.bound(&read.member);
        let other = bound.is_some_and(|(_, agent)| read.agent() != Some(agent));
        if read.member != sender.key() || read.epoch != sender.epoch() || other {
            return;
        }
        let now = self.io.now;
        let outdoes = |known: &Announced| {
            let ahead = known.version.checked_sub(read.version);
            let recent = now.saturating_sub(known.accepted) < ON_THE_WAY;
            let on_the_way = |ahead| ahead > 0 && ahead <= OVERTAKEN && recent;
            known.epoch == read.epoch
                && known.record.cluster == read.record.cluster
                && *known.record != read.record
                && ahead.is_some_and(|ahead| !on_the_way(ahead))
        };
        let mut known = self.records.of(&read.member);
        if known.any(|(_, stored)| outdoes(&stored.announced)) {
            drop(known);
            self.tell_outdone(sender, bytes);
        }
    }

    /// Tells a run, and people, that somebody else announces in its name.
    pub(in crate::gossip) fn tell_outdone(&mut self, run: &Identity, bytes: &[u8]) {
        let (why, now) = (RecordRefusal::Outdone, self.io.now);
        self.io.counters.drop(why.into());
        self.refusals.note(bytes, why, None, now);
        if self.corrections.take(now, CORRECTIONS) {
            self.tell_newer(run, run.epoch());
        }
    }

    /// Takes an announcement that was told; news is told on if `tell` says so.
    pub fn take_record(&mut self, bytes: &[u8], age: Duration, tell: bool) {
        if !self.quarantine.take_up(bytes) {
            return self.io.counters.drop(Dropped::Quarantined);
        }
        self.judge_record(bytes, age, tell);
        self.quarantine.put_down();
    }

    fn judge_record(&mut self, bytes: &[u8], age: Duration, tell: bool) {
        #[cfg(test)]
        if self.keeps_all() {
            super::super::quarantine::meet_bug(bytes);
        }
        let rules = Rules {
            authority: self.authority.as_ref(),
            label: &self.label,
            unix: self.unix,
        };
        let (own, swim, contacts) = (self.io.identity, &self.swim, &self.contacts);
        let run = |member: &[u8; 18]| {
            if *member == own.key() {
                return Some(own.epoch());
            }
            let mut members = swim.iter_membership_state();
            let known = members.find(|m| m.id().as_bytes().starts_with(member));
            known.map(|m| m.id().epoch()).max(contacts.run_of(member))
        };
        let live = || {
            let members = swim.iter_members().map(|member| member.id().key());
            members.chain([own.key()]).collect()
        };
        let now = self.io.now;
        match self.records.accept(bytes, age, now, &rules, run, live) {
            Ok(Some(key)) => {
                self.refusals.settle(&key.member);
                self.dirty = true;
                self.io.counters.news += 1;
                self.io.counters.news_age += age;
                if tell && !self.proxies.is_empty() {
                    let times = tuning::transmissions(self.proxies.len() + 1);
                    self.rumours.add(key, times.get());
                }
            }
            Ok(None) => {}
            Err(RecordRefusal::OtherAgent) => self.ask_for_proof(bytes, age, tell),
            Err(refusal) => {
                self.io.counters.drop(refusal.into());
                self.refusals.note(bytes, refusal, None, self.io.now);
            }
        }
    }
}

/// Writes an announcement with its age.
pub(in crate::gossip) fn put_record(bytes: &[u8], age: Duration, out: &mut Vec<u8>) {
    let age = u32::try_from(age.as_millis()).unwrap_or(u32::MAX);
    out.extend_from_slice(&age.to_be_bytes());
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Takes an announcement with its age.
pub(in crate::gossip) fn take_record<'a>(
    rest: &mut &'a [u8],
) -> Result<(Duration, &'a [u8]), CodecError> {
    let age = Duration::from_millis(u64::from(take_u32(rest)?));
    let length = take_u16(rest)?;
    let bytes = take(rest, usize::from(length))?;
    Ok((age, bytes))
}
