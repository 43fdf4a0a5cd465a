//! The probes that are running, and the backends that wait for one.
//!
//! A bounded number of probes run at a time. A backend waits at most once, and is probed in the order in which backends
//! became due.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tracing::warn;

use super::probe::{ProbeFailure, ProbeSuccess};
use crate::model::backend::BackendId;

/// What a probe found.
pub(super) type ProbeResult = Result<ProbeSuccess, ProbeFailure>;

/// A probe that has ended.
#[derive(Debug)]
pub(super) struct FinishedProbe {
    /// The task that ran it.
    pub(super) task: Id,
    pub(super) backend: BackendId,
    pub(super) result: ProbeResult,
}

/// Running and waiting probes.
#[derive(Debug)]
pub(super) struct ProbeQueue {
    running: JoinSet<ProbeResult>,
    /// The backend of each running probe.
    targets: HashMap<Id, BackendId>,
    /// Ends of tasks that are still to be processed.
    finished: Vec<Result<(Id, ProbeResult), JoinError>>,
    /// Backends that are due, and since when.
    waiting: VecDeque<(BackendId, Instant)>,
    /// The backends in `waiting`.
    queued: HashSet<BackendId>,
    /// Most probes that run at a time.
    limit: usize,
    /// Whether a backend has waited longer than its interval since the queue was last empty.
    is_late: bool,
}

impl ProbeQueue {
    /// Creates an empty queue that runs at most `limit` probes at a time.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            running: JoinSet::new(),
            targets: HashMap::new(),
            finished: Vec::new(),
            waiting: VecDeque::new(),
            queued: HashSet::new(),
            limit,
            is_late: false,
        }
    }

    /// Adds a backend that is due since `due`, unless it waits already.
    pub(super) fn enqueue(&mut self, backend: BackendId, due: Instant) {
        if self.queued.insert(backend) {
            self.waiting.push_back((backend, due));
        }
    }

    /// Takes the next backend to probe, and since when it is due; `None` if none waits or the limit is reached.
    pub(super) fn dequeue(&mut self) -> Option<(BackendId, Instant)> {
        if self.running.len() >= self.limit {
            return None;
        }
        let Some((backend, due)) = self.waiting.pop_front() else {
            self.is_late = false;
            return None;
        };
        self.queued.remove(&backend);
        Some((backend, due))
    }

    /// Starts a probe of `backend`, which has `waited` for it. Warns if that is longer than `interval`, once until the
    /// queue is empty again.
    pub(super) fn start(
        &mut self,
        backend: BackendId,
        waited: Duration,
        interval: Duration,
        probe: impl Future<Output = ProbeResult> + Send + 'static,
    ) -> AbortHandle {
        if waited > interval && !self.is_late {
            self.is_late = true;
            warn!("health checks are falling behind: too many probes are timing out");
        }
        let handle = self.running.spawn(probe);
        self.targets.insert(handle.id(), backend);
        handle
    }

    /// Waits until at least one probe has ended; forever if none runs. Cancel-safe.
    pub(super) async fn wait(&mut self) {
        match self.running.join_next_with_id().await {
            Some(first) => self.finished.push(first),
            None => std::future::pending().await,
        }
        while let Some(more) = self.running.try_join_next_with_id() {
            self.finished.push(more);
        }
    }

    /// Takes the probes that have ended.
    pub(super) fn take_finished(&mut self) -> Vec<FinishedProbe> {
        let finished = std::mem::take(&mut self.finished).into_iter();
        finished
            .filter_map(|ended| {
                let (task, result) =
                    ended.unwrap_or_else(|error| (error.id(), Err(ProbeFailure::Internal)));
                let backend = self.targets.remove(&task)?;
                Some(FinishedProbe {
                    task,
                    backend,
                    result,
                })
            })
            .collect()
    }
}
