//! The verb connect: a connection to the backend that was picked, fresh or from the pool.
//!
//! A backend that refuses or does not answer is out of the rotation at once; one that lets us in is back in it (the
//! active check still has its say). A lack of descriptors or ports of our own is not held against a backend.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tracing::{debug, warn};

use super::connected::Connected;
use super::context::WorkerContext;
use super::deadlines::{ConnectionSlot, Fired};
use super::passages::Passage;
use super::pick::Pick;
use crate::model::address::SocketAddress;
use crate::telemetry::outcome::{AttemptOutcome, BackendError};
use crate::telemetry::seldom::Seldom;
use crate::transport::connect::{Connector, DialError};

/// Clients that send requests bring it about.
static EXHAUSTED: Seldom = Seldom::new(Duration::from_secs(10));

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The backend refused, cannot be reached, or did not answer in time.
    Backend,
    /// We are out of descriptors, ports or memory.
    Exhausted,
    /// The time for the whole request is over.
    TotalTimeout,
    /// The drain ended while we waited.
    Drained,
}

/// Limits of one connection attempt beside the cluster's `connect` timeout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Within {
    /// When the whole must be over, in the table's milliseconds.
    pub(crate) until: u64,
    /// How often the TCP session has passed this process.
    pub(crate) depth: Option<usize>,
}

/// Connects to the endpoint that was picked, within the cluster's `connect` timeout.
///
/// # Errors
/// Why there is no connection; the backend's health and counters know already.
pub(crate) async fn connect<T: Connector>(
    ctx: &WorkerContext<T>,
    slot: &ConnectionSlot,
    pick: &Pick,
    within: Within,
) -> Result<Connected<T::Stream>, ConnectError> {
    let endpoint = pick.endpoint();
    let Some(descriptor) = ctx.shared.descriptors.take_for_backend() else {
        return Err(ConnectError::Exhausted);
    };
    let Some(address) = &endpoint.address else {
        return Err(failed(ctx, pick));
    };
    ctx.deadlines.update();
    let now = ctx.deadlines.now();
    if within.until <= now {
        return Err(ConnectError::TotalTimeout);
    }
    let patience = pick.cluster().settings.timeouts.connect.as_millis() as u64;
    slot.set_deadline_at(within.until.min(now.saturating_add(patience)));
    let passage = within
        .depth
        .and_then(|depth| note_passage(ctx, pick, address, depth + 1));
    let (named, passage) = passage.unzip();
    let mut connecting = pin!(async {
        match named {
            Some(named) => ctx.connector.connect_named(named).await,
            None => ctx.connector.connect(address).await,
        }
    });
    let connected = poll_fn(|cx| {
        if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
            return Poll::Ready(Ok(connected));
        }
        slot.poll_fired(cx).map(Err)
    });
    match connected.await {
        Ok(Ok(stream)) => {
            endpoint.metrics.sheet(ctx.index).connections.increment();
            if endpoint.backend.report_connected() {
                ctx.report_health();
            }
            Ok(Connected {
                stream,
                address: address.clone(),
                _descriptor: descriptor,
                _passage: passage,
            })
        }
        Ok(Err(DialError::Local(error))) => {
            if let Some(more) = EXHAUSTED.pass() {
                warn!(%error, more, "cannot connect to backends: out of descriptors, ports or memory");
            }
            Err(ConnectError::Exhausted)
        }
        Ok(Err(DialError::Backend(error))) => {
            debug!(backend = %endpoint.backend.label(), %address, %error, "no connection");
            Err(failed(ctx, pick))
        }
        Err(Fired::Deadline) if within.until <= ctx.deadlines.safe_now() => {
            Err(ConnectError::TotalTimeout)
        }
        Err(Fired::Drained) => Err(ConnectError::Drained),
        // Nothing busy is evicted; the deadline that was set before has cleared such a word.
        Err(Fired::Deadline | Fired::Evicted) => Err(failed(ctx, pick)),
    }
}

/// Holds the failure against the backend.
fn failed<T: Connector>(ctx: &WorkerContext<T>, pick: &Pick) -> ConnectError {
    let failure = AttemptOutcome::failed(BackendError::Connect);
    pick.endpoint().observe(&failure, ctx.index);
    if pick.backend().report_refused() {
        ctx.report_health();
    }
    ConnectError::Backend
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

/// A named socket for a TCP session that may come back, noted under its name.
fn note_passage<T: Connector>(
    ctx: &WorkerContext<T>,
    pick: &Pick,
    address: &SocketAddress,
    depth: usize,
) -> Option<(T::Named, Passage)> {
    let mut listeners = pick.snapshot().listeners.iter();
    if !listeners.any(|listener| may_lead_to(address, listener.sockets.address())) {
        return None;
    }
    let (socket, end) = ctx.connector.bind(address)?;
    Some((socket, ctx.shared.passages.note(end, depth)))
}
