//! Accept loops: one for each listener on each worker.
//!
//! At the listener's connection limit, or when descriptors run out, the loop leaves connections in the kernel's
//! queue and looks again a moment later: it never spins and never ends. When descriptors run out and somebody waits, the
//! connections that have rested longest make room, and each listener has a share that the others leave to it: neither
//! many idle connections nor one listener's clients can shut the others out. The log says so when that begins and when it has
//! ended, once for all workers ([`crate::snapshot::pause`]). A loop that is stopped empties the kernel's
//! queue before it closes its socket, so that no client that was let in is turned away.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::load::Held;
use super::sessions::Session;
use super::worker::Worker;
use super::{http, tcp};
use crate::model::settings::Protocol;
use crate::model::units::show_duration;
use crate::snapshot::{Listener, ListenerState, Snapshot, clients};
use crate::telemetry::metrics::{ListenerMetrics, ListenerSheet};
use crate::telemetry::outcome::Reason;
use crate::transport::conn::{Conn, Unwatched};
use crate::transport::descriptors::Descriptor;
use crate::transport::listen::{Acceptor, BACKLOG, Incoming, Listening};

/// Between two looks while nothing may be accepted.
const PAUSE: Duration = Duration::from_millis(20);

/// Connections at rest that make room at one look.
const EVICTED_AT_ONCE: usize = 32;

/// How long connections of a stopped listener may be on their way between workers.
const HAND_OVER: Duration = Duration::from_secs(2);

/// A listener as it runs on one worker.
#[derive(Debug)]
pub(crate) struct Running {
    /// Of its bound sockets.
    pub id: u64,
    /// The newest generation that lists it, and its place there. A removed listener keeps its last one, so that what
    /// it has let in is served to the end.
    view: RefCell<(Held, usize)>,
    stopped: Cell<Option<Instant>>,
    closed: Cell<bool>,
    stop: Notify,
}

impl Running {
    pub(super) fn new(held: &Held, place: usize) -> Self {
        Self {
            id: held.listeners[place].sockets.id(),
            view: RefCell::new((Rc::clone(held), place)),
            stopped: Cell::new(None),
            closed: Cell::new(false),
            stop: Notify::new(),
        }
    }

    /// Moves on to `newest` if that lists it.
    pub(super) fn follow(&self, newest: &Held) {
        let mut view = self.view.borrow_mut();
        if view.0.generation != newest.generation
            && let Some(place) = newest
                .listeners
                .iter()
                .position(|listener| listener.sockets.id() == self.id)
        {
            *view = (Rc::clone(newest), place);
        }
    }

    /// The generation that a new request or connection sees, and the listener's place in it.
    pub(crate) fn view(&self, worker: &Worker) -> (Held, usize) {
        self.follow(&worker.snapshot());
        let view = self.view.borrow();
        (Rc::clone(&view.0), view.1)
    }

    /// Ends the accept loop.
    pub(super) fn stop(&self) {
        if self.stopped.get().is_none() {
            self.stopped.set(Some(Instant::now()));
        }
        self.stop.notify_one();
    }

    /// Whether connections of it must end after their request.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.get().is_some()
    }

    /// Whether it was stopped so long ago that no other worker hands over connections of it any more.
    pub(super) fn is_over(&self) -> bool {
        self.closed.get()
            && self
                .stopped
                .get()
                .is_some_and(|since| since.elapsed() > HAND_OVER)
    }

    /// Whether its socket is closed.
    pub(super) fn has_closed(&self) -> bool {
        self.closed.get()
    }
}

/// A connection from a client, counted until this is dropped.
pub(crate) struct Accepted {
    /// The socket.
    pub stream: Conn,
    /// What the connection holds beside the socket.
    pub client: ClientGuard,
}

/// What a client connection holds beside its socket.
pub(crate) struct ClientGuard {
    /// The other side; a peer over a Unix socket has no address.
    pub peer: Option<SocketAddr>,
    /// The listener.
    pub running: Rc<Running>,
    /// Its deadline.
    pub session: Session,
    /// Answers of the proxy's own so far, modulo 256.
    pub own_answers: u8,
    metrics: Arc<ListenerMetrics>,
    worker: u32,
    counted: Option<Counted>,
}

impl ClientGuard {
    /// The listener's sheet of this worker, under the name that the listener had when the connection came.
    pub(crate) fn sheet(&self) -> &ListenerSheet {
        self.metrics.sheet(self.worker as usize)
    }

    /// The listener's name when the connection came.
    pub(crate) fn listener_name(&self) -> &str {
        &self.metrics.name
    }
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        // First: whoever sees that the connection has ended may take its place.
        self.counted = None;
        self.sheet().connections_ended.increment();
    }
}

/// One connection in a listener's count, over all workers.
struct OpenConnection(Arc<ListenerState>);

impl OpenConnection {
    fn new(state: &Arc<ListenerState>) -> Self {
        state.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(state))
    }

    /// Unless there are `most` already.
    fn below(state: &Arc<ListenerState>, most: u32) -> Option<Self> {
        let before = state.open.fetch_add(1, Ordering::Relaxed);
        let open = Self(Arc::clone(state));
        (before < most).then_some(open)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What an accepted connection counts as, until this is dropped.
struct Counted {
    open: OpenConnection,
    /// Whose place it has, where those are limited.
    client: Option<clients::ClientKey>,
    _descriptor: Descriptor,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            self.open.0.clients.remove(client);
        }
    }
}

/// A connection on its way to another worker.
pub(crate) struct Handed {
    stream: Unwatched,
    peer: Option<SocketAddr>,
    pub(super) listener: u64,
    counted: Counted,
}

/// Starts the accept loop of `running` on `socket`.
pub(super) fn start(socket: Listening, running: Rc<Running>, worker: Rc<Worker>) {
    let socket = match socket.watch() {
        Ok(socket) => socket,
        Err(error) => {
            running.closed.set(true);
            return tracing::error!(%error, "a listening socket could not be watched");
        }
    };
    tokio::task::spawn_local(async move {
        accept_until_stopped(&socket, &running, &worker).await;
        empty_queue(socket, &running, &worker);
        running.closed.set(true);
    });
}

async fn accept_until_stopped(socket: &Acceptor, running: &Rc<Running>, worker: &Rc<Worker>) {
    while !running.is_stopped() {
        let next = tokio::select! {
            next = poll_fn(|cx| poll_next(cx, socket, running, worker)) => next,
            () = running.stop.notified() => continue,
        };
        match next {
            Next::Connection(incoming, open) => distribute(incoming, open, running, worker),
            Next::Failed(error) => survive(&error, running, worker).await,
            Next::NotNow(reason) => {
                hold(reason, None, running, worker);
                if reason == Reason::DescriptorLimit && socket.somebody_waits() {
                    make_room(running, worker);
                }
                pause(running, PAUSE).await;
            }
        }
    }
}

/// What comes out of a listening socket.
enum Next {
    Connection(Incoming, OpenConnection),
    Failed(io::Error),
    NotNow(Reason),
}

/// The next connection, with its place in the listener's count. The place is taken first, so that workers who wait
/// for the same last place cannot both have it.
fn poll_next(
    cx: &mut Context<'_>,
    socket: &Acceptor,
    running: &Running,
    worker: &Worker,
) -> Poll<Next> {
    let (held, place) = running.view(worker);
    let open = match room(&held, place, worker) {
        Ok(open) => open,
        Err(reason) => return Poll::Ready(Next::NotNow(reason)),
    };
    socket.poll_accept(cx).map(|accepted| match accepted {
        Ok(incoming) => Next::Connection(incoming, open),
        Err(error) => Next::Failed(error),
    })
}

/// A place for one more connection, or why the next one must wait. Counted once for each connection that is seen
/// waiting.
fn room(snapshot: &Snapshot, place: usize, worker: &Worker) -> Result<OpenConnection, Reason> {
    let listener = &snapshot.listeners[place];
    let most = listener.limits.connections.unwrap_or(u32::MAX);
    let reason = if !has_descriptors(snapshot, listener, worker) {
        Reason::DescriptorLimit
    } else if let Some(open) = OpenConnection::below(&listener.state, most) {
        listener.state.full.store(false, Ordering::Relaxed);
        return Ok(open);
    } else {
        Reason::ConnectionLimit
    };
    if !listener.state.full.swap(true, Ordering::Relaxed) {
        listener.metrics.sheet(worker.index).rejected[reason.index()].increment();
    }
    Err(reason)
}

/// Whether there are descriptors for one more connection of `listener`. When they are scarce, one that uses more than
/// its share leaves the others what they lack of theirs.
fn has_descriptors(snapshot: &Snapshot, listener: &Listener, worker: &Worker) -> bool {
    let descriptors = &worker.shared.descriptors;
    let reserved = if descriptors.is_scarce() && exceeds_share(snapshot, listener, worker) {
        let share = share_of(snapshot, worker);
        let others = snapshot.listeners.iter();
        others
            .map(|other| share.saturating_sub(used_by(other)))
            .sum()
    } else {
        0
    };
    descriptors.has_room(reserved)
}

fn exceeds_share(snapshot: &Snapshot, listener: &Listener, worker: &Worker) -> bool {
    used_by(listener) >= share_of(snapshot, worker)
}

/// Half of all descriptors, divided among the listeners.
fn share_of(snapshot: &Snapshot, worker: &Worker) -> usize {
    worker.shared.descriptors.limit() / 2 / snapshot.listeners.len().max(1)
}

/// About the descriptors of a listener's connections: each may have one to a backend.
fn used_by(listener: &Listener) -> usize {
    2 * listener.state.open.load(Ordering::Relaxed) as usize
}

/// Ends connections that rest: of this listener, if it has more than its share, else of any.
fn make_room(running: &Running, worker: &Worker) {
    let (held, place) = running.view(worker);
    let own = exceeds_share(&held, &held.listeners[place], worker).then_some(running.id);
    worker.sessions.evict(own, EVICTED_AT_ONCE);
}

/// Says that the listener is not accepting, once for all workers until that has ended.
fn hold(reason: Reason, error: Option<&io::Error>, running: &Running, worker: &Worker) {
    let (held, place) = running.view(worker);
    let listener = &held.listeners[place];
    if listener.state.pauses.hold(Instant::now()) {
        let error = error.map(tracing::field::display);
        warn!(listener = %listener.name, reason = reason.as_str(), error, "not accepting for now");
    }
}

/// Says of each listener that it is accepting, after it was not.
pub(super) fn tell_of_ended_pauses(snapshot: &Snapshot) {
    let now = Instant::now();
    for listener in &snapshot.listeners {
        if let Some(lasted) = listener.state.pauses.take_ended(now) {
            info!(listener = %listener.name, after = %show_duration(lasted), "accepting again");
        }
    }
}

async fn pause(running: &Running, time: Duration) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = running.stop.notified() => {}
    }
}

/// An accept that failed is the connection's bad luck, or we are out of something: then it is given time.
async fn survive(error: &io::Error, running: &Running, worker: &Worker) {
    if is_of_the_connection(error) {
        return debug!(%error, "a connection was lost before it was accepted");
    }
    let (held, place) = running.view(worker);
    let listener = &held.listeners[place];
    listener.metrics.sheet(worker.index).rejected[Reason::DescriptorLimit.index()].increment();
    hold(Reason::DescriptorLimit, Some(error), running, worker);
    pause(running, 5 * PAUSE).await;
}

fn distribute(
    (stream, peer): Incoming,
    open: OpenConnection,
    running: &Rc<Running>,
    worker: &Rc<Worker>,
) {
    let (held, place) = running.view(worker);
    let listener = &held.listeners[place];
    let Ok(client) = client_place(listener, peer, worker) else {
        let rejected = &listener.metrics.sheet(worker.index).rejected;
        return rejected[Reason::ClientConnectionLimit.index()].increment();
    };
    let counted = Counted {
        open,
        client,
        _descriptor: worker.shared.descriptors.take(),
    };
    let peer_worker = if running.is_stopped() {
        None
    } else {
        worker.less_busy_peer()
    };
    let Some(other) = peer_worker else {
        return serve(stream, peer, counted, listener, running, worker);
    };
    let Ok(stream) = stream.unwatch() else {
        return;
    };
    let handed = Handed {
        stream,
        peer,
        listener: running.id,
        counted,
    };
    if let Err(handed) = worker.hand_over(other, handed) {
        take_over(handed, Rc::clone(running), worker);
    }
}

/// The peer was at the limit of connections for each client.
struct TooMany;

/// Takes the peer's place among the connections of its address, if those are limited. Trusted proxies bring many clients.
fn client_place(
    listener: &Listener,
    peer: Option<SocketAddr>,
    worker: &Worker,
) -> Result<Option<clients::ClientKey>, TooMany> {
    let (Some(limit), Some(peer)) = (listener.limits.connections_per_client, peer) else {
        return Ok(None);
    };
    let ip = peer.ip().to_canonical();
    if listener.trusted_proxies.trusts(Some(ip)) {
        return Ok(None);
    }
    let whole = listener.limits.connections.unwrap_or_else(|| {
        let carried = worker.shared.descriptors.limit() / 2;
        u32::try_from(carried).unwrap_or(u32::MAX)
    });
    let client = clients::ClientKey::from(ip);
    let taken = listener.state.clients.try_add(client, limit.of(whole));
    taken.then_some(Some(client)).ok_or(TooMany)
}

/// Serves a connection that another worker accepted.
pub(super) fn take_over(handed: Handed, running: Rc<Running>, worker: &Rc<Worker>) {
    let (held, place) = running.view(worker);
    let listener = &held.listeners[place];
    match Conn::watch(handed.stream) {
        Ok(stream) => serve(
            stream,
            handed.peer,
            handed.counted,
            listener,
            &running,
            worker,
        ),
        Err(error) => debug!(%error, "a connection was lost between workers"),
    }
}

fn serve(
    stream: Conn,
    peer: Option<SocketAddr>,
    counted: Counted,
    listener: &Listener,
    running: &Rc<Running>,
    worker: &Rc<Worker>,
) {
    let client = ClientGuard {
        peer: peer.map(|peer| SocketAddr::new(peer.ip().to_canonical(), peer.port())),
        running: Rc::clone(running),
        session: worker.sessions.enter(running.id),
        own_answers: 0,
        metrics: Arc::clone(&listener.metrics),
        worker: worker.index as u32,
        counted: Some(counted),
    };
    client.sheet().connections.increment();
    if running.is_stopped() || worker.is_draining() {
        client.session.drain(worker.snapshot().drain_timeout);
    }
    let accepted = Accepted { stream, client };
    let worker = Rc::clone(worker);
    match listener.protocol {
        Protocol::Http => drop(tokio::task::spawn_local(http::connection::serve(
            accepted, worker,
        ))),
        Protocol::Tcp => drop(tokio::task::spawn_local(tcp::serve(accepted, worker))),
    }
}

/// Serves what the kernel has let in already, then closes the socket.
fn empty_queue(socket: Acceptor, running: &Rc<Running>, worker: &Rc<Worker>) {
    let Ok(socket) = socket.close() else {
        return;
    };
    // No more than a queue holds: new ones may come as long as the socket is open.
    for _ in 0..BACKLOG {
        match socket.accept() {
            Ok(incoming) => {
                let (held, place) = running.view(worker);
                let open = OpenConnection::new(&held.listeners[place].state);
                distribute(incoming, open, running, worker);
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(_) => return,
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
