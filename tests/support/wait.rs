//! Waiting for conditions, never for time.

use std::time::{Duration, Instant};

/// The bound of every wait for what should come at once: long, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls `condition` until it holds; panics after `timeout` with what was waited for.
#[track_caller]
pub fn wait_until(timeout: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(timeout, what, || condition().then_some(()));
}

/// Polls `look` until it gives a value, and returns it.
#[track_caller]
pub fn wait_for<T>(timeout: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "waited {timeout:?} in vain: {what}"
        );
        pause(Duration::from_millis(5));
    }
}

/// Checks that `condition` holds all the time for `span`: what must not happen is watched, not hoped for.
#[track_caller]
pub fn holds_for(span: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + span;
    while Instant::now() < deadline {
        assert!(condition(), "did not hold: {what}");
        pause(Duration::from_millis(20));
    }
}

/// Lets `span` pass: the pace of a load or of a poll, never a substitute for a condition.
#[expect(clippy::disallowed_methods, reason = "the one place that sets a pace")]
pub fn pause(span: Duration) {
    std::thread::sleep(span);
}
