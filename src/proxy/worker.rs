//! The threads of the data plane, and what each does beside its connections: it follows the generations, starts and stops
//! accept loops, takes over connections, sweeps the pool, and drains at the end.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc};

use super::accept::{self, AcceptLoop};
use super::context::{Shared, WorkerContext};
use super::handoff::{Handoff, Peers};
use super::http::server::Server;
use super::listener::ListenerHandle;
use super::loops::process_id;
use super::trim::TrimHeuristic;
use crate::balance::Random;
use crate::model::backend::BackendId;
use crate::snapshot::Snapshot;
use crate::snapshot::publish::Publisher;
use crate::telemetry::access_log::LogSender;
use crate::transport::connect::SystemConnector;
use crate::transport::descriptors::Descriptors;
use crate::transport::memory::trim_heap;

/// Between two sweeps of the pooled connections.
const SWEEP: Duration = Duration::from_secs(1);

/// The same during a drain, which is short: a second is too coarse to see its end.
const DRAIN_SWEEP: Duration = Duration::from_millis(20);

/// The threads of the data plane.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `logs.len()` workers on the publisher's current generation.
    ///
    /// # Errors
    /// A thread or its runtime could not be made.
    pub(crate) fn start(
        publisher: Arc<Publisher>,
        health_reports: Arc<Notify>,
        descriptors: Arc<Descriptors>,
        logs: Vec<LogSender>,
    ) -> io::Result<Self> {
        let (senders, inboxes): (Vec<_>, Vec<_>) =
            logs.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let id = process_id(&Random::new(seed(logs.len())));
        let shared = Arc::new(Shared::new(publisher, health_reports, descriptors, id));
        let peers = Arc::new(Peers::new(senders));
        let mut threads = Vec::with_capacity(logs.len());
        for (index, (log, inbox)) in logs.into_iter().zip(inboxes).enumerate() {
            let (shared, peers) = (Arc::clone(&shared), Arc::clone(&peers));
            // A local runtime stays on the thread that made it, so each thread makes its own and reports how that went.
            let (started, outcome) = std::sync::mpsc::channel();
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    match Builder::new_current_thread()
                        .enable_io()
                        .enable_time()
                        .build_local(LocalOptions::default())
                    {
                        Ok(runtime) => {
                            let _ = started.send(Ok(()));
                            let ctx = WorkerContext::new(
                                index,
                                shared,
                                SystemConnector,
                                log,
                                seed(index),
                            );
                            runtime.block_on(Worker::new(ctx, peers).run(inbox));
                        }
                        Err(error) => {
                            let _ = started.send(Err(error));
                        }
                    }
                })?;
            outcome
                .recv()
                .map_err(|_| io::Error::other("a worker ended before it began"))??;
            threads.push(thread);
        }
        Ok(Self { shared, threads })
    }

    /// From now on every HTTP response says that its connection closes, so that clients move elsewhere.
    pub(crate) fn announce_close(&self) {
        self.shared.closing.store(true, Ordering::Release);
    }

    /// Begins the drain: listeners close, idle connections close, the others are given `drain_timeout`.
    pub(crate) fn drain(&self) {
        self.announce_close();
        self.shared.draining.store(true, Ordering::Release);
        for worker in 0..self.threads.len() {
            self.shared.publisher.wake(worker);
        }
    }

    /// Whether every worker has ended.
    pub(crate) fn have_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

/// A seed that nobody can foresee.
fn seed(salt: usize) -> u64 {
    std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), salt)
}

/// One worker. Lives on its thread and never leaves it.
struct Worker {
    ctx: Rc<WorkerContext<SystemConnector>>,
    server: Rc<Server<SystemConnector>>,
    peers: Arc<Peers>,
    listeners: RefCell<Vec<Rc<ListenerHandle>>>,
    trim: RefCell<TrimHeuristic>,
}

impl Worker {
    fn new(ctx: WorkerContext<SystemConnector>, peers: Arc<Peers>) -> Self {
        let ctx = Rc::new(ctx);
        Self {
            server: Rc::new(Server::new(Rc::clone(&ctx))),
            ctx,
            peers,
            listeners: RefCell::default(),
            trim: RefCell::default(),
        }
    }

    async fn run(self, mut inbox: mpsc::UnboundedReceiver<Handoff>) {
        let deadlines = Rc::clone(&self.ctx.deadlines);
        tokio::task::spawn_local(async move { deadlines.run().await });
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut draining = false;
        self.follow_generation();
        loop {
            tokio::select! {
                () = self.ctx.shared.publisher.changed(self.ctx.index) => {
                    self.follow_generation();
                    self.follow_orders();
                }
                Some(handoff) = inbox.recv() => self.take_over(handoff),
                _ = sweep.tick() => self.sweep(),
            }
            self.peers.report(self.ctx.index, self.ctx.deadlines.open());
            if self.ctx.is_draining() && !draining {
                draining = true;
                self.stop_all();
                sweep = tokio::time::interval(DRAIN_SWEEP);
            }
            if draining && inbox.is_empty() && self.is_drained() {
                self.ctx.log.borrow_mut().flush();
                break;
            }
        }
    }

    fn is_drained(&self) -> bool {
        let listeners = self.listeners.borrow();
        self.ctx.deadlines.open() == 0 && listeners.iter().all(|listener| listener.has_closed())
    }

    /// Starts the accept loops of new listeners, stops those of removed ones, drains what depends on removed backends.
    fn follow_generation(&self) {
        if self.ctx.is_draining() {
            return;
        }
        let newest = self.ctx.snapshot();
        let is_listed = |id: u64| {
            let mut listeners = newest.listeners.iter();
            listeners.any(|listener| listener.sockets.id() == id)
        };
        self.listeners.borrow_mut().retain(|listener| {
            let stays = is_listed(listener.id);
            if stays {
                listener.follow(&newest);
            } else if !listener.is_stopped() {
                listener.stop();
                self.ctx
                    .deadlines
                    .drain_listener(Some(listener.id), newest.drain_timeout);
            }
            // For a while after its socket is closed another worker may still hand over what that has let in.
            stays || !listener.is_over()
        });
        for (index, listener) in newest.listeners.iter().enumerate() {
            if let Some(socket) = listener.sockets.take(self.ctx.index) {
                let handle = Rc::new(ListenerHandle::new(&newest, index));
                self.listeners.borrow_mut().push(Rc::clone(&handle));
                self.accept_loop(handle).start(socket);
            }
        }
        self.drain_departed(&newest);
    }

    fn accept_loop(&self, listener: Rc<ListenerHandle>) -> AcceptLoop {
        AcceptLoop::new(listener, Rc::clone(&self.server), Arc::clone(&self.peers))
    }

    /// Ends the sessions that the control plane wants ended.
    fn follow_orders(&self) {
        let (deadlines, publisher) = (&self.ctx.deadlines, &self.ctx.shared.publisher);
        for order in publisher.take_orders(self.ctx.index).into_values() {
            deadlines.update();
            deadlines.end_sessions(order.backend, order.after, order.why);
        }
    }

    fn drain_departed(&self, newest: &Snapshot) {
        let endpoints = newest.departing.endpoints.iter();
        let mut departed: Vec<BackendId> =
            endpoints.map(|endpoint| endpoint.backend.id()).collect();
        departed.sort_unstable();
        let deadlines = &self.ctx.deadlines;
        deadlines.drain_backends(&departed, newest.drain_timeout);
        self.ctx
            .pool
            .borrow_mut()
            .sweep(deadlines.now(), |backend| {
                departed.binary_search(&backend).is_ok()
            });
    }

    fn stop_all(&self) {
        let drain_timeout = self.ctx.snapshot().drain_timeout;
        for listener in self.listeners.borrow().iter() {
            listener.stop();
        }
        self.ctx.deadlines.drain_listener(None, drain_timeout);
    }

    fn sweep(&self) {
        let ctx = &self.ctx;
        ctx.log.borrow_mut().flush();
        if self.trim.borrow_mut().is_due(ctx.deadlines.open()) {
            self.server.drop_spares();
            trim_heap();
        }
        let mut pool = ctx.pool.borrow_mut();
        if !pool.is_empty() {
            ctx.deadlines.update();
            // Idle connections are the first to go when descriptors run out.
            let is_crowded = !ctx.shared.descriptors.has_room(0);
            pool.sweep(ctx.deadlines.now(), |_| is_crowded);
        }
        // An idle worker must not keep an old generation alive.
        accept::log_ended_pauses(&ctx.snapshot());
        self.listeners
            .borrow_mut()
            .retain(|listener| !listener.is_over());
    }

    fn take_over(&self, handoff: Handoff) {
        // The other worker may have seen the listener's generation first.
        self.follow_generation();
        let listeners = self.listeners.borrow();
        let mut listeners = listeners.iter();
        match listeners.find(|listener| listener.id == handoff.listener) {
            Some(listener) => self.accept_loop(Rc::clone(listener)).take_over(handoff),
            None => tracing::debug!("a connection was handed over too late"),
        }
    }
}
