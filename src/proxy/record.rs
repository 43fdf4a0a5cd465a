//! The verb record: the outcome of a request or a session is counted and logged, once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::context::WorkerContext;
use crate::telemetry::access_log::LogEntry;
use crate::telemetry::metrics::{ListenerMetrics, RouteMetrics};
use crate::telemetry::outcome::{Outcome, Reason};
use crate::transport::connect::Connector;

/// Where an outcome is counted and logged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Books<'a> {
    /// The listener that let the client in.
    pub(crate) listener: &'a ListenerMetrics,
    /// The route, if it has a sheet of its own.
    pub(crate) route: Option<&'a Arc<RouteMetrics>>,
    /// The other side of the socket.
    pub(crate) peer: Option<SocketAddr>,
    /// Whether the access log has a line of it.
    pub(crate) is_logged: bool,
}

/// What is counted of an outcome.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    /// Status of the response; only a request has one, and only requests are counted by it.
    pub(crate) status: Option<u16>,
    /// Why the proxy replied itself or ended the session.
    pub(crate) reason: Option<Reason>,
    /// From its beginning to its end.
    pub(crate) duration: Duration,
}

/// Counts a request or a session that has ended, and logs its outcome, which is made only if it is logged.
pub(crate) fn record<'o, T: Connector>(
    books: Books<'_>,
    counted: Counted,
    outcome: impl FnOnce() -> Outcome<'o>,
    ctx: &WorkerContext<T>,
) {
    let sheet = books.listener.sheet(ctx.index);
    if let Some(status) = counted.status {
        sheet.requests.increment(status);
        sheet.duration.observe(counted.duration);
        if let Some(route) = books.route {
            route.sheet(ctx.index).requests.increment(status);
        }
    }
    if let Some(reason) = counted.reason {
        sheet.rejected[reason.index()].increment();
    }
    if books.is_logged {
        ctx.log.borrow_mut().write(&LogEntry {
            time: SystemTime::now(),
            listener: &books.listener.name,
            peer: books.peer,
            outcome: outcome(),
        });
    }
}
