//! What depends on the number of members, and on whether this one keeps up.
//!
//! The figures are those of a LAN: a probe each second, half a second for a direct answer, suspicion of 3.2 s times the
//! logarithm of the size. Under 75 members suspicion lasts 6 s, so that a member that was frozen for 5 s is in time to
//! contradict. News is told on as often as memberlist does: four times for each digit of the size. A member whose own timers are late judges more slowly, up to eight times (after Lifeguard).

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Config, PeriodicParams};

use super::Time;

/// Largest datagram, bytes: what IPv6's least MTU of 1,280 leaves behind the headers of IP and UDP (RFC 8200, section
/// 5), so that none is ever fragmented.
pub const MAX_DATAGRAM: usize = 1232;
/// How often news is told on.
pub(crate) const SPREAD_EVERY: Duration = Duration::from_millis(200);
/// How often the whole state is compared with another member's.
pub(crate) const RECONCILE_EVERY: Duration = Duration::from_secs(30);
/// How many members news is told to at a time.
pub(crate) const FANOUT: usize = 3;
/// How long a member that is down counts as one that is missed, and one that has left in order is remembered.
pub(crate) const MISS_DOWN: Duration = Duration::from_secs(3600);
/// How long a member that is down is remembered.
pub(crate) const REMEMBER_DOWN: Duration = Duration::from_secs(24 * 3600);
/// Timers that are later than this say that this member does not keep up.
const LATE: Duration = Duration::from_millis(200);
/// For how long after the last late timer.
const LATE_FOR: Duration = Duration::from_secs(10);
const MOST_PATIENCE: u32 = 8;

/// How often a piece of news is told on among `members`.
pub(crate) fn transmissions(members: usize) -> NonZeroU8 {
    let digits = ((members + 1) as f64).log10().ceil();
    NonZeroU8::new((4.0 * digits) as u8).unwrap_or(NonZeroU8::MIN)
}

/// foca's configuration for a set of `members`, this one included.
pub(crate) fn config(members: usize, patience: u32, packet: usize) -> Config {
    let log = (members.max(1) as f64).log10();
    let few = members <= 100;
    Config {
        probe_period: Duration::from_secs(1),
        probe_rtt: Duration::from_millis(500),
        num_indirect_probes: NonZeroUsize::new(FANOUT).unwrap_or(NonZeroUsize::MIN),
        max_transmissions: transmissions(members),
        suspect_to_down_after: Duration::from_secs_f64((3.2 * log).max(6.0)) * patience,
        // Then the node itself looks which of them it goes on to remember.
        remove_down_after: Some(MISS_DOWN),
        max_packet_size: NonZeroUsize::new(packet).unwrap_or(NonZeroUsize::MIN),
        notify_down_members: true,
        // The state is compared as a whole instead.
        periodic_announce: None,
        periodic_announce_to_down_members: every(if few { 15 } else { 30 }, 2),
        periodic_gossip: Some(PeriodicParams {
            frequency: SPREAD_EVERY,
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

/// Whether this member keeps up with its own timers.
#[derive(Debug)]
pub(crate) struct Punctuality {
    patience: u32,
    last_late: Time,
}

impl Default for Punctuality {
    fn default() -> Self {
        Self {
            patience: 1,
            last_late: Duration::ZERO,
        }
    }
}

impl Punctuality {
    /// By how much suspicions last longer: 1 to 8.
    pub(crate) fn patience(&self) -> u32 {
        self.patience
    }

    /// A timer ran `late`.
    pub(crate) fn note(&mut self, late: Duration, now: Time) {
        if late > LATE {
            self.patience = (self.patience * 2).min(MOST_PATIENCE);
            self.last_late = now;
        }
    }

    /// Looks whether it keeps up again.
    pub(crate) fn look(&mut self, now: Time) {
        if self.patience > 1 && now.saturating_sub(self.last_late) >= LATE_FOR {
            self.patience /= 2;
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
            let config = config(members, 1, 1000);
            assert_eq!(config.max_transmissions.get(), times, "{members}");
            assert_eq!(
                config.suspect_to_down_after.as_secs_f64(),
                suspicion,
                "{members}"
            );
        }
    }

    #[test]
    fn who_is_late_judges_slowly_for_a_while() {
        let mut punctuality = Punctuality::default();
        let at = Duration::from_secs;
        punctuality.note(Duration::from_millis(100), at(1));
        assert_eq!(punctuality.patience(), 1);
        for _ in 0..9 {
            punctuality.note(Duration::from_secs(1), at(1));
        }
        assert_eq!(punctuality.patience(), 8);
        punctuality.look(at(10));
        assert_eq!(punctuality.patience(), 8);
        punctuality.look(at(11));
        assert_eq!(punctuality.patience(), 4);
        punctuality.look(at(21));
        punctuality.look(at(31));
        punctuality.look(at(41));
        assert_eq!(punctuality.patience(), 1);
    }
}
