//! Reports of later runs at the own address, and what this member does about them.
//!
//! A run that others consider old is not listened to, so it must continue in a later one. But a single member could
//! force that again and again. So a later run counts only if members at two IP addresses report it, or at the only one
//! that there is. Each reporter has echoed a challenge, or was dialled where it says it is; a packet that claims to
//! come from the own address proves nothing.
//!
//! A member that is told of later runs too often may share its address. Reports alone do not silence it, since whoever
//! has the key can have honest members repeat them. Instead it dials its own address, and only if a later run answers
//! there is it silent for five minutes, so that the other can speak. It keeps listening: datagrams are read, a proxy
//! still push-pulls, and it takes nobody for dead, since it asks nobody.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::super::Time;
use super::super::identity::Identity;
use super::Node;

/// How many takeovers of the own address in a minute suggest that another member uses it: for a member that has just
/// started, and for any other.
const TAKEOVERS: (usize, usize) = (5, 10);
const MINUTE: Duration = Duration::from_secs(60);
/// The epoch after a takeover is a random one of so many.
const EPOCHS: u32 = 1_000;
/// How long a member that gives way is silent.
const SILENCE: Duration = Duration::from_secs(300);
/// Most reports that are remembered.
const MAX_REPORTS: usize = 64;

/// Whether another member uses this one's address.
#[derive(Debug, Default)]
pub(super) struct AddressConflict {
    /// This member sends nothing until then, but listens.
    silent_until: Option<Time>,
    /// Times of takeovers in the last minute.
    takeovers: VecDeque<Time>,
    reports: Reports,
}

impl AddressConflict {
    pub(super) fn is_silent(&self) -> bool {
        self.silent_until.is_some()
    }
}

/// Reports of later runs in the last minute: time, IP address of the reporter, epoch.
#[derive(Debug, Default)]
struct Reports(Vec<(Time, IpAddr, u64)>);

impl Reports {
    /// Adds a report; returns how many IP addresses reported an epoch above `own` within a minute.
    fn add(&mut self, reporter: IpAddr, seen: u64, own: u64, now: Time) -> usize {
        let recent = |at: Time| now.saturating_sub(at) < MINUTE;
        self.0
            .retain(|&(at, who, run)| recent(at) && run > own && who != reporter);
        if self.0.len() < MAX_REPORTS {
            self.0.push((now, reporter, seen));
        }
        let reporters: HashSet<IpAddr> = self.0.iter().map(|&(_, who, _)| who).collect();
        reporters.len()
    }
}

impl Node {
    /// Notes the report of a member, which has proved to be live, that this address is known in run `seen`, or that the
    /// current run is down.
    pub(in crate::gossip) fn note_later_run(&mut self, reporter: &Identity, seen: u64) {
        let (own, now) = (self.identity().epoch(), self.io.now);
        let far = self.clock.horizon.excludes(seen);
        if seen < own || far || self.io.leaving || self.in_conflict() {
            return;
        }
        if seen == own {
            return self.take_over(seen, false);
        }
        let ip = reporter.address().ip();
        let reporters = self.conflict.reports.add(ip, seen, own, now);
        if reporters >= self.reporters_needed() {
            self.take_over(seen, true);
        } else {
            // Get a second opinion.
            self.joining.heard = false;
            self.call_in(Duration::ZERO);
        }
    }

    /// Two, unless all other members live at one IP address.
    fn reporters_needed(&self) -> usize {
        let own = self.identity().key();
        let others = self.swim.iter_members().map(|member| member.id());
        let mut ips = others
            .filter(|id| id.key() != own)
            .map(|id| id.address().ip());
        let first = ips.next();
        if ips.any(|ip| Some(ip) != first) {
            2
        } else {
            1
        }
    }

    /// Continues in a run after `seen`: a random one of the next, since two members at one address could not be told
    /// apart in the same run. After too many takeovers it checks, if `several` reported it, whether another member has
    /// this address.
    fn take_over(&mut self, seen: u64, several: bool) {
        if self.took_over_too_often() {
            if several {
                self.dial_own_address();
            }
            return;
        }
        let next = seen + 1 + u64::from(self.random_below(EPOCHS));
        // If others would refuse this epoch now, they will accept one a moment later.
        if !self.clock.horizon.excludes(next) {
            self.conflict.takeovers.push_back(self.io.now);
            self.change_run(next);
        }
    }

    fn took_over_too_often(&mut self) -> bool {
        let now = self.io.now;
        let takeovers = &mut self.conflict.takeovers;
        takeovers.retain(|&at| now.saturating_sub(at) < MINUTE);
        let young = now.saturating_sub(self.started) < MINUTE;
        let most = if young { TAKEOVERS.0 } else { TAKEOVERS.1 };
        takeovers.len() >= most
    }

    /// Has the driver dial this member's own address, at most once a second.
    fn dial_own_address(&mut self) {
        if self.rates.own_address_dials.take(self.io.now) {
            let own = self.identity().address();
            self.push_pulls.dial(own);
        }
    }

    /// Notes that a run answered when this member dialled its own address. Only a later run is another member's: an
    /// earlier one may be this member itself, a moment ago.
    pub(in crate::gossip) fn found_at_own_address(&mut self, run: &Identity) {
        let later = run.epoch() > self.identity().epoch();
        if later && self.took_over_too_often() && !self.in_conflict() {
            self.give_way();
        }
    }

    /// Continues in another run, of this member's own accord.
    pub(super) fn begin_another_run(&mut self) {
        let next = self.identity().epoch() + 1 + u64::from(self.random_below(EPOCHS));
        self.change_run(next);
    }

    fn change_run(&mut self, epoch: u64) {
        let next = self.identity().with_epoch(epoch);
        let _ = self.swim.change_identity(next, &mut self.io);
        self.after_swim();
        self.in_new_run(next);
    }

    fn give_way(&mut self) {
        self.conflict.takeovers.clear();
        self.conflict.silent_until = Some(self.io.now + SILENCE);
        self.io.outbox.mute = true;
        self.observer.dirty = true;
    }

    /// Ends the silence when its time is over.
    pub(super) fn end_silence(&mut self, now: Time) {
        let over = self.conflict.silent_until.take_if(|until| *until <= now);
        if over.is_some() {
            self.io.outbox.mute = false;
            self.joining.reset();
            self.observer.dirty = true;
            self.call_in(Duration::ZERO);
        }
    }

    /// Continues in another run: what was announced in the previous one is announced again.
    pub(super) fn in_new_run(&mut self, identity: Identity) {
        self.io.identity = identity;
        self.io.counters.rejoins += 1;
        self.joining.heard = false;
        self.call_in(Duration::ZERO);
        self.observer.dirty = true;
        self.publish_again();
    }
}
