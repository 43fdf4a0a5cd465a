//! A line of the log that somebody outside can bring about at will, said seldom.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Lets one of many pass in each period and counts those that it holds back.
///
/// Where a line is about one thing (a listener, a backend), each has one of its own; a `static` serves the rest.
#[derive(Debug)]
pub struct Seldom {
    period: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    held_back: u64,
}

impl Seldom {
    /// Nothing has passed yet.
    pub const fn new(period: Duration) -> Self {
        Self {
            period,
            state: Mutex::new(State {
                last: None,
                held_back: 0,
            }),
        }
    }

    /// If the line is to be said now: how many were held back since the last one.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = state
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= self.period);
        if !is_due {
            state.held_back += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_passes_in_a_period_and_says_how_many_did_not() {
        let seldom = Seldom::new(Duration::from_secs(10));
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(seldom.pass_at(at(0)), Some(0));
        for millis in 1..=100 {
            assert_eq!(seldom.pass_at(at(millis)), None);
        }
        assert_eq!(seldom.pass_at(at(9_999)), None);
        assert_eq!(seldom.pass_at(at(10_000)), Some(101));
        assert_eq!(seldom.pass_at(at(19_000)), None);
        assert_eq!(seldom.pass_at(at(60_000)), Some(1));
    }
}
