//! The live state of a cluster, which outlives generations: each worker's rotation, and three flags that the control
//! plane sets for picks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Rotations and flags of a cluster, by its name, so that a reload that changes policy, weights or backends restarts no
/// rotation.
#[derive(Debug)]
pub struct ClusterState {
    rotations: Box<[Rotation]>,
    panic: AtomicBool,
    trials: AtomicBool,
    standby: AtomicBool,
}

impl ClusterState {
    /// Creates the state for `workers` workers (at least 1), each at its own phase of the cycle.
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

    /// The rotation of one worker, which is its only writer.
    pub fn rotation(&self, worker: usize) -> &Rotation {
        &self.rotations[worker % self.rotations.len()]
    }

    /// Whether fewer backends are healthy than `panic_threshold` demands, so that all are used.
    pub fn in_panic(&self) -> bool {
        self.panic.load(Ordering::Relaxed)
    }

    /// Sets panic mode; only the control plane calls this.
    pub fn set_panic(&self, panic: bool) {
        self.panic.store(panic, Ordering::Relaxed);
    }

    /// Whether the backups retain all new traffic, as long as one of them is healthy (`on_up = "stay"`).
    pub fn on_standby(&self) -> bool {
        self.standby.load(Ordering::Relaxed)
    }

    /// Sets whether the backups retain all new traffic; only the control plane calls this.
    pub fn set_standby(&self, standby: bool) {
        self.standby.store(standby, Ordering::Relaxed);
    }

    /// Whether some backend may offer a trial to a live request; a hint, so that picks need not search.
    pub fn has_trials(&self) -> bool {
        self.trials.load(Ordering::Relaxed)
    }

    /// Sets the hint; called by the control plane when it grants trials, and by a pick that finds none left.
    pub fn set_trials(&self, trials: bool) {
        self.trials.store(trials, Ordering::Relaxed);
    }
}

/// A position in a cycle, as a fraction of it, so that it keeps its meaning when the length of the cycle changes.
///
/// Packed as `length << 32 | index`: exact while the length stays the same, rescaled when it changes. Only one worker
/// writes it, so plain loads and stores are enough.
#[derive(Debug)]
#[repr(align(64))]
pub struct Rotation(AtomicU64);

impl Rotation {
    fn at_phase(worker: usize, workers: usize) -> Self {
        Self(AtomicU64::new(pack(workers as u32, worker as u32)))
    }

    /// The index from which to search next in a cycle of `length` (at least 1).
    pub fn index(&self, length: u32) -> u32 {
        let (known, index) = unpack(self.0.load(Ordering::Relaxed));
        if known == length {
            return index;
        }
        (u64::from(index) * u64::from(length) / u64::from(known.max(1))) as u32
    }

    /// Records that `index` was used, so that the next search begins after it.
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
    fn a_rotation_keeps_its_position_when_the_cycle_changes() {
        let state = ClusterState::new(1);
        let rotation = state.rotation(0);
        assert_eq!(rotation.index(4), 0);
        rotation.advance(4, 0);
        rotation.advance(4, 1);
        assert_eq!(rotation.index(4), 2);
        assert_eq!(rotation.index(8), 4, "halfway stays halfway");
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
