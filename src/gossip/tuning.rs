//! Figures that depend on the number of members, and on whether this member keeps up.
//!
//! They suit a LAN: one probe a second, half a second for a direct answer, suspicion for 3.2 s times the logarithm of
//! the size. With fewer than 75 members suspicion lasts 6 s, so that a member that was frozen for 5 s can still refute.
//! News is gossiped as often as memberlist does it: four times for each digit of the size. A member whose own timers
//! are late waits up to eight times longer before it judges others (Lifeguard's local health).

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Config, PeriodicParams};

use super::Time;

/// Largest datagram, bytes: IPv6's smallest MTU of 1,280 minus the headers of IP and UDP (RFC 8200, section 5), so that
/// none is ever fragmented.
pub const MAX_DATAGRAM: usize = 1232;
/// Time between two rounds of gossip.
pub(crate) const GOSSIP_EVERY: Duration = Duration::from_millis(200);
/// Time between two push-pulls.
pub(crate) const PUSH_PULL_EVERY: Duration = Duration::from_secs(30);
/// How long an announcement may still be on its way after a later one of the same member has arrived.
pub(crate) const REORDERING: Duration = Duration::from_secs(1);
/// How many members news is sent to in one round.
pub(crate) const FANOUT: usize = 3;
/// How long a member that is down counts as missing, and one that has left is remembered.
pub(crate) const MISS_DOWN: Duration = Duration::from_secs(3600);
/// How long a member that is down is remembered.
pub(crate) const REMEMBER_DOWN: Duration = Duration::from_secs(24 * 3600);
/// A timer that is later than this shows that this member does not keep up.
const LATE: Duration = Duration::from_millis(200);
/// Without a late timer for this long, the multiplier is halved.
const LATE_FOR: Duration = Duration::from_secs(10);
/// Largest health multiplier.
const MAX_MULTIPLIER: u32 = 8;

/// How many times a piece of news is sent among `members`.
pub(crate) fn transmissions(members: usize) -> NonZeroU8 {
    let digits = ((members + 1) as f64).log10().ceil();
    NonZeroU8::new((4.0 * digits) as u8).unwrap_or(NonZeroU8::MIN)
}

/// foca's configuration for a set of `members`, this one included; `multiplier` is that of [`Awareness`].
pub(crate) fn foca_config(members: usize, multiplier: u32, packet: usize) -> Config {
    let log = (members.max(1) as f64).log10();
    let few = members <= 100;
    Config {
        probe_period: Duration::from_secs(1),
        probe_rtt: Duration::from_millis(500),
        num_indirect_probes: NonZeroUsize::new(FANOUT).unwrap_or(NonZeroUsize::MIN),
        max_transmissions: transmissions(members),
        suspect_to_down_after: Duration::from_secs_f64((3.2 * log).max(6.0)) * multiplier,
        // The node itself decides which of them to remember for longer.
        remove_down_after: Some(MISS_DOWN),
        max_packet_size: NonZeroUsize::new(packet).unwrap_or(NonZeroUsize::MIN),
        notify_down_members: true,
        // Push-pulls do that.
        periodic_announce: None,
        periodic_announce_to_down_members: every(if few { 15 } else { 30 }, 2),
        periodic_gossip: Some(PeriodicParams {
            frequency: GOSSIP_EVERY,
            num_members: NonZeroUsize::new(FANOUT).unwrap_or(NonZeroUsize::MIN),
        }),
    }
}

fn every(seconds: u64, members: usize) -> Option<PeriodicParams> {
    Some(PeriodicParams {
        frequency: Duration::from_secs(seconds),
        num_members: NonZeroUsize::new(members)?,
    })
}

/// Whether this member keeps up with its own timers: Lifeguard's local health, memberlist's awareness.
#[derive(Debug)]
pub(crate) struct Awareness {
    multiplier: u32,
    last_late: Time,
}

impl Default for Awareness {
    fn default() -> Self {
        Self {
            multiplier: 1,
            last_late: Duration::ZERO,
        }
    }
}

impl Awareness {
    /// How many times longer suspicions last: 1 to 8.
    pub(crate) fn multiplier(&self) -> u32 {
        self.multiplier
    }

    /// Notes how late a timer ran.
    pub(crate) fn note_lateness(&mut self, late: Duration, now: Time) {
        if late > LATE {
            self.multiplier = (self.multiplier * 2).min(MAX_MULTIPLIER);
            self.last_late = now;
        }
    }

    /// Halves the multiplier if this member keeps up again.
    pub(crate) fn recover(&mut self, now: Time) {
        if self.multiplier > 1 && now.saturating_sub(self.last_late) >= LATE_FOR {
            self.multiplier /= 2;
            self.last_late = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_by_size() {
        for (members, times, suspicion) in [
            (1, 4, 6.0),
            (9, 4, 6.0),
            (10, 8, 6.0),
            (100, 12, 6.4),
            (1_000, 16, 9.6),
            (10_000, 20, 12.8),
        ] {
            let config = foca_config(members, 1, 1000);
            assert_eq!(config.max_transmissions.get(), times, "{members}");
            assert_eq!(
                config.suspect_to_down_after.as_secs_f64(),
                suspicion,
                "{members}"
            );
        }
    }

    #[test]
    fn a_member_that_is_late_judges_slowly_for_a_while() {
        let mut awareness = Awareness::default();
        let at = Duration::from_secs;
        awareness.note_lateness(Duration::from_millis(100), at(1));
        assert_eq!(awareness.multiplier(), 1);
        for _ in 0..9 {
            awareness.note_lateness(Duration::from_secs(1), at(1));
        }
        assert_eq!(awareness.multiplier(), 8);
        awareness.recover(at(10));
        assert_eq!(awareness.multiplier(), 8);
        awareness.recover(at(11));
        assert_eq!(awareness.multiplier(), 4);
        awareness.recover(at(21));
        awareness.recover(at(31));
        awareness.recover(at(41));
        assert_eq!(awareness.multiplier(), 1);
    }
}
