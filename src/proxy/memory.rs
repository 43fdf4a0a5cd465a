//! Gives memory back to the system after a crowd of connections has gone.
//!
//! The system's allocator keeps what is freed in the middle of its heaps: after 12,000 half heads the process stayed at
//! 25 MB, of which 17 were free. One call takes some milliseconds, so it is made only behind a crowd, and only once
//! things have been quiet for a while. Each worker looks at its own connections.

#![expect(unsafe_code, reason = "malloc_trim has no safe wrapper")]

/// A fall by fewer connections than this is not worth a call.
const CROWD: usize = 1000;

/// Looks in a row, a second apart, that must see the crowd gone.
const LOOKS: u32 = 3;

/// Watches the number of open connections of one worker.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    most: usize,
    looks: u32,
}

impl Crowd {
    /// Takes the number of open connections, once a second; whether a crowd has gone for good.
    pub(super) fn has_gone(&mut self, open: usize) -> bool {
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

/// Returns free memory to the system.
pub(super) fn give_back() {
    // Other libraries than glibc either return memory by themselves or have no such call.
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time from any thread (malloc_trim(3)); it takes a number and touches
    // only memory that the allocator itself owns and that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_has_gone_when_less_than_half_of_it_is_left_for_a_while() {
        let mut crowd = Crowd::default();
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
            assert_eq!(crowd.has_gone(open), gone, "{open} {crowd:?}");
        }
    }

    #[test]
    fn giving_back_leaves_what_is_in_use_alone() {
        let kept: Vec<Vec<u8>> = (0..1000).map(|i| vec![i as u8; 1000]).collect();
        drop((0..1000).map(|_| vec![1u8; 1000]).collect::<Vec<_>>());
        give_back();
        assert!(
            kept.iter()
                .enumerate()
                .all(|(i, text)| text.iter().all(|b| *b == i as u8))
        );
    }
}
