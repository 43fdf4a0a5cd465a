//! `random`: a random backend, with a probability proportional to its weight. `power_of_two` and the samples of
//! `least_connections` are drawn here too.
//!
//! The alias method (A. J. Walker 1977; construction by M. D. Vose, "A linear algorithm for generating random numbers
//! with a given distribution", 1991), in integers, so that the probabilities are exact: each of the n columns is Σw
//! high and shared by at most two backends. It takes O(n) to build and two random numbers per draw; if all weights are
//! equal there are no columns, and one random number is enough.

use super::Random;
use super::tier_view::TierView;

/// Draws that may hit excluded backends before the search falls back to a scan.
pub(super) const REDRAWS: usize = 8;

/// Backends with their probabilities.
#[derive(Debug)]
pub(super) struct WeightedDraw {
    indices: Vec<u32>,
    columns: Vec<Column>,
    total: u64,
}

/// A column of the alias table: the lower `threshold` of its height belong to the backend of the column, the rest to
/// the backend of column `alias`.
#[derive(Debug, Clone, Copy)]
struct Column {
    threshold: u64,
    alias: u32,
}

impl WeightedDraw {
    /// Prepares draws from `indices` (at least one) with `weights` (each at least 1) in the same order.
    pub(super) fn new(indices: Vec<u32>, weights: &[u32]) -> Self {
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        Self {
            columns: if equal { Vec::new() } else { columns(weights) },
            total: weights.iter().map(|&weight| u64::from(weight)).sum(),
            indices,
        }
    }

    /// The indices of the backends, in order.
    pub(super) fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// Draws a backend, whatever its state.
    pub(super) fn draw(&self, random: &Random) -> u32 {
        let mut drawn = random.below(self.indices.len() as u64) as usize;
        if let Some(column) = self.columns.get(drawn)
            && random.below(self.total) >= column.threshold
        {
            drawn = column.alias as usize;
        }
        self.indices[drawn]
    }

    /// Draws a backend that `view` accepts.
    pub(super) fn pick(&self, view: &TierView<'_>, random: &Random) -> Option<u32> {
        self.pick_except(None, view, random)
    }

    /// Draws a backend that `view` accepts, other than `excepted`, with probabilities by weight among all such
    /// backends. O(1), or O(n) after [`REDRAWS`] unsuccessful draws.
    pub(super) fn pick_except(
        &self,
        excepted: Option<u32>,
        view: &TierView<'_>,
        random: &Random,
    ) -> Option<u32> {
        let accepts = |index: u32| Some(index) != excepted && view.accepts(index);
        for _ in 0..=REDRAWS {
            let index = self.draw(random);
            if accepts(index) {
                return Some(index);
            }
        }
        // One pass, so that a change of health in the meantime cannot make the sum wrong: each accepted backend
        // replaces the choice with the probability of its weight in the sum so far (a weighted reservoir of one).
        let mut sum = 0;
        let mut chosen = None;
        for &index in self.indices.iter().filter(|&&index| accepts(index)) {
            let weight = u64::from(view.weight(index));
            sum += weight;
            if random.below(sum) < weight {
                chosen = Some(index);
            }
        }
        chosen
    }
}

/// Builds the columns: each that is lower than Σw is filled up from one that is higher.
fn columns(weights: &[u32]) -> Vec<Column> {
    let count = weights.len() as u64;
    let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    let mut columns: Vec<Column> = (0u32..)
        .zip(weights)
        .map(|(column, &weight)| Column {
            threshold: u64::from(weight) * count,
            alias: column,
        })
        .collect();
    let (mut low, mut high): (Vec<u32>, Vec<u32>) =
        (0..columns.len() as u32).partition(|&column| columns[column as usize].threshold < total);
    while let (Some(lower), Some(&higher)) = (low.pop(), high.last()) {
        let missing = total - columns[lower as usize].threshold;
        columns[lower as usize].alias = higher;
        let rest = &mut columns[higher as usize].threshold;
        *rest -= missing;
        if *rest < total {
            high.pop();
            low.push(higher);
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::fixture::{TestCluster, assert_shares};
    use crate::model::health::Health;
    use crate::model::settings::Policy;

    /// The height that each backend owns in all columns together.
    fn owned(weights: &[u32]) -> Vec<u64> {
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        let mut owned = vec![0; weights.len()];
        for (index, column) in columns(weights).into_iter().enumerate() {
            owned[index] += column.threshold.min(total);
            owned[column.alias as usize] += total - column.threshold.min(total);
        }
        owned
    }

    proptest! {
        #[test]
        fn columns_give_each_backend_exactly_its_weight(
            weights in prop::collection::vec(1u32..=1000, 1..60),
        ) {
            let expected: Vec<u64> =
                weights.iter().map(|&w| u64::from(w) * weights.len() as u64).collect();
            prop_assert_eq!(owned(&weights), expected);
        }
    }

    #[test]
    fn the_largest_weights_do_not_overflow() {
        let weights = [u32::MAX, 1, u32::MAX, u32::MAX];
        let expected: Vec<u64> = weights.iter().map(|&w| u64::from(w) * 4).collect();
        assert_eq!(owned(&weights), expected);
    }

    #[test]
    fn shares_follow_the_weights() {
        for weights in [&[1, 1, 1][..], &[5, 1, 1], &[1, 2, 3, 4, 90], &[7]] {
            let counts = TestCluster::new(Policy::Random, weights).counts(100_000, 3);
            assert_shares(&counts, weights);
        }
    }

    #[test]
    fn shares_of_the_remaining_backends_follow_their_weights() {
        // Excluded backends have most of the weight, so that redraws often end in the scan.
        let cluster = TestCluster::new(Policy::Random, &[3, 400, 1, 400, 2]);
        cluster.backend(1).set_health(Health::CHECK_DOWN);
        cluster.backend(3).set_health(Health::REFUSED);
        let counts = cluster.counts(60_000, 9);
        assert_shares(&counts, &[3, 0, 1, 0, 2]);
    }
}
