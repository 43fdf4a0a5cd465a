//! A log-linear histogram of durations: exact below 128 ns, and 64 buckets for each doubling above, so a value is known
//! to within 1.6 %. It covers a minute; what is longer counts as a minute.

use std::time::Duration;

/// Buckets for each doubling, as a power of two.
const FINE: u32 = 6;
const LONGEST: u64 = 60_000_000_000;

/// Counts of durations.
#[derive(Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; bucket(LONGEST) + 1],
            total: 0,
        }
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(LONGEST);
        self.counts[bucket(nanos.min(LONGEST))] += 1;
        self.total += 1;
    }

    /// The duration that the given share of all does not exceed, in µs; 0 if there are none.
    pub(crate) fn micros(&self, share: f64) -> f64 {
        let rank = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return highest(index) as f64 / 1000.0;
            }
        }
        0.0
    }
}

/// The number of the bucket of a value: the position of its first bit, and the bits behind that.
fn bucket(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(FINE + 1);
    ((u64::from(shift) << FINE) + (nanos >> shift)) as usize
}

/// The greatest value of a bucket.
fn highest(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index >> FINE).saturating_sub(1);
    let first = (index - (shift << FINE)) << shift;
    first + (1 << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_ends_where_the_next_begins_and_holds_its_values() {
        let mut value = 1_u64;
        while value < LONGEST {
            let index = bucket(value);
            let end = highest(index);
            assert!(
                value <= end && end - value <= value / 64,
                "{value} ns is in a bucket that ends at {end} ns"
            );
            assert_eq!(bucket(end + 1), index + 1, "a gap behind {end} ns");
            value += value / 50 + 1;
        }
    }

    #[test]
    fn a_percentile_is_within_a_bucket_of_the_truth() {
        let mut some = Histogram::new();
        (1..=1000).for_each(|n| some.record(Duration::from_micros(n)));
        assert!(
            (some.micros(0.5) - 500.0).abs() < 10.0 && (some.micros(0.99) - 990.0).abs() < 20.0
        );
    }
}
