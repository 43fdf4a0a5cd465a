//! What time asks of a member: foca's timers, joining, comparing states, and looking after itself.
//!
//! Decided 2026-11: a member keeps no list of its peers on disk for a start while all its seeds are dead. Those that
//! live call those that are gone, for a day after one went down and an hour after it left, so that it is found again at
//! its address; who has been away for longer needs one seed that lives.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use foca::{Member, State, Timer};
use rand::RngExt;

use super::super::Time;
use super::super::codec::has_left;
use super::super::identity::{Identity, Role};
use super::super::tuning;
use super::io::Due;
use super::{Node, SWIM_ROOM, observe};

/// Between two tries to be heard.
const CALL_EVERY: Duration = Duration::from_millis(500);
/// Between two tries of a member that finds nobody, at the most.
const SLOWEST_CALL: Duration = Duration::from_secs(5);
/// Between two looks at seeds by a member that misses most of those that it knew.
const REJOIN_EVERY: Duration = Duration::from_secs(15);
/// Between two comparisons when much has changed at once: gossip then loses some of it, since who has begun another
/// run is challenged by everybody before it is listened to.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

impl Node {
    /// Runs the timers that are due.
    pub fn run_timers(&mut self, now: Time) {
        self.io.now = now;
        while let Some((due, late)) = self.io.pop_due() {
            self.punctuality.note(late, now);
            self.io.counters.latest_timer = self.io.counters.latest_timer.max(late);
            match due {
                // It asks nobody, so that nobody has failed to answer.
                Due::Swim(timer) if self.silent_until.is_some() => {
                    self.io.after(Duration::from_secs(1), Due::Swim(timer));
                }
                Due::Swim(timer) => {
                    if self.was_refuted(&timer) {
                        continue;
                    }
                    // An error is a probe that was cut short by a stall; foca goes on by itself.
                    let _ = self.swim.handle_timer(timer, &mut self.io);
                    self.after_swim();
                }
                Due::Spread => {
                    self.io.after(tuning::SPREAD_EVERY, Due::Spread);
                    if self.io.leaving {
                        // foca sends nothing more by itself.
                        let _ = self.swim.gossip(&mut self.io);
                    }
                    self.spread();
                }
                Due::Greet(proxy, left) => self.greet(proxy, left),
                Due::Warn(suspect, left) => self.warn(suspect, left),
                Due::Join => {
                    if self.join_at.take_if(|at| *at <= now).is_some() {
                        self.call();
                    }
                }
                Due::Reconcile => {
                    let spread = self.io.rng.random_range(0.8..1.2);
                    self.io
                        .after(tuning::RECONCILE_EVERY.mul_f64(spread), Due::Reconcile);
                    self.reconcile();
                }
                Due::Again(member) => {
                    self.again = self.again.saturating_sub(1);
                    if self.again > 0 {
                        self.io.after(AGAIN_AFTER, Due::Again(None));
                    }
                    match member {
                        Some(member) => self.ask(member),
                        None => self.reconcile(),
                    }
                }
                Due::Housekeep => {
                    self.io.after(Duration::from_secs(1), Due::Housekeep);
                    self.housekeep(now);
                }
            }
        }
    }

    /// Whether a timer would declare a member down that has contradicted. foca leaves it alive, and yet tells it
    /// that it is down, so that it would begin another run for nothing.
    fn was_refuted(&self, timer: &Timer<Identity>) -> bool {
        let Timer::ChangeSuspectToDown {
            member_id,
            incarnation,
            ..
        } = timer
        else {
            return false;
        };
        let known = self.as_suspect(member_id);
        known.is_none_or(|known| known.incarnation() != *incarnation)
    }

    /// Plans the next call; an earlier one stands.
    pub(super) fn call_in(&mut self, delay: Duration) {
        let at = self.io.now + delay;
        if self.join_at.is_none_or(|planned| planned > at) {
            self.join_at = Some(at);
            self.io.after(delay, Due::Join);
        }
    }

    /// Asks to be let in, until it knows the others and one of them has spoken to it.
    fn call(&mut self) {
        if self.io.leaving || (self.joined && self.heard) {
            return;
        }
        let waiting = if self.joined {
            CALL_EVERY
        } else {
            (CALL_EVERY * 2u32.saturating_pow(self.join_tries.min(8))).min(SLOWEST_CALL)
        };
        let jitter = self.io.rng.random_range(0.8..1.2);
        self.call_in(waiting.mul_f64(jitter));
        if !self.joined {
            let next = self.join_tries as usize;
            self.join_tries = self.join_tries.saturating_add(1);
            if !self.seeds.is_empty() {
                // From another place each time, so that one dead seed does not stop a whole fleet.
                let from = if next == 0 {
                    self.random_below(u32::MAX) as usize
                } else {
                    next
                };
                let seed = self.seeds[from % self.seeds.len()];
                self.ask(seed);
                self.announce_to(seed);
            }
            return;
        }
        match self.random_member(|member| member.state() != State::Down) {
            Some(member) => self.announce_to(member.address()),
            None => {
                if let Some(&seed) = self.seeds.first() {
                    self.announce_to(seed);
                }
            }
        }
    }

    pub(super) fn announce_to(&mut self, address: SocketAddr) {
        // The receiver takes it whichever run it is in.
        let whom = Identity::new(address, 0, Role::Agent);
        let _ = self.swim.announce(whom, &mut self.io);
    }

    /// Wants the whole state compared with this member's.
    fn ask(&mut self, member: SocketAddr) {
        // An agent that says nothing has nothing to ask.
        let may = self.silent_until.is_none() || self.keeps_all();
        if may && !self.io.leaving && !self.exchanges.contains(&member) {
            self.exchanges.push(member);
        }
    }

    /// What has become of a comparison that was asked for.
    pub fn exchange_ended(&mut self, succeeded: bool, now: Time) {
        self.io.now = now;
        if !succeeded {
            self.io.counters.exchanges_failed += 1;
            return;
        }
        self.io.counters.exchanges += 1;
        if !self.joined {
            self.joined = true;
            self.call_in(Duration::ZERO);
            self.retune();
            // Where many join at once the first one asked knew few of them.
            self.compare_again(2, None);
        }
    }

    /// Plans so many comparisons more: the first one with a certain member, the others with any.
    pub(super) fn compare_again(&mut self, times: u8, with: Option<SocketAddr>) {
        if self.again == 0 {
            let wait = AGAIN_AFTER.mul_f64(self.io.rng.random_range(0.5..1.5));
            self.io.after(wait, Due::Again(with));
        }
        self.again = self.again.max(times);
    }

    /// Compares states with one other: with a proxy every other time, so that announcements are repaired; sometimes
    /// with one that is down and has not left, so that a set that was parted finds together.
    fn reconcile(&mut self) {
        let among_proxies = self.keeps_all() && self.random_below(2) == 0;
        if among_proxies && !self.proxies.is_empty() {
            let place = self.random_below(self.proxies.len() as u32) as usize;
            return self.ask(self.proxies[place].address());
        }
        let down = self.random_below(4) == 0;
        let chosen = down
            .then(|| self.random_member(is_gone))
            .flatten()
            .or_else(|| self.random_member(|member| member.state() != State::Down));
        if let Some(member) = chosen {
            self.ask(member.address());
        }
    }

    fn random_member(&mut self, wanted: impl Fn(&Member<Identity>) -> bool) -> Option<Identity> {
        let own = self.identity().key();
        let count = self
            .swim
            .iter_membership_state()
            .filter(|m| wanted(m) && m.id().key() != own)
            .count();
        let place = self.random_below(count as u32) as usize;
        self.swim
            .iter_membership_state()
            .filter(|m| wanted(m) && m.id().key() != own)
            .nth(place)
            .map(|member| *member.id())
    }

    fn housekeep(&mut self, now: Time) {
        self.punctuality.look(now);
        self.retune();
        let most = (self.active() / 16).max(3);
        if std::mem::take(&mut self.churn) >= most {
            self.compare_again(3, None);
        }
        let is_suspect = |member: &Member<Identity>| member.state() == State::Suspect;
        self.io.suspecting &= self.swim.iter_members().any(is_suspect);
        self.end_silence(now);
        self.look_at_proofs();
        let known = self.swim.iter_membership_state().len();
        self.forget_some(known);
        if now.saturating_sub(self.rejoin_asked) >= REJOIN_EVERY {
            self.rejoin_asked = now;
            self.look_for_lost();
            self.drop_orphans(now);
        }
        observe::look(self, now);
    }

    /// Adjusts foca to the size of the set.
    pub(super) fn retune(&mut self) {
        let (size, patience) = (self.active(), self.punctuality.patience());
        let (tuned, was) = self.tuned;
        if patience == was && size.abs_diff(tuned) * 10 <= tuned {
            return;
        }
        self.tuned = (size, patience);
        let config = tuning::config(size, patience, SWIM_ROOM);
        // It changes only what foca lets change.
        let _ = self.swim.set_config(config);
    }

    /// Forgets members that have left, those that have been down for long, and the longest of them earlier while they
    /// leave no room for new ones.
    fn forget_some(&mut self, known: usize) {
        let now = self.io.now;
        while let Some((at, member)) = self.io.gone.pop_front_if(|(at, _)| *at <= now) {
            let mut members = self.swim.iter_membership_state();
            if members.any(|known| *known.id() == member && is_gone(known)) {
                let rest = tuning::REMEMBER_DOWN.saturating_sub(tuning::MISS_DOWN);
                self.io.lost.push_back((at + rest, member));
            } else {
                drop(members);
                self.forget(member);
            }
        }
        let most = self.limits.members;
        let mut over = known > most / 10 * 9;
        loop {
            let io = &mut self.io;
            let crowded = over || io.gone.len() + io.lost.len() > most;
            let next = io.lost.pop_front_if(|(at, _)| crowded || *at <= now);
            let next = next.or_else(|| io.gone.pop_front_if(|_| crowded));
            let Some((_, member)) = next else { break };
            self.forget(member);
            over = self.swim.iter_membership_state().len() > most / 10 * 9;
        }
        self.after_swim();
    }

    /// Forgets a member that is down; nothing happens to one that is back.
    fn forget(&mut self, member: Identity) {
        let timer = Timer::RemoveDown(member);
        let _ = self.swim.handle_timer(timer, &mut self.io);
    }

    /// How many members are down that should be there. Who has left in order does not count, nor who has been down for
    /// an hour: after a deploy to other addresses everybody would ask the seeds for as long as the old ones are
    /// remembered. O(members).
    pub(super) fn missed(&self) -> usize {
        let lost: HashSet<&Identity> = self.io.lost.iter().map(|(_, member)| member).collect();
        let members = self.swim.iter_membership_state();
        members
            .filter(|member| is_gone(member) && !lost.contains(member.id()))
            .count()
    }

    /// Asks seeds when more members are missed than are there, or when a seed is not among the members: two halves that
    /// have forgotten each other meet there again.
    fn look_for_lost(&mut self) {
        if self.seeds.is_empty() || !self.joined {
            return;
        }
        let few = self.missed() > self.active() || self.active() == 1;
        let place = self.random_below(self.seeds.len() as u32) as usize;
        let seed = self.seeds[place];
        let is_member = || {
            self.swim
                .iter_members()
                .any(|member| member.id().address() == seed)
        };
        // A seed that is away is asked about once a minute.
        if few || (!is_member() && self.random_below(4) == 0) {
            self.ask(seed);
            self.announce_to(seed);
        }
    }

    /// Drops announcements of members that are not known, and those of another run than the one that is.
    fn drop_orphans(&mut self, now: Time) {
        if self.records.is_empty() {
            return;
        }
        let own = self.identity();
        let mut epochs: HashMap<[u8; 18], u64> = self
            .swim
            .iter_membership_state()
            .map(|member| (member.id().key(), member.id().epoch()))
            .collect();
        epochs.insert(own.key(), own.epoch());
        let swept = self
            .records
            .sweep(now, self.unix, |member| epochs.get(member).copied());
        self.dirty |= swept;
    }
}

/// Whether a member is down and has not said that it leaves.
fn is_gone(member: &Member<Identity>) -> bool {
    member.state() == State::Down && !has_left(member)
}
