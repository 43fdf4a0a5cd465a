//! What a connection may use of the worker that it belongs to. It knows no verb of the way: those use it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::deadlines::DeadlineTable;
use super::loops::ProcessId;
use super::passages::Passages;
use super::pick::SnapshotRef;
use super::pool::Pool;
use super::read_size::{LARGEST_READ, ReadBudget};
use crate::balance::Random;
use crate::snapshot::publish::Publisher;
use crate::telemetry::access_log::LogSender;
use crate::transport::connect::Connector;
use crate::transport::descriptors::Descriptors;

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The current generation.
    pub publisher: Arc<Publisher>,
    /// Notified when a backend's health changed under live traffic.
    pub health_reports: Arc<Notify>,
    /// The descriptor budget.
    pub descriptors: Arc<Descriptors>,
    /// The id of this process among those that a request passes.
    pub id: ProcessId,
    /// TCP sessions that lead to this machine.
    pub passages: Arc<Passages>,
    /// Set once, when the process is to end: every response from then on says that its connection closes.
    pub closing: AtomicBool,
    /// Set once, when the time to turn clients away is over: listeners close, connections drain.
    pub draining: AtomicBool,
}

impl Shared {
    /// What the workers of one process share.
    pub(crate) fn new(
        publisher: Arc<Publisher>,
        health_reports: Arc<Notify>,
        descriptors: Arc<Descriptors>,
        id: ProcessId,
    ) -> Self {
        Self {
            publisher,
            health_reports,
            descriptors,
            id,
            passages: Arc::default(),
            closing: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }
}

/// One worker's own part. Stays on its thread.
pub(crate) struct WorkerContext<T: Connector> {
    /// The worker's number, from 0.
    pub index: usize,
    /// What is shared with the other workers.
    pub shared: Arc<Shared>,
    /// Makes connections to backends.
    pub connector: T,
    /// Deadlines, and the clock.
    pub deadlines: Rc<DeadlineTable>,
    /// Where reads go, [`LARGEST_READ`] bytes, touched only as far as reads go. Borrowed within one poll, never across
    /// one.
    pub scratch: RefCell<Box<[u8]>>,
    /// How much of it a read of a body may use.
    pub reads: ReadBudget,
    /// Idle connections to backends.
    pub pool: RefCell<Pool<T::Stream>>,
    /// Random source.
    pub random: Random,
    /// The access log's queue.
    pub log: RefCell<LogSender>,
    snapshot: RefCell<SnapshotRef>,
}

impl<T: Connector> WorkerContext<T> {
    /// The context of worker `index` on the current generation.
    pub(crate) fn new(
        index: usize,
        shared: Arc<Shared>,
        connector: T,
        log: LogSender,
        seed: u64,
    ) -> Self {
        Self {
            index,
            connector,
            deadlines: Rc::new(DeadlineTable::new()),
            scratch: RefCell::new(vec![0; LARGEST_READ].into_boxed_slice()),
            reads: ReadBudget::default(),
            pool: RefCell::default(),
            random: Random::new(seed),
            log: RefCell::new(log),
            snapshot: RefCell::new(Rc::new(shared.publisher.current())),
            shared,
        }
    }

    /// The newest generation.
    pub(crate) fn snapshot(&self) -> SnapshotRef {
        let current = self.snapshot.borrow();
        if current.generation == self.shared.publisher.generation() {
            return Rc::clone(&current);
        }
        drop(current);
        let newest: SnapshotRef = Rc::new(self.shared.publisher.current());
        self.snapshot.replace(Rc::clone(&newest));
        newest
    }

    /// Whether responses say that their connection closes.
    pub(crate) fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Relaxed)
    }

    /// Whether the process is ending.
    pub(crate) fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    /// A backend's health changed under live traffic: the control plane must look.
    pub(crate) fn report_health(&self) {
        self.shared.health_reports.notify_one();
    }
}
