//! A worker: one thread, one runtime, and everything that its connections use.
//!
//! The worker's own loop starts and stops accept loops when a new generation comes, takes over connections that a
//! busier worker hands it, sweeps the pool once a second, and ends the thread when a drain is over. It never waits
//! for the control plane.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc};

use super::accept::{self, Handed, Running};
use super::crowd::Crowd;
use super::flow::{LARGEST_READ, Reads};
use super::http::exchange::Exchange;
use super::http::hops::ProcessId;
use super::http::prepare::{HeadSpace, process_id};
use super::http::slot::Slot;
use super::load::Held;
use super::passages::Passages;
use super::pool::Pool;
use super::sessions::Sessions;
use crate::balance::Random;
use crate::snapshot::Snapshot;
use crate::snapshot::publish::Publisher;
use crate::telemetry::access_log::LogSender;
use crate::transport::descriptors::Descriptors;
use crate::transport::memory::give_back;

/// Exchanges, and slots for their futures, kept for reuse.
const SPARE_EXCHANGES: usize = 256;

/// Between two looks at the pooled connections.
const SWEEP: Duration = Duration::from_secs(1);

/// What all workers share.
pub(crate) struct Shared {
    /// The current generation.
    pub publisher: Arc<Publisher>,
    /// Told when a backend's health changed under live traffic.
    pub health_reports: Arc<Notify>,
    /// The descriptor budget.
    pub descriptors: Arc<Descriptors>,
    /// The id of this process among those that a request passes.
    pub id: ProcessId,
    /// TCP sessions that lead to this machine.
    pub passages: Arc<Passages>,
    /// Set once, when the process is to end: every response from then on says that its connection closes.
    pub closing: AtomicBool,
    /// Set once, when the time to turn away is over: listeners close, sessions drain.
    pub draining: AtomicBool,
    peers: Box<[Peer]>,
}

/// A seed that nobody can foresee.
fn seed(salt: usize) -> u64 {
    std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), salt)
}

/// What the workers know of each other.
struct Peer {
    open: AtomicUsize,
    inbox: mpsc::UnboundedSender<Handed>,
}

/// One worker. Lives on its thread and never leaves it.
pub(crate) struct Worker {
    /// From 0.
    pub index: usize,
    /// What is shared.
    pub shared: Arc<Shared>,
    /// Deadlines.
    pub sessions: Rc<Sessions>,
    /// Where reads go, [`LARGEST_READ`] bytes that are touched only as far as reads go. Borrowed within one poll, never
    /// across one.
    pub scratch: RefCell<Box<[u8]>>,
    /// How much of it a read of a body may use.
    pub reads: Reads,
    /// Where heads are parsed and written. Borrowed within one poll, never across one.
    pub head_space: RefCell<HeadSpace>,
    /// Idle upstream connections.
    pub pool: RefCell<Pool>,
    /// Random source.
    pub random: Random,
    /// The access log's queue.
    pub log: RefCell<LogSender>,
    snapshot: RefCell<Held>,
    running: RefCell<Vec<Rc<Running>>>,
    crowd: RefCell<Crowd>,
    #[expect(
        clippy::vec_box,
        reason = "exchanges go in and out as boxes: a connection's future stays small"
    )]
    spare: RefCell<Vec<Box<Exchange>>>,
    spare_slots: RefCell<Vec<Box<dyn Slot>>>,
}

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
        let peers = senders
            .into_iter()
            .map(|inbox| Peer {
                open: AtomicUsize::new(0),
                inbox,
            })
            .collect();
        let shared = Arc::new(Shared {
            publisher,
            health_reports,
            descriptors,
            id: process_id(&Random::new(seed(logs.len()))),
            passages: Arc::default(),
            closing: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            peers,
        });
        let mut threads = Vec::with_capacity(logs.len());
        for (index, (log, inbox)) in logs.into_iter().zip(inboxes).enumerate() {
            let shared = Arc::clone(&shared);
            // A local runtime stays on the thread that made it, so each thread makes its own and says how that went.
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
                            runtime.block_on(Rc::new(Worker::new(index, shared, log)).run(inbox));
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

    /// Begins the drain: listeners close, connections at rest close, the others are given `drain_timeout`.
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

impl Worker {
    fn new(index: usize, shared: Arc<Shared>, log: LogSender) -> Self {
        Self {
            index,
            sessions: Rc::new(Sessions::new()),
            scratch: RefCell::new(vec![0; LARGEST_READ].into_boxed_slice()),
            reads: Reads::default(),
            head_space: RefCell::default(),
            pool: RefCell::default(),
            random: Random::new(seed(index)),
            log: RefCell::new(log),
            snapshot: RefCell::new(Rc::new(shared.publisher.current())),
            running: RefCell::default(),
            crowd: RefCell::default(),
            spare: RefCell::default(),
            spare_slots: RefCell::default(),
            shared,
        }
    }

    /// The newest generation.
    pub(crate) fn snapshot(&self) -> Held {
        let held = self.snapshot.borrow();
        if held.generation == self.shared.publisher.generation() {
            return Rc::clone(&held);
        }
        drop(held);
        let newest: Held = Rc::new(self.shared.publisher.current());
        self.snapshot.replace(Rc::clone(&newest));
        newest
    }

    /// Whether clients are to be told that their connection closes.
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

    /// An exchange to use, made only if none is spare.
    pub(crate) fn spare_exchange(&self) -> Box<Exchange> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives an exchange back.
    pub(crate) fn return_exchange(&self, mut exchange: Box<Exchange>) {
        exchange.clear();
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_EXCHANGES {
            spare.push(exchange);
        }
    }

    /// A slot to use, if one is spare.
    pub(crate) fn spare_slot(&self) -> Option<Box<dyn Slot>> {
        self.spare_slots.borrow_mut().pop()
    }

    /// Gives an empty slot back.
    pub(crate) fn return_slot(&self, slot: Box<dyn Slot>) {
        let mut spare = self.spare_slots.borrow_mut();
        if spare.len() < SPARE_EXCHANGES {
            spare.push(slot);
        }
    }

    async fn run(self: Rc<Self>, mut inbox: mpsc::UnboundedReceiver<Handed>) {
        let sessions = Rc::clone(&self.sessions);
        tokio::task::spawn_local(async move { sessions.run().await });
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut draining = false;
        self.follow_generation();
        loop {
            tokio::select! {
                () = self.shared.publisher.changed(self.index) => {
                    self.follow_generation();
                    self.follow_orders();
                }
                Some(handed) = inbox.recv() => self.take_over(handed),
                _ = sweep.tick() => self.sweep(),
            }
            self.shared.peers[self.index]
                .open
                .store(self.sessions.open(), Ordering::Relaxed);
            if self.is_draining() && !draining {
                draining = true;
                self.stop_all();
                // The rest of a drain is short; a second is too coarse a look at its end.
                sweep = tokio::time::interval(Duration::from_millis(20));
            }
            if draining
                && self.sessions.open() == 0
                && inbox.is_empty()
                && self
                    .running
                    .borrow()
                    .iter()
                    .all(|running| running.has_closed())
            {
                self.log.borrow_mut().flush();
                break;
            }
        }
    }

    /// Starts the accept loops of new listeners, stops those of removed ones, drains what stood on removed backends.
    fn follow_generation(self: &Rc<Self>) {
        if self.is_draining() {
            return;
        }
        let now = self.snapshot();
        let is_listed = |id: u64| {
            now.listeners
                .iter()
                .any(|listener| listener.sockets.id() == id)
        };
        self.running.borrow_mut().retain(|running| {
            let stays = is_listed(running.id);
            if stays {
                running.follow(&now);
            } else if !running.is_stopped() {
                running.stop();
                self.sessions
                    .drain_listener(Some(running.id), now.drain_timeout);
            }
            // A while longer than its socket: another worker may still hand over what it has let in.
            stays || !running.is_over()
        });
        for (place, listener) in now.listeners.iter().enumerate() {
            if let Some(socket) = listener.sockets.take(self.index) {
                let running = Rc::new(Running::new(&now, place));
                self.running.borrow_mut().push(Rc::clone(&running));
                accept::start(socket, running, Rc::clone(self));
            }
        }
        self.drain_departed(&now);
    }

    /// Ends the sessions that the control plane wants ended.
    fn follow_orders(&self) {
        for order in self.shared.publisher.take_orders(self.index).into_values() {
            self.sessions.tell_time(Instant::now());
            self.sessions
                .end_sessions(order.backend.get(), order.after, order.why);
        }
    }

    fn drain_departed(&self, now: &Snapshot) {
        let mut departed: Vec<u64> = now
            .departing
            .endpoints
            .iter()
            .map(|endpoint| endpoint.backend.id().get())
            .collect();
        departed.sort_unstable();
        self.sessions.drain_backends(&departed, now.drain_timeout);
        self.pool
            .borrow_mut()
            .sweep(self.sessions.now(), |backend| {
                departed.binary_search(&backend).is_ok()
            });
    }

    fn stop_all(&self) {
        let drain_timeout = self.snapshot().drain_timeout;
        for running in self.running.borrow().iter() {
            running.stop();
        }
        self.sessions.drain_listener(None, drain_timeout);
    }

    fn sweep(&self) {
        self.log.borrow_mut().flush();
        if self.crowd.borrow_mut().has_gone(self.sessions.open()) {
            self.spare.borrow_mut().clear();
            self.spare_slots.borrow_mut().clear();
            give_back();
        }
        let mut pool = self.pool.borrow_mut();
        if !pool.is_empty() {
            self.sessions.tell_time(Instant::now());
            let crowded = !self.shared.descriptors.has_room(0);
            // Idle connections are the first to go when descriptors run out.
            pool.sweep(self.sessions.now(), |_| crowded);
        }
        // An idle worker must not keep an old generation alive.
        accept::tell_of_ended_pauses(&self.snapshot());
        self.running
            .borrow_mut()
            .retain(|running| !running.is_over());
    }

    fn take_over(self: &Rc<Self>, handed: Handed) {
        // The other worker may have seen the listener's generation first.
        self.follow_generation();
        let running = self
            .running
            .borrow()
            .iter()
            .find(|running| running.id == handed.listener)
            .map(Rc::clone);
        match running {
            Some(running) => accept::take_over(handed, running, self),
            None => tracing::debug!("a connection was handed over too late"),
        }
    }

    /// The worker that should have a connection that this one accepted, if it is not this one: the least busy, when
    /// this one is far busier.
    pub(super) fn less_busy_peer(&self) -> Option<usize> {
        let mine = self.sessions.open();
        self.shared.peers[self.index]
            .open
            .store(mine, Ordering::Relaxed);
        let open = |index: &usize| self.shared.peers[*index].open.load(Ordering::Relaxed);
        let least = (0..self.shared.peers.len()).min_by_key(open)?;
        (least != self.index && mine > open(&least) + open(&least) / 4 + 4).then_some(least)
    }

    /// Gives a connection to another worker; back if that one has ended.
    pub(super) fn hand_over(&self, peer: usize, handed: Handed) -> Result<(), Handed> {
        let peer = &self.shared.peers[peer];
        // Counted at once, so that a burst is not all handed to the same one.
        peer.open.fetch_add(1, Ordering::Relaxed);
        peer.inbox.send(handed).map_err(|error| error.0)
    }
}
