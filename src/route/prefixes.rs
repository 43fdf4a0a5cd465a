//! Finds all of many prefixes that a path begins with.
//!
//! The longest is found by a binary search over the distinct lengths, not the prefixes (M. Waldvogel, G. Varghese, J.
//! Turner, B. Plattner, "Scalable high speed IP routing lookups", 1997): the start of the path with the length in
//! question is looked up in a hash map, and a hit continues the search at greater lengths. So that the search gets
//! there for every prefix, the map also has markers: the starts of a prefix that the search for it tries. A marker
//! knows the longest prefix that it begins with itself, so a search that a marker misleads loses nothing. All other
//! prefixes of the path are starts of the longest one, and each prefix knows the next shorter one (its parent).
//!
//! With n distinct lengths, a lookup hashes about log2(n) starts of the path, and then costs the depth of nesting; the
//! number of prefixes does not matter. A prefix adds at most log2(n) markers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use foldhash::{HashMap, HashMapExt};

/// Prefixes, each with the rules that have it.
#[derive(Debug)]
pub(super) struct Prefixes {
    prefixes: Vec<Prefix>,
    /// Distinct lengths, ascending.
    lengths: Vec<usize>,
    /// Prefixes and markers, with the index of the longest prefix that each begins with.
    longest: HashMap<Box<[u8]>, Option<u32>>,
}

#[derive(Debug)]
struct Prefix {
    parent: Option<u32>,
    rules: Box<[u32]>,
}

impl Prefixes {
    /// Builds the index from prefixes and their rules.
    pub(super) fn new(rules: BTreeMap<Cow<'_, [u8]>, Vec<u32>>) -> Self {
        let mut lengths: Vec<usize> = rules.keys().map(|text| text.len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let mut prefixes: Vec<Prefix> = Vec::with_capacity(rules.len());
        let mut longest: HashMap<Box<[u8]>, Option<u32>> = HashMap::with_capacity(rules.len());
        // The prefixes that the current one begins with, ascending: they precede it in lexical order.
        let mut ancestors: Vec<(&[u8], u32)> = Vec::new();
        for (text, rules) in &rules {
            let text: &[u8] = text;
            while ancestors
                .last()
                .is_some_and(|(start, _)| !text.starts_with(start))
            {
                ancestors.pop();
            }
            let parent = ancestors.last().map(|&(_, index)| index);
            ancestors.push((text, prefixes.len() as u32));
            prefixes.push(Prefix {
                parent,
                rules: rules.as_slice().into(),
            });
            search(&lengths, |length| {
                let Some(start) = text.get(..length) else {
                    return false;
                };
                if !longest.contains_key(start) {
                    let end = ancestors.partition_point(|(known, _)| known.len() <= length);
                    let known = ancestors[..end].last();
                    longest.insert(start.into(), known.map(|&(_, index)| index));
                }
                true
            });
        }
        Self {
            prefixes,
            lengths,
            longest,
        }
    }

    /// Calls `each` with the rules of every prefix of `path`, longest first.
    pub(super) fn for_each<'a>(&'a self, path: &[u8], mut each: impl FnMut(&'a [u32])) {
        let mut next = None;
        search(&self.lengths, |length| {
            let start = path.get(..length);
            let hit = start.and_then(|start| self.longest.get(start));
            next = hit.copied().unwrap_or(next);
            hit.is_some()
        });
        while let Some(index) = next {
            let prefix = &self.prefixes[index as usize];
            each(&prefix.rules);
            next = prefix.parent;
        }
    }
}

/// Binary search: calls `hit` with the middle of `lengths`, then of the greater ones after a hit or of the lesser ones
/// after a miss, until none is left.
fn search(mut lengths: &[usize], mut hit: impl FnMut(usize) -> bool) {
    while !lengths.is_empty() {
        let middle = lengths.len() / 2;
        lengths = match hit(lengths[middle]) {
            true => &lengths[middle + 1..],
            false => &lengths[..middle],
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_prefixes_are_found_and_no_others(
            texts in prop::collection::vec("[ab/]{0,6}", 0..30),
            path in "[abc/]{0,8}",
        ) {
            let mut rules: BTreeMap<Cow<'_, [u8]>, Vec<u32>> = BTreeMap::new();
            for (rule, text) in (0u32..).zip(&texts) {
                rules.entry(text.as_bytes().into()).or_default().push(rule);
            }
            let mut found = Vec::new();
            Prefixes::new(rules).for_each(path.as_bytes(), |rules| found.extend_from_slice(rules));
            found.sort_unstable();
            let expected: Vec<u32> = (0u32..)
                .zip(&texts)
                .filter(|(_, text)| path.starts_with(text.as_str()))
                .map(|(rule, _)| rule)
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
