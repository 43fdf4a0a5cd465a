//! A member of the peer set, as a state machine without I/O.
//!
//! Datagrams and the time come in ([`Node::receive`], [`Node::run_timers`]). Packets to send ([`Node::take_packets`]),
//! members to compare the whole state with over a stream ([`Node::take_push_pulls`], see `push_pull`) and the next
//! deadline come out. The driver must read all waiting datagrams before it runs late timers; otherwise a member that
//! was frozen takes its peers for dead.
//!
//! A datagram is unsealed, judged by the replay window (an unknown run is challenged first), limited, and then passed
//! to foca or to the store of announcements. Each part of the state has a file of its own, which also has the methods
//! of [`Node`] that work on it.

mod address_conflict;
mod announcements;
mod io;
mod joining;
mod observer;
mod proving;
mod push_pulls;
mod rate_limits;
mod receive;
mod simulated;
mod upkeep;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foca::{Foca, NoCustomBroadcast};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::Time;
use super::codec::WireCodec;
use super::counters::GossipCounters;
use super::identity::{Horizon, Identity, MemberKey, Role, pack_address};
use super::keyring::{Keyring, OVERHEAD};
use super::quarantine::Quarantine;
use super::record::{Record, ServiceState};
use super::records::{RecordRefusal, Records};
use super::refusals::Refused;
use super::replay::Contacts;
use super::token::{AgentCredential, Authority};
use super::tuning::{self, Awareness};
use super::view::PeerSet;
use address_conflict::AddressConflict;
use announcements::Announcements;
use io::{Io, NodeTimer};
use joining::Joining;
use observer::Observer;
use push_pulls::PushPullQueue;
use rate_limits::RateLimits;

pub(crate) use io::Packet;

/// Kind of a sealed packet that is a datagram.
pub const DATAGRAM: u8 = 1;
/// How much of a datagram foca may fill, bytes: all but the seal, the kind and the sequence number.
const SWIM_ROOM: usize = tuning::MAX_DATAGRAM - OVERHEAD - 9;

/// Bounds of memory and work.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most members, those that are down included.
    pub members: usize,
    /// Most members that datagrams may make known per second.
    pub new_members: u32,
    /// Most announcements that are stored.
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

/// What a member starts with.
#[derive(Debug)]
pub struct NodeSettings {
    /// Address, first epoch and role.
    pub identity: Identity,
    /// Seals and opens packets.
    pub keyring: Arc<Keyring>,
    /// Label of the set, which signatures cover.
    pub label: String,
    /// Whose tokens count; absent: everybody may announce.
    pub authority: Option<Authority>,
    /// Signs this member's own announcement.
    pub credential: Option<AgentCredential>,
    /// Whether changes are observed for [`Node::view`]. This costs memory and a look at every member each second.
    pub observed: bool,
    /// Bounds of memory and work.
    pub limits: Limits,
    /// Seed of the random generator; unpredictable outside of tests, since challenges and nonces come from it.
    pub seed: [u8; 32],
}

/// A member; see the module.
pub struct Node {
    swim: Foca<Identity, WireCodec, StdRng, NoCustomBroadcast>,
    io: Io,
    limits: Limits,
    rates: RateLimits,
    clock: WallClock,
    started: Time,
    contacts: Contacts,
    announcements: Announcements,
    joining: Joining,
    conflict: AddressConflict,
    push_pulls: PushPullQueue,
    pacing: Pacing,
    observer: Observer,
}

/// The time of the world, as far as the driver has told it.
#[derive(Debug, Default)]
struct WallClock {
    /// Unix seconds.
    unix: u64,
    /// The last epoch that is accepted.
    horizon: Horizon,
}

/// How foca is tuned, and whether this member keeps up.
#[derive(Debug)]
struct Pacing {
    awareness: Awareness,
    /// The size of the set and the multiplier that foca is configured for.
    tuned: (usize, u32),
}

impl Node {
    /// A member that knows nobody yet.
    pub fn new(settings: NodeSettings, now: Time) -> Self {
        let mut rng = StdRng::from_seed(settings.seed);
        let swim_rng = StdRng::from_rng(&mut rng);
        let config = tuning::foca_config(1, 1, SWIM_ROOM);
        let mut io = Io::new(settings.identity, settings.keyring, rng, now);
        io.after(Duration::from_secs(1), NodeTimer::Housekeep);
        let first = io.rng.random_range(0.1..1.0);
        io.after(tuning::PUSH_PULL_EVERY.mul_f64(first), NodeTimer::PushPull);
        io.after(tuning::GOSSIP_EVERY, NodeTimer::Gossip);
        Self {
            swim: Foca::with_custom_broadcast(
                settings.identity,
                config,
                swim_rng,
                WireCodec,
                NoCustomBroadcast,
            ),
            io,
            rates: RateLimits::new(settings.limits.new_members),
            clock: WallClock::default(),
            started: now,
            contacts: Contacts::new(settings.limits.members),
            announcements: Announcements::new(
                settings.label,
                settings.authority,
                settings.credential,
                settings.limits.records,
            ),
            joining: Joining::new(now),
            conflict: AddressConflict::default(),
            push_pulls: PushPullQueue::default(),
            pacing: Pacing {
                awareness: Awareness::default(),
                tuned: (1, 1),
            },
            observer: Observer::new(settings.observed),
            limits: settings.limits,
        }
    }

    /// The current run of this member.
    pub fn identity(&self) -> Identity {
        self.io.identity
    }

    /// Seals and opens with another ring from now on.
    pub fn set_keyring(&mut self, keyring: Arc<Keyring>) {
        self.io.outbox.keyring = keyring;
    }

    /// Refuses what made an earlier member panic, and notes there what is being processed.
    pub fn set_quarantine(&mut self, quarantine: Quarantine) {
        self.announcements.quarantine = quarantine;
    }

    /// Judges announcements by another authority from now on, those that are stored included.
    pub fn set_authority(&mut self, authority: Option<Authority>, now: Time) {
        self.io.now = now;
        if self.announcements.set_authority(authority, self.clock.unix) {
            self.observer.dirty = true;
        }
    }

    /// Sets the time of the world, Unix seconds. It decides when tokens expire and which epochs are too far ahead.
    pub fn set_unix(&mut self, unix: u64) {
        self.clock = WallClock {
            unix,
            horizon: Horizon::at(unix),
        };
    }

    /// Announces that this member leaves. The driver must keep driving it for about a second, so that others learn it.
    pub fn leave(&mut self, now: Time) {
        self.io.now = now;
        if self.io.leaving {
            return;
        }
        if let Some(own) = self.announcements.own_record() {
            let record = Record {
                state: ServiceState::Left,
                ..own.clone()
            };
            // The limits do not depend on the state.
            let _ = self.announce(record, now);
        }
        self.io.leaving = true;
        let _ = self.swim.leave_cluster(&mut self.io);
        self.after_swim();
        self.gossip_records();
    }

    /// Takes the packets to send, in order.
    pub fn take_packets(&mut self) -> Vec<Packet> {
        std::mem::take(&mut self.io.outbox.packets)
    }

    /// Takes the addresses of members to push-pull with. Each must be followed by [`Node::push_pull_ended`].
    pub fn take_push_pulls(&mut self) -> Vec<SocketAddr> {
        self.push_pulls.take()
    }

    /// Takes the refused announcements that are to be logged: each member and reason once in ten minutes.
    pub fn take_refused(&mut self) -> Vec<Refused> {
        self.announcements.refusals.take()
    }

    /// Members whose last announcement was refused, and why.
    pub fn refused(&self) -> Vec<(SocketAddr, RecordRefusal)> {
        self.announcements.refusals.standing(self.io.now)
    }

    /// When the next timer is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.io.next_deadline()
    }

    /// Whether the set has changed since the last [`Node::view`].
    pub fn is_dirty(&self) -> bool {
        self.observer.dirty
    }

    /// Counts since the start.
    pub fn counters(&self) -> &GossipCounters {
        &self.io.counters
    }

    /// Takes the greatest lateness of a timer since the last call.
    pub fn take_lag(&mut self) -> Time {
        std::mem::take(&mut self.io.counters.latest_timer)
    }

    /// Ids of the keys, beginning with the one that seals.
    pub fn key_ids(&self) -> Vec<String> {
        self.io.outbox.keyring.key_ids()
    }

    /// Counts a push-pull that another member asked for and that failed.
    pub fn count_failed_push_pull(&mut self) {
        self.io.counters.push_pulls_failed += 1;
    }

    /// The number of announcements that are still to be gossiped.
    pub fn pending_broadcasts(&self) -> usize {
        self.announcements.broadcasts.len()
    }

    /// The number of active members, this one included.
    pub fn active(&self) -> usize {
        self.swim.num_members() + 1
    }

    /// Whether this member has completed a push-pull.
    pub fn has_joined(&self) -> bool {
        self.joining.joined
    }

    /// Whether it is silent because another member uses its address.
    pub fn in_conflict(&self) -> bool {
        self.conflict.is_silent()
    }

    /// How many times longer than usual it waits before it judges others, since its timers were late: 1 to 8.
    pub fn health_multiplier(&self) -> u32 {
        self.pacing.awareness.multiplier()
    }

    /// Run and state in which the member at `address` is known; O(members).
    pub fn state_of(&self, address: SocketAddr) -> Option<(u64, foca::State)> {
        let member = self.member_at(&pack_address(address))?;
        Some((member.id().epoch(), member.state()))
    }

    /// The announcements that are stored.
    pub fn records(&self) -> &Records {
        &self.announcements.records
    }

    /// The set as it is now; O(members). Times of changes are known only if changes are observed.
    pub fn view(&mut self, now: Time) -> PeerSet {
        observer::view(self, now)
    }

    /// The last epoch that is accepted.
    pub(super) fn horizon(&self) -> Horizon {
        self.clock.horizon
    }

    pub(super) fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.io.outbox.keyring)
    }

    pub(super) fn set_now(&mut self, now: Time) {
        self.io.now = now;
    }

    pub(super) fn now(&self) -> Time {
        self.io.now
    }

    /// Members as foca knows them, in no order: those that are down included, and perhaps this one.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &foca::Member<Identity>> {
        self.swim.iter_membership_state()
    }

    /// What foca knows of a member; O(members).
    fn member_at(&self, key: &MemberKey) -> Option<&foca::Member<Identity>> {
        self.members()
            .find(|member| member.id().as_bytes().starts_with(key))
    }

    pub(super) fn random_bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.io.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// A random number below `bound`; 0 if `bound` is 0.
    fn random_below(&mut self, bound: u32) -> u32 {
        self.io.rng.random_range(0..bound.max(1))
    }

    /// A random index into a list of this length; 0 if it is empty.
    fn random_index(&mut self, length: usize) -> usize {
        self.random_below(length as u32) as usize
    }

    /// Whether it stores the announcements of all members.
    pub(super) fn stores_all(&self) -> bool {
        self.identity().role() == Role::Proxy
    }
}

#[cfg(test)]
mod tests;
