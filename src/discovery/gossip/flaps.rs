//! Pure: hold-down of candidates that flap.
//!
//! A candidate that was in and went out rejoins when it comes in again, in the same run or another. More than
//! [`MOST_REJOINS`] within [`WINDOW`]: it is held down, for [`FIRST_HOLD`] at first and twice as long each time, up to
//! [`LAST_HOLD`]. The history is forgotten after [`QUIET`] without any of this; it is kept for [`MAX_CANDIDATES`]
//! addresses at the most, those that moved last.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::MAX_CANDIDATES;

const MOST_REJOINS: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
const FIRST_HOLD: Duration = Duration::from_secs(30);
const LAST_HOLD: Duration = Duration::from_secs(600);
const QUIET: Duration = Duration::from_secs(600);

/// What becomes of one that wants in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// It comes in.
    Join,
    /// It begins to be held down, for so long.
    HoldBegins(Duration),
    /// It is held down.
    Held,
}

/// Of one cluster; see the module.
#[derive(Debug, Default)]
pub(super) struct Flaps(BTreeMap<SocketAddr, History>);

#[derive(Debug)]
struct History {
    /// Rejoins of the window, at most [`MOST_REJOINS`].
    rejoins: Vec<Duration>,
    /// How often it was held down.
    holds: u32,
    held_until: Duration,
    /// When it came, went or was held last.
    moved: Duration,
}

impl Flaps {
    /// A candidate went out.
    pub(super) fn left(&mut self, address: SocketAddr, now: Duration) {
        if self.0.len() >= MAX_CANDIDATES && !self.0.contains_key(&address) {
            self.shed();
        }
        let history = self.0.entry(address).or_insert(History {
            rejoins: Vec::new(),
            holds: 0,
            held_until: Duration::ZERO,
            moved: now,
        });
        history.moved = now;
    }

    /// One that is out wants in.
    pub(super) fn enter(&mut self, address: SocketAddr, now: Duration) -> Entry {
        let Some(history) = self.0.get_mut(&address) else {
            return Entry::Join;
        };
        if now < history.held_until {
            return Entry::Held;
        }
        history.moved = now;
        history.rejoins.retain(|&at| now < at + WINDOW);
        if history.rejoins.len() < MOST_REJOINS {
            history.rejoins.push(now);
            return Entry::Join;
        }
        let hold = FIRST_HOLD
            .saturating_mul(1 << history.holds.min(8))
            .min(LAST_HOLD);
        history.holds = history.holds.saturating_add(1);
        history.held_until = now + hold;
        history.rejoins.clear();
        Entry::HoldBegins(hold)
    }

    /// Forgets those that were quiet for long enough.
    pub(super) fn forget_quiet(&mut self, now: Duration) {
        self.0
            .retain(|_, history| now < history.moved.max(history.held_until) + QUIET);
    }

    /// When the next hold-down ends.
    pub(super) fn next_end(&self, now: Duration) -> Option<Duration> {
        let ends = self.0.values().map(|history| history.held_until);
        ends.filter(|&end| end > now).min()
    }

    /// Half of them go, those that moved first.
    fn shed(&mut self) {
        let mut moves: Vec<Duration> = self.0.values().map(|history| history.moved).collect();
        moves.sort_unstable();
        let oldest_kept = moves[moves.len() / 2];
        let mut excess = self.0.len() / 2;
        self.0.retain(|_, history| {
            let goes = excess > 0 && history.moved <= oldest_kept;
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

    /// Goes out and comes in at these seconds.
    fn flap(flaps: &mut Flaps, seconds: impl IntoIterator<Item = u64>) -> Vec<Entry> {
        let turn = |second| {
            flaps.left(address(1), s(second));
            flaps.enter(address(1), s(second))
        };
        seconds.into_iter().map(turn).collect()
    }

    #[test]
    fn the_fourth_rejoin_in_a_minute_is_held_and_each_hold_is_twice_as_long() {
        use Entry::{Held, HoldBegins, Join};
        let mut flaps = Flaps::default();
        assert_eq!(
            flaps.enter(address(1), s(0)),
            Join,
            "the first is no rejoin"
        );
        let entries = flap(&mut flaps, [0, 1, 2, 3]);
        assert_eq!(entries, [Join, Join, Join, HoldBegins(s(30))]);
        assert_eq!(flaps.next_end(s(3)), Some(s(33)));
        assert_eq!(flaps.enter(address(1), s(32)), Held);
        assert_eq!(flaps.enter(address(2), s(32)), Join);
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
    fn slow_rejoins_are_none() {
        let mut flaps = Flaps::default();
        let entries = flap(&mut flaps, (0..20).map(|i| i * 20));
        assert!(
            entries.iter().all(|&entry| entry == Entry::Join),
            "{entries:?}"
        );
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut flaps = Flaps::default();
        for i in 0..3 * MAX_CANDIDATES as u32 {
            flaps.left(address(i), s(7));
            assert!(flaps.0.len() <= MAX_CANDIDATES);
        }
        assert!(
            flaps
                .0
                .contains_key(&address(3 * MAX_CANDIDATES as u32 - 1))
        );
    }
}
