//! What finding a route costs with 10, 1,000 and 10,000 of them, told apart by host, by wildcard host, by exact path or
//! by prefix, and what building the table costs.
//!
//! `cargo bench --bench route`. Each look-up asks for another route of the table, so that caches help as little as
//! they do in service.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use lbproxy::internals::route::table::Table;

#[path = "support/rules.rs"]
mod rules;
use rules::{KINDS, questions, rules, view};

fn finds(c: &mut Criterion) {
    let mut group = c.benchmark_group("find");
    for (name, kind) in KINDS {
        for count in [10, 1000, 10_000] {
            let table = Table::new(rules(kind, count));
            let asked = questions(kind, count);
            let mut turn = asked.iter().cycle();
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| {
                    let (host, path) = turn.next().expect("a cycle of at least ten does not end");
                    let found = table.find(&view(host, path));
                    black_box(found).is_some()
                });
            });
        }
    }
    group.finish();
}

fn builds(c: &mut Criterion) {
    let mut group = c.benchmark_group("build");
    group.sample_size(10);
    for (name, kind) in KINDS {
        let rules = rules(kind, 10_000);
        group.bench_function(BenchmarkId::new(name, 10_000), |b| {
            b.iter_batched(
                || rules.clone(),
                Table::new,
                criterion::BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, finds, builds);
criterion_main!(benches);
