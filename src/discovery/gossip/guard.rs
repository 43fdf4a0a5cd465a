//! Pure: the guard against a mass removal, of one cluster.
//!
//! The rule: within any [`WINDOW`], at most half of the candidates go because they are lost, that is down, missing,
//! failing or expired by the set's word. If more are lost, it is rather the network or this proxy that is cut off: from
//! then on nobody goes for that reason, until no candidate is lost any more or [`HOLD`] has passed; then those that are
//! still due go. It holds for every size: one of one is more than half. Not only those that are due count, but all that
//! are lost, since a check answers sooner here than there, and a proxy that is cut off finds its peers down one by one.
//! Meanwhile balancing passes over the ones that fail their check. What agents order themselves (drain, leave) is no
//! loss.

use std::collections::VecDeque;
use std::time::Duration;

const WINDOW: Duration = Duration::from_secs(10);
const HOLD: Duration = Duration::from_secs(300);

/// How the candidates of a cluster are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Losses {
    /// All of them.
    pub(super) members: usize,
    /// Those that are lost.
    pub(super) lost: usize,
    /// Those of them for which no check of ours speaks.
    pub(super) unvouched: usize,
    /// Those of them that would go now.
    pub(super) due: usize,
    /// A hold does not end by time.
    pub(super) endless: bool,
}

/// What becomes of those that are due to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They go.
    Go,
    /// They stay, as of now.
    HoldBegins,
    /// They stay.
    Held,
    /// Nobody is lost any more.
    HoldEnds,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Guard {
    held_until: Option<Duration>,
    /// How many went, and when; of the last [`WINDOW`].
    gone: VecDeque<(Duration, usize)>,
}

impl Guard {
    /// Whether those that are due may go.
    pub(super) fn judge(&mut self, now: Duration, losses: Losses) -> Verdict {
        let Losses { members, due, .. } = losses;
        while self.gone.front().is_some_and(|&(at, _)| at + WINDOW <= now) {
            self.gone.pop_front();
        }
        match self.held_until {
            Some(_) if losses.lost == 0 => {
                self.held_until = None;
                return Verdict::HoldEnds;
            }
            Some(until) if now < until || losses.endless => return Verdict::Held,
            Some(_) => self.held_until = None,
            None => {
                let gone: usize = self.gone.iter().map(|(_, count)| count).sum();
                if due > 0 && 2 * (losses.unvouched + gone) > members + gone {
                    self.held_until = Some(now + HOLD);
                    return Verdict::HoldBegins;
                }
            }
        }
        if due > 0 {
            self.gone.push_back((now, due));
        }
        Verdict::Go
    }

    /// When the hold ends at the latest, unless it is endless.
    pub(super) fn held_until(&self) -> Option<Duration> {
        self.held_until
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Go, Held, HoldBegins, HoldEnds};
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const fn losses(members: usize, lost: usize, due: usize) -> Losses {
        Losses {
            members,
            lost,
            unvouched: lost,
            due,
            endless: false,
        }
    }

    #[test]
    fn more_than_half_at_once_are_held() {
        for (members, lost, due, expected) in [
            (10, 5, 5, Go),
            (10, 6, 6, HoldBegins),
            (4, 2, 2, Go),
            (4, 3, 3, HoldBegins),
            (1, 1, 1, HoldBegins),
            (2, 1, 1, Go),
            (2, 2, 2, HoldBegins),
            (3, 1, 1, Go),
            (3, 2, 2, HoldBegins),
            (3, 3, 3, HoldBegins),
            // The others of them are due a moment later.
            (2, 2, 1, HoldBegins),
            (3, 2, 1, HoldBegins),
            (3, 3, 0, Go),
            (1000, 500, 1, Go),
            (1000, 501, 1, HoldBegins),
        ] {
            let verdict = Guard::default().judge(s(100), losses(members, lost, due));
            assert_eq!(verdict, expected, "{due} of {lost} of {members}");
        }
        let vouched = Losses {
            unvouched: 1,
            ..losses(3, 3, 1)
        };
        assert_eq!(Guard::default().judge(s(100), vouched), Go);
    }

    #[test]
    fn those_that_went_within_ten_seconds_count() {
        for (second, expected) in [(109, HoldBegins), (110, Go)] {
            let mut guard = Guard::default();
            assert_eq!(guard.judge(s(100), losses(10, 3, 3)), Go);
            assert_eq!(
                guard.judge(s(second), losses(7, 3, 3)),
                expected,
                "{second}"
            );
        }
    }

    #[test]
    fn a_hold_ends_with_the_loss_or_after_five_minutes() {
        let mut guard = Guard::default();
        assert_eq!(guard.judge(s(100), losses(4, 4, 3)), HoldBegins);
        assert_eq!(guard.judge(s(399), losses(4, 4, 4)), Held);
        assert_eq!(guard.judge(s(399), losses(4, 0, 0)), HoldEnds);
        assert_eq!(guard.judge(s(399), losses(4, 1, 1)), Go);

        let mut guard = Guard::default();
        assert_eq!(guard.judge(s(100), losses(4, 4, 4)), HoldBegins);
        assert_eq!(guard.held_until(), Some(s(400)));
        let endless = Losses {
            endless: true,
            ..losses(4, 4, 4)
        };
        assert_eq!(guard.judge(s(100_000), endless), Held);
        assert_eq!(guard.judge(s(100_001), losses(4, 4, 4)), Go);
        assert_eq!(guard.held_until(), None);
    }
}
