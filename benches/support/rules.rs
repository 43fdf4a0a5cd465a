//! Tables of routes, and requests for them, for the benches.

use std::net::{IpAddr, Ipv4Addr};

use lbproxy::internals::route::rule::{HostPattern, PathPattern, Rule};
use lbproxy::internals::route::{Fields, RequestView};

/// A request without fields.
struct NoFields;

impl Fields for NoFields {
    fn any_value(&self, _: &str, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }
}

/// The n-th route of a kind, and the host and path that it alone takes.
pub(crate) type Kind = fn(usize) -> (Option<HostPattern>, Option<PathPattern>, String, String);

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

/// Ways in which routes are told apart.
pub(crate) const KINDS: [(&str, Kind); 4] = [
    ("host", by_host),
    ("wildcard host", by_wildcard),
    ("path", by_path),
    ("prefix", by_prefix),
];

/// `count` routes of a kind.
pub(crate) fn rules(kind: Kind, count: usize) -> Vec<Rule<usize>> {
    (0..count)
        .map(|n| {
            let (host, path, ..) = kind(n);
            Rule {
                hosts: host.into_iter().collect(),
                paths: path.into_iter().collect(),
                methods: Vec::new(),
                headers: Vec::new(),
                query: Vec::new(),
                clients: Vec::new(),
                target: n,
            }
        })
        .collect()
}

/// A host and a path for each of `count` routes, no two neighbours in turn.
pub(crate) fn questions(kind: Kind, count: usize) -> Vec<(String, String)> {
    (0..count)
        .map(|n| {
            let (_, _, host, path) = kind(n * 7919 % count);
            (host, path)
        })
        .collect()
}

/// What a GET of this path asks of a table.
pub(crate) fn view<'r>(host: &'r str, path: &'r str) -> RequestView<'r> {
    RequestView {
        method: b"GET",
        host: host.as_bytes(),
        path: path.as_bytes(),
        query: None,
        client: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        fields: &NoFields,
    }
}
