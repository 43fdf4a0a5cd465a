//! The one channel between the planes: the control plane publishes snapshots, workers look for them.
//!
//! A worker compares [`Publisher::generation`] with the one it has (one load of a cache line that hardly ever changes)
//! and takes the new snapshot only if they differ, so a request pays for no contended atomic.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::Snapshot;
use crate::model::backend::BackendId;
use crate::telemetry::outcome::Reason;

/// What the control plane orders for the sessions on a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionOrder {
    /// The backend.
    pub backend: BackendId,
    /// End them after this time; `None`: an earlier order is cancelled.
    pub after: Option<Duration>,
    /// The reason for metrics and log.
    pub why: Reason,
}

/// Holds the current snapshot.
#[derive(Debug)]
pub(crate) struct Publisher {
    current: ArcSwap<Snapshot>,
    generation: AtomicU64,
    workers: Box<[Notify]>,
    /// Orders that a worker has not taken yet, by backend; the newest counts.
    orders: Box<[Mutex<HashMap<BackendId, SessionOrder>>]>,
}

impl Publisher {
    /// Starts with `first` for `workers` workers.
    pub(crate) fn new(first: Arc<Snapshot>, workers: usize) -> Self {
        Self {
            generation: AtomicU64::new(first.generation),
            current: ArcSwap::new(first),
            workers: (0..workers).map(|_| Notify::new()).collect(),
            orders: (0..workers).map(|_| Mutex::default()).collect(),
        }
    }

    /// Generation of the current snapshot.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The current snapshot.
    pub(crate) fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Makes `next` the current snapshot, wakes every worker and returns the previous one, which the caller keeps until
    /// nothing else holds it.
    pub(crate) fn publish(&self, next: Arc<Snapshot>) -> Arc<Snapshot> {
        let generation = next.generation;
        let before = self.current.swap(next);
        self.generation.store(generation, Ordering::Release);
        for worker in &self.workers {
            worker.notify_one();
        }
        before
    }

    /// Gives every worker an order.
    pub(crate) fn order(&self, order: SessionOrder) {
        for (orders, worker) in self.orders.iter().zip(&self.workers) {
            let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
            orders.insert(order.backend, order);
            worker.notify_one();
        }
    }

    /// Takes the orders for `worker`.
    pub(crate) fn take_orders(&self, worker: usize) -> HashMap<BackendId, SessionOrder> {
        let orders = self.orders[worker].lock();
        std::mem::take(&mut *orders.unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for a publication or an order that `worker` has not seen. Cancel-safe.
    pub(crate) async fn changed(&self, worker: usize) {
        self.workers[worker].notified().await;
    }

    /// Wakes `worker` though nothing was published.
    pub(crate) fn wake(&self, worker: usize) {
        self.workers[worker].notify_one();
    }
}
