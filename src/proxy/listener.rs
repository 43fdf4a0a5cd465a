//! A listener as it runs on one worker: which generation its connections see, and whether it still accepts.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::pick::{ListenerView, SnapshotRef};

/// How long connections of a stopped listener may be on their way between workers.
const HANDOFF: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(crate) struct ListenerHandle {
    /// The id of its bound sockets.
    pub id: u64,
    /// The newest generation that lists it. A removed listener keeps its last one, so that its connections are served to
    /// their end.
    view: RefCell<ListenerView>,
    stopped: Cell<Option<Instant>>,
    is_closed: Cell<bool>,
    stop: Notify,
}

impl ListenerHandle {
    /// The listener with index `index` in `snapshot`, which has it.
    pub(crate) fn new(snapshot: &SnapshotRef, index: usize) -> Self {
        Self {
            id: snapshot.listeners[index].sockets.id(),
            view: RefCell::new(ListenerView::new(Rc::clone(snapshot), index)),
            stopped: Cell::new(None),
            is_closed: Cell::new(false),
            stop: Notify::new(),
        }
    }

    /// Moves on to `newest` if that lists the listener.
    pub(crate) fn follow(&self, newest: &SnapshotRef) {
        let mut view = self.view.borrow_mut();
        if view.snapshot.generation == newest.generation {
            return;
        }
        let mut listeners = newest.listeners.iter();
        if let Some(index) = listeners.position(|listener| listener.sockets.id() == self.id) {
            *view = ListenerView::new(Rc::clone(newest), index);
        }
    }

    /// What a new request or connection sees, where `newest` is the newest generation.
    pub(crate) fn view(&self, newest: &SnapshotRef) -> ListenerView {
        self.follow(newest);
        self.view.borrow().clone()
    }

    /// Ends the accept loop.
    pub(crate) fn stop(&self) {
        if self.stopped.get().is_none() {
            self.stopped.set(Some(Instant::now()));
        }
        self.stop.notify_one();
    }

    /// Whether it was stopped: its connections end after the request at hand.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.get().is_some()
    }

    /// Waits until it is stopped. Cancel-safe; for the accept loop alone.
    pub(crate) async fn stopping(&self) {
        self.stop.notified().await;
    }

    /// Notes that its socket is closed.
    pub(crate) fn set_closed(&self) {
        self.is_closed.set(true);
    }

    /// Whether its socket is closed.
    pub(crate) fn has_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Whether it was stopped so long ago that no worker hands over connections of it any more.
    pub(crate) fn is_over(&self) -> bool {
        let stopped = self.stopped.get();
        self.has_closed() && stopped.is_some_and(|since| since.elapsed() > HANDOFF)
    }
}
