//! Whether the process wants traffic: written by the control plane, read by `/readyz` and the status.

use std::sync::atomic::{AtomicU8, Ordering};

/// A stage of the life of the process; it only ever goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    /// The listeners are not up yet.
    Starting,
    /// Takes traffic.
    Ready,
    /// Goes away: those who send traffic should turn elsewhere.
    Draining,
}

impl Stage {
    /// The word of `/readyz` and the status.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

/// The stage that the process is in.
#[derive(Debug)]
pub(crate) struct Readiness(AtomicU8);

impl Default for Readiness {
    fn default() -> Self {
        Self(AtomicU8::new(Stage::Starting as u8))
    }
}

impl Readiness {
    /// The stage now.
    pub(crate) fn get(&self) -> Stage {
        match self.0.load(Ordering::Acquire) {
            0 => Stage::Starting,
            1 => Stage::Ready,
            _ => Stage::Draining,
        }
    }

    /// Goes forward to `stage`; a stage that is past does not come back.
    pub(crate) fn advance(&self, stage: Stage) {
        self.0.fetch_max(stage as u8, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_drains_is_never_ready_again() {
        let readiness = Readiness::default();
        assert_eq!(readiness.get(), Stage::Starting);
        readiness.advance(Stage::Ready);
        assert_eq!(readiness.get(), Stage::Ready);
        readiness.advance(Stage::Draining);
        readiness.advance(Stage::Ready);
        assert_eq!(readiness.get(), Stage::Draining);
    }
}
