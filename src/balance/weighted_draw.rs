//! `random`: a member by chance, each with the chance of its weight. `power_of_two` and the samples of
//! `least_connections` draw from here too.
//!
//! The alias method (A. J. Walker 1977; construction by M. D. Vose, "A linear algorithm for generating random
//! numbers with a given distribution", 1991), in whole numbers, so that the chances are exact: every one of the n
//! columns is Σw high and shared by at most two members. O(n) to build, two random numbers a draw; while all
//! weights are equal there are no columns and one number does.

use super::Random;
use super::group::Candidates;

/// Draws that may hit refused members before all are looked at.
pub(super) const REDRAWS: usize = 8;

/// Members and their chances.
#[derive(Debug)]
pub(super) struct WeightedDraw {
    ids: Vec<u32>,
    columns: Vec<Column>,
    total: u64,
}

/// `own` of the column's height belongs to the member in its place, the rest to the member in place `other`.
#[derive(Debug, Clone, Copy)]
struct Column {
    own: u64,
    other: u32,
}

impl WeightedDraw {
    /// Members `ids` (at least one) with `weights` (each at least 1) in the same order.
    pub(super) fn new(ids: Vec<u32>, weights: &[u32]) -> Self {
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        Self {
            columns: if equal { Vec::new() } else { columns(weights) },
            total: weights.iter().map(|&weight| u64::from(weight)).sum(),
            ids,
        }
    }

    /// The members, in order.
    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Any member, whatever its state.
    pub(super) fn draw(&self, random: &Random) -> u32 {
        let mut place = random.below(self.ids.len() as u64) as usize;
        if let Some(column) = self.columns.get(place)
            && random.below(self.total) >= column.own
        {
            place = column.other as usize;
        }
        self.ids[place]
    }

    /// A member that the candidates accept.
    pub(super) fn pick(&self, candidates: &Candidates<'_>, random: &Random) -> Option<u32> {
        self.pick_but(None, candidates, random)
    }

    /// A member that the candidates accept, other than `but`. Chances are those of the weights among all such
    /// members. O(1), and O(n) after [`REDRAWS`] draws in vain.
    pub(super) fn pick_but(
        &self,
        but: Option<u32>,
        candidates: &Candidates<'_>,
        random: &Random,
    ) -> Option<u32> {
        let accept = |id: u32| Some(id) != but && candidates.accept(id);
        for _ in 0..=REDRAWS {
            let id = self.draw(random);
            if accept(id) {
                return Some(id);
            }
        }
        // One pass, so that health that changes meanwhile cannot spoil the sum: the k-th of those that are accepted
        // replaces the choice with the chance of its weight in the sum so far (weighted reservoir of one).
        let mut sum = 0;
        let mut chosen = None;
        for &id in self.ids.iter().filter(|&&id| accept(id)) {
            let weight = u64::from(candidates.weight(id));
            sum += weight;
            if random.below(sum) < weight {
                chosen = Some(id);
            }
        }
        chosen
    }
}

/// Fills each column that is too low for its own member's share from one that is too high.
fn columns(weights: &[u32]) -> Vec<Column> {
    let count = weights.len() as u64;
    let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    let mut columns: Vec<Column> = (0u32..)
        .zip(weights)
        .map(|(place, &weight)| Column {
            own: u64::from(weight) * count,
            other: place,
        })
        .collect();
    let (mut low, mut high): (Vec<u32>, Vec<u32>) =
        (0..columns.len() as u32).partition(|&place| columns[place as usize].own < total);
    while let (Some(poor), Some(&rich)) = (low.pop(), high.last()) {
        let missing = total - columns[poor as usize].own;
        columns[poor as usize].other = rich;
        let rest = &mut columns[rich as usize].own;
        *rest -= missing;
        if *rest < total {
            high.pop();
            low.push(rich);
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::fixture::{Bench, assert_shares};
    use crate::model::health::Health;
    use crate::model::settings::Policy;

    /// What each member owns of all columns together.
    fn owned(weights: &[u32]) -> Vec<u64> {
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        let mut owned = vec![0; weights.len()];
        for (place, column) in columns(weights).into_iter().enumerate() {
            owned[place] += column.own.min(total);
            owned[column.other as usize] += total - column.own.min(total);
        }
        owned
    }

    proptest! {
        #[test]
        fn columns_give_each_member_exactly_its_weight(
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
            let counts = Bench::new(Policy::Random, weights).counts(100_000, 3);
            assert_shares(&counts, weights);
        }
    }

    #[test]
    fn shares_among_those_that_are_left_follow_their_weights() {
        // Refused members own most of the weight, so that redraws often end in the scan.
        let bench = Bench::new(Policy::Random, &[3, 400, 1, 400, 2]);
        bench.backend(1).set_health(Health::CHECK_DOWN);
        bench.backend(3).set_health(Health::REFUSED);
        let counts = bench.counts(60_000, 9);
        assert_shares(&counts, &[3, 0, 1, 0, 2]);
    }
}
