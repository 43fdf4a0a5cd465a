//! The verb connect: a fresh connection to the backend that was picked.
//!
//! A backend that refuses or does not answer is out of the rotation at once; one that lets us in is back in it (the
//! active check still has its say). What is our own fault (descriptors, ports) is not held against a backend.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use tracing::debug;

use super::load::Picked;
use super::pool::Upstream;
use super::sessions::{Fired, Session};
use super::worker::Worker;
use crate::telemetry::outcome::BackendError;
use crate::transport::dial::{DialError, dial};

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// The backend refused, or cannot be reached.
    Unreachable,
    /// It did not answer in time.
    Timeout,
    /// We are out of descriptors, ports or memory.
    Local(io::Error),
    /// The drain ended while we waited.
    Drained,
}

/// Connects to the endpoint, trying its addresses in order; the `connect` timeout is shared among them.
///
/// # Errors
/// Why there is no connection; the backend's health and counters know already.
pub async fn connect(
    worker: &Worker,
    session: &Session,
    picked: &Picked,
) -> Result<Upstream, ConnectError> {
    let endpoint = picked.endpoint();
    let sheet = endpoint.metrics.sheet(worker.index);
    let share = picked.cluster().timeouts.connect / endpoint.addresses.len().max(1) as u32;
    let mut failure = ConnectError::Unreachable;
    for &address in endpoint.addresses.iter() {
        worker.sessions.tell_time(Instant::now());
        session.set_deadline(share);
        let mut dialling = pin!(dial(address));
        let result = poll_fn(|cx| {
            if let Poll::Ready(result) = dialling.as_mut().poll(cx) {
                return Poll::Ready(Ok(result));
            }
            session.poll_fired(cx).map(Err)
        });
        match result.await {
            Ok(Ok(stream)) => {
                sheet.connections.increment();
                if endpoint.backend.report_connected() {
                    worker.report_health();
                }
                return Ok(Upstream {
                    stream,
                    address,
                    descriptor: worker.shared.descriptors.take(),
                });
            }
            Ok(Err(DialError::Local(error))) => {
                tracing::error!(%error, "cannot connect to backends");
                return Err(ConnectError::Local(error));
            }
            Ok(Err(DialError::Backend(error))) => {
                debug!(backend = %endpoint.backend.label(), %address, %error, "no connection");
                failure = ConnectError::Unreachable;
            }
            Err(Fired::Deadline) => failure = ConnectError::Timeout,
            Err(Fired::Drained) => return Err(ConnectError::Drained),
        }
    }
    sheet.errors[BackendError::Connect.index()].increment();
    if endpoint.backend.report_refused() {
        worker.report_health();
    }
    Err(failure)
}
