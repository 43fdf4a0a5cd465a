//! Announcements of services: this member's own one, sent to new proxies and gossiped among proxies, and those of
//! others, which are judged and stored.

use std::time::Duration;

use super::super::Time;
use super::super::broadcasts::Broadcasts;
use super::super::codec::{DatagramKind, PREFIX_LEN, put_record, take_record};
use super::super::counters::Dropped;
use super::super::identity::{Identity, MemberKey, Role};
use super::super::keyring::OVERHEAD;
use super::super::proofs::PendingProofs;
use super::super::quarantine::Quarantine;
use super::super::record::{Announced, Announcement, MAX_VERSION, Record, RecordError};
use super::super::records::{RecordKey, RecordPolicy, RecordRefusal, Records};
use super::super::refusals::Refusals;
use super::super::token::{AgentCredential, Authority};
use super::super::tuning::{self, MAX_DATAGRAM, REORDERING};
use super::Node;
use super::io::NodeTimer;

/// By how many versions an announcement may overtake an earlier one, within [`REORDERING`].
const MAX_OVERTAKEN: u64 = 64;
/// How often the own announcement is sent to a new proxy.
const GREETINGS: u8 = 3;

/// What this member announces and what it knows of others' announcements.
#[derive(Debug)]
pub(super) struct Announcements {
    /// Label of the set, which signatures cover.
    pub label: String,
    /// Whose tokens count; absent: everybody may announce.
    authority: Option<Authority>,
    /// Signs the own announcement.
    pub credential: Option<AgentCredential>,
    own: Option<OwnRecord>,
    pub records: Records,
    /// Active proxies other than this member.
    pub proxies: Vec<Identity>,
    pub broadcasts: Broadcasts,
    pub refusals: Refusals,
    pub proofs: PendingProofs,
    pub quarantine: Quarantine,
}

/// What this member announces.
#[derive(Debug)]
struct OwnRecord {
    record: Record,
    /// Its version in the current run.
    version: u64,
}

impl Announcements {
    pub(super) fn new(
        label: String,
        authority: Option<Authority>,
        credential: Option<AgentCredential>,
        capacity: usize,
    ) -> Self {
        Self {
            label,
            authority,
            credential,
            own: None,
            records: Records::new(capacity),
            proxies: Vec::new(),
            broadcasts: Broadcasts::default(),
            refusals: Refusals::default(),
            proofs: PendingProofs::default(),
            quarantine: Quarantine::default(),
        }
    }

    /// What this member announces.
    pub(super) fn own_record(&self) -> Option<&Record> {
        self.own.as_ref().map(|own| &own.record)
    }

    /// Judges everything by another authority; returns whether it is another one.
    pub(super) fn set_authority(&mut self, authority: Option<Authority>, unix: u64) -> bool {
        if self.authority == authority {
            return false;
        }
        self.authority = authority;
        let policy = RecordPolicy {
            authority: self.authority.as_ref(),
            label: &self.label,
            unix,
        };
        self.records.judge_again(&policy);
        true
    }
}

impl Node {
    /// Signs with another credential from now on; what is announced is announced again with it.
    ///
    /// # Errors
    /// The record is too long together with it. The previous credential stays.
    pub fn set_credential(
        &mut self,
        credential: Option<AgentCredential>,
        now: Time,
    ) -> Result<(), RecordError> {
        self.io.now = now;
        let token =
            |credential: &Option<AgentCredential>| credential.as_ref().map(|c| c.token().clone());
        let state = &mut self.announcements;
        if token(&credential) == token(&state.credential) {
            return Ok(());
        }
        let before = std::mem::replace(&mut state.credential, credential);
        let Some(own) = &state.own else { return Ok(()) };
        let (record, version) = (own.record.clone(), own.version);
        let published = self.publish(record, version + 1);
        if published.is_err() {
            self.announcements.credential = before;
        }
        published
    }

    /// Announces this service from now on. Announcing the same again does nothing.
    ///
    /// # Errors
    /// The record exceeds a limit. What was announced before stays.
    pub fn announce(&mut self, record: Record, now: Time) -> Result<(), RecordError> {
        self.io.now = now;
        let own = self.announcements.own.as_ref();
        if own.is_some_and(|own| own.record == record) {
            return Ok(());
        }
        let version = own.map_or(0, |own| own.version);
        self.publish(record, version + 1)
    }

    /// Announces the own record in the current run, which is a new one.
    pub(super) fn publish_again(&mut self) {
        if let Some(record) = self.announcements.own_record().cloned() {
            // It was within the limits in the previous run.
            let _ = self.publish(record, 1);
        }
    }

    /// Signs, stores and gossips the own announcement.
    fn publish(&mut self, record: Record, version: u64) -> Result<(), RecordError> {
        if version > MAX_VERSION {
            // It is announced again in another run, where versions begin again.
            self.announcements.own = Some(OwnRecord { record, version: 0 });
            self.begin_another_run();
            return Ok(());
        }
        let identity = self.identity();
        let state = &mut self.announcements;
        let mut token = Vec::new();
        if let Some(credential) = &state.credential {
            credential.token().encode(&mut token);
        }
        let mut bytes = record.encode(&identity.key(), identity.epoch(), version, &token)?;
        if let Some(credential) = &state.credential {
            let signature = credential.sign(&state.label, &bytes);
            bytes.extend_from_slice(&signature);
        }
        state.own = Some(OwnRecord { record, version });
        self.accept_record(&bytes, Duration::ZERO, true);
        Ok(())
    }

    /// Whether the own announcement was sent often enough to every known proxy.
    pub fn announced_to_all(&self) -> bool {
        let state = &self.announcements;
        state.broadcasts.is_empty() || state.proxies.is_empty()
    }

    /// Notes that a member is active in this run. A renamed one was active in another run, or is reported as up too.
    pub(super) fn member_active(&mut self, member: Identity, renamed: bool) {
        if member.key() == self.identity().key() {
            return;
        }
        let proxies = &mut self.announcements.proxies;
        let index = proxies.iter().position(|known| known.key() == member.key());
        if member.role() == Role::Agent {
            // It may have been a proxy in the previous run.
            index.map(|index| proxies.swap_remove(index));
            return;
        }
        match index {
            Some(index) if proxies[index] != member => proxies[index] = member,
            None if !renamed => proxies.push(member),
            _ => return,
        }
        if self.announcements.own.is_some() {
            self.greet_later(member, GREETINGS);
        }
    }

    /// Notes that a member is no longer active.
    pub(super) fn member_inactive(&mut self, member: &Identity) {
        let proxies = &mut self.announcements.proxies;
        proxies.retain(|known| known.key() != member.key());
    }

    /// Plans to send the own announcement to a proxy. The more members there are, the longer each waits, so that the
    /// proxy is not flooded.
    fn greet_later(&mut self, proxy: Identity, left: u8) {
        let within = (self.active() as f64 / 2_000.0).clamp(0.05, 5.0);
        let wait = if left == GREETINGS { 0.0 } else { 1.0 };
        let random = f64::from(self.random_below(1_000)) / 1_000.0;
        let delay = Duration::from_secs_f64(wait + within * random);
        self.io.after(delay, NodeTimer::Greet(proxy, left));
    }

    pub(super) fn greet(&mut self, proxy: Identity, left: u8) {
        let state = &self.announcements;
        if state.own.is_none() || !state.proxies.contains(&proxy) {
            return;
        }
        let own = self.identity().key();
        let keys: Vec<RecordKey> = state.records.of(&own).map(|(key, _)| key).collect();
        self.send_records(&proxy, &keys);
        if left > 1 {
            self.greet_later(proxy, left - 1);
        }
    }

    /// Sends news to some proxies.
    pub(super) fn gossip_records(&mut self) {
        if self.announcements.proxies.is_empty() {
            // A new proxy is greeted, and proxies push-pull with each other.
            self.announcements.broadcasts.clear();
        }
        for _ in 0..tuning::FANOUT.min(self.announcements.proxies.len()) {
            if self.announcements.broadcasts.is_empty() {
                break;
            }
            let index = self.random_index(self.announcements.proxies.len());
            let state = &mut self.announcements;
            let proxy = state.proxies[index];
            let mut sent = Vec::new();
            let mut room = MAX_DATAGRAM - OVERHEAD - PREFIX_LEN;
            let records = &state.records;
            state.broadcasts.send(|key| {
                let Some(stored) = records.get(key) else {
                    return true;
                };
                let length = stored.bytes.len() + 6;
                let fits = length <= room;
                if fits {
                    room -= length;
                    sent.push(*key);
                }
                fits
            });
            self.send_records(&proxy, &sent);
        }
    }

    fn send_records(&mut self, to: &Identity, keys: &[RecordKey]) {
        let mut body = Vec::with_capacity(MAX_DATAGRAM);
        for key in keys {
            if let Some(stored) = self.announcements.records.get(key) {
                put_record(&stored.bytes, stored.age(self.io.now), &mut body);
            }
        }
        if !body.is_empty() {
            self.io.send(to.address(), DatagramKind::Records, &[&body]);
        }
    }

    pub(super) fn receive_records(
        &mut self,
        sender: &Identity,
        mut rest: &[u8],
    ) -> Result<(), Dropped> {
        while !rest.is_empty() {
            let (age, bytes) = take_record(&mut rest)?;
            if self.stores_all() {
                self.accept_record(bytes, age, true);
                self.check_outdone(sender, bytes);
            }
        }
        Ok(())
    }

    /// Checks whether a member announces, in its own datagram, something else than what is known of the same version of
    /// its run or of a later one. If so, somebody else announces in its name. The member is told to continue in another
    /// run, in which only its own announcements count. An announcement may also have overtaken an earlier one on the
    /// way, but not for long.
    fn check_outdone(&mut self, sender: &Identity, bytes: &[u8]) {
        let Ok(read) = Announcement::decode(bytes) else {
            return;
        };
        let records = &self.announcements.records;
        // Another agent's key is handled elsewhere.
        let bound = records.bound(&read.member);
        let other = bound.is_some_and(|(_, agent)| read.agent() != Some(agent));
        if read.member != sender.key() || read.epoch != sender.epoch() || other {
            return;
        }
        let now = self.io.now;
        let outdoes = |known: &Announced| {
            let ahead = known.version.checked_sub(read.version);
            let recent = now.saturating_sub(known.accepted) < REORDERING;
            let overtaken = |ahead| ahead > 0 && ahead <= MAX_OVERTAKEN && recent;
            known.epoch == read.epoch
                && known.record.cluster == read.record.cluster
                && *known.record != read.record
                && ahead.is_some_and(|ahead| !overtaken(ahead))
        };
        let outdone = records
            .of(&read.member)
            .any(|(_, stored)| outdoes(&stored.announced));
        if outdone {
            self.report_outdone(sender, bytes);
        }
    }

    /// Tells a run, and the log, that somebody else announces in its name.
    pub(in crate::gossip) fn report_outdone(&mut self, run: &Identity, bytes: &[u8]) {
        let (why, now) = (RecordRefusal::Outdone, self.io.now);
        self.io.counters.drop(why.into());
        self.announcements.refusals.note(bytes, why, None, now);
        if self.rates.corrections.take(now) {
            self.send_newer(run, run.epoch());
        }
    }

    /// Judges and stores an announcement; news is gossiped further if `gossip` is set.
    pub fn accept_record(&mut self, bytes: &[u8], age: Duration, gossip: bool) {
        if !self.announcements.quarantine.begin(bytes) {
            return self.io.counters.drop(Dropped::Quarantined);
        }
        self.judge_record(bytes, age, gossip);
        self.announcements.quarantine.end();
    }

    fn judge_record(&mut self, bytes: &[u8], age: Duration, gossip: bool) {
        #[cfg(test)]
        if self.stores_all() {
            super::super::quarantine::trigger_bug(bytes);
        }
        let state = &mut self.announcements;
        let policy = RecordPolicy {
            authority: state.authority.as_ref(),
            label: &state.label,
            unix: self.clock.unix,
        };
        let (own, swim, contacts) = (self.io.identity, &self.swim, &self.contacts);
        let run = |member: &MemberKey| {
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
        match state.records.accept(bytes, age, now, &policy, run, live) {
            Ok(Some(key)) => {
                state.refusals.settle(&key.member);
                self.observer.dirty = true;
                self.io.counters.news += 1;
                self.io.counters.news_age += age;
                if gossip && !state.proxies.is_empty() {
                    let times = tuning::transmissions(state.proxies.len() + 1);
                    state.broadcasts.add(key, times.get());
                }
            }
            Ok(None) => {}
            Err(RecordRefusal::OtherAgent) => self.ask_for_proof(bytes, age, gossip),
            Err(refusal) => {
                self.io.counters.drop(refusal.into());
                state.refusals.note(bytes, refusal, None, now);
            }
        }
    }

    /// Sets the version of the own announcement.
    #[cfg(test)]
    pub(super) fn set_own_version(&mut self, version: u64) {
        if let Some(own) = &mut self.announcements.own {
            own.version = version;
        }
    }
}
