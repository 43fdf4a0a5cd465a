//! `consistent_hash`: a ring of points, [`POINTS`] for each unit of a member's weight; the first point at or behind
//! the hash of a request's key names the member (D. Karger et al., "Consistent hashing and random trees", 1997).
//!
//! A point is the upper half of xxh3-64, seeded with `hash_seed`, of the member's label and the point's number (32
//! bits, little endian), so a ring depends on the seed and the set of members alone: not on their order in the file,
//! on the process or on the machine. Points with equal hashes stand in the order of their members' labels. If a member
//! is refused, each of its keys goes on to the next accepted point, and comes back with it; a member that is removed
//! takes no other keys along.
//!
//! A ring has at most 4,194,304 points (32 MiB): above that every member's number of points is halved until they fit
//! (each keeps at least one). Where the ring crosses that bound, members' keys move with the halving.

use std::cmp::Reverse;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Member;
use super::group::Candidates;

/// Points of a member for each unit of its weight.
const POINTS: u64 = 256;
/// Points of a ring before every member gets fewer.
const MAX_POINTS: u64 = 1 << 22;
/// Points that a pick walks past before it counts who is left.
const WALK: usize = 64;
/// Points that share a bucket: so many to twice as many on average.
const BUCKET: usize = 8;

/// Points in order, with an index by the leading bits of the hash.
#[derive(Debug)]
pub(super) struct Ring {
    /// `hash << 32 | rank`; ranks are places in `ranked`.
    points: Vec<u64>,
    /// Indices of the members in the order of their labels.
    ranked: Vec<u32>,
    /// Place of the first point whose leading `bucket_bits` are `b` or more, for each `b`, and an end.
    buckets: Vec<u32>,
    bucket_bits: u32,
    seed: u64,
    halvings: u32,
}

impl Ring {
    /// The ring of `ids` (at least one, weights at least 1). O(p log p) for p points.
    pub(super) fn new(seed: u64, members: &[Member], ids: Vec<u32>) -> Self {
        let mut ranked = ids;
        ranked.sort_by_key(|&id| {
            let member = &members[id as usize];
            // The same address twice makes the same points; the heavier one comes first in any order of the file.
            (member.backend.label(), Reverse(member.weight))
        });
        let weight = |id: u32| members[id as usize].weight;
        let halvings = halvings(ranked.iter().map(|&id| weight(id)));
        let mut points: Vec<u64> = Vec::new();
        for (rank, &id) in (0u32..).zip(&ranked) {
            let label = members[id as usize].backend.label();
            points.extend(points_of(seed, label, rank, count(weight(id), halvings)));
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

    /// The owner of the first accepted point at or behind the upper half of `key`.
    ///
    /// O(1) while the owner is accepted; else a walk over as many points as are refused in a row. When that gets
    /// long, O(n) and at most about √p points more for p points in all.
    pub(super) fn pick(&self, candidates: &Candidates<'_>, key: u64) -> Option<u32> {
        let (before, after) = self.points.split_at(self.first_at(key >> 32 << 32));
        let mut owners = after.iter().chain(before).map(|&point| self.owner(point));
        if let Some(id) = owners.by_ref().take(WALK).find(|&id| candidates.accept(id)) {
            return Some(id);
        }
        let left = self.ranked.iter().filter(|&&id| candidates.accept(id));
        let left: u64 = left
            .map(|&id| count(candidates.weight(id), self.halvings))
            .sum();
        if left == 0 {
            return None;
        }
        // A walk meets one of the points that are left after p / left steps on average; making those anew and taking
        // the nearest costs `left` steps. The lesser of the two is at most √p.
        if left.saturating_mul(left) > self.points.len() as u64 {
            return owners.find(|&id| candidates.accept(id));
        }
        self.nearest(candidates, key >> 32 << 32)
    }

    /// Place of the first point that is not below `from`; the number of points if there is none.
    fn first_at(&self, from: u64) -> usize {
        let bucket = bucket_of(from, self.bucket_bits);
        let low = self.buckets[bucket] as usize;
        let high = self.buckets[bucket + 1] as usize;
        low + self.points[low..high].partition_point(|&point| point < from)
    }

    /// What a walk from `from` would find, from the points of the accepted members alone.
    fn nearest(&self, candidates: &Candidates<'_>, from: u64) -> Option<u32> {
        (0u32..)
            .zip(&self.ranked)
            .filter(|&(_, &id)| candidates.accept(id))
            .flat_map(|(rank, &id)| {
                let count = count(candidates.weight(id), self.halvings);
                points_of(self.seed, candidates.label(id), rank, count)
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

/// The points of one member, in no order.
fn points_of(seed: u64, label: &str, rank: u32, count: u64) -> impl Iterator<Item = u64> {
    let mut name = label.as_bytes().to_vec();
    name.extend([0; 4]);
    (0..count).map(move |number| {
        let tail = name.len() - 4;
        name[tail..].copy_from_slice(&(number as u32).to_le_bytes());
        xxh3_64_with_seed(&name, seed) >> 32 << 32 | u64::from(rank)
    })
}

fn count(weight: u32, halvings: u32) -> u64 {
    ((u64::from(weight) * POINTS) >> halvings).max(1)
}

/// How often all numbers of points must be halved so that they fit, or so that every member has one.
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
