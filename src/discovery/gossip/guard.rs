//! Pure: the guard against mass removals in one cluster.
//!
//! Within any [`WINDOW`] at most half of the candidates are removed because they are lost: down, missing, failing or
//! expired, as the set reports it. If more are lost, it is more likely that the network or this proxy is cut off. From
//! then on none is removed for that reason, until no candidate is lost any more or [`HOLD`] has passed; then those that
//! are still due are removed. The rule applies to every size: one of one is more than half. All lost candidates count,
//! not only those that are due, since checks answer at different times, and a proxy that is cut off finds its peers
//! down one by one. Meanwhile balancing skips those that fail their check. What agents order themselves (drain, leave)
//! does not count as a loss.

use std::collections::VecDeque;
use std::time::Duration;

const WINDOW: Duration = Duration::from_secs(10);
const HOLD: Duration = Duration::from_secs(300);

/// The state of a cluster's candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Losses {
    /// How many there are.
    pub(super) candidates: usize,
    /// How many are lost.
    pub(super) lost: usize,
    /// How many of the lost ones do not pass a check of ours.
    pub(super) unvouched: usize,
    /// How many of the lost ones would be removed now.
    pub(super) due: usize,
    /// A hold does not end by time.
    pub(super) endless: bool,
}

/// What happens to those that are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RemovalDecision {
    /// They are removed.
    Remove,
    /// They stay, from now on.
    HoldBegins,
    /// They still stay.
    Held,
    /// None is lost any more.
    HoldEnds,
}

/// The guard of one cluster; see the module.
#[derive(Debug, Default)]
pub(super) struct RemovalGuard {
    held_until: Option<Duration>,
    /// How many were removed within the last [`WINDOW`], and when.
    removed: VecDeque<(Duration, usize)>,
}

impl RemovalGuard {
    /// Decides whether those that are due may be removed.
    pub(super) fn decide(&mut self, now: Duration, losses: Losses) -> RemovalDecision {
        let Losses {
            candidates, due, ..
        } = losses;
        while self
            .removed
            .front()
            .is_some_and(|&(at, _)| at + WINDOW <= now)
        {
            self.removed.pop_front();
        }
        match self.held_until {
            Some(_) if losses.lost == 0 => {
                self.held_until = None;
                return RemovalDecision::HoldEnds;
            }
            Some(until) if now < until || losses.endless => return RemovalDecision::Held,
            Some(_) => self.held_until = None,
            None => {
                let removed: usize = self.removed.iter().map(|(_, count)| count).sum();
                if due > 0 && 2 * (losses.unvouched + removed) > candidates + removed {
                    self.held_until = Some(now + HOLD);
                    return RemovalDecision::HoldBegins;
                }
            }
        }
        if due > 0 {
            self.removed.push_back((now, due));
        }
        RemovalDecision::Remove
    }

    /// When the hold ends at the latest, unless it is endless.
    pub(super) fn held_until(&self) -> Option<Duration> {
        self.held_until
    }
}

#[cfg(test)]
mod tests {
    use super::RemovalDecision::{Held, HoldBegins, HoldEnds, Remove};
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const fn losses(candidates: usize, lost: usize, due: usize) -> Losses {
        Losses {
            candidates,
            lost,
            unvouched: lost,
            due,
            endless: false,
        }
    }

    #[test]
    fn more_than_half_at_once_stay() {
        for (candidates, lost, due, expected) in [
            (10, 5, 5, Remove),
            (10, 6, 6, HoldBegins),
            (4, 2, 2, Remove),
            (4, 3, 3, HoldBegins),
            (1, 1, 1, HoldBegins),
            (2, 1, 1, Remove),
            (2, 2, 2, HoldBegins),
            (3, 1, 1, Remove),
            (3, 2, 2, HoldBegins),
            (3, 3, 3, HoldBegins),
            // The others become due a moment later.
            (2, 2, 1, HoldBegins),
            (3, 2, 1, HoldBegins),
            (3, 3, 0, Remove),
            (1000, 500, 1, Remove),
            (1000, 501, 1, HoldBegins),
        ] {
            let decision = RemovalGuard::default().decide(s(100), losses(candidates, lost, due));
            assert_eq!(decision, expected, "{due} of {lost} of {candidates}");
        }
        let vouched = Losses {
            unvouched: 1,
            ..losses(3, 3, 1)
        };
        assert_eq!(RemovalGuard::default().decide(s(100), vouched), Remove);
    }

    #[test]
    fn removals_within_ten_seconds_count() {
        for (second, expected) in [(109, HoldBegins), (110, Remove)] {
            let mut guard = RemovalGuard::default();
            assert_eq!(guard.decide(s(100), losses(10, 3, 3)), Remove);
            assert_eq!(
                guard.decide(s(second), losses(7, 3, 3)),
                expected,
                "{second}"
            );
        }
    }

    #[test]
    fn a_hold_ends_with_the_loss_or_after_five_minutes() {
        let mut guard = RemovalGuard::default();
        assert_eq!(guard.decide(s(100), losses(4, 4, 3)), HoldBegins);
        assert_eq!(guard.decide(s(399), losses(4, 4, 4)), Held);
        assert_eq!(guard.decide(s(399), losses(4, 0, 0)), HoldEnds);
        assert_eq!(guard.decide(s(399), losses(4, 1, 1)), Remove);

        let mut guard = RemovalGuard::default();
        assert_eq!(guard.decide(s(100), losses(4, 4, 4)), HoldBegins);
        assert_eq!(guard.held_until(), Some(s(400)));
        let endless = Losses {
            endless: true,
            ..losses(4, 4, 4)
        };
        assert_eq!(guard.decide(s(100_000), endless), Held);
        assert_eq!(guard.decide(s(100_001), losses(4, 4, 4)), Remove);
        assert_eq!(guard.held_until(), None);
    }
}
