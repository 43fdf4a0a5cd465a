//! Pure: what results, refusals and time make of one backend. No clock, no socket, no shared state: the caller
//! hands in the results and the time, and flips the backend's health bits as told.
//!
//! [`CheckState`] is rise and fall. A backend is thought up until something speaks against it, but until its first
//! pass nothing speaks for it either, so then one failure is enough; that is how a process that starts before a
//! dead backend leaves it out after one probe instead of `fall` of them. [`TrialState`] is the way back of a backend
//! without a check: one live request may try it after 1 s, and after twice the time with each one that fails, up to
//! 30 s (truncated binary exponential back-off).

use std::time::{Duration, Instant};

/// First wait before a trial.
const FIRST_TRIAL: Duration = Duration::from_secs(1);
/// Longest wait before a trial.
const LAST_TRIAL: Duration = Duration::from_secs(30);
/// A trial that was taken and of which nothing was heard for so long is granted again.
const TRIAL_LOST: Duration = Duration::from_secs(30);
/// How often a trial that is out is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What a result changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It may be used again.
    Up,
    /// It is not to be used.
    Down,
}

/// Rise and fall of one backend under an active check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckState {
    standing: Standing,
    /// Results in a row that speak against the standing.
    against: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Thought up; has never passed.
    Unproven,
    Up,
    Down,
}

impl CheckState {
    /// A backend that is not checked yet: up, unless it is `down` from before.
    pub(crate) fn new(down: bool) -> Self {
        Self {
            standing: if down {
                Standing::Down
            } else {
                Standing::Unproven
            },
            against: 0,
        }
    }

    /// Whether it is down.
    pub(crate) fn is_down(&self) -> bool {
        self.standing == Standing::Down
    }

    /// Forgets the results of another check, but not where they led: a healthy backend stays so.
    pub(crate) fn restart(&mut self) {
        self.against = 0;
    }

    /// A probe passed; `rise` in a row bring it up.
    pub(crate) fn passed(&mut self, rise: u32) -> Option<Change> {
        if self.standing != Standing::Down {
            *self = Self {
                standing: Standing::Up,
                against: 0,
            };
            return None;
        }
        self.turn(rise, Standing::Up)
    }

    /// A probe failed; `fall` in a row take it down, and the first one if none ever passed.
    pub(crate) fn failed(&mut self, fall: u32) -> Option<Change> {
        match self.standing {
            Standing::Unproven => self.turn(1, Standing::Down),
            Standing::Up => self.turn(fall, Standing::Down),
            Standing::Down => {
                self.against = 0;
                None
            }
        }
    }

    /// A live connection was refused: down at once, and what had passed so far counts no more.
    pub(crate) fn refused(&mut self) -> Option<Change> {
        self.against = 0;
        if self.is_down() {
            return None;
        }
        self.turn(1, Standing::Down)
    }

    fn turn(&mut self, needed: u32, to: Standing) -> Option<Change> {
        self.against = self.against.saturating_add(1);
        if self.against < needed {
            return None;
        }
        *self = Self {
            standing: to,
            against: 0,
        };
        Some(match to {
            Standing::Down => Change::Down,
            Standing::Up | Standing::Unproven => Change::Up,
        })
    }
}

/// The trials of one backend that no check looks after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TrialState {
    wait: Duration,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not refused.
    Quiet,
    /// Refused; the next trial is granted then.
    Waiting(Instant),
    /// A trial is granted.
    Granted {
        /// When it was first seen to be taken.
        taken: Option<Instant>,
        /// When to look again.
        look: Instant,
    },
}

/// What is to be done for a refused backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Grant a trial.
    Grant,
    /// Tell the pickers once more that a trial waits to be taken: one of them may have looked just before it was
    /// granted, and have said that there was none just after.
    Remind,
}

impl Default for TrialState {
    fn default() -> Self {
        Self {
            wait: FIRST_TRIAL,
            phase: Phase::Quiet,
        }
    }
}

impl TrialState {
    /// A live connection was refused. `waiting` says that the trial that is out has not been taken, so that this
    /// is not its result but that of a request that had begun before.
    pub(crate) fn refused(&mut self, now: Instant, waiting: bool) {
        match self.phase {
            Phase::Quiet => self.wait = FIRST_TRIAL,
            Phase::Granted { .. } if !waiting => self.wait = (self.wait * 2).min(LAST_TRIAL),
            Phase::Waiting(_) | Phase::Granted { .. } => return,
        }
        self.phase = Phase::Waiting(now + self.wait);
    }

    /// It takes connections again.
    pub(crate) fn recovered(&mut self) {
        *self = Self::default();
    }

    /// Whether it was never refused since it last recovered.
    pub(crate) fn is_quiet(&self) -> bool {
        self.phase == Phase::Quiet
    }

    /// When [`Self::tick`] has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Quiet => None,
            Phase::Waiting(due) => Some(due),
            Phase::Granted { look, .. } => Some(look),
        }
    }

    /// Time has passed for a backend that is still refused; `waiting` says that the trial that is out has not been
    /// taken.
    pub(crate) fn tick(&mut self, now: Instant, waiting: bool) -> Option<Deed> {
        let look = now + LOOK;
        match self.phase {
            Phase::Quiet => None,
            Phase::Waiting(due) => (now >= due).then(|| self.grant(look)),
            Phase::Granted { look: next, .. } if now < next => None,
            Phase::Granted { .. } if waiting => {
                self.phase = Phase::Granted { taken: None, look };
                Some(Deed::Remind)
            }
            Phase::Granted { taken, .. } => {
                let taken = taken.unwrap_or(now);
                if now.duration_since(taken) >= TRIAL_LOST {
                    return Some(self.grant(look));
                }
                let taken = Some(taken);
                self.phase = Phase::Granted { taken, look };
                None
            }
        }
    }

    fn grant(&mut self, look: Instant) -> Deed {
        self.phase = Phase::Granted { taken: None, look };
        Deed::Grant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays `events` (`+` a pass, `-` a failure, `!` a live refusal, `*` a changed check) and writes what each
    /// changed: `u`, `d` or `.`.
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
                    Some(Change::Up) => 'u',
                    Some(Change::Down) => 'd',
                    None => '.',
                }
            })
            .collect()
    }

    #[test]
    fn rise_and_fall() {
        for (down, rise, fall, events, expected) in [
            // Thought up at first; one failure is enough, then `rise` passes bring it back.
            (false, 2, 3, "-++", "d.u"),
            (false, 2, 3, "+--", "..."),
            (false, 2, 3, "+---", "...d"),
            // Failures and passes count in a row only.
            (false, 2, 3, "+--+--+---", ".........d"),
            (false, 3, 1, "-++-+++", "d.....u"),
            (false, 1, 1, "+-+-+", ".dudu"),
            // Once it was up again, one failure is not enough any more.
            (false, 2, 3, "-++--+---", "d.u.....d"),
            // A live refusal takes it down at once and starts the passes anew.
            (false, 2, 3, "+!++", ".d.u"),
            (false, 2, 3, "+!+!++", ".d...u"),
            (false, 2, 3, "!-++", "d..u"),
            (false, 2, 3, "+--!", "...d"),
            // Down from before.
            (true, 2, 3, "+-++", "...u"),
            (true, 1, 3, "+", "u"),
            // A changed check forgets the counts and nothing else.
            (false, 2, 3, "+--*--", "......"),
            (false, 2, 3, "+--*---", "......d"),
            (false, 2, 3, "+---+*++", "...d...u"),
            (false, 2, 3, "*-", ".d"),
        ] {
            assert_eq!(play(down, rise, fall, events), expected, "{events}");
        }
    }

    #[test]
    fn trials_come_after_one_second_and_then_ever_later() {
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
            assert_eq!(trials.tick(due, false), Some(Deed::Grant));
            now = due;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        trials.recovered();
        assert_eq!(trials.due(), None);
        trials.refused(at(1000), false);
        assert_eq!(trials.due(), Some(at(1001)), "recovery resets the wait");
    }

    #[test]
    fn refusals_before_the_trial_was_taken_change_nothing() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut trials = TrialState::default();
        trials.refused(start, false);
        trials.refused(start + Duration::from_millis(500), false);
        assert_eq!(trials.due(), Some(at(1)), "requests that had begun before");
        assert_eq!(trials.tick(at(1), false), Some(Deed::Grant));
        trials.refused(at(1), true);
        assert_eq!(trials.due(), Some(at(2)), "the trial is still out");
        trials.refused(at(2), false);
        assert_eq!(trials.due(), Some(at(4)), "this one was the trial");
    }

    #[test]
    fn a_trial_that_is_lost_is_granted_again() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut trials = TrialState::default();
        trials.refused(start, false);
        assert_eq!(trials.tick(at(1), false), Some(Deed::Grant));
        for second in 2..100 {
            assert_eq!(trials.tick(at(second), true), Some(Deed::Remind));
        }
        let mut granted = Vec::new();
        for second in 100..165 {
            if trials.tick(at(second), false) == Some(Deed::Grant) {
                granted.push(second);
            }
        }
        assert_eq!(granted, [130, 161], "taken as of 100, and again as of 131");
        assert_eq!(trials.wait, FIRST_TRIAL, "nothing was heard, so no failure");
    }
}
