//! What serves HTTP connections on one worker: the context of their exchanges, and memory that is used again.
//!
//! A connection at rest holds no exchange. It borrows one when the first bytes of a request are there, with the memory
//! of the future that serves it, so a warm request allocates nothing.

pub(crate) mod connection;
mod future_slot;
mod own_reply;
mod request_buffer;

use std::cell::RefCell;
use std::rc::Rc;

use self::connection::FutureSlot;
use super::context::HttpContext;
use super::in_flight::InFlight;
use crate::proxy::context::WorkerContext;
use crate::transport::connect::Connector;

/// Exchanges, and slots for their futures, that are kept for reuse.
const SPARES: usize = 256;

/// See the module.
pub(crate) struct Server<T: Connector> {
    /// The worker's context.
    pub ctx: Rc<WorkerContext<T>>,
    pub(super) http: HttpContext<T>,
    #[expect(
        clippy::vec_box,
        reason = "exchanges go in and out as boxes: a connection's future stays small"
    )]
    spare: RefCell<Vec<Box<InFlight>>>,
    spare_slots: RefCell<Vec<FutureSlot<T>>>,
}

impl<T: Connector> Server<T> {
    /// On the worker's context, with nothing spare.
    pub(crate) fn new(ctx: Rc<WorkerContext<T>>) -> Self {
        Self {
            http: HttpContext::new(Rc::clone(&ctx)),
            ctx,
            spare: RefCell::default(),
            spare_slots: RefCell::default(),
        }
    }

    /// Drops all that is spare.
    pub(crate) fn drop_spares(&self) {
        self.spare.borrow_mut().clear();
        self.spare_slots.borrow_mut().clear();
    }

    /// An exchange to use, made only if none is spare.
    fn spare(&self) -> Box<InFlight> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives an exchange back.
    fn give_back(&self, mut state: Box<InFlight>) {
        state.clear();
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARES {
            spare.push(state);
        }
    }

    /// A slot to use, if one is spare.
    fn spare_slot(&self) -> Option<FutureSlot<T>> {
        self.spare_slots.borrow_mut().pop()
    }

    /// Gives an empty slot back.
    fn give_back_slot(&self, slot: FutureSlot<T>) {
        let mut spare = self.spare_slots.borrow_mut();
        if spare.len() < SPARES {
            spare.push(slot);
        }
    }
}
