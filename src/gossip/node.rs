//! A member of the peer set, as a state machine without I/O.
//!
//! Datagrams and the time come in ([`Node::receive`], [`Node::run_timers`]); packets to send ([`Node::take_packets`]),
//! members whose whole state should be compared over a stream ([`Node::take_exchanges`], see
//! [`exchange`](super::exchange)) and the next deadline come out. Whoever drives it must read all waiting datagrams
//! before it runs late timers, else a member that was frozen holds its peers for dead.
//!
//! What is done with a datagram: unseal, judge by the replay window (an unknown run is challenged first), limit, and
//! then foca or the store of announcements.

mod announcing;
mod io;
mod observe;
mod proving;
mod receive;
mod simulated;
mod upkeep;
mod words;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foca::{Foca, NoCustomBroadcast};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::Time;
use super::codec::WireCodec;
use super::identity::{Horizon, Identity, Role, pack_address};
use super::keyring::{Keyring, OVERHEAD};
use super::proofs::Proofs;
use super::quarantine::Quarantine;
use super::record::{MAX_VERSION, Record, RecordError, ServiceState};
use super::records::{RecordRefusal, Records, Rules};
use super::refusals::{Refusals, Refused};
use super::replay::Contacts;
use super::rumours::Rumours;
use super::token::{AgentCredential, Authority};
use super::tuning::{self, Punctuality};
use super::view::PeerSet;
use io::{Due, Io};
use observe::Observer;
use words::Words;

pub(super) use announcing::{ON_THE_WAY, put_record, take_record};
pub(crate) use io::Packet;
pub use io::{Counters, Dropped};

/// Kind of a sealed packet: a datagram.
pub const DATAGRAM: u8 = 1;
/// What foca may fill of a datagram: the rest is the seal, the kind and the sequence.
const SWIM_ROOM: usize = tuning::MAX_DATAGRAM - OVERHEAD - 9;

/// What bounds a peer set in memory and work.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Members, those that are down included.
    pub members: usize,
    /// Members that datagrams may make known in a second.
    pub new_members: u32,
    /// Announcements that are kept.
    pub records: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            members: 10_000,
            new_members: 1_000,
            records: 10_000,
        }
    }
}

/// How a member is made.
#[derive(Debug)]
pub struct Settings {
    /// Address, first epoch and role.
    pub identity: Identity,
    /// Seals and opens.
    pub keyring: Arc<Keyring>,
    /// Of the set: bound by signatures.
    pub label: String,
    /// Who may announce; absent: everybody.
    pub authority: Option<Authority>,
    /// What signs this member's own announcement.
    pub credential: Option<AgentCredential>,
    /// Whether changes are followed for [`Node::view`]; costs memory and a look at every member each second.
    pub observed: bool,
    /// Bounds.
    pub limits: Limits,
    /// Of the random source: unpredictable outside tests.
    pub seed: [u8; 32],
}

/// See the module.
pub struct Node {
    swim: Foca<Identity, WireCodec, StdRng, NoCustomBroadcast>,
    io: Io,
    label: String,
    authority: Option<Authority>,
    credential: Option<AgentCredential>,
    limits: Limits,
    contacts: Contacts,
    records: Records,
    refusals: Refusals,
    proofs: Proofs,
    quarantine: Quarantine,
    rumours: Rumours,
    own: Option<Own>,
    /// Active proxies but this member.
    proxies: Vec<Identity>,
    seeds: Vec<SocketAddr>,
    exchanges: Vec<SocketAddr>,
    joined: bool,
    /// Somebody has spoken to this very run.
    heard: bool,
    join_tries: u32,
    /// When it calls next; what else waits among the timers for that is void.
    join_at: Option<Time>,
    /// Says nothing until then, since somebody else has this address; it listens all the same.
    silent_until: Option<Time>,
    takeovers: VecDeque<Time>,
    /// Who has told of later runs at the own address.
    words: Words,
    /// The last epoch that is believed in.
    horizon: Horizon,
    started: Time,
    rejoin_asked: Time,
    /// Comparisons that are planned because much has changed.
    again: u8,
    /// Members that came, went or began another run since the last look.
    churn: usize,
    /// Members that datagrams made known, words to old runs, challenges: each in this second.
    budget: Budget,
    corrections: Budget,
    challenges: Budget,
    warnings: Budget,
    questions: Budget,
    proofs_made: Budget,
    /// Looks at who is at the own address.
    looks: Budget,
    /// The size and patience that foca was last configured for.
    tuned: (usize, u32),
    punctuality: Punctuality,
    observer: Option<Observer>,
    /// Something that [`Node::view`] shows has changed.
    dirty: bool,
    unix: u64,
}

struct Own {
    record: Record,
    version: u64,
}

/// What was used of an allowance in this second.
#[derive(Debug, Default)]
struct Budget {
    second: u64,
    used: u32,
}

impl Node {
    /// A member that is alone.
    pub fn new(settings: Settings, now: Time) -> Self {
        let mut rng = StdRng::from_seed(settings.seed);
        let swim_rng = StdRng::from_rng(&mut rng);
        let config = tuning::config(1, 1, SWIM_ROOM);
        let mut io = Io::new(settings.identity, settings.keyring, rng, now);
        io.after(Duration::from_secs(1), Due::Housekeep);
        let first = io.rng.random_range(0.1..1.0);
        io.after(tuning::RECONCILE_EVERY.mul_f64(first), Due::Reconcile);
        io.after(tuning::SPREAD_EVERY, Due::Spread);
        Self {
            swim: Foca::with_custom_broadcast(
                settings.identity,
                config,
                swim_rng,
                WireCodec,
                NoCustomBroadcast,
            ),
            io,
            label: settings.label,
            authority: settings.authority,
            credential: settings.credential,
            contacts: Contacts::new(settings.limits.members),
            records: Records::new(settings.limits.records),
            refusals: Refusals::default(),
            proofs: Proofs::default(),
            quarantine: Quarantine::default(),
            rumours: Rumours::default(),
            own: None,
            proxies: Vec::new(),
            seeds: Vec::new(),
            exchanges: Vec::new(),
            joined: false,
            heard: false,
            join_tries: 0,
            silent_until: None,
            takeovers: VecDeque::new(),
            words: Words::default(),
            horizon: Horizon::default(),
            started: now,
            rejoin_asked: now,
            again: 0,
            churn: 0,
            budget: Budget::default(),
            corrections: Budget::default(),
            challenges: Budget::default(),
            warnings: Budget::default(),
            questions: Budget::default(),
            proofs_made: Budget::default(),
            looks: Budget::default(),
            join_at: None,
            tuned: (1, 1),
            punctuality: Punctuality::default(),
            observer: settings.observed.then(Observer::default),
            dirty: true,
            unix: 0,
            limits: settings.limits,
        }
    }

    /// Who this member is now.
    pub fn identity(&self) -> Identity {
        self.io.identity
    }

    /// Members that are asked to let this one in, in any order; its own address among them does not count. The
    /// first time they are set it joins.
    pub fn set_seeds(&mut self, seeds: Vec<SocketAddr>, now: Time) {
        self.io.now = now;
        let own = self.identity().address();
        self.seeds = seeds;
        self.seeds.retain(|seed| *seed != own);
        if !self.joined && self.join_tries == 0 && !self.seeds.is_empty() {
            self.call_in(Duration::ZERO);
        }
    }

    /// Seals and opens by another ring from now on.
    pub fn set_keyring(&mut self, keyring: Arc<Keyring>) {
        self.io.keyring = keyring;
    }

    /// Refuses what an earlier member at this place has failed of, and notes there what is in hand.
    pub fn set_quarantine(&mut self, quarantine: Quarantine) {
        self.quarantine = quarantine;
    }

    /// Judges announcements by another operator's key from now on; what is known must stand the new judgement.
    pub fn set_authority(&mut self, authority: Option<Authority>, now: Time) {
        self.io.now = now;
        if self.authority == authority {
            return;
        }
        self.authority = authority;
        let rules = Rules {
            authority: self.authority.as_ref(),
            label: &self.label,
            unix: self.unix,
        };
        self.records.judge_again(&rules);
        self.dirty = true;
    }

    /// Signs by another credential from now on; what is announced is announced anew under it.
    ///
    /// # Errors
    /// If that is too long together with it. The one before stays then.
    pub fn set_credential(
        &mut self,
        credential: Option<AgentCredential>,
        now: Time,
    ) -> Result<(), RecordError> {
        self.io.now = now;
        let token =
            |credential: &Option<AgentCredential>| credential.as_ref().map(|c| c.token().clone());
        if token(&credential) == token(&self.credential) {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.credential, credential);
        let Some(own) = &self.own else { return Ok(()) };
        let (record, version) = (own.record.clone(), own.version);
        let published = self.publish(record, version + 1);
        if published.is_err() {
            self.credential = before;
        }
        published
    }

    /// Tells the time of the world, unix seconds: for the expiry of tokens, and for epochs that are too far ahead.
    pub fn set_unix(&mut self, unix: u64) {
        self.unix = unix;
        self.horizon = Horizon::at(unix);
    }

    /// Announces this service from now on; what is told already is not told again.
    ///
    /// # Errors
    /// If it breaks a limit. What was announced before stays.
    pub fn announce(&mut self, record: Record, now: Time) -> Result<(), RecordError> {
        self.io.now = now;
        let version = self.own.as_ref().map_or(0, |own| own.version);
        if self.own.as_ref().is_some_and(|own| own.record == record) {
            return Ok(());
        }
        self.publish(record, version + 1)
    }

    /// Signs, keeps and tells the own announcement of this run.
    fn publish(&mut self, record: Record, version: u64) -> Result<(), RecordError> {
        if version > MAX_VERSION {
            // Said again in another run, where versions begin again.
            self.own = Some(Own { record, version: 0 });
            self.begin_another_run();
            return Ok(());
        }
        let identity = self.identity();
        let mut token = Vec::new();
        if let Some(credential) = &self.credential {
            credential.token().encode(&mut token);
        }
        let mut bytes = record.encode(&identity.key(), identity.epoch(), version, &token)?;
        if let Some(credential) = &self.credential {
            let signature = credential.sign(&self.label, &bytes);
            bytes.extend_from_slice(&signature);
        }
        self.own = Some(Own { record, version });
        self.take_record(&bytes, Duration::ZERO, true);
        Ok(())
    }

    /// Whether every proxy that is known was told the own announcement often enough.
    pub fn announced_to_all(&self) -> bool {
        self.rumours.is_empty() || self.proxies.is_empty()
    }

    /// Says that this member leaves. It must still be driven for about a second, so that others hear of it.
    pub fn leave(&mut self, now: Time) {
        self.io.now = now;
        if self.io.leaving {
            return;
        }
        if let Some(own) = &self.own {
            let record = Record {
                state: ServiceState::Left,
                ..own.record.clone()
            };
            // The limits do not depend on the state.
            let _ = self.announce(record, now);
        }
        self.io.leaving = true;
        let _ = self.swim.leave_cluster(&mut self.io);
        self.after_swim();
        self.spread();
    }

    /// Packets to send, in order.
    pub fn take_packets(&mut self) -> Vec<Packet> {
        std::mem::take(&mut self.io.packets)
    }

    /// Members to compare the whole state with; each is answered by [`Node::exchange_ended`].
    pub fn take_exchanges(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.exchanges)
    }

    /// Announcements that were refused and are to be told to people: each member and reason once in ten minutes.
    pub fn take_refused(&mut self) -> Vec<Refused> {
        self.refusals.take()
    }

    /// Members whose last announcement was refused, and why.
    pub fn refused(&self) -> Vec<(SocketAddr, RecordRefusal)> {
        self.refusals.standing(self.io.now)
    }

    /// When the next timer runs.
    pub fn next_deadline(&self) -> Option<Time> {
        self.io.next_deadline()
    }

    /// Whether the set has changed since [`Node::view`] was last asked for.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Counters since the start.
    pub fn counters(&self) -> &Counters {
        &self.io.counters
    }

    /// The greatest lateness of a timer since this was last asked.
    pub fn take_lag(&mut self) -> Time {
        std::mem::take(&mut self.io.counters.latest_timer)
    }

    /// Ids of the keys, the one that seals first.
    pub fn key_ids(&self) -> Vec<String> {
        self.io.keyring.key_ids()
    }

    /// An exchange that another member asked for has come to nothing.
    pub fn count_failed_exchange(&mut self) {
        self.io.counters.exchanges_failed += 1;
    }

    /// News that is still to be told.
    pub fn rumours(&self) -> usize {
        self.rumours.len()
    }

    /// Active members, this one included.
    pub fn active(&self) -> usize {
        self.swim.num_members() + 1
    }

    /// Whether this member has compared its state with another one at least once.
    pub fn has_joined(&self) -> bool {
        self.joined
    }

    /// Whether it says nothing for now, since somebody else uses its address.
    pub fn in_conflict(&self) -> bool {
        self.silent_until.is_some()
    }

    /// By how much it judges more slowly than usual, since its timers were late: 1 to 8.
    pub fn patience(&self) -> u32 {
        self.punctuality.patience()
    }

    /// The run and the state in which the member at `address` is known; O(members).
    pub fn state_of(&self, address: SocketAddr) -> Option<(u64, foca::State)> {
        let key = pack_address(address);
        self.members()
            .find(|member| member.id().as_bytes().starts_with(&key))
            .map(|member| (member.id().epoch(), member.state()))
    }

    /// Announcements that are kept.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// The set as it is now; O(members). Moments of change are known only if it is observed.
    pub fn view(&mut self, now: Time) -> PeerSet {
        observe::view(self, now)
    }

    /// The last epoch that is believed in.
    pub(super) fn horizon(&self) -> Horizon {
        self.horizon
    }

    pub(super) fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.io.keyring)
    }

    pub(super) fn set_now(&mut self, now: Time) {
        self.io.now = now;
    }

    pub(super) fn now(&self) -> Time {
        self.io.now
    }

    /// Members as foca knows them, those that are down included, in no order; this one may be among them.
    pub fn members(&self) -> impl Iterator<Item = &foca::Member<Identity>> {
        self.swim.iter_membership_state()
    }

    pub(super) fn random_bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.io.rng.fill_bytes(&mut bytes);
        bytes
    }

    pub(super) fn keeps_all(&self) -> bool {
        self.identity().role() == Role::Proxy
    }
}

#[cfg(test)]
mod tests;
