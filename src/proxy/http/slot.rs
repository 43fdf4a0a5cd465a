//! Where the future that serves an exchange lives. Its memory is used again by the next one, of whatever connection: a
//! request allocates nothing, and a connection at rest holds nothing of it.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::connection::{After, Client};
use super::exchange::Exchange;
use crate::proxy::worker::Worker;

/// The memory of one such future.
pub(crate) trait Slot {
    /// Makes a future there, which owns the connection until it is ready.
    fn begin(&mut self, client: Client, worker: Rc<Worker>, exchange: Box<Exchange>);
    /// Polls it; the memory is free again when it is ready.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(Client, After)>;
}

/// An empty slot for the futures that `serve` makes.
pub(super) fn slot<S, F>(serve: S) -> Box<dyn Slot>
where
    S: Fn(Client, Rc<Worker>, Box<Exchange>) -> F + 'static,
    F: Future<Output = (Client, After)> + 'static,
{
    Box::new(Memory {
        serve,
        future: Box::pin(None),
    })
}

/// The future has no name, so its memory is known by a trait.
struct Memory<S, F> {
    serve: S,
    future: Pin<Box<Option<F>>>,
}

impl<S, F> Slot for Memory<S, F>
where
    S: Fn(Client, Rc<Worker>, Box<Exchange>) -> F,
    F: Future<Output = (Client, After)>,
{
    fn begin(&mut self, client: Client, worker: Rc<Worker>, exchange: Box<Exchange>) {
        let future = (self.serve)(client, worker, exchange);
        self.future.set(Some(future));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(Client, After)> {
        let future = self.future.as_mut().as_pin_mut();
        let ready = future.expect("polled only once it has begun").poll(cx);
        if ready.is_ready() {
            self.future.set(None);
        }
        ready
    }
}
