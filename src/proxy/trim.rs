//! When a crowd of connections has gone, so that its memory goes back to the system ([`trim_heap`]): only behind a crowd,
//! and only once things have been quiet for a while. Each worker looks at its own connections.
//!
//! [`trim_heap`]: crate::transport::memory::trim_heap

/// A fall by fewer connections than this is not worth a call.
const CROWD: usize = 1000;

/// Looks in a row, a second apart, that must see the crowd gone.
const LOOKS: u32 = 3;

/// Watches the number of open connections of one worker.
#[derive(Debug, Default)]
pub(super) struct TrimHeuristic {
    most: usize,
    looks: u32,
}

impl TrimHeuristic {
    /// Takes the number of open connections, once a second; whether a crowd has gone for good.
    pub(super) fn is_due(&mut self, open: usize) -> bool {
        self.most = self.most.max(open);
        if open > self.most / 2 || self.most - open < CROWD {
            self.looks = 0;
            return false;
        }
        self.looks += 1;
        if self.looks < LOOKS {
            return false;
        }
        *self = Self {
            most: open,
            looks: 0,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_due_when_less_than_half_of_it_is_left_for_a_while() {
        let mut trim = TrimHeuristic::default();
        for (open, gone) in [
            (12_000, false),
            (7000, false),
            (5000, false),
            (5000, false),
            (8000, false),
            (10, false),
            (10, false),
            (10, true),
            (10, false),
            (900, false),
            (0, false),
            (0, false),
            (0, false),
        ] {
            assert_eq!(trim.is_due(open), gone, "{open} {trim:?}");
        }
    }
}
