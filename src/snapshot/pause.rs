//! Whether a listener has paused accepting, over all workers. Clients at a limit can make it stop and continue as often
//! as they like; as a state with a beginning and an end it is logged seldom.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A pause has ended when no connection had to wait for so long.
pub(crate) const CALM: Duration = Duration::from_secs(5);

/// The current pause of a listener, if there is one.
#[derive(Debug, Default)]
pub struct Pauses(Mutex<Option<Pause>>);

#[derive(Debug, Clone, Copy)]
struct Pause {
    since: Instant,
    last: Instant,
}

impl Pauses {
    /// A worker has stopped accepting at `now`. Whether a pause begins with that.
    pub fn hold(&self, now: Instant) -> bool {
        let mut pause = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *pause {
            Some(pause) => {
                pause.last = pause.last.max(now);
                false
            }
            None => {
                *pause = Some(Pause {
                    since: now,
                    last: now,
                });
                true
            }
        }
    }

    /// How long the pause was that has ended by `now`; only the first call returns it.
    pub fn take_ended(&self, now: Instant) -> Option<Duration> {
        let mut pause = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = pause.take_if(|pause| now.saturating_duration_since(pause.last) >= CALM)?;
        Some(ended.last.saturating_duration_since(ended.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_begins_once_and_ends_once_however_often_it_flickers() {
        let pauses = Pauses::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(pauses.take_ended(at(0)), None);
        assert!(pauses.hold(at(0)));
        for step in 1..100 {
            assert_eq!(pauses.take_ended(at(step * 4_000)), None);
            assert!(!pauses.hold(at(step * 4_000)));
        }
        // Another worker has read its clock a little earlier.
        assert!(!pauses.hold(at(395_999)));
        assert_eq!(pauses.take_ended(at(400_999)), None);
        assert_eq!(
            pauses.take_ended(at(401_000)),
            Some(Duration::from_secs(396))
        );
        assert_eq!(pauses.take_ended(at(500_000)), None);
        assert!(pauses.hold(at(500_000)));
    }
}
