//! Counters and histograms with one writer each.
//!
//! A worker adds with a relaxed load and a relaxed store, never with a locked instruction; any thread may read.
//! Everything here belongs to one worker: two writers would lose counts.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that one worker adds to and anybody reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only ever called by the one writer.
    pub fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// The number so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One counter for each value of a closed set of labels.
#[derive(Debug)]
pub struct Counters<const N: usize>([Counter; N]);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl<const N: usize> std::ops::Index<usize> for Counters<N> {
    type Output = Counter;

    fn index(&self, index: usize) -> &Counter {
        &self.0[index]
    }
}

/// Upper bounds in seconds: 0.5 ms, doubling with a midpoint, the last at 60 s.
pub(crate) const LATENCY_BOUNDS: [f64; BOUNDS] = latency_bounds();

/// Buckets of a histogram: one for each bound, and one above them.
pub(crate) const BUCKETS: usize = BOUNDS + 1;

const BOUNDS: usize = 35;

const fn latency_bounds() -> [f64; BOUNDS] {
    let mut bounds = [60.0; BOUNDS];
    let mut base = 0.0005;
    let mut i = 0;
    while i < 34 {
        bounds[i] = base;
        bounds[i + 1] = base * 1.5;
        base *= 2.0;
        i += 2;
    }
    bounds[34] = 60.0;
    bounds
}

/// Latencies in buckets of [`LATENCY_BOUNDS`] and one above them.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_nanos: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum_nanos: Counter::default(),
        }
    }
}

impl Histogram {
    /// Counts one observation.
    pub fn observe(&self, elapsed: Duration) {
        self.buckets[bucket_of(elapsed)].increment();
        self.sum_nanos
            .add(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds the counts to `total`.
    pub fn add_to(&self, total: &mut HistogramTotal) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.get();
        }
        total.sum_seconds += self.sum_nanos.get() as f64 / 1e9;
    }
}

/// Sums of several workers' histograms.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramTotal {
    /// Counts by bucket (not cumulative); the last is above every bound.
    pub buckets: [u64; BUCKETS],
    /// Sum of all observations.
    pub sum_seconds: f64,
}

impl Default for HistogramTotal {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            sum_seconds: 0.0,
        }
    }
}

impl HistogramTotal {
    /// Estimate of a quantile in seconds, evenly spread within a bucket, and the last bound for what is above it;
    /// `None` without observations.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total: u64 = self.buckets.iter().sum();
        let rank = share * total as f64;
        let (mut below, mut from) = (0.0, 0.0);
        for (count, bound) in self.buckets.iter().zip(LATENCY_BOUNDS) {
            let here = *count as f64;
            if *count > 0 && below + here >= rank {
                return Some(from + (bound - from) * ((rank - below) / here).clamp(0.0, 1.0));
            }
            (below, from) = (below + here, bound);
        }
        (total > 0).then_some(from)
    }
}

/// Index of the first bound that is not below `elapsed`.
fn bucket_of(elapsed: Duration) -> usize {
    // In units of 0.25 ms the bounds are 2·2^k and 3·2^k, so the bucket follows from the highest bit.
    let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
    if nanos > 60_000_000_000 {
        return LATENCY_BOUNDS.len();
    }
    let quarters = nanos.div_ceil(250_000);
    if quarters <= 2 {
        return 0;
    }
    let below = quarters - 1;
    let k = 63 - below.leading_zeros() as usize;
    let half = (below >> (k - 1)) & 1;
    (2 * (k - 1) + half as usize + 1).min(LATENCY_BOUNDS.len() - 1)
}

/// Counts by HTTP status code, in pages of one class that are made on first use.
#[derive(Debug, Default)]
pub struct CodeCounters {
    pages: [OnceLock<Box<[Counter; 100]>>; 5],
}

impl CodeCounters {
    /// Counts one message with `code`; codes outside 100 to 599 do not exist in this house and are left out.
    pub fn increment(&self, code: u16) {
        let class = usize::from(code / 100);
        if (1..=5).contains(&class) {
            let page = self.pages[class - 1]
                .get_or_init(|| Box::new(std::array::from_fn(|_| Counter::default())));
            page[usize::from(code % 100)].increment();
        }
    }

    /// Calls `each` with every code counted so far and its count.
    pub fn for_each(&self, mut each: impl FnMut(u16, u64)) {
        for (class, page) in self.pages.iter().enumerate() {
            let Some(page) = page.get() else { continue };
            for (i, counter) in page.iter().enumerate() {
                let count = counter.get();
                if count > 0 {
                    each((class as u16 + 1) * 100 + i as u16, count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles() {
        let mut total = HistogramTotal::default();
        assert_eq!(total.quantile(0.5), None);
        // 100 up to 0.5 ms, 100 from 1 to 1.5 ms.
        (total.buckets[0], total.buckets[3]) = (100, 100);
        for (share, seconds) in [
            (0.0, 0.0),
            (0.25, 0.00025),
            (0.5, 0.0005),
            (0.75, 0.00125),
            (1.0, 0.0015),
        ] {
            let found = total.quantile(share).unwrap();
            assert!((found - seconds).abs() < 1e-9, "{share}: {found}");
        }
        total.buckets[BUCKETS - 1] = 1_000_000;
        assert_eq!(total.quantile(0.99), Some(60.0));
    }

    #[test]
    fn bounds_double_with_a_midpoint() {
        assert_eq!(
            &LATENCY_BOUNDS[..5],
            &[0.0005, 0.00075, 0.001, 0.0015, 0.002]
        );
        assert_eq!(LATENCY_BOUNDS[34], 60.0);
        assert!(LATENCY_BOUNDS.windows(2).all(|w| w[0] < w[1]));
    }

    #[test]
    fn codes_are_counted_apart() {
        let codes = CodeCounters::default();
        for code in [200, 200, 404, 599, 100, 600, 99, 0] {
            codes.increment(code);
        }
        let mut seen = Vec::new();
        codes.for_each(|code, n| seen.push((code, n)));
        assert_eq!(seen, [(100, 1), (200, 2), (404, 1), (599, 1)]);
    }

    proptest! {
        #[test]
        fn the_bucket_is_the_first_bound_not_below(nanos in prop_oneof![0u64..3_000_000, 0u64..70_000_000_000]) {
            let seconds = nanos as f64 / 1e9;
            let expected = LATENCY_BOUNDS.iter().position(|&b| seconds <= b + 1e-12).unwrap_or(LATENCY_BOUNDS.len());
            prop_assert_eq!(bucket_of(Duration::from_nanos(nanos)), expected);
        }
    }
}
