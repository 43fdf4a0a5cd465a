//! Which of many prefixes a path begins with.
//!
//! The prefixes are sorted, and each knows the longest other one that it begins with (its parent). All prefixes of a
//! path are then found on one line of parents: that of the greatest prefix that is not greater than the path. For if
//! q is a prefix of the path, every text between q and the path begins with q. A look-up costs one binary search and
//! the depth of nesting, whatever number of lengths there is.

use std::collections::BTreeMap;

/// Prefixes, each with the rules that ask for it.
#[derive(Debug, Default)]
pub(super) struct Prefixes(Vec<Prefix>);

#[derive(Debug)]
struct Prefix {
    text: Box<[u8]>,
    parent: Option<u32>,
    rules: Box<[u32]>,
}

impl Prefixes {
    /// From prefixes and their rules.
    pub fn new(rules: BTreeMap<&[u8], Vec<u32>>) -> Self {
        let mut sorted: Vec<Prefix> = Vec::with_capacity(rules.len());
        for (text, rules) in rules {
            // The one before, or the next of its line that this one begins with.
            let mut parent = sorted.len().checked_sub(1).map(|last| last as u32);
            while let Some(place) = parent
                && !text.starts_with(&sorted[place as usize].text)
            {
                parent = sorted[place as usize].parent;
            }
            sorted.push(Prefix {
                text: text.into(),
                parent,
                rules: rules.into(),
            });
        }
        Self(sorted)
    }

    /// Calls `each` with the rules of every prefix of `path`.
    pub fn of<'a>(&'a self, path: &[u8], mut each: impl FnMut(&'a [u32])) {
        let behind = self.0.partition_point(|prefix| *prefix.text <= *path);
        let Some(last) = behind.checked_sub(1) else {
            return;
        };
        let common = self.0[last]
            .text
            .iter()
            .zip(path)
            .take_while(|(a, b)| a == b)
            .count();
        let mut next = Some(last as u32);
        while let Some(place) = next {
            let prefix = &self.0[place as usize];
            if prefix.text.len() <= common {
                each(&prefix.rules);
            }
            next = prefix.parent;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_prefixes_and_no_others(
            texts in prop::collection::vec("[ab/]{0,6}", 0..30),
            path in "[abc/]{0,8}",
        ) {
            let mut rules: BTreeMap<&[u8], Vec<u32>> = BTreeMap::new();
            for (rule, text) in (0u32..).zip(&texts) {
                rules.entry(text.as_bytes()).or_default().push(rule);
            }
            let mut found = Vec::new();
            Prefixes::new(rules).of(path.as_bytes(), |rules| found.extend_from_slice(rules));
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
