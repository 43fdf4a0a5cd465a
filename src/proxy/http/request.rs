//! A request between its head and its record: what is known of it, who it comes from and which way it takes. Route fills
//! it, forward reads and completes it, record writes it down. The state machine that moves its bytes never sees it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::client_address::ClientAddress;
use crate::http1::request::RequestHead;
use crate::http1::{Framing, Version};
use crate::proxy::client::ClientGuard;
use crate::proxy::context::WorkerContext;
use crate::proxy::pick::{ListenerView, Routed};
use crate::proxy::read_size::SMALL_READ;
use crate::proxy::record::{Books, Counted, record};
use crate::snapshot::{HttpListener, ListenerKind, RouteTarget};
use crate::telemetry::access_log::{MAX_TEXT, MAX_URI};
use crate::telemetry::metrics::{ListenerMetrics, RouteMetrics};
use crate::telemetry::outcome::{Outcome, Reason, RequestText, Times, Way};
use crate::transport::connect::Connector;

/// What a request head says that matters after it was parsed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RequestInfo {
    /// HEAD: its response has no body.
    pub is_head: bool,
    /// May be sent twice (RFC 9110 9.2.2).
    pub is_idempotent: bool,
    /// HTTP/1.0.
    pub is_http10: bool,
    /// The client wants the connection kept.
    pub keep_alive: bool,
    /// The client waits for 100 before it sends the body.
    pub expects_continue: bool,
    /// The client offers another protocol.
    pub wants_upgrade: bool,
    /// GET, HEAD, DELETE or OPTIONS: a backend may leave its body unread (RFC 9110 9.3.1, 9.3.2, 9.3.5).
    pub may_ignore_body: bool,
    /// The body comes in chunks.
    pub is_chunked: bool,
}

impl RequestInfo {
    /// What `head` says.
    pub(crate) fn of(head: &RequestHead<'_>) -> Self {
        Self {
            is_head: head.method == b"HEAD",
            is_idempotent: head.is_idempotent(),
            is_http10: head.version == Version::V10,
            keep_alive: head.keep_alive,
            expects_continue: head.expects_continue,
            wants_upgrade: head.wants_upgrade,
            may_ignore_body: matches!(head.method, b"GET" | b"HEAD" | b"DELETE" | b"OPTIONS"),
            is_chunked: head.framing == Framing::Chunked,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct RequestContext {
    /// The generation that the request sees; `None` once a tunnel has let go of it.
    pub view: Option<ListenerView>,
    /// The names to record under once the generation is let go of.
    kept_names: Option<KeptNames>,
    /// When the head was complete.
    pub started: Option<Instant>,
    /// What the head says.
    pub info: RequestInfo,
    /// Who sent it.
    pub client: ClientAddress,
    /// The route that took it, by its index in the listener's table.
    pub route: Option<usize>,
    /// Where it goes.
    pub routed: Option<Routed>,
    /// For the access log; its id for everybody.
    pub capture: Capture,
    /// Backends tried.
    pub attempts: u32,
    /// The backend that was tried last, if the access log is on.
    pub backend: Option<Arc<str>>,
    /// Time to connect, of the last attempt that did.
    pub connect: Option<Duration>,
}

/// The end of a request, as far as its exchange knows it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RequestEnd {
    pub(crate) status: u16,
    pub(crate) reason: Option<Reason>,
    pub(crate) cause: Option<&'static str>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Request sent to response head.
    pub(crate) response: Option<Duration>,
}

impl RequestContext {
    /// X-Request-Id; empty before there is one.
    pub(crate) fn id(&self) -> &[u8] {
        self.capture.get(self.capture.id)
    }

    /// The listener's part for HTTP.
    pub(crate) fn listener(&self) -> Option<&HttpListener> {
        match &self.view.as_ref()?.listener().kind {
            ListenerKind::Http(listener) => Some(listener),
            ListenerKind::Tcp(_) => None,
        }
    }

    /// The route that took it.
    pub(crate) fn target(&self) -> Option<&RouteTarget> {
        let rule = self.listener()?.routes.rules().get(self.route?)?;
        Some(&rule.target)
    }

    /// Lets go of the generation: for a tunnel, which may outlive many.
    pub(crate) fn release_view(&mut self) {
        self.kept_names = self.names().map(|names| KeptNames {
            listener: Arc::clone(names.listener),
            route: names.route.cloned(),
            route_metrics: names.route_metrics.cloned(),
            cluster: names.cluster.cloned(),
            is_logged: names.is_logged,
        });
        self.view = None;
    }

    fn names(&self) -> Option<Names<'_>> {
        if let Some(kept) = &self.kept_names {
            return Some(Names {
                listener: &kept.listener,
                route: kept.route.as_ref(),
                route_metrics: kept.route_metrics.as_ref(),
                cluster: kept.cluster.as_ref(),
                is_logged: kept.is_logged,
            });
        }
        let view = self.view.as_ref()?;
        let target = self.target();
        let cluster = self
            .routed
            .map(|to| &view.snapshot.cluster(to.cluster).name);
        Some(Names {
            listener: &view.listener().metrics,
            route: target.map(|target| &target.name),
            route_metrics: target.and_then(|target| target.metrics.as_ref()),
            cluster,
            is_logged: view.snapshot.access_log && target.is_none_or(|target| target.log),
        })
    }

    /// Records a request that ended so at `now`.
    pub(crate) fn record<T: Connector>(
        &self,
        end: RequestEnd,
        client: &ClientGuard,
        now: Instant,
        ctx: &WorkerContext<T>,
    ) {
        let Some(names) = self.names() else { return };
        let started = self.started.unwrap_or(now);
        let duration = now.saturating_duration_since(started);
        let books = Books {
            listener: names.listener,
            route: names.route_metrics,
            peer: client.peer,
            is_logged: names.is_logged,
        };
        let counted = Counted {
            status: Some(end.status),
            reason: end.reason,
            duration,
        };
        let peer = client.peer.map(|peer| peer.ip());
        let outcome = || self.outcome(end, duration, peer, names);
        record(books, counted, outcome, ctx);
    }

    fn outcome<'a>(
        &'a self,
        end: RequestEnd,
        duration: Duration,
        peer: Option<IpAddr>,
        names: Names<'a>,
    ) -> Outcome<'a> {
        let capture = &self.capture;
        Outcome {
            protocol: match self.info.is_http10 {
                true => "HTTP/1.0",
                false => "HTTP/1.1",
            },
            client: match self.client.is_unknown {
                true => None,
                false => self.client.nearest.or(peer),
            },
            request: RequestText {
                id: capture.get(capture.id),
                method: capture.get(capture.method),
                host: capture.get(capture.host),
                uri: capture.get(capture.uri),
                user_agent: capture.get(capture.user_agent),
                referer: capture.get(capture.referer),
            },
            way: Way {
                route: names.route.map(|name| &**name),
                cluster: names.cluster.map(|name| &**name),
                backend: self.backend.as_deref(),
                attempts: (self.attempts > 0).then_some(self.attempts),
            },
            status: Some(end.status),
            reason: end.reason,
            cause: end.reason.and(end.cause),
            bytes_in: end.bytes_in,
            bytes_out: end.bytes_out,
            times: Times {
                duration,
                connect: self.connect,
                response: end.response,
            },
        }
    }

    /// Forgets everything but memory worth keeping.
    pub(crate) fn clear(&mut self) {
        let mut capture = std::mem::take(&mut self.capture);
        capture.clear();
        *self = Self {
            capture,
            ..Self::default()
        };
    }
}

/// Under which names a request is recorded.
#[derive(Debug, Clone, Copy)]
struct Names<'a> {
    listener: &'a Arc<ListenerMetrics>,
    route: Option<&'a Arc<str>>,
    route_metrics: Option<&'a Arc<RouteMetrics>>,
    cluster: Option<&'a Arc<str>>,
    is_logged: bool,
}

/// The names that outlive the generation.
#[derive(Debug)]
struct KeptNames {
    listener: Arc<ListenerMetrics>,
    route: Option<Arc<str>>,
    route_metrics: Option<Arc<RouteMetrics>>,
    cluster: Option<Arc<str>>,
    is_logged: bool,
}

/// Copies of parts of a request head: the id, and while the access log is on what that shows.
#[derive(Debug, Default)]
pub(crate) struct Capture {
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
pub(crate) struct Span(u32, u32);

impl Span {
    /// Whether nothing was captured.
    pub(crate) fn is_empty(self) -> bool {
        self.0 == self.1
    }
}

impl Capture {
    /// Keeps a copy of `value`, as far as the log shows it.
    pub(crate) fn keep(&mut self, value: &[u8]) -> Span {
        self.keep_up_to(value, MAX_TEXT)
    }

    /// Keeps a copy of a target, as far as the log shows it.
    pub(crate) fn keep_uri(&mut self, value: &[u8]) -> Span {
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
    pub(crate) fn get(&self, span: Span) -> &[u8] {
        &self.bytes[span.0 as usize..span.1 as usize]
    }

    /// Forgets everything but memory worth keeping.
    fn clear(&mut self) {
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
