//! From a host and a path to the rules that may match: a bucket of paths for each host and each `*.` domain of the
//! list and one for rules without a host, and in a bucket the lists of rules by exact path, by prefix, and the rest.
//!
//! Every list is ascending, so the first match is found by merging the few lists that a request hits. A rule stands in
//! one list for each of its hosts and paths, and in two for a path `/x/*`: for `/x` itself, and for the prefix `/x/`. A list ends with its first rule that nothing but host and path decides: no later one of the
//! same list can be the first. Hash maps are seeded at random; their keys come from the file, clients only look up.

use std::borrow::Cow;
use std::collections::BTreeMap;

use foldhash::{HashMap, HashMapExt};

use super::prefixes::Prefixes;
use super::rule::{HostPattern, PathPattern, Rule};

/// Lists that are merged at a time. A request hits more only where many prefixes or domains are nested.
const LISTS: usize = 16;

/// What a look-up found, and what it cost.
pub(super) struct LookUp {
    /// The place of the rule.
    pub found: Option<u32>,
    /// Domains, lists and rules that were looked at.
    pub steps: usize,
}

/// Rules by host and path; they are named by their place in the list.
#[derive(Debug)]
pub(super) struct Index {
    exact: HashMap<Box<[u8]>, Paths>,
    under: HashMap<Box<[u8]>, Paths>,
    /// Lengths of the keys of `under`, ascending, each once.
    under_lengths: Vec<usize>,
    any: Paths,
}

impl Index {
    /// Indexes all rules.
    pub(super) fn new<T>(rules: &[Rule<T>]) -> Self {
        let mut exact: HashMap<&[u8], Vec<u32>> = HashMap::new();
        let mut under: HashMap<&[u8], Vec<u32>> = HashMap::new();
        let mut any = Vec::new();
        for (place, rule) in (0u32..).zip(rules) {
            if rule.hosts.is_empty() {
                any.push(place);
            }
            for host in &rule.hosts {
                let places = match host {
                    HostPattern::Exact(host) => exact.entry(host.as_bytes()).or_default(),
                    HostPattern::Under(domain) => under.entry(domain.as_bytes()).or_default(),
                };
                // One that is written twice.
                if places.last() != Some(&place) {
                    places.push(place);
                }
            }
        }
        let mut under_lengths: Vec<usize> = under.keys().map(|domain| domain.len()).collect();
        under_lengths.sort_unstable();
        under_lengths.dedup();
        let paths = |hosts: HashMap<&[u8], Vec<u32>>| {
            hosts
                .into_iter()
                .map(|(host, places)| (host.into(), Paths::new(rules, &places)))
                .collect()
        };
        Self {
            exact: paths(exact),
            under: paths(under),
            under_lengths,
            any: Paths::new(rules, &any),
        }
    }

    /// The first rule whose host and path match and that `holds`. Rules are asked in ascending order (among at most
    /// [`LISTS`] lists at a time).
    pub(super) fn first(&self, host: &[u8], path: &[u8], holds: impl FnMut(u32) -> bool) -> LookUp {
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
            // At least one label, and the dot behind it.
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
    /// Without a path, or with an expression.
    rest: Vec<u32>,
}

impl Paths {
    /// Of the rules at these places (ascending).
    fn new<T>(rules: &[Rule<T>], places: &[u32]) -> Self {
        let mut exact: HashMap<&[u8], Vec<u32>> = HashMap::new();
        let mut prefixes: BTreeMap<Cow<'_, [u8]>, Vec<u32>> = BTreeMap::new();
        let mut rest = Vec::new();
        let add = |list: &mut Vec<u32>, place: u32| {
            let ended = |&last: &u32| last == place || rules[last as usize].is_plain();
            if !list.last().is_some_and(ended) {
                list.push(place);
            }
        };
        for &place in places {
            let paths = &rules[place as usize].paths;
            if paths.is_empty() {
                add(&mut rest, place);
            }
            for path in paths {
                let (whole, start) = match path {
                    PathPattern::Exact(path) => (Some(path.as_bytes()), None),
                    PathPattern::Prefix(text) => (None, Some(Cow::from(text.as_bytes()))),
                    PathPattern::Below(path) => {
                        let start = [path.as_bytes(), b"/"].concat();
                        (Some(path.as_bytes()), Some(start.into()))
                    }
                    PathPattern::Regex(_) => {
                        add(&mut rest, place);
                        (None, None)
                    }
                };
                if let Some(whole) = whole {
                    add(exact.entry(whole).or_default(), place);
                }
                if let Some(start) = start {
                    add(prefixes.entry(start).or_default(), place);
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
        self.prefixes.of(path, |list| search.add(list));
    }
}

/// The first of all rules in the added lists that holds.
struct Search<'a, F> {
    holds: F,
    found: Option<u32>,
    lists: [&'a [u32]; LISTS],
    count: usize,
    /// See [`LookUp`].
    steps: usize,
}

impl<'a, F: FnMut(u32) -> bool> Search<'a, F> {
    /// Adds an ascending list; when there is no room, what is there is searched first.
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

    fn finish(mut self) -> LookUp {
        self.merge();
        LookUp {
            found: self.found,
            steps: self.steps,
        }
    }

    /// Asks the rules of all lists in ascending order, until one holds or none can go before what was found.
    fn merge(&mut self) {
        let lists = &mut self.lists[..self.count];
        self.count = 0;
        while let Some((list, place, rest)) = lists
            .iter_mut()
            .filter_map(|list| list.split_first().map(|(&place, rest)| (list, place, rest)))
            .min_by_key(|&(_, place, _)| place)
        {
            if self.found.is_some_and(|found| found < place) {
                return;
            }
            self.steps += 1;
            if (self.holds)(place) {
                self.found = Some(place);
                return;
            }
            *list = rest;
        }
    }
}
