//! A client's connection as accept leaves it, and what it holds beside its socket.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::deadlines::ConnectionSlot;
use super::listener::ListenerHandle;
use crate::limit::connections::ConnectionPermit;
use crate::telemetry::metrics::{ListenerMetrics, ListenerSheet};
use crate::transport::descriptors::Descriptor;

/// A connection from a client, counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Accepted<S> {
    /// The socket.
    pub stream: S,
    /// What the connection holds beside it.
    pub client: ClientGuard,
}

/// What an accepted connection takes up, until this is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) _permit: ConnectionPermit,
    pub(crate) _descriptor: Descriptor,
}

/// What a client connection holds beside its socket.
#[derive(Debug)]
pub(crate) struct ClientGuard {
    /// The address of the other side; a peer over a Unix socket has none.
    pub peer: Option<SocketAddr>,
    /// The listener.
    pub listener: Rc<ListenerHandle>,
    /// Its row in the table of deadlines.
    pub slot: ConnectionSlot,
    /// Replies of the proxy's own so far, modulo 256.
    pub own_replies: u8,
    metrics: Arc<ListenerMetrics>,
    worker: u32,
    admission: Option<Admission>,
}

impl ClientGuard {
    /// Counts the connection.
    pub(crate) fn new(
        peer: Option<SocketAddr>,
        listener: Rc<ListenerHandle>,
        slot: ConnectionSlot,
        (metrics, worker): (Arc<ListenerMetrics>, usize),
        admission: Admission,
    ) -> Self {
        let client = Self {
            peer: peer.map(|peer| SocketAddr::new(peer.ip().to_canonical(), peer.port())),
            listener,
            slot,
            own_replies: 0,
            metrics,
            worker: worker as u32,
            admission: Some(admission),
        };
        client.sheet().connections.increment();
        client
    }

    /// The sheet of this worker in [`Self::metrics`].
    pub(crate) fn sheet(&self) -> &ListenerSheet {
        self.metrics.sheet(self.worker as usize)
    }

    /// The listener's counters, under the name that it had when the connection came.
    pub(crate) fn metrics(&self) -> &ListenerMetrics {
        &self.metrics
    }
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        // First: a client that sees the connection end may take its place.
        self.admission = None;
        self.sheet().connections_ended.increment();
    }
}
