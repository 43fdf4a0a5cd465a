//! Finds the rules that may match a host and a path: there is a bucket for each host, for each `*.` domain and for
//! rules without a host, and each bucket has lists of rules by exact path, by prefix, and of all others.
//!
//! Every list is ascending, so the first match is found by merging the few lists that a request hits. A rule is in one
//! list for each of its hosts and paths, and in two for a path `/x/*`: for `/x` itself, and for the prefix `/x/`. A
//! list ends with its first rule that only has conditions on host and path, since no later rule of that list can be the
//! first to match. Hash maps are seeded at random; their keys come from the configuration, and clients only cause
//! lookups.

use std::borrow::Cow;
use std::collections::BTreeMap;

use foldhash::{HashMap, HashMapExt};

use super::prefixes::Prefixes;
use super::rule::{HostPattern, PathPattern, Rule};

/// Most lists that are merged at a time. A request hits more only if many prefixes or domains are nested.
const LISTS: usize = 16;

/// The result of a lookup, and its cost.
pub(super) struct Lookup {
    /// Index of the rule.
    pub found: Option<u32>,
    /// Number of domains, lists and rules that were examined.
    pub steps: usize,
}

/// Rules by host and path; a rule is identified by its index in the list.
#[derive(Debug)]
pub(super) struct Index {
    exact: HashMap<Box<[u8]>, Paths>,
    under: HashMap<Box<[u8]>, Paths>,
    /// Distinct lengths of the keys of `under`, ascending.
    under_lengths: Vec<usize>,
    any: Paths,
}

impl Index {
    /// Builds the index of `rules`.
    pub(super) fn new<T>(rules: &[Rule<T>]) -> Self {
        let mut exact: HashMap<&[u8], Vec<u32>> = HashMap::new();
        let mut under: HashMap<&[u8], Vec<u32>> = HashMap::new();
        let mut any = Vec::new();
        for (index, rule) in (0u32..).zip(rules) {
            if rule.hosts.is_empty() {
                any.push(index);
            }
            for host in &rule.hosts {
                let indices = match host {
                    HostPattern::Exact(host) => exact.entry(host.as_bytes()).or_default(),
                    HostPattern::Under(domain) => under.entry(domain.as_bytes()).or_default(),
                };
                // A rule may repeat a host.
                if indices.last() != Some(&index) {
                    indices.push(index);
                }
            }
        }
        let mut under_lengths: Vec<usize> = under.keys().map(|domain| domain.len()).collect();
        under_lengths.sort_unstable();
        under_lengths.dedup();
        let paths = |hosts: HashMap<&[u8], Vec<u32>>| {
            hosts
                .into_iter()
                .map(|(host, indices)| (host.into(), Paths::new(rules, &indices)))
                .collect()
        };
        Self {
            exact: paths(exact),
            under: paths(under),
            under_lengths,
            any: Paths::new(rules, &any),
        }
    }

    /// Finds the first rule whose host and path match and for which `holds` is true. Calls `holds` in ascending order
    /// (of the rules in at most [`LISTS`] lists at a time).
    pub(super) fn first(&self, host: &[u8], path: &[u8], holds: impl FnMut(u32) -> bool) -> Lookup {
        let mut search = Search {
            holds,
            found: None,
            lists: [&[]; LISTS],
            count: 0,
            steps: 0,
        };
        self.any.search(path, &mut search);
        if let Some(paths) = self.exact.get(host) {
            paths.search(path, &mut search);
        }
        for &length in &self.under_lengths {
            // A subdomain has at least one more label, and a dot after it.
            let Some(dot) = host.len().checked_sub(length + 1).filter(|&dot| dot > 0) else {
                break;
            };
            if host[dot] == b'.' {
                search.steps += 1;
                if let Some(paths) = self.under.get(&host[dot + 1..]) {
                    paths.search(path, &mut search);
                }
            }
        }
        search.finish()
    }
}

/// The rules of one host by path.
#[derive(Debug)]
struct Paths {
    exact: HashMap<Box<[u8]>, Box<[u32]>>,
    prefixes: Prefixes,
    /// Rules without a path, or with a regular expression.
    rest: Vec<u32>,
}

impl Paths {
    /// Indexes the rules at `indices` (ascending) by path.
    fn new<T>(rules: &[Rule<T>], indices: &[u32]) -> Self {
        let mut exact: HashMap<&[u8], Vec<u32>> = HashMap::new();
        let mut prefixes: BTreeMap<Cow<'_, [u8]>, Vec<u32>> = BTreeMap::new();
        let mut rest = Vec::new();
        let add = |list: &mut Vec<u32>, index: u32| {
            let ended = |&last: &u32| last == index || rules[last as usize].is_plain();
            if !list.last().is_some_and(ended) {
                list.push(index);
            }
        };
        for &index in indices {
            let paths = &rules[index as usize].paths;
            if paths.is_empty() {
                add(&mut rest, index);
            }
            for path in paths {
                let (exact_path, prefix) = match path {
                    PathPattern::Exact(path) => (Some(path.as_bytes()), None),
                    PathPattern::Prefix(text) => (None, Some(Cow::from(text.as_bytes()))),
                    PathPattern::Below(path) => {
                        let prefix = [path.as_bytes(), b"/"].concat();
                        (Some(path.as_bytes()), Some(prefix.into()))
                    }
                    PathPattern::Regex(_) => {
                        add(&mut rest, index);
                        (None, None)
                    }
                };
                if let Some(path) = exact_path {
                    add(exact.entry(path).or_default(), index);
                }
                if let Some(prefix) = prefix {
                    add(prefixes.entry(prefix).or_default(), index);
                }
            }
        }
        Self {
            exact: exact
                .into_iter()
                .map(|(path, list)| (path.into(), list.into()))
                .collect(),
            prefixes: Prefixes::new(prefixes),
            rest,
        }
    }

    fn search<'a, F: FnMut(u32) -> bool>(&'a self, path: &[u8], search: &mut Search<'a, F>) {
        search.add(&self.rest);
        if let Some(list) = self.exact.get(path) {
            search.add(list);
        }
        self.prefixes.for_each(path, |list| search.add(list));
    }
}

/// A search for the first rule of all added lists for which `holds` is true.
struct Search<'a, F> {
    holds: F,
    found: Option<u32>,
    lists: [&'a [u32]; LISTS],
    count: usize,
    steps: usize,
}

impl<'a, F: FnMut(u32) -> bool> Search<'a, F> {
    /// Adds an ascending list. If there is no room, the lists so far are searched first.
    fn add(&mut self, list: &'a [u32]) {
        if list.is_empty() {
            return;
        }
        if self.count == LISTS {
            self.merge();
        }
        self.lists[self.count] = list;
        self.count += 1;
        self.steps += 1;
    }

    fn finish(mut self) -> Lookup {
        self.merge();
        Lookup {
            found: self.found,
            steps: self.steps,
        }
    }

    /// Examines the rules of all lists in ascending order, until one holds or none can precede the one found so far.
    fn merge(&mut self) {
        let lists = &mut self.lists[..self.count];
        self.count = 0;
        while let Some((list, index, rest)) = lists
            .iter_mut()
            .filter_map(|list| list.split_first().map(|(&index, rest)| (list, index, rest)))
            .min_by_key(|&(_, index, _)| index)
        {
            if self.found.is_some_and(|found| found < index) {
                return;
            }
            self.steps += 1;
            if (self.holds)(index) {
                self.found = Some(index);
                return;
            }
            *list = rest;
        }
    }
}
