//! Idle connections to backends, of one worker.
//!
//! A connection serves again only what it was made for: its backend and all that was agreed on when it was made are its
//! key. The connection used last is used next, so that the oldest ones age out. A connection is kept only if both
//! messages of its last exchange were complete; while it is idle nothing may come from the backend, so whatever the
//! kernel has (an end, or unexpected bytes) disqualifies it. The kernel itself is asked before each use, for one system
//! call (0.2 of 12.5 µs a request): what the runtime knows is as old as its last look, and a second response to the
//! previous request would be read as the response to the next one.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::connected::Connected;
use crate::model::backend::BackendId;
use crate::snapshot::Endpoint;
use crate::transport::stream::Stream;

#[derive(Debug)]
struct Idle<S> {
    connection: Connected<S>,
    since: u64,
    until: u64,
}

/// The pool. Times are milliseconds of the worker's table.
#[derive(Debug)]
pub(crate) struct Pool<S> {
    /// By the backend's id.
    idle: HashMap<BackendId, Vec<Idle<S>>, RandomState>,
}

impl<S> Default for Pool<S> {
    fn default() -> Self {
        Self {
            idle: HashMap::default(),
        }
    }
}

impl<S: Stream> Pool<S> {
    /// The connection to `endpoint` that was used last, if it is alive, leads where the endpoint is now, and was used
    /// at `used_since` or later.
    pub(crate) fn take(
        &mut self,
        endpoint: &Endpoint,
        now: u64,
        used_since: u64,
    ) -> Option<Connected<S>> {
        let wanted = endpoint.address.as_ref()?;
        let connections = self.idle.get_mut(&endpoint.backend.id())?;
        while let Some(idle) = connections.pop() {
            if idle.since < used_since {
                connections.push(idle);
                return None;
            }
            let is_same = idle.connection.address == *wanted;
            if idle.until > now && is_same && idle.connection.stream.is_idle() {
                return Some(idle.connection);
            }
        }
        None
    }

    /// Keeps a connection to `backend` from `now` until `until`; returns it if there are `most` already.
    pub(crate) fn put(
        &mut self,
        backend: BackendId,
        connection: Connected<S>,
        (now, until): (u64, u64),
        most: usize,
    ) -> Option<Connected<S>> {
        let connections = self.idle.entry(backend).or_default();
        if connections.len() >= most || until <= now {
            return Some(connection);
        }
        connections.push(Idle {
            connection,
            since: now,
            until,
        });
        None
    }

    /// Drops what is too old, what its backend has closed, and what `departed` says is no longer wanted.
    pub(crate) fn sweep(&mut self, now: u64, departed: impl Fn(BackendId) -> bool) {
        self.idle.retain(|backend, connections| {
            if departed(*backend) {
                return false;
            }
            connections.retain(|idle| idle.until > now && idle.connection.stream.seems_idle());
            !connections.is_empty()
        });
    }

    /// Whether it is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.idle.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;
    use crate::model::address::SocketAddress;
    use crate::snapshot::fixture::endpoint;
    use crate::transport::connect::{Connector, SystemConnector};
    use crate::transport::descriptors::Descriptors;

    #[tokio::test]
    async fn unexpected_bytes_disqualify_before_the_runtime_knows() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let address = SocketAddress::Ip(local);
        let endpoint = endpoint("web", &local.to_string());
        let id = endpoint.backend.id();
        let stream = SystemConnector.connect(&address).await.unwrap();
        let (mut backend, _) = listener.accept().unwrap();
        // The runtime looks, and sees that there is nothing.
        assert!(stream.seems_idle());
        let descriptors = Arc::new(Descriptors::raise());
        let mut pool = Pool::default();
        let connection = Connected {
            stream,
            address,
            _descriptor: descriptors.take_for_backend().unwrap(),
            _passage: None,
        };
        assert!(pool.put(id, connection, (0, 1000), 1).is_none());
        let connection = pool.take(&endpoint, 10, 0).expect("it is idle");
        assert!(pool.put(id, connection, (10, 1000), 1).is_none());
        // Nothing is awaited from here on, so the runtime cannot hear of it.
        backend.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        assert!(pool.take(&endpoint, 20, 0).is_none());
    }
}
