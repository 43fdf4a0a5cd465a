//! What a member does as time passes: it runs foca's timers, tunes foca, and forgets members that are gone.

use std::collections::HashMap;
use std::time::Duration;

use foca::{Member, State, Timer};
use rand::RngExt;

use super::super::Time;
use super::super::identity::{Identity, MemberKey};
use super::super::tuning;
use super::io::NodeTimer;
use super::joining::is_gone;
use super::{Node, SWIM_ROOM, observer};

impl Node {
    /// Runs the timers that are due.
    pub fn run_timers(&mut self, now: Time) {
        self.io.now = now;
        while let Some((timer, late)) = self.io.pop_due() {
            self.pacing.awareness.note_lateness(late, now);
            self.io.counters.latest_timer = self.io.counters.latest_timer.max(late);
            self.run_timer(timer, now);
        }
    }

    fn run_timer(&mut self, timer: NodeTimer, now: Time) {
        match timer {
            NodeTimer::Swim(timer) => self.run_swim_timer(timer),
            NodeTimer::Gossip => {
                self.io.after(tuning::GOSSIP_EVERY, NodeTimer::Gossip);
                if self.io.leaving {
                    // foca no longer gossips by itself.
                    let _ = self.swim.gossip(&mut self.io);
                }
                self.gossip_records();
            }
            NodeTimer::Greet(proxy, left) => self.greet(proxy, left),
            NodeTimer::NotifySuspect(suspect, left) => self.notify_suspect(suspect, left),
            NodeTimer::Join => self.call_if_due(now),
            NodeTimer::PushPull => {
                let jitter = self.io.rng.random_range(0.8..1.2);
                let next = tuning::PUSH_PULL_EVERY.mul_f64(jitter);
                self.io.after(next, NodeTimer::PushPull);
                self.push_pull_with_any();
            }
            NodeTimer::ExtraPushPull(with) => self.extra_push_pull(with),
            NodeTimer::Housekeep => {
                self.io.after(Duration::from_secs(1), NodeTimer::Housekeep);
                self.housekeep(now);
            }
        }
    }

    fn run_swim_timer(&mut self, timer: Timer<Identity>) {
        if self.in_conflict() {
            // A silent member asks nobody, so nobody has failed to answer.
            let again = NodeTimer::Swim(timer);
            return self.io.after(Duration::from_secs(1), again);
        }
        if self.was_refuted(&timer) {
            return;
        }
        // An error means that a stall cut a probe short; foca recovers by itself.
        let _ = self.swim.handle_timer(timer, &mut self.io);
        self.after_swim();
    }

    /// Whether a timer would declare a member down that has refuted. foca would leave it alive, but tell it that it is
    /// down, so that it would begin another run for nothing.
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

    /// Runs once a second.
    fn housekeep(&mut self, now: Time) {
        self.pacing.awareness.recover(now);
        self.retune();
        self.push_pull_after_churn();
        let is_suspect = |member: &Member<Identity>| member.state() == State::Suspect;
        self.io.suspecting &= self.swim.iter_members().any(is_suspect);
        self.end_silence(now);
        self.poll_proofs();
        let known = self.members().len();
        self.forget_departed(known);
        if self.look_for_missing(now) {
            self.drop_orphans(now);
        }
        observer::observe(self, now);
    }

    /// Adjusts foca to the size of the set and to how well this member keeps up.
    pub(super) fn retune(&mut self) {
        let (size, multiplier) = (self.active(), self.health_multiplier());
        let (tuned, was) = self.pacing.tuned;
        if multiplier == was && size.abs_diff(tuned) * 10 <= tuned {
            return;
        }
        self.pacing.tuned = (size, multiplier);
        let config = tuning::foca_config(size, multiplier, SWIM_ROOM);
        // Only what foca allows to change differs.
        let _ = self.swim.set_config(config);
    }

    /// Forgets members that have left and those that have been down for long; the oldest ones earlier if they leave no
    /// room for new members.
    fn forget_departed(&mut self, known: usize) {
        let now = self.io.now;
        while let Some((at, member)) = self.io.departed.recent.pop_front_if(|(at, _)| *at <= now) {
            let is_lost = |known: &Member<Identity>| *known.id() == member && is_gone(known);
            if self.members().any(is_lost) {
                let rest = tuning::REMEMBER_DOWN.saturating_sub(tuning::MISS_DOWN);
                self.io.departed.lost.push_back((at + rest, member));
            } else {
                self.forget(member);
            }
        }
        let most = self.limits.members;
        let mut over = known > most / 10 * 9;
        loop {
            let departed = &mut self.io.departed;
            let crowded = over || departed.recent.len() + departed.lost.len() > most;
            let next = departed.lost.pop_front_if(|(at, _)| crowded || *at <= now);
            let next = next.or_else(|| departed.recent.pop_front_if(|_| crowded));
            let Some((_, member)) = next else { break };
            self.forget(member);
            over = self.members().len() > most / 10 * 9;
        }
        self.after_swim();
    }

    /// Forgets a member that is down. One that is back is not affected.
    fn forget(&mut self, member: Identity) {
        let timer = Timer::RemoveDown(member);
        let _ = self.swim.handle_timer(timer, &mut self.io);
    }

    /// Drops announcements of members that are unknown, or known in another run.
    fn drop_orphans(&mut self, now: Time) {
        if self.announcements.records.is_empty() {
            return;
        }
        let own = self.identity();
        let mut epochs: HashMap<MemberKey, u64> = self
            .members()
            .map(|member| (member.id().key(), member.id().epoch()))
            .collect();
        epochs.insert(own.key(), own.epoch());
        let unix = self.clock.unix;
        let run = |member: &MemberKey| epochs.get(member).copied();
        let swept = self.announcements.records.sweep(now, unix, run);
        self.observer.dirty |= swept;
    }
}
