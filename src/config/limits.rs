//! Limits and ranges that more than one part of the configuration knows. A leaf: nothing of this room is imported here.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::model::settings::LogLevel;

/// Largest configuration in bytes, of one file or of all together.
pub(crate) const MAX_FILE: usize = 16 << 20;
/// Patterns of one `include`.
pub(super) const MAX_PATTERNS: usize = 100;
/// Keys of a peer set. More than one are needed only while a new key replaces an old one.
pub(super) const MAX_KEYS: usize = 8;

const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Timeouts. Zero would end everything at once, and a longer one would be as good as unlimited.
pub(super) const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=YEAR;
/// Spans of time where zero means "at once".
pub(super) const FROM_ZERO: RangeInclusive<Duration> = Duration::ZERO..=YEAR;
/// `interval` and `timeout` of a health check. A shorter one would be an attack on the backend, a longer one says nothing.
pub(super) const PERIOD: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(86_400);

/// The words for levels of events.
pub(super) const LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];
