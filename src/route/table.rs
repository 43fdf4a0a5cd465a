//! The whole list of rules, indexed by host and path. Precedence is the order of the file and nothing else: an exact
//! host does not go before a wildcard, nor a long prefix before a short one.

use super::RequestView;
use super::index::{Index, LookUp};
use super::normal::{all_readings, may_differ};
use super::rule::Rule;

/// Steps of look-ups that the readings of one path may cost in all, whatever one of them costs.
const STEPS: usize = 1024;
/// Beside those, so many times the steps of the longest look-up among them: enough for every subset of three features,
/// unless dot segments stand beside runs of `/`.
const LOOK_UPS: usize = 8;

/// Rules in the order of the file.
#[derive(Debug)]
pub struct Table<T> {
    rules: Vec<Rule<T>>,
    index: Index,
    /// Whether a rule looks at the path.
    has_paths: bool,
}

impl<T> Table<T> {
    /// Indexes `rules`; O(n log n) in their number.
    pub fn new(rules: Vec<Rule<T>>) -> Self {
        let index = Index::new(&rules);
        let has_paths = rules.iter().any(|rule| !rule.paths.is_empty());
        Self {
            rules,
            index,
            has_paths,
        }
    }

    /// The first rule that matches, and its place in the list.
    ///
    /// Allocates nothing. Rules whose host, exact path or prefix does not match cost nothing; those that match are
    /// looked at in the order of the file, so rules that tell requests apart by other words alone cost what a list
    /// costs.
    pub fn find(&self, request: &RequestView<'_>) -> Option<(usize, &T)> {
        let place = self.look_up(request).found? as usize;
        Some((place, &self.rules[place].target))
    }

    fn look_up(&self, request: &RequestView<'_>) -> LookUp {
        let holds = |place: u32| self.rules[place as usize].holds(request);
        self.index.first(request.host, request.path, holds)
    }

    /// Whether a reading of the request's path takes another rule than the path itself, or there are too
    /// many to tell: which of them counts would then be up to whoever reads it next.
    ///
    /// Allocates only for a path that has other readings, and costs at most `LOOK_UPS` + 1 times what an ordinary path
    /// may cost on this table, and `STEPS`.
    pub fn is_ambiguous(&self, request: &RequestView<'_>) -> bool {
        if !self.has_paths || !request.path.starts_with(b"/") || !may_differ(request.path) {
            return false;
        }
        let own = self.look_up(request);
        let (mut steps, mut longest) = (own.steps, own.steps);
        !all_readings(request.path, |path| {
            let other = self.look_up(&RequestView { path, ..*request });
            steps += other.steps;
            longest = longest.max(other.steps);
            other.found == own.found && steps <= STEPS + LOOK_UPS * longest
        })
    }

    /// The rules in the order of the file.
    pub fn rules(&self) -> &[Rule<T>] {
        &self.rules
    }
}

#[cfg(test)]
mod tests;
