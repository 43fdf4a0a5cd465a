//! The list of rules, indexed by host and path. Only the order of the configuration determines precedence: an exact
//! host does not come before a wildcard, nor a long prefix before a short one.

use super::RequestView;
use super::index::{Index, Lookup};
use super::normal::{all_normal_forms, may_have_other_forms};
use super::rule::Rule;

/// Lookup steps that the normal forms of one path may always cost in total.
const STEPS: usize = 1024;
/// In addition to those, this many times the steps of the longest lookup: enough for every subset of three features,
/// unless the path has dot segments and runs of `/`.
const LOOKUPS: usize = 8;

/// Rules in the order of the configuration.
#[derive(Debug)]
pub struct Table<T> {
    rules: Vec<Rule<T>>,
    index: Index,
    /// Whether any rule has a condition on the path.
    has_paths: bool,
}

impl<T> Table<T> {
    /// Indexes `rules`. O(n log n) in their number.
    pub fn new(rules: Vec<Rule<T>>) -> Self {
        let index = Index::new(&rules);
        let has_paths = rules.iter().any(|rule| !rule.paths.is_empty());
        Self {
            rules,
            index,
            has_paths,
        }
    }

    /// Finds the first rule that matches, and its index in the list.
    ///
    /// Allocates nothing. Rules whose host, exact path or prefix does not match cost nothing; the others are examined
    /// in the order of the configuration, so rules that differ only in other conditions cost as much as a linear
    /// search.
    pub fn find(&self, request: &RequestView<'_>) -> Option<(usize, &T)> {
        let index = self.look_up(request).found? as usize;
        Some((index, &self.rules[index].target))
    }

    fn look_up(&self, request: &RequestView<'_>) -> Lookup {
        let holds = |index: u32| self.rules[index as usize].holds(request);
        self.index.first(request.host, request.path, holds)
    }

    /// Whether a normal form of the request's path matches another rule than the path itself, or there are too many
    /// forms to find out: which rule applies would then depend on the backend.
    ///
    /// Allocates only for a path that has other forms, and costs at most `LOOKUPS` + 1 times as much as an ordinary
    /// path can cost with this table, plus `STEPS`.
    pub fn is_ambiguous(&self, request: &RequestView<'_>) -> bool {
        if !self.has_paths || !request.path.starts_with(b"/") || !may_have_other_forms(request.path)
        {
            return false;
        }
        let own = self.look_up(request);
        let (mut steps, mut longest) = (own.steps, own.steps);
        !all_normal_forms(request.path, |path| {
            let other = self.look_up(&RequestView { path, ..*request });
            steps += other.steps;
            longest = longest.max(other.steps);
            other.found == own.found && steps <= STEPS + LOOKUPS * longest
        })
    }

    /// The rules in the order of the configuration.
    pub fn rules(&self) -> &[Rule<T>] {
        &self.rules
    }
}

#[cfg(test)]
mod tests;
