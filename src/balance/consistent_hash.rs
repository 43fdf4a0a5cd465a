//! `consistent_hash`: a ring of points, [`POINTS`] for each unit of a backend's weight. The first point at or after the
//! hash of a request's key determines the backend (D. Karger et al., "Consistent hashing and random trees", 1997).
//!
//! A point is the upper half of xxh3-64, seeded with `hash_seed`, of the backend's label and the point's number (32
//! bits, little endian). So a ring depends only on the seed and the set of backends, not on their order in the
//! configuration, the process or the machine. Points with equal hashes are ordered by their backends' labels. If a
//! backend is excluded, each of its keys moves to the next accepted point, and returns with the backend; removing a
//! backend moves no other keys.
//!
//! A ring has at most 4,194,304 points (32 MiB): above that, every backend's number of points is halved until they fit
//! (each keeps at least one). When a ring crosses that limit, the halving moves keys of all backends.

use std::cmp::Reverse;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::WeightedBackend;
use super::tier_view::TierView;

/// Points of a backend for each unit of its weight.
const POINTS: u64 = 256;
/// Most points of a ring; above that every backend gets fewer.
const MAX_POINTS: u64 = 1 << 22;
/// Points that a pick scans before it counts the accepted backends.
const SCAN: usize = 64;
/// Average number of points in a bucket: at least this many, and less than twice as many.
const BUCKET: usize = 8;

/// The points in order, with an index by the leading bits of the hash.
#[derive(Debug)]
pub(super) struct Ring {
    /// `hash << 32 | rank`, where a rank is a position in `ranked`.
    points: Vec<u64>,
    /// Indices of the backends in the order of their labels.
    ranked: Vec<u32>,
    /// For each `b`, the position of the first point whose leading `bucket_bits` are `b` or more; then the number of
    /// points.
    buckets: Vec<u32>,
    bucket_bits: u32,
    seed: u64,
    halvings: u32,
}

impl Ring {
    /// Builds the ring of `indices` (at least one, of weight at least 1). O(p log p) for p points.
    pub(super) fn new(seed: u64, backends: &[WeightedBackend], indices: Vec<u32>) -> Self {
        let mut ranked = indices;
        ranked.sort_by_key(|&index| {
            let entry = &backends[index as usize];
            // An address that appears twice makes the same points twice; the heavier entry always comes first.
            (entry.backend.label(), Reverse(entry.weight))
        });
        let weight = |index: u32| backends[index as usize].weight;
        let halvings = halvings(ranked.iter().map(|&index| weight(index)));
        let mut points: Vec<u64> = Vec::new();
        for (rank, &index) in (0u32..).zip(&ranked) {
            let label = backends[index as usize].backend.label();
            points.extend(points_of(seed, label, rank, count(weight(index), halvings)));
        }
        points.sort_unstable();
        let bucket_bits = (points.len() / BUCKET).max(1).ilog2();
        Self {
            buckets: buckets(&points, bucket_bits),
            bucket_bits,
            points,
            ranked,
            seed,
            halvings,
        }
    }

    /// Picks the owner of the first accepted point at or after the upper half of `key`.
    ///
    /// O(1) while the owner is accepted; otherwise it scans as many points as are excluded in a row. If these are many,
    /// it costs O(n) and at most about √p points more, for p points in all.
    pub(super) fn pick(&self, view: &TierView<'_>, key: u64) -> Option<u32> {
        let (before, after) = self.points.split_at(self.first_at(key >> 32 << 32));
        let mut owners = after.iter().chain(before).map(|&point| self.owner(point));
        if let Some(index) = owners
            .by_ref()
            .take(SCAN)
            .find(|&index| view.accepts(index))
        {
            return Some(index);
        }
        let left = self.ranked.iter().filter(|&&index| view.accepts(index));
        let left: u64 = left
            .map(|&index| count(view.weight(index), self.halvings))
            .sum();
        if left == 0 {
            return None;
        }
        // A scan finds one of the remaining points after p / left steps on average; computing those points again and
        // taking the nearest costs `left` steps. The lesser of the two is at most √p.
        if left.saturating_mul(left) > self.points.len() as u64 {
            return owners.find(|&index| view.accepts(index));
        }
        self.nearest(view, key >> 32 << 32)
    }

    /// Position of the first point that is not below `from`; the number of points if there is none.
    fn first_at(&self, from: u64) -> usize {
        let bucket = bucket_of(from, self.bucket_bits);
        let low = self.buckets[bucket] as usize;
        let high = self.buckets[bucket + 1] as usize;
        low + self.points[low..high].partition_point(|&point| point < from)
    }

    /// Finds what a scan from `from` would find, using only the points of the accepted backends.
    fn nearest(&self, view: &TierView<'_>, from: u64) -> Option<u32> {
        (0u32..)
            .zip(&self.ranked)
            .filter(|&(_, &index)| view.accepts(index))
            .flat_map(|(rank, &index)| {
                let count = count(view.weight(index), self.halvings);
                points_of(self.seed, view.label(index), rank, count)
            })
            .min_by_key(|point| point.wrapping_sub(from))
            .map(|point| self.owner(point))
    }

    fn owner(&self, point: u64) -> u32 {
        self.ranked[(point & u64::from(u32::MAX)) as usize]
    }
}

/// The leading `bits` (at most 63) of a point.
fn bucket_of(point: u64, bits: u32) -> usize {
    (point >> 1 >> (63 - bits)) as usize
}

fn buckets(points: &[u64], bits: u32) -> Vec<u32> {
    let mut buckets = vec![0; (1 << bits) + 1];
    for &point in points {
        buckets[bucket_of(point, bits) + 1] += 1;
    }
    let mut sum = 0;
    for bucket in &mut buckets {
        sum += *bucket;
        *bucket = sum;
    }
    buckets
}

/// Computes the points of one backend, unordered.
fn points_of(seed: u64, label: &str, rank: u32, count: u64) -> impl Iterator<Item = u64> {
    let mut name = label.as_bytes().to_vec();
    name.extend([0; 4]);
    (0..count).map(move |number| {
        let tail = name.len() - 4;
        name[tail..].copy_from_slice(&(number as u32).to_le_bytes());
        xxh3_64_with_seed(&name, seed) >> 32 << 32 | u64::from(rank)
    })
}

/// Number of points of a backend after `halvings`.
fn count(weight: u32, halvings: u32) -> u64 {
    ((u64::from(weight) * POINTS) >> halvings).max(1)
}

/// How often the numbers of points must be halved until they fit, or every backend has one.
fn halvings(weights: impl Iterator<Item = u32> + Clone) -> u32 {
    (0..40)
        .find(|&halvings| {
            let points: u64 = weights.clone().map(|weight| count(weight, halvings)).sum();
            points <= MAX_POINTS
        })
        .unwrap_or(40)
}

#[cfg(test)]
mod tests;
