//! What finding a route costs with 10, 1,000 and 10,000 of them, told apart by host, by wildcard host, by exact path or
//! by prefix, and what building the table costs.
//!
//! `cargo bench --bench route`. Each look-up asks for another route of the table, so that caches help as little as
//! they do in service.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use lbproxy::route::rule::{HostPattern, PathPattern, Rule};
use lbproxy::route::table::Table;
use lbproxy::route::{Fields, RequestView};

/// A request without fields.
struct NoFields;

impl Fields for NoFields {
    fn any_value(&self, _: &str, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }
}

/// The n-th route of a kind, and the host and path that it alone takes.
type Kind = fn(usize) -> (Option<HostPattern>, Option<PathPattern>, String, String);

fn by_host(n: usize) -> (Option<HostPattern>, Option<PathPattern>, String, String) {
    let host = format!("service-{n}.example.com");
    let pattern = HostPattern::Exact(host.clone());
    (Some(pattern), None, host, "/api/v1/items/7".to_owned())
}

fn by_wildcard(n: usize) -> (Option<HostPattern>, Option<PathPattern>, String, String) {
    let domain = format!("service-{n}.example.com");
    let host = format!("www.{domain}");
    let pattern = HostPattern::Under(domain);
    (Some(pattern), None, host, "/api/v1/items/7".to_owned())
}

fn by_path(n: usize) -> (Option<HostPattern>, Option<PathPattern>, String, String) {
    let path = format!("/api/v1/service-{n}/items");
    let pattern = PathPattern::Exact(path.clone());
    (None, Some(pattern), "www.example.com".to_owned(), path)
}

fn by_prefix(n: usize) -> (Option<HostPattern>, Option<PathPattern>, String, String) {
    let prefix = format!("/api/v1/service-{n}/");
    let path = format!("{prefix}items/7");
    let pattern = PathPattern::Prefix(prefix);
    (None, Some(pattern), "www.example.com".to_owned(), path)
}

const KINDS: [(&str, Kind); 4] = [
    ("host", by_host),
    ("wildcard host", by_wildcard),
    ("path", by_path),
    ("prefix", by_prefix),
];

fn rules(kind: Kind, count: usize) -> Vec<Rule<usize>> {
    (0..count)
        .map(|n| {
            let (host, path, ..) = kind(n);
            Rule {
                host,
                path,
                methods: Vec::new(),
                headers: Vec::new(),
                query: Vec::new(),
                clients: Vec::new(),
                target: n,
            }
        })
        .collect()
}

fn finds(c: &mut Criterion) {
    let mut group = c.benchmark_group("find");
    for (name, kind) in KINDS {
        for count in [10, 1000, 10_000] {
            let table = Table::new(rules(kind, count));
            let asked: Vec<(String, String)> = (0..count)
                .map(|n| {
                    let (_, _, host, path) = kind(n * 7919 % count);
                    (host, path)
                })
                .collect();
            let mut turn = asked.iter().cycle();
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| {
                    let (host, path) = turn.next().expect("a cycle of at least ten does not end");
                    let found = table.find(&RequestView {
                        method: b"GET",
                        host: host.as_bytes(),
                        path: path.as_bytes(),
                        query: None,
                        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
                        fields: &NoFields,
                    });
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
