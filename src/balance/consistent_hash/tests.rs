//! Tests the properties that make a ring useful, and compares it with `hashring` as an oracle.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::balance::fixture::{TestCluster, backend_at, backends_of};
use crate::balance::{Balancer, hash_key};
use crate::model::health::Health;
use crate::model::settings::Policy;

fn cluster(weights: &[u32]) -> TestCluster {
    TestCluster::new(Policy::ConsistentHash, weights)
}

fn keys(count: u32) -> impl Iterator<Item = u64> {
    (0..count).map(|n| hash_key(0, format!("user-{n}").as_bytes()))
}

/// The label of the backend that owns `key`.
fn owner(cluster: &TestCluster, key: u64) -> Option<Arc<str>> {
    cluster
        .pick_key(key)
        .map(|index| cluster.backend(index).label().clone())
}

fn ring(backends: &[WeightedBackend]) -> Ring {
    Ring::new(0, backends, (0..backends.len() as u32).collect())
}

/// The exact share of the ring that each backend owns.
fn shares(ring: &Ring) -> Vec<f64> {
    let mut shares = vec![0.0; ring.ranked.len()];
    let last = ring.points[ring.points.len() - 1] >> 32;
    let mut before = last as i64 - (1 << 32);
    for &point in &ring.points {
        let here = (point >> 32) as i64;
        shares[ring.owner(point) as usize] += (here - before) as f64 / (1u64 << 32) as f64;
        before = here;
    }
    shares
}

#[test]
fn removing_one_of_ten_moves_only_its_keys() {
    let ten = backends_of(&[(1, false); 10]);
    let whole = TestCluster::from_backends(Policy::ConsistentHash, ten.clone());
    for removed in 0..10 {
        let mut nine = ten.clone();
        let gone = nine.remove(removed);
        let rest = TestCluster::from_backends(Policy::ConsistentHash, nine);
        let mut moved = 0;
        for key in keys(5000) {
            let before = owner(&whole, key).unwrap();
            let after = owner(&rest, key).unwrap();
            if before == *gone.backend.label() {
                moved += 1;
                assert_ne!(after, before);
            } else {
                assert_eq!(after, before);
            }
        }
        assert!((300..800).contains(&moved), "{moved} of 5000 keys");
    }
}

#[test]
fn keys_of_a_backend_that_is_down_move_as_if_it_were_removed_and_return() {
    let ten = backends_of(&[(1, false); 10]);
    let whole = TestCluster::from_backends(Policy::ConsistentHash, ten.clone());
    let mut nine = ten;
    nine.remove(4);
    let rest = TestCluster::from_backends(Policy::ConsistentHash, nine);
    let before: Vec<_> = keys(3000).map(|key| owner(&whole, key)).collect();
    whole.backend(4).set_health(Health::CHECK_DOWN);
    let mut successors = std::collections::HashSet::new();
    for (key, before) in keys(3000).zip(&before) {
        assert_eq!(owner(&whole, key), owner(&rest, key));
        if before.as_ref() == Some(whole.backend(4).label()) {
            successors.insert(owner(&whole, key));
        }
    }
    assert_eq!(successors.len(), 9, "its keys spread over all others");
    whole.backend(4).clear_health(Health::CHECK_DOWN);
    let after: Vec<_> = keys(3000).map(|key| owner(&whole, key)).collect();
    assert_eq!(before, after);
}

/// A golden vector: if these owners changed, an upgrade would move every user's keys.
#[test]
fn owners_are_the_same_in_every_version() {
    let cluster = cluster(&[1, 1, 2, 1, 1]);
    let owners: Vec<_> = keys(16).filter_map(|key| cluster.pick_key(key)).collect();
    assert_eq!(owners, [1, 2, 4, 3, 1, 2, 1, 2, 0, 2, 2, 3, 2, 1, 4, 2]);
}

#[test]
fn another_seed_makes_another_ring() {
    let ten = backends_of(&[(1, false); 10]);
    let [a, b] = [0, 1].map(|seed| {
        TestCluster::with_balancer(Balancer::new(Policy::ConsistentHash, seed, ten.clone()), 1)
    });
    let moved = keys(1000)
        .filter(|&key| owner(&a, key) != owner(&b, key))
        .count();
    assert!((800..990).contains(&moved), "{moved} of 1000");
}

#[test]
fn the_largest_share_of_100_is_at_most_a_quarter_above_the_mean() {
    let hundred = backends_of(&[(1, false); 100]);
    let largest = shares(&ring(&hundred)).into_iter().fold(0.0, f64::max);
    assert!(largest <= 0.0125, "{largest}");
}

#[test]
fn shares_are_proportional_to_weights() {
    let weights = [1, 2, 3, 4, 10];
    let ring = ring(&backends_of(&weights.map(|weight| (weight, false))));
    for (share, weight) in shares(&ring).into_iter().zip(weights) {
        let ratio = share / (f64::from(weight) / 20.0);
        assert!((0.8..1.2).contains(&ratio), "weight {weight}: {ratio}");
    }
}

#[test]
fn large_rings_have_fewer_points_for_each_backend_but_at_least_one() {
    for (weights, halved) in [
        (&[1][..], 0),
        (&[16384], 0),
        (&[16384, 1], 1),
        (&[u32::MAX], 18),
        (&[u32::MAX, 1, 1], 19),
        (&[u32::MAX; 4], 20),
    ] {
        assert_eq!(halvings(weights.iter().copied()), halved, "{weights:?}");
    }
    assert_eq!(count(1, 19), 1);
    assert_eq!(
        halvings(std::iter::repeat_n(1, 1 << 23)),
        40,
        "every backend keeps one point"
    );
    let ring = ring(&backends_of(&[(1000, false), (1, false)]));
    assert_eq!(ring.points.len(), 256 * 1001);
}

#[test]
fn buckets_find_what_a_search_finds() {
    for weights in [&[1][..], &[1, 1], &[3, 40, 7]] {
        let weights: Vec<_> = weights.iter().map(|&weight| (weight, false)).collect();
        let ring = ring(&backends_of(&weights));
        let near = ring.points.iter().flat_map(|&p| [p - 1, p, p + 1]);
        for from in near.chain(keys(1000)).chain([0, u64::MAX]) {
            let found = ring.points.partition_point(|&point| point < from);
            assert_eq!(ring.first_at(from), found);
        }
    }
}

#[test]
fn a_single_point_owns_every_key() {
    let mut one = ring(&backends_of(&[(1, false)]));
    one = Ring {
        points: vec![5 << 32],
        buckets: vec![0, 1],
        bucket_bits: 0,
        ..one
    };
    for (from, position) in [(0, 0), (5 << 32, 0), (6 << 32, 1), (u64::MAX, 1)] {
        assert_eq!(one.first_at(from), position);
    }
}

/// Two light backends are left of many heavy ones, so that both slow paths are used: the scan (weight 3) and the search
/// among the remaining points (weight 1).
#[test]
fn the_last_backends_of_a_large_ring_are_found_on_both_slow_paths() {
    for left in [1, 3] {
        let mut weights = vec![200; 30];
        weights[7] = left;
        weights[19] = left;
        let cluster = cluster(&weights);
        for index in (0..30).filter(|index| ![7, 19].contains(index)) {
            cluster.backend(index).set_health(Health::CHECK_DOWN);
        }
        let two = TestCluster::from_backends(
            Policy::ConsistentHash,
            [7, 19]
                .map(|index| cluster.balancer.backends()[index].clone())
                .to_vec(),
        );
        for key in keys(300) {
            assert_eq!(owner(&cluster, key), owner(&two, key));
        }
    }
}

/// A hash that is its input, so that `hashring` orders nodes and keys by their value.
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[derive(Clone)]
struct BuildIdentityHasher;

impl BuildHasher for BuildIdentityHasher {
    type Hasher = IdentityHasher;

    fn build_hasher(&self) -> IdentityHasher {
        IdentityHasher(0)
    }
}

/// The oracle's ring over the points of these backends; the owner is the low half of a node.
fn oracle(seed: u64, backends: &[(&str, u32)]) -> hashring::HashRing<u64, BuildIdentityHasher> {
    let mut sorted = backends.to_vec();
    sorted.sort_unstable();
    let mut nodes = Vec::new();
    for (rank, (label, weight)) in (0u64..).zip(sorted) {
        for number in 0..256 * weight {
            let name = [label.as_bytes(), &number.to_le_bytes()].concat();
            nodes.push((xxh3_64_with_seed(&name, seed) & 0xffff_ffff_0000_0000) + rank);
        }
    }
    let mut ring = hashring::HashRing::with_hasher(BuildIdentityHasher);
    ring.batch_add(nodes);
    ring
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn keys_have_the_same_owner_as_in_hashring(
        seed in any::<u64>(),
        backends in prop::collection::btree_map("[a-z]{1,8}:[1-9][0-9]", (1u32..6, any::<bool>()), 1..12),
        keys in prop::collection::vec(any::<u64>(), 50),
    ) {
        let all: Vec<WeightedBackend> =
            backends.iter().map(|(label, (weight, _))| backend_at(label, *weight, false)).collect();
        let up: Vec<(&str, u32)> = backends
            .iter()
            .filter(|(_, (_, up))| *up)
            .map(|(label, (weight, _))| (label.as_str(), *weight))
            .collect();
        let oracle = oracle(seed, &up);
        let ring = Ring::new(seed, &all, (0..all.len() as u32).collect());
        for (entry, (_, up)) in all.iter().zip(backends.values()) {
            if !up {
                entry.backend.set_health(Health::CHECK_DOWN);
            }
        }
        let view = TierView::new(&all, &[], Health::all());
        for key in keys {
            let expected = oracle.get(&(key >> 32 << 32)).map(|node| up_label(&up, *node));
            let picked = ring.pick(&view, key);
            let picked = picked.map(|index| &**all[index as usize].backend.label());
            prop_assert_eq!(picked, expected);
        }
    }

    #[test]
    fn the_order_of_the_configuration_does_not_matter(
        order in Just((0u32..20).collect::<Vec<_>>()).prop_shuffle(),
        keys in prop::collection::vec(any::<u64>(), 100),
    ) {
        let of = |order: &[u32]| {
            let backends = order.iter().map(|n| backend_at(&format!("10.0.0.{n}:80"), 1 + n % 3, false));
            TestCluster::from_backends(Policy::ConsistentHash, backends.collect())
        };
        let file: Vec<u32> = (0..20).collect();
        let (ours, theirs) = (of(&file), of(&order));
        for key in keys {
            prop_assert_eq!(owner(&ours, key), owner(&theirs, key));
        }
    }
}

/// The label of a node of [`oracle`].
fn up_label<'a>(up: &[(&'a str, u32)], node: u64) -> &'a str {
    let mut sorted: Vec<&str> = up.iter().map(|(label, _)| *label).collect();
    sorted.sort_unstable();
    sorted[(node & 0xffff_ffff) as usize]
}

/// Points with equal hashes are ordered by label, whatever the order of the configuration.
#[test]
fn equal_hashes_belong_to_the_first_label() {
    // Labels with points of equal hash are found by brute force among many backends.
    let many: Vec<WeightedBackend> = (0..2000)
        .map(|n| backend_at(&format!("b{n}.example:80"), 1, false))
        .collect();
    let reversed: Vec<WeightedBackend> = many.iter().rev().cloned().collect();
    let (a, b) = (ring(&many), ring(&reversed));
    let colliding: Vec<u64> = a
        .points
        .windows(2)
        .filter(|pair| pair[0] >> 32 == pair[1] >> 32)
        .map(|pair| pair[0])
        .collect();
    assert!(
        !colliding.is_empty(),
        "512,000 points of 32 bits have about 30 collisions"
    );
    for point in colliding {
        let key = point >> 32 << 32;
        let label = |backends: &[WeightedBackend], ring: &Ring| {
            let index = ring
                .pick(&TierView::new(backends, &[], Health::all()), key)
                .unwrap();
            backends[index as usize].backend.label().clone()
        };
        assert_eq!(label(&many, &a), label(&reversed, &b));
    }
}
