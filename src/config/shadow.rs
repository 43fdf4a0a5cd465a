//! Routes that an earlier one leaves nothing to.
//!
//! A route is shadowed if each condition of one earlier route is implied by its own: sound, so there are no false
//! alarms, but not complete (two earlier routes may do it together). Earlier routes are looked up by the hosts and
//! paths that could imply those of the later, so that ten thousand routes cost milliseconds; a budget of
//! comparisons bounds what is left, and where it ends nothing more is said.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use super::reader::draft::Draft;
use super::schema::RouteConfig;
use crate::model::settings::Protocol;
use crate::route::rule::{HostPattern, PathPattern, ValuePattern};

/// Comparisons of single conditions in all.
const BUDGET: usize = 1_000_000;
/// What matching an expression against a path costs in such comparisons.
const REGEX_COST: usize = 20;
/// Candidates that are collected for the cost of one comparison.
const COLLECTED_PER_COST: usize = 16;

/// Each shadowed route with the first that shadows it, as indices.
pub(super) fn shadowed(draft: &Draft) -> Vec<(usize, usize)> {
    let routes = &draft.config.routes;
    let listeners = &draft.config.listeners;
    let http = listeners
        .iter()
        .filter(|listener| listener.protocol == Protocol::Http)
        .count();
    let mut search = Search {
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
            // What it would take, the one that shadows it takes too, so it need not be looked at again.
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
enum Host<'c> {
    Any,
    Exact(&'c str),
    Under(&'c str),
}

#[derive(Hash, PartialEq, Eq, Clone, Copy)]
enum Path<'c> {
    Any,
    Exact(&'c str),
    Prefix(&'c str),
}

/// The routes of one host.
#[derive(Default)]
struct Paths<'c> {
    routes: HashMap<Path<'c>, Vec<usize>>,
    prefix_lengths: BTreeSet<usize>,
    regexes: Vec<usize>,
}

struct Search<'c> {
    routes: &'c [RouteConfig],
    hosts: HashMap<Host<'c>, Paths<'c>>,
    http: usize,
    left: usize,
}

impl<'c> Search<'c> {
    fn add(&mut self, at: usize) {
        let routes = self.routes;
        let rule = &routes[at].rule;
        let paths = self.hosts.entry(host_key(&rule.host)).or_default();
        let key = match &rule.path {
            None => Path::Any,
            Some(PathPattern::Exact(path)) => Path::Exact(path),
            Some(PathPattern::Prefix(prefix)) => {
                paths.prefix_lengths.insert(prefix.len());
                Path::Prefix(prefix)
            }
            Some(PathPattern::Regex(_)) => return paths.regexes.push(at),
        };
        paths.routes.entry(key).or_default().push(at);
    }

    /// The first of the routes added so far that takes all that route `at` matches.
    fn first_over(&mut self, at: usize) -> Option<usize> {
        let routes = self.routes;
        let later = &routes[at];
        let mut candidates = Vec::new();
        for host in hosts_over(&later.rule.host) {
            let Some(paths) = self.hosts.get(&host) else {
                continue;
            };
            for path in paths_over(&later.rule.path, &paths.prefix_lengths) {
                candidates.extend(paths.routes.get(&path).into_iter().flatten().copied());
            }
            candidates.extend(paths.regexes.iter().copied());
        }
        self.spend(candidates.len() / COLLECTED_PER_COST);
        candidates.sort_unstable();
        candidates
            .into_iter()
            .find(|earlier| self.takes_all(&routes[*earlier], later))
    }

    /// Host and plain paths are implied already.
    fn takes_all(&mut self, earlier: &RouteConfig, later: &RouteConfig) -> bool {
        if let Some(PathPattern::Regex(_)) = earlier.rule.path {
            self.spend(REGEX_COST);
        }
        self.spend(1 + conditions(earlier) * conditions(later));
        self.left > 0
            && regex_implied(&earlier.rule.path, &later.rule.path)
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

/// How many conditions a route has beside host and path.
fn conditions(route: &RouteConfig) -> usize {
    let rule = &route.rule;
    route.listeners.as_ref().map_or(0, Vec::len)
        + rule.methods.len()
        + rule.headers.len()
        + rule.query.len()
        + rule.clients.len()
}

fn host_key(host: &Option<HostPattern>) -> Host<'_> {
    match host {
        None => Host::Any,
        Some(HostPattern::Exact(host)) => Host::Exact(host),
        Some(HostPattern::Under(parent)) => Host::Under(parent),
    }
}

/// Every host pattern that matches all that `host` matches.
fn hosts_over(host: &Option<HostPattern>) -> Vec<Host<'_>> {
    let key = host_key(host);
    let mut over = vec![Host::Any];
    if let Host::Exact(mut rest) | Host::Under(mut rest) = key {
        over.push(key);
        while let Some((_, parent)) = rest.split_once('.') {
            over.push(Host::Under(parent));
            rest = parent;
        }
    }
    over
}

/// Every path pattern but expressions that matches all that `path` matches.
fn paths_over<'c>(
    path: &'c Option<PathPattern>,
    prefix_lengths: &BTreeSet<usize>,
) -> Vec<Path<'c>> {
    let (mut over, text) = match path {
        Some(PathPattern::Exact(path)) => (vec![Path::Any, Path::Exact(path)], path.as_str()),
        Some(PathPattern::Prefix(prefix)) => (vec![Path::Any], prefix.as_str()),
        None | Some(PathPattern::Regex(_)) => (vec![Path::Any], ""),
    };
    let prefixes = prefix_lengths.range(..=text.len());
    over.extend(prefixes.filter_map(|length| text.get(..*length).map(Path::Prefix)));
    over
}

/// Whether an earlier expression takes the later path; no expression is implied by what was looked up.
fn regex_implied(earlier: &Option<PathPattern>, later: &Option<PathPattern>) -> bool {
    let Some(PathPattern::Regex(earlier)) = earlier else {
        return true;
    };
    match later {
        Some(PathPattern::Exact(path)) => earlier.is_match(path.as_bytes()),
        Some(PathPattern::Regex(later)) => earlier.as_str() == later.as_str(),
        None | Some(PathPattern::Prefix(_)) => false,
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

    /// Lines of the routes that are shadowed and of those that shadow them, when each of `conditions` is a route
    /// on a line of its own.
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
    fn what_an_earlier_route_takes_all_of() {
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
            ("path = '*'", ""),
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
    fn what_an_earlier_route_leaves_something_of() {
        for (earlier, later) in [
            ("host = 'a'", ""),
            ("host = 'a'", "host = 'b'"),
            ("host = '*.b'", "host = 'b'"),
            ("host = '*.a.b'", "host = '*.b'"),
            ("host = 'a.b'", "host = '*.b'"),
            ("path = '/a'", "path = '/a*'"),
            ("path = '/a/*'", "path = '/a'"),
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
    fn the_first_that_takes_all_is_told() {
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
