//! How the bytes of a case are cut on their way.

use std::fmt;

use super::super::number_from_env;

/// So many bytes at each end of what is long go one by one: there its lines end and its limits lie.
const ENDS: usize = 2 << 10;
/// Length of the pieces between.
const MIDDLE: usize = 61;

/// One way to deliver bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// In one write.
    Whole,
    /// One byte a write; of what is long, the middle in pieces of [`MIDDLE`].
    Bytes,
    /// In pieces that this seed draws.
    Cuts(u64),
}

impl Delivery {
    /// The three deliveries of a case. The seed of its cuts comes from its name and from `LBPROXY_CORPUS_SEED`, so
    /// that one case can be run again without the others.
    pub fn all(case: &str) -> [Self; 3] {
        let base = number_from_env("LBPROXY_CORPUS_SEED", 1);
        let seed = case.bytes().fold(base, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        [Self::Whole, Self::Bytes, Self::Cuts(seed)]
    }

    /// Lengths of the pieces of `total` bytes; none is empty.
    pub fn pieces(self, total: usize) -> Vec<usize> {
        let mut random = match self {
            Self::Whole => return Vec::from_iter((total > 0).then_some(total)),
            Self::Bytes => return bytes(total),
            Self::Cuts(seed) => fastrand::Rng::with_seed(seed),
        };
        let longest = (total / 8).max(4);
        let mut pieces = Vec::new();
        let mut left = total;
        while left > 0 {
            // Short pieces are drawn more often than long ones.
            let bound = random.usize(1..=longest);
            let piece = random.usize(1..=bound).min(left);
            pieces.push(piece);
            left -= piece;
        }
        pieces
    }
}

fn bytes(total: usize) -> Vec<usize> {
    let middle = total.saturating_sub(2 * ENDS) / MIDDLE;
    let mut pieces = vec![1; total - middle * MIDDLE];
    pieces.splice(ENDS.min(total)..ENDS.min(total), vec![MIDDLE; middle]);
    pieces
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => write!(f, "whole"),
            Self::Bytes => write!(f, "one byte at a time"),
            Self::Cuts(seed) => write!(
                f,
                "in cuts of seed {seed} (LBPROXY_CORPUS_SEED={})",
                number_from_env("LBPROXY_CORPUS_SEED", 1)
            ),
        }
    }
}
