//! Pure: derives the state of one backend from probe results, refused connections and time. No clock, no socket, no
//! shared state: the caller passes in results and the time, and sets the backend's health bits accordingly.
//!
//! [`CheckState`] implements rise and fall. A backend is considered up until something speaks against it. Before its
//! first pass nothing speaks for it either, so one failure is enough: a proxy that starts next to a dead backend stops
//! using it after one probe instead of `fall` probes. [`TrialState`] is how a backend without a check recovers: one
//! live request may try it after 1 s, and after each failure in twice the time, up to 30 s (truncated binary
//! exponential back-off).

use std::time::{Duration, Instant};

/// Wait before the first trial.
const FIRST_TRIAL: Duration = Duration::from_secs(1);
/// Longest wait before a trial.
const LAST_TRIAL: Duration = Duration::from_secs(30);
/// A claimed trial without a result for this long is granted again.
const TRIAL_LOST: Duration = Duration::from_secs(30);
/// Interval at which a granted trial is reviewed.
const REVIEW: Duration = Duration::from_secs(1);

/// A change of a backend's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transition {
    /// The backend may be used again.
    Up,
    /// The backend must not be used.
    Down,
}

/// Rise and fall of one backend under an active check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckState {
    status: CheckStatus,
    /// Consecutive results that contradict the status.
    contradicting: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CheckStatus {
    /// Considered up, but no probe has passed yet.
    Unproven,
    Up,
    Down,
}

impl CheckState {
    /// Starts with a backend that has not been checked: up, unless it is already `down`.
    pub(crate) fn new(down: bool) -> Self {
        Self {
            status: if down {
                CheckStatus::Down
            } else {
                CheckStatus::Unproven
            },
            contradicting: 0,
        }
    }

    /// Whether the backend is down.
    pub(crate) fn is_down(&self) -> bool {
        self.status == CheckStatus::Down
    }

    /// Forgets the results of the previous check, but not the status: a healthy backend stays healthy.
    pub(crate) fn restart(&mut self) {
        self.contradicting = 0;
    }

    /// Records a probe that passed; `rise` in a row bring the backend up.
    pub(crate) fn passed(&mut self, rise: u32) -> Option<Transition> {
        if self.status != CheckStatus::Down {
            *self = Self {
                status: CheckStatus::Up,
                contradicting: 0,
            };
            return None;
        }
        self.contradict(rise, CheckStatus::Up)
    }

    /// Records a probe that failed; `fall` in a row take the backend down, or one if none has ever passed.
    pub(crate) fn failed(&mut self, fall: u32) -> Option<Transition> {
        match self.status {
            CheckStatus::Unproven => self.contradict(1, CheckStatus::Down),
            CheckStatus::Up => self.contradict(fall, CheckStatus::Down),
            CheckStatus::Down => {
                self.contradicting = 0;
                None
            }
        }
    }

    /// Records a refused live connection: the backend is down at once, and passes so far no longer count.
    pub(crate) fn refused(&mut self) -> Option<Transition> {
        self.contradicting = 0;
        if self.is_down() {
            return None;
        }
        self.contradict(1, CheckStatus::Down)
    }

    /// Counts a result that contradicts the status; after `needed` of them the status becomes `to`.
    fn contradict(&mut self, needed: u32, to: CheckStatus) -> Option<Transition> {
        self.contradicting = self.contradicting.saturating_add(1);
        if self.contradicting < needed {
            return None;
        }
        *self = Self {
            status: to,
            contradicting: 0,
        };
        Some(match to {
            CheckStatus::Down => Transition::Down,
            CheckStatus::Up | CheckStatus::Unproven => Transition::Up,
        })
    }
}

/// The trials of one backend without a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TrialState {
    wait: Duration,
    phase: TrialPhase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TrialPhase {
    /// The backend is not refused.
    Quiet,
    /// The backend is refused; the next trial is granted at this time.
    Waiting(Instant),
    /// A trial is granted.
    Granted {
        /// When it was first seen to be claimed.
        claimed: Option<Instant>,
        /// When to review it.
        review: Instant,
    },
}

/// What to do for a refused backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrialAction {
    /// Grant a trial.
    Grant,
    /// Set the flag again that announces trials to picks: one may have searched just before the grant, and cleared the
    /// flag just after it.
    Remind,
}

impl Default for TrialState {
    fn default() -> Self {
        Self {
            wait: FIRST_TRIAL,
            phase: TrialPhase::Quiet,
        }
    }
}

impl TrialState {
    /// Records a refused live connection. `unclaimed` says that the granted trial has not been claimed, so that this is
    /// not its result, but that of an earlier request.
    pub(crate) fn refused(&mut self, now: Instant, unclaimed: bool) {
        match self.phase {
            TrialPhase::Quiet => self.wait = FIRST_TRIAL,
            TrialPhase::Granted { .. } if !unclaimed => self.wait = (self.wait * 2).min(LAST_TRIAL),
            TrialPhase::Waiting(_) | TrialPhase::Granted { .. } => return,
        }
        self.phase = TrialPhase::Waiting(now + self.wait);
    }

    /// Records that the backend accepts connections again.
    pub(crate) fn recovered(&mut self) {
        *self = Self::default();
    }

    /// Whether it has not been refused since it last recovered.
    pub(crate) fn is_quiet(&self) -> bool {
        self.phase == TrialPhase::Quiet
    }

    /// When [`Self::tick`] has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.phase {
            TrialPhase::Quiet => None,
            TrialPhase::Waiting(due) => Some(due),
            TrialPhase::Granted { review, .. } => Some(review),
        }
    }

    /// Advances the time for a backend that is still refused; `unclaimed` says that the granted trial has not been
    /// claimed.
    pub(crate) fn tick(&mut self, now: Instant, unclaimed: bool) -> Option<TrialAction> {
        let review = now + REVIEW;
        match self.phase {
            TrialPhase::Quiet => None,
            TrialPhase::Waiting(due) => (now >= due).then(|| self.grant(review)),
            TrialPhase::Granted { review: next, .. } if now < next => None,
            TrialPhase::Granted { .. } if unclaimed => {
                let claimed = None;
                self.phase = TrialPhase::Granted { claimed, review };
                Some(TrialAction::Remind)
            }
            TrialPhase::Granted { claimed, .. } => {
                let claimed = claimed.unwrap_or(now);
                if now.duration_since(claimed) >= TRIAL_LOST {
                    return Some(self.grant(review));
                }
                let claimed = Some(claimed);
                self.phase = TrialPhase::Granted { claimed, review };
                None
            }
        }
    }

    fn grant(&mut self, review: Instant) -> TrialAction {
        let claimed = None;
        self.phase = TrialPhase::Granted { claimed, review };
        TrialAction::Grant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays `events` (`+` a pass, `-` a failure, `!` a refused live connection, `*` a changed check) and returns the
    /// transition of each: `u`, `d` or `.`.
    fn play(down: bool, rise: u32, fall: u32, events: &str) -> String {
        let mut state = CheckState::new(down);
        events
            .chars()
            .map(|event| {
                let change = match event {
                    '+' => state.passed(rise),
                    '-' => state.failed(fall),
                    '!' => state.refused(),
                    '*' => {
                        state.restart();
                        None
                    }
                    other => panic!("no such event: {other}"),
                };
                match change {
                    Some(Transition::Up) => 'u',
                    Some(Transition::Down) => 'd',
                    None => '.',
                }
            })
            .collect()
    }

    #[test]
    fn rise_and_fall() {
        for (down, rise, fall, events, expected) in [
            // At first it is considered up; one failure is enough, then `rise` passes bring it back.
            (false, 2, 3, "-++", "d.u"),
            (false, 2, 3, "+--", "..."),
            (false, 2, 3, "+---", "...d"),
            // Only consecutive failures and passes count.
            (false, 2, 3, "+--+--+---", ".........d"),
            (false, 3, 1, "-++-+++", "d.....u"),
            (false, 1, 1, "+-+-+", ".dudu"),
            // Once it is up again, one failure is no longer enough.
            (false, 2, 3, "-++--+---", "d.u.....d"),
            // A refused live connection takes it down at once and resets the passes.
            (false, 2, 3, "+!++", ".d.u"),
            (false, 2, 3, "+!+!++", ".d...u"),
            (false, 2, 3, "!-++", "d..u"),
            (false, 2, 3, "+--!", "...d"),
            // Already down.
            (true, 2, 3, "+-++", "...u"),
            (true, 1, 3, "+", "u"),
            // A changed check resets only the counts.
            (false, 2, 3, "+--*--", "......"),
            (false, 2, 3, "+--*---", "......d"),
            (false, 2, 3, "+---+*++", "...d...u"),
            (false, 2, 3, "*-", ".d"),
        ] {
            assert_eq!(play(down, rise, fall, events), expected, "{events}");
        }
    }

    #[test]
    fn trials_come_after_one_second_and_then_with_back_off() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut trials = TrialState::default();
        assert_eq!(trials.due(), None);
        let (mut now, mut waits) = (start, Vec::new());
        for _ in 0..8 {
            trials.refused(now, false);
            let due = trials.due().unwrap();
            waits.push((due - now).as_secs());
            assert_eq!(trials.tick(due - Duration::from_millis(1), false), None);
            assert_eq!(trials.tick(due, false), Some(TrialAction::Grant));
            now = due;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        trials.recovered();
        assert_eq!(trials.due(), None);
        trials.refused(at(1000), false);
        assert_eq!(trials.due(), Some(at(1001)), "recovery resets the wait");
    }

    #[test]
    fn refused_connections_before_the_trial_is_claimed_change_nothing() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut trials = TrialState::default();
        trials.refused(start, false);
        trials.refused(start + Duration::from_millis(500), false);
        assert_eq!(trials.due(), Some(at(1)), "the requests were sent before");
        assert_eq!(trials.tick(at(1), false), Some(TrialAction::Grant));
        trials.refused(at(1), true);
        assert_eq!(trials.due(), Some(at(2)), "the trial is still unclaimed");
        trials.refused(at(2), false);
        assert_eq!(trials.due(), Some(at(4)), "this one was the trial");
    }

    #[test]
    fn a_lost_trial_is_granted_again() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut trials = TrialState::default();
        trials.refused(start, false);
        assert_eq!(trials.tick(at(1), false), Some(TrialAction::Grant));
        for second in 2..100 {
            assert_eq!(trials.tick(at(second), true), Some(TrialAction::Remind));
        }
        let mut granted = Vec::new();
        for second in 100..165 {
            if trials.tick(at(second), false) == Some(TrialAction::Grant) {
                granted.push(second);
            }
        }
        assert_eq!(granted, [130, 161], "claimed at 100, and again at 131");
        assert_eq!(trials.wait, FIRST_TRIAL, "no result is not a failure");
    }
}
