//! The one word between the planes: the control plane publishes, workers look.
//!
//! A worker compares [`Publisher::generation`] with the one it holds (one relaxed load of a line that hardly ever
//! changes) and takes the new snapshot only when they differ, so a request pays no contended atomic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::Snapshot;

/// Holds the current snapshot.
#[derive(Debug)]
pub struct Publisher {
    current: ArcSwap<Snapshot>,
    generation: AtomicU64,
    workers: Box<[Notify]>,
}

impl Publisher {
    /// Starts with `first` for `workers` workers.
    pub fn new(first: Arc<Snapshot>, workers: usize) -> Self {
        Self {
            generation: AtomicU64::new(first.generation),
            current: ArcSwap::new(first),
            workers: (0..workers).map(|_| Notify::new()).collect(),
        }
    }

    /// Generation of the current snapshot.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The current snapshot.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Makes `next` the current snapshot, wakes every worker and returns the one before, which the caller keeps
    /// until nobody else holds it.
    pub fn publish(&self, next: Arc<Snapshot>) -> Arc<Snapshot> {
        let generation = next.generation;
        let before = self.current.swap(next);
        self.generation.store(generation, Ordering::Release);
        for worker in &self.workers {
            worker.notify_one();
        }
        before
    }

    /// Waits for a publication that `worker` has not been told of. Cancel-safe.
    pub async fn changed(&self, worker: usize) {
        self.workers[worker].notified().await;
    }

    /// Wakes `worker` though nothing was published.
    pub fn wake(&self, worker: usize) {
        self.workers[worker].notify_one();
    }
}
