//! The live state of a cluster that outlives generations: where each worker's rotation stands, and the three
//! words of the control plane to the pickers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Kept under the cluster's name, so that a reload that swaps policy, weights or members starts no rotation again.
#[derive(Debug)]
pub struct ClusterState {
    rotations: Box<[Rotation]>,
    panic: AtomicBool,
    trials: AtomicBool,
    standby: AtomicBool,
}

impl ClusterState {
    /// State for `workers` workers (at least 1), each at its own phase of the cycle.
    pub fn new(workers: usize) -> Self {
        let workers = workers.max(1);
        let rotations = (0..workers)
            .map(|worker| Rotation::at_phase(worker, workers))
            .collect();
        Self {
            rotations,
            panic: AtomicBool::new(false),
            trials: AtomicBool::new(false),
            standby: AtomicBool::new(false),
        }
    }

    /// The rotation of one worker, which alone writes it.
    pub fn rotation(&self, worker: usize) -> &Rotation {
        &self.rotations[worker % self.rotations.len()]
    }

    /// Whether fewer backends are healthy than `panic_threshold` asks, so that all are used.
    pub fn in_panic(&self) -> bool {
        self.panic.load(Ordering::Relaxed)
    }

    /// Written by the control plane.
    pub fn set_panic(&self, panic: bool) {
        self.panic.store(panic, Ordering::Relaxed);
    }

    /// Whether the backups keep all new traffic, as long as one of them is healthy (`on_up = "stay"`).
    pub fn on_standby(&self) -> bool {
        self.standby.load(Ordering::Relaxed)
    }

    /// Written by the control plane.
    pub fn set_standby(&self, standby: bool) {
        self.standby.store(standby, Ordering::Relaxed);
    }

    /// Whether some backend waits for a trial by a live request; a hint, so that pickers need not look.
    pub fn has_trials(&self) -> bool {
        self.trials.load(Ordering::Relaxed)
    }

    /// Written by the control plane when it grants trials, and by a picker that found none left.
    pub fn set_trials(&self, trials: bool) {
        self.trials.store(trials, Ordering::Relaxed);
    }
}

/// A place in a cycle, as a fraction of it, so that it keeps its meaning when the cycle's length changes.
///
/// Packed as `length << 32 | index`: exact while the length stays, rescaled when it does not. One worker writes
/// it, so plain loads and stores suffice.
#[derive(Debug)]
#[repr(align(64))]
pub struct Rotation(AtomicU64);

impl Rotation {
    fn at_phase(worker: usize, workers: usize) -> Self {
        Self(AtomicU64::new(pack(workers as u32, worker as u32)))
    }

    /// The index from which to look next in a cycle of `length` (at least 1).
    pub fn index(&self, length: u32) -> u32 {
        let (known, index) = unpack(self.0.load(Ordering::Relaxed));
        if known == length {
            return index;
        }
        (u64::from(index) * u64::from(length) / u64::from(known.max(1))) as u32
    }

    /// Says that `index` was used, so that the next look begins behind it.
    pub fn advance(&self, length: u32, index: u32) {
        let next = if index + 1 >= length { 0 } else { index + 1 };
        self.0.store(pack(length, next), Ordering::Relaxed);
    }
}

fn pack(length: u32, index: u32) -> u64 {
    u64::from(length) << 32 | u64::from(index)
}

fn unpack(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_keeps_its_place_when_the_cycle_changes() {
        let state = ClusterState::new(1);
        let rotation = state.rotation(0);
        assert_eq!(rotation.index(4), 0);
        rotation.advance(4, 0);
        rotation.advance(4, 1);
        assert_eq!(rotation.index(4), 2);
        assert_eq!(rotation.index(8), 4, "half way stays half way");
        rotation.advance(8, 7);
        assert_eq!(rotation.index(8), 0);
    }

    #[test]
    fn workers_start_at_different_phases() {
        let state = ClusterState::new(4);
        let starts: Vec<u32> = (0..4)
            .map(|worker| state.rotation(worker).index(8))
            .collect();
        assert_eq!(starts, [0, 2, 4, 6]);
    }
}
