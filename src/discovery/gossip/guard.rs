//! Pure: the guard against a mass removal, of one cluster.
//!
//! The rule: within any [`WINDOW`], at most half of the candidates (and two in any case) go because they are lost,
//! that is down or missing by the set's word. If more would, it is rather the network or this proxy that is cut off:
//! from then on nobody goes for that reason, until no candidate is lost any more or [`HOLD`] has passed; then those
//! that are still due go. Meanwhile balancing passes over the ones that fail their check. What agents order themselves
//! (drain, leave) is no loss.

use std::collections::VecDeque;
use std::time::Duration;

const WINDOW: Duration = Duration::from_secs(10);
const HOLD: Duration = Duration::from_secs(300);
/// Fewer are never too many.
const FEWEST: usize = 3;

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
    /// Of `members`, `lost` are lost, of which `due` would go now.
    pub(super) fn judge(
        &mut self,
        now: Duration,
        members: usize,
        lost: usize,
        due: usize,
    ) -> Verdict {
        while self.gone.front().is_some_and(|&(at, _)| at + WINDOW <= now) {
            self.gone.pop_front();
        }
        match self.held_until {
            Some(_) if lost == 0 => {
                self.held_until = None;
                return Verdict::HoldEnds;
            }
            Some(until) if now < until => return Verdict::Held,
            Some(_) => self.held_until = None,
            None => {
                let gone: usize = self.gone.iter().map(|(_, count)| count).sum();
                let going = due + gone;
                if due > 0 && going >= FEWEST && 2 * going > members + gone {
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

    /// When the hold ends at the latest.
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

    #[test]
    fn more_than_half_at_once_are_held() {
        for (members, due, expected) in [
            (10, 5, Go),
            (10, 6, HoldBegins),
            (4, 2, Go),
            (4, 3, HoldBegins),
            (2, 2, Go),
            (3, 2, Go),
            (3, 3, HoldBegins),
            (1, 1, Go),
            (1000, 500, Go),
            (1000, 501, HoldBegins),
        ] {
            let verdict = Guard::default().judge(s(100), members, due, due);
            assert_eq!(verdict, expected, "{due} of {members}");
        }
    }

    #[test]
    fn those_that_went_within_ten_seconds_count() {
        for (second, expected) in [(109, HoldBegins), (110, Go)] {
            let mut guard = Guard::default();
            assert_eq!(guard.judge(s(100), 10, 3, 3), Go);
            assert_eq!(guard.judge(s(second), 7, 3, 3), expected, "{second}");
        }
    }

    #[test]
    fn a_hold_ends_with_the_loss_or_after_five_minutes() {
        let mut guard = Guard::default();
        assert_eq!(guard.judge(s(100), 4, 4, 3), HoldBegins);
        assert_eq!(guard.judge(s(399), 4, 4, 4), Held);
        assert_eq!(guard.judge(s(399), 4, 0, 0), HoldEnds);
        assert_eq!(guard.judge(s(399), 4, 1, 1), Go);

        let mut guard = Guard::default();
        assert_eq!(guard.judge(s(100), 4, 4, 4), HoldBegins);
        assert_eq!(guard.held_until(), Some(s(400)));
        assert_eq!(guard.judge(s(400), 4, 4, 4), Go);
        assert_eq!(guard.held_until(), None);
    }
}
