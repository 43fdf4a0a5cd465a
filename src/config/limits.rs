//! Limits and ranges that more than one part of the configuration knows. A leaf: nothing of this room is imported here.

use std::ops::RangeInclusive;
use std::time::Duration;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const TIB: u64 = 1 << 40;

/// Largest configuration in bytes, of one file or of all together.
pub(crate) const MAX_FILE: usize = 16 << 20;
/// Patterns of one `include`.
pub(super) const MAX_PATTERNS: usize = 100;
/// Addresses of one listener: each of them is bound, and has the routes of the listener.
pub(super) const MAX_ADDRESSES: usize = 16;
/// Connections of a listener.
pub(super) const MAX_CONNECTIONS: u64 = 100_000_000;
/// Keys of a peer set. More than one are needed only while a new key replaces an old one.
pub(super) const MAX_KEYS: usize = 8;
/// Networks where backends may live: every announcement is compared with all of them.
pub(super) const MAX_CIDRS: usize = 64;
/// Revoked tokens: every token is compared with all of them.
pub(super) const MAX_REVOKED: usize = 1_000;
/// A seed is what an integer of TOML holds, without its negative half.
pub(super) const MAX_SEED: u64 = i64::MAX as u64;

/// Request heads of a listener.
pub(super) const HEADER_BYTES: RangeInclusive<u64> = KIB..=MIB;
/// Request bodies of a listener and of a route.
pub(super) const BODY_BYTES: RangeInclusive<u64> = 0..=1 << 50;

const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Timeouts. Zero would end everything at once, and a longer one would be as good as unlimited.
pub(super) const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=YEAR;
/// Spans of time where zero means "at once".
pub(super) const FROM_ZERO: RangeInclusive<Duration> = Duration::ZERO..=YEAR;
/// `interval` and `timeout` of a health check. A faster one would be an attack on the backend, a slower one says
/// nothing.
pub(super) const PERIOD: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(86_400);
/// Time between two look-ups of a name: at most ten look-ups a second.
pub(super) const RESOLVE_EVERY: RangeInclusive<Duration> = Duration::from_millis(100)..=YEAR;
