//! Memory for a future whose type has no name, used again by the next one: a request allocates nothing, and a connection
//! at rest holds nothing of it.

use std::pin::Pin;
use std::task::{Context, Poll};

/// The memory of one such future, which is made of an `I` and ends with an `O`.
pub(super) trait ReusableFuture<I, O> {
    /// Makes a future of `input` there.
    fn begin(&mut self, input: I);
    /// Polls it; the memory is free again when it is ready.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<O>;
}

/// Empty memory for the futures that `make` makes.
pub(super) fn slot<I, O, M, F>(make: M) -> Box<dyn ReusableFuture<I, O>>
where
    M: Fn(I) -> F + 'static,
    F: Future<Output = O> + 'static,
{
    Box::new(Memory {
        make,
        future: Box::pin(None),
    })
}

struct Memory<M, F> {
    make: M,
    future: Pin<Box<Option<F>>>,
}

impl<I, O, M, F> ReusableFuture<I, O> for Memory<M, F>
where
    M: Fn(I) -> F,
    F: Future<Output = O>,
{
    fn begin(&mut self, input: I) {
        let future = (self.make)(input);
        self.future.set(Some(future));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<O> {
        let future = self.future.as_mut().as_pin_mut();
        let ready = future.expect("polled only once it has begun").poll(cx);
        if ready.is_ready() {
            self.future.set(None);
        }
        ready
    }
}
