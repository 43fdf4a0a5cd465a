//! How a member finds the others: at its start, after it began another run, and when many are missing.
//!
//! Decided 2026-11: a member stores no list of its peers on disk for a start while all its seeds are dead. The live
//! ones call those that are gone, for a day after one went down and an hour after it left, so it is found again at its
//! address. A member that was away for longer needs one live seed.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use foca::{Member, State};
use rand::RngExt;

use super::super::Time;
use super::super::codec::has_left;
use super::super::identity::{Identity, Role};
use super::Node;
use super::io::NodeTimer;

/// Time between two calls.
const CALL_EVERY: Duration = Duration::from_millis(500);
/// Longest time between two calls of a member that finds nobody.
const SLOWEST_CALL: Duration = Duration::from_secs(5);
/// Time between two looks for missing members.
const REJOIN_EVERY: Duration = Duration::from_secs(15);

/// Whether this member has found the others, and whom it asks.
#[derive(Debug)]
pub(super) struct Joining {
    seeds: Vec<SocketAddr>,
    /// A push-pull has succeeded.
    pub joined: bool,
    /// Another member has addressed this very run.
    pub heard: bool,
    tries: u32,
    /// When this member calls next. Other [`NodeTimer::Join`] timers are void.
    next_call: Option<Time>,
    /// When it last looked for missing members.
    looked: Time,
}

impl Joining {
    pub(super) fn new(now: Time) -> Self {
        Self {
            seeds: Vec::new(),
            joined: false,
            heard: false,
            tries: 0,
            next_call: None,
            looked: now,
        }
    }

    /// Starts from scratch.
    pub(super) fn reset(&mut self) {
        self.joined = false;
        self.heard = false;
        self.tries = 0;
    }
}

impl Node {
    /// Sets the members that are asked to let this one in, in any order; its own address among them is ignored. The
    /// first call starts joining.
    pub fn set_seeds(&mut self, seeds: Vec<SocketAddr>, now: Time) {
        self.io.now = now;
        let own = self.identity().address();
        let joining = &mut self.joining;
        joining.seeds = seeds;
        joining.seeds.retain(|seed| *seed != own);
        if !joining.joined && joining.tries == 0 && !joining.seeds.is_empty() {
            self.call_in(Duration::ZERO);
        }
    }

    /// Calls after this time, unless a call is due earlier.
    pub(super) fn call_in(&mut self, delay: Duration) {
        let at = self.io.now + delay;
        if self.joining.next_call.is_none_or(|planned| planned > at) {
            self.joining.next_call = Some(at);
            self.io.after(delay, NodeTimer::Join);
        }
    }

    /// Calls if a call is due.
    pub(super) fn call_if_due(&mut self, now: Time) {
        let due = self.joining.next_call.take_if(|at| *at <= now);
        if due.is_some() {
            self.call();
        }
    }

    /// Asks others to be let in, until this member has joined and one of them has addressed it.
    fn call(&mut self) {
        let joining = &self.joining;
        if self.io.leaving || (joining.joined && joining.heard) {
            return;
        }
        let waiting = if joining.joined {
            CALL_EVERY
        } else {
            (CALL_EVERY * 2u32.saturating_pow(joining.tries.min(8))).min(SLOWEST_CALL)
        };
        let jitter = self.io.rng.random_range(0.8..1.2);
        self.call_in(waiting.mul_f64(jitter));
        if !self.joining.joined {
            return self.call_seed();
        }
        match self.random_member(|member| member.state() != State::Down) {
            Some(member) => self.announce_to(member.address()),
            None => {
                if let Some(&seed) = self.joining.seeds.first() {
                    self.announce_to(seed);
                }
            }
        }
    }

    /// Asks the next seed. The first one is random, so that one dead seed does not delay a whole fleet.
    fn call_seed(&mut self) {
        let next = self.joining.tries as usize;
        self.joining.tries = self.joining.tries.saturating_add(1);
        if self.joining.seeds.is_empty() {
            return;
        }
        let from = match next {
            0 => self.random_index(u32::MAX as usize),
            next => next,
        };
        let seed = self.joining.seeds[from % self.joining.seeds.len()];
        self.request_push_pull(seed);
        self.announce_to(seed);
    }

    /// Has foca announce this member to whatever run is at `address`.
    pub(super) fn announce_to(&mut self, address: SocketAddr) {
        // The receiver accepts it in any run.
        let whom = Identity::new(address, 0, Role::Agent);
        let _ = self.swim.announce(whom, &mut self.io);
    }

    /// A random member that is `wanted`, never this one; O(members).
    pub(super) fn random_member(
        &mut self,
        wanted: impl Fn(&Member<Identity>) -> bool,
    ) -> Option<Identity> {
        let own = self.identity().key();
        let is_one = |member: &&Member<Identity>| wanted(member) && member.id().key() != own;
        let count = self.members().filter(is_one).count();
        let index = self.random_index(count);
        let member = self.members().filter(is_one).nth(index)?;
        Some(*member.id())
    }

    /// Looks for missing members if that is due again; returns whether it was.
    pub(super) fn look_for_missing(&mut self, now: Time) -> bool {
        if now.saturating_sub(self.joining.looked) < REJOIN_EVERY {
            return false;
        }
        self.joining.looked = now;
        self.call_seed_if_lost();
        true
    }

    /// Asks a seed if more members are missing than there are, or if the seed is not a member: two halves that have
    /// forgotten each other meet there again.
    fn call_seed_if_lost(&mut self) {
        if self.joining.seeds.is_empty() || !self.joining.joined {
            return;
        }
        let few = self.missing() > self.active() || self.active() == 1;
        let index = self.random_index(self.joining.seeds.len());
        let seed = self.joining.seeds[index];
        let is_member = || {
            self.swim
                .iter_members()
                .any(|member| member.id().address() == seed)
        };
        // A seed that is away is asked about once a minute.
        if few || (!is_member() && self.random_below(4) == 0) {
            self.request_push_pull(seed);
            self.announce_to(seed);
        }
    }

    /// The number of members that are down but should be there; O(members). Members that left do not count, nor those
    /// that have been down for an hour: otherwise, after a deployment to other addresses, everybody would ask the seeds
    /// for as long as the old members are remembered.
    pub(super) fn missing(&self) -> usize {
        let lost = self.io.departed.lost.iter().map(|(_, member)| member);
        let lost: HashSet<&Identity> = lost.collect();
        self.members()
            .filter(|member| is_gone(member) && !lost.contains(member.id()))
            .count()
    }
}

/// Whether a member is down without having left.
pub(super) fn is_gone(member: &Member<Identity>) -> bool {
    member.state() == State::Down && !has_left(member)
}
