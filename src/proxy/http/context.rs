//! What an exchange may use of its worker beside what every connection may ([`WorkerContext`]).

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;

use super::date::DateLine;
use crate::http1::head::Field;
use crate::proxy::context::WorkerContext;
use crate::transport::connect::Connector;

/// Where a worker parses and writes heads.
#[derive(Debug, Default)]
pub(crate) struct HeadSpace {
    /// Fields of the head at hand.
    pub fields: Vec<Field>,
    /// A head on its way to a client.
    pub out: Vec<u8>,
    /// The Date of a response that has none.
    pub date: DateLine,
}

/// The worker's context with its space for heads.
pub(crate) struct HttpContext<T: Connector> {
    worker: Rc<WorkerContext<T>>,
    /// Borrowed within one poll, never across one.
    pub(crate) heads: RefCell<HeadSpace>,
}

impl<T: Connector> HttpContext<T> {
    /// On the worker's context.
    pub(crate) fn new(worker: Rc<WorkerContext<T>>) -> Self {
        Self {
            worker,
            heads: RefCell::default(),
        }
    }

    /// The worker's context.
    pub(crate) fn worker(&self) -> &Rc<WorkerContext<T>> {
        &self.worker
    }
}

impl<T: Connector> Deref for HttpContext<T> {
    type Target = WorkerContext<T>;

    fn deref(&self) -> &WorkerContext<T> {
        &self.worker
    }
}
