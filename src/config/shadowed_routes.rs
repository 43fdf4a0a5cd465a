//! Routes that are never taken, since an earlier one takes every request that they match.
//!
//! A route is shadowed if its conditions imply each condition of one earlier route. That is sound, so there are no
//! false alarms, but not complete: two earlier routes may shadow it together. Earlier routes are looked up by the hosts
//! and paths that could match those of the later one, so that ten thousand routes cost milliseconds. A budget of
//! comparisons bounds what is left; when it is spent, no more routes are reported.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use super::draft::Draft;
use super::schema::RouteConfig;
use crate::model::settings::Protocol;
use crate::route::rule::{HostPattern, PathPattern, ValuePattern};

/// Comparisons of single conditions.
const BUDGET: usize = 1_000_000;
/// The cost of matching an expression against a path, in such comparisons.
const REGEX_COST: usize = 20;
/// Candidates that are collected for the cost of one comparison.
const COLLECTED_PER_COST: usize = 16;

/// Each shadowed route with the first that shadows it, as indices.
pub(super) fn shadowed(draft: &Draft) -> Vec<(usize, usize)> {
    let routes = &draft.config.routes;
    let listeners = &draft.config.listeners;
    let named = listeners.iter().zip(&draft.listeners);
    let http = named
        .filter(|(listener, spans)| listener.protocol == Protocol::Http && !spans.sibling)
        .count();
    let mut search = ShadowSearch {
        routes,
        hosts: HashMap::new(),
        http,
        left: BUDGET,
    };
    let mut found = Vec::new();
    for at in 0..routes.len() {
        if !draft.routes[at].whole {
            continue;
        }
        match search.first_over(at) {
            // Whatever it would shadow, the route that shadows it shadows too, so it need not be added.
            Some(first) => found.push((at, first)),
            None => search.add(at),
        }
        if search.left == 0 {
            break;
        }
    }
    found
}

#[derive(Hash, PartialEq, Eq, Clone, Copy)]
enum HostKey<'c> {
    Any,
    Exact(&'c str),
    Under(&'c str),
}

#[derive(Hash, PartialEq, Eq, Clone, Copy)]
enum PathKey<'c> {
    Any,
    Exact(&'c str),
    Prefix(&'c str),
    Below(&'c str),
}

/// The routes of one host by path.
#[derive(Default)]
struct PathIndex<'c> {
    routes: HashMap<PathKey<'c>, Vec<usize>>,
    /// Lengths of the texts of prefixes, and of the paths before `/*`.
    prefix_lengths: BTreeSet<usize>,
    regexes: Vec<usize>,
}

struct ShadowSearch<'c> {
    routes: &'c [RouteConfig],
    hosts: HashMap<HostKey<'c>, PathIndex<'c>>,
    http: usize,
    left: usize,
}

impl<'c> ShadowSearch<'c> {
    fn add(&mut self, at: usize) {
        let routes = self.routes;
        let rule = &routes[at].rule;
        self.spend(rule.hosts.len() * rule.paths.len() / COLLECTED_PER_COST);
        for host in all_or(&rule.hosts, HostKey::Any, host_key) {
            let paths = self.hosts.entry(host).or_default();
            if rule.paths.is_empty() {
                paths.routes.entry(PathKey::Any).or_default().push(at);
            }
            for path in &rule.paths {
                let key = match path {
                    PathPattern::Exact(path) => PathKey::Exact(path),
                    PathPattern::Prefix(prefix) => {
                        paths.prefix_lengths.insert(prefix.len());
                        PathKey::Prefix(prefix)
                    }
                    PathPattern::Below(path) => {
                        paths.prefix_lengths.insert(path.len());
                        PathKey::Below(path)
                    }
                    PathPattern::Regex(_) => {
                        paths.regexes.push(at);
                        continue;
                    }
                };
                paths.routes.entry(key).or_default().push(at);
            }
        }
    }

    /// The first of the routes added so far that takes everything that route `at` matches.
    fn first_over(&mut self, at: usize) -> Option<usize> {
        let routes = self.routes;
        let later = &routes[at];
        let mut candidates = Vec::new();
        for host in hosts_over(later.rule.hosts.first()) {
            let Some(paths) = self.hosts.get(&host) else {
                continue;
            };
            for path in paths_over(later.rule.paths.first(), &paths.prefix_lengths) {
                candidates.extend(paths.routes.get(&path).into_iter().flatten().copied());
            }
            candidates.extend(paths.regexes.iter().copied());
        }
        self.spend(candidates.len() / COLLECTED_PER_COST);
        candidates.sort_unstable();
        candidates.dedup();
        candidates
            .into_iter()
            .find(|earlier| self.takes_all(&routes[*earlier], later))
    }

    fn takes_all(&mut self, earlier: &RouteConfig, later: &RouteConfig) -> bool {
        if let [PathPattern::Regex(_)] = earlier.rule.paths[..] {
            self.spend(REGEX_COST * later.rule.paths.len());
        }
        self.spend(1 + conditions(earlier) * conditions(later));
        self.left > 0
            && all_implied(&earlier.rule.hosts, &later.rule.hosts, host_implied)
            && all_implied(&earlier.rule.paths, &later.rule.paths, path_implied)
            && self.listeners_implied(earlier, later)
            && methods_implied(&earlier.rule.methods, &later.rule.methods)
            && values_implied(&earlier.rule.headers, &later.rule.headers)
            && values_implied(&earlier.rule.query, &later.rule.query)
            && clients_implied(&earlier.rule.clients, &later.rule.clients)
    }

    fn spend(&mut self, cost: usize) {
        self.left = self.left.saturating_sub(cost);
    }

    fn listeners_implied(&self, earlier: &RouteConfig, later: &RouteConfig) -> bool {
        match (&earlier.listeners, &later.listeners) {
            (None, _) => true,
            (Some(earlier), None) => {
                let names: BTreeSet<&String> = earlier.iter().collect();
                names.len() == self.http
            }
            (Some(earlier), Some(later)) => later.iter().all(|name| earlier.contains(name)),
        }
    }
}

/// The number of conditions of a route.
fn conditions(route: &RouteConfig) -> usize {
    let rule = &route.rule;
    route.listeners.as_ref().map_or(0, Vec::len)
        + rule.hosts.len()
        + rule.paths.len()
        + rule.methods.len()
        + rule.headers.len()
        + rule.query.len()
        + rule.clients.len()
}

/// The keys of a list, or the one that stands for an empty list.
fn all_or<'c, T, K>(list: &'c [T], all: K, key: impl Fn(&'c T) -> K) -> Vec<K> {
    if list.is_empty() {
        return vec![all];
    }
    list.iter().map(key).collect()
}

fn host_key(host: &HostPattern) -> HostKey<'_> {
    match host {
        HostPattern::Exact(host) => HostKey::Exact(host),
        HostPattern::Under(parent) => HostKey::Under(parent),
    }
}

/// Every host pattern that matches everything that `host` matches.
fn hosts_over(host: Option<&HostPattern>) -> Vec<HostKey<'_>> {
    let key = host.map_or(HostKey::Any, host_key);
    let mut over = vec![HostKey::Any];
    if let HostKey::Exact(mut rest) | HostKey::Under(mut rest) = key {
        over.push(key);
        while let Some((_, parent)) = rest.split_once('.') {
            over.push(HostKey::Under(parent));
            rest = parent;
        }
    }
    over
}

/// Every path pattern that matches everything that `path` matches, except expressions.
fn paths_over<'c>(
    path: Option<&'c PathPattern>,
    prefix_lengths: &BTreeSet<usize>,
) -> Vec<PathKey<'c>> {
    let mut over = vec![PathKey::Any];
    let (text, below) = match path {
        Some(PathPattern::Exact(path)) => {
            over.push(PathKey::Exact(path));
            (path.as_str(), true)
        }
        Some(PathPattern::Below(path)) => (path.as_str(), true),
        // The prefix `/x` is not covered by `/x/*`, but the prefix `/x/` is.
        Some(PathPattern::Prefix(prefix)) => (prefix.as_str(), false),
        None | Some(PathPattern::Regex(_)) => ("", false),
    };
    for length in prefix_lengths.range(..=text.len()) {
        let Some((start, rest)) = text.split_at_checked(*length) else {
            continue;
        };
        over.push(PathKey::Prefix(start));
        if rest.starts_with('/') || rest.is_empty() && below {
            over.push(PathKey::Below(start));
        }
    }
    over
}

/// Whether each of the later patterns is covered by one of the earlier. An empty list matches everything, which `None`
/// stands for.
fn all_implied<T>(earlier: &[T], later: &[T], implied: impl Fn(&T, Option<&T>) -> bool) -> bool {
    let takes_all = |later: Option<&T>| earlier.iter().any(|earlier| implied(earlier, later));
    earlier.is_empty()
        || match later {
            [] => takes_all(None),
            later => later.iter().map(Some).all(takes_all),
        }
}

fn host_implied(earlier: &HostPattern, later: Option<&HostPattern>) -> bool {
    let is_under = |host: &str, domain: &str| {
        host.strip_suffix(domain)
            .is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
    };
    let Some(later) = later else { return false };
    match (earlier, later) {
        (HostPattern::Exact(earlier), HostPattern::Exact(later)) => earlier == later,
        (HostPattern::Exact(_), HostPattern::Under(_)) => false,
        (HostPattern::Under(domain), HostPattern::Exact(host)) => is_under(host, domain),
        (HostPattern::Under(domain), HostPattern::Under(later)) => {
            domain == later || is_under(later, domain)
        }
    }
}

/// An expression covers only itself and single paths.
fn path_implied(earlier: &PathPattern, later: Option<&PathPattern>) -> bool {
    if matches!(earlier, PathPattern::Prefix(prefix) if prefix.is_empty()) {
        return true;
    }
    let Some(later) = later else { return false };
    let continues = |text: &str, path: &str| {
        text.strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    match (earlier, later) {
        (PathPattern::Regex(earlier), PathPattern::Exact(path)) => {
            earlier.is_match(path.as_bytes())
        }
        (PathPattern::Regex(earlier), PathPattern::Regex(later)) => {
            earlier.as_str() == later.as_str()
        }
        (_, PathPattern::Regex(_)) | (PathPattern::Regex(_), _) => false,
        (PathPattern::Exact(earlier), PathPattern::Exact(later)) => earlier == later,
        (PathPattern::Exact(_), _) => false,
        (
            PathPattern::Prefix(prefix),
            PathPattern::Exact(text) | PathPattern::Prefix(text) | PathPattern::Below(text),
        ) => text.starts_with(prefix),
        (PathPattern::Below(path), PathPattern::Exact(text) | PathPattern::Below(text)) => {
            path == text || continues(text, path)
        }
        (PathPattern::Below(path), PathPattern::Prefix(prefix)) => continues(prefix, path),
    }
}

fn methods_implied(earlier: &[String], later: &[String]) -> bool {
    earlier.is_empty() || (!later.is_empty() && later.iter().all(|method| earlier.contains(method)))
}

fn values_implied(earlier: &[(String, ValuePattern)], later: &[(String, ValuePattern)]) -> bool {
    earlier.iter().all(|(name, wanted)| {
        later.iter().any(|(known, given)| {
            known == name
                && match (wanted, given) {
                    (ValuePattern::Present(true), ValuePattern::Exact(_)) => true,
                    (wanted, given) => wanted == given,
                }
        })
    })
}

fn clients_implied(earlier: &[IpNet], later: &[IpNet]) -> bool {
    let inside = |network: &IpNet| earlier.iter().any(|outer| outer.contains(network));
    earlier.is_empty() || (!later.is_empty() && later.iter().all(inside))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use crate::config::load::load;

    const LISTENERS: &str = "
        listener = [{ address = ':1', name = 'a' }, { address = ':2', name = 'b' }]
    ";

    /// The lines of the routes that are shadowed, each with the line of the route that shadows it. Each of `conditions`
    /// is a route on a line of its own.
    fn shadows(conditions: &[&str]) -> Vec<(usize, usize)> {
        let mut text = LISTENERS.trim().to_owned() + "\nroute = [\n";
        for conditions in conditions {
            let comma = if conditions.is_empty() { "" } else { ", " };
            writeln!(text, "{{ respond = {{}}{comma}{conditions} }},").unwrap();
        }
        text.push_str("]\n");
        let loaded = load(&text);
        assert!(loaded.config.is_some(), "{text}\n{:?}", loaded.diagnostics);
        let never = loaded
            .diagnostics
            .iter()
            .filter(|d| d.message.contains("never taken"));
        never
            .map(|d| (d.line - 3, d.related.as_ref().unwrap().line - 3))
            .collect()
    }

    #[test]
    fn routes_that_an_earlier_one_shadows() {
        for (earlier, later) in [
            ("", ""),
            (
                "",
                "host = 'a', path = '/x', method = ['GET'], client = ['10.0.0.0/8']",
            ),
            ("host = 'a.b'", "host = 'A.B'"),
            ("host = '*.b'", "host = 'a.b'"),
            ("host = '*.b'", "host = 'c.a.b'"),
            ("host = '*.b'", "host = '*.a.b'"),
            ("path = '/a'", "path = '/a'"),
            ("path = '/a*'", "path = '/a/b'"),
            ("path = '/a*'", "path = '/a/*'"),
            ("path = '/a/*'", "path = '/a'"),
            ("path = '/a/*'", "path = '/a/b'"),
            ("path = '/a/*'", "path = '/a/*'"),
            ("path = '/a/*'", "path = '/a/b/*'"),
            ("path = '/a/*'", "path = '/a/b*'"),
            ("path = '/*'", "path = '/a/*'"),
            ("path = ['/a/*', '/b']", "path = ['/b', '/a']"),
            ("path = ['/a', '/b*']", "path = '/bc'"),
            ("host = ['b', '*.a']", "host = ['c.a', 'b']"),
            ("host = ['b', 'a']", "host = 'a', path = '/x'"),
            ("method = 'GET'", "method = ['GET']"),
            ("listeners = 'a'", "listeners = ['a']"),
            ("path = '*'", "path_regex = 'x'"),
            ("path_regex = '^/v[0-9]$'", "path = '/v1'"),
            ("path_regex = 'x'", "path_regex = 'x'"),
            ("method = ['GET', 'HEAD']", "method = ['HEAD']"),
            ("header = { a = '1' }", "header = { A = '1', b = '2' }"),
            (
                "header = { a = { present = true } }",
                "header = { a = '1' }",
            ),
            (
                "query = { a = { present = false } }",
                "query = { a = { present = false } }",
            ),
            (
                "client = ['10.0.0.0/8', '::/0']",
                "client = ['10.1.0.0/16', '10.2.0.1']",
            ),
            ("listeners = ['a', 'b']", ""),
            ("listeners = ['a', 'b']", "listeners = ['b']"),
        ] {
            assert_eq!(shadows(&[earlier, later]), [(1, 0)], "{earlier} | {later}");
        }
    }

    #[test]
    fn routes_that_an_earlier_one_does_not_shadow() {
        for (earlier, later) in [
            ("host = 'a'", ""),
            ("host = 'a'", "host = 'b'"),
            ("host = '*.b'", "host = 'b'"),
            ("host = '*.a.b'", "host = '*.b'"),
            ("host = 'a.b'", "host = '*.b'"),
            ("path = '/a'", "path = '/a*'"),
            ("path = '/a/*'", "path = '/ab'"),
            ("path = '/a/*'", "path = '/a*'"),
            ("path = '/a/b/*'", "path = '/a/*'"),
            ("path = '/a/b'", "path = '/a/b/*'"),
            ("path = ['/a/*', '/b']", "path = ['/b', '/c']"),
            ("host = ['a', 'b']", ""),
            ("host = 'a'", "host = ['a', 'b']"),
            ("path = '/*'", ""),
            ("path_regex = '^/v'", "path = '/v*'"),
            ("path_regex = '^/v'", "path_regex = '^/v1'"),
            ("path_regex = '^/v'", "path = '/w'"),
            ("method = ['GET']", "method = ['GET', 'HEAD']"),
            ("method = ['GET']", ""),
            ("header = { a = '1' }", "header = { a = '2' }"),
            (
                "header = { a = '1' }",
                "header = { a = { present = true } }",
            ),
            (
                "header = { a = { present = false } }",
                "header = { a = '1' }",
            ),
            ("header = { a = '1' }", "query = { a = '1' }"),
            (
                "client = ['10.0.0.0/8']",
                "client = ['10.0.0.1', '11.0.0.1']",
            ),
            ("client = ['10.0.0.0/8']", ""),
            ("listeners = ['a']", ""),
            ("listeners = ['a']", "listeners = ['a', 'b']"),
        ] {
            assert_eq!(shadows(&[earlier, later]), [], "{earlier} | {later}");
        }
    }

    #[test]
    fn the_first_route_that_shadows_is_reported() {
        let routes = [
            "host = 'x'",
            "path = '/a*'",
            "path = '/a/*'",
            "path = '/a/b'",
            "path = '/c'",
        ];
        assert_eq!(shadows(&routes), [(2, 1), (3, 1)]);
    }

    #[test]
    fn the_budget_bounds_the_search() {
        let routes: Vec<String> = (0..3000)
            .map(|i| format!("header = {{ a = '{i}' }}"))
            .collect();
        let mut routes: Vec<&str> = routes.iter().map(String::as_str).collect();
        routes.push(routes[0]);
        assert_eq!(shadows(&routes), [], "given up before the end");
        routes.insert(1, routes[0]);
        assert_eq!(shadows(&routes), [(1, 0)]);
    }
}
