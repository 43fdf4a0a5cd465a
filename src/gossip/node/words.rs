//! What others say of later runs at the own address, and what is done about it.
//!
//! A run that others hold for old is not listened to, so it must go on in a later one. But a single member could make
//! it do so again and again: a later run counts only if members at two IP addresses tell of it, or at the only one that
//! there is. Each of them has echoed a challenge, or was dialled where it says it is; what claims to come from the own
//! address proves nothing.
//!
//! Who is told of later runs too often may share its address. Others' words alone do not silence it, since whoever has
//! the key can put them into honest mouths: it dials its own address, and only if a later run answers there it says
//! nothing for five minutes, so that the other can. It goes on listening: datagrams are read, a proxy compares states
//! as before, and nobody is thought down by a member that asks nobody.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use super::super::Time;
use super::super::identity::Identity;
use super::Node;

/// More takeovers of the own address than this in a minute, by a member that has just come and by another: somebody
/// else may live there.
const TAKEOVERS: (usize, usize) = (5, 10);
const MINUTE: Duration = Duration::from_secs(60);
/// The epoch after a takeover is one of so many.
const EPOCHS: u32 = 1_000;
/// How long the member that gives way says nothing.
const SILENCE: Duration = Duration::from_secs(300);
/// Words that are remembered.
const MOST: usize = 64;

/// Words of the last minute, by the IP address of who told.
#[derive(Debug, Default)]
pub(super) struct Words(Vec<(Time, IpAddr, u64)>);

impl Words {
    /// Notes that somebody told of a later run; how many have told of one above `own` within a minute.
    fn note(&mut self, teller: IpAddr, seen: u64, own: u64, now: Time) -> usize {
        let recent = |at: Time| now.saturating_sub(at) < MINUTE;
        self.0
            .retain(|&(at, who, run)| recent(at) && run > own && who != teller);
        if self.0.len() < MOST {
            self.0.push((now, teller, seen));
        }
        let tellers: HashSet<IpAddr> = self.0.iter().map(|&(_, who, _)| who).collect();
        tellers.len()
    }
}

impl Node {
    /// Somebody who has proved to be live says that this address is known in run `seen`; or that the own run is down.
    pub(in crate::gossip) fn hear_of(&mut self, teller: &Identity, seen: u64) {
        let (own, now) = (self.identity().epoch(), self.io.now);
        let far = self.horizon.excludes(seen);
        if seen < own || far || self.io.leaving || self.silent_until.is_some() {
            return;
        }
        if seen == own {
            return self.take_over(seen, false);
        }
        let tellers = self.words.note(teller.address().ip(), seen, own, now);
        if tellers >= self.tellers_needed() {
            self.take_over(seen, true);
        } else {
            // A second opinion.
            self.heard = false;
            self.call_in(Duration::ZERO);
        }
    }

    /// Two, unless all other members live at one IP address.
    fn tellers_needed(&self) -> usize {
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

    /// Goes on in a run after `seen`: one of the next, by chance, since two at one address would not be told apart in
    /// the same one. After too many of them it looks whether somebody else has this address, if `several` say so.
    fn take_over(&mut self, seen: u64, several: bool) {
        if self.took_over_too_often() {
            if several {
                self.look_at_own_address();
            }
            return;
        }
        let next = seen + 1 + u64::from(self.random_below(EPOCHS));
        // Where others would not believe it, a moment later they will.
        if !self.horizon.excludes(next) {
            self.takeovers.push_back(self.io.now);
            self.change_run(next);
        }
    }

    fn took_over_too_often(&mut self) -> bool {
        let now = self.io.now;
        self.takeovers.retain(|&at| now.saturating_sub(at) < MINUTE);
        let young = now.saturating_sub(self.started) < MINUTE;
        let most = if young { TAKEOVERS.0 } else { TAKEOVERS.1 };
        self.takeovers.len() >= most
    }

    /// Has its own address dialled, at most once a second.
    fn look_at_own_address(&mut self) {
        if self.looks.take(self.io.now, 1) {
            self.exchanges.push(self.identity().address());
        }
    }

    /// This run has answered where this member was dialled at its own address. It is another one if it is later: an
    /// earlier one may be this member itself, a moment ago.
    pub(in crate::gossip) fn found_at_own_address(&mut self, run: &Identity) {
        let later = run.epoch() > self.identity().epoch();
        if later && self.took_over_too_often() && self.silent_until.is_none() {
            self.give_way();
        }
    }

    /// Goes on in another run, of this member's own accord.
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
        self.takeovers.clear();
        self.silent_until = Some(self.io.now + SILENCE);
        self.io.mute = true;
        self.dirty = true;
    }

    /// Speaks again when its time has come.
    pub(super) fn end_silence(&mut self, now: Time) {
        if self.silent_until.is_some_and(|until| until <= now) {
            self.silent_until = None;
            self.io.mute = false;
            self.joined = false;
            self.heard = false;
            self.join_tries = 0;
            self.dirty = true;
            self.call_in(Duration::ZERO);
        }
    }

    /// Goes on in another run: what was said in the one before is said again.
    pub(super) fn in_new_run(&mut self, identity: Identity) {
        self.io.identity = identity;
        self.io.counters.rejoins += 1;
        self.heard = false;
        self.call_in(Duration::ZERO);
        self.dirty = true;
        if let Some(own) = &self.own {
            let record = own.record.clone();
            // It was within the limits in the run before.
            let _ = self.publish(record, 1);
        }
    }
}
