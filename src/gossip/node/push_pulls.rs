//! When this member compares its whole state with another one over a stream, and with which.

use std::net::SocketAddr;
use std::time::Duration;

use foca::State;
use rand::RngExt;

use super::super::Time;
use super::Node;
use super::io::NodeTimer;
use super::joining::is_gone;

/// Time until an extra push-pull when much has changed at once. Gossip loses some of that, since a member in a new run
/// is challenged by everybody before it is listened to.
const EXTRA_AFTER: Duration = Duration::from_secs(2);

/// The push-pulls to begin.
#[derive(Debug, Default)]
pub(super) struct PushPullQueue {
    wanted: Vec<SocketAddr>,
    /// Extra push-pulls that are planned.
    extra: u8,
    /// Members that came, went or began another run since the last look.
    pub churn: usize,
}

impl PushPullQueue {
    pub(super) fn take(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.wanted)
    }

    /// Dials an address, in whatever state this member is.
    pub(super) fn dial(&mut self, address: SocketAddr) {
        self.wanted.push(address);
    }
}

impl Node {
    /// Plans a push-pull with a member.
    pub(super) fn request_push_pull(&mut self, member: SocketAddr) {
        // A silent agent has nothing to ask.
        let may = !self.in_conflict() || self.stores_all();
        if may && !self.io.leaving && !self.push_pulls.wanted.contains(&member) {
            self.push_pulls.wanted.push(member);
        }
    }

    /// Tells how a push-pull ended that this member asked for.
    pub fn push_pull_ended(&mut self, succeeded: bool, now: Time) {
        self.io.now = now;
        if !succeeded {
            self.io.counters.push_pulls_failed += 1;
            return;
        }
        self.io.counters.push_pulls += 1;
        if !self.joining.joined {
            self.joining.joined = true;
            self.call_in(Duration::ZERO);
            self.retune();
            // If many join at once, the first member that was asked knew few of them.
            self.plan_extra_push_pulls(2, None);
        }
    }

    /// Plans so many extra push-pulls: the first with a certain member, the others with any.
    pub(super) fn plan_extra_push_pulls(&mut self, count: u8, with: Option<SocketAddr>) {
        if self.push_pulls.extra == 0 {
            let wait = EXTRA_AFTER.mul_f64(self.io.rng.random_range(0.5..1.5));
            self.io.after(wait, NodeTimer::ExtraPushPull(with));
        }
        self.push_pulls.extra = self.push_pulls.extra.max(count);
    }

    /// Begins a planned extra push-pull, with this member or with any.
    pub(super) fn extra_push_pull(&mut self, with: Option<SocketAddr>) {
        self.push_pulls.extra = self.push_pulls.extra.saturating_sub(1);
        if self.push_pulls.extra > 0 {
            self.io.after(EXTRA_AFTER, NodeTimer::ExtraPushPull(None));
        }
        match with {
            Some(member) => self.request_push_pull(member),
            None => self.push_pull_with_any(),
        }
    }

    /// Plans extra push-pulls if a sixteenth of the set changed since the last look.
    pub(super) fn push_pull_after_churn(&mut self) {
        let most = (self.active() / 16).max(3);
        if std::mem::take(&mut self.push_pulls.churn) >= most {
            self.plan_extra_push_pulls(3, None);
        }
    }

    /// Begins a push-pull with one other member. A proxy chooses another proxy every other time, so that announcements
    /// are repaired. Now and then a member that is down without having left is chosen, so that a set that was
    /// partitioned finds together.
    pub(super) fn push_pull_with_any(&mut self) {
        let among_proxies = self.stores_all() && self.random_below(2) == 0;
        let proxies = &self.announcements.proxies;
        if among_proxies && !proxies.is_empty() {
            let index = self.random_index(self.announcements.proxies.len());
            return self.request_push_pull(self.announcements.proxies[index].address());
        }
        let down = self.random_below(4) == 0;
        let chosen = down
            .then(|| self.random_member(is_gone))
            .flatten()
            .or_else(|| self.random_member(|member| member.state() != State::Down));
        if let Some(member) = chosen {
            self.request_push_pull(member.address());
        }
    }
}
