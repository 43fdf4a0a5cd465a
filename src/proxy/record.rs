//! The verb record: a finished request or session is counted and logged, once.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::accept::ClientGuard;
use super::flow::SMALL_READ;
use super::http::exchange::Exchange;
use super::load::Picked;
use super::tcp::Joined;
use super::worker::Worker;
use crate::telemetry::access_log::{MAX_TEXT, MAX_URI, Record};
use crate::telemetry::metrics::{ListenerMetrics, RouteMetrics};
use crate::telemetry::outcome::Reason;

/// How a TCP session ended.
pub(crate) struct SessionOutcome {
    started: Instant,
    connect: Option<Duration>,
    /// Cluster, once it is known.
    pub cluster: Option<Arc<str>>,
    backend: Option<Arc<str>>,
    /// Backends tried.
    pub attempts: u32,
    bytes_in: u64,
    bytes_out: u64,
    /// What ended it, if that was not its two sides in order.
    pub reason: Option<Reason>,
}

impl SessionOutcome {
    /// Of a session that begins.
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            started,
            connect: None,
            cluster: None,
            backend: None,
            attempts: 0,
            bytes_in: 0,
            bytes_out: 0,
            reason: None,
        }
    }

    /// Notes the backend that is tried.
    pub(crate) fn tries(&mut self, picked: &Picked) {
        self.attempts += 1;
        self.backend = Some(Arc::clone(picked.endpoint().backend.label()));
    }

    /// Notes that the backend was reached.
    pub(crate) fn connected(&mut self) {
        self.connect = Some(self.started.elapsed());
    }

    /// Notes how it ended.
    pub(super) fn ended(&mut self, joined: Joined) {
        (self.bytes_in, self.bytes_out, self.reason) =
            (joined.bytes_up, joined.bytes_down, joined.reason);
    }

    /// Counts and logs the session.
    pub(crate) fn record(self, client: &ClientGuard, worker: &Worker) {
        if let Some(reason) = self.reason {
            client.sheet().rejected[reason.index()].increment();
        }
        if !worker.snapshot().access_log {
            return;
        }
        worker.log.borrow_mut().write(&Record {
            time: SystemTime::now(),
            listener: client.listener_name(),
            client: client.peer.map(|peer| peer.ip()),
            peer: client.peer,
            id: b"",
            protocol: "tcp",
            method: b"",
            host: b"",
            uri: b"",
            status: None,
            reason: self.reason,
            cause: None,
            route: None,
            cluster: self.cluster.as_deref(),
            backend: self.backend.as_deref(),
            attempts: Some(self.attempts),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration: self.started.elapsed(),
            connect: self.connect,
            response: None,
            user_agent: b"",
            referer: b"",
        });
    }
}

/// Under which names an exchange is recorded.
#[derive(Clone, Copy)]
struct Names<'a> {
    listener: &'a Arc<ListenerMetrics>,
    route: Option<&'a Arc<str>>,
    route_metrics: Option<&'a Arc<RouteMetrics>>,
    cluster: Option<&'a Arc<str>>,
    access_log: bool,
}

/// The names that outlive the generation: for a tunnel, which lets go of its own.
#[derive(Debug)]
pub struct KeptNames {
    listener: Arc<ListenerMetrics>,
    route: Option<Arc<str>>,
    route_metrics: Option<Arc<RouteMetrics>>,
    cluster: Option<Arc<str>>,
    access_log: bool,
}

impl KeptNames {
    /// The names of an exchange that has a generation.
    pub fn of(exchange: &Exchange) -> Option<Self> {
        let names = names_of(exchange)?;
        Some(Self {
            listener: Arc::clone(names.listener),
            route: names.route.cloned(),
            route_metrics: names.route_metrics.cloned(),
            cluster: names.cluster.cloned(),
            access_log: names.access_log,
        })
    }
}

fn names_of(exchange: &Exchange) -> Option<Names<'_>> {
    if let Some(kept) = &exchange.kept_names {
        return Some(Names {
            listener: &kept.listener,
            route: kept.route.as_ref(),
            route_metrics: kept.route_metrics.as_ref(),
            cluster: kept.cluster.as_ref(),
            access_log: kept.access_log,
        });
    }
    let (held, place) = exchange.view.as_ref()?;
    let listener = &held.listeners[*place];
    let route = exchange
        .facts
        .route
        .and_then(|index| listener.routes.rules().get(index));
    Some(Names {
        listener: &listener.metrics,
        route: route.map(|rule| &rule.target.name),
        route_metrics: route.and_then(|rule| rule.target.metrics.as_ref()),
        cluster: exchange
            .facts
            .cluster
            .map(|index| &held.cluster(index).name),
        access_log: held.access_log && route.is_none_or(|rule| rule.target.log),
    })
}

/// Counts and logs an exchange that ended with `status`.
pub(crate) fn record_exchange(
    exchange: &Exchange,
    client: &ClientGuard,
    worker: &Worker,
    status: u16,
    reason: Option<Reason>,
) {
    let Some(names) = names_of(exchange) else {
        return;
    };
    let sheet = names.listener.sheet(worker.index);
    let duration = exchange
        .facts
        .started
        .map_or(Duration::ZERO, |started| started.elapsed());
    sheet.requests.increment(status);
    sheet.duration.observe(duration);
    if let Some(route) = names.route_metrics {
        route.sheet(worker.index).requests.increment(status);
    }
    if let Some(reason) = reason {
        sheet.rejected[reason.index()].increment();
    }
    if !names.access_log {
        return;
    }
    let capture = &exchange.capture;
    worker.log.borrow_mut().write(&Record {
        time: SystemTime::now(),
        listener: &names.listener.name,
        client: match exchange.facts.client_unknown {
            true => None,
            false => exchange.facts.client.or(client.peer.map(|peer| peer.ip())),
        },
        peer: client.peer,
        id: capture.get(&capture.id),
        protocol: if exchange.facts.is_http10 {
            "HTTP/1.0"
        } else {
            "HTTP/1.1"
        },
        method: capture.get(&capture.method),
        host: capture.get(&capture.host),
        uri: capture.get(&capture.uri),
        status: Some(status),
        reason,
        cause: reason.and(exchange.response.cause),
        route: names.route.map(|name| &**name),
        cluster: names.cluster.map(|name| &**name),
        backend: exchange.last_backend().map(|backend| &**backend),
        attempts: (exchange.facts.attempts > 0).then_some(exchange.facts.attempts),
        bytes_in: exchange.facts.bytes_in,
        bytes_out: exchange.facts.bytes_out,
        duration,
        connect: exchange.facts.connect,
        response: exchange.response_time(),
        user_agent: capture.get(&capture.user_agent),
        referer: capture.get(&capture.referer),
    });
}

/// What the access log wants to know of a request head, kept only while the log is on.
#[derive(Debug, Default)]
pub struct Capture {
    bytes: Vec<u8>,
    /// Method.
    pub method: Span,
    /// Host.
    pub host: Span,
    /// Target.
    pub uri: Span,
    /// X-Request-Id.
    pub id: Span,
    /// User-Agent.
    pub user_agent: Span,
    /// Referer.
    pub referer: Span,
}

/// A part of the captured bytes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Span(u32, u32);

impl Span {
    /// Whether nothing was captured.
    pub fn is_empty(self) -> bool {
        self.0 == self.1
    }
}

impl Capture {
    /// Keeps a copy of `value`, as far as the log shows it.
    pub fn keep(&mut self, value: &[u8]) -> Span {
        self.keep_up_to(value, MAX_TEXT)
    }

    /// Keeps a copy of a target, as far as the log shows it.
    pub fn keep_uri(&mut self, value: &[u8]) -> Span {
        self.keep_up_to(value, MAX_URI)
    }

    fn keep_up_to(&mut self, value: &[u8], shown: usize) -> Span {
        let start = self.bytes.len() as u32;
        // One byte more tells the log that something is missing.
        let value = &value[..value.len().min(shown + 1)];
        self.bytes.extend_from_slice(value);
        Span(start, self.bytes.len() as u32)
    }

    /// The kept copy.
    pub fn get(&self, span: &Span) -> &[u8] {
        &self.bytes[span.0 as usize..span.1 as usize]
    }

    /// Forgets everything but memory worth keeping.
    pub fn clear(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        if bytes.capacity() > SMALL_READ {
            bytes = Vec::new();
        }
        *self = Self {
            bytes,
            ..Self::default()
        };
    }
}
