//! What a pick costs under each policy, with 3, 100 and 10,000 backends, and what building the picker costs.
//!
//! `cargo bench --bench pick`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use lbproxy::internals::balance::{Balancer, PickRequest, Random, WeightedBackend};
use lbproxy::internals::model::cluster::ClusterState;
use lbproxy::internals::model::health::Health;

#[path = "support/members.rs"]
mod members;
use members::{POLICIES, members};

fn run(c: &mut Criterion, group: &str, prepare: impl Fn(&[WeightedBackend])) {
    let mut group = c.benchmark_group(group);
    for policy in POLICIES {
        for count in [3, 100, 10_000] {
            let members = members(count);
            prepare(&members);
            let balancer = Balancer::new(policy, 0, members);
            let state = ClusterState::new(1);
            let random = Random::new(1);
            let keys = Random::new(2);
            group.bench_function(BenchmarkId::new(policy.as_str(), count), |b| {
                b.iter(|| {
                    black_box(balancer.pick(&PickRequest {
                        key: keys.next_u64(),
                        state: &state,
                        worker: 0,
                        random: &random,
                        tried: &[],
                    }))
                });
            });
        }
    }
    group.finish();
}

fn picks(c: &mut Criterion) {
    run(c, "pick", |_| {});
    run(c, "pick/all but one in ten down", |members| {
        for (_, member) in (0..).zip(members).filter(|(n, _)| n % 10 != 1) {
            member.backend.set_health(Health::CHECK_DOWN);
        }
    });
    run(c, "pick/all but one down", |members| {
        for member in &members[1..] {
            member.backend.set_health(Health::CHECK_DOWN);
        }
    });
}

fn builds(c: &mut Criterion) {
    let mut group = c.benchmark_group("build");
    group.sample_size(10);
    for policy in POLICIES {
        let members = members(10_000);
        group.bench_function(BenchmarkId::new(policy.as_str(), 10_000), |b| {
            b.iter(|| Balancer::new(policy, 0, members.clone()));
        });
    }
    group.finish();
}

criterion_group!(benches, picks, builds);
criterion_main!(benches);
