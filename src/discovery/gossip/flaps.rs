//! Pure: damping of candidates that flap.
//!
//! A candidate that was removed rejoins when it is added again, in the same run or another. After more than
//! [`MAX_REJOINS`] within [`WINDOW`] it is held down: for [`FIRST_HOLD`] at first, and twice as long each time, up to
//! [`LAST_HOLD`]. Its history is forgotten after [`QUIET`] without any change. Histories of at most [`MAX_CANDIDATES`]
//! addresses are stored, those that changed last.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::MAX_CANDIDATES;

const MAX_REJOINS: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
const FIRST_HOLD: Duration = Duration::from_secs(30);
const LAST_HOLD: Duration = Duration::from_secs(600);
const QUIET: Duration = Duration::from_secs(600);

/// What happens to a candidate that is to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlapDecision {
    /// It is added.
    Join,
    /// It is held down from now on, for this time.
    HoldBegins(Duration),
    /// It is still held down.
    Held,
}

/// The flap damping of one cluster; see the module.
#[derive(Debug, Default)]
pub(super) struct FlapDamping(BTreeMap<SocketAddr, History>);

#[derive(Debug)]
struct History {
    /// Rejoins within the window, at most [`MAX_REJOINS`].
    rejoins: Vec<Duration>,
    /// How often it was held down.
    holds: u32,
    held_until: Duration,
    /// When it was last added, removed or held down.
    changed: Duration,
}

impl FlapDamping {
    /// Notes that a candidate was removed.
    pub(super) fn removed(&mut self, address: SocketAddr, now: Duration) {
        if self.0.len() >= MAX_CANDIDATES && !self.0.contains_key(&address) {
            self.shed();
        }
        let history = self.0.entry(address).or_insert(History {
            rejoins: Vec::new(),
            holds: 0,
            held_until: Duration::ZERO,
            changed: now,
        });
        history.changed = now;
    }

    /// Decides whether a candidate may be added.
    pub(super) fn try_add(&mut self, address: SocketAddr, now: Duration) -> FlapDecision {
        let Some(history) = self.0.get_mut(&address) else {
            return FlapDecision::Join;
        };
        if now < history.held_until {
            return FlapDecision::Held;
        }
        history.changed = now;
        history.rejoins.retain(|&at| now < at + WINDOW);
        if history.rejoins.len() < MAX_REJOINS {
            history.rejoins.push(now);
            return FlapDecision::Join;
        }
        let hold = FIRST_HOLD
            .saturating_mul(1 << history.holds.min(8))
            .min(LAST_HOLD);
        history.holds = history.holds.saturating_add(1);
        history.held_until = now + hold;
        history.rejoins.clear();
        FlapDecision::HoldBegins(hold)
    }

    /// Forgets candidates that did not change for long enough.
    pub(super) fn forget_quiet(&mut self, now: Duration) {
        self.0
            .retain(|_, history| now < history.changed.max(history.held_until) + QUIET);
    }

    /// When the next hold-down ends.
    pub(super) fn next_end(&self, now: Duration) -> Option<Duration> {
        let ends = self.0.values().map(|history| history.held_until);
        ends.filter(|&end| end > now).min()
    }

    /// Forgets half of the histories, those that changed first.
    fn shed(&mut self) {
        let mut changes: Vec<Duration> = self.0.values().map(|history| history.changed).collect();
        changes.sort_unstable();
        let oldest_kept = changes[changes.len() / 2];
        let mut excess = self.0.len() / 2;
        self.0.retain(|_, history| {
            let goes = excess > 0 && history.changed <= oldest_kept;
            excess -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn address(host: u32) -> SocketAddr {
        SocketAddr::new(std::net::Ipv4Addr::from(0x0a00_0000 + host).into(), 80)
    }

    /// Removes and adds a candidate at these seconds.
    fn flap(flaps: &mut FlapDamping, seconds: impl IntoIterator<Item = u64>) -> Vec<FlapDecision> {
        let turn = |second| {
            flaps.removed(address(1), s(second));
            flaps.try_add(address(1), s(second))
        };
        seconds.into_iter().map(turn).collect()
    }

    #[test]
    fn the_fourth_rejoin_in_a_minute_is_held_and_each_hold_is_twice_as_long() {
        use FlapDecision::{Held, HoldBegins, Join};
        let mut flaps = FlapDamping::default();
        assert_eq!(
            flaps.try_add(address(1), s(0)),
            Join,
            "the first time is not a rejoin"
        );
        let entries = flap(&mut flaps, [0, 1, 2, 3]);
        assert_eq!(entries, [Join, Join, Join, HoldBegins(s(30))]);
        assert_eq!(flaps.next_end(s(3)), Some(s(33)));
        assert_eq!(flaps.try_add(address(1), s(32)), Held);
        assert_eq!(flaps.try_add(address(2), s(32)), Join);
        let mut now = 33;
        for hold in [60, 120, 240, 480, 600, 600] {
            let entries = flap(&mut flaps, [now, now + 1, now + 2, now + 3]);
            assert_eq!(entries, [Join, Join, Join, HoldBegins(s(hold))]);
            now += 3 + hold;
        }
        assert_eq!(flaps.next_end(s(now)), None);
        flaps.forget_quiet(s(now + 599));
        assert_eq!(flaps.0.len(), 1);
        flaps.forget_quiet(s(now + 600));
        assert_eq!(flaps.0.len(), 0);
        let entries = flap(&mut flaps, [5000, 5001, 5002, 5003]);
        assert_eq!(
            entries[3],
            HoldBegins(s(30)),
            "what came before is forgotten"
        );
    }

    #[test]
    fn slow_rejoins_do_not_count() {
        let mut flaps = FlapDamping::default();
        let entries = flap(&mut flaps, (0..20).map(|i| i * 20));
        assert!(
            entries.iter().all(|&entry| entry == FlapDecision::Join),
            "{entries:?}"
        );
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut flaps = FlapDamping::default();
        for i in 0..3 * MAX_CANDIDATES as u32 {
            flaps.removed(address(i), s(7));
            assert!(flaps.0.len() <= MAX_CANDIDATES);
        }
        assert!(
            flaps
                .0
                .contains_key(&address(3 * MAX_CANDIDATES as u32 - 1))
        );
    }
}
