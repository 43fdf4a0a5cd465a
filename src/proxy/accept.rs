//! The verb accept: one loop for each listener on each worker.
//!
//! At the listener's connection limit, or when descriptors run out, the loop leaves connections in the kernel's queue
//! and looks again a moment later: it never spins and never ends. When descriptors run out and a client waits, the
//! connections that have been idle longest make room, and each listener has a share that the others leave to it: neither
//! many idle connections nor the clients of one listener can shut the others out. The log says so when that begins and
//! when it has ended, once for all workers ([`crate::snapshot::pause`]). A loop that is stopped empties the kernel's
//! queue before it closes its socket, so that no client that was let in is turned away.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::admission::{admit, admit_client, exceeds_share};
use super::classify::classify;
use super::client::{Accepted, Admission, ClientGuard};
use super::context::WorkerContext;
use super::handoff::{Handoff, Peers};
use super::http::server::Server;
use super::listener::ListenerHandle;
use super::pick::ListenerView;
use crate::limit::connections::ConnectionPermit;
use crate::model::units::show_duration;
use crate::snapshot::Snapshot;
use crate::telemetry::outcome::Reason;
use crate::transport::conn::Conn;
use crate::transport::connect::SystemConnector;
use crate::transport::listen::{Acceptor, BACKLOG, Incoming, Listening};

/// Between two looks while nothing may be accepted.
const PAUSE: Duration = Duration::from_millis(20);

/// Idle connections that make room at one look.
const EVICTED_AT_ONCE: usize = 32;

/// The accept loop of one listener on one worker.
pub(crate) struct AcceptLoop {
    listener: Rc<ListenerHandle>,
    server: Rc<Server<SystemConnector>>,
    peers: Arc<Peers>,
}

/// What comes out of a listening socket.
enum Arrival {
    Connection(Incoming, ConnectionPermit),
    Failed(io::Error),
    NotNow(Reason),
}

impl AcceptLoop {
    /// A loop for `listener`, not started yet.
    pub(crate) fn new(
        listener: Rc<ListenerHandle>,
        server: Rc<Server<SystemConnector>>,
        peers: Arc<Peers>,
    ) -> Self {
        Self {
            listener,
            server,
            peers,
        }
    }

    /// Starts the loop on `socket`, as a task of this thread.
    pub(crate) fn start(self, socket: Listening) {
        let socket = match socket.watch() {
            Ok(socket) => socket,
            Err(error) => {
                self.listener.set_closed();
                return tracing::error!(%error, "cannot watch a listening socket");
            }
        };
        tokio::task::spawn_local(async move {
            self.accept_until_stopped(&socket).await;
            self.empty_queue(socket);
            self.listener.set_closed();
        });
    }

    /// Serves a connection that another worker accepted.
    pub(crate) fn take_over(&self, handoff: Handoff) {
        match Conn::watch(handoff.stream) {
            Ok(stream) => self.serve((stream, handoff.peer), handoff.admission),
            Err(error) => debug!(%error, "a connection was lost between workers"),
        }
    }

    fn ctx(&self) -> &Rc<WorkerContext<SystemConnector>> {
        &self.server.ctx
    }

    fn view(&self) -> ListenerView {
        self.listener.view(&self.ctx().snapshot())
    }

    async fn accept_until_stopped(&self, socket: &Acceptor) {
        while !self.listener.is_stopped() {
            let next = tokio::select! {
                next = poll_fn(|cx| self.poll_next(cx, socket)) => next,
                () = self.listener.stopping() => continue,
            };
            match next {
                Arrival::Connection(incoming, permit) => self.distribute(incoming, permit),
                Arrival::Failed(error) => self.handle_error(&error).await,
                Arrival::NotNow(reason) => {
                    self.note_pause(reason, None);
                    if reason == Reason::DescriptorLimit && socket.has_pending() {
                        self.make_room();
                    }
                    self.pause(PAUSE).await;
                }
            }
        }
    }

    /// The next connection, with its place in the listener's count. The place is taken first, so that workers that wait
    /// for the same last place cannot both have it.
    fn poll_next(&self, cx: &mut Context<'_>, socket: &Acceptor) -> Poll<Arrival> {
        let view = self.view();
        let permit = match admit(
            &view.snapshot,
            view.listener(),
            &self.ctx().shared.descriptors,
        ) {
            Ok(permit) => permit,
            Err(reason) => {
                // Counted once for each connection that is seen waiting.
                if view.listener().state.connections.begin_refusing() {
                    self.count_rejected(&view, reason);
                }
                return Poll::Ready(Arrival::NotNow(reason));
            }
        };
        socket.poll_accept(cx).map(|accepted| match accepted {
            Ok(incoming) => Arrival::Connection(incoming, permit),
            Err(error) => Arrival::Failed(error),
        })
    }

    fn count_rejected(&self, view: &ListenerView, reason: Reason) {
        let sheet = view.listener().metrics.sheet(self.ctx().index);
        sheet.rejected[reason.index()].increment();
    }

    /// Ends idle connections: of this listener, if it has more than its share, else of any.
    fn make_room(&self) {
        let view = self.view();
        let descriptors = &self.ctx().shared.descriptors;
        let exceeds = exceeds_share(&view.snapshot, view.listener(), descriptors);
        let own = exceeds.then_some(self.listener.id);
        self.ctx().deadlines.evict(own, EVICTED_AT_ONCE);
    }

    /// Logs that the listener is not accepting, once for all workers until that has ended.
    fn note_pause(&self, reason: Reason, error: Option<&io::Error>) {
        let view = self.view();
        let listener = view.listener();
        if listener.state.pauses.hold(Instant::now()) {
            let error = error.map(tracing::field::display);
            warn!(listener = %listener.name, reason = reason.as_str(), error, "not accepting for now");
        }
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.listener.stopping() => {}
        }
    }

    /// Either the connection failed, and the next one may go well, or we are out of something: then it is given time.
    async fn handle_error(&self, error: &io::Error) {
        if is_of_the_connection(error) {
            return debug!(%error, "a connection was lost before it was accepted");
        }
        self.count_rejected(&self.view(), Reason::DescriptorLimit);
        self.note_pause(Reason::DescriptorLimit, Some(error));
        self.pause(5 * PAUSE).await;
    }

    /// Keeps a connection, or hands it over to a worker that is less busy.
    fn distribute(&self, (stream, peer): Incoming, mut permit: ConnectionPermit) {
        let view = self.view();
        let descriptors = &self.ctx().shared.descriptors;
        if !admit_client(&mut permit, view.listener(), peer, descriptors) {
            return self.count_rejected(&view, Reason::ClientConnectionLimit);
        }
        let admission = Admission {
            _permit: permit,
            _descriptor: descriptors.take(),
        };
        let (worker, open) = (self.ctx().index, self.ctx().deadlines.open());
        let other = match self.listener.is_stopped() {
            true => None,
            false => self.peers.less_busy_than(worker, open),
        };
        let Some(other) = other else {
            return self.serve((stream, peer), admission);
        };
        let Ok(stream) = stream.unwatch() else {
            return;
        };
        let handoff = Handoff {
            stream,
            peer,
            listener: self.listener.id,
            admission,
        };
        if let Err(handoff) = self.peers.send(other, handoff) {
            self.take_over(handoff);
        }
    }

    fn serve(&self, (stream, peer): Incoming, admission: Admission) {
        let (ctx, view) = (self.ctx(), self.view());
        let client = ClientGuard::new(
            peer,
            Rc::clone(&self.listener),
            ctx.deadlines.enter(self.listener.id),
            (Arc::clone(&view.listener().metrics), ctx.index),
            admission,
        );
        if self.listener.is_stopped() || ctx.is_draining() {
            client.slot.drain(ctx.snapshot().drain_timeout);
        }
        classify(Accepted { stream, client }, &view, &self.server).serve();
    }

    /// Serves what the kernel has let in already, then closes the socket.
    fn empty_queue(&self, socket: Acceptor) {
        let Ok(socket) = socket.close() else {
            return;
        };
        // At most what a queue holds: new ones may come as long as the socket is open.
        for _ in 0..BACKLOG {
            match socket.accept() {
                Ok(incoming) => {
                    let permit = self.view().listener().state.connections.acquire();
                    self.distribute(incoming, permit);
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(_) => return,
            }
        }
    }
}

/// Logs of each listener that it is accepting, after it was not.
pub(crate) fn log_ended_pauses(snapshot: &Snapshot) {
    let now = Instant::now();
    for listener in &snapshot.listeners {
        if let Some(lasted) = listener.state.pauses.take_ended(now) {
            info!(listener = %listener.name, after = %show_duration(lasted), "accepting again");
        }
    }
}

/// Whether an accept failed because its connection did, so that the next one may go well (accept(2)).
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPERM
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::EOPNOTSUPP
        )
    )
}
