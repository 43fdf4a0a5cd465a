//! The verb classify: what a client speaks, so which protocol serves its connection.
//!
//! Everything that has to be known before the first request or byte is routed belongs here, under its own deadline and
//! after a connection has reached the worker that keeps it. A plain listener speaks one protocol, so there is nothing to
//! wait for: the listener's kind decides.

use std::pin::Pin;
use std::rc::Rc;

use super::client::Accepted;
use super::context::WorkerContext;
use super::http::server::Server;
use super::http::server::connection;
use super::pick::ListenerView;
use super::tcp;
use crate::snapshot::ListenerKind;
use crate::transport::connect::Connector;

/// A connection whose protocol is known.
pub(crate) enum Classified<T: Connector> {
    /// HTTP/1.1 or HTTP/1.0, from its first byte.
    Http1(Accepted<T::Stream>, Rc<Server<T>>),
    /// Bytes.
    Tcp(Accepted<T::Stream>, Rc<WorkerContext<T>>),
}

/// Decides what serves a connection of the listener that `view` shows.
pub(crate) fn classify<T: Connector>(
    accepted: Accepted<T::Stream>,
    view: &ListenerView,
    server: &Rc<Server<T>>,
) -> Classified<T> {
    match view.listener().kind {
        ListenerKind::Http(_) => Classified::Http1(accepted, Rc::clone(server)),
        ListenerKind::Tcp(_) => Classified::Tcp(accepted, Rc::clone(&server.ctx)),
    }
}

impl<T: Connector> Classified<T> {
    /// Serves it.
    pub(crate) fn into_future(self) -> Pin<Box<dyn Future<Output = ()>>> {
        match self {
            Self::Http1(accepted, server) => Box::pin(connection::serve(accepted, server)),
            Self::Tcp(accepted, ctx) => Box::pin(tcp::serve(accepted, ctx)),
        }
    }

    /// Serves it as a task of this thread.
    pub(crate) fn serve(self) {
        match self {
            Self::Http1(accepted, server) => {
                drop(tokio::task::spawn_local(connection::serve(
                    accepted, server,
                )));
            }
            Self::Tcp(accepted, ctx) => drop(tokio::task::spawn_local(tcp::serve(accepted, ctx))),
        }
    }
}
