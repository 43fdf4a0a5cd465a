//! The whole list of rules, indexed by host and path. Precedence is the order of the file and nothing else: an exact
//! host does not go before a wildcard, nor a long prefix before a short one.

use super::RequestView;
use super::index::Index;
use super::rule::Rule;

/// Rules in the order of the file.
#[derive(Debug)]
pub struct Table<T> {
    rules: Vec<Rule<T>>,
    index: Index,
}

impl<T> Table<T> {
    /// Indexes `rules`; O(n log n) in their number.
    pub fn new(rules: Vec<Rule<T>>) -> Self {
        let index = Index::new(&rules);
        Self { rules, index }
    }

    /// The first rule that matches, and its place in the list.
    ///
    /// Allocates nothing. Rules whose host, exact path or prefix does not match cost nothing; those that match are
    /// looked at in the order of the file, so rules that tell requests apart by other words alone cost what a list
    /// costs.
    pub fn find(&self, request: &RequestView<'_>) -> Option<(usize, &T)> {
        let place = self.index.first(request.host, request.path, |place| {
            self.rules[place as usize].holds(request)
        })? as usize;
        Some((place, &self.rules[place].target))
    }

    /// The rules in the order of the file.
    pub fn rules(&self) -> &[Rule<T>] {
        &self.rules
    }
}

#[cfg(test)]
mod tests;
