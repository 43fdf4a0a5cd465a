//! The verb connect: a fresh connection to the backend that was picked.
//!
//! A backend that refuses or does not answer is out of the rotation at once; one that lets us in is back in it (the
//! active check still has its say). What is our own fault (descriptors, ports) is not held against a backend.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::load::Picked;
use super::passages::Passage;
use super::pool::Upstream;
use super::sessions::{Fired, Session};
use super::worker::Worker;
use crate::model::address::SocketAddress;
use crate::telemetry::outcome::BackendError;
use crate::telemetry::seldom::Seldom;
use crate::transport::dial::{DialError, NamedSocket, dial};

/// A client that sends requests brings it about.
static EXHAUSTED: Seldom = Seldom::new(Duration::from_secs(10));

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The backend refused, or cannot be reached.
    Unreachable,
    /// It did not answer in time.
    Timeout,
    /// We are out of descriptors, ports or memory.
    Exhausted,
    /// The time for the whole request is over.
    TotalTimeout,
    /// The drain ended while we waited.
    Drained,
}

/// Connects to the endpoint within the cluster's `connect` timeout. `until`, in the table's milliseconds, bounds it as
/// well. `depth` is how often a TCP session has passed this process.
///
/// # Errors
/// Why there is no connection; the backend's health and counters know already.
pub(crate) async fn connect(
    worker: &Worker,
    session: &Session,
    picked: &Picked,
    until: u64,
    depth: Option<usize>,
) -> Result<Upstream, ConnectError> {
    let endpoint = picked.endpoint();
    let sheet = endpoint.metrics.sheet(worker.index);
    let Some(descriptor) = worker.shared.descriptors.take_for_backend() else {
        return Err(ConnectError::Exhausted);
    };
    let Some(address) = &endpoint.address else {
        return Err(failed(worker, picked, ConnectError::Unreachable));
    };
    worker.sessions.tell_time(Instant::now());
    let now = worker.sessions.now();
    if until <= now {
        return Err(ConnectError::TotalTimeout);
    }
    let patience = picked.cluster().settings.timeouts.connect.as_millis() as u64;
    session.set_deadline_at(until.min(now.saturating_add(patience)));
    let passage = depth.and_then(|depth| note_passage(worker, picked, address, depth + 1));
    let (socket, passage) = passage.unzip();
    let mut dialling = pin!(async {
        match socket {
            Some(socket) => socket.connect().await,
            None => dial(address).await,
        }
    });
    let result = poll_fn(|cx| {
        if let Poll::Ready(result) = dialling.as_mut().poll(cx) {
            return Poll::Ready(Ok(result));
        }
        session.poll_fired(cx).map(Err)
    });
    let failure = match result.await {
        Ok(Ok(stream)) => {
            sheet.connections.increment();
            if endpoint.backend.report_connected() {
                worker.report_health();
            }
            return Ok(Upstream {
                stream,
                address: address.clone(),
                _descriptor: descriptor,
                _passage: passage,
            });
        }
        Ok(Err(DialError::Local(error))) => {
            if let Some(more) = EXHAUSTED.pass() {
                warn!(%error, more, "cannot connect to backends for want of descriptors, ports or memory");
            }
            return Err(ConnectError::Exhausted);
        }
        Ok(Err(DialError::Backend(error))) => {
            debug!(backend = %endpoint.backend.label(), %address, %error, "no connection");
            ConnectError::Unreachable
        }
        Err(Fired::Deadline) if until <= session.past() => return Err(ConnectError::TotalTimeout),
        Err(Fired::Drained) => return Err(ConnectError::Drained),
        // Nothing at work is evicted; the deadline that was set before has taken such a word back.
        Err(Fired::Deadline | Fired::Evicted) => ConnectError::Timeout,
    };
    Err(failed(worker, picked, failure))
}

/// Holds the failure against the backend.
fn failed(worker: &Worker, picked: &Picked, failure: ConnectError) -> ConnectError {
    let endpoint = picked.endpoint();
    let sheet = endpoint.metrics.sheet(worker.index);
    sheet.errors[BackendError::Connect.index()].increment();
    if endpoint.backend.report_refused() {
        worker.report_health();
    }
    failure
}

/// Whether a connection to `address` may come to `listener`. The path of a Unix socket does not tell: a file may have
/// many.
fn may_lead_to(address: &SocketAddress, listener: &SocketAddress) -> bool {
    match (address, listener) {
        (SocketAddress::Ip(address), SocketAddress::Ip(own)) => address.port() == own.port(),
        (SocketAddress::Unix(_), SocketAddress::Unix(_)) => true,
        _ => false,
    }
}

/// A noted socket for a TCP session that may come back.
fn note_passage(
    worker: &Worker,
    picked: &Picked,
    address: &SocketAddress,
    depth: usize,
) -> Option<(NamedSocket, Passage)> {
    let mut listeners = picked.snapshot().listeners.iter();
    if !listeners.any(|listener| may_lead_to(address, listener.sockets.address())) {
        return None;
    }
    let (socket, end) = NamedSocket::bind(address)?;
    Some((socket, worker.shared.passages.note(end, depth)))
}
