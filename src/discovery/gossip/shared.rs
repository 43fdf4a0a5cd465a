//! The node, as the tasks of its thread share it.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use tokio::sync::Notify;

use crate::gossip::Time;
use crate::gossip::node::Node;

/// The node and what its tasks need beside it.
pub(super) struct SharedNode {
    pub node: RefCell<Node>,
    /// Wakes the driver: the node has something to send, or an earlier deadline.
    pub wake: Notify,
    /// A task panicked while it used the node. The runtime hides that panic from the thread.
    pub panicked: Cell<bool>,
    clock: Instant,
}

impl SharedNode {
    pub(super) fn new(node: Node) -> Self {
        Self {
            node: RefCell::new(node),
            wake: Notify::new(),
            panicked: Cell::new(false),
            clock: Instant::now(),
        }
    }

    /// Time since the driver started.
    pub(super) fn now(&self) -> Time {
        self.clock.elapsed()
    }
}
